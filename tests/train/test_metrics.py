"""The curves of a run beside metrics.jsonl: TensorBoard's, with it, without it, and when the disk is full."""

import errno
import os
import resource
from importlib.util import find_spec
from pathlib import Path

import pytest

from openjanus.errors import TrainingError
from openjanus.train import metrics
from openjanus.train.folder import states
from openjanus.train.metrics import Line

from .running import Notes, curve, run

SHORT = ("stages.steps=3", "save_every=2")
board = pytest.mark.skipif(find_spec("tensorboard") is None, reason="needs tensorboard")


def events(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a run: each curve's values by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: {event.step: event.value for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@board
def test_tensorboard_shows_the_losses_of_every_step(tmp_path: Path):
    run(tmp_path / "run", *SHORT)
    shown, lines = events(tmp_path / "run"), curve(tmp_path / "run")
    assert shown.keys() == {"loss", "rate", "samples_per_second", "seen", "losses/number", "losses/sign"}
    assert shown["losses/number"] == pytest.approx({line["step"]: line["losses"]["number"] for line in lines})
    assert shown["loss"] == pytest.approx({line["step"]: line["loss"] for line in lines})


@board
def test_a_full_disk_stops_the_run_and_nothing_is_lost_or_shown_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "run"

    class Filling(Notes):
        def step(self, line: Line, steps: int) -> None:
            if line.step == 5:
                narrow.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", full)

    with monkeypatch.context() as narrow:
        with pytest.raises(
            TrainingError, match=r"tfevents\.\d+ cannot be written: No space left on device; what was saved"
        ) as told:
            run(folder, *SHORT, notes=Filling())
        with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
            run(folder, *SHORT)
    assert "The last state is that of step 4" in str(told.value)
    assert run(folder, *SHORT).step == 6
    run(tmp_path / "straight", *SHORT)
    assert curve(folder) == curve(tmp_path / "straight")
    again, straight = events(folder), events(tmp_path / "straight")
    assert again["loss"] == straight["loss"] and sorted(again["loss"]) == [1, 2, 3, 4, 5, 6]


@board
def test_a_folder_for_it_that_cannot_be_made_is_said_at_the_start(tmp_path: Path):
    run(tmp_path / "run", "stages.adapt.steps=1", "stages.tune.steps=1")
    for file in (tmp_path / "run" / "tensorboard").iterdir():
        file.unlink()
    (tmp_path / "run" / "tensorboard").rmdir()
    (tmp_path / "run" / "tensorboard").write_text("mine")
    with pytest.raises(TrainingError, match="tensorboard cannot be written: File exists"):
        run(tmp_path / "run", "stages.adapt.steps=1", "stages.tune.steps=2")
    assert int(states(tmp_path / "run" / "state")[0].name) == 2


def test_training_is_the_same_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(tmp_path / "with", *SHORT)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    run(tmp_path / "without", *SHORT)
    assert curve(tmp_path / "without") == curve(tmp_path / "with")
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_a_full_disk_at_the_lines_themselves_is_said_and_nothing_is_lost(tmp_path: Path):
    folder, soft = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Notes):
        def step(self, line: Line, steps: int) -> None:
            if line.step == 5:
                # No file may grow beyond this; the rest of the line is still in memory when the file is closed.
                resource.setrlimit(resource.RLIMIT_FSIZE, ((folder / "metrics.jsonl").stat().st_size + 10, soft[1]))

    try:
        with pytest.raises(
            TrainingError, match=r"metrics\.jsonl cannot be written: File too large.*last state is that of step 4"
        ):
            run(folder, *SHORT, notes=Filling())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    assert run(folder, *SHORT).step == 6
    run(tmp_path / "straight", *SHORT)
    assert curve(folder) == curve(tmp_path / "straight")
