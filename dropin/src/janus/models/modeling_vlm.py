"""Janus and Janus-Pro: tower, aligner, VQ tokenizer, code embedding, image head, language model (SPEC section 4)."""

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from janus.assembly import Assembly, AssemblyConfig, Params, PartConfig
from janus.models.clip_encoder import CLIPVisionTower
from janus.models.projector import MlpProjector
from janus.models.vq_model import VQ_models, model_args
from openjanus.checkpoints.fields import Section
from openjanus.checkpoints.schema import parse_vq
from openjanus.models.adaptors import ImageHead


class vision_head(ImageHead):
    """Scores of every image code: [..., n_embed] -> [..., image_token_size]."""

    def __init__(self, params: Any) -> None:
        params = Params(params)
        super().__init__(params.n_embed, params.image_token_embed, params.image_token_size)


def model_name_to_cls(cls_name: str) -> Any:
    """The class (for VQ: the function) that a part's `cls` names, by substring as published; ValueError if it names none."""
    if "MlpProjector" in cls_name:
        return MlpProjector
    if "CLIPVisionTower" in cls_name:
        return CLIPVisionTower
    if "VQ" in cls_name and cls_name in VQ_models:
        return VQ_models[cls_name]
    if "vision_head" in cls_name:
        return vision_head
    known = ["MlpProjector", "CLIPVisionTower", *VQ_models, "vision_head"]
    raise ValueError(f"class_name {cls_name!r} is invalid; a part is one of {', '.join(known)}")


class VisionConfig(PartConfig):
    """The understanding tower."""

    model_type = "vision"


class AlignerConfig(PartConfig):
    """Tower -> language model."""

    model_type = "aligner"


class GenVisionConfig(PartConfig):
    """The image tokenizer."""

    model_type = "gen_vision"


class GenAlignerConfig(PartConfig):
    """Code embedding -> language model."""

    model_type = "gen_aligner"


class GenHeadConfig(PartConfig):
    """Language model -> scores of codes."""

    model_type = "gen_head"


class MultiModalityConfig(AssemblyConfig):
    """config.json of Janus and Janus-Pro."""

    @classmethod
    def parts(cls) -> dict[str, type[PartConfig]]:
        return {
            "vision_config": VisionConfig,
            "aligner_config": AlignerConfig,
            "gen_vision_config": GenVisionConfig,
            "gen_aligner_config": GenAlignerConfig,
            "gen_head_config": GenHeadConfig,
        }

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration, or JanusFlow's where that is what `config_dict` describes: both have the same model_type."""
        if not cls.describes(config_dict):
            # Late: JanusFlow is built on this package, and who never meets one need not import it.
            from janus.janusflow.models.modeling_vlm import MultiModalityConfig as FlowConfig

            if FlowConfig.describes(config_dict):
                return FlowConfig.from_dict(config_dict, **kwargs)
        return super().from_dict(config_dict, **kwargs)


class MultiModalityPreTrainedModel(Assembly):
    """What transformers needs to know of Janus."""

    config_class = MultiModalityConfig


class MultiModalityCausalLM(MultiModalityPreTrainedModel):
    """Janus and Janus-Pro, as `AutoModelForCausalLM.from_pretrained` gives them."""

    def build(self, config: MultiModalityConfig) -> None:
        vision, aligner = config.vision_config, config.aligner_config
        self.vision_model = model_name_to_cls(vision.cls)(**vision.params)
        self.aligner = model_name_to_cls(aligner.cls)(aligner.params)
        codes = config.gen_vision_config
        self.gen_vision_model = model_name_to_cls(codes.cls)(
            **model_args(parse_vq(Section(codes.params, "gen_vision_config.params")))
        )
        self.gen_aligner = model_name_to_cls(config.gen_aligner_config.cls)(config.gen_aligner_config.params)
        self.gen_head = model_name_to_cls(config.gen_head_config.cls)(config.gen_head_config.params)
        self.gen_embed = nn.Embedding(codes.params.image_token_size, codes.params.n_embed)

    def read_images(self, pixels: Tensor) -> Tensor:
        """Embeddings [i, N, D] of images [i, 3, S, S]."""
        return self.aligner(self.vision_model(pixels))

    def prepare_gen_img_embeds(self, image_ids: Tensor) -> Tensor:
        """Embeddings [..., D] of image codes [...], int32 or int64."""
        return self.gen_aligner(self.gen_embed(image_ids))


AutoConfig.register("multi_modality", MultiModalityConfig, exist_ok=True)
for part in MultiModalityConfig.parts().values():
    AutoConfig.register(part.model_type, part, exist_ok=True)
AutoModelForCausalLM.register(MultiModalityConfig, MultiModalityCausalLM, exist_ok=True)
