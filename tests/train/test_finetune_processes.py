"""Fine-tuning on 2 and 4 processes: the curve of one; states that any number goes on from; a rank that is killed."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from openjanus.train.folder import states
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .on_disk import checkpoint, records
from .running import HERE, curve, run, start, wait_for

FILE = HERE / "finetune_recipe.py"
# Starting a process takes most of the time, and on a busy machine much of it.
PATIENCE = 600
pytestmark = [pytest.mark.multiproc, pytest.mark.xdist_group("processes"), pytest.mark.timeout(3 * PATIENCE)]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The short recipe, here and in child processes."""
    records(tmp_path, count=30)
    checkpoint("janus", tmp_path / "init")
    monkeypatch.setitem(os.environ, "FINETUNE_FOLDER", str(tmp_path))
    return load_recipe(str(FILE))


def assert_the_same(one: Path, other: Path, off: float = 1e-4) -> None:
    lines, expected = curve(one), curve(other)
    assert [line["step"] for line in lines] == list(range(1, 21)) == [line["step"] for line in expected]
    for line, wanted in zip(lines, expected, strict=True):
        assert line["losses"] == pytest.approx(wanted["losses"], abs=off), line["step"]
        assert line["metrics"] == pytest.approx(wanted["metrics"], abs=off), line["step"]
    assert any("validation/editing/image" in line["metrics"] for line in lines)


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_give_the_curve_of_one_and_of_what_is_held_out(processes: int, recipe: Recipe, tmp_path: Path):
    process = start(tmp_path / "together", [], processes=processes, recipe=FILE)
    run(tmp_path / "alone", recipe=recipe)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert_the_same(tmp_path / "together", tmp_path / "alone")


def test_a_state_of_two_processes_goes_on_in_one_and_in_four(recipe: Recipe, tmp_path: Path):
    run(tmp_path / "alone", recipe=recipe)
    process = start(tmp_path / "one", ["stages.tune.steps=8"], processes=2, recipe=FILE)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    four = start(tmp_path / "four", [], processes=4, recipe=FILE)
    run(tmp_path / "one", recipe=recipe)
    _, error = four.communicate(timeout=PATIENCE)
    assert four.returncode == 0, error
    for folder in ("one", "four"):
        assert_the_same(tmp_path / folder, tmp_path / "alone")


def test_a_rank_that_is_killed_is_started_again_and_the_curve_goes_on_to_the_last_digit(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    straight = start(tmp_path / "straight", [], processes=2, recipe=FILE)
    assert straight.wait(timeout=PATIENCE) == 0
    monkeypatch.setitem(os.environ, "FINETUNE_DELAY", "0.2")
    process = start(tmp_path / "killed", [], processes=2, recipe=FILE, restarts=1)
    wait_for(process, tmp_path / "killed", 6)
    os.kill(_children(process.pid)[-1], signal.SIGKILL)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert curve(tmp_path / "killed") == curve(tmp_path / "straight")
    assert [int(state.name) for state in states(tmp_path / "killed" / "state")] == [20, 16]


def _children(parent: int) -> list[int]:
    """The processes that a process has started, as Linux tells it."""
    found: list[int] = []
    end = time.monotonic() + 10
    while not found and time.monotonic() < end:
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = entry.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(words[1]) == parent:
                found.append(int(entry.parent.name))
    return sorted(found)
