"""A bad record gives its place to the next good one: the same on every process and at any time, and never in silence."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.data.records import Records
from openjanus.data.samples import Sample
from openjanus.data.skipping import MOST, first_good
from openjanus.errors import ConfigError, DataError
from openjanus.train.from_checkpoint import CheckpointSettings, recipe_of
from openjanus.train.overrides import override
from openjanus.train.plan import dry_run
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.skipped import Skipped

from .running import ALONE, HERE, Notes, curve, run, start

TUNING = HERE / "tuning.py"
BAD = (2, 3, 7)
RECORDS = 12


def text(sample: Sample) -> str:
    """What a sample says; DataError for record 7, which is read but of no use."""
    if sample.messages[0].text == "useless":
        raise DataError(f"{sample.origin}: it is useless")
    return sample.messages[0].text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Twelve records of text, of which the third and fourth are broken and the eighth is useless."""
    lines = [json.dumps({"text": f"Number {number}."}) for number in range(RECORDS)]
    lines[2], lines[3], lines[7] = '{"text"', "[]", '{"text": "useless"}'
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


# -- which record takes the place ------------------------------------------------------


def test_the_next_good_record_takes_the_place_of_a_bad_one(path: Path):
    source = Records("text", [path], seed=5)
    found = [first_good(source, k, text) for k in range(3 * RECORDS)]
    assert [first_good(source, k, text) for k in reversed(range(3 * RECORDS))] == found[::-1]
    good = {f"Number {number}." for number in range(RECORDS) if number not in BAD}
    for turn in range(3):
        of_pass = found[turn * RECORDS : (turn + 1) * RECORDS]
        assert {words for words, _ in of_pass} == good
        assert len({line for _, wrong in of_pass for line in wrong}) == len(BAD)
    for k, (words, wrong) in enumerate(found):
        if wrong and k % RECORDS + len(wrong) < RECORDS:
            assert words == found[k + len(wrong)][0]


def test_what_takes_a_place_has_the_chance_of_the_place(path: Path):
    source = Records("text", [path], seed=5)
    assert {source.instead(4, turns).seed for turns in range(RECORDS) if readable(source, turns)} == {source.instead(4, 0).seed}


def readable(source: Records, turns: int) -> bool:
    try:
        source.instead(4, turns)
    except DataError:
        return False
    return True


def test_nothing_but_bad_records_is_an_error(tmp_path: Path):
    path = tmp_path / "a.jsonl"
    path.write_text("[]\n" * 5, encoding="utf-8")
    with pytest.raises(DataError, match=r"5 records in a row cannot be used, the first .*a\.jsonl, line .*openjanus data check"):
        first_good(Records("text", [path]), 0, text)
    path.write_text("[]\n" * (2 * MOST), encoding="utf-8")
    with pytest.raises(DataError, match=f"{MOST} records in a row"):
        first_good(Records("text", [path]), 0, text)


