"""What commands say beside their result: notes, progress and errors, all on stderr, so that stdout holds the result alone."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openjanus.janus import Janus


NO_MEMORY = "out of memory; ask for fewer images at once (-n), shorter answers, a smaller model or --dtype bfloat16"


def fail(message: str) -> int:
    """Say what went wrong in one line and return the exit code 2."""
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2


def note(message: str) -> None:
    """Say something the user should know but a script need not read."""
    print(f"note: {message}", file=sys.stderr)


def load_model(model: str | None, device: str, dtype: str, quantize: str | None, adapter: str | None = None) -> "Janus":
    """The model of the command line; without --model the bundled one, and a note says so."""
    from openjanus.janus import load

    name = model or "janus-tiny"
    janus = load(name, device=device, dtype=dtype, quantize=quantize, adapter=adapter)
    if model is None:
        note(f"no --model given: the bundled {name} answers")
    if janus.untrained:
        note(f"{name} is untrained: its words and pictures are noise")
    return janus


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on a terminal; elsewhere one line every ten seconds."""
    if not sys.stderr.isatty():
        yield _progress_lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _progress_lines(title: str) -> Callable[[int, int], None]:
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            left = (now - started) / done * (total - done)
            print(f"{title}: {done} of {total}, about {left:.0f} s left", file=sys.stderr)

    return report


class Follower:
    """Follows a long run on stderr. quiet: another process speaks for this one."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet

    def note(self, text: str) -> None:
        """A note, unless quiet."""
        if not self._quiet:
            note(text)

    def progress(self, title: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """A bar, unless quiet."""
        return nullcontext(lambda done, total: None) if self._quiet else progress_bar(title)
