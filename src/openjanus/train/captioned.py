"""Pictures and what is said of them, for the vision tower: scenes of the synthetic world, or records of one's own.

Endless and map-style, as all data: what is shown at k is a function of k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from zlib import crc32

import tokenizers
import torch
from torch import Tensor

from openjanus.checkpoints.processors import HALF
from openjanus.config import TowerConfig
from openjanus.data.records import unusable
from openjanus.data.samples import Source
from openjanus.data.shapes import Labels, draw, label_map
from openjanus.data.shapes_streams import Painting, category, painting
from openjanus.errors import DataError, ImageError
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig, open_image
from openjanus.train.pictures import to_pixels

# A scene's words go by their hash: no vocabulary to keep, and of a few hundred words hardly two share a row.
_HASHED = 4096


@dataclass(frozen=True)
class Shown:
    """A picture as the tower reads it, float32 [3, S, S]; the rows of its caption's words, from 1 on; perhaps labels."""

    pixels: Tensor
    words: Sequence[int]
    labels: Labels | None = None


class Captioned(Protocol):
    """An endless stream of pictures with captions."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """What a stage's mix may name."""

    @property
    def rows(self) -> int:
        """Different words, and the empty one before them."""

    @property
    def labelled(self) -> bool:
        """Whether it is known what covers each patch."""

    def shown(self, mix: Mapping[str, int], k: int) -> Shown:
        """What is shown at k, of a mix of kinds; the same every time."""


def hashed(text: str) -> list[int]:
    """The words of a text as rows of a table."""
    return [1 + crc32(word.strip(".,!?").encode()) % (_HASHED - 1) for word in text.lower().split()]


@dataclass(frozen=True)
class CaptionedScenes:
    """Single objects and their names, or scenes and their captions, at the size that a tower reads."""

    seed: int
    tower: TowerConfig
    kinds: tuple[str, ...] = ("single", "scenes")
    rows: int = _HASHED
    labelled: bool = True

    def shown(self, mix: Mapping[str, int], k: int) -> Shown:
        """Of every sum(mix) in a row, the first are single objects."""
        singles, scenes = mix.get("single", 0), mix.get("scenes", 0)
        single = k % ((singles + scenes) or 1) < singles
        one: Painting = (category if single else painting)(self.seed, k)
        size = self.tower.image_size
        (pixels,) = to_pixels([draw(one.scene, size)])
        return Shown(pixels, hashed(one.text), label_map(one.scene, size, self.tower.patch_size))


class CaptionedFiles:
    """The pictures and texts of records of generation. A picture is fitted into the square as a Janus will see it, not cropped.

    DataError, which names the record, for a picture that cannot be opened.
    """

    kinds: tuple[str, ...] = ()
    labelled = False

    def __init__(self, records: Source, tower: TowerConfig, tokenizer: tokenizers.Tokenizer) -> None:
        self._records, self._tokenizer = records, tokenizer
        self._images = ImageProcessor(ImageProcessorConfig(tower.image_size, image_mean=HALF, image_std=HALF))
        self.rows = 1 + tokenizer.get_vocab_size()

    def shown(self, mix: Mapping[str, int], k: int) -> Shown:
        """Picture k and its text; there is no mix."""
        sample = self._records[k]
        (message,) = sample.messages
        if sample.picture is None:
            raise DataError(f"{sample.origin or 'a sample'} has no picture; an encoder learns from pictures with captions")
        try:
            pixels = self._images.pixels([open_image(sample.picture)])
        except ImageError as error:
            raise unusable(sample.origin, error) from error
        ids = self._tokenizer.encode(message.text, add_special_tokens=False).ids
        return Shown(torch.from_numpy(pixels)[0], [1 + id for id in ids])
