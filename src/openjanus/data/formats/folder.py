"""A folder of images with their captions beside them: cat.png and cat.txt, or cat.json."""

import json
import os
from pathlib import Path
from typing import Any

from openjanus.data.formats.beside import SUFFIXES, record
from openjanus.data.formats.names import Names


class Folder:
    """The images in a folder and below, in the order of their paths.

    Texts without an image are not looked at, links to folders are not followed. OSError for a folder below that may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = self.folder = path
        found: list[str] = []
        for place, _, names in os.walk(path, onerror=_not_passed_over):
            below = Path(place).relative_to(path)
            found += [str(below / name) for name in names if _is_image(name)]
        self._names = Names(sorted(found))

    def __len__(self) -> int:
        return len(self._names)

    def origin(self, number: int) -> str:
        return str(self.path / self._names[number])

    def read(self, number: int) -> Any:
        image = self.path / self._names[number]
        text, values = image.with_suffix(".txt"), image.with_suffix(".json")
        return record(
            [Path(self._names[number])],
            text.read_text(encoding="utf-8") if text.is_file() else None,
            json.loads(values.read_bytes()) if values.is_file() else None,
        )


def _not_passed_over(error: OSError) -> None:
    """A folder that may not be looked into holds records that would be missed."""
    raise error


def _is_image(name: str) -> bool:
    # What begins with a dot is the system's, like the ._cat.png that macOS leaves beside cat.png.
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
