"""Stages: rates by hand, and what a stage may not be."""

from dataclasses import replace

import pytest

from openjanus.errors import ConfigError
from openjanus.train.stage import Stage

STAGE = Stage("adapt", steps=12, batch=4, rate=1e-3)


def test_a_warm_up_rises_in_equal_steps_to_the_rate_and_stays_there():
    stage = replace(STAGE, warmup=4)
    assert [stage.rate_at(step) for step in range(6)] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


def test_without_a_warm_up_a_constant_rate_is_the_same_from_the_first_step():
    assert {STAGE.rate_at(step) for step in range(12)} == {1e-3}


def test_a_cosine_falls_from_the_rate_over_what_the_warm_up_leaves():
    stage = replace(STAGE, warmup=4, schedule="cosine")
    # Eight steps of half a turn: cos(k * 22.5 degrees).
    assert [stage.rate_at(step) for step in (3, 4, 6, 8, 10)] == pytest.approx([1e-3, 1e-3, 8.5355339e-4, 5e-4, 1.4644661e-4])
    assert stage.rate_at(12) == pytest.approx(0)


def test_a_cosine_with_a_floor_ends_there():
    stage = replace(STAGE, schedule="cosine", floor=0.2)
    assert (stage.rate_at(0), stage.rate_at(6), stage.rate_at(12)) == pytest.approx((1e-3, 6e-4, 2e-4))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("rate", 0.0),
        ("rate", float("nan")),
        ("warmup", -1),
        ("floor", 1.5),
        ("betas", (0.9, 1.0)),
        ("clip", -1.0),
        ("ema", 1.0),
        ("precision", "float16"),
        ("schedule", "linear"),
        ("optimizer", "sgd"),
        ("micro_batch", 0),
        ("mix", {"text": 0}),
        ("name", "two words"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object):
    with pytest.raises(ConfigError, match="named" if field == "name" else rf"stages.adapt.{field} is"):
        replace(STAGE, **{field: value})
