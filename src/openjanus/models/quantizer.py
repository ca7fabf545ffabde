"""Vector quantisation: the codebook, the nearest code of each latent vector, and the losses that train it (SPEC section 3).

Dims: B images, e codebook width, h x w positions, K codebook size, N = B * h * w vectors.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import VQConfig

ENTROPY_TEMPERATURE = 0.01
# The published size of the buffer, whatever the size of the codebook.
USAGE_SIZE = 65536


@dataclass(frozen=True)
class QuantizerLosses:
    """Training losses of the quantiser, scalars, weighted as the config says: their sum is what to minimise."""

    codebook: Tensor
    commitment: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Quantized:
    """Images as codes: latent [B, e, h, w] whose gradient passes straight through, codes int64 [B, h, w]; losses in training."""

    latent: Tensor
    codes: Tensor
    losses: QuantizerLosses | None


def entropy_loss(distances: Tensor) -> Tensor:
    """Mean entropy of the soft assignments less the entropy of their mean, for squared distances [N, K].

    Low when each vector is sure of its code and all codes are in use. SPEC section 3 adds 1e-5 inside the log-softmax too: a
    constant cancels there.
    """
    affinity = -distances / ENTROPY_TEMPERATURE
    probabilities = affinity.softmax(dim=-1)
    mean = probabilities.mean(dim=0)
    of_each = -(probabilities * affinity.log_softmax(dim=-1)).sum(dim=-1).mean()
    of_mean = -(mean * torch.log(mean + 1e-5)).sum()
    return of_each - of_mean


class VectorQuantizer(nn.Module):
    """The codebook, and the nearest code of each latent vector."""

    codebook_used: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.codebook_size, config.codebook_dim)
        bound = 1.0 / config.codebook_size
        nn.init.uniform_(self.embedding.weight, -bound, bound)
        if not self.embedding.weight.is_meta:
            with torch.no_grad():
                self.embedding.weight.copy_(self._compared(self.embedding.weight))
        if config.show_usage:
            # Published checkpoints hold this buffer; nothing reads or updates it.
            self.register_buffer("codebook_used", torch.zeros(USAGE_SIZE))

    def _compared(self, vectors: Tensor) -> Tensor:
        """Vectors [..., e] as they are compared: float32, and at unit length if the codebook is normalised."""
        return F.normalize(vectors.float(), dim=-1) if self.config.l2_norm else vectors.float()

    def lookup(self, codes: Tensor) -> Tensor:
        """Codebook rows [..., e] of codes [...], at unit length if the codebook is normalised."""
        return self._compared(self.embedding(codes)).to(self.embedding.weight.dtype)

    def forward(self, latent: Tensor) -> Quantized:
        """The nearest codes of a latent [B, e, h, w]; of equally near ones, the first."""
        # In float32, autocast or not: in bfloat16 near-ties flip, and the codes of an image change.
        with torch.autocast(latent.device.type, enabled=False):
            vectors = self._compared(latent.permute(0, 2, 3, 1))
            rows = self._compared(self.embedding.weight)
            distances = self._distances(vectors.flatten(0, 2), rows)
            codes = distances.argmin(dim=-1).view(vectors.shape[:-1])
            nearest = F.embedding(codes, rows)
            losses = self._losses(vectors, nearest, distances) if self.training else None
            straight_through = vectors + (nearest - vectors).detach()
        return Quantized(straight_through.permute(0, 3, 1, 2).to(latent.dtype), codes, losses)

    @staticmethod
    def _distances(vectors: Tensor, rows: Tensor) -> Tensor:
        """Squared distances [N, K] of vectors [N, e] to rows [K, e]."""
        return vectors.square().sum(dim=-1, keepdim=True) + rows.square().sum(dim=-1) - 2 * vectors @ rows.T

    def _losses(self, vectors: Tensor, nearest: Tensor, distances: Tensor) -> QuantizerLosses:
        ratio = self.config.entropy_loss_ratio
        return QuantizerLosses(
            codebook=F.mse_loss(nearest, vectors.detach()),
            commitment=self.config.commit_loss_beta * F.mse_loss(vectors, nearest.detach()),
            entropy=ratio * entropy_loss(distances) if ratio else distances.new_zeros(()),
        )
