"""The recipes that made the bundled models: their first hundred steps, and a step of every stage.

The parts they start from lie in recipes/parts.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from openjanus.janus import load
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .running import curve, run

ROOT = Path(__file__).resolve().parents[2]
# What the mean of a loss over the last ten of a hundred steps stays below; at first it is about the number behind.
LEARNED = {
    "tiny_tokenizer": ("l1", 0.2),  # 0.4
    "tiny_encoder": ("colour", 0.35),  # 2.2
    "tiny_vae": ("l1", 0.2),  # 0.4
    "tiny_janus": ("text", 3.0),  # 6.5
    "tiny_janusflow": ("text", 3.0),  # 6.5
}


def bundled(name: str) -> Recipe:
    """A recipe of a bundled model or of a part."""
    return load_recipe(str(ROOT / "recipes" / f"{name}.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNED)
def test_the_first_hundred_steps_learn(name: str, tmp_path: Path):
    recipe = bundled(name)
    first = replace(recipe.stages[0], steps=100)
    run(tmp_path / "run", recipe=replace(recipe, stages=(first,), preview_every=0))
    loss, limit = LEARNED[name]
    lines = curve(tmp_path / "run")
    assert len(lines) == 100
    assert sum(line["losses"][loss] for line in lines[-10:]) / 10 < limit


@pytest.mark.parametrize(("name", "size"), [("tiny_janus", 48), ("tiny_janusflow", 64)])
def test_a_step_of_every_stage_ends_in_a_model_that_loads(name: str, size: int, tmp_path: Path):
    recipe = bundled(name)
    stages = tuple(replace(stage, steps=1, batch=8) for stage in recipe.stages)
    result = run(tmp_path / "run", recipe=replace(recipe, stages=stages, preview_every=0))
    assert [line["stage"] for line in curve(tmp_path / "run")] == ["text", "adapt", "names", "pretrain", "tune"]
    assert result.final is not None
    assert load(result.final).generate("a red circle", seed=0)[0].size == (size, size)
