"""What commands that work through a file share: this process's part of it, its model, progress and what is told at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from openjanus.cli.console import load_model, note, progress_bar

if TYPE_CHECKING:
    from openjanus.environment import Share
    from openjanus.janus import Janus


class Loaded(NamedTuple):
    """How the command line wants its model loaded."""

    model: str | None
    device: str
    dtype: str
    quantize: str | None
    adapter: str | None


Job = Callable[["Janus", "Share", Callable[[int, int], None], Callable[[str], None]], tuple[int, int]]


def run_job(title: str, job: Job, loaded: Loaded, output: Path, inputs: str, as_json: bool) -> None:
    """Do this process's share of a job, and say where its results are; ends with 1 if some inputs came to nothing.

    inputs: what the job's inputs are called.
    """
    from openjanus.environment import Share

    share = Share.launched()
    janus = load_model(*loaded._replace(device=str(share.device(loaded.device))))
    with progress_bar(title) as progress:
        done, failed = job(janus, share, progress, note)
    told: dict[str, Any] = {"path": str(output), inputs: done, "failed": failed}
    print(json.dumps(told) if as_json else output)
    if failed:
        raise typer.Exit(1)
