"""The perceptual term: how far two pictures are from each other in the features of a network that sees (LPIPS).

Any module will do that takes pixels [B, 3, H, W] in [-1, 1] and returns feature maps [B, C, h, w]. The papers' VGG16 is here
without its weights: `Vgg16.from_file("vgg16-397923af.pth")` reads torchvision's file, and LPIPS's own weights of the channels
(`vgg.pth` of its repository) come in with `lpips_weights`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.errors import CheckpointError

# Convolutions of VGG16 between poolings: their places in torchvision's `features`, with channels in and out.
_VGG = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# ImageNet's mean and deviation, for pixels in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Perceptual(nn.Module):
    """Two pictures [B, 3, H, W] -> their mean distance: of each map, features at unit length, squared, weighted, summed.

    weights: one [C] a map, 0 or more; None weighs all channels 1. Nothing in here learns.
    """

    def __init__(self, features: nn.Module, weights: Sequence[Tensor] | None = None) -> None:
        super().__init__()
        self.features = features
        self._count = 0 if weights is None else len(weights)
        for number, weight in enumerate(weights or ()):
            self.register_buffer(f"weight_{number}", weight.flatten())
        self.requires_grad_(False)

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        distance = torch.zeros((), device=made.device)
        pairs = list(zip(self.features(made), self.features(real), strict=True))
        assert self._count in (0, len(pairs)), f"{self._count} weights for {len(pairs)} feature maps"
        for number, (one, other) in enumerate(pairs):
            squared = (F.normalize(one.float(), dim=1, eps=1e-10) - F.normalize(other.float(), dim=1, eps=1e-10)).square()
            if self._count:
                squared = squared * self.get_buffer(f"weight_{number}").view(-1, 1, 1)
            distance = distance + squared.sum(dim=1).mean()
        return distance


class Vgg16(nn.Module):
    """VGG16 up to its last convolution: pixels [B, 3, H, W] in [-1, 1] -> five feature maps, each before a pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict({str(place): nn.Conv2d(a, b, 3, padding=1) for block in _VGG for place, a, b in block})

    @classmethod
    def from_file(cls, path: str | Path) -> "Vgg16":
        """With the weights of torchvision's file (.pth, or the same as .safetensors); CheckpointError if it holds others."""
        made = cls()
        tensors = _read(Path(path))
        wanted = {name: tensors[name] for name in made.state_dict() if name in tensors}
        try:
            made.load_state_dict(wanted)
        except RuntimeError as error:
            raise CheckpointError(f"{path} holds no VGG16 of torchvision: {' '.join(str(error).split())[:160]}") from error
        return made

    def forward(self, pixels: Tensor) -> list[Tensor]:
        hidden = (pixels - pixels.new_tensor(_SHIFT).view(-1, 1, 1)) / pixels.new_tensor(_SCALE).view(-1, 1, 1)
        maps: list[Tensor] = []
        for block in _VGG:
            hidden = F.max_pool2d(hidden, 2) if maps else hidden
            for place, _, _ in block:
                hidden = F.relu(self.features[str(place)](hidden))
            maps.append(hidden)
        return maps


def lpips_weights(path: str | Path) -> list[Tensor]:
    """The channel weights of an LPIPS file (lin0.model.1.weight, ...), for `Perceptual`."""
    tensors = _read(Path(path))
    names = sorted(name for name in tensors if name.startswith("lin") and name.endswith(".weight"))
    if not names:
        raise CheckpointError(f"{path} holds no LPIPS weights (lin0.model.1.weight, ...)")
    return [tensors[name].flatten() for name in names]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise almost anything on a damaged file
        raise CheckpointError(f"{path} cannot be read: {' '.join(str(error).split())[:160]}") from error
    return loaded
