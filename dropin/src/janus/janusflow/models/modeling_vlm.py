"""JanusFlow: tower, U-ViT halves with their aligners, language model (SPEC section 6). Widths follow from the parts."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from janus.assembly import Assembly, AssemblyConfig, PartConfig
from janus.janusflow.models.uvit import ShallowUViTDecoder, ShallowUViTEncoder
from janus.models.clip_encoder import CLIPVisionTower
from janus.models.modeling_vlm import MultiModalityConfig as TokenConfig
from openjanus.models.layers import RMSNorm

PART_CLASSES: dict[str, Any] = {
    "CLIPVisionTower": CLIPVisionTower,
    "ShallowUViTEncoder": ShallowUViTEncoder,
    "ShallowUViTDecoder": ShallowUViTDecoder,
}


def model_name_to_cls(cls_name: str) -> Any:
    """The class that a part's `cls` names, by substring as published; ValueError if it names none."""
    for name, kind in PART_CLASSES.items():
        if name in cls_name:
            return kind
    raise ValueError(f"class_name {cls_name!r} is invalid; a part is one of {', '.join(PART_CLASSES)}")


class VisionUnderstandEncoderConfig(PartConfig):
    """The understanding tower."""

    model_type = "vision_und_enc"


class VisionGenerationEncoderConfig(PartConfig):
    """Latent and time -> language model."""

    model_type = "vision_gen_enc"


class VisionGenerationDecoderConfig(PartConfig):
    """Language model -> velocity."""

    model_type = "vision_gen_dec"


class MultiModalityConfig(AssemblyConfig):
    """config.json of JanusFlow."""

    @classmethod
    def parts(cls) -> dict[str, type[PartConfig]]:
        return {
            "vision_und_enc_config": VisionUnderstandEncoderConfig,
            "vision_gen_enc_config": VisionGenerationEncoderConfig,
            "vision_gen_dec_config": VisionGenerationDecoderConfig,
        }

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration, or Janus' where that is what `config_dict` describes: both have the same model_type."""
        if TokenConfig.describes(config_dict):
            return TokenConfig.from_dict(config_dict, **kwargs)
        return super().from_dict(config_dict, **kwargs)


class MultiModalityPreTrainedModel(Assembly):
    """What transformers needs to know of JanusFlow."""

    config_class = MultiModalityConfig


class MultiModalityCausalLM(MultiModalityPreTrainedModel):
    """JanusFlow, as `AutoModelForCausalLM.from_pretrained` gives it; the VAE is separate, as published."""

    def build(self, config: MultiModalityConfig) -> None:
        hidden, eps = config.language_config.hidden_size, config.language_config.rms_norm_eps
        reading, encoding, decoding = (getattr(config, name) for name in config.parts())
        self.vision_und_enc_model = model_name_to_cls(reading.cls)(**reading.params)
        self.vision_gen_enc_model = model_name_to_cls(encoding.cls)(**encoding.params)
        self.vision_gen_dec_model = model_name_to_cls(decoding.cls)(**decoding.params)
        tower_width = self.vision_und_enc_model.vision_tower.pos_embed.shape[-1]
        self.vision_und_enc_aligner = nn.Linear(tower_width, hidden)
        self.vision_gen_enc_aligner = nn.Linear(self.vision_gen_enc_model.channels, hidden)
        self.vision_gen_dec_aligner_norm = RMSNorm(hidden, eps)
        self.vision_gen_dec_aligner = nn.Linear(hidden, decoding.params.get("in_channels", 768))
        self.beg_of_und_embed = nn.Parameter(torch.zeros(1, hidden))

    def _init_weights(self, module: nn.Module) -> None:
        if module is self and self._initialised:
            nn.init.zeros_(self.beg_of_und_embed)
        super()._init_weights(module)

    def read_images(self, pixels: Tensor) -> Tensor:
        """Embeddings [i, 1 + P, D] of images [i, 3, S, S]: the begin vector, in the place of <begin_of_image>, and the patches.

        Differs from the reference: the begin vector is not detached, so it can be trained (the values are the same).
        """
        patches = self.vision_und_enc_aligner(self.vision_und_enc_model(pixels))
        return torch.cat((self.beg_of_und_embed.to(patches).expand(patches.shape[0], 1, -1), patches), dim=1)


for part in MultiModalityConfig.parts().values():
    AutoConfig.register(part.model_type, part, exist_ok=True)
AutoModelForCausalLM.register(MultiModalityConfig, MultiModalityCausalLM, exist_ok=True)
