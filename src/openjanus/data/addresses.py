"""What a record calls its images: a path from its folder, an address as it is, and of an embedded one the name of a file."""

import os
from io import BytesIO
from pathlib import Path

from PIL import Image

from openjanus.errors import DataError

# Not relative to anything.
_ADDRESSES = ("data:", "http://", "https://")


def located(called: str | Path, folder: Path) -> str | Path:
    """The image that a record in a folder calls so: an address as it is, a path from the folder."""
    return called if str(called).startswith(_ADDRESSES) else folder / called


def called(image: str | Path, folder: Path) -> str:
    """What a record in a folder calls an image: `located` finds it again, wherever the record is read from."""
    if str(image).startswith(_ADDRESSES):
        return str(image)
    return Path(os.path.relpath(Path(image).resolve(), folder.resolve())).as_posix()


def images_of(records: Path) -> Path:
    """The folder beside a file of records for images that have no file of their own."""
    return records.with_name(f"{records.stem}_images")


def file_name(stem: str, image: bytes) -> str:
    """What the file of an embedded image is named; DataError if its bytes are no image."""
    try:
        with Image.open(BytesIO(image)) as opened:
            return f"{stem}.{(opened.format or 'png').lower().replace('jpeg', 'jpg')}"
    except Exception as error:  # the readers of some formats raise almost anything on a damaged header
        raise DataError("its image is none that can be read here") from error
