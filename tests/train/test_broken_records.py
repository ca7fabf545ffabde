"""Records that break, vanish or grow in number under a run: what was learned before is kept, and the run says what it found."""

import json
from pathlib import Path

import pytest

from openjanus.errors import ConfigError, DataError, TrainingError
from openjanus.train.finetune import FinetuneSettings
from openjanus.train.folder import states
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .on_disk import checkpoint, records
from .running import HERE, Notes, curve, run, start

FULL = HERE.parents[1] / "recipes" / "finetune_full.py"
SMALL = (
    *("stages.tune.steps=8", "stages.tune.batch=2", "stages.tune.warmup=0", "stages.tune.precision=float32"),
    *("settings.held_out=0", "settings.context=256", "preview_every=0", "validate_every=0"),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Sixteen records of text, of which eight steps of two read each once."""
    return Path(records(tmp_path / "data", count=16)["text"])


@pytest.fixture
def settings(tmp_path: Path, path: Path) -> list[str]:
    """What trains on them."""
    return [*SMALL, f"settings.init={checkpoint('janus', tmp_path / 'init')}", f"settings.data.text={path}"]


def small(settings: list[str], *more: str) -> Recipe:
    """The run."""
    return override(load_recipe(str(FULL)), [*settings, *more])


def spoil(path: Path, line: int) -> str:
    """Break a record; what the file was."""
    before = path.read_text(encoding="utf-8")
    lines = before.splitlines()
    lines[line] = "{}"
    path.write_text("\n".join(lines), encoding="utf-8")
    return before


def read_at(made: Recipe, step: int) -> int:
    """Which line the first sample of a step stands on, counted from 0."""
    task, (stage,) = made.task(made), made.stages
    (batch,) = task.batches(stage, step, 0, 1)
    return int(batch.origins[0].rpartition(" ")[2]) - 1


def test_a_broken_record_costs_no_step_that_was_taken_before_it(tmp_path: Path, path: Path, settings: list[str]):
    made = small(settings)
    run(tmp_path / "straight", recipe=made)
    whole = spoil(path, read_at(made, 5))
    with pytest.raises(DataError, match=r"text\.jsonl, line \d+: .*\. The last state is that of step 5, in"):
        run(tmp_path / "run", recipe=made)
    assert [int(state.name) for state in states(tmp_path / "run" / "state")] == [5]
    # Still broken, it stops at once, and what was there stays.
    with pytest.raises(DataError, match="The last state is that of step 5"):
        run(tmp_path / "run", recipe=made)
    path.write_text(whole, encoding="utf-8")
    notes = Notes()
    assert run(tmp_path / "run", recipe=made, notes=notes).final is not None
    assert notes.notes[0].startswith("going on from step 5") and not any("changed" in note for note in notes.notes)
    assert curve(tmp_path / "run") == curve(tmp_path / "straight")


def test_at_the_first_step_there_is_nothing_to_keep(tmp_path: Path, path: Path, settings: list[str]):
    made = small(settings)
    spoil(path, read_at(made, 0))
    with pytest.raises(DataError, match="No state was saved yet"):
        run(tmp_path / "run", recipe=made)
    assert not states(tmp_path / "run" / "state")


def test_where_nothing_can_be_saved_both_reasons_are_told(
    tmp_path: Path, path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise TrainingError("the disk is full")

    made = small(settings)
    spoil(path, read_at(made, 5))
    monkeypatch.setattr("openjanus.train.trainer.Saver.save", refuse)
    both = r"text\.jsonl, line \d+: .*; and the steps before it could not be saved: the disk is full\. No state was saved yet"
    with pytest.raises(DataError, match=both):
        run(tmp_path / "run", recipe=made)


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_a_record_that_one_process_cannot_read_stops_both_with_a_state(
    tmp_path: Path, path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TYPER_STANDARD_TRACEBACK", "1")
    made = small(settings)
    whole = spoil(path, read_at(made, 5))
    process = start(tmp_path / "run", settings, processes=2, recipe=FULL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "DataError" in err and "The last state is that of step 5, in" in err
    assert len(curve(tmp_path / "run")) == 5
    path.write_text(whole, encoding="utf-8")
    assert run(tmp_path / "run", recipe=made).step == 8


def test_what_is_held_out_is_looked_at_before_the_first_step(tmp_path: Path, path: Path, settings: list[str]):
    spoil(path, 0)
    made = small(settings, "settings.held_out=1", "validate_every=100")
    with pytest.raises(DataError, match=r"text\.jsonl, line 1: .*No state was saved yet"):
        run(tmp_path / "run", recipe=made)
    assert not curve(tmp_path / "run")


def test_what_is_held_out_and_broken_is_counted_and_listed(tmp_path: Path, path: Path, settings: list[str]):
    spoil(path, 0)
    notes = Notes()
    run(tmp_path / "run", recipe=small(settings, "settings.held_out=1", "settings.on_error=skip"), notes=notes)
    (line,) = (tmp_path / "run" / "skipped.txt").read_text(encoding="utf-8").splitlines()
    assert line.startswith("step 0: ") and "text.jsonl, line 1: " in line
    assert "1 record could not be used and was skipped" in notes.notes[-1]


def test_replay_of_few_records_leaves_others_room_to_stand_in(tmp_path: Path, settings: list[str]):
    files = records(tmp_path / "others", count=12)
    for kind, kept in (("understanding", 2), ("text", 12)):
        path = Path(files[kind])
        path.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:kept]), encoding="utf-8")
    for line in range(9):
        spoil(Path(files["text"]), line)
    replay = [f"settings.replay.{kind}={files[kind]}" for kind in ("understanding", "text")]
    made = small(settings, *replay, "stages.tune.mix.replay=9", "settings.on_error=skip", "stages.tune.batch=12")
    assert run(tmp_path / "run", recipe=made).final is not None
    assert len((tmp_path / "run" / "skipped.txt").read_text(encoding="utf-8").splitlines()) == 9


def test_a_run_that_finds_another_number_of_records_says_so(tmp_path: Path, path: Path, settings: list[str]):
    run(tmp_path / "run", recipe=small(settings, "stages.tune.steps=2"))
    path.write_text(path.read_text(encoding="utf-8") + "\n" + json.dumps({"text": "One more."}), encoding="utf-8")
    for steps, told in ((3, 1), (4, 0)):
        notes = Notes()
        run(tmp_path / "run", recipe=small(settings, f"stages.tune.steps={steps}"), notes=notes)
        found = [note for note in notes.notes if "there are 17 records of text, and there were 16" in note]
        assert len(found) == told


@pytest.mark.parametrize(("key", "value"), [("held_out", -3), ("first_sentence", 1.5)])
def test_numbers_of_records_and_shares_are_checked(key: str, value: float):
    with pytest.raises(ConfigError, match=rf"settings\.{key} is {value}; it must be"):
        FinetuneSettings(**{key: value})  # type: ignore[arg-type]
