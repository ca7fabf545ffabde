"""The shallow U-ViT under its published names and signatures (SPEC section 6.1)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from openjanus.config import UViTDecoderConfig, UViTEncoderConfig
from openjanus.models import uvit
from openjanus.models.layers import RMSNorm
from openjanus.models.uvit import ConvNextBlock, GlobalResponseNorm, TimeEmbedding, Unpatchify

__all__ = [
    "ConvNextBlock",
    "GlobalResponseNorm",
    "RMSNorm",
    "ShallowUViTDecoder",
    "ShallowUViTEncoder",
    "TimeEmbedding",
    "Unpatchify",
]


class ShallowUViTEncoder(uvit.ShallowUViTEncoder):
    """A latent and its time -> features, time embedding, and the list of skips that the decoder takes from."""

    def __init__(
        self,
        input_channels: int = 3,
        stride: int = 4,
        kernel_size: int = 7,
        padding: int | None = None,
        block_out_channels: Sequence[int] = (768,),
        layers_in_middle: int = 2,
        hidden_size: int = 2048,
        elementwise_affine: bool = True,
        use_bias: bool = True,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        use_mid_block: bool = True,
        **_ignored: Any,
    ) -> None:
        super().__init__(
            UViTEncoderConfig(
                input_channels=input_channels,
                stride=stride,
                kernel_size=kernel_size,
                padding=padding,
                block_out_channels=tuple(block_out_channels),
                layers_in_middle=layers_in_middle,
                hidden_size=hidden_size,
                elementwise_affine=elementwise_affine,
                use_bias=use_bias,
                norm_eps=norm_eps,
                dropout=dropout,
                use_mid_block=use_mid_block,
            )
        )

    def forward(self, x: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:  # type: ignore[override]
        """[B, C, h', w'], [B, D], [[B, C, h', w']] of latents [B, c, h, w] at times [B] or [1], 0 (noise) to 1000 (image)."""
        features, time = super().forward(x, timesteps.expand(x.shape[0]))
        return features, time, [features]


class ShallowUViTDecoder(uvit.ShallowUViTDecoder):
    """The language model's output, the encoder's skips and time embedding -> velocity."""

    def __init__(
        self,
        in_channels: int = 768,
        out_channels: int = 3,
        block_out_channels: Sequence[int] = (768,),
        upsamples: int = 2,
        layers_in_middle: int = 2,
        hidden_size: int = 2048,
        elementwise_affine: bool = True,
        use_bias: bool = True,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        use_mid_block: bool = True,
        **_ignored: Any,
    ) -> None:
        super().__init__(
            UViTDecoderConfig(
                in_channels=in_channels,
                out_channels=out_channels,
                block_out_channels=tuple(block_out_channels),
                upsamples=upsamples,
                layers_in_middle=layers_in_middle,
                hidden_size=hidden_size,
                elementwise_affine=elementwise_affine,
                use_bias=use_bias,
                norm_eps=norm_eps,
                dropout=dropout,
                use_mid_block=use_mid_block,
            )
        )

    def forward(self, x: Tensor, hs: list[Tensor], t_emb: Tensor) -> Tensor:  # type: ignore[override]
        """Velocity [B, out, h, w] of x [B, in, h', w']. The skip is taken out of `hs`, as published; AssertionError for more."""
        skip = hs.pop()
        assert not hs, f"hs held {len(hs) + 1} skips; the shallow U-ViT has one"
        return super().forward(x, skip, t_emb)
