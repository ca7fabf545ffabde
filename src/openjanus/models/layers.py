"""Small layers that more than one part is made of: RMS norm, and the convolutional blocks of the VQ tokenizer and the VAE.

The two convolutional autoencoders compute the same and differ in their parameter names only; what a name depends on is an
argument here, or stays with the owner. Dims: B images, C channels, H x W positions.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.errors import ConfigError


class RMSNorm(nn.Module):
    """Scale the last dimension to unit root mean square, then by a learned weight: [..., dim] -> [..., dim].

    Statistics are taken in float32 and the weight is applied after the cast back to the input's dtype, as Llama does: in
    bfloat16 the other order gives other bits. SPEC sections 4 and 6.1.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * unit.to(x.dtype)


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """The affine GroupNorm (eps 1e-6) of both autoencoders; ConfigError unless `groups` divides `channels`."""
    if channels % groups:
        raise ConfigError(f"{channels} channels cannot be normalised in {groups} groups; give a multiple of {groups}")
    return nn.GroupNorm(groups, channels, eps=1e-6)


def attend_over_positions(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Single-head attention of every position to every position: three [B, H * W, C] -> [B, H * W, C]."""
    # SDPA's fast kernels want a head dimension, even of one head.
    return F.scaled_dot_product_attention(query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)).squeeze(1)


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside a shortcut: [B, inputs, H, W] -> [B, outputs, H, W].

    `shortcut` is the name checkpoints give the 1x1 convolution that the shortcut holds where the widths differ.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        shortcut: Literal["nin_shortcut", "conv_shortcut"],
        groups: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs, groups)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = group_norm(outputs, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = shortcut
        self.add_module(shortcut, nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        return getattr(self, self.shortcut)(x) + hidden


class Downsample(nn.Module):
    """Halve height and width: [B, C, H, W] -> [B, C, H // 2, W // 2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        # Zeros on the right and at the bottom only: symmetric padding would shift the published filters by a pixel.
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double height and width: [B, C, H, W] -> [B, C, 2H, 2W], in the dtype of the input.

    Differs from the reference: its VQ casts whatever is not float32 to bfloat16 here, so that a float16 model fails.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
