"""Previews of unified training: what they show, that they change nothing, and too little memory for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjanus.errors import TrainingError
from openjanus.janus import load
from openjanus.train.folder import states
from openjanus.train.recipe import Recipe

from .running import curve, run
from .unified_toy import PAPERS, recipe, small


@pytest.fixture
def shown(variant: str, tmp_path: Path) -> Recipe:
    """Two short stages of each variant in turn, the second with an average, and a preview every other step."""
    picture = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(picture)
    stages = {stage.name: stage for stage in (PAPERS.JANUSFLOW if variant == "janusflow" else PAPERS.JANUS)}
    # So fast that what is painted changes from preview to preview.
    made = recipe(variant, [small(stages["adapt"], steps=2, rate=0.03), small(stages["tune"], steps=2, rate=0.03, ema=0.5)])
    settings = replace(
        made.settings,
        preview_prompts=("noise", "much noise"),
        preview_questions=("What is it?",),
        preview_image=str(picture),
    )
    return replace(made, settings=settings, preview_every=2, save_every=2)


def test_a_preview_shows_what_the_model_as_it_stands_paints_and_answers(shown: Recipe, tmp_path: Path):
    run(tmp_path / "run", recipe=shown)
    previews = tmp_path / "run" / "previews"
    assert sorted(path.name for path in previews.iterdir()) == ["00000002", "00000004"]
    for preview in previews.iterdir():
        assert {path.name for path in preview.iterdir()} == {"0.png", "1.png", "preview.txt"}
    first, last = previews / "00000002", previews / "00000004"
    assert pixels(first / "0.png") != pixels(last / "0.png")
    # The last preview was made of what was then exported, with its average.
    final, settings = load(tmp_path / "run" / "final"), shown.settings
    for number, picture in enumerate(final.generate(list(settings.preview_prompts), seed=0)):
        assert pixels(last / f"{number}.png") == picture.tobytes()
    answer = final.understand("What is it?", [settings.preview_image], max_tokens=48)
    text = (last / "preview.txt").read_text(encoding="utf-8")
    assert text == f"0.png: noise\n1.png: much noise\nWhat is it?\n  {answer}\n"


def test_tensorboard_shows_previews_too(shown: Recipe, tmp_path: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(tmp_path / "run", recipe=replace(shown, settings=replace(shown.settings, preview_prompts=("noise",))))
    found = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    found.Reload()
    assert found.Tags()["images"] == ["preview/0"]
    first, last = found.Images("preview/0")
    folder = tmp_path / "run" / "previews"
    assert (first.step, first.encoded_image_string) == (2, (folder / "00000002" / "0.png").read_bytes())
    assert last.encoded_image_string == (folder / "00000004" / "0.png").read_bytes()
    (text,) = [event for event in found.Tensors("preview/preview") if event.step == 4]
    assert text.tensor_proto.string_val[0].decode().replace("  \n", "\n") == (folder / "00000004" / "preview.txt").read_text()


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.tobytes()


def test_the_curve_is_the_same_to_the_last_digit_with_previews_and_without(shown: Recipe, tmp_path: Path):
    run(tmp_path / "with", recipe=shown)
    run(tmp_path / "without", recipe=replace(shown, preview_every=0))
    assert curve(tmp_path / "with") == curve(tmp_path / "without")
    assert not (tmp_path / "without" / "previews").exists()
    one, other = (load(tmp_path / name / "final").model.state_dict() for name in ("with", "without"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_preview_that_does_not_fit_says_how_to_go_on_without(shown: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def exhaust(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as less:
        less.setattr("openjanus.engine.engine.Batch.step", exhaust)
        with pytest.raises(
            TrainingError, match=r"a preview in stage adapt does not fit .*; set preview_every=0 to go on"
        ) as told:
            run(tmp_path / "run", recipe=shown)
    assert "lanes" not in str(told.value) and "The last state is that of step 2" in str(told.value)
    assert not (tmp_path / "run" / "previews" / "00000002").exists()
    assert len(states(tmp_path / "run" / "state")) == 1
    assert run(tmp_path / "run", recipe=replace(shown, preview_every=0)).step == 4
