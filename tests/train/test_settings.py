"""Settings that no training can run with are refused before it begins, and say what is allowed."""

import re

import pytest

from openjanus.errors import ConfigError
from openjanus.train.overrides import override
from openjanus.train.recipe_files import load_recipe


@pytest.mark.parametrize(
    ("recipe", "given", "told"),
    [
        ("tiny_tokenizer", ["settings.size=50"], "settings.size is 50; it must be a multiple of 4"),
        ("tiny_tokenizer", ["settings.size=0"], "settings.size is 0; it must be a multiple of 4"),
        ("tiny_tokenizer", ["settings.tokenizer.codebook_size=0"], "settings.tokenizer.codebook_size is 0; it must be 1 or more"),
        ("tiny_tokenizer", ["settings.size=8", "settings.adversary.weight=0.5"], "a discriminator of 3 layers wants 24 pixels"),
        ("tiny_vae", ["settings.size=50"], "settings.size is 50; it must be a multiple of"),
        ("tiny_janus", ["settings.guidance_dropout=2"], "settings.guidance_dropout is 2.0; it must be a share from 0 to 1"),
        ("tiny_janus", ["settings.text_weight=-1"], "settings.text_weight is -1.0; it must be 0 or more"),
        ("tiny_janus", ["settings.context=0"], "settings.context is 0; it must be 1 or more"),
        ("tiny_janusflow", ["settings.alignment_block=-1"], "settings.alignment_block is -1; it must be 1 or more"),
        ("tiny_janusflow", ["settings.alignment_block=99"], "settings.alignment_block is 99; it must be from 1 to 6"),
        ("finetune_full", ["settings.hidden_codes=1.5"], "settings.hidden_codes is 1.5; it must be a share from 0 to 1"),
    ],
)
def test_what_cannot_be_trained_with_is_refused_before_it_begins(recipe: str, given: list[str], told: str):
    with pytest.raises(ConfigError, match=re.escape(told)):
        made = override(load_recipe(recipe), given)
        made.task(made)


def test_the_smallest_pictures_that_a_discriminator_takes_are_learned_from():
    given = ["settings.size=24", "settings.adversary.weight=0.5", "settings.adversary.start=0"]
    made = override(load_recipe("tiny_tokenizer"), given)
    task = made.task(made)
    (batch,) = task.batches(made.stages[0], 0, 0, 32)
    assert all(loss.sum.isfinite() for phase in task.phases for loss in phase.losses(batch.content).values())
