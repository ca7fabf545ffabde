"""The understanding encoder under its published name (SPEC section 1)."""

from typing import Any

from torch import Tensor, nn
from transformers import CLIPVisionModel

from janus.models.siglip_vit import create_siglip_vit
from openjanus.models.siglip import ImageNorm, SiglipTower


class CLIPVisionTower(SiglipTower):
    """Pixels [b, 3, S, S] -> features [b, N, C]: a SigLIP tower, or with another `model_name` a CLIP of transformers.

    Official configurations name SigLIP towers, whose every token is kept whatever `select_feature` says. `forward_kwargs` are
    what a CLIP is called with. ValueError for an unknown `select_feature` of a CLIP, AssertionError for an unknown SigLIP.
    """

    def __init__(
        self,
        model_name: str = "siglip_large_patch16_384",
        image_size: int = 336,
        select_feature: str = "patch",
        select_layer: int = -2,
        select_layers: list[int] | None = None,
        ckpt_path: str = "",
        pixel_mean: list[float] | None = None,
        pixel_std: list[float] | None = None,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)  # not SiglipTower's: the transformer may be another
        self.model_name = model_name
        self.select_feature = "same" if model_name.startswith("siglip") else select_feature
        self.select_layer = select_layer
        self.select_layers = select_layers
        self.forward_kwargs: dict[str, Any] = {}
        self.vision_tower: Any
        self.image_norm: nn.Module
        if model_name.startswith("siglip"):
            self.vision_tower = create_siglip_vit(model_name, image_size, select_layer, ckpt_path, **kwargs)
        elif model_name.startswith("sam"):
            raise ValueError(f"model_name is {model_name!r}; SAM towers are named but nowhere implemented, choose a siglip_* one")
        else:
            if select_feature not in {"patch", "cls_patch", "same"}:
                raise ValueError(f"Unexpected select feature: {select_feature}")
            self.vision_tower = CLIPVisionModel.from_pretrained(model_name)
            self.forward_kwargs = {"output_hidden_states": True}
        self.image_norm = nn.Identity()
        if pixel_mean is not None and pixel_std is not None:
            self.image_norm = ImageNorm(tuple(pixel_mean), tuple(pixel_std))

    def forward(self, images: Tensor) -> Tensor:
        features = self.vision_tower(self.image_norm(images), **self.forward_kwargs)
        if not self.forward_kwargs:
            return features
        tokens = features.hidden_states[self.select_layer]
        return tokens[:, 1:] if self.select_feature == "patch" else tokens
