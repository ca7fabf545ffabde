"""Comparing two runs: score by score, on the cases that both have, with an interval and a p-value for the difference."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openjanus.errors import DataError
from openjanus.evaluate.benchmark import Settings
from openjanus.evaluate.catalogue import benchmark_of
from openjanus.evaluate.files.finding import read_json
from openjanus.evaluate.intervals import Difference, compare
from openjanus.evaluate.scoring import measured, read_judgements, shown

SURE = 0.05


@dataclass(frozen=True)
class Compared:
    """A score of two runs. difference: None where there is no evidence to pair (FID)."""

    benchmark: str
    score: str
    a: float
    b: float
    difference: Difference | None

    def __str__(self) -> str:
        head = f"  {self.score:<26}{shown(self.a):>8} -> {shown(self.b):>8}"
        if self.difference is None:
            return f"{head}  {self.b - self.a:+.3g} (no paired test for this score)"
        told = self.difference
        sure = "" if told.p < SURE else "  not significant"
        return (
            f"{head}  {told.difference:+.4g} [{told.low:+.4g}, {told.high:+.4g}]  p = {told.p:.4f}  ({told.groups} groups){sure}"
        )


@dataclass(frozen=True)
class Comparison:
    """All scores of the benchmarks that two runs have in common."""

    a: Path
    b: Path
    scores: tuple[Compared, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As --json prints it."""
        scores = [{**asdict(one), **({"change": one.difference.difference} if one.difference else {})} for one in self.scores]
        return {"a": str(self.a), "b": str(self.b), "scores": scores, "notes": list(self.notes)}

    def to_text(self) -> str:
        """A table for people."""
        lines = [f"A: {self.a}", f"B: {self.b}  (difference: B - A, 95 % interval, paired permutation test)"]
        for name in dict.fromkeys(one.benchmark for one in self.scores):
            lines += [name, *(str(one) for one in self.scores if one.benchmark == name)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def compare_runs(a: Path, b: Path) -> Comparison:
    """Two runs' folders held against each other; DataError if they have no finished benchmark in common."""
    names = [{path.parent.name for path in folder.glob("*/result.json")} for folder in (a, b)]
    common = sorted(names[0] & names[1])
    if not common:
        told = [", ".join(sorted(own)) or "no finished benchmark" for own in names]
        raise DataError(f"{a} holds {told[0]} and {b} {told[1]}; --compare wants two folders with a benchmark in common")
    scores: list[Compared] = []
    notes = [f"{name} is in one of the runs alone" for name in sorted(names[0] ^ names[1])]
    for name in common:
        made, said = _compared(name, a / name, b / name)
        scores += made
        notes += said
    return Comparison(a, b, tuple(scores), tuple(notes))


def _compared(name: str, a: Path, b: Path) -> tuple[list[Compared], list[str]]:
    about = [read_json(folder / "result.json") for folder in (a, b)]
    notes = [
        f"{name}: {key} is {about[0][place].get(key)!r} in A and {about[1][place].get(key)!r} in B"
        for place in ("settings", "judges")
        for key in about[0][place]
        if about[0][place].get(key) != about[1][place].get(key)
    ]
    measures = []
    for folder, told in zip((a, b), about, strict=True):
        benchmark = benchmark_of(name, Settings(**{**told["settings"], "protocol": told["protocol"]}))
        measures.append({one.name: one for one in measured(benchmark, read_judgements(folder))})
    made = []
    for score in measures[0]:
        one, other = measures[0][score], measures[1].get(score)
        if other is None or len(one.strata) != len(other.strata):
            notes.append(f"{name}: {score} is not of the same tasks in both runs")
            continue
        if one.fixed is not None and other.fixed is not None:
            made.append(Compared(name, score, one.fixed, other.fixed, None))
            continue
        try:
            told = compare(one.strata, other.strata, lambda sums, one=one: one.scale * one.statistic(sums))  # type: ignore[misc]
        except ValueError:
            notes.append(f"{name}: {score} has no case in common")
            continue
        made.append(Compared(name, score, told.a, told.b, told))
    return made, notes
