"""The samples of a benchmark on disk: one file of lines a process, pictures beside them.

NAME/settings.json        how it is run, and the model
NAME/samples-0.jsonl      a line a sample, written by process 0
NAME/...                  pictures, in the official layout
NAME/judgements.jsonl, result.json, verdicts.jsonl    what became of them
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from openjanus.errors import DataError
from openjanus.evaluate.benchmark import Case, Painting, Sample
from openjanus.files import append_lines, locked, read_lines, replace_file

Key = tuple[str, int]


class Samples:
    """The samples in a benchmark's folder, seen by the process of a rank."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self._own = folder / f"samples-{rank}.jsonl"
        self._lock = folder / f".samples-{rank}.lock"

    def locked(self) -> AbstractContextManager[None]:
        """No other process of this rank writes here meanwhile; DataError if one does."""
        busy = DataError(
            f"another process is at work in {self.folder}; wait for it, or choose another folder with -o. "
            "To share the work, start all processes with torchrun"
        )
        return locked(self._lock, busy)

    def read(self) -> dict[Key, Sample]:
        """Every sample there is, of all processes."""
        samples: dict[Key, Sample] = {}
        for path in sorted(self.folder.glob("samples-*.jsonl")):
            for number, line in enumerate(read_lines(path), 1):
                try:
                    one = Sample(**line)
                except TypeError as error:
                    raise DataError(f"{path} line {number} is no sample ({error}); take the line out") from error
                samples.setdefault((one.case, one.number), one)
        return samples

    def add(self, samples: Sequence[Sample]) -> None:
        """Keep some more samples, whose pictures are there already."""
        append_lines(self._own, [_short(asdict(one)) for one in samples])

    def save_pictures(self, case: Painting, pictures: Sequence[Image.Image]) -> list[str]:
        """Write the pictures of a case where its benchmark wants them; the file of each.

        Where there is one file for several, they are tiled in rows of two.
        """
        for name, text in case.beside.items():
            replace_file(self.folder / name, text.encode())
        if len(case.files) == len(pictures):
            for name, picture in zip(case.files, pictures, strict=True):
                replace_file(self.folder / name, _png(picture))
            return list(case.files)
        (name,) = case.files
        replace_file(self.folder / name, _png(tiled(pictures)))
        return [name] * len(pictures)


def tiled(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in rows of two."""
    width, height = pictures[0].size
    sheet = Image.new("RGB", (width * min(2, len(pictures)), height * -(-len(pictures) // 2)))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % 2 * width, number // 2 * height))
    return sheet


def missing(cases: Sequence[Case], samples: Mapping[Key, Sample]) -> list[Key]:
    """What is still to be made."""
    return [(case.id, number) for case in cases for number in range(case.count) if (case.id, number) not in samples]


def _short(line: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing."""
    return {key: value for key, value in line.items() if value not in ("", None)}


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
