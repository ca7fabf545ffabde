"""`openjanus understand`: answer a question about images, or about none."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from openjanus.cli import options


def understand(
    question: Annotated[str | None, typer.Argument(help='What to ask; "-" reads it from standard input.')] = None,
    records: Annotated[
        list[str] | None,
        typer.Option(
            help="A file of records instead (as `openjanus data` reads); may be given several times. A job that was killed goes "
            "on; torchrun divides it.",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="With --records, the .jsonl of answers.")] = Path(
        "answers.jsonl"
    ),
    batch: options.Batch = 32,
    image: Annotated[list[str] | None, typer.Option("--image", "-i", help="An image; may be given several times.")] = None,
    model: options.Model = None,
    max_tokens: options.MaxTokens = 512,
    temperature: Annotated[float, typer.Option(help="0 is greedy: always the likeliest word.")] = 0.0,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End the answer before this text; may be given several times.")] = None,
    seed: options.Seed = None,
    system_prompt: Annotated[str | None, typer.Option(help="Instead of the model's usual system prompt.")] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantize: options.Quantize = None,
    adapter: options.Adapter = None,
    as_json: options.Json = False,
) -> None:
    """Answer a question about images.

    openjanus understand "How many circles are there?" --image scene.png
    openjanus understand --records questions.jsonl -o answers.jsonl

    Several images stand before the question in their order; put <image_placeholder> into the question to place them.
    """
    from openjanus.cli.console import load_model
    from openjanus.cli.offline import Loaded, run_job
    from openjanus.errors import PromptError
    from openjanus.types import Message, TextOptions

    if (question is None) == (not records) or (records and (image or system_prompt is not None)):
        raise PromptError(
            "give either a question or --records FILE, whose records name their own images and system prompts; "
            "openjanus understand --help shows what there is"
        )
    asked = TextOptions(max_tokens, temperature, top_p, top_k, tuple(stop or ()), seed)
    if records:
        from openjanus.jobs.answering import Questions, answer

        questions = Questions.found(records)
        run_job(
            "answering",
            lambda janus, share, progress, note: answer(janus, questions, output, asked, share, batch, progress, note),
            Loaded(model, device, dtype, quantize, adapter),
            output,
            "records",
            as_json,
        )
        return
    assert question is not None
    text = _standard_input() if question == "-" else question
    janus = load_model(model, device, dtype, quantize, adapter)
    system = [] if system_prompt is None else [Message("system", system_prompt)]
    pieces = janus.chat([*system, Message("user", text, tuple(image or ()))], asked)
    if as_json:
        words = "".join(pieces).strip()
        print(json.dumps({"question": text, "images": image or [], "answer": words, "model": janus.name}))
        return
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _standard_input() -> str:
    """All of standard input; PromptError if there is none or it is no text."""
    from openjanus.errors import PromptError

    if sys.stdin is None:
        raise PromptError('the question "-" is read from standard input, which is closed; write the question instead')
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not {error.encoding} text; convert it first") from error
