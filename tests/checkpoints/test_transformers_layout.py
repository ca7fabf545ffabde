"""Checkpoints converted to the transformers layout are read by transformers itself, and by us as what they were."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.files import EXTRA_FILE
from openjanus.checkpoints.layouts import TRANSFORMERS, slots
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.types import Message

from .conftest import assert_same_tensors, convertible_model

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
# Its classes take seconds to import: in one worker only.
pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def converted(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A published checkpoint and what it was converted to."""
    published, there = tmp_path / "published", tmp_path / "there"
    save_checkpoint(convertible_model(request.param), tiny.tiny_processor("janus"), published)
    convert_checkpoint(published, there, "transformers")
    return published, there


def test_transformers_loads_a_converted_checkpoint_with_identical_tensors(converted: tuple[Path, Path]):
    published, there = converted
    model, report = transformers.JanusForConditionalGeneration.from_pretrained(there, dtype="auto", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert not model.config.tie_word_embeddings
    ours = load_checkpoint(published).model
    tensors, table = ours.state_dict(), TRANSFORMERS.table(slots(ours))
    wanted = {
        name: tensor
        for key, stored in table.items()
        if stored
        for name, tensor in zip(stored.names, stored.scatter(tensors[key]), strict=True)
    }
    assert_same_tensors({name: tensor for name, tensor in model.state_dict().items() if name in wanted}, wanted)
    assert {name for name, _ in model.named_parameters()} <= wanted.keys()


def test_transformers_saves_what_we_load_again(converted: tuple[Path, Path], tmp_path: Path):
    published, there = converted
    model = transformers.JanusForConditionalGeneration.from_pretrained(there, dtype="auto")
    processor = transformers.AutoProcessor.from_pretrained(there)
    model.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    came, wanted = load_checkpoint(tmp_path / "theirs"), load_checkpoint(published)
    dropped = {name for name, stored in TRANSFORMERS.table(slots(wanted.model)).items() if stored is None}
    keep = lambda state: {name: tensor for name, tensor in state.items() if name not in dropped}  # noqa: E731
    assert_same_tensors(keep(came.model.state_dict()), keep(wanted.model.state_dict()))
    assert came.processor.chat.roles == ("<|User|>", "<|Assistant|>")
    assert came.processor.images.config == wanted.processor.images.config


def test_the_processor_of_transformers_gives_our_prompt(tmp_path: Path):
    published, there = tmp_path / "published", tmp_path / "there"
    processor = tiny.tiny_processor("janus")
    processor.chat = type(processor.chat)()
    save_checkpoint(convertible_model(), processor, published)
    convert_checkpoint(published, there, "transformers")
    theirs = transformers.AutoProcessor.from_pretrained(there)
    assert type(theirs).__name__ == "JanusProcessor"
    image = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many circles?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Three."}]},
        {"role": "user", "content": "Are they red?"},
    ]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    batch = theirs(images=[image], text=[text])
    ours = load_checkpoint(there).processor.understanding_prompt(
        [Message("user", "How many circles?", (image,)), Message("assistant", "Three."), Message("user", "Are they red?")]
    )
    assert batch["input_ids"][0].tolist() == ours.ids.tolist()
    torch.testing.assert_close(batch["pixel_values"].float(), ours.pixels, rtol=0, atol=1e-6)


def test_there_and_back_gives_every_bit_and_every_setting(converted: tuple[Path, Path], tmp_path: Path):
    published, there = converted
    convert_checkpoint(there, tmp_path / "back", "deepseek")
    assert_same_tensors(load_file(tmp_path / "back" / "model.safetensors"), load_file(published / "model.safetensors"))
    for file in sorted(published.glob("*.json")):
        assert json.loads((tmp_path / "back" / file.name).read_text()) == json.loads(file.read_text()), file.name


def test_without_what_was_kept_beside_it_only_the_unused_tensors_are_zero(converted: tuple[Path, Path]):
    published, there = converted
    (there / EXTRA_FILE).unlink()
    (there / "openjanus_published.json").unlink()
    came, wanted = load_checkpoint(there), load_checkpoint(published)
    for name, tensor in wanted.model.state_dict().items():
        unused = "attn_pool" in name or "codebook_used" in name
        assert torch.equal(came.model.state_dict()[name], torch.zeros_like(tensor) if unused else tensor), name


def test_a_config_edited_after_the_conversion_counts_more_than_the_one_that_was_kept(converted: tuple[Path, Path]):
    _, there = converted
    path = there / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_parameters"]["rope_theta"] = 123.0
    path.write_text(json.dumps(config))
    assert load_checkpoint(there).config.language.rope_theta == 123.0
