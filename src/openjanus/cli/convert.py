"""`openjanus convert`: between checkpoint layouts."""

from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options


def convert(
    source: Annotated[str, typer.Argument(help="A folder in any layout, or a Hugging Face id.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    layout: Annotated[str, typer.Option(help="deepseek (as published) or transformers.")] = "deepseek",
    as_json: options.Json = False,
) -> None:
    """Write a checkpoint in another layout; there and back gives the same bits.

    openjanus convert deepseek-ai/Janus-Pro-1B janus-pro-1b-hf --layout transformers
    """
    import json

    from openjanus.checkpoints.convert import convert_checkpoint

    convert_checkpoint(source, destination, layout)
    print(json.dumps({"path": str(destination), "layout": layout}) if as_json else destination)
