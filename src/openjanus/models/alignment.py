"""Representation alignment: the language model's hidden states of a picture learn to tell what SigLIP sees in it.

JanusFlow, section 3.4: features of the clean picture, a small MLP on the hidden states after the 6th block, cosine similarity,
weight 1. The MLP is used in training only and is no part of a checkpoint. Dims: M pictures, N positions, D width, C tower width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.errors import ConfigError
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
        """Sum and number of negated cosine similarities, for hidden states [M, N, D] and features [M, N, C].

        ConfigError if the picture has other positions than the tower has patches.
        """
        if hidden.shape[1] != features.shape[1]:
            raise ConfigError(
                f"alignment needs as many picture positions as tower patches; there are {hidden.shape[1]} and {features.shape[1]}"
            )
        similarity = F.cosine_similarity(self.mlp(hidden).float(), features.float(), dim=-1)
        return -similarity.sum(), similarity.numel()


@torch.no_grad()
def clean_features(tower: SiglipTower, pictures: Tensor, size: int) -> Tensor:
    """What the tower sees [M, P, C] in pictures [M, 3, H, W] in [-1, 1], resized to the `size` it reads if theirs is another."""
    if pictures.shape[-2:] != (size, size):
        empty = pictures.new_zeros(0, 3, size, size)
        pictures = F.interpolate(pictures, (size, size), mode="bicubic", antialias=True) if len(pictures) else empty
    return tower(pictures)
