"""Command-line options that several commands share: one spelling, one help text, one default."""

from typing import Annotated

import typer

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="A folder, a Hugging Face id, janus-tiny or janusflow-tiny.", show_default="janus-tiny"),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto (the checkpoint's own), float32, bfloat16 or float16.")]
Quantize = Annotated[
    str | None,
    typer.Option(
        help="none, int8 or int4: smaller weights, faster steps, a little less exact.", show_default="as they are stored"
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(help="A LoRA in PEFT's format to put into the model: a folder or a Hugging Face id.", show_default="none"),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same result.", show_default="a fresh one")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest choices that sum to this probability; 1 keeps all.")]
TopK = Annotated[int, typer.Option(help="Keep this many of the likeliest choices; 0 keeps all.")]
MaxTokens = Annotated[int, typer.Option(help="Longest answer, in tokens.")]
Guidance = Annotated[
    float | None, typer.Option(help="How closely to follow the prompt; 1 is off.", show_default="5, for JanusFlow 2")
]
ImageGuidance = Annotated[
    float | None,
    typer.Option(help="With --image: how much more the prompt counts than the image's codes; 0 is off.", show_default="5"),
]
Batch = Annotated[int, typer.Option(min=1, help="Of a file, how many at a time.")]
Steps = Annotated[int, typer.Option(help="Steps from noise to image (JanusFlow).")]
