"""The parts' own runs on two processes: the curve of one, and codes that both bring back to life alike."""

import os
from pathlib import Path
from typing import Any

import pytest

from openjanus.checkpoints.parts import load_part
from openjanus.train.recipe_files import load_recipe

from .running import curve, run, start

FILE = Path(__file__).parent / "part_recipe.py"
BOOK = "generation.tokenizer.quantize.embedding.weight"


def on_two(part: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The curve of a part's run on two processes."""
    monkeypatch.setitem(os.environ, "PART", part)
    process = start(folder, [], processes=2, recipe=FILE)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return curve(folder)


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("part", ["tokenizer", "encoder"])
def test_two_processes_give_the_curve_of_one(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    together = on_two(part, tmp_path / "together", monkeypatch)
    run(tmp_path / "alone", recipe=load_recipe(str(FILE)))
    for line, expected in zip(together, curve(tmp_path / "alone"), strict=True):
        assert line["losses"] == pytest.approx(expected["losses"], rel=1e-4), line["step"]
        assert line["gradient_norms"] == pytest.approx(expected["gradient_norms"], rel=1e-3)


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_codes_are_revived_alike_on_both_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = on_two("reviving tokenizer", tmp_path / "run", monkeypatch)
    assert sum(line["metrics"]["revived"] for line in lines) > 0
    book = load_part(tmp_path / "run" / "final")[BOOK]
    # Each code that was revived is a vector of its own: no row came from one process and its neighbour from another's draw.
    assert book.isfinite().all() and len(book.unique(dim=0)) == len(book)
    assert (book.norm(dim=1) > 0.5).all()
