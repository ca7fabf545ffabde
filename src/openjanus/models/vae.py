"""The autoencoder of JanusFlow's latents: diffusers' `AutoencoderKL` as the SDXL VAE configures it (SPEC section 6.2).

Module names are diffusers'. float16 overflows with the published SDXL weights: run them in bfloat16 or float32.
Dims: B images, L latent channels, h x w = H/stride x W/stride latent positions.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import VAEConfig
from openjanus.models.layers import Downsample, ResidualBlock, Upsample, attend_over_positions, group_norm


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents; mean and logvar (natural logarithm of the variance) are [B, L, h, w], unscaled."""

    mean: Tensor
    logvar: Tensor

    def mode(self) -> Tensor:
        """The likeliest latent [B, L, h, w]."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """A latent [B, L, h, w] drawn with `generator`, which may live on another device than the latents."""
        device = generator.device if generator else self.mean.device
        noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype, device=device)
        return self.mean + torch.exp(0.5 * self.logvar) * noise.to(self.mean.device)


def _residual(inputs: int, outputs: int, config: VAEConfig) -> ResidualBlock:
    return ResidualBlock(inputs, outputs, shortcut="conv_shortcut", groups=config.norm_num_groups)


class Attention(nn.Module):
    """Every position attends to every other, with one head: [B, C, h, w] -> [B, C, h, w]."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = group_norm(channels, groups)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        rows = self.group_norm(x).flatten(2).transpose(1, 2)
        attended = attend_over_positions(self.to_q(rows), self.to_k(rows), self.to_v(rows))
        return x + self.to_out[0](attended).transpose(1, 2).unflatten(2, x.shape[2:])


class MidBlock(nn.Module):
    """The narrowest part of both halves: residual, attention, residual."""

    def __init__(self, channels: int, config: VAEConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, config.norm_num_groups)])
        self.resnets = nn.ModuleList([_residual(channels, channels, config) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class DownBlock(nn.Module):
    """One resolution of the encoder, halved at the end unless it is the last."""

    def __init__(self, inputs: int, outputs: int, config: VAEConfig, last: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * config.layers_per_block
        self.resnets = nn.Sequential(*(_residual(a, b, config) for a, b in pairwise(widths)))
        self.downsamplers = nn.Sequential(*([] if last else [Downsample(outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.downsamplers(self.resnets(x))


class UpBlock(nn.Module):
    """One resolution of the decoder, doubled at the end unless it is the last."""

    def __init__(self, inputs: int, outputs: int, config: VAEConfig, last: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * (config.layers_per_block + 1)
        self.resnets = nn.Sequential(*(_residual(a, b, config) for a, b in pairwise(widths)))
        self.upsamplers = nn.Sequential(*([] if last else [Upsample(outputs)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.upsamplers(self.resnets(x))


class Encoder(nn.Module):
    """Pixels [B, 3, H, W] -> [B, 2L, h, w]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        inputs = (widths[0], *widths[:-1])
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.Sequential(
            *(DownBlock(a, b, config, last=i == len(widths) - 1) for i, (a, b) in enumerate(zip(inputs, widths, strict=True)))
        )
        self.mid_block = MidBlock(widths[-1], config)
        self.conv_norm_out = group_norm(widths[-1], config.norm_num_groups)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        hidden = self.mid_block(self.down_blocks(self.conv_in(pixels)))
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


class Decoder(nn.Module):
    """[B, L, h, w] -> pixels [B, 3, H, W]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        inputs = (widths[0], *widths[:-1])
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.Sequential(
            *(UpBlock(a, b, config, last=i == len(widths) - 1) for i, (a, b) in enumerate(zip(inputs, widths, strict=True)))
        )
        self.mid_block = MidBlock(widths[0], config)
        self.conv_norm_out = group_norm(widths[-1], config.norm_num_groups)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        hidden = self.up_blocks(self.mid_block(self.conv_in(latent)))
        return self.conv_out(F.silu(self.conv_norm_out(hidden)))


class AutoencoderKL(nn.Module):
    """Pixels to a Gaussian over latents, and latents back to pixels, about [-1, 1] and not clamped.

    Latents here are unscaled: multiply by config.scaling_factor for the flow, divide before `decode`.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def encode(self, pixels: Tensor) -> Posterior:
        """The posterior of pixels [B, 3, H, W] in [-1, 1]."""
        mean, logvar = self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)
        # Diffusers' bounds: beyond them exp() leaves what bfloat16 and training can use.
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] of a latent [B, L, h, w] already divided by config.scaling_factor."""
        return self.decoder(self.post_quant_conv(latent))
