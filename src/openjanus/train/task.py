"""What a run trains. A task knows modules, data and losses; it does not know optimizers, processes or the files of a run.

The trainer asks a task for the batches of a step, for losses, now and then for a preview, and at the end to write the result.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from openjanus.train.stage import Stage


class Movable(Protocol):
    """Anything that can go to a device: a tensor, a dataclass of tensors with such a method."""

    def to(self, device: torch.device) -> Any:
        """The same on a device."""


C = TypeVar("C", bound=Movable)


@dataclass(frozen=True)
class Batch(Generic[C]):
    """A micro-batch: what goes through the model at once on one process.

    counts: how much there is of each thing that losses are divided by (supervised tokens, codes, images); known before the model
    runs, so that a step can be divided by its total. tokens: positions that the model runs over, where the word has a meaning.
    skipped: what is wrong with the records that could not be used and whose places others have taken, one text each.
    origins: where its samples were found ("faces.jsonl, line 7"), to be named if their loss is no number; what was made up for
    the occasion has none.
    """

    content: C
    counts: Mapping[str, float]
    tokens: int = 0
    skipped: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Loss(NamedTuple):
    """A loss of one micro-batch as a sum.

    A step minimises the sum over its losses of weight * sum / count, where count is the total of `counts[over]` over all
    micro-batches of all processes; `over` is the loss's own name unless it says otherwise. Two losses over one count weigh
    every position of both the same; two over their own counts weigh the two means the same. The log shows sum / counts[own name],
    or sum / count where nothing of that name is counted.
    """

    sum: Tensor
    weight: float = 1.0
    over: str | None = None


@dataclass(frozen=True)
class Phase(Generic[C]):
    """One of the updates that a step makes in turn: the losses it lowers and the parameters it moves."""

    name: str
    losses: Callable[[C], Mapping[str, Loss]]
    parameters: tuple[str, ...] = ()
    """The parts it moves, by the beginnings of their parameters' names; () is everything. Phases share no parameter."""


class Task(ABC, Generic[C]):
    """A module and what it learns from. Subclass it; the constructor takes the recipe and sets `module`.

    With several processes the module is sharded. Then losses must enter it by its own call or by a method named in `entrances`,
    every process must run the same parts of it each time (on an empty input, where a kind is missing), and no parameter may be
    a scalar (give it shape [1]).
    """

    module: nn.Module
    """Everything that is saved. What never trains has requires_grad False; what a stage freezes, the trainer freezes."""
    blocks: tuple[str, ...] = ()
    """Lists of modules ("language.model.layers") whose members are checkpointed, compiled and sharded one by one."""
    notes: tuple[str, ...] = ()
    """What people should know before it begins to learn."""
    entrances: tuple[str, ...] = ()
    """Methods of the module, beside its own call, by which losses and previews enter it."""

    def records(self) -> Mapping[str, int]:
        """How many records there are of each kind that is learned from; a run that goes on should find as many."""
        return {}

    def look(self) -> Sequence[str]:
        """Look at what is never learned from, before the first step: what is wrong with records that are left out of it.

        DataError where such a record ends the run. The same on every process.
        """
        return ()

    @abstractmethod
    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[C]]:
        """The micro-batches of process `rank` of `world` for a step of a stage, counted from 0; tensors on the CPU.

        A pure function: it remembers nothing from call to call and draws nothing but from (recipe.seed, stage, step), so that a
        run goes on where it stopped and any number of processes sees the same samples. It may run in a process of its own and
        must not use the module.
        """

    def losses(self, content: C) -> Mapping[str, Loss]:
        """The losses of a micro-batch by name; it is on the device, under autocast, with torch seeded for the step."""
        raise NotImplementedError(f"{type(self).__name__} must define losses or phases")

    @property
    def phases(self) -> tuple[Phase[C], ...]:
        """The updates of a step in their order; most tasks have one. The losses of all of them have different names."""
        return (Phase("model", self.losses),)

    def precision(self, name: str) -> torch.dtype | None:
        """What a parameter is held in that does not move, by its name; None leaves it as it is. What moves is float32."""
        return None

    def validation(self, stage: Stage, rank: int, world: int) -> Mapping[str, Sequence[Batch[C]]]:
        """Micro-batches of what is never learned from, by kind, for process `rank` of `world`: the same every time.

        Every process has one of each kind at least, if only to run along: one that counts nothing adds nothing.
        """
        return {}

    def metrics(self) -> Mapping[str, float]:
        """Numbers beside the losses that are worth a curve; asked after each step."""
        return {}

    def after_step(self, stage: Stage, step: int) -> None:
        """What must change in the module otherwise than by a gradient: dead codes brought back to life."""

    @property
    def has_preview(self) -> bool:
        """Whether there is anything to preview; if not, no preview is made. The same on every process."""
        return True

    def preview(self, folder: Path | None, step: int) -> None:
        """Show what has been learned: write samples and answers into an empty folder.

        The module is in eval mode and holds the moving average if there is one. Every process calls this and must run the module
        alike; folder is None on all but one of them.
        """

    @abstractmethod
    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write what was learned, as people will load it, into an empty folder. One process calls this.

        tensors: the module's state_dict, whole, float32, on the CPU, the moving average in place of what it is the average of.
        """
