"""The recipes that made the bundled models: their first hundred steps, and a step of every stage; the ablation's ends.

The parts they start from lie in recipes/parts.
"""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from openjanus.janus import load
from openjanus.train.metrics import Line
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .running import Notes, curve, run

ROOT = Path(__file__).resolve().parents[2]
# What the mean of a loss over the last ten of a hundred steps stays below; at first it is about the number behind.
LEARNED = {
    "tiny_tokenizer": ("l1", 0.2),  # 0.4
    "tiny_encoder": ("colour", 0.35),  # 2.2
    "tiny_vae": ("l1", 0.2),  # 0.4
    "tiny_language": ("text", 1.5),  # 6.5
    "tiny_janus": ("image", 1.0),  # 5.6
    "tiny_janusflow": ("image", 1.0),  # 2.0
}


class Until(Notes):
    """A reporter that stops the run, as Ctrl-C does, after so many steps."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last

    def step(self, line: Line, steps: int) -> None:
        if line.step == self.last:
            signal.raise_signal(signal.SIGINT)


def bundled(name: str) -> Recipe:
    """A recipe of a bundled model or of a part."""
    return load_recipe(str(ROOT / "recipes" / f"{name}.py"))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # minutes on a machine with other work
@pytest.mark.parametrize("name", LEARNED)
def test_the_first_hundred_steps_learn(name: str, tmp_path: Path):
    result = run(tmp_path / "run", recipe=replace(bundled(name), preview_every=0), notes=Until(100))
    assert (result.step, result.signal) == (100, signal.SIGINT)
    loss, limit = LEARNED[name]
    lines = curve(tmp_path / "run")
    assert len(lines) == 100
    assert sum(line["losses"][loss] for line in lines[-10:]) / 10 < limit


@pytest.mark.parametrize("name", ["tiny_janus", "tiny_janusflow"])
def test_a_step_of_every_stage_ends_in_a_model_that_loads(name: str, tmp_path: Path):
    recipe = bundled(name)
    stages = tuple(replace(stage, steps=1, batch=8) for stage in recipe.stages)
    result = run(tmp_path / "run", recipe=replace(recipe, stages=stages, preview_every=0))
    assert [line["stage"] for line in curve(tmp_path / "run")] == ["adapt", "names", "pretrain", "tune"]
    assert result.final is not None
    assert load(result.final).generate("a red circle", seed=0)[0].size == (48, 48)


@pytest.mark.parametrize("name", ["janus", "janusflow"])
def test_a_run_may_begin_with_all_weights_of_a_result(name: str):
    recipe = bundled(f"tiny_{name}")
    folder = ROOT / "src/openjanus/assets" / f"{name}-tiny"
    begun = recipe.task(replace(recipe, settings=replace(recipe.settings, begin=str(folder)))).module.state_dict()
    shipped = load(folder, dtype="float32").model.state_dict()
    assert shipped.keys() <= begun.keys()
    assert [key for key in shipped if not begun[key].float().equal(shipped[key])] == []


@pytest.mark.parametrize("name", ["ablation_decoupled", "ablation_shared", "ablation_single"])
def test_an_ablation_ends_in_a_score(name: str, tmp_path: Path):
    recipe = bundled(name)
    stages = tuple(replace(stage, steps=1, batch=8) for stage in recipe.stages)
    recipe = replace(recipe, stages=stages, settings=replace(recipe.settings, cases=1))
    result = run(tmp_path / "run", recipe=recipe)
    assert result.final is not None
    report = json.loads((result.final / "report.json").read_text(encoding="utf-8"))
    assert 0 <= report["overall"]["mean"] <= 1


def test_the_ablations_differ_in_nothing_but_what_they_ask():
    decoupled, shared, single = (bundled(f"ablation_{name}") for name in ("decoupled", "shared", "single"))
    assert len({sum(stage.steps for stage in recipe.stages) for recipe in (decoupled, shared, single)}) == 1
    assert [replace(stage, frozen=()) for stage in decoupled.stages] == [replace(stage, frozen=()) for stage in shared.stages]
    assert replace(shared.settings, shared=False) == decoupled.settings == single.settings
    assert single.stages == (replace(decoupled.stages[-1], steps=single.stages[0].steps),)
