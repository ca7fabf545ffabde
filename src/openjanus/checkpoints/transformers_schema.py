"""The `config.json` of transformers' `JanusForConditionalGeneration` (model_type janus) <-> JanusConfig.

That layout has a place for less than the published one: the preprocessing of the tower, the quantiser's losses and the grid of
codes are not in it. `convert` keeps them beside it.
"""

from collections.abc import Mapping
from typing import Any

from openjanus.checkpoints.fields import Section
from openjanus.checkpoints.language_schema import parse_language
from openjanus.checkpoints.schema import TOWERS
from openjanus.config import (
    TOWER_ACTIVATIONS,
    JanusConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    TowerConfig,
    UnderstandingConfig,
    VQConfig,
)
from openjanus.errors import ConfigError

MODEL_TYPE = "janus"
ARCHITECTURE = "JanusForConditionalGeneration"


def parse_transformers(values: Mapping[str, Any]) -> JanusConfig:
    """The model a transformers config.json describes, completed with transformers' defaults; ConfigError as for published.

    A top-level tie_word_embeddings is not read: transformers 5 writes true by default, and reads untied weights all the same.
    """
    root = Section(values, "")
    root.only("model_type", (MODEL_TYPE,), f"this reader knows {MODEL_TYPE!r}")
    language = parse_language(root.section("text_config", {}))
    vision, vq = root.section("vision_config", {}), root.section("vq_config", {})
    vision.only("use_qk_norm", (False,), "openjanus has no such tower")
    vision.only("attention_bias", (True,), "openjanus has no such tower")
    vq.only("double_latent", (False,), "openjanus has no such image tokenizer")
    for section, key in ((vision, "num_channels"), (vq, "in_channels"), (vq, "out_channels")):
        section.only(key, (3,), "images have 3 channels")
    vision.only("hidden_act", TOWER_ACTIVATIONS, f"openjanus runs {' or '.join(TOWER_ACTIVATIONS)}")
    vq.only("hidden_act", ("gelu",), "openjanus runs 'gelu'")
    tower = _parse_tower(vision)
    multipliers = vq.integers("channel_multiplier", VQConfig().encoder_ch_mult)
    tokenizer = VQConfig(
        codebook_size=vq.integer("num_embeddings", 16384),
        codebook_dim=vq.integer("embed_dim", 8),
        ch=vq.integer("base_channels", 128),
        encoder_ch_mult=multipliers,
        decoder_ch_mult=multipliers,
        num_res_blocks=vq.integer("num_res_blocks", 2, least=0),
        z_channels=vq.integer("latent_channels", 256),
        dropout=vq.number("dropout", 0.0),
    )
    width = vq.integer("projection_dim", 2048)
    for section, key in ((vision, "projection_dim"), (vq, "projection_dim"), (vq, "image_token_embed_dim")):
        if section.integer(key, 2048) != language.hidden_size:
            raise ConfigError(
                f"{section.name(key)} is {section.integer(key, 2048)}, but text_config.hidden_size is {language.hidden_size}; "
                "they must be equal"
            )
    return JanusConfig(
        language=language,
        understanding=UnderstandingConfig(
            tower, ProjectorConfig(tower.width, language.hidden_size, "mlp_gelu", vision.integer("depth", 2))
        ),
        generation=TokenGenerationConfig(
            tokenizer=tokenizer,
            adaptor=ProjectorConfig(tokenizer.codebook_dim, width, "mlp_gelu", vq.integer("num_hidden_layers", 2)),
            head_dim=width,
            grid=(tower.grid, tower.grid),
        ),
    )


def _parse_tower(vision: Section) -> TowerConfig:
    patch_size, width = vision.integer("patch_size", 16), vision.integer("hidden_size", 1024)
    layers, heads = vision.integer("num_hidden_layers", 24), vision.integer("num_attention_heads", 16)
    mlp_ratio = vision.number("mlp_ratio", 4.0)
    sizes = (patch_size, width, layers, heads, mlp_ratio)
    return TowerConfig(
        image_size=vision.integer("image_size", 384),
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
        mlp_ratio=mlp_ratio,
        select_layer=-1,
        model_name=next((name for name, known in TOWERS.items() if known == sizes), TowerConfig().model_name),
        activation=vision.text("hidden_act", TowerConfig().activation),
    )


