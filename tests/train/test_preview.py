"""Previews of unified training: what they show, that they change nothing, and too little memory for them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openjanus.data.records import RecordFiles
from openjanus.data.samples import Sample
from openjanus.errors import TrainingError
from openjanus.janus import load
from openjanus.train.folder import states
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .on_disk import checkpoint, records
from .running import curve, run
from .unified_toy import PAPERS, RECIPES, recipe, small


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


def test_without_prompts_and_questions_previews_show_held_out_records(variant: str, tmp_path: Path):
    files = records(tmp_path / "data", count=40)
    kinds = [kind for kind in files if variant == "janus" or kind != "editing"]
    data = [f"settings.{'replay' if kind == 'text' else 'data'}.{kind}={files[kind]}" for kind in kinds]
    made = finetune(checkpoint(variant, tmp_path / "init"), *data, "settings.held_out=3", "preview_every=1")
    run(tmp_path / "run", recipe=made)
    preview = tmp_path / "run" / "previews" / "00000001"
    final = load(tmp_path / "run" / "final")
    shown = {kind: records_in(files[kind]) for kind in kinds}
    painted = [sample for kind in ("generation", "editing") for sample in shown.get(kind, [])]
    pictures = final.generate(
        [sample.messages[0].text for sample in painted], [sample.messages[0].images for sample in painted], seed=0
    )
    lines = [f"{place}.png: {sample.messages[0].text} ({sample.origin})" for place, sample in enumerate(painted)]
    for kind in ("understanding", "text"):
        for sample in shown[kind]:
            asked = sample.messages[0]
            answer = final.understand(asked.text, asked.images or None, max_tokens=48)
            lines.append(f"{asked.text} ({sample.origin})\n  {answer}")
    assert sorted((preview / "preview.txt").read_text(encoding="utf-8").split("\n")) == sorted(
        "\n".join([*lines, ""]).split("\n")
    )
    assert [pixels(preview / f"{place}.png") for place in range(len(painted))] == [one.tobytes() for one in pictures]
    assert len(list(preview.iterdir())) == len(painted) + 1


def records_in(path: str) -> list[Sample]:
    """The first two of three records held out of forty."""
    return [RecordFiles([path]).sample(number) for number in (0, 13)]


def test_with_prompts_or_questions_held_out_records_are_not_shown(tmp_path: Path):
    files = records(tmp_path / "data")
    own = (f"settings.data.generation={files['generation']}", "settings.held_out=1", "settings.preview_questions=Who?")
    run(tmp_path / "run", recipe=finetune(checkpoint("janus", tmp_path / "init"), *own, "preview_every=1"))
    (preview,) = (tmp_path / "run" / "previews").iterdir()
    assert [path.name for path in preview.iterdir()] == ["preview.txt"]
    assert (preview / "preview.txt").read_text(encoding="utf-8").startswith("Who?\n  ")


@pytest.mark.parametrize("held_out", [0, 3])
def test_without_anything_to_show_there_is_no_preview(held_out: int, tmp_path: Path):
    (tmp_path / "plain.jsonl").write_text("\n".join(json.dumps({"text": f"Number {i}."}) for i in range(40)), encoding="utf-8")
    data = (f"settings.data.text={tmp_path}/plain.jsonl", f"settings.held_out={held_out}", "preview_every=1")
    result = run(tmp_path / "run", recipe=finetune(checkpoint("janus", tmp_path / "init"), *data))
    assert result.final is not None and not (tmp_path / "run" / "previews").exists()


def finetune(init: str, *more: str) -> Recipe:
    """One step of the fine-tuning recipe at the size of a test."""
    small = ("stages.tune.steps=1", "stages.tune.batch=8", "stages.tune.warmup=0", "stages.tune.precision=float32")
    sizes = ("settings.context=256", "settings.base=float32", "settings.saved=float32", "validate_every=0")
    return override(load_recipe(str(RECIPES / "finetune_full.py")), [*small, *sizes, f"settings.init={init}", *more])


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
