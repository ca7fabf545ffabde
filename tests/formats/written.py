"""The same records in every format, for tests."""

import csv
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openjanus.data.samples import Sample
from openjanus.processing.images import open_image

CAPTIONS = ("a red cube", 'two "blue" balls, side\nby side', "ein grüner Kegel", "a fox")
FORMATS = ("messages.jsonl", "captions.jsonl", "captions.json", "folder", "shard.tar", "rows.parquet", "table.csv", "table.tsv")


def picture(number: int) -> bytes:
    """A small PNG, another for each number."""
    pixels = np.random.default_rng(number).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return path


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], group: int = 2) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, row_group_size=group)
    return path


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def painted(caption: str, image: str) -> dict[str, Any]:
    """A record of generation in the one form."""
    answer = {"role": "assistant", "content": [{"type": "image", "image": image}]}
    return {"messages": [{"role": "user", "content": caption}, answer]}


def captioned(folder: Path, name: str) -> Path:
    """CAPTIONS with their pictures in a format, and the files it needs."""
    path, images = folder / name, folder / "images"
    images.mkdir(exist_ok=True)
    for number in range(len(CAPTIONS)):
        (images / f"{number}.png").write_bytes(picture(number))
    pairs = [(caption, f"images/{number}.png") for number, caption in enumerate(CAPTIONS)]
    if name.endswith(".jsonl"):
        lines = [painted(*pair) if name == "messages.jsonl" else {"text": pair[0], "file_name": pair[1]} for pair in pairs]
        return write_lines(path, *lines)
    if name == "captions.json":
        path.write_text(json.dumps([{"prompt": caption, "image": image} for caption, image in pairs], indent=1), encoding="utf-8")
        return path
    if name == "folder":
        return _folder(path)
    if name == "shard.tar":
        return write_tar(path, [member for number in range(len(CAPTIONS)) for member in _members(number)])
    if name == "rows.parquet":
        rows = [{"image": {"bytes": picture(n), "path": None}, "caption": caption} for n, caption in enumerate(CAPTIONS)]
        return write_parquet(path, rows)
    return write_table(path, [{"caption": caption, "path": image} for caption, image in pairs])


def _members(number: int) -> list[tuple[str, bytes]]:
    """A picture and its caption, every second one as JSON."""
    text = json.dumps({"caption": CAPTIONS[number]}) if number % 2 else CAPTIONS[number]
    return [(f"a/{number}.png", picture(number)), (f"a/{number}.{'json' if number % 2 else 'txt'}", text.encode())]


def _folder(path: Path) -> Path:
    """The same as files, the second half in a folder of their own."""
    for number in range(len(CAPTIONS)):
        for name, content in _members(number):
            place = path / ("deeper" if number > 1 else ".") / Path(name).name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
    return path


def plain(sample: Sample) -> tuple[Any, ...]:
    """A sample as values that can be compared, whatever its images came as."""
    pixels = [np.asarray(open_image(image)).tolist() for image in sample.images]
    return sample.kind, [(one.role, one.text, len(one.images)) for one in sample.messages], pixels, sample.rival, sample.seed
