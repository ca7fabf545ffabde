"""A list of records as one JSON text, as LLaVA's."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_BOM = "ï»¿"  # the three bytes that some editors put before UTF-8, as Latin-1


class JsonList:
    """A .json file, by where its records begin and end. While it is opened its text is in memory, afterwards nothing of it.

    DataError, with the line, for a file that is not one list.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        # Latin-1 has a character a byte, so that places in the text are places in the file.
        text = path.read_bytes().decode("latin-1")
        try:
            self._spans = np.array(list(_spans(text)), dtype=np.int64).reshape(-1, 2)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}, line {error.lineno}, column {error.colno}: it is not a JSON list of records: {error.msg}; "
                "mend it there, or name it .jsonl if it has a record a line"
            ) from error

    def __len__(self) -> int:
        return len(self._spans)

    def origin(self, number: int) -> str:
        return f"{self.path}, record {number + 1}"

    def read(self, number: int) -> Any:
        start, end = map(int, self._spans[number])
        with self.path.open("rb") as file:
            file.seek(start)
            return json.loads(file.read(end - start))


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the members of a list stand in a JSON text."""
    decoder = json.JSONDecoder()

    def behind_space(place: int) -> int:
        found = _SPACE.match(text, place)
        return found.end() if found else place

    def sign(place: int, allowed: str) -> str:
        if text[place : place + 1] not in tuple(allowed):
            raise json.JSONDecodeError(f"expected {' or '.join(allowed)}", text, place)
        return text[place]

    place = behind_space(len(_BOM) if text.startswith(_BOM) else 0)
    sign(place, "[")
    place = behind_space(place + 1)
    more = text[place : place + 1] != "]"
    while more:
        _, end = decoder.raw_decode(text, place)
        yield place, end
        place = behind_space(end)
        more = sign(place, ",]") == ","
        place = behind_space(place + 1) if more else place
    if behind_space(place + 1) < len(text):
        raise json.JSONDecodeError("more follows the list", text, place + 1)
