"""Two processes of which one or both meet a number that is none: both stop, and what was saved before stays."""

import re
from pathlib import Path

import pytest

from openjanus.train.folder import states

from .running import HERE, TOY, curve, run, start

# As the toy, but where the toy poisons a step for everybody, here it is the last process's samples alone.
ONE_SIDED = f"""
import sys
from dataclasses import replace

sys.path.insert(0, {str(HERE.parent)!r})
from train.toy import RECIPE as TOY
from train.toy import Toy


class OneSided(Toy):
    def batches(self, stage, step, rank, world):
        found = super().batches(stage, step, rank, world)
        for batch in found:
            batch.content.number.fill_(float("nan") if step == 5 and rank == world - 1 and batch is found[-1] else 1.0)
        return [replace(batch, origins=(f"process {{rank}}, micro-batch {{place}}",)) for place, batch in enumerate(found)]


RECIPE = replace(TOY, task=OneSided)
"""


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("whose", ["everybody's", "one process's"])
def test_a_loss_that_is_no_number_stops_both_processes_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
):
    folder, recipe, poison = tmp_path / "run", TOY, ["settings.poison_at=5"]
    if whose == "one process's":
        recipe, poison = tmp_path / "one_sided.py", []
        recipe.write_text(ONE_SIDED, encoding="utf-8")
    # Plain tracebacks: pretty ones take so long that the process which is second is ended before it has printed its own.
    monkeypatch.setenv("TYPER_STANDARD_TRACEBACK", "1")
    process = start(folder, poison, processes=2, recipe=recipe)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and out == ""
    assert "TrainingError: step 6: the loss number is nan" in err and "The last state is that of step 4, in" in err
    assert len(curve(folder)) == 5
    assert [int(state.name) for state in states(folder / "state")] == [4]
    assert not (folder / "final").exists()
    if whose == "one process's":
        # Whoever is heard, the first process too, names what the last one had.
        (told,) = set(re.findall(r"TrainingError: (step 6: .* may help)", err))
        assert "It came with process 1, micro-batch 1: look" in told and "process 0" not in told
        assert run(folder).step == 20
