"""The image tokenizer under its published names (SPEC section 3).

VQModel, VectorQuantizer, VQ_16 and compute_entropy_loss have the published signatures; the layers are openjanus' own.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import VQConfig
from openjanus.models import quantizer
from openjanus.models.layers import Downsample, ResidualBlock, Upsample, group_norm
from openjanus.models.vq import AttnBlock, Decoder, Encoder, VQTokenizer

__all__ = [
    "VQ_16",
    "AttnBlock",
    "Decoder",
    "Downsample",
    "Encoder",
    "ModelArgs",
    "Normalize",
    "ResnetBlock",
    "Upsample",
    "VQModel",
    "VQ_models",
    "VectorQuantizer",
    "compute_entropy_loss",
    "nonlinearity",
]

Losses = tuple[Tensor | None, Tensor | None, Tensor | None]  # codebook, commitment, entropy; None in evaluation mode
Info = tuple[None, None, Tensor]  # the codes, flat


@dataclass
class ModelArgs:
    """Sizes and losses of a VQ model; the last two are fixed in the published code."""

    codebook_size: int = 16384
    codebook_embed_dim: int = 8
    codebook_l2_norm: bool = True
    codebook_show_usage: bool = True
    commit_loss_beta: float = 0.25
    entropy_loss_ratio: float = 0.0
    encoder_ch_mult: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4])
    decoder_ch_mult: list[int] = field(default_factory=lambda: [1, 1, 2, 2, 4])
    z_channels: int = 256
    dropout_p: float = 0.0
    ch: int = 128
    num_res_blocks: int = 2


# Published name -> openjanus', where they differ.
_OURS = {
    "codebook_embed_dim": "codebook_dim",
    "codebook_l2_norm": "l2_norm",
    "codebook_show_usage": "show_usage",
    "dropout_p": "dropout",
}


def model_args(config: VQConfig) -> dict[str, Any]:
    """The published arguments of a tokenizer."""
    return {name: getattr(config, _OURS.get(name, name)) for name in asdict(ModelArgs())}


def _config(args: ModelArgs) -> VQConfig:
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in asdict(args).items()}
    return VQConfig(**{_OURS.get(name, name): value for name, value in values.items()})


def nonlinearity(x: Tensor) -> Tensor:
    """x * sigmoid(x)."""
    return F.silu(x)


def Normalize(in_channels: int, norm_type: str = "group") -> nn.Module:
    """GroupNorm of 32 groups, eps 1e-6; with norm_type "batch" a synchronised BatchNorm."""
    if norm_type not in {"group", "batch"}:
        raise AssertionError(f"norm_type is {norm_type!r}; it must be 'group' or 'batch'")
    return group_norm(in_channels) if norm_type == "group" else nn.SyncBatchNorm(in_channels)


class ResnetBlock(ResidualBlock):
    """Two normalised convolutions beside a shortcut: [B, in_channels, h, w] -> [B, out_channels, h, w]."""

    def __init__(self, in_channels: int, out_channels: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(in_channels, out_channels or in_channels, shortcut="nin_shortcut", dropout=dropout)


def compute_entropy_loss(affinity: Tensor, loss_type: str = "softmax", temperature: float = 0.01) -> Tensor:
    """Mean entropy of the soft assignments less the entropy of their mean, for affinities [..., K]."""
    if loss_type != "softmax":
        raise ValueError(f"Entropy loss {loss_type} not supported")
    scale = quantizer.ENTROPY_TEMPERATURE / temperature
    return quantizer.entropy_loss(-affinity.flatten(0, -2) * scale)


class VectorQuantizer(quantizer.VectorQuantizer):
    """The codebook, answering in the published tuples."""

    def __init__(self, n_e: int, e_dim: int, beta: float, entropy_loss_ratio: float, l2_norm: bool, show_usage: bool) -> None:
        super().__init__(
            VQConfig(
                codebook_size=n_e,
                codebook_dim=e_dim,
                commit_loss_beta=beta,
                entropy_loss_ratio=entropy_loss_ratio,
                l2_norm=l2_norm,
                show_usage=show_usage,
            )
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Losses, Info]:  # type: ignore[override]
        """Nearest rows [b, e, h, w] of latents [b, e, h, w], the losses, and (None, None, codes [b * h * w])."""
        found = super().forward(z)
        losses: Losses = (None, None, None)
        if found.losses is not None:
            losses = (found.losses.codebook, found.losses.commitment, found.losses.entropy)
        return found.latent, losses, (None, None, found.codes.flatten())

    def get_codebook_entry(
        self, indices: Tensor, shape: tuple[int, ...] | list[int] | torch.Size | None = None, channel_first: bool = True
    ) -> Tensor:
        """Rows of codes as `shape` [b, c, h, w]; viewed as `shape` unless `channel_first`; [..., e] without a `shape`."""
        rows = self.lookup(indices)
        if shape is None:
            return rows
        if not channel_first:
            return rows.view(*shape)
        b, c, h, w = shape
        return rows.reshape(b, h, w, c).permute(0, 3, 1, 2).contiguous()


class VQModel(VQTokenizer):
    """Images to codes and back, answering in the published tuples."""

    def __init__(self, config: ModelArgs) -> None:
        super().__init__(_config(config))
        self.config = config
        self.quantize = VectorQuantizer(
            config.codebook_size,
            config.codebook_embed_dim,
            config.commit_loss_beta,
            config.entropy_loss_ratio,
            config.codebook_l2_norm,
            config.codebook_show_usage,
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Losses, Info]:  # type: ignore[override]
        """Of images [b, 3, H, W]: quant [b, e, h, w], its three losses or Nones, (None, None, codes [b * h * w])."""
        return super().encode(x)  # type: ignore[return-value]  # self.quantize is the published kind

    def decode_code(
        self, code_b: Tensor, shape: tuple[int, ...] | list[int] | torch.Size | None = None, channel_first: bool = True
    ) -> Tensor:
        """Pixels [b, 3, H, W], about [-1, 1], of codes (int32 or int64) that form the latent `shape` [b, e, h, w]."""
        return self.decode(self.quantize.get_codebook_entry(code_b, shape, channel_first))

    def forward(self, input: Tensor) -> tuple[Tensor, Losses]:
        """What encoding and decoding make of images [b, 3, H, W], and the losses."""
        quant, losses, _ = self.encode(input)
        return self.decode(quant), losses


def VQ_16(**kwargs: Any) -> VQModel:
    """A tokenizer of 16 x 16 pixels a code, unless `kwargs` (fields of ModelArgs) say otherwise."""
    return VQModel(ModelArgs(**kwargs))


VQ_models = {"VQ-16": VQ_16}
