"""Scores with their uncertainty: 95 % bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
COVERED = 95.0  # per cent


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


def score(tasks: Sequence[Sequence[Sequence[bool]]], seed: int = 0) -> Score:
    """The unweighted mean of some tasks' shares of right samples: tasks -> groups -> samples, none of them empty.

    Groups are drawn again, not samples: the pictures of one prompt fail together, so they count as one piece of evidence.
    """
    rng = np.random.default_rng(seed)
    means, resampled = [], []
    for groups in tasks:
        right = np.array([sum(group) for group in groups], np.float64)
        count = np.array([len(group) for group in groups], np.float64)
        means.append(float(right.sum() / count.sum()))
        drawn: NDArray[np.int64] = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
        resampled.append(right[drawn].sum(1) / count[drawn].sum(1))
    low, high = np.percentile(np.mean(resampled, axis=0), (50 - COVERED / 2, 50 + COVERED / 2))
    samples = [sample for groups in tasks for group in groups for sample in group]
    return Score(float(np.mean(means)), float(low), float(high), int(sum(samples)), len(samples))
