"""The scripts in benchmarks/ run on the bundled models, and results say how they came about."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from openjanus.config import LanguageConfig
from openjanus.models.llama import Llama

ROOT = Path(__file__).resolve().parents[1]


def run(script: str, *arguments: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("model", ["janus-tiny", "janusflow-tiny"])
def test_what_quantisation_costs_is_nothing_at_first_and_more_with_fewer_bits(model: str):
    found = run("quantization.py", "--model", model, "--samples", "8")
    none, int8, int4 = (found[kind] for kind in ("none", "int8", "int4"))
    for head in ("text_error", "image_error"):
        assert 0 == none[head] < int8[head] < int4[head] < 0.5
    assert 1 < none["perplexity"] < 2 and 0 < none["image_loss"] < 1


def test_mixed_requests_come_to_the_same_together():
    found = run("mixed.py", "--rounds", "1")
    assert found["equal"] is True and found["ratio"] > 0


@pytest.mark.parametrize("model", ["janus-tiny", "janusflow-tiny"])
def test_time_is_told_by_part(model: str):
    found = run("time_by_part.py", "--model", model, "--steps", "3")
    answer, picture = found["answer_ms"], found["picture_ms"]
    assert answer["prompt"]["vision tower"] > 0 and answer["step"].keys() == {"language model", "text head", "engine"}
    assert picture["pixels"] > 0 and picture["steps"] == answer["steps"] == 3
    assert min(picture["step"].values()) > 0 and picture["prompt"]["language model"] > 0


def test_kernels_are_measured_beside_those_of_torch():
    found = run("kernels.py", "--rows", "64", "--outputs", "128", "--inputs", "128", "--rounds", "2")
    ours = {"ours"} if "attend_many" in found["kernels"] else set()
    assert found["attention"].keys() == {"torch"} | ours and "torch, bfloat16" in found["linear"]
    assert len(found["linear"]) == 1 + len({"bf16", "int8", "int4"} & set(found["kernels"]))
    assert all(one["median_ms"] >= one["least_ms"] > 0 for kind in ("linear", "attention") for one in found[kind].values())


def test_what_the_flow_sees_of_a_colour_is_far_from_the_ground():
    found = run("latents.py", str(ROOT / "recipes" / "parts" / "tiny_vae"))
    assert min(found["from_ground"].values()) > 2.5 and len(found["nearest"]) == 3 and found["read_back"] > 0.9


def test_a_flow_finishes_pictures_that_are_nearly_done():
    found = run("flow_restoring.py", "--times", "0.9", "1", "--task", "colors", "--pictures", "16")["right"]["colors"]
    assert found["0.9"] > 0.5 and found["1"] > 0.5


def test_the_products_of_a_training_step_are_those_that_are_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from train_step import products

    config = LanguageConfig(64, 64, 128, 2, 4)
    language = Llama(config)
    x = torch.randn(1, 16, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        language(x, torch.arange(16)[None]).sum().backward()
    # The counter knows no attention of this kind: scores and means, 64 wide, of half of all pairs, in two blocks, three times.
    attention = 3 * 2 * 2 * 2 * 64 * 16 * 16 / 2
    assert products(config, 0, True, [16]) == pytest.approx(counter.get_total_flops() + attention, rel=0.01)
    assert products(config, 0, False, [16]) == pytest.approx(counter.get_total_flops() * 2 / 3 + attention, rel=0.01)


def test_under_load_an_answer_that_is_cut_short_counts_as_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import httpx
    from serve_load import CHAT, IMAGES, Job, Lost, Tally, ask

    word = 'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == IMAGES:
            return httpx.Response(200, json={"data": []}) if b"stream" not in request.content else httpx.Response(200, text="")
        return httpx.Response(200, text=word + ("data: [DONE]\n\n" if b"whole" in request.content else ""))

    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server")
    assert ask(client, Job(CHAT, {"stream": True, "user": "whole"})) == "one"
    cut = [Job(CHAT, {"stream": True}), Job(IMAGES, {"prompt": "a", "n": 2}), Job(IMAGES, {"prompt": "a", "stream": True})]
    for job in cut:
        with pytest.raises(Lost):
            ask(client, job)
    assert not Tally(changed=Tally().changed).failed
    assert all(Tally(**{name: ["one"]}).failed for name in ("errors", "lost", "crossed"))


def test_results_say_how_they_were_measured():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        assert report["command"].split()[0] in ("openjanus", "python") and report["machine"], path.name
        assert path.name.startswith(report["date"]), path.name


def test_a_curve_is_of_each_step_once_and_of_the_steps_that_have_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from curves import curve, steps_of

    lines = [
        {"step": k, "samples": 32 * k, "losses": {"text": float(k)} | ({"image": 2.0 * k} if k > 2 else {})} for k in (1, 2, 3)
    ]
    # A killed run does again what came after its last state.
    again = {"step": 3, "samples": 96, "losses": {"text": 5.0, "image": 7.0}}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, again]))
    assert curve(steps_of(tmp_path), "text", 2) == ([64, 96], [1.5, 5.0])
    assert curve(steps_of(tmp_path), "image", 2) == ([96], [7.0])
