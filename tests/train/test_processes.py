"""Runs in processes of their own: killed, interrupted, and spread over two."""

import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from openjanus.train.folder import states

from .running import curve, run, start, wait_for, weights

CHANCE = "settings.dropout=0.2"


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_a_run_killed_at_a_random_step_goes_on_to_the_same_curve(tmp_path: Path):
    folder, delay = tmp_path / "run", "settings.delay=0.03"
    process = start(folder, [CHANCE, delay])
    wait_for(process, folder, random.Random().randrange(5, 19))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut = len(curve(folder))
    assert cut < 20
    run(folder, CHANCE, delay)
    run(tmp_path / "straight", CHANCE, delay)
    assert curve(folder) == curve(tmp_path / "straight"), f"killed after step {cut}"


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
def test_ctrl_c_ends_a_program_with_a_state_and_the_code_of_a_signal(tmp_path: Path):
    folder = tmp_path / "run"
    process = start(folder, ["settings.delay=0.03"])
    wait_for(process, folder, 5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in err and "Traceback" not in err
    assert out == ""
    assert int(states(folder / "state")[0].name) == len(curve(folder)) >= 5


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
# Muon turns gradients into steps in bfloat16: sums in another order may round to another step.
@pytest.mark.parametrize(("optimizer", "off", "apart"), [("adamw", 1e-4, 1e-5), ("muon", 1e-3, 2e-3)])
def test_two_processes_give_the_curve_of_one_and_a_state_that_one_can_go_on_from(
    tmp_path: Path, optimizer: str, off: float, apart: float
):
    # Of 7 samples the processes get 4 and 3: two micro-batches and one.
    settings = ["stages.batch=7", "stages.checkpointing=true", "preview_every=6", f"stages.optimizer={optimizer}"]
    together, alone = tmp_path / "together", tmp_path / "alone"
    process = start(together, settings, processes=2)
    run(alone, *settings)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == f"{together / 'final'}\n"
    assert "Traceback" not in err and "Warning" not in err
    _assert_close(together, alone, off, apart)
    answers = [(folder / "previews" / "00000012" / "answer.txt").read_text().split() for folder in (together, alone)]
    assert float(answers[0][1]) == pytest.approx(float(answers[1][1]), abs=apart)
    # One process goes on where two were at step 16.
    shutil.rmtree(together / "final")
    shutil.rmtree(states(together / "state")[0])
    run(together, *settings)
    _assert_close(together, alone, off, apart)


def _assert_close(one: Path, other: Path, off: float, apart: float) -> None:
    for line, expected in zip(curve(one), curve(other), strict=True):
        assert line["losses"] == pytest.approx(expected["losses"], abs=off), line["step"]
        assert line["gradient_norms"] == pytest.approx(expected["gradient_norms"], abs=off)
    tensors = weights(other)
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, tensors[name], atol=apart, rtol=off)
