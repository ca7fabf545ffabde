"""What quantisation costs on a bundled model: errors of its logits, text perplexity, loss of its pictures, and its scores.

    python benchmarks/quantization.py [--model janus-tiny] [--samples 256] [--scores] [--given bfloat16]

On scenes that nobody has trained on, all arithmetic in float32 but for the quantised layers', which may be given bfloat16 (matrix
units take many rows of that otherwise). Prints one JSON object with none, int8 and int4: `text_error` and `image_error` are the
root mean square of what the logits (a flow: the velocity) differ by, as a share of their own deviation; `perplexity` is of
answers' tokens; `image_loss` is in nats a code (a flow: the velocity's squared error).
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.data.documents import Writer
from openjanus.data.packing import batch, pack
from openjanus.data.shapes_streams import PaintingSource, ReadingSource
from openjanus.engine.linear import Int4, Int8
from openjanus.engine.tiled import TiledInt4, TiledInt8
from openjanus.evaluate.shapes import run_benchmark
from openjanus.janus import Janus, load
from openjanus.types import TrainingBatch

SEED = 10**6  # of scenes; runs of training have small ones
KINDS = ("none", "int8", "int4")


def batches(janus: Janus, samples: int) -> list[TrainingBatch]:
    """Half questions, half pictures, each packed by itself."""
    config, processor = janus.model.config, janus.processor
    size, painted = config.understanding.encoder.image_size, config.generation.image_size[0]
    writer = Writer(processor, config.generation, guidance_dropout=0.0)
    found = []
    for source in (ReadingSource(SEED, size, turns=6), PaintingSource(SEED, painted)):
        for first in range(0, samples // 2, 32):
            documents = [writer.document(source[k]) for k in range(first, min(first + 32, samples // 2))]
            found.append(batch(pack(documents, 512), processor.tokenizer.pad))
    return found


def outputs(janus: Janus, content: list[TrainingBatch]) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
    """What the heads give, float32, and the mean losses."""
    model, given = janus.model, defaultdict(list)
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)

    def keep(kind: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda module, inputs, output: given[kind].append(output.float())

    head = getattr(model.generation, "head", None) or model.generation.decoder  # type: ignore[union-attr]
    hooks = [model.language.lm_head.register_forward_hook(keep("text")), head.register_forward_hook(keep("image"))]
    with torch.inference_mode():
        for one in content:
            torch.manual_seed(0)
            for kind, (total, count) in model.losses(one).items():
                sums[kind] += float(total)
                counts[kind] += count
    for hook in hooks:
        hook.remove()
    return given, {kind: sums[kind] / counts[kind] for kind in sums if counts[kind]}


def error(given: list[Tensor], wanted: list[Tensor]) -> float:
    """Root mean square of the difference, as a share of the deviation of what is wanted."""
    there = [(a, b) for a, b in zip(given, wanted, strict=True) if b.numel()]
    difference = sum(float((a - b).square().sum()) for a, b in there) / sum(b.numel() for _, b in there)
    deviation = torch.cat([b.flatten() for _, b in there]).std()
    return math.sqrt(difference) / float(deviation)


def narrow(model: nn.Module) -> None:
    """Give quantised layers bfloat16."""
    for module in model.modules():
        if isinstance(module, TiledInt8 | TiledInt4 | Int8 | Int4):
            module.register_forward_pre_hook(lambda module, inputs: (inputs[0].bfloat16(),))
            module.register_forward_hook(lambda module, inputs, output: output.float())


def main() -> None:
    """Measure each kind and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="janus-tiny")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--scores", action="store_true", help="also run the shapes benchmark")
    parser.add_argument("--given", default="float32", choices=("float32", "bfloat16"), help="to the quantised layers")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    wanted: dict[str, list[Tensor]] = {}
    for kind in KINDS:
        janus = load(arguments.model, device="cpu", dtype="float32", quantize=kind)
        if arguments.given == "bfloat16":
            narrow(janus.model)
        given, losses = outputs(janus, batches(janus, arguments.samples))
        wanted = wanted or given
        rows[kind] = {f"{head}_error": error(given[head], wanted[head]) for head in wanted}
        rows[kind] |= {"perplexity": math.exp(losses["text"]), "image_loss": losses["image"]}
        if arguments.scores:
            report = run_benchmark(janus, size=janus.model.config.understanding.encoder.image_size)
            assert report.overall and report.questions
            rows[kind] |= {"painting": report.overall.mean, "questions": report.questions.mean}
    rounded = {kind: {name: round(value, 4) for name, value in row.items()} for kind, row in rows.items()}
    print(json.dumps({"model": arguments.model, "samples": arguments.samples, "given": arguments.given, **rounded}, indent=1))


if __name__ == "__main__":
    main()
