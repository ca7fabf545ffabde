"""One step of a model over the lanes of a cache: everything that runs now goes through the language model together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from openjanus.models.cache import KeyValueCache, rounded
from openjanus.models.janus import JanusModel
from openjanus.models.llama import Span


class Strip(NamedTuple):
    """New positions of one lane: part of a prompt, or all positions of an image.

    entry: where its first key goes; positions: int64 [T], rotary; x: [T, D].
    """

    lane: int
    entry: int
    positions: Tensor
    x: Tensor


class Runner:
    """Runs lanes that take one position a step side by side, as one block of lanes from 0 on, and strips beside them.

    Where each lane of the block stands lives on the device and moves on there: a step asks it nothing. Dims: M lanes of the block
    that take a step, D width.
    """

    def __init__(self, model: JanusModel, lanes: int, entries: int) -> None:
        self.model = model
        self.cache = KeyValueCache(model.config.language, lanes, entries, model.device, model.dtype)
        self._position = torch.zeros(lanes, dtype=torch.int64, device=model.device)
        self._entry = torch.full_like(self._position, self.cache.nowhere)

    def settle(self, lane: int, entry: int, position: int) -> None:
        """A lane takes one position a step from now on, beginning with this entry and rotary position."""
        self._entry[lane], self._position[lane] = entry, position

    def leave(self, lane: int) -> None:
        """A lane takes no steps any more; when others run beside it, it runs along and leaves no trace."""
        self._entry[lane] = self.cache.nowhere

    def grow(self, lanes: int, entries: int) -> None:
        """Make room for so many lanes of so many entries, at least as many as before."""
        idle = self._entry == self.cache.nowhere
        self.cache.grow(lanes, entries)
        more = self.cache.lanes - len(idle)
        self._position = torch.cat((self._position, self._position.new_zeros(more)))
        self._entry = torch.cat((self._entry, self._entry.new_zeros(more)))
        # Nowhere has moved.
        self._entry[: len(idle)].masked_fill_(idle, self.cache.nowhere)
        self._entry[len(idle) :] = self.cache.nowhere

    def run(self, lanes: Tensor, x: Tensor, block: int, upto: int, strips: Sequence[Strip]) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [M, D] of the lanes, int64 [M], given x [M, D]; and [T, D] of every strip.

        block: lanes from 0 on that hold all of these; upto: entries from 0 on that any of them looks at, with its own.
        """
        spans, parts = [], []
        if len(lanes):
            parts.append(x.new_zeros(block, x.shape[1]).index_copy(0, lanes, x))
            here = slice(0, block)
            spans.append(Span(here, self._position[here, None], self._entry[here, None], upto))
        order = sorted(range(len(strips)), key=lambda number: strips[number].lane)
        for group in _side_by_side([strips[number] for number in order]):
            length, first = len(group[0].x), group[0].lane
            starts = torch.tensor([strip.entry for strip in group])[:, None]
            entries = (starts + torch.arange(length)).to(x.device)
            positions = torch.stack([strip.positions for strip in group]).to(x.device)
            furthest = max(strip.entry for strip in group) + length
            spans.append(Span(slice(first, first + len(group)), positions, entries, rounded(furthest)))
            parts += [strip.x for strip in group]
        hidden = self.model.language.step(torch.cat(parts) if len(parts) > 1 else parts[0], spans, self.cache)
        done = list(hidden.split([len(part) for part in parts]))
        narrow = x if not len(lanes) else done.pop(0)[lanes]
        self._entry[lanes] += 1
        self._position[lanes] += 1
        return narrow, [made for _, made in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]


def _side_by_side(strips: Sequence[Strip]) -> list[list[Strip]]:
    """Strips, sorted by lane, in groups that attend in one go: equally long, in neighbouring lanes."""
    groups: list[list[Strip]] = []
    for strip in strips:
        last = groups[-1][-1] if groups else None
        if last is not None and last.lane + 1 == strip.lane and len(last.x) == len(strip.x):
            groups[-1].append(strip)
        else:
            groups.append([strip])
    return groups
