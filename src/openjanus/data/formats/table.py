"""Tables of texts and images: .csv and .tsv, whose first line names the columns."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openjanus.data.forms import ROW_IMAGES, ROW_TEXTS
from openjanus.errors import DataError

# A column of this name is what `ROW_IMAGES` name; in records of text it may be anything.
_PATH = "path"


class Table:
    """A .csv or .tsv file, by where its rows begin. Quotes are double quotes; a quoted cell may hold commas and lines.

    DataError for a header that names no text or no image, and for quotes that do not match, with the line.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        with path.open("rb") as file:
            # Where rows begin is a matter of quotes and commas alone; what is no UTF-8 is its own row's trouble.
            rows = list(self._starts(file))
        self._header = self._names(*rows[0]) if rows else []
        self._places = np.array(rows[1:], dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._places)

    def origin(self, number: int) -> str:
        return f"{self.path}, line {self._places[number, 1]}"

    def read(self, number: int) -> Any:
        row = self._row(int(self._places[number, 0]))
        if len(row) != len(self._header):
            raise DataError(f"the row has {len(row)} cells, and the header names {len(self._header)} columns")
        values = dict(zip(self._header, row, strict=True))
        if not any(values.get(name) for name in ROW_IMAGES):
            raise DataError("the row names no image")
        return values

    def _names(self, place: int, line: int) -> list[str]:
        names = [name.strip().lower() for name in self._row(place)]
        names = ["file_name" if name == _PATH else name for name in names]
        if not set(names) & set(ROW_TEXTS) or not set(names) & set(ROW_IMAGES):
            raise DataError(
                f"{self.path}, line {line}: the header names {', '.join(names)}; it must name a text ({', '.join(ROW_TEXTS)}) "
                f"and an image ({', '.join((*ROW_IMAGES, _PATH))}): write such a line above the others"
            )
        return names

    def _row(self, place: int) -> list[str]:
        with self.path.open("rb") as file:
            file.seek(place)
            lines = (line.decode("utf-8").removeprefix("\ufeff") for line in file)
            try:
                return next(csv.reader(lines, delimiter=self._delimiter, strict=True))
            except csv.Error as error:
                raise DataError(f"the row cannot be read: {error}") from error

    def _starts(self, file: BinaryIO) -> Iterator[tuple[int, int]]:
        """Of each row that is not empty, the place in the file and the line."""
        place = 0

        def lines() -> Iterator[str]:
            nonlocal place
            for line in file:
                place += len(line)
                yield line.decode("latin-1")

        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        start, line = place, 1
        try:
            for row in reader:
                if row:
                    yield start, line
                start, line = place, reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}, line {line}: {error}; mend the quotes of that row") from error
