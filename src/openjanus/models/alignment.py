"""Representation alignment: the language model's hidden states of a picture learn to tell what SigLIP sees in it.

JanusFlow, section 3.4: features of the clean picture, a small MLP on the hidden states after the 6th block, cosine similarity,
weight 1. The MLP is used in training only and is no part of a checkpoint. Dims: M pictures, N positions, D width, C tower width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.models.siglip import SiglipTower


class Alignment(nn.Module):
    """A three-layer MLP from hidden states to tower features.

    block: after how many blocks of the language model the hidden states are taken. hidden: width inside (REPA's is 2048; the
    JanusFlow paper does not give its own).
    """

    def __init__(self, width: int, features: int, block: int = 6, hidden: int = 2048) -> None:
        super().__init__()
        self.block = block
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, features)
        )

    def loss(self, hidden: Tensor, features: Tensor) -> tuple[Tensor, int]:
        """Sum and number of negated cosine similarities, for hidden states [M, N, D] and features [M, N, C]."""
        similarity = F.cosine_similarity(self.mlp(hidden).float(), features.float(), dim=-1)
        return -similarity.sum(), similarity.numel()


@torch.no_grad()
def clean_features(tower: SiglipTower, pictures: Tensor, size: int, grid: tuple[int, int]) -> Tensor:
    """What the tower sees [M, N, C] in pictures [M, 3, H, W] in [-1, 1], at the N positions of a grid (down, across).

    Pictures are resized to the `size` that the tower reads, and its patches to the grid, if theirs is another. The paper's are
    equal, 24 x 24.
    """
    if pictures.shape[-2:] != (size, size):
        empty = pictures.new_zeros(0, 3, size, size)
        pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True) if len(pictures) else empty
    features = tower(pictures)
    side = math.isqrt(features.shape[1])
    if grid == (side, side):
        return features
    seen = features.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(seen, grid).flatten(2).transpose(1, 2)
