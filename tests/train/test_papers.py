"""The papers' tables of what trains and what is frozen: after a step of each stage exactly the right parameters have moved."""

from dataclasses import replace

import pytest
import torch

from openjanus.train.learner import Learner
from openjanus.train.parallel import World
from train.unified_toy import PAPERS, recipe, small

# Janus, section 3.3; Janus-Pro, section 2.2; JanusFlow, section 3.3 and Figure 3: what each stage trains.
JANUS_ADAPTS = {"understanding.adaptor", "generation.adaptor", "generation.embed", "generation.head"}
FLOW_ADAPTS = {
    "understanding.adaptor",
    "understanding.begin",
    "generation.encoder",
    "generation.encoder_adaptor",
    "generation.decoder_norm",
    "generation.decoder_adaptor",
    "generation.decoder",
    "alignment.mlp",
}
LANGUAGE = {"language.model", "language.lm_head"}
TOWER = {"understanding.encoder"}
TRAINED = {
    ("JANUS", "adapt"): JANUS_ADAPTS,
    ("JANUS", "names"): JANUS_ADAPTS | LANGUAGE,
    ("JANUS", "pretrain"): JANUS_ADAPTS | LANGUAGE,
    ("JANUS", "tune"): JANUS_ADAPTS | LANGUAGE | TOWER,
    ("JANUS_PRO_1B", "adapt"): JANUS_ADAPTS,
    ("JANUS_PRO_1B", "pretrain"): JANUS_ADAPTS | LANGUAGE,
    ("JANUS_PRO_1B", "tune"): JANUS_ADAPTS | LANGUAGE | TOWER,
    ("JANUS_PRO_7B", "tune"): JANUS_ADAPTS | LANGUAGE | TOWER,
    ("JANUSFLOW", "adapt"): FLOW_ADAPTS,
    ("JANUSFLOW", "prologue"): FLOW_ADAPTS | LANGUAGE,
    ("JANUSFLOW", "pretrain"): FLOW_ADAPTS | LANGUAGE,
    ("JANUSFLOW", "tune"): FLOW_ADAPTS | LANGUAGE | TOWER,
}


def part_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize(("paper", "stage"), TRAINED, ids=["-".join(key).lower() for key in TRAINED])
def test_a_step_moves_exactly_what_the_paper_trains(paper: str, stage: str):
    stages = {value.name: value for value in getattr(PAPERS, paper)}
    chosen = small(stages[stage])
    run = recipe("janusflow" if paper == "JANUSFLOW" else "janus", [chosen])
    learner = Learner(run, chosen, World(0, 1, torch.device("cpu")))
    before = {name: value.detach().clone() for name, value in learner.task.module.state_dict().items()}
    learner.learn(0, learner.task.batches(chosen, 0, 0, 1))
    moved = {name for name, value in learner.task.module.state_dict().items() if not torch.equal(value, before[name])}
    assert {part_of(name) for name in moved} == TRAINED[paper, stage]
    # Every matrix of a part that trains has moved, but what nothing runs through: the tower's unused pooling head.
    still = {name for name in before if part_of(name) in TRAINED[paper, stage] and "attn_pool" not in name} - moved
    assert not still


@pytest.mark.parametrize("variant", ["janus", "janusflow"])
def test_words_weigh_what_they_are_told_to_and_images_as_before(variant: str):
    stage = small({one.name: one for one in PAPERS.JANUS}["pretrain"])
    for weight in (1.0, 3.0):
        made = recipe(variant, [stage])
        made = replace(made, settings=replace(made.settings, text_weight=weight))
        task = made.task(made)
        (batch,) = task.batches(stage, 0, 0, 1)
        losses = task.losses(batch.content)
        assert (losses["text"].weight, losses["image"].weight) == (weight, 1.0)


def test_the_stages_hold_the_tables_of_the_papers():
    table = {
        "JANUS": [(1e-3, 256, 10_000, 300), (1e-4, 512, 120_000, 5_000), (1e-4, 512, 60_000, 0), (2e-5, 256, 24_000, 0)],
        "JANUS_PRO_1B": [(1e-3, 256, 20_000, 600), (1e-4, 512, 270_000, 5_000), (4e-5, 128, 80_000, 0)],
        "JANUS_PRO_7B": [(1e-3, 256, 20_000, 600), (1e-4, 512, 270_000, 5_000), (4e-5, 128, 40_000, 0)],
        "JANUSFLOW": [
            (1e-4, 512, 10_000, 2_000),
            (1e-4, 512, 10_000, 2_000),
            (1e-4, 512, 380_000, 0),
            (2e-5, 256, 26_000, 1_000),
        ],
    }
    for paper, rows in table.items():
        stages = getattr(PAPERS, paper)
        assert [(stage.rate, stage.batch, stage.steps, stage.warmup) for stage in stages] == rows
        assert all((stage.clip, stage.betas) == (1.0, (0.9, 0.95)) for stage in stages)
        assert {stage.weight_decay for stage in stages} == ({0.0, 0.1} if paper == "JANUS" else {0.0})
        assert {stage.ema for stage in stages} == ({0.99} if paper == "JANUSFLOW" else {None})
        cosine = [stage.name for stage in stages if stage.schedule == "cosine"]
        assert cosine == (["adapt"] if paper == "JANUS" else [])
