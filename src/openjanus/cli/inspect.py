"""`openjanus inspect`: what a checkpoint is."""

import json
from typing import Annotated

import typer

from openjanus.cli import options


def inspect(
    model: Annotated[str, typer.Argument(help="A folder, a Hugging Face id, janus-tiny or janusflow-tiny.")],
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    as_json: options.Json = False,
) -> None:
    """Tell what a checkpoint is: layout, variant, parameters, number format, special tokens, what is missing.

    openjanus inspect deepseek-ai/Janus-Pro-1B --quantize int4

    Beside these, what memory it takes to run on a device, in a number format, quantised or as it is. Reads the headers of the
    files, not the weights; of a Hugging Face id whose weights are not in the cache only the small files are fetched. Ends with 2
    if the checkpoint would not load.
    """
    from openjanus.checkpoints.inspect import inspect_checkpoint
    from openjanus.checkpoints.load import build_empty, load_config, stored_quantization
    from openjanus.device import pick_device, pick_dtype
    from openjanus.engine.footprint import footprint
    from openjanus.engine.linear import check_quantization_on

    where, asked = pick_device(device), pick_dtype(dtype)
    kind = stored_quantization(model) if quantize is None else check_quantization_on(quantize, where)
    report = inspect_checkpoint(model)
    number = asked or pick_dtype(report.dtype)
    assert number is not None
    taken = footprint(build_empty(load_config(model)), where, number, kind)
    report.memory = taken.to_json()
    print(json.dumps(report.to_json(), indent=2) if as_json else report.to_text(taken.to_text()))
    if not report.sound:
        raise typer.Exit(2)
