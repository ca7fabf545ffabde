"""Learning to give pictures back: what the image tokenizer and the flow's autoencoder have in common.

An autoencoder is told how near its pictures are (L1, L2, features), and perhaps judged by an adversary that learns beside it.
LlamaGen's numbers: L2 1, perceptual 1, adversary 0.5 from step 20,000. Dims: B pictures of H x W pixels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.errors import ConfigError
from openjanus.train.adversary import PatchDiscriminator, fooling_loss, telling_loss
from openjanus.train.perceptual import Perceptual
from openjanus.train.pictures import UNSEEN, Pictures, places, steps_before, to_pixels, write_pairs
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Phase, Task

_SHOWN = 8
# A step beyond all schedules.
LEARNED = 1 << 62


@dataclass(frozen=True)
class Likeness:
    """What a picture that comes back pays for being different; each a mean over pixels, 0 switches it off."""

    l1: float = 0.0
    l2: float = 1.0
    perceptual: float = 0.0
    """Wants features, which the task is given."""
    tolerance: float = 0.0
    """Differences up to this are none (levels / 127.5): what is only noise need not be stored."""


@dataclass(frozen=True)
class Adversary:
    """The discriminator: weight of both of its losses (0: there is none), first step it takes part in, size."""

    weight: float = 0.0
    start: int = 0
    width: int = 64
    layers: int = 3


@dataclass(frozen=True)
class ReconstructionSettings:
    """What every autoencoder can be told."""

    size: int = 48
    """Pixels along one side of a picture."""
    likeness: Likeness = field(default_factory=Likeness)
    adversary: Adversary = field(default_factory=Adversary)


@dataclass(frozen=True)
class PictureBatch:
    """Pixels [B, 3, H, W] in [-1, 1], and the step of the run that they belong to."""

    pixels: Tensor
    step: int = 0

    def to(self, device: torch.device) -> "PictureBatch":
        """The same on a device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=True))


class Autoencoding(nn.Module, ABC):
    """An autoencoder and those who judge its pictures. Subclasses hold the autoencoder and say how a picture passes it."""

    def __init__(self, settings: ReconstructionSettings, features: Perceptual | None) -> None:
        super().__init__()
        self.likeness = settings.likeness
        if self.likeness.perceptual and features is None:
            raise ConfigError(
                "likeness.perceptual is above 0, but the recipe gives the task no features; see train/perceptual.py"
            )
        self.perceptual = features if self.likeness.perceptual else None
        self.adversary = settings.adversary
        self.discriminator: PatchDiscriminator | None = None
        if self.adversary.weight:
            self.discriminator = PatchDiscriminator(self.adversary.width, self.adversary.layers)

    @abstractmethod
    def rebuild(self, pixels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The pictures as they come back [B, 3, H, W], and what the way through costs: weighted means by name."""

    def show(self, pixels: Tensor) -> Tensor:
        """The pictures as they come back when nothing is learned."""
        return self.rebuild(pixels, LEARNED)[0]

    def making(self, pixels: Tensor, step: int) -> dict[str, Tensor]:
        """The autoencoder's losses by name, weighted means over the batch."""
        made, losses = self.rebuild(pixels, step)
        losses |= self._differences(made.float(), pixels)
        if self.discriminator is not None and step >= self.adversary.start:
            losses["fooling"] = self.adversary.weight * fooling_loss(self.discriminator(made).float())
        return losses

    def telling(self, pixels: Tensor, step: int) -> dict[str, Tensor]:
        """The discriminator's loss, on pictures as the autoencoder makes them now; none before its first step."""
        if self.discriminator is None or step < self.adversary.start:
            return {}
        with torch.no_grad():
            made, _ = self.rebuild(pixels, step)
        loss = telling_loss(self.discriminator(pixels).float(), self.discriminator(made).float())
        return {"telling": self.adversary.weight * loss}

    def _differences(self, made: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        likeness, losses = self.likeness, {}
        away = (made - pixels).abs()
        if likeness.tolerance:
            away = (away - likeness.tolerance).relu()
        if likeness.l1:
            losses["l1"] = likeness.l1 * away.mean()
        if likeness.l2:
            losses["l2"] = likeness.l2 * away.square().mean()
        if self.perceptual is not None:
            losses["perceptual"] = likeness.perceptual * self.perceptual(made, pixels)
        return losses


class ReconstructionTask(Task[PictureBatch]):
    """An autoencoder learns from pictures; with an adversary, each step has two updates."""

    module: Autoencoding
    entrances = ("making", "telling", "show")

    def __init__(self, recipe: Recipe, pictures: Pictures, stride: int) -> None:
        """stride: pixels along one side of a place of the latent."""
        _check(recipe.settings, stride)
        self.recipe = recipe
        self.pictures = pictures
        self.settings: Any = recipe.settings

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[PictureBatch]]:
        run_step = steps_before(self.recipe, stage) + step
        return [self._batch(own, run_step) for own in places(self.recipe, stage, step, rank, world)]

    def _batch(self, own: range, step: int) -> Batch[PictureBatch]:
        pixels = to_pixels([self.pictures[k] for k in own])
        return Batch(PictureBatch(pixels, step), {"pictures": len(own)})

    @property
    def phases(self) -> tuple[Phase[PictureBatch], ...]:
        if self.module.discriminator is None:
            return (Phase("autoencoder", self.losses),)
        parts = tuple(name for name, _ in self.module.named_children() if name not in ("discriminator", "perceptual"))
        return Phase("autoencoder", self.losses, parts), Phase("discriminator", self._telling, ("discriminator",))

    def losses(self, content: PictureBatch) -> Mapping[str, Loss]:
        return _as_sums(self.module.making(content.pixels, content.step), content)

    def _telling(self, content: PictureBatch) -> Mapping[str, Loss]:
        return _as_sums(self.module.telling(content.pixels, content.step), content)

    def preview(self, folder: Path | None, step: int) -> None:
        """Pictures never learned from, above what the autoencoder makes of them."""
        device = next(self.module.parameters()).device
        pixels = to_pixels([self.pictures[UNSEEN + k] for k in range(_SHOWN)]).to(device)
        made = self.module.show(pixels)
        if folder is not None:
            write_pairs(folder / "reconstructions.png", pixels, made)


def _check(settings: ReconstructionSettings, stride: int) -> None:
    """ConfigError if pictures of that size do not pass what is to be trained."""
    size, adversary = settings.size, settings.adversary
    if size < stride or size % stride:
        raise ConfigError(f"settings.size is {size}; it must be a multiple of {stride}, the pixels along one side of a code")
    least = PatchDiscriminator.least(adversary.layers)
    if adversary.weight and size < least:
        raise ConfigError(
            f"settings.size is {size}, but a discriminator of {adversary.layers} layers wants {least} pixels; "
            "lower settings.adversary.layers, or set settings.adversary.weight=0"
        )


def _as_sums(means: Mapping[str, Tensor], content: PictureBatch) -> dict[str, Loss]:
    return {name: Loss(mean * len(content.pixels), over="pictures") for name, mean in means.items()}
