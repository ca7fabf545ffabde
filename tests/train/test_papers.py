"""The papers' tables of what trains and what is frozen: after a step of each stage exactly the right parameters have moved."""

from dataclasses import replace

import pytest
import torch

from openjanus.train.learner import Learner
from openjanus.train.parallel import World
from openjanus.train.stage import Stage
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


# The tables as the papers print them, a stage a column: Janus, Table 1; Janus-Pro, Table 2; JanusFlow, Table 1. What is frozen:
# see above. Not theirs, and the same in all: epsilon, the cosine's floor, and no average in Janus and Janus-Pro.
JANUS_FROZEN = (
    ("language", "understanding.encoder", "generation.tokenizer"),
    ("understanding.encoder", "generation.tokenizer"),
    ("generation.tokenizer",),
)
FLOW_FROZEN = (
    ("language", "understanding.encoder", "generation.vae"),
    ("understanding.encoder", "generation.vae"),
    ("generation.vae",),
)
PRO_1B = {
    "name": ("adapt", "pretrain", "tune"),
    # Stage 2 has 360,000 in the table and was stopped at 270,000 (section 3.1).
    "steps": (20_000, 270_000, 80_000),
    "batch": (256, 512, 128),
    "rate": (1e-3, 1e-4, 4e-5),
    "warmup": (600, 5_000, 0),
    "schedule": ("constant", "constant", "constant"),
    "floor": (0.0, 0.0, 0.0),
    "optimizer": ("adamw", "adamw", "adamw"),
    "weight_decay": (0.0, 0.0, 0.0),
    "betas": ((0.9, 0.95), (0.9, 0.95), (0.9, 0.95)),
    "epsilon": (1e-8, 1e-8, 1e-8),
    "clip": (1.0, 1.0, 1.0),
    "mix": (
        {"understanding": 1, "text": 0, "generation": 3},
        {"understanding": 2, "text": 3, "generation": 5},
        {"understanding": 5, "text": 1, "generation": 4},
    ),
    "frozen": JANUS_FROZEN,
    "continues": (False, False, False),
    "ema": (None, None, None),
}
TABLES = {
    "JANUS": {
        "name": ("adapt", "names", "pretrain", "tune"),
        # The table's stage 2 has 180,000: the first 120,000 paint ImageNet, the others what people write (section 4.2).
        "steps": (10_000, 120_000, 60_000, 24_000),
        "batch": (256, 512, 512, 256),
        "rate": (1e-3, 1e-4, 1e-4, 2e-5),
        "warmup": (300, 5_000, 0, 0),
        "schedule": ("cosine", "constant", "constant", "constant"),
        "floor": (0.0, 0.0, 0.0, 0.0),
        "optimizer": ("adamw", "adamw", "adamw", "adamw"),
        "weight_decay": (0.0, 0.0, 0.0, 0.1),
        "betas": ((0.9, 0.95), (0.9, 0.95), (0.9, 0.95), (0.9, 0.95)),
        "epsilon": (1e-8, 1e-8, 1e-8, 1e-8),
        "clip": (1.0, 1.0, 1.0, 1.0),
        "mix": (
            {"understanding": 1, "text": 0, "generation": 1},
            {"understanding": 2, "text": 3, "generation": 5},
            {"understanding": 2, "text": 3, "generation": 5},
            {"understanding": 7, "text": 3, "generation": 10},
        ),
        "frozen": (JANUS_FROZEN[0], JANUS_FROZEN[1], JANUS_FROZEN[1], JANUS_FROZEN[2]),
        "continues": (False, False, True, False),
        "ema": (None, None, None, None),
    },
    "JANUS_PRO_1B": PRO_1B,
    "JANUS_PRO_7B": PRO_1B | {"steps": (20_000, 270_000, 40_000)},
    "JANUSFLOW": {
        "name": ("adapt", "prologue", "pretrain", "tune"),
        # The table's stage 2 has 390,000 and a warm-up of 2,000: 10,000 steps of another ratio are its beginning (section 4.1).
        "steps": (10_000, 10_000, 380_000, 26_000),
        "batch": (512, 512, 512, 256),
        "rate": (1e-4, 1e-4, 1e-4, 2e-5),
        "warmup": (2_000, 2_000, 0, 1_000),
        "schedule": ("constant", "constant", "constant", "constant"),
        "floor": (0.0, 0.0, 0.0, 0.0),
        "optimizer": ("adamw", "adamw", "adamw", "adamw"),
        "weight_decay": (0.0, 0.0, 0.0, 0.0),
        "betas": ((0.9, 0.95), (0.9, 0.95), (0.9, 0.95), (0.9, 0.95)),
        "epsilon": (1e-8, 1e-8, 1e-8, 1e-8),
        "clip": (1.0, 1.0, 1.0, 1.0),
        # Generation comes before text in this paper's ratios.
        "mix": (
            {"understanding": 50, "generation": 50, "text": 0},
            {"understanding": 30, "generation": 50, "text": 20},
            {"understanding": 14, "generation": 80, "text": 6},
            {"understanding": 21, "generation": 70, "text": 9},
        ),
        "frozen": (FLOW_FROZEN[0], FLOW_FROZEN[1], FLOW_FROZEN[1], FLOW_FROZEN[2]),
        "continues": (False, False, True, False),
        "ema": (0.99, 0.99, 0.99, 0.99),
    },
}
# What a machine needs, and no paper says.
OURS = {"micro_batch", "precision", "checkpointing", "compile"}


@pytest.mark.parametrize("paper", TABLES)
def test_the_stages_hold_the_table_of_the_paper(paper: str):
    table, stages = TABLES[paper], getattr(PAPERS, paper)
    assert table.keys() == Stage.__dataclass_fields__.keys() - OURS
    for name, values in table.items():
        assert tuple(getattr(stage, name) for stage in stages) == values, name
