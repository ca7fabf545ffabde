"""`openjanus evaluate`: benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options

BENCHMARKS = {"shapes": "GenEval's six tasks and questions on drawn shapes; needs no data and no network"}


def evaluate(
    benchmark: Annotated[list[str], typer.Argument(help=f"One or more of: {', '.join(BENCHMARKS)}.")],
    model: options.Model = None,
    images_per_prompt: Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")] = 4,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many prompts of each task and questions of each kind.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Picture i of a prompt is drawn from seed + i.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new folder for report.json and sheets of samples.", show_default="none"),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Measure a model: scores with 95 % intervals, the same for everyone who asks with the same seed.

    openjanus evaluate shapes --model janus-tiny -o runs/shapes

    shapes: GenEval's six tasks and questions on drawn shapes, read from pixels alone; no data and no network needed.
    """
    import json

    from openjanus.cli.console import load_model, progress_bar
    from openjanus.errors import PromptError
    from openjanus.evaluate.shapes import run_benchmark
    from openjanus.evaluate.shapes_output import Gallery, new_folder

    unknown = [name for name in benchmark if name not in BENCHMARKS]
    if unknown:
        known = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
        raise PromptError(f"there is no benchmark {unknown[0]!r}; there is {known}")
    folder = None if output is None else new_folder(output)
    gallery = Gallery()
    janus = load_model(model, device, dtype, quantize, adapter)
    with progress_bar("shapes") as progress:
        size = janus.processor.images.config.image_size
        report = run_benchmark(janus, images_per_prompt, seed=seed, limit=limit, size=size, progress=progress, keep=gallery.keep)
    print(json.dumps(report.summary(), ensure_ascii=False, indent=2) if as_json else report.to_text())
    if folder is not None:
        paths = gallery.write(report, folder)
        if not as_json:
            print(*paths, sep="\n")
