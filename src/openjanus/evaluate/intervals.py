"""Scores with their uncertainty: 95 % bootstrap intervals, and whether two runs differ.

Evidence is drawn again in groups, not samples: the pictures of one prompt fail together, so they count as one piece of evidence.
A score is a statistic of sums over groups: the right and the count for an accuracy, true and false positives for an F1.
Dims: G groups, K numbers of a group, R resamples.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
PERMUTATIONS = 10_000
COVERED = 95.0  # per cent
_AT_ONCE = 4_000_000  # draws held in memory

Floats = NDArray[np.float64]
Statistic = Callable[[Sequence[Floats]], Any]
"""From the sums of each stratum, [..., K], to the score, [...]."""


def ratio(sums: Sequence[Floats]) -> Any:
    """The unweighted mean over strata of first number over second: accuracies of tasks, averaged."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.mean([stratum[..., 0] / stratum[..., 1] for stratum in sums], axis=0)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What groups are worth. keys: their names; sums: [G, K]."""

    keys: tuple[str, ...]
    sums: Floats

    @classmethod
    def of(cls, values: Iterable[tuple[str, Sequence[float]]]) -> "Evidence":
        """Evidence of single values by group, groups in order of appearance."""
        groups: dict[str, Floats] = {}
        for key, value in values:
            numbers = np.asarray(value, np.float64)
            groups[key] = groups[key] + numbers if key in groups else numbers
        return cls(tuple(groups), np.array(list(groups.values()), np.float64).reshape(len(groups), -1))


@dataclass(frozen=True)
class Score:
    """A mean of right and wrong, with a 95 % interval; right of count samples."""

    mean: float
    low: float
    high: float
    right: int
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}  [{self.low:.3f}, {self.high:.3f}]  {self.right} of {self.count}"


@dataclass(frozen=True)
class Difference:
    """How a score of B differs from that of A on the same cases. p: of a difference as large by chance, two-sided."""

    a: float
    b: float
    low: float
    high: float
    p: float
    groups: int

    @property
    def difference(self) -> float:
        """B minus A."""
        return self.b - self.a


def score(tasks: Sequence[Sequence[Sequence[bool]]], seed: int = 0) -> Score:
    """The unweighted mean of some tasks' shares of right samples: tasks -> groups -> samples, none of them empty."""
    strata = [np.array([(sum(group), len(group)) for group in groups], np.float64) for groups in tasks]
    mean, low, high = interval(strata, ratio, seed)
    samples = [sample for groups in tasks for group in groups for sample in group]
    return Score(mean, low, high, int(sum(samples)), len(samples))


def interval(strata: Sequence[Floats], statistic: Statistic, seed: int = 0) -> tuple[float, float, float]:
    """A statistic of the sums of strata, [G, K] each, none of them empty, and the ends of its 95 % interval."""
    rng = np.random.default_rng(seed)
    resampled = statistic([_resampled(stratum, rng) for stratum in strata])
    low, high = np.nanpercentile(resampled, (50 - COVERED / 2, 50 + COVERED / 2))
    return float(statistic([stratum.sum(0) for stratum in strata])), float(low), float(high)


def compare(a: Sequence[Evidence], b: Sequence[Evidence], statistic: Statistic, seed: int = 0) -> Difference:
    """Whether two runs differ: a paired bootstrap for the interval, a paired permutation test for p. Groups of both count alone.

    Permuting swaps the two runs' evidence of a group at random; p is the share of swaps with a difference at least as large.
    """
    pairs = [_common(one, other) for one, other in zip(a, b, strict=True)]
    if any(not len(left) for left, _ in pairs):
        raise ValueError("the two runs have no group in common")
    values = [float(statistic([pair[side].sum(0) for pair in pairs])) for side in (0, 1)]
    rng = np.random.default_rng(seed)
    drawn: tuple[list[Floats], list[Floats]] = ([], [])
    for left, right in pairs:
        both = _resampled(np.concatenate([left, right], axis=1), rng)
        drawn[0].append(both[:, : left.shape[1]])
        drawn[1].append(both[:, left.shape[1] :])
    low, high = np.nanpercentile(statistic(drawn[1]) - statistic(drawn[0]), (50 - COVERED / 2, 50 + COVERED / 2))
    swapped: tuple[list[Floats], list[Floats]] = ([], [])
    for left, right in pairs:
        moved = np.concatenate(
            [(rng.random((rows, len(left))) < 0.5) @ (right - left) for rows in _chunks(PERMUTATIONS, len(left))]
        )
        swapped[0].append(left.sum(0) + moved)
        swapped[1].append(right.sum(0) - moved)
    by_chance = np.abs(statistic(swapped[1]) - statistic(swapped[0]))
    # A hair of slack: sums in another order round otherwise, and equal differences must count as equal.
    as_large = int((by_chance >= abs(values[1] - values[0]) - 1e-12).sum())
    p = (1 + as_large) / (1 + PERMUTATIONS)
    return Difference(values[0], values[1], float(low), float(high), p, sum(len(left) for left, _ in pairs))


def _resampled(stratum: Floats, rng: np.random.Generator) -> Floats:
    """[R, K]: sums over as many groups as there are, drawn with replacement."""
    groups = len(stratum)
    return np.concatenate([stratum[rng.integers(groups, size=(rows, groups))].sum(1) for rows in _chunks(RESAMPLES, groups)])


def _chunks(total: int, groups: int) -> Iterator[int]:
    """Rows to draw at a time, so that memory does not grow with the benchmark."""
    most = max(1, _AT_ONCE // max(1, groups))
    for start in range(0, total, most):
        yield min(most, total - start)


def _common(a: Evidence, b: Evidence) -> tuple[Floats, Floats]:
    """The sums of groups that both have, in one order."""
    place = {key: number for number, key in enumerate(b.keys)}
    shared = [(number, place[key]) for number, key in enumerate(a.keys) if key in place]
    left, right = [one for one, _ in shared], [other for _, other in shared]
    return a.sums[left], b.sums[right]
