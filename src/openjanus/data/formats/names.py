"""Millions of names in little memory."""

import os
from collections.abc import Iterable

import numpy as np


class Names:
    """A list of names as one text and its ends: a name more than its characters takes 8 bytes.

    A list of as many objects would also be copied, one page after the other, by every forked process that reads it.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> str:
        return os.fsdecode(self._text[self._ends[number] : self._ends[number + 1]])
