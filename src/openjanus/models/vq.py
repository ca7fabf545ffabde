"""The image tokenizer of Janus and Janus-Pro, "VQ-16": pixels <-> a grid of codes (SPEC section 3).

Module names are the published ones. Dims: B images, z encoder channels, e codebook width,
h x w = H/stride x W/stride codes.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import VQConfig
from openjanus.models.layers import Downsample, ResidualBlock, Upsample, attend_over_positions, group_norm
from openjanus.models.quantizer import Quantized, VectorQuantizer


class AttnBlock(nn.Module):
    """Every position attends to every other, with one head: [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (project(normed).flatten(2).transpose(1, 2) for project in (self.q, self.k, self.v))
        attended = attend_over_positions(query, key, value)
        return x + self.proj_out(attended.transpose(1, 2).unflatten(2, x.shape[2:]))


def _residual(inputs: int, outputs: int, config: VQConfig) -> ResidualBlock:
    return ResidualBlock(inputs, outputs, shortcut="nin_shortcut", dropout=config.dropout)


def _mid(channels: int, config: VQConfig) -> nn.Sequential:
    """The narrowest part of both halves: residual, attention, residual."""
    return nn.Sequential(_residual(channels, channels, config), AttnBlock(channels), _residual(channels, channels, config))


class Level(nn.Module):
    """One resolution: `depth` residual blocks, each followed by attention if asked for, then a change of resolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        depth: int,
        config: VQConfig,
        *,
        attends: bool = False,
        downsamples: bool = False,
        upsamples: bool = False,
    ) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * depth
        self.res = nn.ModuleList(_residual(a, b, config) for a, b in pairwise(widths))
        self.attn = nn.ModuleList(AttnBlock(outputs) if attends else nn.Identity() for _ in range(depth))
        self.downsample = Downsample(outputs) if downsamples else nn.Identity()
        self.upsample = Upsample(outputs) if upsamples else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for residual, attention in zip(self.res, self.attn, strict=True):
            x = attention(residual(x))
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] -> [B, z, h, w]; attention on the last level only."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.ch, *(config.ch * multiplier for multiplier in config.encoder_ch_mult)]
        last = len(config.encoder_ch_mult) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.conv_blocks = nn.Sequential(
            *(
                Level(a, b, config.num_res_blocks, config, attends=i == last, downsamples=i != last)
                for i, (a, b) in enumerate(pairwise(widths))
            )
        )
        self.mid = _mid(widths[-1], config)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.mid(self.conv_blocks(self.conv_in(pixels)))
        return self.conv_out(F.silu(self.norm_out(hidden)))


class Decoder(nn.Module):
    """[B, z, h, w] -> pixels [B, 3, H, W]; level 0 is the lowest resolution, and attends."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        descending = [config.ch * multiplier for multiplier in reversed(config.decoder_ch_mult)]
        widths = [descending[0], *descending]
        last = len(descending) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[0], 3, padding=1)
        self.mid = _mid(widths[0], config)
        self.conv_blocks = nn.Sequential(
            *(
                Level(a, b, config.num_res_blocks + 1, config, attends=i == 0, upsamples=i != last)
                for i, (a, b) in enumerate(pairwise(widths))
            )
        )
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        hidden = self.conv_blocks(self.mid(self.conv_in(latent)))
        return self.conv_out(F.silu(self.norm_out(hidden)))


class VQTokenizer(nn.Module):
    """Pixels, about [-1, 1] and not clamped, to codes and back."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = VectorQuantizer(config)
        self.quant_conv = nn.Conv2d(config.z_channels, config.codebook_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.codebook_dim, config.z_channels, 1)

    def encode(self, pixels: Tensor) -> Quantized:
        """Codes of pixels [B, 3, H, W] in [-1, 1]."""
        return self.quantize(self.quant_conv(self.encoder(pixels)))

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] of a quantised latent [B, e, h, w]."""
        return self.decoder(self.post_quant_conv(latent))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] of codes [B, h, w]."""
        return self.decode(self.quantize.lookup(codes).movedim(-1, 1))
