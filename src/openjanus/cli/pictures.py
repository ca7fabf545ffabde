"""Where painted pictures go: names nobody used yet, PNG files that remember how they were painted."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

from openjanus.engine.images import Picture, metadata
from openjanus.errors import ImageError


def prepare_output(output: Path) -> Path:
    """The folder pictures go to, made if need be; ImageError if it cannot be written. Called before painting, not after."""
    folder = output.parent if output.suffix else output
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".openjanus-write-test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ImageError(f"cannot write pictures to {folder}: {error.strerror or error}; choose another place with -o") from error
    return folder


def check_output(output: Path) -> None:
    """ImageError unless `output` is a folder or a .png file."""
    if output.suffix and output.suffix.lower() != ".png":
        raise ImageError(
            f"-o {output} is neither a folder nor a .png file; pictures are saved as PNG, which keeps their settings"
        )


def save_pictures(pictures: Sequence[Picture], output: Path, model: str) -> list[Path]:
    """Write each picture as PNG with prompt, seed and settings in its metadata, and return the paths.

    output: a folder (files are named after prompt and seed) or a .png file (numbered when there are several). A file that
    exists is never written over: the new one gets a number behind its name.
    """
    folder = prepare_output(output)
    paths = []
    for picture in pictures:
        stem = output.stem if output.suffix else f"{_slug(picture.prompt)}_{picture.seed}"
        info = PngInfo()
        for key, value in metadata(picture, model).items():
            info.add_itxt(key, value)
        paths.append(_write(picture, folder, stem, info))
    return paths


def _write(picture: Picture, folder: Path, stem: str, info: PngInfo) -> Path:
    number = 0
    while True:
        path = folder / (f"{stem}.png" if number == 0 else f"{stem}_{number}.png")
        try:
            # "x" fails on a file that exists, also when another process made it a moment ago.
            with path.open("xb") as file:
                picture.image.save(file, format="PNG", pnginfo=info)
            return path
        except FileExistsError:
            number += 1
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ImageError(f"cannot write {path}: {error.strerror or error}; choose another place with -o") from error


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "_", prompt).strip("_")[:50] or "image"
