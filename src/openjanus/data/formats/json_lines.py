"""JSON lines: a record a line. Empty lines do not count."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.errors import DataError


class JsonLines:
    """A .jsonl file, by where its lines begin. Places are told as editors count lines: with the empty ones."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        place, starts, empty = 0, [], []
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    starts.append(place)
                else:
                    empty.append(len(starts))
                place += len(line)
        self._starts = np.array(starts, dtype=np.int64)
        # Of each empty line, how many records stand before it.
        self._empty = np.array(empty, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def origin(self, number: int) -> str:
        line = number + 1 + int(np.searchsorted(self._empty, number, side="right"))
        return f"{self.path}, line {line}"

    def read(self, number: int) -> Any:
        with self.path.open("rb") as file:
            file.seek(int(self._starts[number]))
            line = file.readline().rstrip()  # at its end JSON would count a line more
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"it is not JSON at column {error.colno}: {error.msg}") from error
