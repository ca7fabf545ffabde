"""`openjanus bench`, on small checkpoints; what a number is worth is for people to judge."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from openjanus.bench.models import fill
from openjanus.bench.ours import step_flops
from openjanus.bench.timing import Times
from openjanus.checkpoints.load import build_empty
from openjanus.checkpoints.save import save_checkpoint
from openjanus.cli import main
from openjanus.config import PRESETS
from openjanus.engine.linear import placing
from openjanus.models.janus import JanusModel

Capture = pytest.CaptureFixture[str]


def bench(capsys: Capture, *arguments: object) -> dict[str, Any]:
    """The report of a command that works."""
    assert main(["bench", *map(str, arguments), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def kind_of(checkpoint: Path) -> str:
    return "flow" if checkpoint.name == "janusflow" else "generate"


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_a_report_has_prompt_step_and_the_share_of_the_limit(checkpoint: Path, quantize: str, capsys: Capture):
    report = bench(capsys, "understand", "--model", checkpoint, "--tokens", 3, "--rounds", 2, "--quantize", quantize)
    assert set(report["ours"]) == {"prompt_ms", "step_ms"}
    assert report["ours"]["step_ms"]["count"] == 2 * 3
    assert report["limit_fraction"] > 0 and report["step_bytes"] > 0 and report["bandwidth_gb_s"] > 0
    assert report["work"]["steps"] == 3


def test_steps_of_images_are_measured_up_to_the_pixels_or_cut_short(checkpoint: Path, capsys: Capture):
    short = bench(capsys, kind_of(checkpoint), "--model", checkpoint, "--steps", 3, "--rounds", 1, "-n", 2, "--prompts", 2)
    # A flow paints whole images in three steps: one with the prompt, one that ends in pixels.
    flow = kind_of(checkpoint) == "flow"
    assert short["ours"]["step_ms"]["count"] == (1 if flow else 3)
    assert ("end_ms" in short["ours"]) == flow
    assert short["limit"] == ("arithmetic" if flow else "memory") and short["limit_fraction"] >= 0
    whole = bench(capsys, kind_of(checkpoint), "--model", checkpoint, "--rounds", 1)
    assert whole["ours"]["end_ms"]["count"] == 1


def test_a_whole_image_is_its_prompt_its_steps_and_its_pixels():
    peer = Times(prompt=[1.0, 3.0], steps=[2.0, 2.0, 4.0], end=[5.0])
    assert peer.whole(10) == 2 + 10 * 2 + 5
    ours = Times(begun=1)
    ours.add(replace(peer, begun=1))
    # The prompt's time holds the first step.
    assert ours.whole(10) == 2 + 9 * 2 + 5


def test_a_flow_of_two_steps_is_refused(checkpoint: Path, capsys: Capture):
    if kind_of(checkpoint) == "flow":
        assert main(["bench", "flow", "--model", str(checkpoint), "--steps", "2"]) == 2
        told = capsys.readouterr().err
        assert "measure 3 or more" in told and "making" not in told, "before a model is made"
    # Of an answer two tokens are enough, whatever the model paints with.
    assert bench(capsys, "understand", "--model", checkpoint, "--tokens", 2, "--rounds", 1)["work"]["steps"] == 2


@pytest.mark.xdist_group("transformers")
def test_the_peer_runs_the_same_work_in_the_same_run(checkpoint: Path, capsys: Capture):
    pytest.importorskip("transformers", reason="the peer is built on transformers, which is not installed")
    for kind in (kind_of(checkpoint), "understand"):
        report = bench(capsys, kind, "--model", checkpoint, "--steps", 3, "--rounds", 1, "--peer", "eager")
        assert report["ratio"] > 0 and report["prompt_ratio"] > 0
        assert report["peer"]["step_ms"]["count"] == 3
        assert ("image_ratio" in report) == (kind == "flow")
    report = bench(capsys, kind_of(checkpoint), "--model", checkpoint, "--rounds", 1, "--peer", "eager")
    assert report["image_ratio"] > 0


@pytest.mark.xdist_group("transformers")
def test_transformers_own_port_is_a_peer_too(checkpoint: Path, tmp_path: Path, capsys: Capture):
    pytest.importorskip("transformers", reason="the peer is transformers, which is not installed")
    settings = ["--steps", 3, "--rounds", 1, "--peer", "transformers"]
    if kind_of(checkpoint) == "flow":
        assert main(["bench", "flow", "--model", str(checkpoint), *map(str, settings)]) == 2
        assert "JanusFlow" in capsys.readouterr().err
        return
    # transformers paints on the grid of the tower alone, with a head as wide as the model.
    config = tiny.CONFIGS["janus"]
    square = replace(config, generation=replace(config.generation, grid=(4, 4), head_dim=32))  # type: ignore[call-arg]
    save_checkpoint(JanusModel(square), tiny.tiny_processor("janus"), tmp_path / "square")
    for kind in ("generate", "understand"):
        report = bench(capsys, kind, "--model", tmp_path / "square", *settings)
        assert report["peer"]["step_ms"]["count"] == 3 and report["ratio"] > 0


def test_loading_is_timed_and_memory_counted_before_anything_runs(checkpoint: Path, capsys: Capture):
    assert bench(capsys, "load", "--model", checkpoint, "--rounds", 2)["seconds"]["min"] > 0
    sizes = {quantize: bench(capsys, "memory", "--quantize", quantize)["weights_mib"] for quantize in ("none", "int8", "int4")}
    assert sizes["none"] > sizes["int8"] > sizes["int4"]
    seven = bench(capsys, "memory", "--preset", "janus-pro-7b", "--quantize", "int4")
    assert seven["one_guided_image_mib"] < 8 * 1024
    longer = bench(capsys, "memory", "--preset", "janus-pro-7b", "--quantize", "int4", "--steps", 4096)
    assert longer["cache_of_a_row_mib"] > 5 * seven["cache_of_a_row_mib"]
    own = bench(capsys, "memory", "--model", checkpoint, "--steps", 320, "--dtype", "float32")
    assert own["positions"] == 320 and own["dtype"] == "float32" and own["model"] == str(checkpoint)
    assert main(["inspect", str(checkpoint), "--json", "--dtype", "float32", "--device", "cpu"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["weights_mib"] == own["weights_mib"] and memory["positions"] < 320
    assert main(["inspect", str(checkpoint), "--quantize", "int8"]) == 0
    assert "int8 and " in capsys.readouterr().out


def test_a_step_of_a_flow_is_held_against_what_the_machine_multiplies():
    config = PRESETS["janusflow-1.3b"]
    blocks = sum(p.numel() for p in build_empty(config).language.model.layers.parameters())
    # Two rows of 577 positions; attention and the network around the model are a tenth of it.
    assert 1 < step_flops(config, 3) / (3 * 2 * 577 * 2 * blocks) < 1.2


def test_mistakes_are_said(checkpoint: Path, capsys: Capture):
    assert main(["bench", "generate", "--preset", "janus-2b"]) == 2
    wrong = "generate" if kind_of(checkpoint) == "flow" else "flow"
    assert main(["bench", wrong, "--model", str(checkpoint)]) == 2
    assert main(["bench", "understand", "--model", str(checkpoint), "--peer", "llama"]) == 2
    told = capsys.readouterr().err
    assert "janus-2b" in told and f"measure {kind_of(checkpoint)}" in told and "it must be eager or transformers" in told


def test_every_tensor_of_a_preset_is_filled():
    config = PRESETS["janus-1.3b"]
    model = build_empty(config)
    model.language.model.layers = model.language.model.layers[:1]
    model.understanding.encoder.vision_tower.blocks = model.understanding.encoder.vision_tower.blocks[:1]
    model.language.lm_head = model.language.model.embed_tokens = torch.nn.Identity()  # type: ignore[assignment]
    fill(model, torch.device("cpu"), torch.bfloat16, placing("int4", config))
    left = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not left


def test_a_preset_is_not_loaded(capsys: Capture):
    assert main(["bench", "load", "--preset", "janus-pro-1b"]) == 2
    assert "load measures a checkpoint, and a preset is none; give --model" in capsys.readouterr().err
