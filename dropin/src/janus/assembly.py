"""What the published Janus and JanusFlow classes share: configurations, the language model, weaving images into text.

The parts are openjanus' own under the published attribute names; the language model is transformers' LlamaForCausalLM, because
clients call its `generate`, caches, peft and checkpointing. Dims: b rows, T positions, n images a row, N slots an image, D width.
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available

from openjanus.models.layers import RMSNorm
from openjanus.models.quantizer import VectorQuantizer
from openjanus.models.siglip import AttentionPool, VisionTransformer
from openjanus.models.uvit import GlobalResponseNorm

logger = logging.getLogger(__name__)


class Params(dict[str, Any]):
    """A dict whose keys are attributes too, all the way down: `config.gen_vision_config.params.image_token_size`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, Params(value) if isinstance(value, dict) and not isinstance(value, Params) else value)

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"params has no {key!r}; it has {', '.join(self) or 'nothing'}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __delattr__(self, key: str) -> None:
        del self[key]


class KeywordConfig(PretrainedConfig):
    """A configuration whose constructor subclasses inherit."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # transformers 5 makes a dataclass, with a constructor of its own, of every configuration that has none in its body.
        if "__init__" not in vars(cls):
            cls.__init__ = cls.__init__  # type: ignore[method-assign]
        super().__init_subclass__(**kwargs)


class PartConfig(KeywordConfig):
    """One part of a model: `cls`, the published class name, and `params`, what that class is given."""

    def __init__(self, **kwargs: Any) -> None:
        name, params = kwargs.pop("cls", ""), kwargs.pop("params", None)
        super().__init__(**kwargs)
        self.cls = name if isinstance(name, str) else name.__name__
        self.params = Params(params or {})


def language_config(values: dict[str, Any]) -> LlamaConfig:
    """A Llama from `language_config`, completed with transformers' defaults."""
    # transformers 4 saves this mark of a finished choice without the choice; read back, it would mean eager attention.
    values = {key: value for key, value in values.items() if key != "_attn_implementation_autoset"}
    # transformers 5 writes the rope base into rope_parameters only, which transformers 4 does not read.
    theta = (values.get("rope_parameters") or {}).get("rope_theta")
    return LlamaConfig(**values if theta is None else {"rope_theta": theta, **values})


class AssemblyConfig(KeywordConfig):
    """A published config.json: parts of {cls, params}, and `language_config`.

    Keys of `parts` name the parts of a variant. Both variants call themselves "multi_modality"; a subclass whose parts a
    config.json does not have leaves it to the other (`from_dict`).
    """

    model_type = "multi_modality"
    has_no_defaults_at_init = True

    @classmethod
    def parts(cls) -> dict[str, type[PartConfig]]:
        """Attribute name of each part -> its configuration class."""
        return {}

    def __init__(self, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name, None) for name in self.parts()}
        language = kwargs.pop("language_config", None)
        # transformers 4 ties embeddings and head unless told otherwise; no Janus does.
        super().__init__(**{"tie_word_embeddings": False, **kwargs})
        for name, kind in self.parts().items():
            value = given[name]
            setattr(self, name, value if isinstance(value, PretrainedConfig) else kind(**(value or {})))
        self.language_config = language if isinstance(language, PretrainedConfig) else language_config(language or {})

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, with the rope base where every version of transformers finds it."""
        values = super().to_dict()
        language = values.get("language_config") or {}
        if (theta := (language.get("rope_parameters") or {}).get("rope_theta")) is not None:
            language["rope_theta"] = theta
        return values

    @classmethod
    def describes(cls, values: dict[str, Any]) -> bool:
        """Whether a parsed config.json is of this variant."""
        return any(name in values for name in cls.parts())


def settle_attention(config: AssemblyConfig) -> None:
    """Pass a request for an attention implementation on to the language model, and drop flash attention where it cannot run.

    Published configurations ask for flash_attention_2, which stops transformers on every machine without it; its own choice
    computes the same. A choice made in `config.language_config` stands unless `from_pretrained` was asked for another.
    """
    language = config.language_config
    asked = getattr(config, "_attn_implementation_internal", None)
    if isinstance(asked, dict):
        asked = asked.get("language_config", asked.get(""))
    if asked not in {None, "sdpa"}:  # transformers 4 writes "sdpa" itself where nobody asked
        language._attn_implementation = asked
        return
    if getattr(language, "_attn_implementation_internal", None) == "flash_attention_2" and not is_flash_attn_2_available():
        logger.info("flash_attention_2 is not available here; the language model uses transformers' own choice of attention")
        language._attn_implementation = None


def accept_legacy_cache(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A forward pre-hook: `past_key_values` as a tuple of (keys, values) a layer becomes a cache object; an empty one, None.

    The published JanusFlow sampling loop hands over an empty tuple, which transformers refuses since 4.48.
    """
    past = kwargs.get("past_key_values")
    if isinstance(past, (tuple, list)):
        cache = DynamicCache() if past else None
        for layer, (keys, values, *_) in enumerate(past):
            assert cache is not None
            cache.update(keys, values, layer)
        kwargs = {**kwargs, "past_key_values": cache}
    return args, kwargs


