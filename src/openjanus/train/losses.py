"""A step's losses: sums over micro-batches and processes, divided once by what the whole step holds.

So a step is the same step however its samples are packed, split into micro-batches or spread over processes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from openjanus.train.parallel import World
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Phase


@dataclass(frozen=True)
class Total:
    """What all micro-batches of all processes hold together.

    rounds: micro-batches of the process that has most; idle: whether some process has none.
    """

    counts: Mapping[str, float]
    tokens: int
    rounds: int
    idle: bool

    def under(self, name: str, loss: Loss) -> float:
        """What a loss's sum is divided by to be lowered; 1 where there is nothing, so that it stays 0."""
        key = loss.over or name
        assert key in self.counts, f"the loss {name} is to be divided by {key}, which batches do not count: {list(self.counts)}"
        return self.counts[key] or 1.0


class Lowered(NamedTuple):
    """What a phase's loss came to over the whole step, the mean of each of its losses, and which of this process's micro-batches
    have a loss that is no finite number."""

    loss: float
    means: dict[str, float]
    bad: tuple[int, ...]


def add_up(batches: Sequence[Batch[Any]], world: World) -> Total:
    """The total of a step, from this process's part of it."""
    shares = world.gather(([batch.counts for batch in batches], sum(batch.tokens for batch in batches)))
    totals: dict[str, float] = {}
    for counts in (counts for share, _ in shares for counts in share):
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    rounds = [len(share) for share, _ in shares]
    return Total(totals, sum(tokens for _, tokens in shares), max(rounds), min(rounds) == 0)


def backward(phase: Phase[Any], contents: Sequence[Any], total: Total, stage: Stage, world: World) -> Lowered:
    """Leave the gradients of a phase's loss over the whole step; return what that loss is."""
    lowered: list[tuple[int, Tensor]] = []
    sums: dict[str, Tensor] = {}
    for number in range(total.rounds):
        # All processes run the module equally often; one with fewer micro-batches runs its last again, for nothing.
        share, place = 1.0 if number < len(contents) else 0.0, min(number, len(contents) - 1)
        with torch.autocast(world.device.type, torch.bfloat16, enabled=stage.precision == "bfloat16"):
            losses = phase.losses(contents[place])
        if not losses:
            continue
        parts = [loss.sum.float() * (loss.weight * share / total.under(name, loss)) for name, loss in losses.items()]
        whole = torch.stack(parts).sum()
        if whole.requires_grad:
            # Sharding divides the sum over the processes by their number; here that is undone.
            (whole * world.size).backward()
        lowered.append((place, whole.detach()))
        for name, loss in losses.items():
            if total.counts.get(name) == 0:
                continue
            # For people: a mean over its own kind, where its kind is counted.
            mean = loss.sum.detach().float() * (share / (total.counts.get(name) or total.under(name, loss)))
            sums[name] = sums[name] + mean if name in sums else mean
    own, lowering, means = _over_processes([whole for _, whole in lowered], sums, world)
    bad = {place for (place, _), value in zip(lowered, own, strict=True) if not math.isfinite(value)}
    return Lowered(lowering, means, tuple(sorted(bad)))


def measure(phases: Sequence[Phase[Any]], batches: Sequence[Batch[Any]], stage: Stage, world: World) -> dict[str, float]:
    """The mean of each loss over micro-batches of all processes, where something of its name is counted; moves nothing."""
    total = add_up(batches, world)
    sums: dict[str, Tensor] = {}
    for number in range(total.rounds):
        batch = batches[min(number, len(batches) - 1)]
        counted = number < len(batches) and bool(batch.counts)
        for phase in phases:
            with torch.no_grad(), torch.autocast(world.device.type, torch.bfloat16, enabled=stage.precision == "bfloat16"):
                losses = phase.losses(batch.content.to(world.device))
            for name, loss in losses.items():
                if count := total.counts.get(name):
                    mean = loss.sum.float() * (counted / count)
                    sums[name] = sums[name] + mean if name in sums else mean
    _, _, means = _over_processes([], sums, world)
    return means


def _over_processes(
    lowered: Sequence[Tensor], sums: Mapping[str, Tensor], world: World
) -> tuple[list[float], float, dict[str, float]]:
    """This process's shares of the loss as numbers; the loss and the means of all processes."""
    # One look at the device for all numbers: each would wait for it.
    numbers = [*lowered, *sums.values()]
    values = torch.stack(numbers).tolist() if numbers else []
    own: dict[str, float] = dict(zip(sums, values[len(lowered) :], strict=True))
    shares = world.gather((sum(values[: len(lowered)]), own))
    names = dict.fromkeys(name for _, part in shares for name in part)
    means = {name: sum(part.get(name, 0.0) for _, part in shares) for name in names}
    return values[: len(lowered)], sum(loss for loss, _ in shares), means
