"""Conversions change where bits lie, and no bit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.files import EXTRA_FILE, open_weights
from openjanus.checkpoints.load import load_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.janus import JanusModel

from .conftest import Save, assert_same_tensors, convertible_model
from .spoiling import FORMATS, WHOLE, paddle_tensors, take_tensors, write_pdparams


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [100_000, 10**9])
def test_there_and_back_gives_every_bit(tmp_path: Path, dtype: torch.dtype, size: int):
    save_checkpoint(convertible_model(dtype), tiny.tiny_processor("janus"), tmp_path / "published")
    convert_checkpoint(tmp_path / "published", tmp_path / "there", "transformers", max_shard_size=size)
    convert_checkpoint(tmp_path / "there", tmp_path / "back", "deepseek")
    wanted = load_file(tmp_path / "published" / WHOLE)
    assert_same_tensors(load_file(tmp_path / "back" / WHOLE), wanted)
    there = open_weights(tmp_path / "there")
    assert "lm_head.weight" in there.headers
    assert there.headers["model.vision_model.encoder.layers.0.self_attn.q_proj.weight"].shape == (24, 24)
    kept = set(load_file(tmp_path / "there" / EXTRA_FILE))
    assert kept == {name for name in wanted if "attn_pool" in name or name.endswith("codebook_used")}


def test_dtypes_stay_as_they_are_even_mixed(tmp_path: Path):
    model = convertible_model(torch.bfloat16)
    model.language.model.norm.weight.data = model.language.model.norm.weight.data.float()
    model.generation.tokenizer.quantize.codebook_used = model.generation.tokenizer.quantize.codebook_used.float()
    save_checkpoint(model, tiny.tiny_processor("janus"), tmp_path / "published")
    convert_checkpoint(tmp_path / "published", tmp_path / "there", "transformers")
    convert_checkpoint(tmp_path / "there", tmp_path / "back", "deepseek")
    assert_same_tensors(load_file(tmp_path / "back" / WHOLE), load_file(tmp_path / "published" / WHOLE))


@pytest.mark.parametrize("kind", FORMATS)
def test_any_file_format_becomes_one_safetensors_file_with_every_bit(save: Save, variant: str, kind: str, tmp_path: Path):
    folder = save(variant)
    wanted = load_file(folder / WHOLE)
    FORMATS[kind](folder)
    convert_checkpoint(folder, tmp_path / "there")
    assert_same_tensors(load_file(tmp_path / "there" / WHOLE), wanted)
    if variant == "janusflow":
        name = "vae/diffusion_pytorch_model.safetensors"
        assert_same_tensors(load_file(tmp_path / "there" / name), load_file(folder / name))


@pytest.mark.parametrize("llama", ["model", "llama"])
def test_a_paddlemix_checkpoint_becomes_either_layout(tmp_path: Path, llama: str):
    model = convertible_model(torch.bfloat16)
    folder = tmp_path / "paddle"
    save_checkpoint(model, tiny.tiny_processor("janus"), folder)
    wanted = take_tensors(folder)
    write_pdparams(paddle_tensors(model, "janus", llama), folder / "model_state.pdparams")
    for layout in ("deepseek", "transformers"):
        convert_checkpoint(folder, tmp_path / layout, layout)
        assert_same_tensors(load_checkpoint(tmp_path / layout).model.state_dict(), model.state_dict())
    assert_same_tensors(load_file(tmp_path / "deepseek" / WHOLE), wanted)


def test_a_conversion_may_replace_its_own_source(tmp_path: Path):
    folder = tmp_path / "checkpoint"
    save_checkpoint(convertible_model(), tiny.tiny_processor("janus"), folder)
    wanted = load_file(folder / WHOLE)
    settings = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    convert_checkpoint(folder, folder, "transformers")
    assert load_checkpoint(folder).layout == "transformers"
    convert_checkpoint(folder, folder, "deepseek")
    assert_same_tensors(load_file(folder / WHOLE), wanted)
    assert {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")} == settings
    assert not (folder / EXTRA_FILE).exists()


def test_a_flow_checkpoint_without_a_vae_stays_without(save: Save, tmp_path: Path):
    folder = save("janusflow")
    for path in (folder / "vae").iterdir():
        path.unlink()
    (folder / "vae").rmdir()
    convert_checkpoint(folder, tmp_path / "there")
    assert not (tmp_path / "there" / "vae").exists()
    assert_same_tensors(load_file(tmp_path / "there" / WHOLE), load_file(folder / WHOLE))


def test_what_cannot_be_converted_is_refused_before_anything_is_written(save: Save, tmp_path: Path):
    for variant, layout, word in (
        ("janusflow", "transformers", "JanusFlow"),
        ("janus", "transformers", "image head"),
        ("janus", "gguf", "unknown layout 'gguf'"),
    ):
        with pytest.raises(ConfigError, match=word):
            convert_checkpoint(save(variant, f"{variant}-{layout}"), tmp_path / "there", layout)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="notes is not empty"):
        convert_checkpoint(save("janus", "third"), tmp_path / "notes")
    assert not (tmp_path / "there").exists() and len(list((tmp_path / "notes").iterdir())) == 1


def test_nothing_but_the_source_itself_is_ever_replaced(save: Save, tmp_path: Path):
    source, other = save("janus", "source"), save("janus", "other", dtype=torch.bfloat16)
    before = {path.name: path.read_bytes() for path in other.iterdir()}
    with pytest.raises(CheckpointError, match="other is not empty; convert into a new or empty folder"):
        convert_checkpoint(source, other)
    assert {path.name: path.read_bytes() for path in other.iterdir()} == before
    (tmp_path / "link").symlink_to(source)
    convert_checkpoint(source, tmp_path / "link")
    assert load_checkpoint(source).layout == "deepseek" and (tmp_path / "link").is_symlink()


def test_the_sdxl_vae_is_not_fetched(save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = save("janusflow")
    shutil.rmtree(folder / "vae")

    def download(name: str, local_files_only: bool, **_: object) -> str:
        assert local_files_only, f"{name} was fetched"
        raise ConnectionError

    monkeypatch.setattr("openjanus.checkpoints.locate.snapshot_download", download)
    convert_checkpoint(folder, tmp_path / "there")
    assert not (tmp_path / "there" / "vae").exists()


def test_a_grid_that_transformers_would_not_paint_on_is_refused_with_both(tmp_path: Path):
    config = convertible_model().config
    model = JanusModel(replace(config, generation=replace(config.generation, grid=(3, 5))))
    save_checkpoint(model, tiny.tiny_processor("janus"), tmp_path / "published")
    with pytest.raises(ConfigError, match=r"3 x 5 codes .* 4 x 4 patches"):
        convert_checkpoint(tmp_path / "published", tmp_path / "there", "transformers")
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["~nobody-of-that-name/there", "a\0b", "a" * 5000])
def test_a_destination_that_is_no_path_is_one_line(save: Save, name: str):
    with pytest.raises(CheckpointError, match="no path that can be used") as error:
        convert_checkpoint(save("janus"), name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_untrained_stays_untrained(tmp_path: Path):
    save_checkpoint(convertible_model(), tiny.tiny_processor("janus"), tmp_path / "published", untrained=True)
    convert_checkpoint(tmp_path / "published", tmp_path / "there", "transformers")
    convert_checkpoint(tmp_path / "there", tmp_path / "back")
    assert load_checkpoint(tmp_path / "there").untrained and load_checkpoint(tmp_path / "back").untrained
