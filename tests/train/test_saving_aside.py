"""States written while the run goes on: they are of their step, have a name when they are whole, and never two at once."""

import errno
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemWriter

from openjanus.errors import TrainingError
from openjanus.train.folder import states
from openjanus.train.state import Place, Saver, load_state

from .running import ALONE, curve, run, weights

CHANCE = "settings.dropout=0.2"
write_data = FileSystemWriter.write_data


def slow(self: FileSystemWriter, *what: Any) -> Any:
    """What a slow disk does: meanwhile some steps are taken."""
    time.sleep(0.2)
    return write_data(self, *what)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FileSystemWriter, "write_data", slow)


def wait_for(path: Path, saver: Saver) -> None:
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        saver.look()
        time.sleep(0.01)
    assert path.exists()


def test_a_run_goes_on_from_a_state_that_was_written_aside_as_if_it_had_waited_for_it(tmp_path: Path, slowly: None):
    folder = tmp_path / "run"
    run(folder, CHANCE, background=True)
    assert [path.name for path in states(folder / "state")] == ["00000020", "00000016"]
    run(tmp_path / "straight", CHANCE)
    assert curve(folder) == curve(tmp_path / "straight")
    shutil.rmtree(folder / "final")
    shutil.rmtree(folder / "state" / "00000020")
    run(folder, CHANCE)
    assert curve(folder) == curve(tmp_path / "straight")
    tensors = weights(tmp_path / "straight")
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in weights(folder).items())


def test_a_state_is_of_the_moment_it_was_asked_for_and_has_its_name_when_it_is_whole(tmp_path: Path, slowly: None):
    tensors, saver = {"w": torch.ones(3)}, Saver(tmp_path, ALONE, background=True)
    saver.save(tensors, Place("adapt", 1, 1, 8))
    tensors["w"].fill_(2)
    saver.look()
    assert states(tmp_path) == [] and (tmp_path / "00000001.partial").is_dir()
    wait_for(tmp_path / "00000001" / "place.json", saver)
    saver.save(tensors, Place("adapt", 2, 2, 16))
    saver.finish()
    for state, value in zip(states(tmp_path), (2, 1), strict=True):
        found = {"w": torch.zeros(3)}
        load_state(state, found)
        assert found["w"].tolist() == [value] * 3
    assert not list(tmp_path.glob("*.partial"))


def test_a_disk_that_refuses_meanwhile_is_told_at_the_next_save_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(self: FileSystemWriter, *what: Any) -> Any:
        if Path(self.path).name.startswith("00000008"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_data(self, *what)

    with monkeypatch.context() as disk, pytest.raises(TrainingError, match="00000008 cannot be written: No space left") as told:
        disk.setattr(FileSystemWriter, "write_data", full)
        run(tmp_path / "run", CHANCE, background=True)
    assert "The last state is that of step 4" in str(told.value)
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["00000004"]
    assert run(tmp_path / "run", CHANCE, background=True).step == 20


def test_a_run_that_fails_still_names_the_state_that_was_being_written(tmp_path: Path, slowly: None):
    with pytest.raises(TrainingError, match=r"the loss number is nan.*The last state is that of step 4"):
        run(tmp_path / "run", "settings.poison_at=4", background=True)
    assert [path.name for path in states(tmp_path / "run" / "state")] == ["00000004"]
