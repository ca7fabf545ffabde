"""`openjanus inspect`: what a checkpoint is."""

import json
from typing import Annotated

import typer

from openjanus.cli import options


def inspect(
    model: Annotated[str, typer.Argument(help="A folder, a Hugging Face id, janus-tiny or janusflow-tiny.")],
    as_json: options.Json = False,
) -> None:
    """Tell what a checkpoint is: layout, variant, parameters, number format, special tokens, what is missing.

    openjanus inspect deepseek-ai/Janus-Pro-1B

    Reads the headers of the files, not the weights; of a Hugging Face id whose weights are not in the cache only the small files
    are fetched. Ends with 2 if the checkpoint would not load.
    """
    from openjanus.checkpoints.inspect import inspect_checkpoint

    report = inspect_checkpoint(model)
    print(json.dumps(report.to_json(), indent=2) if as_json else report.to_text())
    if not report.sound:
        raise typer.Exit(2)
