"""Rows: the sequences that an engine runs through the language model, each a prompt and what is made behind it."""

from array import array
from hashlib import blake2b

import torch
from torch import Tensor

from openjanus.engine.lanes import Keys, common
from openjanus.models.janus import JanusModel
from openjanus.models.token_generation import TokenGeneration
from openjanus.types import Prompt

POSITIONS = 2**32  # more than there are tokens


class Row:
    """A prompt on its way into a lane of the cache. Its last token is not read: the first step stands in its place.

    ids: int64 [T]; positions: int64 [T], rotary; slots: bool [T]; keys: what stands at each entry, see lanes.py.
    """

    def __init__(self, prompt: Prompt, attended: Tensor | None = None) -> None:
        """attended: bool [T], which tokens may be looked at; the others take no entry."""
        kept = torch.arange(len(prompt)) if attended is None else attended.nonzero().flatten()
        self.ids, self.slots, self.positions = prompt.ids[kept], prompt.slots[kept], kept
        self._pixels, self._pictures = prompt.pixels, prompt.pictures
        self._looked_at: tuple[int, Tensor] | None = None
        self._shown = torch.zeros(len(kept), dtype=torch.bool) if prompt.shown is None else prompt.shown[kept]
        self._codes: Tensor | None = None
        self.keys = self._keys()
        self.lane = -1
        self.started = False
        self.entries = 0
        """How many of its entries are in the cache."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last(self) -> int:
        """The token in whose place the first step stands."""
        return int(self.ids[-1])

    @property
    def prefix(self) -> Keys:
        """The keys of what is read before the first step."""
        return self.keys[:-1]

    @property
    def unread(self) -> int:
        """Tokens of the prompt that must still be read before the first step."""
        return len(self) - 1 - self.entries

    def common(self, other: "Row") -> int:
        """How many entries this row's prompt and another's have in common from the first on."""
        return common(self.prefix, other.prefix)

    def embed(self, model: JanusModel, upto: int) -> Tensor:
        """Embeddings [T, D] of the next tokens, up to an entry.

        Each image is looked at when its first slot comes up, so that many images are spread over as many steps as their slots,
        and one that another row has read is not looked at. Always alone: what it comes to does not depend on those beside it.
        """
        part = slice(self.entries, upto)
        ids, slots = self.ids[part].to(model.device), self.slots[part].to(model.device)
        words = self._with_codes(model, part, model.language.embed(ids.masked_fill(slots, 0)))
        before, count = int(self.slots[: part.start].sum()), int(self.slots[part].sum())
        if not count:
            return words
        model.check_images(int(self.slots.sum()), len(self._pixels))
        first = before // self._each
        seen = torch.cat([self._look(model, number) for number in range(first, -(-(before + count) // self._each))])
        mine = seen[before - first * self._each :][:count]
        return words.masked_scatter(slots[:, None], mine.to(words.dtype))

    def _look(self, model: JanusModel, number: int) -> Tensor:
        """Embeddings of an image, kept until the next is looked at: a chunk may end in its middle."""
        if self._looked_at is None or self._looked_at[0] != number:
            self._looked_at = number, model.read(self._each, self._pixels[number : number + 1].to(model.device))
        return self._looked_at[1]

    def _with_codes(self, model: JanusModel, part: slice, words: Tensor) -> Tensor:
        """Embeddings [T, D] of a part of the prompt, with those of pictures that are shown as codes in their places."""
        here = self._shown[part]
        if not here.any():
            return words
        if self._codes is None:
            assert isinstance(model.generation, TokenGeneration) and self._pictures is not None, "refused before"
            self._codes = model.generation.show(self._pictures.to(model.device)).flatten(0, 1)
        before = int(self._shown[: part.start].sum())
        codes = self._codes[before : before + int(here.sum())]
        return words.masked_scatter(here.to(words.device)[:, None], codes.to(words.dtype))

    def _keys(self) -> Keys:
        keys = array("q", map(key, self.ids.tolist(), self.positions.tolist()))
        slots = self.slots.nonzero().flatten().tolist()
        if slots:
            # Of the image as a whole: where it differs anywhere, all of it may. (Too few images are refused when they are read.)
            names = [_name(image) for image in self._pixels] or [-1]
            self._each = max(1, len(slots) // len(names))
            for number, slot in enumerate(slots):
                keys[slot] = names[min(number // self._each, len(names) - 1)] ^ (slot * POSITIONS)
        shown = self._shown.nonzero().flatten().tolist()
        if shown and self._pictures is not None:
            names = [_name(picture) for picture in self._pictures]
            for number, place in enumerate(shown):
                keys[place] = names[number * len(names) // len(shown)] ^ (place * POSITIONS)
        return keys


def key(token: int, position: int) -> int:
    """The key of a token at a rotary position."""
    return token + position * POSITIONS


def _name(image: Tensor) -> int:
    """A number of 63 bits that two different images do not share."""
    digest = blake2b(image.contiguous().numpy().tobytes(), digest_size=8).digest()
    return -1 - (int.from_bytes(digest, "little") >> 1)
