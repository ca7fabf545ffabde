"""`openjanus convert`: between checkpoint layouts, and into whole numbers."""

from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options


def convert(
    source: Annotated[str, typer.Argument(help="A folder in any layout, or a Hugging Face id.")],
    destination: Annotated[Path, typer.Argument(help="The folder to write.")],
    layout: Annotated[str, typer.Option(help="deepseek (as published) or transformers.")] = "deepseek",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Write a checkpoint in another layout; there and back gives the same bits. With --adapter, merge a LoRA into it.

    openjanus convert deepseek-ai/Janus-Pro-1B janus-pro-1b-hf --layout transformers
    openjanus convert deepseek-ai/Janus-Pro-7B janus-pro-7b-int4 --quantize int4
    openjanus convert deepseek-ai/Janus-Pro-1B merged --adapter runs/finetune_lora/final/adapter
    """
    import json

    from openjanus.checkpoints.convert import convert_checkpoint
    from openjanus.models.quantization import check_quantization

    kind = None if quantize is None else check_quantization(quantize)
    written = convert_checkpoint(source, destination, layout, quantize=kind, adapter=adapter)
    print(json.dumps({"path": str(destination), "layout": layout, "quantize": written}) if as_json else destination)
