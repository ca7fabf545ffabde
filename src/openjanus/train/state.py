"""States: all that a run needs to go on as if it had never stopped. Model, optimizers, average, and the place in the run.

No random state is among them: data and torch's generator are functions of the step. They are torch's distributed checkpoints, so
a state of any number of processes can be read by any other number.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from openjanus.checkpoints.writing import write_file
from openjanus.errors import CheckpointError
from openjanus.train.folder import aside, partial_of, states, writing
from openjanus.train.parallel import World

KEPT = 2
_PLACE = "place.json"


@dataclass(frozen=True)
class Place:
    """How far a run has come: steps done in a stage, steps and samples of the whole run."""

    stage: str
    stage_step: int
    step: int
    samples: int


def read_place(state: Path) -> Place:
    """Where a state stands; CheckpointError if it cannot be read."""
    try:
        return Place(**json.loads((state / _PLACE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"state {state} is damaged: {error}; remove it to go on from the one before") from error


@dataclass(frozen=True)
class _Unnamed:
    """A state that is being written. opened: what gives it its name when it is closed without an error."""

    target: Path
    place: Place
    written: "Future[Any] | None"
    opened: ExitStack


class Saver:
    """Writes the states of a run into a folder, one at a time: aside, then renamed. Every process has one and calls it alike.

    background: only copying the tensors keeps the run; the copies are written while it goes on. A state has its name when it is
    whole, so a kill at any time costs no more than the states that had none yet.
    """

    def __init__(self, folder: Path, world: World, background: bool = False) -> None:
        self._folder = folder
        self._world = world
        self._background = background
        # Processes talk about a state while they talk about steps: over lines of its own.
        self._group = dist.new_group(backend="gloo") if background and world.size > 1 else None
        self._unnamed: _Unnamed | None = None

    def save(self, tensors: dict[str, Tensor], place: Place) -> None:
        """Write a state, when the one before is whole; then all but the newest two are removed.

        TrainingError if the disk refuses, now or for the state before; the states that were there are untouched then.
        """
        self.finish()
        target = self._folder / f"{place.step:08d}"
        with writing(target), ExitStack() as opened, _plain_errors(), _quiet():
            partial = opened.enter_context(aside(target)) if self._world.leads else partial_of(target)
            self._world.barrier()
            written = None
            if self._background:
                # It has copied all when it returns, and then it returns this.
                written = cast("Future[Any]", async_save(tensors, checkpoint_id=partial, process_group=self._group))
            else:
                save(tensors, checkpoint_id=partial)
            self._unnamed = _Unnamed(target, place, written, opened.pop_all())
        if not self._background:
            self.finish()

    def look(self) -> None:
        """Name a state that has become whole in the background; one that has failed waits for `finish`."""
        written = self._unnamed.written if self._unnamed else None
        # The first process is the last to be done with a state: it describes what all have written.
        if self._world.leads and written is not None and written.done() and written.exception() is None:
            self._name()

    def finish(self) -> None:
        """Wait until the last state is whole, for every process; TrainingError if the disk refuses."""
        self._name()
        self._world.barrier()

    def close(self) -> None:
        """After an error that ends the run: name the last state if it becomes whole. Waits for no process that is not there."""
        with suppress(Exception):
            self._name()

    def _name(self) -> None:
        unnamed, self._unnamed = self._unnamed, None
        if unnamed is None:
            return
        with writing(unnamed.target), unnamed.opened, _plain_errors():
            if unnamed.written is not None:
                unnamed.written.result()
            if self._world.leads:
                write_file(partial_of(unnamed.target) / _PLACE, json.dumps(asdict(unnamed.place)).encode())
        if self._world.leads:
            for old in states(self._folder)[KEPT:]:
                shutil.rmtree(old, ignore_errors=True)


def load_state(state: Path, tensors: dict[str, Tensor]) -> None:
    """Fill these tensors, in place, from a state; others that it holds are left. Every process calls it.

    CheckpointError if one is missing, has another shape, or the state is damaged.
    """
    try:
        with _plain_errors(), _quiet():
            load(tensors, checkpoint_id=state)
    except Exception as error:
        raise CheckpointError(
            f"state {state} cannot go on: {' '.join(str(error).split())}; if the frozen or ema of its stage was changed, "
            "change it back or choose another folder; if the state is damaged, remove it to go on from the one before"
        ) from error


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What went wrong in the first process that failed, instead of torch's report on all of them."""
    try:
        yield
    except CheckpointException as report:
        first: BaseException = next(iter(report.failures.values()))[0]
        cause: BaseException | None = first
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        raise (cause or first) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that one process is not several."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch.distributed")
        yield
