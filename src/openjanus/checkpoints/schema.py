"""The published `config.json` (model_type multi_modality) <-> JanusConfig, for Janus, Janus-Pro and JanusFlow.

Keys are the published ones. What the published code hard-wires may be given as extra keys, so that other sizes load too:
- `vision_config.params`, `vision_und_enc_config.params`: patch_size, width, layers, heads, mlp_ratio override `model_name`,
  activation ("gelu_pytorch_tanh") the exact GELU;
- `gen_vision_config.params`: ch, ch_mult (or encoder_ch_mult and decoder_ch_mult), num_res_blocks, z_channels, grid_size,
  guidance and the quantiser's settings, beside image_token_size (codebook size) and n_embed (codebook width);
- `vision_gen_enc_config.params`: latent_size, one number or [height, width], and guidance.
Absent keys mean what the published code assumes (SPEC sections 1 to 6). Keys that say how to run (attention implementation,
dtype, dropout of the language model) are kept but not read.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from openjanus.checkpoints.fields import ABSENT, Field, Section, as_grid, merge
from openjanus.checkpoints.language_schema import dtype_fields, language_json, parse_language
from openjanus.config import (
    FlowGenerationConfig,
    JanusConfig,
    ProjectorConfig,
    TokenGenerationConfig,
    TowerConfig,
    UnderstandingConfig,
    UViTDecoderConfig,
    UViTEncoderConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.errors import ConfigError

MODEL_TYPE = "multi_modality"

# model_name -> patch size, width, layers, heads, MLP ratio (SPEC section 1). The image size comes from the config, not from here.
TOWERS: dict[str, tuple[int, int, int, int, float]] = {
    "siglip_so400m_patch14_384": (14, 1152, 27, 16, 3.7362),
    "siglip_so400m_patch14_224": (14, 1152, 27, 16, 3.7362),
    "siglip_large_patch16_384": (16, 1024, 24, 16, 4.0),
    "siglip_large_patch16_256": (16, 1024, 24, 16, 4.0),
}
_TOWER_KEYS = ("patch_size", "width", "layers", "heads", "mlp_ratio")


def parse_published(values: Mapping[str, Any], vae: VAEConfig | None = None) -> JanusConfig:
    """The model a published config.json describes; `vae` is JanusFlow's, which has a config of its own.

    ConfigError for an unknown model_type, a missing part, an impossible size or a feature this package does not have.
    """
    root = Section(values, "")
    root.only("model_type", (MODEL_TYPE,), f"this reader knows {MODEL_TYPE!r}")
    if "gen_vision_config" in values:
        config = _parse_janus(root)
    elif "vision_gen_enc_config" in values:
        config = _parse_flow(root, vae or VAEConfig())
    else:
        raise ConfigError(
            "the configuration has neither gen_vision_config (Janus, Janus-Pro) nor vision_gen_enc_config (JanusFlow); "
            "this is no Janus model, or its config.json is incomplete"
        )
    _check_widths(config)
    return config


def _check_widths(config: JanusConfig) -> None:
    """ConfigError where two parts that touch disagree about a size."""
    hidden, reading, painting = config.language.hidden_size, config.understanding, config.generation
    checks = [("the vision tower's width", reading.encoder.width, "its adaptor's input_dim", reading.adaptor.input_dim)]
    if reading.adaptor.projector_type != "identity":
        checks.append(
            ("the understanding adaptor's n_embed", reading.adaptor.n_embed, "the language model's hidden_size", hidden)
        )
    if isinstance(painting, TokenGenerationConfig):
        adaptor, codes = painting.adaptor, painting.tokenizer
        checks += [
            ("gen_aligner_config's input_dim", adaptor.input_dim, "gen_vision_config's n_embed", codes.codebook_dim),
            ("gen_aligner_config's n_embed", adaptor.n_embed, "the language model's hidden_size", hidden),
        ]
    else:
        encoder, decoder = painting.encoder, painting.decoder
        latent = encoder.input_channels
        checks += [
            ("vision_gen_enc_config's hidden_size", encoder.hidden_size, "the language model's hidden_size", hidden),
            ("vision_gen_dec_config's hidden_size", decoder.hidden_size, "the language model's hidden_size", hidden),
            ("vision_gen_dec_config's width", decoder.channels, "vision_gen_enc_config's width", encoder.channels),
            ("vision_gen_dec_config's out_channels", decoder.out_channels, "vision_gen_enc_config's input_channels", latent),
            ("the VAE's latent_channels", painting.vae.latent_channels, "vision_gen_enc_config's input_channels", latent),
        ]
    for left, value, right, other in checks:
        if value != other:
            raise ConfigError(f"{left} is {value}, but {right} is {other}; they must be equal")


# -- the understanding pathway -------------------------------------------------------


def _part(root: Section, key: str, cls: str) -> Section:
    """The `params` of one part, whose `cls` must hold the published class name (matched by substring, as published)."""
    part = root.section(key)
    name = part.text("cls", cls)
    if cls not in name:
        raise ConfigError(f"{part.name('cls')} is {name!r}; it must name {cls}")
    return part.section("params", {})


def parse_tower(params: Section) -> TowerConfig:
    default = TowerConfig()
    name = params.text("model_name", default.model_name)
    known = TOWERS.get(name)
    given = [key for key in _TOWER_KEYS if params.values.get(key) is not None]
    if known is None and not {"patch_size", "width", "layers", "heads"} <= set(given):
        raise ConfigError(
            f"{params.name('model_name')} is {name!r}; known are {', '.join(TOWERS)}. "
            "For another tower give patch_size, width, layers and heads beside it"
        )
    patch_size, width, layers, heads, mlp_ratio = known or (ABSENT, ABSENT, ABSENT, ABSENT, default.mlp_ratio)
    return TowerConfig(
        image_size=params.integer("image_size", default.image_size),
        patch_size=params.integer("patch_size", patch_size),
        width=params.integer("width", width),
        layers=params.integer("layers", layers),
        heads=params.integer("heads", heads),
        mlp_ratio=params.number("mlp_ratio", mlp_ratio),
        select_layer=params.integer("select_layer", default.select_layer, least=-(10**6)),
        pixel_mean=params.numbers("pixel_mean", None, count=3),
        pixel_std=params.numbers("pixel_std", None, count=3),
        ignore_head=params.flag("ignore_head", True),
        model_name=name,
        activation=params.text("activation", default.activation),
    )


def _tower_fields(tower: TowerConfig) -> dict[str, Field]:
    default = TowerConfig()
    sizes = (tower.patch_size, tower.width, tower.layers, tower.heads, tower.mlp_ratio)
    known = TOWERS.get(tower.model_name, (ABSENT,) * len(sizes))
    return {
        "image_size": Field(tower.image_size, default.image_size, published=True),
        "model_name": Field(tower.model_name, default.model_name, published=True),
        "select_feature": Field("same", "same", published=True),
        "select_layer": Field(tower.select_layer, default.select_layer, published=True),
        "pixel_mean": Field(tower.pixel_mean, None),
        "pixel_std": Field(tower.pixel_std, None),
        "ignore_head": Field(tower.ignore_head, True),
        "activation": Field(tower.activation, default.activation),
        **{key: Field(size, usual) for key, size, usual in zip(_TOWER_KEYS, sizes, known, strict=True)},
    }


def _parse_projector(params: Section) -> ProjectorConfig:
    return ProjectorConfig(
        input_dim=params.integer("input_dim"),
        n_embed=params.integer("n_embed"),
        projector_type=params.text("projector_type", "mlp_gelu"),
        depth=params.integer("depth", 1),
    )


def _projector_fields(config: ProjectorConfig) -> dict[str, Field]:
    return {
        "depth": Field(config.depth, 1, published=True),
        "input_dim": Field(config.input_dim),
        "n_embed": Field(config.n_embed),
        "projector_type": Field(config.projector_type, "mlp_gelu", published=True),
    }


# -- Janus and Janus-Pro -------------------------------------------------------------


def _parse_janus(root: Section) -> JanusConfig:
    tower = parse_tower(_part(root, "vision_config", "CLIPVisionTower"))
    language = parse_language(root.section("language_config", {}))
    head = _part(root, "gen_head_config", "vision_head")
    params = _part(root, "gen_vision_config", "VQ")
    tokenizer = parse_vq(params)
    for key, value, what in (
        ("image_token_size", tokenizer.codebook_size, "gen_vision_config's image_token_size"),
        ("n_embed", language.hidden_size, "the language model's hidden_size"),
    ):
        if head.integer(key, value) != value:
            raise ConfigError(f"{head.name(key)} is {head.integer(key)}, but {what} is {value}; they must be equal")
    return JanusConfig(
        language=language,
        understanding=UnderstandingConfig(tower, _parse_projector(_part(root, "aligner_config", "MlpProjector"))),
        generation=TokenGenerationConfig(
            tokenizer=tokenizer,
            adaptor=_parse_projector(_part(root, "gen_aligner_config", "MlpProjector")),
            head_dim=head.integer("image_token_embed"),
            grid=params.grid("grid_size", (tower.grid, tower.grid)),
            default_guidance=params.number("guidance", _CODE_GUIDANCE, above=0),
        ),
    )


# What classifier-free guidance is where nobody says (SPEC sections 4 and 6); a checkpoint may say.
_CODE_GUIDANCE = TokenGenerationConfig.default_guidance
_FLOW_GUIDANCE = FlowGenerationConfig.default_guidance


def parse_vq(params: Section) -> VQConfig:
    default = VQConfig()
    multipliers = params.integers("ch_mult", default.encoder_ch_mult)
    return VQConfig(
        codebook_size=params.integer("image_token_size", default.codebook_size),
        codebook_dim=params.integer("n_embed", default.codebook_dim),
        encoder_ch_mult=params.integers("encoder_ch_mult", multipliers),
        decoder_ch_mult=params.integers("decoder_ch_mult", multipliers),
        l2_norm=params.flag("codebook_l2_norm", default.l2_norm),
        show_usage=params.flag("codebook_show_usage", default.show_usage),
        commit_loss_beta=params.number("commit_loss_beta", default.commit_loss_beta),
        entropy_loss_ratio=params.number("entropy_loss_ratio", default.entropy_loss_ratio),
        ch=params.integer("ch", default.ch),
        num_res_blocks=params.integer("num_res_blocks", default.num_res_blocks, least=0),
        z_channels=params.integer("z_channels", default.z_channels),
        dropout=params.number("dropout_p", default.dropout),
    )


def _vq_fields(config: TokenGenerationConfig, tower: TowerConfig) -> dict[str, Field]:
    tokenizer, default = config.tokenizer, VQConfig()
    multipliers = tokenizer.encoder_ch_mult
    return {
        "image_token_size": Field(tokenizer.codebook_size, default.codebook_size, published=True),
        "n_embed": Field(tokenizer.codebook_dim, default.codebook_dim, published=True),
        "ch_mult": Field(multipliers, default.encoder_ch_mult),
        "encoder_ch_mult": Field(multipliers, multipliers),
        "decoder_ch_mult": Field(tokenizer.decoder_ch_mult, multipliers),
        "grid_size": Field(as_grid(config.grid), tower.grid),
        "guidance": Field(config.default_guidance, _CODE_GUIDANCE),
        "codebook_l2_norm": Field(tokenizer.l2_norm, default.l2_norm),
        "codebook_show_usage": Field(tokenizer.show_usage, default.show_usage),
        "commit_loss_beta": Field(tokenizer.commit_loss_beta, default.commit_loss_beta),
        "entropy_loss_ratio": Field(tokenizer.entropy_loss_ratio, default.entropy_loss_ratio),
        "ch": Field(tokenizer.ch, default.ch),
        "num_res_blocks": Field(tokenizer.num_res_blocks, default.num_res_blocks),
        "z_channels": Field(tokenizer.z_channels, default.z_channels),
        "dropout_p": Field(tokenizer.dropout, default.dropout),
    }


# -- JanusFlow -----------------------------------------------------------------------

_LATENT_SIZE = 48


def _parse_flow(root: Section, vae: VAEConfig) -> JanusConfig:
    tower = parse_tower(_part(root, "vision_und_enc_config", "CLIPVisionTower"))
    language = parse_language(root.section("language_config", {}))
    encoder = _part(root, "vision_gen_enc_config", "ShallowUViTEncoder")
    decoder = _part(root, "vision_gen_dec_config", "ShallowUViTDecoder")
    return JanusConfig(
        language=language,
        understanding=UnderstandingConfig(tower, ProjectorConfig(tower.width, language.hidden_size, "linear"), begin=True),
        generation=FlowGenerationConfig(
            encoder=UViTEncoderConfig(**_uvit_values(encoder, UViTEncoderConfig())),
            decoder=UViTDecoderConfig(**_uvit_values(decoder, UViTDecoderConfig())),
            latent_size=encoder.grid("latent_size", (_LATENT_SIZE, _LATENT_SIZE)),
            default_guidance=encoder.number("guidance", _FLOW_GUIDANCE, above=0),
            vae=vae,
        ),
    )


def _uvit_values(params: Section, default: UViTEncoderConfig | UViTDecoderConfig) -> dict[str, Any]:
    """Every field of a U-ViT config under its own name, read as the type its default has."""
    readers: dict[type, Callable[[str, Any], Any]] = {
        bool: params.flag,
        float: params.number,
        tuple: params.integers,
        int: params.integer,
        # padding, whose default is to be worked out from the kernel
        type(None): lambda key, usual: params.integer(key, usual, least=0),
    }
    return {field.name: readers[type(usual)](field.name, usual) for field, usual in _items(default)}


def _items(config: Any) -> list[tuple[Any, Any]]:
    return [(field, getattr(config, field.name)) for field in fields(config)]


# Keys of the published files; the rest appear only where they differ from their defaults.
_UVIT_PUBLISHED = {
    *("block_out_channels", "hidden_size", "layers_in_middle"),
    *("input_channels", "kernel_size", "stride", "padding", "in_channels", "out_channels", "upsamples"),
}


def _uvit_fields(config: UViTEncoderConfig | UViTDecoderConfig) -> dict[str, Field]:
    default = type(config)()
    return {
        field.name: Field(value, getattr(default, field.name), published=field.name in _UVIT_PUBLISHED)
        for field, value in _items(config)
    }


# -- writing -------------------------------------------------------------------------


def to_published(config: JanusConfig, base: Mapping[str, Any] | None = None, dtype: str | None = None) -> dict[str, Any]:
    """The published config.json of a model: `base` with the model's sizes in it, so that keys of others are kept.

    `dtype` ("bfloat16") is written where given. JanusFlow's VAE is not part of it.
    """
    painting, tower = config.generation, config.understanding.encoder
    parts: dict[str, tuple[str, dict[str, Field]]]
    if isinstance(painting, TokenGenerationConfig):
        head = {
            "image_token_embed": Field(painting.head_dim),
            "image_token_size": Field(painting.tokenizer.codebook_size),
            "n_embed": Field(config.language.hidden_size),
        }
        parts = {
            "aligner_config": ("MlpProjector", _projector_fields(config.understanding.adaptor)),
            "gen_aligner_config": ("MlpProjector", _projector_fields(painting.adaptor)),
            "gen_head_config": ("vision_head", head),
            "gen_vision_config": ("VQ-16", _vq_fields(painting, tower)),
            "vision_config": ("CLIPVisionTower", _tower_fields(tower)),
        }
    else:
        latent = {
            "latent_size": Field(as_grid(painting.latent_size), _LATENT_SIZE),
            "guidance": Field(painting.default_guidance, _FLOW_GUIDANCE),
        }
        parts = {
            "vision_gen_dec_config": ("ShallowUViTDecoder", _uvit_fields(painting.decoder)),
            "vision_gen_enc_config": ("ShallowUViTEncoder", {**_uvit_fields(painting.encoder), **latent}),
            "vision_und_enc_config": ("CLIPVisionTower", _tower_fields(tower)),
        }
    written: dict[str, Any] = dict(base) if base else {"architectures": ["MultiModalityCausalLM"]}
    for key, (cls, sizes) in parts.items():
        written[key] = _written_part(key, cls, sizes, written.get(key))
    written["language_config"] = language_json(config.language, written.get("language_config"), dtype)
    written["model_type"] = MODEL_TYPE
    return merge(written, dtype_fields(written, dtype))


def _written_part(key: str, cls: str, values: dict[str, Field], base: Mapping[str, Any] | None) -> dict[str, Any]:
    part: dict[str, Any] = dict(base) if base else {"cls": cls, "model_type": key.removesuffix("_config")}
    part["params"] = merge(base.get("params", {}) if base else None, values)
    return part


def with_vae(config: JanusConfig, vae: VAEConfig) -> JanusConfig:
    """A JanusFlow with another VAE; ConfigError if the latents do not fit."""
    assert isinstance(config.generation, FlowGenerationConfig)
    changed = replace(config, generation=replace(config.generation, vae=vae))
    _check_widths(changed)
    return changed
