"""Where the time goes on a CPU: an answer about a picture, and a guided picture, part by part.

    python benchmarks/time_by_part.py [--model janus-pro-1b] [--quantize int4] [--steps 16] [--processor-time]

Weights of a published size are random. Prints one JSON object: of both, the milliseconds of the whole prompt by part, those of a
step by part (of an answer: a token), and those of the pixels. `engine` is all that is in no other part.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from openjanus.bench.models import janus_of
from openjanus.engine.engine import Engine, EngineOptions
from openjanus.engine.request import ImageRequest, Request, TextRequest
from openjanus.janus import Janus
from openjanus.models.quantization import QUANTIZATIONS
from openjanus.types import ImageOptions, Message, TextOptions

PARTS = {
    "vision tower": ("understanding", "read"),
    "language model": ("language", "step"),
    "text head": ("language", "logits"),
    "image head": ("generation", "logits"),
    "embedding of codes": ("generation", "embed_codes"),
    "flow network": ("generation", "encode"),
    "flow network's end": ("generation", "velocity"),
    "pixels": ("generation", "decode"),
}


class Clock:
    """Seconds that were spent in each part of a model since the last `read`."""

    def __init__(self, janus: Janus, now: Callable[[], float]) -> None:
        self.now = now
        self._spent: Counter[str] = Counter()
        for part, (owner, name) in PARTS.items():
            module = getattr(janus.model, owner)
            if hasattr(module, name):
                setattr(module, name, self._timed(part, getattr(module, name)))

    def _timed(self, part: str, function: Any) -> Any:
        def timed(*given: Any) -> Any:
            start = self.now()
            result = function(*given)
            self._spent[part] += self.now() - start
            return result

        return timed

    def read(self, whole: float, count: int) -> dict[str, float]:
        """Milliseconds of each part, divided by a count, given the seconds of all; and forget them."""
        self._spent["engine"] = whole - self._spent.total()
        told = {part: round(seconds * 1e3 / count, 2) for part, seconds in self._spent.most_common()}
        self._spent.clear()
        return told


def measure(janus: Janus, clock: Clock, request: Request, steps: int | None) -> dict[str, Any]:
    """A request once, but for a run before that does not count; of its steps so many (None: all, and the pixels)."""
    for _ in range(2):
        engine = Engine(janus.model, janus.processor, EngineOptions(chunk=1 << 20))
        number, start = engine.submit(request), clock.now()
        while engine.reading:
            engine.step()
        report: dict[str, Any] = {"prompt": clock.read(clock.now() - start, 1)}
        start, count = clock.now(), 0
        while not (engine.idle or engine.developing) and (steps is None or count < steps):
            engine.step()
            count += 1
        spent = clock.read(clock.now() - start, max(1, count))
        if "pixels" in spent:
            report["pixels"] = round(spent.pop("pixels") * count, 2)
        report["step"], report["steps"] = spent, count
        engine.cancel(number)
    return report


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="janus-pro-1b", help="a published size, with random weights, or a checkpoint")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantize", default="none", choices=QUANTIZATIONS)
    parser.add_argument(
        "--steps", type=int, default=16, help="of an answer, and of a picture of codes; a flow's are all its steps"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="not the clock's: where others use the machine too",
    )
    arguments = parser.parse_args()
    janus = janus_of(arguments.model, torch.device("cpu"), getattr(torch, arguments.dtype), arguments.quantize)
    janus.processor.tokenizer.eos = -1
    clock = Clock(janus, time.process_time if arguments.processor_time else time.perf_counter)
    flow = not hasattr(janus.model.generation, "logits")
    prompt = janus.processor.understanding_prompt([Message("user", "What is it?", (Image.new("RGB", (384, 384), "grey"),))])
    answer = measure(janus, clock, TextRequest(prompt, TextOptions(arguments.steps + 1)), arguments.steps)
    painting = ImageRequest("a red circle left of a blue star", ImageOptions(seed=0, steps=arguments.steps))
    picture = measure(janus, clock, painting, None if flow else arguments.steps)
    if not flow:
        # The pixels of a picture whose codes are not finished take as long.
        start = clock.now()
        with torch.inference_mode():
            janus.model.generation.decode(torch.zeros(1, janus.model.config.generation.positions, dtype=torch.int64))
        picture["pixels"] = round((clock.now() - start) * 1e3, 2)
    report = {**vars(arguments), "threads": torch.get_num_threads(), "answer_ms": answer, "picture_ms": picture}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
