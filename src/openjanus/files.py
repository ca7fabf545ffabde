"""Files that a run writes and reads again: there whole or not at all, also after a kill or on a full disk."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openjanus.errors import DataError, JanusError

GO_ON = "Make room, or choose another place with -o, and start the same command again: it goes on from there"


@contextmanager
def writing(path: Path, kind: type[JanusError] = DataError, advice: str = GO_ON) -> Iterator[None]:
    """A disk that refuses becomes an error of that kind, which says that nothing is lost and what to do."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path} cannot be written: {error.strerror or error}; what was saved before is intact. {advice}") from error


@contextmanager
def locked(path: Path, busy: JanusError, advice: str = GO_ON) -> Iterator[None]:
    """No other process holds the lock of this file meanwhile; `busy` if one does, or an error of its kind if the disk refuses.

    A lock ends with its process, killed or not.
    """
    with writing(path.parent, type(busy), advice):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, [] if there is none.

    A last line that a kill cut short is left out; DataError for any other that is none.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    records = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path} line {number} is no JSON ({error}); take the line out, and what it held is made again"
            ) from error
    return records


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Append objects to a file of JSON lines and see them onto the disk. What a kill left of a line before is cut off."""
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """`append_lines` of one."""
    append_lines(path, [record])


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that is there whole or as it was before."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """A JSON file that people can read, whole or not at all."""
    replace_file(path, (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())
