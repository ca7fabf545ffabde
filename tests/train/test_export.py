"""What fine-tuning leaves gives the same logits in transformers, once it is converted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import TokenGenerationConfig
from openjanus.janus import load
from openjanus.models.janus import JanusModel
from openjanus.train.overrides import override
from openjanus.train.recipe_files import load_recipe

from .on_disk import records
from .running import run

transformers = pytest.importorskip("transformers", reason="transformers, which is compared with, is not installed")
# Its classes take seconds to import: in one worker only.
pytestmark = pytest.mark.xdist_group("transformers")

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
SMALL = (
    *("stages.tune.steps=3", "stages.tune.batch=8", "stages.tune.warmup=0", "stages.tune.rate=1e-2", "settings.context=256"),
    *("stages.tune.precision=float32", "settings.base=float32", "settings.saved=float32", "preview_every=0"),
)


def convertible(folder: Path) -> str:
    """A small random checkpoint of sizes that transformers can hold: pictures are painted as they are read."""
    config = tiny.CONFIGS["janus"]
    assert isinstance(config.generation, TokenGenerationConfig)
    config = replace(config, generation=replace(config.generation, head_dim=config.language.hidden_size, grid=(4, 4)))
    torch.manual_seed(1)
    save_checkpoint(JanusModel(config).eval(), tiny.tiny_processor("janus"), folder)
    return str(folder)


@pytest.mark.parametrize("name", ["finetune_full", "finetune_lora"])
def test_a_fine_tuned_model_has_the_same_logits_in_transformers(name: str, tmp_path: Path):
    files, init = records(tmp_path / "data"), convertible(tmp_path / "init")
    data = [f"settings.data.{kind}={files[kind]}" for kind in ("generation", "understanding")]
    recipe = override(load_recipe(str(RECIPES / f"{name}.py")), [*SMALL, f"settings.init={init}", *data])
    final = run(tmp_path / "run", recipe=recipe).final
    assert final is not None
    convert_checkpoint(final, tmp_path / "theirs", "transformers")
    theirs = transformers.JanusForConditionalGeneration.from_pretrained(tmp_path / "theirs").eval()
    before, ours = load(init, "cpu").model, load(final, "cpu").model
    ids, codes = torch.arange(2, 42)[None], torch.arange(16)[None]
    hidden = torch.randn(1, 5, ours.config.language.hidden_size)
    with torch.no_grad():
        words = ours.language.logits(ours.language(ours.language.embed(ids), torch.arange(40)[None]))
        torch.testing.assert_close(theirs(input_ids=ids).logits, words, atol=2e-5, rtol=2e-5)
        embedded = ours.generation.embed_codes(codes)
        torch.testing.assert_close(theirs.prepare_embeddings_for_image_generation(codes), embedded, atol=2e-5, rtol=2e-5)
        logits = ours.generation.logits(hidden)
        torch.testing.assert_close(theirs.model.generation_head(hidden), logits, atol=2e-5, rtol=2e-5)
        assert (before.generation.logits(hidden) - logits).abs().max() > 1e-3, "it has learned something"
