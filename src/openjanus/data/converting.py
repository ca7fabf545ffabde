"""Records of any format as one file of JSON lines, with their images as files beside it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openjanus.data.addresses import called, file_name, images_of
from openjanus.data.conversations import to_record
from openjanus.data.records import RecordFiles, unusable
from openjanus.data.samples import Sample
from openjanus.errors import DataError
from openjanus.types import ImageSource


@dataclass(frozen=True)
class Converted:
    """What was written: records, images that had no file of their own, and what is wrong with the records left out."""

    records: int
    images: int
    skipped: tuple[str, ...]


def convert(
    files: RecordFiles, output: Path, on_error: Literal["stop", "skip"], progress: Callable[[int, int], None]
) -> Converted:
    """Write the records to a .jsonl file, in their order. Images that were embedded go into the folder NAME_images beside it.

    Other images stay where they are, with paths relative to the file; data: URLs stay as they are. Everything appears at the
    end or not at all. DataError if something is there already, if it cannot be written, or for a broken record (on_error
    "stop"; "skip" leaves it out and tells).
    """
    images = images_of(output)
    skipped: list[str] = []
    with _aside(output, images) as (new_output, new_images):
        place = _Images(new_images, images)
        # Of a file name that is no UTF-8 a backslash and a number is left, which JSON reads as the same name.
        with new_output.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for number in range(len(files)):
                try:
                    file.write(_line(files.sample(number), place))
                except DataError as error:
                    if on_error == "stop":
                        raise
                    skipped.append(str(error))
                progress(number + 1, len(files))
    return Converted(len(files) - len(skipped), place.count, tuple(skipped))


def _line(sample: Sample, images: "_Images") -> str:
    try:
        return json.dumps(to_record(sample, images.address), ensure_ascii=False) + "\n"
    except DataError as error:
        raise unusable(sample.origin, error) from error


class _Images:
    """Where images are written to, and what records call them."""

    def __init__(self, folder: Path, final: Path) -> None:
        self._folder, self._final = folder, final
        self.count = 0

    def address(self, source: ImageSource) -> str:
        """What the record says of an image. Embedded ones are written down, byte for byte as they were."""
        if isinstance(source, bytes):
            name = file_name(f"{self.count:08d}", source)
            self._folder.mkdir(exist_ok=True)
            (self._folder / name).write_bytes(source)
            self.count += 1
            return f"{self._final.name}/{name}"
        return called(source, self._final.parent)


@contextmanager
def _aside(output: Path, images: Path) -> Iterator[tuple[Path, Path]]:
    """Where to write a file and a folder that appear when the block ends well and vanish when it does not."""
    if output.suffix.lower() != ".jsonl":
        raise DataError(f"the output is {output}; give a .jsonl file with -o")
    for there in (output, images):
        if there.exists():
            raise DataError(f"{there} exists and is not written over; choose another name with -o")
    partial = output.with_name(f"{output.name}.partial"), images.with_name(f"{images.name}.partial")

    def clear() -> None:
        partial[0].unlink(missing_ok=True)
        shutil.rmtree(partial[1], ignore_errors=True)

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        clear()
        yield partial
        if partial[1].exists():
            partial[1].rename(images)
        partial[0].rename(output)
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}; make room or choose another place") from error
    finally:
        clear()