class Assembly(PreTrainedModel):
    """A language model with the parts around it that read and paint images. It has no forward: clients call the parts."""

    config_class: type[AssemblyConfig] = AssemblyConfig
    base_model_prefix = "multi_modality"
    supports_gradient_checkpointing = True
    # transformers reads these lists of the class.
    _no_split_modules = ["CLIPVisionTower", "VQModel", "ShallowUViTEncoder", "ShallowUViTDecoder"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    # Only the language model's attention is transformers'; whatever that supports is supported.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: AssemblyConfig) -> None:
        if not isinstance(config, self.config_class):
            raise ValueError(
                f"the configuration is a {type(config).__module__}.{type(config).__name__}, which {type(self).__module__}."
                f"{type(self).__name__} cannot be built from: Janus and JanusFlow checkpoints have classes of their own; "
                "AutoModelForCausalLM picks the right one"
            )
        settle_attention(config)
        super().__init__(config)
        self._initialised = False
        self.build(config)
        self.language_model = LlamaForCausalLM(config.language_config)
        self.language_model.model.register_forward_pre_hook(accept_legacy_cache, with_kwargs=True)
        self.post_init()
        self._initialised = True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' own, with `dtype` understood by versions that still call it `torch_dtype`."""
        if (dtype := kwargs.pop("dtype", None)) is not None:
            kwargs["torch_dtype"] = dtype
        return super().from_pretrained(*args, **kwargs)

    def build(self, config: Any) -> None:
        """Create every part but the language model."""
        raise NotImplementedError

    def read_images(self, pixels: Tensor) -> Tensor:
        """Embeddings [i, N, D] of images [i, 3, S, S]."""
        raise NotImplementedError

    def _init_weights(self, module: nn.Module) -> None:
        # Parts initialise themselves; transformers asks again for weights that a checkpoint did not have.
        if not self._initialised:
            return
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, GlobalResponseNorm):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, VisionTransformer):
            nn.init.normal_(module.pos_embed, std=0.02)
        elif isinstance(module, AttentionPool):
            nn.init.trunc_normal_(module.latent, std=module.latent.shape[-1] ** -0.5)
        elif isinstance(module, VectorQuantizer):
            if module.config.show_usage:
                nn.init.zeros_(module.codebook_used)
        elif callable(reset := getattr(module, "reset_parameters", None)):
            reset()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's token embeddings."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> Any:
        """Resize the language model's vocabulary: embeddings, head and configuration together."""
        return self.language_model.resize_token_embeddings(*args, **kwargs)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """The language model's, which peft asks the whole model for."""
        return self.language_model.prepare_inputs_for_generation(*args, **kwargs)

    def prepare_inputs_embeds(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        images_seq_mask: Tensor,
        images_emb_mask: Tensor,
        **_ignored: Any,
    ) -> Tensor:
        """Embeddings [b, T, D]: words from the table, image slots from the images in row order (SPEC section 4).

        input_ids: [b, T]; pixel_values: [b, n, 3, S, S], cast to the model's dtype; images_seq_mask: bool [b, T], the slots;
        images_emb_mask: bool [b, n, N], which embeddings are real, images of nothing but False being padding.
        ValueError if slots and embeddings differ in number.
        Differs from the reference: the caller's ids are not changed, padding images are not read, and a prompt without images
        costs no run of the tower. In training mode all are read, so that every process uses the same parameters.
        """
        images_seq_mask, images_emb_mask = images_seq_mask.bool(), images_emb_mask.bool()
        embeddings = self.get_input_embeddings()(input_ids.clamp(min=0))
        real = torch.ones_like(images_emb_mask[..., 0]) if self.training else images_emb_mask.any(dim=-1)
        if pixel_values is None or not real.any():
            rows = embeddings.new_zeros(0, embeddings.shape[-1])
        else:
            images = self.read_images(pixel_values[real].to(self.dtype))
            rows = images[images_emb_mask[real].to(images.device)].to(embeddings)
        slots = int(images_seq_mask.sum())
        if slots != rows.shape[0]:
            raise ValueError(
                f"the prompts have {slots} image positions (images_seq_mask), but the images fill {rows.shape[0]} "
                "(pixel_values, images_emb_mask); give one image for every image placeholder"
            )
        return embeddings.masked_scatter(images_seq_mask[..., None].to(embeddings.device), rows)
