"""Ten steps of every stage of every paper, to the numbers of the day they were written down.

A change that should not change results must leave them alone. One that should: python tests/train/test_golden_curves.py
writes them anew, and the commit says why.
"""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from openjanus.train.learner import Learner
from openjanus.train.parallel import World
from train.unified_toy import PAPERS, recipe, small

CURVES = Path(__file__).resolve().parents[1] / "golden" / "curves.json"
PLACES = [
    (paper, stage.name) for paper in ("JANUS", "JANUS_PRO_1B", "JANUS_PRO_7B", "JANUSFLOW") for stage in getattr(PAPERS, paper)
]


def curve(paper: str, stage: str) -> dict[str, list[float]]:
    """The losses of ten steps, by kind."""
    chosen = small(next(value for value in getattr(PAPERS, paper) if value.name == stage), steps=10)
    run = recipe("janusflow" if paper == "JANUSFLOW" else "janus", [chosen])
    learner = Learner(run, chosen, World(0, 1, torch.device("cpu")))
    outcomes = [learner.learn(step, learner.task.batches(chosen, step, 0, 1)) for step in range(chosen.steps)]
    return {kind: [round(outcome.losses[kind], 5) for outcome in outcomes] for kind in outcomes[0].losses}


@pytest.mark.parametrize(("paper", "stage"), PLACES, ids=["-".join(place).lower() for place in PLACES])
def test_ten_steps_give_the_golden_curve(paper: str, stage: str):
    golden = json.loads(CURVES.read_text())[f"{paper} {stage}"]
    for kind, losses in curve(paper, stage).items():
        assert losses == pytest.approx(golden[kind], abs=2e-3, rel=1e-3), kind


if __name__ == "__main__":
    torch.set_num_threads(1)
    CURVES.write_text(json.dumps({f"{paper} {stage}": curve(paper, stage) for paper, stage in PLACES}, indent=1) + "\n")
