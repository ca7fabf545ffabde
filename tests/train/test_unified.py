"""Unified runs of both variants: killed and resumed, and spread over two processes."""

import json
import os
import signal
from pathlib import Path

import pytest

from openjanus.janus import load
from openjanus.train.folder import states
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.state import read_place

from .running import curve, run, start, wait_for

FILE = Path(__file__).parent / "unified_recipe.py"
SLOW = "settings.delay=0.3"
# After how many steps a run is killed: once in each of its two stages, of 5 steps and 6, with a state every 2.
CUTS = {"janus": (3, 8), "janusflow": (4, 7)}


@pytest.fixture
def recipe(variant: str, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The short unified recipe of each variant in turn, here and in child processes."""
    monkeypatch.setitem(os.environ, "UNIFIED_VARIANT", variant)
    return load_recipe(str(FILE))


def losses(folder: Path) -> list[dict[str, float]]:
    return [line["losses"] for line in curve(folder)]


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_a_run_killed_in_each_stage_goes_on_to_the_same_curve_and_exports_a_checkpoint(
    recipe: Recipe, variant: str, tmp_path: Path
):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(straight, recipe=recipe)
    assert len(curve(straight)) == recipe.steps
    for cut, stage in zip(CUTS[variant], recipe.stages, strict=True):
        process = start(resumed, [SLOW], recipe=FILE)
        wait_for(process, resumed, cut)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        last = curve(resumed)[-1]
        assert cut <= last["step"] < recipe.steps
        # It stopped in this stage, and goes on from a state inside it.
        assert last["stage"] == stage.name == read_place(states(resumed / "state")[0]).stage
    run(resumed, recipe=override(recipe, [SLOW]))
    assert curve(resumed) == curve(straight)
    model = load(straight / "final")
    assert isinstance(model.understand("What is 3?", max_tokens=2), str)
    assert model.generate("noise", steps=1)[0].mode == "RGB"
    assert "alignment" not in json.dumps(list(model.model.state_dict()))


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_two_processes_give_the_curve_of_one(recipe: Recipe, tmp_path: Path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    process = start(together, [], processes=2, recipe=FILE)
    run(alone, recipe=recipe)
    _, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    for one, two in zip(losses(alone), losses(together), strict=True):
        assert one.keys() == two.keys()
        for kind, value in one.items():
            assert two[kind] == pytest.approx(value, abs=1e-4), kind
