"""`openjanus understand`: answer a question about images, or about none."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjanus.cli import options

if TYPE_CHECKING:
    from openjanus.types import TextOptions


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
    from openjanus.errors import PromptError
    from openjanus.types import Message, TextOptions

    if (question is None) == (not records) or (records and (image or system_prompt is not None)):
        raise PromptError(
            "give either a question or --records FILE, whose records name their own images and system prompts; "
            "openjanus understand --help shows what there is"
        )
    if records:
        asked = TextOptions(max_tokens, temperature, top_p, top_k, tuple(stop or ()), seed)
        _answer_files(records, asked, output, batch, (model, device, dtype, quantize, adapter), as_json)
        return
    assert question is not None
    text = _standard_input() if question == "-" else question
    asked = TextOptions(max_tokens, temperature, top_p, top_k, tuple(stop or ()), seed)
    janus = load_model(model, device, dtype, quantize, adapter)
    system = [] if system_prompt is None else [Message("system", system_prompt)]
    pieces = janus.chat([*system, Message("user", text, tuple(image or ()))], asked)
    if as_json:
        answer = "".join(pieces).strip()
        print(json.dumps({"question": text, "images": image or [], "answer": answer, "model": janus.name}))
        return
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


def _answer_files(
    records: list[str], asked: "TextOptions", output: Path, batch: int, loaded: tuple[str | None, ...], as_json: bool
) -> None:
    """Answer the records of files, or this process's share of them; ends with 1 if some cannot be answered."""
    from openjanus.cli.console import load_model, note, progress_bar
    from openjanus.environment import Share
    from openjanus.jobs.answering import Questions, answer

    questions, share = Questions.found(records), Share.launched()
    model, device, *others = loaded
    janus = load_model(model, str(share.device(device)), *others)  # type: ignore[arg-type]
    with progress_bar("answering") as progress:
        done, failed = answer(janus, questions, output, asked, share, batch, progress, note)
    print(json.dumps({"path": str(output), "records": done, "failed": failed}) if as_json else output)
    if failed:
        raise typer.Exit(1)


def _standard_input() -> str:
    """All of standard input; PromptError if there is none or it is no text."""
    from openjanus.errors import PromptError

    if sys.stdin is None:
        raise PromptError('the question "-" is read from standard input, which is closed; write the question instead')
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is not {error.encoding} text; convert it first") from error
