"""Too little memory, wherever in a run it shows: the error says for what and what may help, and the run can go on."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjanus.errors import EngineError, TrainingError
from openjanus.train import plan
from openjanus.train.folder import states
from openjanus.train.learner import fitting
from openjanus.train.recipe import Recipe
from openjanus.train.task import Task

from .running import ALONE, Notes, run
from .toy import RECIPE, Toy

BUILDING = r"the model of stage (adapt|tune) with its optimizers does not fit into the memory of cpu; freeze more"
BESIDE = r"stage (adapt|tune) does not fit into the memory of cpu; free some of it and start the same command again"
SHORT = replace(RECIPE, preview_every=6, stages=tuple(replace(stage, steps=5) for stage in RECIPE.stages))


def exhaust(*arguments: object, **settings: object) -> None:
    """Ask torch for a petabyte, as a model that is too large would."""
    torch.empty(1 << 50, dtype=torch.uint8)


# Where it is too little; what is said; how many states there are then.
PLACES = {
    "openjanus.train.learner.spread": (BUILDING, 0),
    "openjanus.train.learner.build_optimizers": (BUILDING, 0),
    "openjanus.train.state.load": (BESIDE, 2),
    "openjanus.train.state.save": (BESIDE, 0),
    "batches": (BESIDE, 0),
    "losses": ("step 1: a step of stage adapt does not fit into the memory of cpu; set stages.adapt.micro_batch lower", 0),
    "preview": ("a preview in stage tune does not fit into the memory of cpu; set preview_every=0", 2),
    "export": (BESIDE, 2),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_said_for_what_and_the_run_goes_on_with_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str):
    words, kept = PLACES[place]
    with monkeypatch.context() as less:
        if "." in place:
            less.setattr(place, exhaust)
        else:
            less.setattr(Toy, place, exhaust)
        with pytest.raises(TrainingError, match=words) as told:
            run(tmp_path / "run", recipe=SHORT)
    newest = states(tmp_path / "run" / "state")
    assert len(newest) == kept
    where = f"The last state is that of step {int(newest[0].name)}, in" if newest else "No state was saved yet"
    assert where in str(told.value)
    assert run(tmp_path / "run", recipe=SHORT).step == 10


def test_a_later_stage_that_cannot_be_built_leaves_what_the_one_before_has_learned(tmp_path: Path):
    built: list[Recipe] = []

    def build(recipe: Recipe) -> Task[object]:
        built.append(recipe)
        if len(built) > 1:
            exhaust()
        return Toy(recipe)

    with pytest.raises(TrainingError, match=rf"{BUILDING}.*stages.tune.ema=none.*The last state is that of step 5"):
        run(tmp_path / "run", recipe=replace(SHORT, task=build))
    notes = Notes()
    assert run(tmp_path / "run", recipe=SHORT, notes=notes).step == 10
    assert notes.notes == ["going on from step 5, in stage adapt"]


def test_a_dry_run_says_it_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.train.learner.build_optimizers", exhaust)
    with pytest.raises(TrainingError, match=BUILDING):
        plan.dry_run(SHORT, ALONE)


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "cuda:1"),
        (RuntimeError("CUDA error: out of memory"), "cuda:1"),
        (EngineError("too little memory for all that ran at once; allow fewer lanes"), "cuda:1"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "cpu"),
        (MemoryError("Unable to allocate 1.0 TiB for an array"), "cpu"),
    ],
)
def test_whose_memory_it_is_is_told(error: Exception, place: str):
    with pytest.raises(TrainingError, match=rf"^it does not fit into the memory of {place}; help$"):  # noqa: SIM117
        with fitting("it", torch.device("cuda:1"), "help"):
            raise error


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match=r"^shapes do not fit$"), fitting("it", torch.device("cpu"), "help"):
        raise RuntimeError("shapes do not fit")
