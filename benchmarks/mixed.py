"""Sixteen mixed requests together and one after the other, on a bundled model: the same results, and how much sooner.

    python benchmarks/mixed.py [--model janus-tiny] [--rounds 5]

Prints one JSON object: medians in seconds, minima, the ratio of the medians, and whether texts and pictures were equal.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from openjanus.engine.engine import Engine
from openjanus.engine.request import Answer, Finished, ImageRequest, Request, TextRequest
from openjanus.janus import Janus, load
from openjanus.types import ImageOptions, Message, TextOptions

SHAPES = Path(__file__).resolve().parents[1] / "examples" / "images" / "shapes.png"
QUESTIONS = ("How many circles are there?", "Describe the picture.", "What color is the star?", "What do you see?")
PROMPTS = ("a red circle", "two green squares", "a blue star left of a yellow triangle", "a white cross and a black diamond")


def requests_of(janus: Janus) -> list[Request]:
    """Eight questions about a picture, eight pictures."""
    made: list[Request] = []
    for number in range(8):
        prompt = janus.processor.understanding_prompt([Message("user", QUESTIONS[number % 4], (SHAPES,))])
        made.append(TextRequest(prompt, TextOptions(max_tokens=64, temperature=float(number // 4), seed=number)))
        made.append(ImageRequest(PROMPTS[number % 4], ImageOptions(seed=number)))
    return made


def results(janus: Janus, groups: list[list[Request]]) -> tuple[float, list[Any]]:
    """Seconds that groups of requests take, one group after the other, and what they come to."""
    engine, found = Engine(janus.model, janus.processor), []
    start = time.perf_counter()
    for group in groups:
        done = {event.request: event.result for event in engine.run(group) if isinstance(event, Finished)}
        found += [done[number] for number in sorted(done)]
    return time.perf_counter() - start, [_plain(result) for result in found]


def _plain(result: Any) -> Any:
    return result.ids if isinstance(result, Answer) else [np.asarray(picture.image).tobytes() for picture in result]


def main() -> None:
    """Measure, in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="janus-tiny")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    janus = load(arguments.model, dtype=arguments.dtype)
    requests = requests_of(janus)
    together, alone, equal = [], [], True
    for number in range(arguments.rounds + 1):
        one, joint = results(janus, [requests])
        other, single = results(janus, [[request] for request in requests])
        equal = equal and joint == single
        if number:
            together.append(one)
            alone.append(other)
    report = {"together_s": [round(median(together), 3), round(min(together), 3)]}
    report["alone_s"] = [round(median(alone), 3), round(min(alone), 3)]
    print(json.dumps({**report, "ratio": round(median(alone) / median(together), 2), "equal": equal}))


if __name__ == "__main__":
    main()
