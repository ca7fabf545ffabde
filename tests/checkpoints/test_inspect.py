"""An inspection tells what a checkpoint is and what is wrong with it, without reading its weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.files import SafetensorsFile
from openjanus.checkpoints.inspect import inspect_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.errors import CheckpointError, ConfigError

from .conftest import Save, convertible_model
from .spoiling import WHOLE, take_tensors


def test_a_good_checkpoint_is_described(save: Save, variant: str):
    folder = save(variant, dtype=torch.bfloat16)
    report = inspect_checkpoint(folder)
    assert (report.variant, report.layout, report.format) == (
        {"janus": "Janus", "janusflow": "JanusFlow"}[variant],
        "deepseek",
        "safetensors",
    )
    assert report.problems == report.missing == report.extra == [] and not report.misshapen
    assert set(report.dtypes) == {"bfloat16"}
    assert report.files[WHOLE] == (folder / WHOLE).stat().st_size
    assert sum(report.parameters.values()) == sum(p.numel() for p in tiny.tiny_model(variant).parameters())
    tokenizer = tiny.tiny_processor(variant).tokenizer
    assert report.special_tokens["<image_placeholder>"] == tokenizer.image
    assert report.special_tokens["<｜▁pad▁｜>"] == tokenizer.pad
    assert ("<｜begin▁of▁generation｜>" in report.special_tokens) == (variant == "janusflow")
    assert report.roles == (["User", "Assistant"] if variant == "janusflow" else ["<|User|>", "<|Assistant|>"])
    assert report.vae == (str(folder / "vae") if variant == "janusflow" else "")
    assert json.loads(json.dumps(report.to_json()))["parameters"] == report.parameters
    for words in (report.variant, "deepseek, safetensors", "bfloat16", "language", "problems        none"):
        assert words in report.to_text(), report.to_text()


def test_no_weight_is_read(saved: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(self: SafetensorsFile, name: str) -> torch.Tensor:
        raise AssertionError(f"{name} was read")

    monkeypatch.setattr(SafetensorsFile, "read", refuse)
    assert inspect_checkpoint(saved).problems == []


def test_a_converted_checkpoint_is_described_as_what_it_is(tmp_path: Path):
    save_checkpoint(convertible_model(), tiny.tiny_processor("janus"), tmp_path / "published", untrained=True)
    convert_checkpoint(tmp_path / "published", tmp_path / "there", "transformers")
    report = inspect_checkpoint(tmp_path / "there")
    assert (report.layout, report.variant, report.problems, report.untrained) == ("transformers", "Janus", [], True)
    assert "untrained" in report.to_text()


def test_what_is_missing_extra_and_misshapen_is_listed_in_full(save: Save):
    folder = save("janus")
    tensors = take_tensors(folder)
    gone = [name for name in tensors if ".mlp." in name]
    for name in gone:
        del tensors[name]
    save_file({**tensors, "other": torch.zeros(2), "gen_embed.weight": torch.zeros(2, 8)}, folder / WHOLE)
    report = inspect_checkpoint(folder)
    assert sorted(report.missing) == sorted(gone)
    assert report.extra == ["other"]
    assert report.misshapen == {"gen_embed.weight": {"came": [2, 8], "wanted": [48, 8]}}
    assert len(report.problems) == 1 and f"{len(gone)} missing" in report.to_text()


def test_absent_weights_tokenizer_and_vae_are_problems_and_not_failures(save: Save):
    folder = save("janusflow")
    (folder / WHOLE).unlink()
    (folder / "tokenizer.json").unlink()
    for path in (folder / "vae").iterdir():
        path.unlink()
    (folder / "vae").rmdir()
    report = inspect_checkpoint(folder)
    assert len(report.problems) == 2
    assert any("no weights" in problem for problem in report.problems)
    assert any("tokenizer.json" in problem for problem in report.problems)
    assert report.vae.startswith("none")
    assert "none that fits" in report.to_text()


def test_what_is_no_checkpoint_at_all_fails_in_one_line(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="llama"):
        inspect_checkpoint(tmp_path)
