"""Finding the official files in a folder, as people unpack them, and reading their JSON."""

import json
from collections.abc import Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from openjanus.errors import DataError
from openjanus.processing.images import open_image

_LISTED = 5  # missing files that a message names
DEPTH = 3  # folders below --data that are looked through


def data_folder(data: Path | None, name: str, source: str) -> Path:
    """The folder a benchmark's files are in: DATA/NAME if there is one, else DATA; DataError says where to get them."""
    if data is None:
        raise DataError(f"{name} needs its official files: say --data FOLDER; they are {source}")
    if not data.is_dir():
        raise DataError(f"there is no folder {data} to read {name} from; {name} needs {source}")
    return data / name if (data / name).is_dir() else data


def find(folder: Path, *patterns: str) -> Path | None:
    """The first file or folder that a pattern fits, patterns in order of preference, the outermost folder first."""
    for pattern in patterns:
        for depth in range(DEPTH):
            if found := sorted(folder.glob("*/" * depth + pattern)):
                return found[0]
    return None


def require(folder: Path, name: str, source: str, *patterns: str) -> Path:
    """`find`, or a DataError that says what is missing."""
    found = find(folder, *patterns)
    if found is None:
        raise DataError(f"{folder} has no {' or '.join(patterns)}; {name} needs {source}")
    return found


def read_json(path: Path) -> Any:
    """The content of a JSON file; DataError for a broken one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); it is broken or half-downloaded: fetch it again") from error


def read_json_lines(path: Path) -> list[Any]:
    """The records of a file with a line of JSON each; DataError names the line that is broken."""
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{path} line {number} is no JSON ({error}); it is broken or half-downloaded: fetch it again"
                ) from error
    return records


def fields(record: Any, names: Sequence[str], where: str) -> list[Any]:
    """The values of a record's fields; DataError if it lacks one, as a file of another version or benchmark does."""
    if not isinstance(record, dict):
        raise DataError(
            f"{where} is {type(record).__name__} and no record; this is not the official file, or one of another version"
        )
    lacking = [name for name in names if name not in record]
    if lacking:
        raise DataError(
            f"{where} has no field {lacking[0]!r} (it has {', '.join(map(str, list(record)[:12]))}); "
            "this is not the official file, or one of another version"
        )
    return [record[name] for name in names]


def check_ids(ids: Iterable[Hashable], where: Path | str) -> None:
    """DataError if an id is there twice: samples could not be told apart."""
    seen: set[Hashable] = set()
    for one in ids:
        if one in seen:
            raise DataError(f"{where} has the id {one} twice; fetch it again, or take one of the two out")
        seen.add(one)


def check_images(paths: Sequence[Path], name: str) -> None:
    """DataError if images are missing: better now than after hours."""
    wanted = dict.fromkeys(paths)
    lacking = [path for path in wanted if not path.is_file() or not path.stat().st_size]
    if lacking:
        shown = ", ".join(str(path) for path in lacking[:_LISTED]) + ", ..." * (len(lacking) > _LISTED)
        raise DataError(
            f"{name} lacks {len(lacking)} of {len(wanted)} images (missing or empty: {shown}); "
            "the download is not whole, or the images are in another folder: fetch it again, or link them there"
        )


def file_image(path: Path) -> "partial[Image.Image]":
    """An image that is opened when it is wanted."""
    return partial(open_image, path)
