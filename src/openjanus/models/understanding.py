"""The understanding pathway: images -> embeddings that the language model reads as it reads words. SPEC sections 1, 2 and 6.

Dims: N images, P patches (576 at 384 pixels), D model width.
"""

import torch
from torch import Tensor, nn

from openjanus.config import UnderstandingConfig
from openjanus.models.adaptors import build_adaptor
from openjanus.models.siglip import SiglipTower


class Understanding(nn.Module):
    """SigLIP tower and adaptor; JanusFlow puts a learned begin vector before the patches."""

    def __init__(self, config: UnderstandingConfig) -> None:
        super().__init__()
        self.slots = config.slots
        """Positions of an image."""
        self.encoder = SiglipTower(config.encoder)
        # JanusFlow's adaptor is a bare linear layer in the published checkpoint, Janus' is an MLP in a holder of its own.
        width = config.adaptor.n_embed
        self.adaptor = nn.Linear(config.adaptor.input_dim, width) if config.begin else build_adaptor(config.adaptor)
        self.begin = nn.Parameter(torch.zeros(1, width)) if config.begin else None
        if self.begin is not None:
            nn.init.normal_(self.begin, std=0.02)

    def read(self, pixels: Tensor) -> Tensor:
        """Embeddings [N, P, D] of pixels [N, 3, S, S] in [-1, 1], patches in row order; [N, 1 + P, D] with a begin vector.

        Differs from the reference: the begin vector is not detached, so it can be trained (the values are the same).
        """
        patches = self.adaptor(self.encoder(pixels))
        if self.begin is None:
            return patches
        return torch.cat((self.begin.expand(patches.shape[0], 1, -1), patches), dim=1)
