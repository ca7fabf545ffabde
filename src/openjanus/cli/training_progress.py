"""How a training run shows itself: a bar on a terminal, else a line every ten seconds; notes in between. All on stderr."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from openjanus.cli.console import note

if TYPE_CHECKING:
    from rich.progress import Progress

    from openjanus.train.metrics import Line
    from openjanus.train.trainer import Reporter


def words(line: "Line") -> str:
    """A step in a few words: its stage, losses, speed and memory."""
    losses = " ".join(f"{name} {value:.4g}" for name, value in line.losses.items())
    tokens = f" {line.tokens_per_second:,.0f} tokens/s" if line.tokens_per_second else ""
    return f"{line.stage}: {losses} | {line.samples_per_second:,.0f} samples/s{tokens} | {line.memory_mib:,.0f} MiB"


@contextmanager
def training_progress(title: str, speaks: bool) -> Iterator["Reporter"]:
    """A reporter for a run; a silent one for all processes but the first."""
    if not speaks:
        yield _Silent()
    elif not sys.stderr.isatty():
        yield _Lines(title)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            BarColumn(20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), speed_estimate_period=300) as bar:
            yield _Bar(bar, title)


class _Silent:
    def note(self, text: str) -> None:
        pass

    def step(self, line: "Line", steps: int) -> None:
        pass


class _Lines:
    """A line every ten seconds, for logs."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def note(self, text: str) -> None:
        note(text)

    def step(self, line: "Line", steps: int) -> None:
        now = time.monotonic()
        # The first step of a run is slow: time left is judged from the second on.
        self._first = self._first or (now, line.step)
        began, first = self._first
        if now - self._last < 10 and line.step < steps:
            return
        self._last = now
        left = (now - began) / (line.step - first) * (steps - line.step) if line.step > first else None
        rest = f", about {left:.0f} s left" if left is not None else ""
        print(f"{self._title}: {line.step} of {steps}{rest} | {words(line)}", file=sys.stderr)


class _Bar:
    """A bar with the time left."""

    def __init__(self, bar: "Progress", title: str) -> None:
        self._bar = bar
        self._task = bar.add_task(title, total=None)
        self._begun = False

    def note(self, text: str) -> None:
        self._bar.console.print(f"note: {text}", markup=False, highlight=False)

    def step(self, line: "Line", steps: int) -> None:
        if not self._begun:
            # A resumed run begins where it was; the bar must not take that for speed.
            self._bar.reset(self._task, total=steps, completed=line.step)
            self._begun = True
        self._bar.update(self._task, completed=line.step, total=steps, description=words(line))
