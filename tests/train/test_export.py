"""What fine-tuning leaves gives the same logits in the drop-in, and in transformers once it is converted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import TokenGenerationConfig
from openjanus.janus import Janus, load
from openjanus.models.janus import JanusModel
from openjanus.processing.prompts import Prompt
from openjanus.train.overrides import override
from openjanus.train.recipe_files import load_recipe
from openjanus.types import Message

from .on_disk import checkpoint, records
from .running import run

transformers = pytest.importorskip("transformers", reason="transformers, which is compared with, is not installed")
# Its classes take seconds to import: in one worker only.
pytestmark = pytest.mark.xdist_group("transformers")

NAMES = ("finetune_full", "finetune_lora")
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


def tuned(name: str, init: str, folder: Path) -> Path:
    """What a recipe makes of a checkpoint."""
    files = records(folder / "data")
    data = [f"settings.data.{kind}={files[kind]}" for kind in ("generation", "understanding")]
    final = run(
        folder / "run", recipe=override(load_recipe(str(RECIPES / f"{name}.py")), [*SMALL, f"settings.init={init}", *data])
    ).final
    assert final is not None
    return final


def asked(janus: Janus) -> tuple[Prompt, torch.Tensor]:
    """A prompt with an image, and its logits [T, V]."""
    model, picture = janus.model, Image.effect_noise((16, 16), 80).convert("RGB")
    prompt = janus.processor.understanding_prompt([Message("user", "What is it?", (picture,))])
    with torch.no_grad():
        embedded = model.language.embed(prompt.ids)
        embedded[prompt.slots] = model.read(int(prompt.slots.sum()), prompt.pixels)
        return prompt, model.language.logits(model.language(embedded[None], torch.arange(len(prompt))[None]))[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_fine_tuned_model_has_the_same_logits_in_the_drop_in(name: str, variant: str, tmp_path: Path):
    import janus.janusflow.models
    import janus.models

    assert janus.models and janus.janusflow.models  # importing them is what registers the models
    final = tuned(name, checkpoint(variant, tmp_path / "init"), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(final), trust_remote_code=True).eval()
    ours = load(final, "cpu")
    prompt, logits = asked(ours)
    hidden = torch.randn(1, 5, ours.model.config.language.hidden_size)
    with torch.no_grad():
        embedded = theirs.prepare_inputs_embeds(
            input_ids=prompt.ids[None],
            pixel_values=prompt.pixels[None],
            images_seq_mask=prompt.slots[None],
            images_emb_mask=torch.ones(1, 1, int(prompt.slots.sum()), dtype=torch.bool),
        )
        torch.testing.assert_close(theirs.language_model(inputs_embeds=embedded).logits[0], logits, atol=2e-5, rtol=2e-5)
        if variant == "janus":
            torch.testing.assert_close(theirs.gen_head(hidden), ours.model.generation.logits(hidden), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_fine_tuned_model_has_the_same_logits_in_transformers(name: str, tmp_path: Path):
    init = convertible(tmp_path / "init")
    final = tuned(name, init, tmp_path)
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
        prompt, logits = asked(load(final, "cpu"))
        ids = prompt.ids.masked_fill(prompt.slots, theirs.config.image_token_id)[None]
        torch.testing.assert_close(theirs(input_ids=ids, pixel_values=prompt.pixels).logits[0], logits, atol=2e-5, rtol=2e-5)
