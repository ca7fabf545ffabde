"""Small files in the forms in which benchmarks are published, and the scores of answers to them."""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openjanus.evaluate.benchmark import Benchmark, Case, Judgement, Sample
from openjanus.evaluate.scoring import Score, counted, judged, measured, score_of
from openjanus.evaluate.tools import JudgeOptions, Tools

COLOURS = ("red", "green", "blue", "black")


def picture(number: int = 0, side: int = 16) -> Image.Image:
    # Noise, so that its base64 is longer than an index could be.
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8))


def write_picture(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path)
    return path


def encoded(number: int = 0) -> str:
    buffer = BytesIO()
    picture(number).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A .tsv as VLMEvalKit publishes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def answered(
    benchmark: Benchmark, cases: Sequence[Case], answers: Sequence[str], folder: Path, judges: JudgeOptions | None = None
) -> tuple[dict[str, Score], list[Judgement]]:
    """Scores by name, and judgements, of answers in the order of cases."""
    samples = {(case.id, 0): Sample(case.id, 0, text=answer) for case, answer in zip(cases, answers, strict=True)}
    judgements = judged(benchmark, cases, samples, Tools(folder, judges))
    counted(judgements, benchmark.tied)
    return {one.name: score_of(one) for one in measured(benchmark, judgements)}, judgements


def scored(benchmark: Benchmark, cases: Sequence[Case], answers: Sequence[str], folder: Path) -> dict[str, float]:
    """The values alone."""
    return {name: score.value for name, score in answered(benchmark, cases, answers, folder)[0].items()}
