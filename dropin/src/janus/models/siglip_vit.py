"""The SigLIP vision transformer under its published names (SPEC section 1)."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.checkpoints.fields import Section
from openjanus.checkpoints.schema import TOWERS, parse_tower
from openjanus.config import TowerConfig
from openjanus.models.siglip import Attention, Block, VisionTransformer

__all__ = [
    "Attention",
    "Block",
    "LayerScale",
    "SigLIPVisionCfg",
    "SigLIP_MODEL_CONFIG",
    "VisionTransformer",
    "create_siglip_vit",
]


class LayerScale(nn.Module):
    """A learned factor per channel: [..., dim] -> [..., dim]. No published model has one."""

    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.gamma = nn.Parameter(init_values * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


@dataclass
class SigLIPVisionCfg:
    """Sizes of a SigLIP tower."""

    width: int = 1152
    layers: int = 27
    heads: int = 16
    patch_size: int = 14
    image_size: int = 336
    mlp_ratio: float = 3.7362
    global_pool: str = "map"
    class_token: bool = False
    num_classes: int = 0
    use_checkpoint: bool = False


# The size in a name is the size it was made for, but for this one, which SPEC section 1 lists with another.
_NATIVE = {"siglip_so400m_patch14_384": 336}
SigLIP_MODEL_CONFIG: dict[str, dict[str, Any]] = {
    name: asdict(SigLIPVisionCfg(width, layers, heads, patch_size, _NATIVE.get(name, int(name.rsplit("_", 1)[1])), mlp_ratio))
    for name, (patch_size, width, layers, heads, mlp_ratio) in TOWERS.items()
}


def tower_config(model_name: str, **params: Any) -> TowerConfig:
    """A tower by its published name; `params` are those of `vision_config`, which may override or replace the name's sizes.

    AssertionError for a name that is neither known nor accompanied by its sizes.
    """
    sizes = {"patch_size", "width", "layers", "heads"} & params.keys()
    if model_name not in TOWERS and len(sizes) < 4:
        raise AssertionError(f"model name should be in {', '.join(TOWERS)}; {model_name!r} is not")
    return parse_tower(Section({"model_name": model_name, **params}, "vision_config.params"))


def create_siglip_vit(
    model_name: str = "siglip_so400m_patch14_384",
    image_size: int = 384,
    select_layer: int = -1,
    ckpt_path: str = "",
    **kwargs: Any,
) -> VisionTransformer:
    """A tower for images of `image_size`, cut after `select_layer`; weights from `ckpt_path` if given.

    kwargs: `ignore_head` (True), `weight_init` ("skip", or "" for truncated normals), and the sizes of `vision_config.params`;
    others are ignored. AssertionError for an unknown name.
    """
    weight_init = kwargs.pop("weight_init", "skip")
    config = tower_config(model_name, image_size=image_size, select_layer=select_layer, **kwargs)
    tower = VisionTransformer(config)
    if weight_init == "":
        tower.apply(_truncated_normal)
        nn.init.trunc_normal_(tower.pos_embed, std=0.02)
    if ckpt_path:
        # Files of whole SigLIP towers hold blocks behind the cut, and perhaps a head: what is not built is left out.
        state = torch.load(ckpt_path, map_location="cpu", weights_only=True)
        missing = tower.load_state_dict(state, strict=False).missing_keys
        if missing:
            raise ValueError(f"{ckpt_path} lacks {len(missing)} weights of {model_name} (first: {missing[0]})")
    return tower


def _truncated_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
