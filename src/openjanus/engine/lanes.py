"""Which lane of the cache is whose, and what lies in each: what has been read once need not be read again.

A lane keeps what it holds when its row is done, until another row takes it. So a prompt that begins like an earlier one (the
other images of a request, a system prompt, the turns of a chat) starts where the two part.
"""

from array import array
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

# Of each entry what stands there: a token with its position, or a part of an image. Equal keys, equal entries.
Keys: TypeAlias = "array[int]"


def _between(first: int, last: int) -> int:
    return last - first + 1


class Lanes:
    """The lanes of a cache; pure bookkeeping.

    spread: how many lanes run side by side if all from a first to a last are to.
    """

    def __init__(self, count: int, spread: Callable[[int, int], int] = _between) -> None:
        self._spread = spread
        self._held: list[Keys] = []
        self._free: set[int] = set()
        # When each lane was given back, as a number that grows.
        self._left: list[int] = []
        self._now = 0
        self.grow(count)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def free(self) -> int:
        """How many lanes are nobody's."""
        return len(self._free)

    def grow(self, count: int) -> None:
        """Have so many lanes."""
        self._free.update(range(len(self._held), count))
        self._held += [array("q") for _ in range(len(self._held), count)]
        self._left += [0] * (count - len(self._left))

    def take(self, prefix: Keys) -> int:
        """A free lane for a row of that beginning.

        What runs side by side stays together, for lanes in between run along. Beside that a lane is taken that holds nothing but
        what the row begins with, then the one used longest ago: the others may be begun with again.
        """
        busy = [lane for lane in range(len(self)) if lane not in self._free]

        def price(lane: int) -> tuple[int, int, int, int]:
            together = self._spread(min([lane, *busy]), max([lane, *busy]))
            held = self._held[lane]
            continued = len(held) if common(held, prefix) == len(held) else 0
            return together, -continued, self._left[lane], lane

        lane = min(self._free, key=price)
        self._free.remove(lane)
        return lane

    def give_back(self, lane: int) -> None:
        """A row is done with its lane."""
        self._free.add(lane)
        self._now += 1
        self._left[lane] = self._now

    def longest(self, keys: Keys) -> tuple[int, int]:
        """The lane that holds most of the beginning of these keys, and how many of them."""
        lengths = [common(held, keys) for held in self._held]
        lane = max(range(len(lengths)), key=lengths.__getitem__)
        return lane, lengths[lane]

    def hold(self, lane: int, keys: Keys) -> None:
        """From now on a lane holds entries of these keys and nothing else."""
        self._held[lane] = array("q", keys)

    def extend(self, lane: int, keys: Keys) -> None:
        """A lane holds more entries behind those it held."""
        self._held[lane].extend(keys)


def common(one: Keys, other: Keys) -> int:
    """How many entries two rows have in common from the first on."""
    length = min(len(one), len(other))
    if length == 0:
        return 0
    differ = np.frombuffer(one, np.int64, length) != np.frombuffer(other, np.int64, length)
    return int(differ.argmax()) if differ.any() else length
