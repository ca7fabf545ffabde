"""Small random models of both variants, with settings a careless implementation would miss.

Grouped-query attention, a rotary base of 5000, and a generation grid that is not square.
"""

import functools
from pathlib import Path

import tokenizers
import torch

from openjanus.config import (
    FlowGenerationConfig,
    JanusConfig,
    LanguageConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    TowerConfig,
    UnderstandingConfig,
    UViTDecoderConfig,
    UViTEncoderConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.janus import Janus
from openjanus.models.janus import JanusModel
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import Tokenizer

VARIANTS = ("janus", "janusflow")
TOKENIZER = Path(__file__).parent / "data" / "tokenizer"

_WIDTH = 32
_LANGUAGE = LanguageConfig(
    vocab_size=352,
    hidden_size=_WIDTH,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=320,
    rope_theta=5000.0,
)
_TOWER = TowerConfig(image_size=16, patch_size=4, width=24, layers=2, heads=2, mlp_ratio=2, select_layer=-1)

CONFIGS = {
    "janus": JanusConfig(
        _LANGUAGE,
        UnderstandingConfig(_TOWER, ProjectorConfig(24, _WIDTH, "mlp_gelu", depth=2)),
        TokenGenerationConfig(
            VQConfig(
                codebook_size=48,
                ch=32,
                encoder_ch_mult=(1, 1),
                decoder_ch_mult=(1, 1),
                num_res_blocks=1,
                z_channels=16,
            ),
            ProjectorConfig(8, _WIDTH, "mlp_gelu", depth=2),
            head_dim=40,
            grid=(3, 5),
        ),
    ),
    "janusflow": JanusConfig(
        _LANGUAGE,
        UnderstandingConfig(_TOWER, ProjectorConfig(24, _WIDTH, "linear"), begin=True),
        FlowGenerationConfig(
            UViTEncoderConfig(4, 2, 2, 0, (16,), 2, _WIDTH),
            UViTDecoderConfig(16, 4, (16,), 1, 2, _WIDTH),
            latent_size=(6, 10),
            vae=VAEConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8),
        ),
    ),
}


@functools.cache
def tiny_model(variant: str, dtype: torch.dtype = torch.float32) -> JanusModel:
    """A random model, the same every time. Weights are larger than usual, so that inputs matter and near-ties are rare.

    One for all tests of a process: copy it before you change it.
    """
    torch.manual_seed(0)
    model = JanusModel(CONFIGS[variant]).eval().requires_grad_(False)
    for name, parameter in model.language.named_parameters():
        if "norm" not in name:
            parameter.mul_(8 if "embed" in name or "lm_head" in name else 4)
    return model.to(dtype)


def tiny_processor(variant: str) -> Processor:
    """The test tokenizer and 16-pixel images, in the variant's own template."""
    config = CONFIGS[variant]
    flow = config.understanding.begin
    tokenizer = Tokenizer(
        tokenizers.Tokenizer.from_file(str(TOKENIZER / "tokenizer.json")),
        extra_tags=("<｜begin▁of▁generation｜>",) if flow else (),
        pad_fallback=flow,
    )
    half = (0.5, 0.5, 0.5)
    return Processor(
        tokenizer,
        ImageProcessor(ImageProcessorConfig(image_size=16, min_size=4, image_mean=half, image_std=half)),
        ChatFormat(roles=("User", "Assistant") if flow else None, system_prompt="Be brief."),
        config.understanding.slots,
        begin_is_slot=flow,
        context=config.language.max_position_embeddings,
        vocab_size=config.language.vocab_size,
    )


def tiny_janus(variant: str, dtype: torch.dtype = torch.float32) -> Janus:
    """The model as people use it."""
    return Janus(tiny_model(variant, dtype), tiny_processor(variant), f"tiny {variant}")
