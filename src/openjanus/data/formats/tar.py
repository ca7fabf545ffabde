"""WebDataset shards: a .tar in which the files of a record have one name and several suffixes, 0001.jpg and 0001.txt."""

import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openjanus.data.formats.beside import SUFFIXES, record
from openjanus.data.formats.names import Names
from openjanus.errors import DataError

_BLOCK = 512


class Tar:
    """A shard, by where the headers of its members stand: records are read from their places, and nothing is unpacked.

    Members of one name need not be neighbours. Of a shard that was cut off, the record in which it ends is broken and those
    before it are not. DataError for a file that is no tar archive.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path.parent
        keys, members, self._cut = _scan(path)
        self._keys = Names(keys)
        self._members = np.array([place for places in members for place in places], dtype=np.int64)
        self._ends = np.cumsum([0, *map(len, members)])

    def __len__(self) -> int:
        return len(self._keys)

    def origin(self, number: int) -> str:
        return f"{self.path}, {self._keys[number]}"

    def read(self, number: int) -> Any:
        if self._cut and number == len(self) - 1:
            raise DataError("the archive is cut off here and must be fetched or written again")
        found: dict[str, bytes] = {}
        with self.path.open("rb") as file:
            for place in self._members[self._ends[number] : self._ends[number + 1]]:
                name, content = _member_at(file, int(place))
                suffix = _split(name)[1]
                if suffix in found:
                    raise DataError(f"two members are named {name}; write the archive again")
                found[suffix] = content
        text, values = found.pop(".txt", None), found.pop(".json", None)
        return record(
            [found[suffix] for suffix in sorted(found)],
            None if text is None else text.decode("utf-8"),
            None if values is None else json.loads(values),
        )


def _member_at(file: BinaryIO, place: int) -> tuple[str, bytes]:
    """Name and content of the member whose header stands there."""
    file.seek(place)
    try:
        # Opened at a member, it is an archive of that and what follows; a long name before the header is read with it.
        with tarfile.open(fileobj=file, mode="r:") as archive:
            member = archive.next()
            stream = None if member is None else archive.extractfile(member)
            if member is not None and stream is not None:
                return member.name, stream.read()
    except tarfile.TarError as error:
        raise DataError(f"the archive has changed since it was opened ({error}); start again") from error
    raise DataError("the archive has changed since it was opened; start again")


def _scan(path: Path) -> tuple[list[str], list[list[int]], bool]:
    """Of each record, in order, its name and where its members' headers stand; and whether the archive is cut off in the last."""
    found: dict[str, list[int]] = {}
    last = ""
    try:
        with tarfile.open(path, "r:") as archive:
            for member in _whole_members(archive):
                key, suffix = _split(member.name)
                if member.isfile() and suffix in (".txt", ".json", *SUFFIXES):
                    last = key
                    found.setdefault(key, []).append(member.offset)
            cut = not _ends_well(path, archive.offset)
    except tarfile.TarError as error:
        raise DataError(f"{path} is no tar archive ({error}); give a .tar that is not compressed") from error
    if cut and last:
        # It comes last, wherever its first member stood.
        found[last] = found.pop(last)
    return list(found), list(found.values()), cut and bool(last)


def _whole_members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members whose headers are there, up to the end or to where the archive is cut off."""
    with suppress(tarfile.ReadError):
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # of which it would keep every one
            yield member


def _ends_well(path: Path, place: int) -> bool:
    """Whether the block of zeros stands there that ends every archive."""
    with path.open("rb") as file:
        file.seek(place)
        return file.read(_BLOCK) == bytes(_BLOCK)


def _split(name: str) -> tuple[str, str]:
    """A member's name up to the first dot behind its folders, and the rest in small letters."""
    folder, slash, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    return folder + slash + stem, (dot + suffix).lower()
