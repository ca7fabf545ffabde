"""Pictures, for the parts that need nothing else to learn from. Endless and map-style: `pictures[k]` is a function of k."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from openjanus.data.formats.names import Names
from openjanus.data.order import shuffled
from openjanus.data.samples import generator
from openjanus.data.shapes import Scene, draw
from openjanus.data.shapes_streams import scene
from openjanus.errors import DataError, JanusError
from openjanus.processing.images import open_image, to_images
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

# Beyond what any run learns from: previews and measures look here.
UNSEEN = 1 << 40
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class Pictures(Protocol):
    """An endless stream of pictures of one size."""

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        """Picture k, uint8 [H, W, 3]; the same every time."""


@dataclass(frozen=True)
class ScenePictures:
    """Scenes of the synthetic world, drawn on size x size pixels."""

    seed: int = 0
    size: int = 48

    def scene(self, k: int) -> Scene:
        """What picture k shows."""
        return scene(self.seed, k)

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        return draw(self.scene(k), self.size)


class FilePictures:
    """The pictures in some folders and below, size x size: endless, each pass through them in an order of its own.

    A picture's short side is made 1 to 1.25 times as long as `size`, a square of it is cut out at random, and half of them are
    mirrored (LlamaGen's ImageNet: 256 of 256 to 320). Of 20 pictures the last in the order of names is never learned from, up to
    64 of them: those stand from UNSEEN on, cut at their centre. DataError for a folder with fewer than 20 pictures.
    """

    def __init__(self, folders: Sequence[str | Path], size: int, seed: int = 0) -> None:
        self.size, self.seed = size, seed
        found = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
        unseen = min(len(found) // 20, 64)
        if not unseen:
            places = ", ".join(map(str, folders)) or "no folder"
            raise DataError(f"{places}: {len(found)} pictures ({', '.join(_SUFFIXES)}) lie there; 20 or more are needed")
        self._learned, self._unseen = Names(map(str, found[:-unseen])), Names(map(str, found[-unseen:]))

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        if k >= UNSEEN:
            return self._cut(self._unseen[(k - UNSEEN) % len(self._unseen)], 1.0, (0.5, 0.5))
        turn, place = divmod(k, len(self._learned))
        chance = generator(self.seed, k)
        scale, left, top, mirrored = chance.random(4)
        path = self._learned[shuffled(place, len(self._learned), (self.seed, turn))]
        cut = self._cut(path, 1 + 0.25 * scale, (left, top))
        return np.ascontiguousarray(cut[:, ::-1]) if mirrored < 0.5 else cut

    def _cut(self, path: str, scale: float, share: tuple[float, float]) -> NDArray[np.uint8]:
        """A square of a picture; share: where, of the room to the left of it and above."""
        try:
            image = open_image(path)
        except JanusError as error:
            raise DataError(f"{error}; mend it or take it out") from error
        factor = self.size * scale / min(image.size)
        width, height = (max(self.size, round(side * factor)) for side in image.size)
        left, top = (int((side - self.size) * part) for side, part in zip((width, height), share, strict=True))
        whole = image.resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(whole.crop((left, top, left + self.size, top + self.size)))


def to_pixels(pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Pictures of one size as float32 [B, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def places(recipe: Recipe, stage: Stage, step: int, rank: int, world: int) -> list[range]:
    """Which samples of an endless stream a process learns from in a step of a stage: a range a micro-batch.

    A run takes each sample once, stage after stage, and a step the same ones whatever the number of processes.
    """
    first = step * stage.batch
    for earlier in recipe.stages:
        if earlier.name == stage.name:
            break
        first += earlier.steps * earlier.batch
    own = range(first + rank, first + stage.batch, world)
    size = stage.micro_batch or max(len(own), 1)
    return [own[start : start + size] for start in range(0, len(own), size)]


def steps_before(recipe: Recipe, stage: Stage) -> int:
    """Steps of the run's stages before this one."""
    return sum(earlier.steps for earlier in recipe.stages[: [one.name for one in recipe.stages].index(stage.name)])


def write_pairs(path: Path, above: Tensor, below: Tensor, scale: int = 3) -> None:
    """A PNG of two rows of pictures [B, 3, H, W] in [-1, 1], enlarged so that single pixels are seen."""
    rows = [np.concatenate([np.asarray(image) for image in to_images(row.float().cpu())], axis=1) for row in (above, below)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * scale, sheet.height * scale), Image.Resampling.NEAREST).save(path)
