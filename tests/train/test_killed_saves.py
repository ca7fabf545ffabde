"""Saves that a kill cuts off half-way, in processes of their own: the state before stays, and the run goes on from it."""

from pathlib import Path

import pytest

from openjanus.train.folder import states

from .running import HERE, curve, start

# As the toy. The save of step 8 dies with the last process, its file cut in the middle; later that of step 12 dies with the first
# process, when all files are written and the state has still to be named. Each happens once, and leaves a file that says so.
DYING = f"""
import os
import signal
import sys
from pathlib import Path

from torch.distributed.checkpoint import FileSystemWriter

from openjanus.train import state

sys.path.insert(0, {str(HERE.parent)!r})
from train.toy import RECIPE

write_data, write_file = FileSystemWriter.write_data, state.write_file


def die_once(name):
    said = Path(__file__).with_name(name)
    if not said.exists():
        said.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def cut(self, *what):
    written = write_data(self, *what)
    if os.environ["RANK"] == "1" and Path(self.path).name.startswith("00000008"):
        written.wait()
        if not Path(__file__).with_name("cut").exists():
            for file in Path(self.path).glob("__1_*"):
                os.truncate(file, file.stat().st_size // 2)
        die_once("cut")
    return written


def die(path, content):
    if path.parent.name.startswith("00000012"):
        die_once("unnamed")
    write_file(path, content)


FileSystemWriter.write_data, state.write_file = cut, die
"""


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["while it waits", "while it goes on"])
def test_a_save_killed_half_way_leaves_the_state_before_and_torchrun_goes_on_to_the_same_curve(tmp_path: Path, how: str):
    recipe, settings = tmp_path / "dying.py", ["settings.dropout=0.2", *(["--async-saves"] if how == "while it goes on" else [])]
    recipe.write_text(DYING, encoding="utf-8")
    killed = start(tmp_path / "killed", settings, processes=2, recipe=recipe, restarts=2)
    _, told = killed.communicate(timeout=900)
    assert killed.returncode == 0, told
    assert (tmp_path / "cut").exists() and (tmp_path / "unnamed").exists()
    assert [f"going on from step {step}, in stage adapt" in told for step in (4, 10)] == [True, True], told
    straight = start(tmp_path / "straight", settings[:1], processes=2)
    _, told = straight.communicate(timeout=900)
    assert straight.returncode == 0, told
    assert curve(tmp_path / "killed") == curve(tmp_path / "straight")
    assert [int(state.name) for state in states(tmp_path / "killed" / "state")] == [20, 16]
    assert not list((tmp_path / "killed").rglob("*.partial"))
