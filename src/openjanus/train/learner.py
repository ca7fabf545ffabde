"""The learning of one stage: a module made ready for it, the optimizers that move it, and the step."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from openjanus.device import is_shortage
from openjanus.errors import ConfigError, EngineError, TrainingError
from openjanus.train.eight_bits import plain_tensors
from openjanus.train.losses import Total, add_up, backward, measure
from openjanus.train.optimizer import Average, build_optimizers, clip, set_rate
from openjanus.train.parallel import World, gathered, released, spread, whole_tensors
from openjanus.train.parts import belongs, freeze, sizes, trainable
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Phase

# So many records are named where a step fails.
_NAMED = 5


@dataclass(frozen=True)
class Outcome:
    """What a step came to, over all processes: the loss that was lowered, each loss's mean, each phase's gradient norm."""

    loss: float
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    rate: float
    tokens: int


class Learner:
    """A task's module in one stage, with optimizers a phase and perhaps a moving average. Every process has one."""

    def __init__(self, recipe: Recipe, stage: Stage, world: World) -> None:
        self.stage = stage
        self._seed = recipe.seed
        self._world = world
        name = stage.name
        advice = f"freeze more with stages.{name}.frozen, do without its average (stages.{name}.ema=none), or use more processes"
        with fitting(f"the model of stage {name} with its optimizers", world.device, advice):
            self._build(recipe, stage, world)

    def _build(self, recipe: Recipe, stage: Stage, world: World) -> None:
        torch.manual_seed(recipe.seed)
        torch.ones(1 << 20).sum()  # starts torch's threads before a step does, in the mode they keep
        self.task = recipe.task(recipe)
        # What no stage moves is built as it was, and need not be kept.
        self._fixed = {name for name, one in self.task.module.named_parameters() if not one.requires_grad}
        freeze(self.task.module, stage.frozen, f"stages.{stage.name}.frozen")
        self.sizes = sizes(self.task.module)
        spread(self.task, stage, world)
        self._moving = trainable(self.task.module)
        self._phases = self.task.phases
        self._moved = [self._moved_by(phase) for phase in self._phases]
        times = Counter(name for moved in self._moved for name in moved)
        assert all(times[name] == 1 for name in self._moving), f"each parameter belongs in one phase: {times}"
        self._optimizers = [build_optimizers(self.task.module, moved, stage, self.task.blocks) for moved in self._moved]
        self._average = None if stage.ema is None else Average(self._moving, stage.ema)

    def _moved_by(self, phase: Phase[Any]) -> dict[str, nn.Parameter]:
        found = {name: one for name, one in self._moving.items() if not phase.parameters or belongs(name, phase.parameters)}
        if not found:
            raise ConfigError(
                f"stages.{self.stage.name}.frozen leaves the phase {phase.name} nothing to train; leave it something"
            )
        return found

    def module_tensors(self) -> dict[str, Tensor]:
        """The module's tensors by their names in a state: those that some stage may move."""
        tensors = self.task.module.state_dict()
        return {f"module.{name}": tensor for name, tensor in tensors.items() if name not in self._fixed}

    def tensors(self) -> dict[str, Tensor]:
        """All that a state holds of this learner: the very tensors that the next step uses."""
        found = self.module_tensors()
        for phase, moved, optimizers in zip(self._phases, self._moved, self._optimizers, strict=True):
            movers = {id(parameter): optimizer for optimizer in optimizers for parameter in optimizer.state}
            for name, parameter in moved.items():
                state = plain_tensors(movers[id(parameter)], parameter)
                found |= {f"optimizer.{phase.name}.{name}.{key}": tensor for key, tensor in state.items()}
        if self._average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self._average.tensors.items()}
        return found

    def begin(self) -> None:
        """Start from the module as the stage before has left it, now that it has been filled in."""
        if self._average is not None:
            self._average.restart()

    def result(self) -> dict[str, Tensor]:
        """What was learned: the module's tensors, averaged, whole, on the CPU; nothing on all processes but the first."""
        with self._averaged():
            return whole_tensors(self.task.module, self._world)

    def validate(self) -> dict[str, float]:
        """The mean losses of what is never learned from, by kind and loss ("generation/image"): in eval mode, averaged."""
        modes = {part: part.training for part in self.task.module.modules()}
        advice = "set validate_every=0 to go on without validation"
        found: dict[str, float] = {}
        what = f"validation in stage {self.stage.name}"
        with fitting(what, self._world.device, advice), self._averaged(), released(self.task.module):
            self.task.module.eval()
            for kind, batches in self.task.validation(self.stage, self._world.rank, self._world.size).items():
                means = measure(self._phases, batches, self.stage, self._world)
                found |= {f"{kind}/{name}": mean for name, mean in means.items()}
        for part, training in modes.items():
            part.training = training
        return found

    def preview(self, folder: Path | None, step: int) -> None:
        """Let the task show what it has learned: in eval mode, averaged, whole; nothing of this outlasts the call."""
        modes = {part: part.training for part in self.task.module.modules()}
        what, advice = f"a preview in stage {self.stage.name}", "set preview_every=0 to go on without previews"
        with fitting(what, self._world.device, advice), self._averaged(), gathered(self.task.module), torch.no_grad():
            self.task.module.eval()
            with self._autocast():
                self.task.preview(folder, step)
        for part, training in modes.items():
            part.training = training

    def _autocast(self) -> torch.autocast:
        """The stage's precision, where a module holds weights of several."""
        several = len({one.dtype for one in self.task.module.parameters()}) > 1
        return torch.autocast(self._world.device.type, torch.bfloat16, enabled=several)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        with nullcontext() if self._average is None else self._average.in_place():
            yield

    def learn(self, step: int, batches: Sequence[Batch[Any]]) -> Outcome:
        """Take step `step` of the stage, counted from 0, with this process's micro-batches.

        TrainingError, before the phase at fault has moved anything: a loss or gradient that is no finite number, nothing to learn
        from, too little memory.
        """
        self._reseed(step)
        total = add_up(batches, self._world)
        self._check(step, total)
        name = self.stage.name
        advice = f"set stages.{name}.micro_batch lower, or stages.{name}.checkpointing=true, or use more processes"
        with fitting(f"a step of stage {name}", self._world.device, advice), _subnormals_flushed():
            return self._learn(step, batches, total)

    def _learn(self, step: int, batches: Sequence[Batch[Any]], total: Total) -> Outcome:
        contents = [batch.content.to(self._world.device) for batch in batches]
        rate = self.stage.rate_at(step)
        lowered = 0.0
        losses: dict[str, float] = {}
        norms: dict[str, float] = {}
        for phase, moved, optimizers in zip(self._phases, self._moved, self._optimizers, strict=True):
            loss, means, bad = backward(phase, contents, total, self.stage, self._world)
            norms[phase.name] = clip(moved, self.stage.clip)
            self._check_finite(means, norms[phase.name], batches, bad)
            for optimizer in optimizers:
                set_rate(optimizer, rate)
                optimizer.step()
            # Fused optimizers do not say that they have written, and an engine that previews looks at that.
            torch.autograd.graph.increment_version(list(moved.values()))
            # The whole module's: a phase also leaves gradients in parameters that it does not move.
            self.task.module.zero_grad()
            lowered += loss
            losses |= means
        if self._average is not None:
            self._average.update()
        self.task.after_step(self.stage, step)
        return Outcome(lowered, losses, norms, rate, total.tokens)

    def _reseed(self, step: int) -> None:
        """All chance in a step comes from the seed, the stage, the step and the process, so that no state need hold it."""
        words = np.random.SeedSequence([self._seed, crc32(self.stage.name.encode()), step, self._world.rank])
        torch.manual_seed(int(words.generate_state(1, np.uint64)[0]))

    def _check(self, step: int, total: Total) -> None:
        where = f"step {step} of stage {self.stage.name}"
        if total.idle:
            raise TrainingError(
                f"{where} leaves a process without samples: stages.{self.stage.name}.batch is {self.stage.batch} "
                f"and there are {self._world.size} processes; raise it or use fewer"
            )
        if not any(total.counts.values()):
            raise TrainingError(f"{where} has nothing to learn from: no sample of it supervises anything; look at the data")

    def _check_finite(self, losses: Mapping[str, float], norm: float, batches: Sequence[Batch[Any]], bad: Sequence[int]) -> None:
        numbers = {f"the loss {name}": loss for name, loss in losses.items()} | {"the gradient's norm": norm}
        for name, number in numbers.items():
            if not math.isfinite(number):
                # The losses and the norm are those of all processes, so all come here.
                raise TrainingError(
                    f"{name} is {number}; the step was not taken. {self._records(batches, bad)}A lower "
                    f"stages.{self.stage.name}.rate (now {self.stage.rate:g}), a longer warmup or a smaller clip may help"
                )

    def _records(self, batches: Sequence[Batch[Any]], bad: Sequence[int]) -> str:
        """A sentence about the records of all processes' bad micro-batches, or of the whole step if none is; "" without any."""
        shares = self._world.gather([(place in bad, batch.origins) for place, batch in enumerate(batches)])
        every = [part for share in shares for part in share]
        blamed = [part for part in every if part[0]] or every
        found = list(dict.fromkeys(origin for _, origins in blamed for origin in origins))
        if not found:
            return ""
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        which = f"{'It came with' if blamed[0][0] else 'The step held'} {'; '.join(found[:_NAMED])}{more}"
        closer = f" (stages.{self.stage.name}.micro_batch=1 tells which)" if blamed[0][0] and len(found) > 1 else ""
        return f"{which}{closer}: look at what stands there, and mend it if it is wrong. "


@contextmanager
def fitting(what: str, device: torch.device, advice: str) -> Iterator[None]:
    """Too little memory for something becomes a TrainingError, which says where it was short and what may help."""
    try:
        yield
    except TrainingError:
        raise  # said already, nearer to where it was
    except Exception as error:
        short = _shortage(error)
        if short is None:
            raise
        # Even with a GPU models are built, read and written in the machine's own memory.
        place = "cpu" if isinstance(short, MemoryError) or "CPUAllocator" in str(short) else device
        raise TrainingError(f"{what} does not fit into the memory of {place}; {advice}") from error


def _shortage(error: BaseException | None) -> BaseException | None:
    """Which of an error and its causes says that there is too little memory, if one does."""
    # Of an engine's errors no other can come here: it stops requests that take too long only where somebody set a time.
    while error is not None and not isinstance(error, EngineError) and not is_shortage(error):
        error = error.__cause__
    return error


@contextmanager
def _subnormals_flushed() -> Iterator[None]:
    """Numbers below 1e-38, of which gradients have many, cost a CPU several times as much as others, and count for nothing.

    It is a mode of a thread, here of this one alone, and left as it was found: others in this process may need such numbers.
    """
    before = (torch.tensor(1e-38) / 10).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
