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
from openjanus.cli import main
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
    assert report.sound and report.downloaded
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
    tensors = take_tensors(folder)
    (folder / "tokenizer.json").unlink()
    for path in (folder / "vae").iterdir():
        path.unlink()
    (folder / "vae").rmdir()
    report = inspect_checkpoint(folder)
    assert len(report.problems) == 2 and not report.sound
    assert set(report.missing) == set(tensors)
    assert any("no weights" in problem for problem in report.problems)
    assert any("tokenizer.json" in problem for problem in report.problems)
    assert report.vae.startswith("stabilityai/sdxl-vae (not bundled)")
    assert "none that fits" in report.to_text()


def test_of_a_hub_id_no_weights_are_fetched_and_the_report_says_so(
    save: Save, variant: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = save(variant)
    whole = inspect_checkpoint(folder)
    tensors = (folder / WHOLE).rename(tmp_path / "weights")
    for path in folder.glob("vae/*.safetensors"):
        path.unlink()

    def download(name: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert name == "deepseek-ai/some-janus"
        assert local_files_only or allow_patterns == ["*.json", "*.jinja"]
        return str(folder)

    monkeypatch.setattr("openjanus.checkpoints.locate.snapshot_download", download)
    report = inspect_checkpoint("deepseek-ai/some-janus")
    assert report.sound and not report.downloaded
    assert (report.layout, report.format, report.files, report.dtypes, report.missing) == ("", "", {}, {}, [])
    assert (report.parameters, report.special_tokens) == (whole.parameters, whole.special_tokens)
    assert "not downloaded" in report.to_text() and "layout          unknown" in report.to_text()
    if variant == "janus":
        tensors.rename(folder / WHOLE)
        report = inspect_checkpoint("deepseek-ai/some-janus")
        assert report.downloaded and report.layout == "deepseek"


def test_the_sdxl_vae_is_named_or_found_in_the_cache_and_never_fetched(
    save: Save, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = save("janusflow")
    (folder / "vae").rename(tmp_path / "cached")

    def download(name: str, local_files_only: bool, **_: object) -> str:
        assert name == "stabilityai/sdxl-vae" and local_files_only
        return str(tmp_path / "cached")

    monkeypatch.setattr("openjanus.checkpoints.locate.snapshot_download", download)
    assert inspect_checkpoint(folder).vae == str(tmp_path / "cached")
    (tmp_path / "cached" / "config.json").unlink()
    report = inspect_checkpoint(folder)
    assert report.vae.startswith("stabilityai/sdxl-vae (not bundled)") and report.sound


def test_the_command_ends_with_2_where_something_is_wrong(saved: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", str(saved)]) == 0
    (saved / WHOLE).unlink()
    for arguments in ([], ["--json"]):
        assert main(["inspect", str(saved), *arguments]) == 2
    captured = capsys.readouterr()
    assert "holds no weights" in captured.out and not captured.err


def test_what_is_no_checkpoint_at_all_fails_in_one_line(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json does not exist"):
        inspect_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ConfigError, match="llama"):
        inspect_checkpoint(tmp_path)
