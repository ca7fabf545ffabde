"""Tables as VLMEvalKit publishes benchmarks: tab-separated rows with questions, answers and the image itself, in base64.

Such a file may have gigabytes, so images stay on disk: a row remembers where it lies and reads its image when it is wanted.
"""

import ast
import binascii
import csv
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from openjanus.errors import DataError, ImageError
from openjanus.evaluate.files.finding import check_ids
from openjanus.processing.images import open_image

_SHORTEST_IMAGE = 64  # characters; less is the index of a row that has the image
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Place:
    """Where a row's image is: bytes `start` to `end` of a file, in column `column`."""

    path: Path
    start: int
    end: int
    column: int


@dataclass(frozen=True)
class Row:
    """A row: its cells by column name, without the image and without empty ones; where its image is, or the files it names."""

    cells: dict[str, str]
    place: Place | None
    paths: tuple[Path, ...]

    def get(self, name: str) -> str:
        """A cell, "" if it is empty or there is no such column."""
        return self.cells.get(name, "")

    @property
    def index(self) -> str:
        """What the row is called."""
        return self.get("index")

    @property
    def image(self) -> "partial[Image.Image]":
        """Its image, or the first of several."""
        return partial(_image, self.place, 0) if self.place else partial(open_image, self.paths[0])

    @property
    def images(self) -> tuple["partial[Image.Image]", ...]:
        """All of its images."""
        if self.place is None:
            return tuple(partial(open_image, path) for path in self.paths)
        return tuple(partial(_image, self.place, number) for number in range(len(_encoded(self.place))))


def read_table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The rows of a .tsv file; DataError if it is broken, cut short, or lacks one of `columns`, and for an index twice."""
    try:
        records = _records(path)
        _, _, names = next(records, (0, 0, []))
        lacking = [name for name in columns if name not in names]
        if lacking:
            raise DataError(
                f"{path} has no column {lacking[0]!r} (it has {', '.join(names[:14])}); "
                "this is another file, or another version of it"
            )
        read = [_split(path, names, number, *record) for number, record in enumerate(records, 1)]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); it is broken or half-downloaded: fetch it again") from error
    if not read:
        raise DataError(f"{path} has no rows; it is broken or half-downloaded: fetch it again")
    check_ids((cells["index"] for cells, _, _ in read), path)
    places = {cells["index"]: place for cells, place, _ in read if place}
    rows = []
    for cells, place, pointer in read:
        # A rotation of a question has, for an image, the index of the row that has it.
        place = place or places.get(pointer.removesuffix(".0"))
        named = () if place else _named(cells.get("image_path", ""), path)
        if not place and not named:
            raise DataError(f"{path} has no image for row {cells['index']}; it is broken or half-downloaded: fetch it again")
        rows.append(Row(cells, place, named))
    return rows


def _split(
    path: Path, names: list[str], number: int, start: int, end: int, cells: list[str]
) -> tuple[dict[str, str], Place | None, str]:
    """A record as cells by name, the place of its image, or else the index of the row that has it."""
    if len(cells) != len(names):
        raise DataError(
            f"{path} row {number} has {len(cells)} cells where {len(names)} belong; it is broken or half-downloaded: "
            "fetch it again"
        )
    row = dict(zip(names, cells, strict=True))
    image = row.pop("image", "")
    kept = {name: cell for name, cell in row.items() if cell.strip()}
    kept.setdefault("index", str(number))
    if len(image) > _SHORTEST_IMAGE:
        return kept, Place(path, start, end, names.index("image")), ""
    return kept, None, image


def _named(text: str, path: Path) -> tuple[Path, ...]:
    """The image files that a row names, beside the table."""
    if not text:
        return ()
    names = ast.literal_eval(text) if text.startswith("[") else [text]
    return tuple(path.parent / name for name in names)


def _records(path: Path) -> Iterator[tuple[int, int, list[str]]]:
    """Each record of a table with the bytes it takes; a record may have several lines."""
    with path.open("rb") as file:
        place = 0

        def lines() -> Iterator[str]:
            nonlocal place
            for line in file:
                place += len(line)
                yield line.decode()

        reader = csv.reader(lines(), delimiter="\t", strict=True)
        start = 0
        for cells in reader:
            if cells:
                yield start, place, cells
            start = place


def _cell(place: Place) -> str:
    with place.path.open("rb") as file:
        file.seek(place.start)
        text = file.read(place.end - place.start).decode()
    return next(iter(csv.reader(text.splitlines(keepends=True), delimiter="\t")))[place.column]


def _encoded(place: Place) -> list[str]:
    """The base64 texts of a cell: one, or a list as Python writes it."""
    cell = _cell(place)
    if not cell.startswith("["):
        return [cell]
    try:
        texts: Any = ast.literal_eval(cell)
    except (ValueError, SyntaxError) as error:
        raise ImageError(f"an image list in {place.path} cannot be read ({error})") from error
    return [str(text) for text in texts]


def _image(place: Place, number: int) -> Image.Image:
    try:
        return open_image(b64decode(_encoded(place)[number], validate=True))
    except (binascii.Error, IndexError) as error:
        raise ImageError(f"an image in {place.path} is not valid base64 ({error}); fetch the file again") from error
