"""One step of a model over the lanes of a cache: everything that runs now goes through the language model together."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from openjanus.models.cache import KeyValueCache, rounded
from openjanus.models.janus import JanusModel
from openjanus.models.llama import Span


class Strip(NamedTuple):
    """New positions of one lane: part of a prompt.

    entry: where its first key goes; positions: int64 [T], rotary; x: [T, D].
    """

    lane: int
    entry: int
    positions: Tensor
    x: Tensor


class Runner:
    """Runs lanes that take one position a step side by side, as one block of neighbouring lanes, and spans beside them.

    Where each lane of the block stands lives on the device and moves on there: a step asks it nothing. There is a place more than
    there are lanes, for rows that a step is filled up with. Dims: M lanes of the block that take a step, D width.
    """

    def __init__(self, model: JanusModel, lanes: int, entries: int) -> None:
        self.model = model
        self.cache = KeyValueCache(model.config.language, lanes, entries, model.device, model.dtype)
        self._position = torch.zeros(lanes + 1, dtype=torch.int64, device=model.device)
        self._entry = torch.full_like(self._position, self.cache.nowhere)

    def settle(self, lane: int, entry: int, position: int) -> None:
        """A lane takes one position a step from now on, beginning with this entry and rotary position."""
        self._entry[lane], self._position[lane] = entry, position

    def leave(self, lane: int) -> None:
        """A lane takes no steps any more; when others run beside it, it runs along and leaves no trace."""
        self._entry[lane] = self.cache.nowhere

    def grow(self, lanes: int, entries: int) -> None:
        """Make room for so many lanes of so many entries, at least as many as before."""
        held = self.cache.lanes
        idle = self._entry == self.cache.nowhere
        # The place more is a lane now.
        idle[held] = True
        self.cache.grow(lanes, entries)
        more = self.cache.lanes - held
        self._position = torch.cat((self._position, self._position.new_zeros(more)))
        # Nowhere has moved.
        kept = self._entry.masked_fill(idle, self.cache.nowhere)
        self._entry = torch.cat((kept, kept.new_full((more,), self.cache.nowhere)))

    def run(
        self, lanes: Tensor, x: Tensor, block: slice, upto: int, spans: Sequence[Span], parts: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states [M, D] of the lanes, int64 [M], given x [M, D]; and [N, D] of every span, given its part [N, D].

        block: lanes that hold all of these, but for rows that the step is filled up with, whose lane is behind all there are;
        upto: entries from 0 on that any of them looks at, with its own.
        """
        spans, parts, count = list(spans), list(parts), block.stop - block.start
        if len(lanes):
            # What the step is filled up with falls behind the end.
            places = (lanes - block.start).clamp(max=count)
            spans.insert(0, Span(block, self._position[block, None], self._entry[block, None], upto))
            parts.insert(0, x.new_zeros(count + 1, x.shape[1]).index_copy(0, places, x)[:count])
        hidden = self.model.language.step(torch.cat(parts) if len(parts) > 1 else parts[0], spans, self.cache)
        done = list(hidden.split([len(part) for part in parts]))
        narrow = x if not len(lanes) else done.pop(0)[places.clamp(max=count - 1)]
        self._entry[lanes] += 1
        self._position[lanes] += 1
        return narrow, done


def side_by_side(strips: Sequence[Strip]) -> tuple[list[Span], list[Tensor]]:
    """Strips as spans, and the embeddings [N, D] of each: those that are equally long and in neighbouring lanes together."""
    groups: list[list[Strip]] = []
    for strip in sorted(strips, key=lambda strip: strip.lane):
        last = groups[-1][-1] if groups else None
        if last is not None and last.lane + 1 == strip.lane and len(last.x) == len(strip.x):
            groups[-1].append(strip)
        else:
            groups.append([strip])
    return [_span(group) for group in groups], [torch.cat([strip.x for strip in group]) for group in groups]


def _span(group: Sequence[Strip]) -> Span:
    length, first, device = len(group[0].x), group[0].lane, group[0].x.device
    entries = torch.tensor([strip.entry for strip in group])[:, None] + torch.arange(length)
    positions = torch.stack([strip.positions for strip in group])
    furthest = max(strip.entry for strip in group) + length
    return Span(slice(first, first + len(group)), positions.to(device), entries.to(device), rounded(furthest))
