"""What a job has come to so far: a line of JSON a result, appended as it is done, so that a job that was killed goes on.

Each process of a job has a file of its own, and counts as done what stands in any of them: a job may go on with other processes
than it began with.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from openjanus.environment import Share
from openjanus.errors import ConfigError, JanusError

# Which of the inputs a result is of; its last line of several says so.
NUMBER, LAST = "number", "last"


class Results:
    """The results of this process. `done`: the numbers of all inputs that some process has finished with."""

    def __init__(self, path: Path, share: Share, settings: Mapping[str, Any]) -> None:
        """path: the file of one process; with several each has one of its own beside it (`out-0.jsonl`, `out-1.jsonl`).

        settings: what the results depend on; ConfigError if those that are there came of others.
        """
        self.path = path if share.size == 1 else path.with_name(f"{path.stem}-{share.rank}{path.suffix}")
        self.done: set[int] = set()
        with writing(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._settle(path.with_name(f".{path.stem}.json"), settings)
            for file in (path, *path.parent.glob(f"{path.stem}-*{path.suffix}")):
                if file.exists():
                    self.done |= _finished(file)
            _mend(self.path)
            self._file = self.path.open("a", encoding="utf-8")

    def _settle(self, note: Path, settings: Mapping[str, Any]) -> None:
        plain = json.loads(json.dumps(settings))
        if note.exists() and (before := json.loads(note.read_text(encoding="utf-8"))) != plain:
            changed = [key for key in {**before, **plain} if before.get(key) != plain.get(key)]
            raise ConfigError(
                f"{self.path.parent} holds the results of another job: {changed[0]} was {before.get(changed[0])!r} and is "
                f"{plain.get(changed[0])!r}; give the same to go on, or another place with -o"
            )
        # Every process writes the same; the one that is last to rename changes nothing.
        partial = note.with_name(f"{note.name}.{os.getpid()}")
        partial.write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
        partial.replace(note)

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, number: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write down what an input has come to, so that it outlives the machine; JanusError if the disk refuses."""
        marked = [{NUMBER: number, **line, LAST: place + 1 == len(lines)} for place, line in enumerate(lines)]
        with writing(self.path):
            self._file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in marked))
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A disk that refuses becomes a JanusError, which says that what was done is kept."""
    try:
        yield
    except OSError as error:
        raise JanusError(
            f"{path} cannot be written: {error.strerror or error}; make room, and start the same command again to go on"
        ) from error


def _finished(path: Path) -> set[int]:
    """The numbers in a file whose last line is there; a line that was cut off is none."""
    found = set()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        if line.endswith("\n") and (values := json.loads(line)).get(LAST):
            found.add(int(values[NUMBER]))
    return found


def _mend(path: Path) -> None:
    """Take away a line that was cut off, so that the next one stands in a line of its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