# -- a run -----------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """What a tuning starts from: texts of which one is too long, pictures of which one is missing and one is no image."""
    save_checkpoint(tiny.tiny_model("janus"), tiny.tiny_processor("janus"), tmp_path / "init")
    chance = np.random.default_rng(0)
    pairs = []
    for number in range(8):
        if number != 3:
            Image.fromarray(chance.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        pairs.append({"caption": f"noise {number}", "image": f"{number}.png"})
    (tmp_path / "5.png").write_bytes(b"no image")
    (tmp_path / "paint.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    texts = [{"text": f"Number {number}. " * (300 if number == 1 else 1)} for number in range(5)]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    data = [f"settings.data.{kind}={tmp_path}/{name}.jsonl" for kind, name in (("text", "text"), ("generation", "paint"))]
    return [f"settings.init={tmp_path}/init", *data]


@pytest.fixture
def recipe(settings: list[str]) -> Recipe:
    """The tuning on this data."""
    return override(load_recipe(str(TUNING)), settings)


def listed(folder: Path) -> list[str]:
    """The lines of a run's list."""
    return (folder / "skipped.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_skips_what_cannot_be_used_and_lists_it(tmp_path: Path, recipe: Recipe, workers: int):
    notes = Notes()
    assert run(tmp_path / "run", recipe=recipe, notes=notes, workers=workers).final is not None
    assert notes.notes == [f"3 records could not be used and were skipped; {tmp_path}/run/skipped.txt lists them"]
    told = sorted(line.partition(": ")[2] for line in listed(tmp_path / "run"))
    assert len(told) == 3
    assert "paint.jsonl, line 4: there is no image at" in told[0]
    assert "paint.jsonl, line 6: " in told[1] and "is not an image" in told[1]
    assert "text.jsonl, line 2: it has" in told[2] and "settings.context=256" in told[2]
    assert all(line.startswith("step ") for line in listed(tmp_path / "run"))


def test_a_dry_run_tells_what_it_skips(recipe: Recipe):
    plan = dry_run(recipe, ALONE)
    (stage,) = plan.stages
    assert stage.skipped and all(f"skips: {text}" in plan.to_text() for text in stage.skipped)


def test_a_run_without_bad_records_has_no_list(tmp_path: Path, recipe: Recipe):
    for name in ("paint", "text"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(path.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    notes = Notes()
    run(tmp_path / "run", recipe=recipe, notes=notes)
    assert not (tmp_path / "run" / "skipped.txt").exists()
    assert notes.notes == []


def test_two_processes_learn_from_the_samples_of_one(recipe: Recipe):
    task, (stage,) = recipe.task(recipe), recipe.stages
    for step in range(4):
        (alone,) = task.batches(stage, step, 0, 1)
        together = [batch for rank in range(2) for batch in task.batches(stage, step, rank, 2)]
        assert sorted(alone.skipped) == sorted(line for batch in together for line in batch.skipped)
        assert sorted(alone.content.seeds.tolist()) == sorted(seed for one in together for seed in one.content.seeds.tolist())
        pictures = [picture for one in together for picture in one.content.pictures]
        assert all(any(torch.equal(picture, other) for other in pictures) for picture in alone.content.pictures)
        assert alone.counts["positions"] == sum(one.counts["positions"] for one in together)


def test_a_run_that_was_stopped_by_a_bad_record_may_go_on_without_it(tmp_path: Path, recipe: Recipe):
    with pytest.raises(DataError, match=r"mend it or take it out|shorten it or take it out"):
        run(tmp_path / "run", recipe=override(recipe, ["settings.on_error=stop", "save_every=1"]))
    notes = Notes()
    assert run(tmp_path / "run", recipe=recipe, notes=notes).final is not None
    assert any("settings.on_error stop -> skip" in note for note in notes.notes)
    run(tmp_path / "straight", recipe=recipe)
    assert listed(tmp_path / "run") == listed(tmp_path / "straight")
    assert curve(tmp_path / "run") == curve(tmp_path / "straight")


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_two_processes_list_what_one_does(tmp_path: Path, settings: list[str], recipe: Recipe):
    process = start(tmp_path / "together", settings, processes=2, recipe=TUNING)
    run(tmp_path / "alone", recipe=recipe)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert sorted(listed(tmp_path / "together")) == sorted(listed(tmp_path / "alone"))
    assert err.count("3 records could not be used and were skipped") == 1


def test_a_resumed_run_lists_what_it_skips_once(tmp_path: Path):
    skipped = Skipped(tmp_path, 0)
    skipped.add(1, ["a: broken", "b: broken\nindeed"])
    skipped.add(2, ["a: broken", "c: broken"])
    with (tmp_path / "skipped.txt").open("a") as file:
        file.write("step 2")  # the machine stopped here
    again = Skipped(tmp_path, 1)
    assert len(again) == 2
    again.add(2, ["c: broken", "a: broken"])
    assert (tmp_path / "skipped.txt").read_text() == "step 1: a: broken\nstep 1: b: broken indeed\nstep 2: c: broken\n"


def test_another_word_for_on_error_is_refused(recipe: Recipe):
    with pytest.raises(ConfigError, match=r"settings\.on_error is 'ignore'; it must be stop or skip"):
        override(recipe, ["settings.on_error=ignore"])
    spoiled = recipe_of("tuning", recipe.stages, CheckpointSettings(on_error="ignore"))
    with pytest.raises(ConfigError, match=r"settings\.on_error is 'ignore'; it must be stop or skip"):
        spoiled.task(spoiled)
