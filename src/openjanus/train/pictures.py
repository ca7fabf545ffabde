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

from openjanus.data.shapes import Scene, draw
from openjanus.data.shapes_streams import scene
from openjanus.processing.images import to_images
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

# Beyond what any run learns from: previews and measures look here.
UNSEEN = 1 << 40


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
