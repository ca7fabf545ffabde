"""`openjanus data`: look at records before a run learns from them, and bring them into one format."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openjanus.cli import options

if TYPE_CHECKING:
    from openjanus.data.documents import Writer
    from openjanus.data.records import RecordFiles

app = typer.Typer(help="Look at records before a run learns from them: check, stats, preview, convert.")

Paths = Annotated[
    list[str], typer.Argument(help="Files of records (.jsonl, .json, .tar, .parquet, .csv, .tsv) or folders of captioned images.")
]
Wanted = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="What they are wanted for: text, understanding, generation, editing. Others are broken; captioned images become it.",
        show_default="what they are",
    ),
]


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """Look at records before a run learns from them: check, stats, preview, convert."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def check(
    paths: Paths,
    kind: Wanted = None,
    everything: Annotated[bool, typer.Option("--list", help="Show all that is broken, not the first 20.")] = False,
    as_json: options.Json = False,
) -> None:
    """Read every record, open every image, and tell what is broken, there twice or not learned.

    openjanus data check faces.jsonl shards/00.tar

    Ends with 1 if anything is broken.
    """
    from openjanus.cli.console import progress_bar
    from openjanus.data import checking

    files = _files(paths, kind)
    with progress_bar("check") as progress:
        found = checking.check(files, progress)
    print(json.dumps(found.to_json(), ensure_ascii=False, indent=2) if as_json else found.to_text(everything))
    if found.broken:
        raise typer.Exit(1)


@app.command()
def stats(
    paths: Paths,
    model: options.Model = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens of a row (settings.context of a run).")] = 4096,
    kind: Wanted = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many records, evenly over all.", show_default="all")] = None,
    as_json: options.Json = False,
) -> None:
    """Tell how many tokens records have for a model, how many are supervised, what fits a row, how large images are.

    openjanus data stats faces.jsonl --model deepseek-ai/Janus-Pro-1B --context 4096

    Reads no weights: of a Hugging Face id only the small files are fetched. Ends with 1 if all records had to be left out.
    """
    from openjanus.cli.console import progress_bar
    from openjanus.data.preview import spread
    from openjanus.data.statistics import measure

    files, writer = _files(paths, kind), _writer(model)
    numbers = spread(len(files), limit or len(files))
    with progress_bar("stats") as progress:
        found = measure(files, numbers, writer, context, lambda done: progress(done, len(numbers)))
    print(json.dumps(found.to_json(), ensure_ascii=False, indent=2) if as_json else found.to_text())
    if not found.kinds:
        raise typer.Exit(1)


@app.command()
def preview(
    paths: Paths,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .html page to write; nothing is written over.")],
    model: options.Model = None,
    number: Annotated[int, typer.Option("--n", "-n", min=1, help="How many records, evenly over all.")] = 20,
    kind: Wanted = None,
) -> None:
    """Write a page that shows records as a model will see them: tokens, what is learned, images as they are cut.

    openjanus data preview faces.jsonl --model deepseek-ai/Janus-Pro-1B -o page.html
    """
    from openjanus.data.preview import spread, views
    from openjanus.data.preview_page import page
    from openjanus.errors import DataError

    files, writer = _files(paths, kind), _writer(model)
    html = page(views(files, spread(len(files), number), writer), f"{', '.join(paths)} for {model or 'janus-tiny'}")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with output.open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(html)
    except FileExistsError:
        raise DataError(f"{output} exists and is not written over; choose another name with -o") from None
    print(output)


@app.command()
def convert(
    paths: Paths,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .jsonl file to write; nothing is written over.")],
    kind: Wanted = None,
    on_error: Annotated[str, typer.Option(help="At a broken record: stop, or skip it and tell.")] = "stop",
    as_json: options.Json = False,
) -> None:
    """Write records of any format as JSON lines of messages; images that were embedded go into a folder beside it.

    openjanus data convert shards/00.tar shards/01.tar -o faces.jsonl
    """
    from openjanus.cli.console import note, progress_bar
    from openjanus.data import converting
    from openjanus.errors import ConfigError

    if on_error not in ("stop", "skip"):
        raise ConfigError(f"--on-error is {on_error!r}; it must be stop or skip")
    files = _files(paths, kind)
    with progress_bar("convert") as progress:
        written = converting.convert(files, output, "stop" if on_error == "stop" else "skip", progress)
    for text in written.skipped:
        note(f"skipped {text}")
    result = {"path": str(output), "records": written.records, "images": written.images, "skipped": len(written.skipped)}
    print(json.dumps(result) if as_json else output)


def _files(paths: list[str], kind: str | None) -> "RecordFiles":
    from openjanus.data.records import RecordFiles
    from openjanus.data.samples import KINDS
    from openjanus.errors import ConfigError

    wanted = next((one for one in KINDS if one == kind), None)
    if kind is not None and wanted is None:
        raise ConfigError(f"--kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    return RecordFiles(paths, wanted)


def _writer(model: str | None) -> "Writer":
    """How training writes records for a model; without --model for the bundled one, and a note says so."""
    from openjanus.checkpoints.load import load_without_weights
    from openjanus.cli.console import note
    from openjanus.data.documents import Writer

    if model is None:
        note("no --model given: this is how the bundled janus-tiny sees records")
    processor, config = load_without_weights(model or "janus-tiny")
    return Writer(processor, config.generation)
