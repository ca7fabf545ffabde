"""States: all that a run needs to go on as if it had never stopped. Model, optimizers, average, and the place in the run.

No random state is among them: data and torch's generator are functions of the step. They are torch's distributed checkpoints, so
a state of any number of processes can be read by any other number.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

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


def save_state(folder: Path, tensors: dict[str, Tensor], place: Place, world: World) -> None:
    """Write a state into `folder`, aside and then renamed, and remove all but the newest two. Every process calls it.

    TrainingError if the disk refuses; the states that were there are untouched then.
    """
    target = folder / f"{place.step:08d}"
    with writing(target), aside(target) if world.leads else nullcontext(partial_of(target)) as partial:
        world.barrier()
        with _plain_errors(), _quiet():
            save(tensors, checkpoint_id=partial)
        if world.leads:
            write_file(partial / _PLACE, json.dumps(asdict(place)).encode())
    if world.leads:
        for old in states(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    world.barrier()


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
