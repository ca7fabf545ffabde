"""The SigLIP vision tower: pixels -> one embedding a patch (SPEC section 1).

Module names are the published ones. Dims: N images, P patches in row order, C tower width, S image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import TowerConfig
from openjanus.errors import ImageError

NORM_EPS = 1e-6


class ImageNorm(nn.Module):
    """(pixels - mean) / std, channel by channel: [N, 3, S, S] -> [N, 3, S, S]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Numbers, not buffers: checkpoints hold neither, so buffers would stay empty after a build on the meta device.
        self.mean = mean
        self.std = std

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - pixels.new_tensor(self.mean).view(-1, 1, 1)) / pixels.new_tensor(self.std).view(-1, 1, 1)


class PatchEmbed(nn.Module):
    """One linear map of each patch: [N, 3, S, S] -> [N, P, C]."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.proj = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)

    def forward(self, pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        if (height, width) != (self.image_size, self.image_size):
            raise ImageError(
                f"the vision tower got pixels of {height}x{width}; it reads {self.image_size}x{self.image_size}: "
                "prepare images with the ImageProcessor of this model"
            )
        return self.proj(pixels).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention with one fused projection whose rows are queries, keys, values: [N, P, C] -> [N, P, C].

    there: bool [N, P], the positions that are read; None reads all.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mask = None if there is None else there[:, None, None]
        return self.proj(F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear maps around a GELU, exact or by tanh: [..., C] -> [..., C]."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.approximate = "none" if config.activation == "gelu" else "tanh"
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class Block(nn.Module):
    """A pre-norm transformer block: [N, P, C] -> [N, P, C]. there: as in `Attention`."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, there: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), there)
        return x + self.mlp(self.norm2(x))


class AttentionPool(nn.Module):
    """One vector an image, read from its patches by a learned query: [N, P, C] -> [N, C]."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.latent = nn.Parameter(torch.empty(1, 1, width))
        nn.init.trunc_normal_(self.latent, std=width**-0.5)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        query = self.q(self.latent).expand(len(x), -1, -1).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        pooled = self.proj(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return (pooled + self.mlp(self.norm(pooled)))[:, 0]


class VisionTransformer(nn.Module):
    """The transformer: pixels [N, 3, S, S] -> normalised embeddings [N, P, C], or pooled [N, C] with the head."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.ignore_head = config.ignore_head
        self.patch_embed = PatchEmbed(config)
        self.pos_embed = nn.Parameter(torch.empty(1, config.patches, config.width))
        nn.init.normal_(self.pos_embed, std=0.02)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        # Janus never reads it, but published checkpoints hold its weights: built, so that they load and save unchanged.
        self.attn_pool = AttentionPool(config)

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.norm(self.blocks(self.patch_embed(pixels) + self.pos_embed))
        return features if self.ignore_head else self.attn_pool(features)


class SiglipTower(nn.Module):
    """The understanding encoder: pixels [N, 3, S, S] -> [N, P, C], or [N, C] where config.ignore_head is False.

    Pixels are as the image processor leaves them; a config with both `pixel_mean` and `pixel_std` normalises once more.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.vision_tower = VisionTransformer(config)
        self.image_norm: nn.Module = nn.Identity()
        if config.pixel_mean is not None and config.pixel_std is not None:
            self.image_norm = ImageNorm(config.pixel_mean, config.pixel_std)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.vision_tower(self.image_norm(pixels))
