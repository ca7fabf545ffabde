"""Pictures encoded once: the same curve from a folder of codes or latents, and only what is not there is computed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from openjanus.train.encoded import Encoded
from openjanus.train.overrides import override
from openjanus.train.stage import Stage
from openjanus.train.unified import UnifiedTask

from .running import curve, run
from .unified_toy import recipe

STAGE = Stage("tune", steps=3, batch=4, rate=1e-3, mix={"generation": 1})


def test_a_run_that_reads_codes_or_latents_has_the_curve_of_one_that_computes_them(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plain = override(recipe(variant, [STAGE]), ["settings.random_crop=false"])
    run(tmp_path / "plain", recipe=plain)
    kept = override(plain, [f"settings.encoded={tmp_path / 'kept'}"])
    run(tmp_path / "first", recipe=kept)
    files = sorted((tmp_path / "kept").rglob("*.npy"))
    assert len(files) == 12
    # A second run computes nothing: its encoder cannot.
    task = kept.task(kept)
    assert isinstance(task, UnifiedTask)
    generation = task.module.generation
    encoder = generation.tokenizer if variant == "janus" else generation.vae
    monkeypatch.setattr(type(encoder.encoder), "forward", _refuse)
    run(tmp_path / "second", recipe=kept)
    for folder in ("first", "second"):
        for line, wanted in zip(curve(tmp_path / folder), curve(tmp_path / "plain"), strict=True):
            assert line["losses"] == pytest.approx(wanted["losses"], rel=1e-5)
    assert sorted((tmp_path / "kept").rglob("*.npy")) == files


def _refuse(self: object, pictures: torch.Tensor) -> torch.Tensor:
    assert len(pictures) == 0, "it was computed already"
    raise AssertionError


def test_other_weights_and_other_pictures_are_not_mistaken(tmp_path: Path):
    pictures = torch.from_numpy(np.random.default_rng(0).random((3, 2, 2), dtype=np.float32))
    one, other = (Encoded(tmp_path, [torch.full((2,), value)]) for value in (1.0, 2.0))
    assert torch.equal(one.of(pictures, lambda x: x + 1), pictures + 1)
    assert torch.equal(other.of(pictures, lambda x: x + 2), pictures + 2)
    seen: list[int] = []

    def count(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return x + 1

    again = torch.cat((pictures[:2], pictures[:1] * 3))
    assert torch.equal(one.of(again, count), again + 1) and seen == [1]
    # A file that was cut off is made again.
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(one.of(pictures, count), pictures + 1) and seen == [1, 3]
