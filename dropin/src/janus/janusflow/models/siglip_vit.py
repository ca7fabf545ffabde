"""The SigLIP vision transformer is Janus' own."""

from janus.models.siglip_vit import (
    Attention,
    Block,
    LayerScale,
    SigLIP_MODEL_CONFIG,
    SigLIPVisionCfg,
    VisionTransformer,
    create_siglip_vit,
)

__all__ = [
    "Attention",
    "Block",
    "LayerScale",
    "SigLIPVisionCfg",
    "SigLIP_MODEL_CONFIG",
    "VisionTransformer",
    "create_siglip_vit",
]
