"""Some samples to look at: the worst, and some by chance, each with a small picture, for the report."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from openjanus.errors import ImageError
from openjanus.evaluate.benchmark import Case, Judgement, Question, Sample
from openjanus.evaluate.tools import Tools
from openjanus.files import write_json

SHOWN = 12  # of each kind
SIDE = 160  # pixels of a picture's longer side
LONGEST = 600  # characters of a text


def write_examples(
    folder: Path, done: Sequence[tuple[Case, Sequence[Sample]]], judgements: Sequence[Judgement], tools: Tools
) -> None:
    """Write examples.json: {"worst": [...], "random": [...]}."""
    cases = {case.id: (case, samples) for case, samples in done}
    mixed = [judgements[place] for place in np.random.default_rng(0).permutation(len(judgements))]
    valued = [one for one in mixed if not one.skipped]
    worst = [one for one in sorted(valued, key=lambda one: one.value) if one.value < 1][:SHOWN]
    chosen = {"worst": worst, "random": valued[:SHOWN]}
    write_json(
        folder / "examples.json",
        {name: [_shown(one, *cases[one.case], tools) for one in ones] for name, ones in chosen.items()},
    )


def _shown(one: Judgement, case: Case, samples: Sequence[Sample], tools: Tools) -> Mapping[str, Any]:
    sample = samples[one.number]
    try:
        images = [one() for one in case.images[:2]] if isinstance(case, Question) else [tools.picture(sample.image)]
    except ImageError:
        images = []
    return {
        "case": one.case,
        "task": one.task,
        "asked": case.text[:LONGEST],
        "answer": sample.text[:LONGEST],
        "read": one.read[:LONGEST],
        "expected": one.expected[:LONGEST] if isinstance(case, Question) else "",
        "wrong": one.wrong[:LONGEST],
        "value": one.value,
        "seed": sample.seed,
        "images": [thumbnail(image) for image in images],
    }


def thumbnail(image: Image.Image) -> str:
    """A data: URL of a picture, no larger than SIDE; a smaller one is kept as it is."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    # PNG keeps drawn shapes sharp and is smaller for them; photographs are smaller as JPEG.
    lossless = max(image.size) <= SIDE
    small.save(buffer, format="PNG" if lossless else "JPEG", quality=85)
    return f"data:image/{'png' if lossless else 'jpeg'};base64,{b64encode(buffer.getvalue()).decode()}"