def check_representable(config: JanusConfig) -> None:
    """ConfigError naming what transformers' Janus cannot run, if anything; it would load, and answer wrongly."""
    painting, reading = config.generation, config.understanding
    if not isinstance(painting, TokenGenerationConfig):
        raise ConfigError("transformers has no JanusFlow, so there is no such layout for it; use --layout deepseek")
    tokenizer, tower = painting.tokenizer, reading.encoder
    codes, patches = (f"{height} x {width}" for height, width in (painting.grid, (tower.grid, tower.grid)))
    refusals = {
        "a vision tower with a pooling head (ignore_head false)": not tower.ignore_head,
        "a vision tower with pixel_mean and pixel_std": tower.pixel_mean is not None and tower.pixel_std is not None,
        f"an adaptor of type {reading.adaptor.projector_type}": reading.adaptor.projector_type != "mlp_gelu",
        f"an image adaptor of type {painting.adaptor.projector_type}": painting.adaptor.projector_type != "mlp_gelu",
        "an image head narrower or wider than the language model": painting.head_dim != config.language.hidden_size,
        "an image tokenizer whose encoder and decoder differ": tokenizer.encoder_ch_mult != tokenizer.decoder_ch_mult,
        "a codebook that is not normalised": not tokenizer.l2_norm,
        f"images of {codes} codes beside a tower of {patches} patches (it paints on the tower's grid)": codes != patches,
    }
    for what, found in refusals.items():
        if found:
            raise ConfigError(f"the transformers layout cannot hold {what}; use --layout deepseek")


def to_transformers(
    config: JanusConfig, token_ids: Mapping[str, int], base: Mapping[str, Any] | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """The transformers config.json of a model. token_ids: bos, eos, pad and image. Keys of `base` that are not ours are kept.

    ConfigError if transformers cannot run such a model. tie_word_embeddings is written false, at both places where transformers
    looks: its default ties, and would overwrite one of the two matrices.
    """
    check_representable(config)
    painting, reading, language = config.generation, config.understanding, config.language
    assert isinstance(painting, TokenGenerationConfig)
    tower, tokenizer = reading.encoder, painting.tokenizer
    parts: dict[str, dict[str, Any]] = {
        "text_config": {
            "model_type": "llama",
            "vocab_size": language.vocab_size,
            "hidden_size": language.hidden_size,
            "intermediate_size": language.intermediate_size,
            "num_hidden_layers": language.num_hidden_layers,
            "num_attention_heads": language.num_attention_heads,
            "num_key_value_heads": language.kv_heads,
            "head_dim": language.head_size,
            "max_position_embeddings": language.max_position_embeddings,
            "rms_norm_eps": language.rms_norm_eps,
            # transformers 4 reads the first, 5 the second.
            "rope_theta": language.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": language.rope_theta},
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": token_ids["bos"],
            "eos_token_id": token_ids["eos"],
            "pad_token_id": token_ids["pad"],
        },
        "vision_config": {
            "model_type": "janus_vision_model",
            "hidden_size": tower.width,
            "num_hidden_layers": tower.depth,
            "num_attention_heads": tower.heads,
            "image_size": tower.image_size,
            "patch_size": tower.patch_size,
            "hidden_act": tower.activation,
            "mlp_ratio": tower.mlp_ratio,
            "projection_dim": language.hidden_size,
            "depth": reading.adaptor.depth,
            "num_image_tokens": tower.patches,
        },
        "vq_config": {
            "model_type": "janus_vqgan",
            "embed_dim": tokenizer.codebook_dim,
            "num_embeddings": tokenizer.codebook_size,
            "latent_channels": tokenizer.z_channels,
            "base_channels": tokenizer.ch,
            "channel_multiplier": list(tokenizer.encoder_ch_mult),
            "num_res_blocks": tokenizer.num_res_blocks,
            "dropout": tokenizer.dropout,
            "num_patches": tower.grid,
            "projection_dim": language.hidden_size,
            "num_hidden_layers": painting.adaptor.depth,
            "image_token_embed_dim": language.hidden_size,
        },
    }
    base = base or {}
    return {
        **base,
        **{key: {**base.get(key, {}), **values} for key, values in parts.items()},
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "image_token_id": token_ids["image"],
        "tie_word_embeddings": False,
        **({"torch_dtype": dtype} if dtype else {}),
    }
