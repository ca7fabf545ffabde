"""Scoring: samples are judged, judgements are measured, and all of it is written beside the samples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openjanus.evaluate.benchmark import Benchmark, Case, Judgement, Measure, Sample
from openjanus.evaluate.intervals import interval
from openjanus.evaluate.samples import Key
from openjanus.evaluate.tools import Tools
from openjanus.files import read_lines, replace_file


@dataclass(frozen=True)
class Score:
    """A score with its 95 % interval (None where there is none), of `count` samples in `groups` independent groups."""

    name: str
    value: float
    low: float | None
    high: float | None
    count: int
    groups: int
    higher: bool

    def __str__(self) -> str:
        between = "" if self.low is None or self.high is None else f"  [{shown(self.low)}, {shown(self.high)}]"
        return f"{shown(self.value)}{between}  of {self.count}"


def shown(value: float) -> str:
    """A number as people read it: four digits that count."""
    return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def judged(benchmark: Benchmark, cases: Sequence[Case], samples: Mapping[Key, Sample], tools: Tools) -> list[Judgement]:
    """A judgement of every sample of the cases, in order; a sample that is an error is skipped, and so is its group if tied."""
    done, skipped = [], {}
    for case in cases:
        own = [samples[case.id, number] for number in range(case.count)]
        if broken := next((one.error for one in own if one.error), ""):
            skipped[case.id] = broken
        else:
            done.append((case, own))
    made = {(one.case, one.number): one for one in benchmark.judge(done, tools)}
    judgements = []
    for case in cases:
        for number in range(case.count):
            if case.id in skipped:
                group = case.group or case.id
                judgements.append(Judgement(case.id, number, case.task, group, skipped=skipped[case.id]))
            else:
                judgements.append(made[case.id, number])
    return judgements


def counted(judgements: Sequence[Judgement], tied: bool) -> list[Judgement]:
    """Those that scores are of."""
    lost = {one.group for one in judgements if one.skipped} if tied else set()
    return [one for one in judgements if not one.skipped and one.group not in lost]


def measured(benchmark: Benchmark, judgements: Sequence[Judgement]) -> list[Measure]:
    """The measures that there is evidence for."""
    kept = counted(judgements, benchmark.tied)
    return [one for one in benchmark.measures(kept) if one.fixed is not None or one.strata] if kept else []


def score_of(measure: Measure) -> Score:
    """A measure as a number with its interval."""
    if measure.fixed is not None:
        return Score(measure.name, measure.fixed, None, None, measure.count, measure.count, measure.higher)
    value, low, high = (end * measure.scale for end in interval([one.sums for one in measure.strata], measure.statistic))
    groups = len({key for one in measure.strata for key in one.keys})
    return Score(measure.name, value, low, high, measure.count, groups, measure.higher)


# -- files -----------------------------------------------------------------------------


def write_judgements(folder: Path, judgements: Sequence[Judgement]) -> None:
    """Replace judgements.jsonl."""
    lines = "".join(json.dumps(one.to_json(), ensure_ascii=False) + "\n" for one in judgements)
    replace_file(folder / "judgements.jsonl", lines.encode())


def read_judgements(folder: Path) -> list[Judgement]:
    """The judgements of a finished benchmark."""
    return [Judgement(**line) for line in read_lines(folder / "judgements.jsonl")]


def result_of(
    benchmark: Benchmark,
    judgements: Sequence[Judgement],
    samples: Mapping[Key, Sample],
    about: Mapping[str, Any],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """What result.json says of a benchmark. about: settings and model."""
    skipped = [{"case": one.case, "number": one.number, "why": one.skipped} for one in judgements if one.skipped]
    answers = [samples[one.case, one.number] for one in judgements if not one.skipped]
    empty = [one.case for one in answers if not one.image and not one.text.strip()]
    return {
        **about,
        "scores": [asdict(score_of(measure)) for measure in measured(benchmark, judgements)],
        "samples": len(judgements),
        "counted": len(counted(judgements, benchmark.tied)),
        "skipped": skipped,
        "empty": empty,
        "warnings": list(warnings),
    }
