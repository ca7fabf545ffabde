"""Writing checkpoints: tensors streamed one by one into safetensors, and a folder that appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from openjanus.checkpoints.companions import belongs_to_checkpoint, is_checkpoint
from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.locate import expand_path
from openjanus.errors import CheckpointError

MAX_SHARD_SIZE = 5_000_000_000

_CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
}


@dataclass(frozen=True)
class Group:
    """Tensors that are made together: their headers by name, those of wide numbers first, and what makes them, on any device."""

    headers: Mapping[str, Header]
    make: Callable[[], Sequence[Tensor]]

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(header.bytes for header in self.headers.values())

    @property
    def width(self) -> int:
        """Bytes of a number of the narrowest."""
        return min(header.dtype.itemsize for header in self.headers.values())


def write_safetensors(path: Path, groups: Sequence[Group]) -> None:
    """One safetensors file; no more than one group is in memory at a time."""
    # Wide numbers first: behind an odd count of narrow ones they would lie at addresses they cannot be mapped from.
    groups = sorted(groups, key=lambda group: -group.width)
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for group in groups:
        for name, header in group.headers.items():
            end = offset + header.bytes
            told[name] = {"dtype": _CODES[header.dtype], "shape": list(header.shape), "data_offsets": [offset, end]}
            offset = end
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for group in groups:
            for tensor, (name, header) in zip(group.make(), group.headers.items(), strict=True):
                assert (tuple(tensor.shape), tensor.dtype) == (header.shape, header.dtype), name
                file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        _sync(file.fileno())


def write_weights(folder: Path, groups: Sequence[Group], stem: str = "model", max_shard_size: int = MAX_SHARD_SIZE) -> None:
    """One file, or shards of at most max_shard_size bytes (unless a single group is larger) with their index."""
    shards: list[list[Group]] = [[]]
    room = max_shard_size
    for group in groups:
        if group.bytes > room and shards[-1]:
            shards.append([])
            room = max_shard_size
        shards[-1].append(group)
        room -= group.bytes
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", shards[0])
        return
    homes: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard)
        homes |= {tensor: name for group in shard for tensor in group.headers}
    index = {"metadata": {"total_size": sum(group.bytes for group in groups)}, "weight_map": homes}
    write_file(folder / f"{stem}.safetensors.index.json", (json.dumps(index, indent=2) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """A small file, on the disk when this returns."""
    with path.open("wb") as file:
        file.write(content)
        _sync(file.fileno())


def _sync(handle: int) -> None:
    os.fsync(handle)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` when the block ends well.

    On any failure it is removed and `folder` stays as it was. What else lies in an old checkpoint's folder (a README, a log)
    moves over. CheckpointError if `folder` holds something that is no checkpoint of Janus, or the disk refuses.
    """
    target = expand_path(folder).resolve()
    _check_replaceable(target, folder)
    token = uuid4().hex[:8]
    partial, old = target.parent / f".{target.name}.{token}.partial", target.parent / f".{target.name}.{token}.old"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        if target.is_dir():
            _carry_over(target, partial)
        _sync_folder(partial)
        _swap(partial, target, old)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_filled(folder: Path) -> bool:
    """Whether it is a folder with something in it; CheckpointError if one may not look."""
    try:
        return folder.is_dir() and any(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror or error}); choose another folder") from error


def _check_replaceable(target: Path, folder: Path) -> None:
    if target.exists() and not target.is_dir():
        raise CheckpointError(f"{folder} is a file; choose a folder")
    if is_filled(target) and not is_checkpoint(target):
        raise CheckpointError(
            f"{folder} is not empty and holds no checkpoint of Janus; nothing is overwritten there, choose another folder"
        )


def _carry_over(old: Path, new: Path) -> None:
    """What is in the old folder and not a checkpoint's, linked into the new one (copied where links are refused)."""
    for entry in old.iterdir():
        if belongs_to_checkpoint(entry.name) or (new / entry.name).exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True, copy_function=_link)
        else:
            _link(entry, new / entry.name)


def _link(source: str | Path, destination: str | Path) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)


def _swap(new: Path, target: Path, old: Path) -> None:
    """`new` becomes `target`, whose former content is removed last."""
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    """Make renames inside the folder survive a crash, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)
