"""Intervals and differences: against theory, and against what can be counted."""

import numpy as np
import pytest

from openjanus.evaluate.intervals import Evidence, compare, interval, ratio, score


def evidence(values: list[float]) -> Evidence:
    return Evidence.of((f"q{number}", (value, 1.0)) for number, value in enumerate(values))


def test_an_interval_of_many_groups_does_not_depend_on_how_they_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch):
    sums = np.random.default_rng(0).random((50, 2)) + 1
    whole = interval([sums], ratio)
    monkeypatch.setattr("openjanus.evaluate.intervals._AT_ONCE", 333)
    assert interval([sums], ratio) == whole


def test_an_interval_is_that_of_theory():
    rng = np.random.default_rng(1)
    values = rng.random(2000)
    mean, low, high = interval([np.stack([values, np.ones(2000)], 1)], ratio)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 2000**0.5, rel=0.1)


def test_scores_are_as_they_were_before_other_benchmarks_came():
    # The numbers of the bundled models' model cards were made so.
    made = score([[[True, False]] * 5 + [[True, True]] * 5, [[False, True]] * 3])
    assert (made.mean, made.right, made.count) == (0.625, 18, 26)
    assert (made.low, made.high) == (0.55, 0.7)


def test_two_runs_that_are_alike_do_not_differ():
    one = evidence([0, 1, 1, 0, 1])
    told = compare([one], [one], ratio)
    assert (told.difference, told.low, told.high, told.p) == (0, 0, 0, 1)


def test_a_paired_test_counts_the_swaps_that_are_as_large():
    # Ten questions, all of which B alone gets right: of 2**10 swaps two are as large.
    told = compare([evidence([0] * 10)], [evidence([1] * 10)], ratio)
    assert told.difference == 1 and told.p == pytest.approx(2 / 2**10, abs=1e-3)
    # One such question of ten: every swap is as large.
    assert compare([evidence([0] * 10)], [evidence([1] + [0] * 9)], ratio).p == 1


def test_a_paired_test_sees_what_two_intervals_would_hide():
    rng = np.random.default_rng(2)
    a = (rng.random(1000) < 0.5).astype(float)
    b = a.copy()
    b[:30] = 1  # never worse
    told = compare([evidence(list(a))], [evidence(list(b))], ratio)
    low, high = interval([evidence(list(a)).sums], ratio)[1:]
    assert low < told.b < high and told.p < 0.01 and told.low > 0


def test_only_what_both_runs_have_is_compared():
    a, b = evidence([1, 1, 0, 0]), Evidence.of([("q2", (1.0, 1.0)), ("q3", (1.0, 1.0)), ("new", (0.0, 1.0))])
    told = compare([a], [b], ratio)
    assert (told.a, told.b, told.groups) == (0, 1, 2)
    with pytest.raises(ValueError, match="no group in common"):
        compare([a], [Evidence.of([("other", (1.0, 1.0))])], ratio)
