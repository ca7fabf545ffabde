"""JSON lines: a record a line. Empty lines do not count."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.errors import DataError


class JsonLines:
    """A .jsonl file, by where its lines begin."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        place, starts = 0, []
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    starts.append(place)
                place += len(line)
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def origin(self, number: int) -> str:
        return f"{self.path}, record {number + 1}"

    def read(self, number: int) -> Any:
        with self.path.open("rb") as file:
            file.seek(int(self._starts[number]))
            line = file.readline().rstrip()  # at its end JSON would count a line more
        try:
            return json.loads(line)
        except json.JSONDecodeError as error:
            place = f"line {self._line(number)}, column {error.colno}"
            raise DataError(f"{place} is not JSON: {error.msg}") from error

    def _line(self, number: int) -> int:
        """The line of a record, counted from 1 as editors do."""
        with self.path.open("rb") as file:
            return file.read(int(self._starts[number])).count(b"\n") + 1
