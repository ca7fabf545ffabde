"""A folder of images with their captions beside them: cat.png and cat.txt, or cat.json."""

import json
import os
from pathlib import Path
from typing import Any

from openjanus.data.formats.beside import SUFFIXES, record
from openjanus.data.formats.names import Names


class Folder:
    """The images in a folder and below, in the order of their paths. Texts without an image are not looked at."""

    def __init__(self, path: Path) -> None:
        self.path = self.folder = path
        found = [os.path.join(place, name) for place, _, names in os.walk(path) for name in names if _is_image(name)]  # noqa: PTH118
        self._names = Names(sorted(os.path.relpath(one, path) for one in found))

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


def _is_image(name: str) -> bool:
    # What begins with a dot is the system's, like the ._cat.png that macOS leaves beside cat.png.
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")
