"""Prompts from a file, painted: pictures in a folder, and beside them a record of each, which a run can learn from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

from openjanus.data.addresses import called, located
from openjanus.data.forms import TEXTS
from openjanus.engine.request import ImageRequest, Picture
from openjanus.environment import Share
from openjanus.errors import DataError, JanusError
from openjanus.files import replace_file
from openjanus.janus import Janus
from openjanus.jobs.results import Inputs, Results
from openjanus.jobs.running import results
from openjanus.types import ImageOptions

RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Wanted:
    """A prompt of a file: its number there, what it asks for, and of what pictures it speaks. seed: None is the job's own."""

    number: int
    text: str
    images: tuple[str | Path, ...] = ()
    seed: int | None = None


def read_prompts(path: Path) -> list[Wanted]:
    """The prompts of a file: a text a line; in a .jsonl an object with "prompt", and perhaps "images" to change and a "seed".

    Paths of images are relative to the file, data: URLs stay as they are. DataError with the line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}); give a .txt or .jsonl") from error
    numbered = [(number, line) for number, line in enumerate(lines) if line.strip()]
    if not numbered:
        raise DataError(f"{path} holds no prompt; write one a line")
    if path.suffix.lower() != ".jsonl":
        return [Wanted(number, line.strip()) for number, line in numbered]
    return [_wanted(number, line, path) for number, line in numbered]


def _wanted(number: int, line: str, path: Path) -> Wanted:
    where = f"{path}, line {number + 1}"
    try:
        values = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where} is not JSON: {error}") from error
    if isinstance(values, str):
        values = {"prompt": values}
    text = next((values[name] for name in ("prompt", *TEXTS) if values.get(name)), None) if isinstance(values, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where} names no prompt; write {{"prompt": "a red circle"}}')
    images, seed = values.get("images") or [], values.get("seed")
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise DataError(f"{where}: images is no list of paths")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
        raise DataError(f"{where}: seed is {seed!r}; it must be a whole number of 0 or more")
    return Wanted(number, text, tuple(located(image, path.parent) for image in images), seed)


def paint(
    janus: Janus,
    wanted: Sequence[Wanted],
    folder: Path,
    options: ImageOptions,
    share: Share,
    batch: int,
    progress: Callable[[int, int], None],
    complain: Callable[[str], None],
) -> tuple[int, int]:
    """Paint this process's share of prompts into a folder, `batch` at a time; how many are done and how many cannot be.

    Picture i of prompt k is drawn from its own seed + i, or from options.seed (0) + k * n + i: so it is the same in every batch,
    on any number of processes, and after a kill. What is done already is not done again.
    """
    # Images as the records call them: the same job may go on from another working directory.
    asked = repr([(one.number, one.text, _shown(one, folder), one.seed) for one in wanted])
    prompts = Inputs("prompts", blake2b(asked.encode(), digest_size=8).hexdigest())
    kept = Results(folder / RECORDS, share, prompts, janus, options)
    own = [one for one in wanted[share.rank :: share.size] if one.number not in kept.done]
    total = len(wanted[share.rank :: share.size])
    failed = 0

    def request(one: Wanted) -> ImageRequest:
        seed = one.seed if one.seed is not None else (options.seed or 0) + one.number * options.n
        return ImageRequest(one.text, replace(options, seed=seed), images=one.images)

    for place, (one, result) in enumerate(results(janus.engine, own, request, batch)):
        if isinstance(result, JanusError):
            failed += 1
            complain(f"prompt {one.number + 1} is left out: {result}")
        else:
            kept.add(one.number, [_saved(picture, one, i, folder, janus.name) for i, picture in enumerate(result)])
        progress(total - len(own) + place + 1, total)
    return total - failed, failed


def _shown(one: Wanted, folder: Path) -> tuple[str, ...]:
    """What records in a folder call the images of a prompt."""
    return tuple(called(image, folder) for image in one.images)


def _saved(picture: Picture, one: Wanted, place: int, folder: Path, model: str) -> dict[str, Any]:
    """The record of a picture, which is written first."""
    name = f"{one.number:06d}_{place}.png"
    content = BytesIO()
    picture.write(content, model)
    replace_file(folder / name, content.getvalue())
    shown = [{"type": "image", "image": image} for image in _shown(one, folder)]
    user: Any = [*shown, {"type": "text", "text": one.text}] if shown else one.text
    painted = [{"type": "image", "image": name}]
    return {
        "messages": [{"role": "user", "content": user}, {"role": "assistant", "content": painted}],
        "seed": picture.seed,
    }
