"""A step of both variants: what it lowers, by hand, and that arithmetic of less memory or more speed leaves it as it is."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from openjanus.train.learner import Learner
from openjanus.train.stage import Stage
from train.unified_toy import PAPERS, recipe, small

from .running import ALONE


@pytest.fixture
def stage(variant: str) -> Stage:
    """A stage of each variant that mixes all kinds and moves most parts, three samples at a time."""
    papers = PAPERS.JANUSFLOW if variant == "janusflow" else PAPERS.JANUS
    return small(papers[1], micro_batch=3)


@pytest.mark.parametrize("rivals", [False, True])
def test_a_step_lowers_one_mean_over_positions_or_the_sum_of_the_means(variant: str, stage: Stage, rivals: bool):
    made = recipe(variant, [stage], rivals)
    made = replace(made, settings=replace(made.settings, text_weight=3.0, contrast_weight=0.5, alignment_weight=0.7))
    learner = Learner(made, stage, ALONE)
    module = learner.task.module
    (whole,) = learner.task.batches(replace(stage, micro_batch=None), 0, 0, 1)
    with torch.no_grad():
        found = module.losses(whole.content, module.alignment)
    (text, words), (image, elements), (contrast, pairs) = (found[name] for name in ("text", "image", "contrast"))
    assert (pairs > 0) == rivals
    if variant == "janus":
        assert found.keys() == {"text", "image", "contrast"}
        expected = (3.0 * text + image + 0.5 * contrast) / (words + elements)
    else:
        alignment, patches = found["alignment"]
        expected = 3.0 * text / words + image / elements + 0.5 * contrast / elements + 0.7 * alignment / patches
    outcome = learner.learn(0, learner.task.batches(stage, 0, 0, 1))
    assert outcome.loss == pytest.approx(float(expected), rel=1e-5)


def numbers(variant: str, stage: Stage) -> list[dict[str, Any]]:
    """What two steps say: the second, that the gradients of the first were right."""
    learner = Learner(recipe(variant, [stage]), stage, ALONE)
    outcomes = [learner.learn(step, learner.task.batches(stage, step, 0, 1)) for step in range(2)]
    return [{"loss": outcome.loss, **outcome.losses, **outcome.gradient_norms} for outcome in outcomes]


def assert_close(found: list[dict[str, Any]], expected: list[dict[str, Any]], off: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=off)


def test_checkpointing_and_bfloat16_leave_the_losses_as_they_are(variant: str, stage: Stage):
    exact = numbers(variant, stage)
    assert_close(numbers(variant, replace(stage, checkpointing=True)), exact, 1e-6)
    rounded = numbers(variant, replace(stage, checkpointing=True, precision="bfloat16"))
    assert_close(rounded, exact, 0.02)
    assert rounded != exact


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """No graph of this test's outlasts it."""
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch needs a C++ compiler to compile")
@pytest.mark.usefixtures("fresh_compiler")
def test_compiling_leaves_the_losses_as_they_are(variant: str, stage: Stage):
    assert_close(numbers(variant, replace(stage, compile=True)), numbers(variant, stage), 1e-4)
