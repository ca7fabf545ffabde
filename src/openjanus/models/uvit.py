"""The shallow U-ViT of JanusFlow: a latent and a time in, a velocity out; the language model runs between the two halves.

SPEC section 6.1. Module names are the published ones. Dims: B latents, c x h x w the latent, C x h' x w' its features,
D width of the time embedding (the language model's).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import UViTDecoderConfig, UViTEncoderConfig
from openjanus.errors import ConfigError
from openjanus.models.layers import RMSNorm

UViTConfig = UViTEncoderConfig | UViTDecoderConfig


def time_projection(time: Tensor, dim: int) -> Tensor:
    """Cosines, then sines, of times [B] at dim / 2 frequencies from 1 down to 1 / 10000: float32 [B, dim]."""
    half = dim // 2
    exponents = -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=time.device) / half
    angles = time.float()[:, None] * exponents.exp()
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def _norm_over_channels(norm: RMSNorm, x: Tensor) -> Tensor:
    """RMSNorm of [B, C, h, w] over C."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TimeEmbedding(nn.Module):
    """Projected times [B, C] -> [B, D]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class GlobalResponseNorm(nn.Module):
    """Weigh each channel by its share of the response of the whole map: [B, h, w, C] -> [B, h, w, C]; starts as identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = response / (response.mean(-1, keepdim=True) + 1e-6)
        return self.bias + (self.weight * share + 1) * x


class ConvNextBlock(nn.Module):
    """A ConvNeXt block steered by the time embedding: [B, C, h, w], [B, D] -> [B, C, h, w]."""

    def __init__(self, channels: int, config: UViTConfig) -> None:
        super().__init__()
        bias = config.use_bias
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=bias)
        self.norm = RMSNorm(channels, config.norm_eps)
        self.channelwise_linear_1 = nn.Linear(channels, 4 * channels, bias=bias)
        self.channelwise_norm = GlobalResponseNorm(4 * channels)
        self.channelwise_linear_2 = nn.Linear(4 * channels, channels, bias=bias)
        self.channelwise_dropout = nn.Dropout(config.dropout)
        self.cond_embeds_mapper = nn.Linear(config.hidden_size, 2 * channels, bias=bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        # Laid out anew: for a linear layer of a map that is not, torch copies the weights for each of its lines.
        hidden = self.norm(self.depthwise(x).permute(0, 2, 3, 1).contiguous())
        hidden = self.channelwise_norm(F.gelu(self.channelwise_linear_1(hidden)))
        hidden = self.channelwise_dropout(self.channelwise_linear_2(hidden))
        x = x + hidden.permute(0, 3, 1, 2)
        # Time acts after the residual sum, so it scales the carried features too.
        scale, shift = self.cond_embeds_mapper(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class MidBlock(nn.Module):
    """`layers_in_middle` ConvNeXt blocks; none, and so no parameters, without `use_mid_block`."""

    def __init__(self, channels: int, config: UViTConfig) -> None:
        super().__init__()
        depth = config.layers_in_middle if config.use_mid_block else 0
        self.res_blocks = nn.ModuleList(ConvNextBlock(channels, config) for _ in range(depth))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x, time)
        return x


class Unpatchify(nn.Module):
    """Each position becomes 2 x 2 of them: [B, inputs, h, w] -> [B, outputs, 2h, 2w]."""

    def __init__(self, inputs: int, outputs: int, config: UViTConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(inputs, config.norm_eps)
        self.unpatch_conv = nn.Conv2d(inputs, 4 * outputs, 1, bias=config.use_bias)

    def forward(self, x: Tensor) -> Tensor:
        # torch's pixel_shuffle, written out: its own backward refuses an empty batch, which a process without pictures has.
        cells = self.unpatch_conv(_norm_over_channels(self.norm, x)).unflatten(1, (-1, 2, 2))
        return cells.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)


def _check(config: UViTConfig) -> None:
    """Raise ConfigError for what the shallow U-ViT cannot be."""
    if not config.elementwise_affine:
        raise ConfigError("elementwise_affine is false; the norms of the U-ViT always have a weight: leave it true")
    if len(config.block_out_channels) != 1:
        raise ConfigError(
            f"block_out_channels is {config.block_out_channels}; the shallow U-ViT has one resolution: give one width"
        )


class ShallowUViTEncoder(nn.Module):
    """The half before the language model: a latent and its time -> features and time embedding."""

    def __init__(self, config: UViTEncoderConfig) -> None:
        super().__init__()
        _check(config)
        self.channels = config.channels
        padding = config.kernel_size - config.stride if config.padding is None else config.padding
        self.in_conv = nn.Conv2d(config.input_channels, self.channels, config.kernel_size, stride=config.stride, padding=padding)
        self.time_embed = TimeEmbedding(self.channels, config.hidden_size)
        self.mid_block = MidBlock(self.channels, config)

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, C, h', w'] and time embedding [B, D] of latents [B, c, h, w] at times [B], 0 (noise) to 1000 (image)."""
        time = self.time_embed(time_projection(t, self.channels).to(x.dtype))
        return self.mid_block(self.in_conv(x), time), time


class ShallowUViTDecoder(nn.Module):
    """The half after the language model: its output, the encoder's features and time -> velocity."""

    def __init__(self, config: UViTDecoderConfig) -> None:
        super().__init__()
        _check(config)
        if config.upsamples < 1:
            raise ConfigError(f"upsamples is {config.upsamples}; the decoder of the U-ViT needs 1 or more")
        joined = config.in_channels + config.channels
        inputs = [joined] + [config.channels] * (config.upsamples - 1)
        outputs = [config.channels] * (config.upsamples - 1) + [config.out_channels]
        self.input_norm = RMSNorm(config.in_channels, config.norm_eps)
        self.mid_block = MidBlock(joined, config)
        self.out_convs = nn.Sequential(*(Unpatchify(a, b, config) for a, b in zip(inputs, outputs, strict=True)))

    def forward(self, x: Tensor, skip: Tensor, time: Tensor) -> Tensor:
        """Velocity [B, out, h, w] of x [B, in, h', w'] beside the encoder's features [B, C, h', w'] and time embedding [B, D]."""
        joined = torch.cat((_norm_over_channels(self.input_norm, x), skip), dim=1)
        return self.out_convs(self.mid_block(joined, time))
