"""Where painted pictures go: names nobody used yet, PNG files that remember how they were painted."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from openjanus.engine.request import Picture
from openjanus.errors import ImageError


def prepare_output(output: Path) -> None:
    """Make the folder that pictures go to, if need be; ImageError if they cannot be written there. Called before painting.

    output: a folder, or a .png file.
    """
    try:
        single = _is_file(output)
        folder = output.parent if single else output
        folder.mkdir(parents=True, exist_ok=True)
        # As long a name as any that will be written, and one that no other run has.
        longest = output.stem if single else "x" * 80
        with NamedTemporaryFile(dir=folder, prefix=".", suffix=f"{longest}.png"):
            pass
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot write pictures to {output} ({_reason(error)}); choose another place with -o") from error


def save_pictures(pictures: Sequence[Picture], output: Path, model: str) -> list[Path]:
    """Write each picture as PNG with prompt, seed and settings in its metadata, and return the paths.

    output: a folder (files are named after prompt and seed) or a .png file (numbered when there are several). A file that
    exists is never written over: the new one gets a number behind its name.
    """
    folder = output.parent if _is_file(output) else output
    paths = []
    for picture in pictures:
        stem = output.stem if _is_file(output) else f"{_slug(picture.prompt)}_{picture.seed}"
        paths.append(_write(picture, folder, stem, model))
    return paths


def _is_file(output: Path) -> bool:
    return output.suffix.lower() == ".png" and not output.is_dir()


def _write(picture: Picture, folder: Path, stem: str, model: str) -> Path:
    number = 0
    while True:
        path = folder / (f"{stem}.png" if number == 0 else f"{stem}_{number}.png")
        try:
            # "x" fails on a file that exists, also when another process made it a moment ago.
            file = path.open("xb")
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise ImageError(f"cannot write {path} ({_reason(error)}); choose another place with -o") from error
        try:
            with file:
                picture.write(file, model)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise ImageError(f"cannot write {path} ({_reason(error)}); choose another place with -o") from error
        return path


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _slug(prompt: str) -> str:
    return re.sub(r"\W+", "_", prompt).strip("_")[:50] or "image"
