"""The `config.json` of a diffusers `AutoencoderKL` <-> VAEConfig."""

from collections.abc import Mapping
from typing import Any

from openjanus.checkpoints.fields import Section
from openjanus.config import VAEConfig


def parse_vae(values: Mapping[str, Any]) -> VAEConfig:
    """The VAE a diffusers config.json describes; ConfigError for another class or a feature the SDXL VAE does not have."""
    section = Section(values, "vae/config.json")
    section.only("_class_name", ("AutoencoderKL",), "openjanus has an 'AutoencoderKL'")
    section.only("act_fn", ("silu",), "openjanus runs 'silu'")
    for key in ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention"):
        section.only(key, (True,), "openjanus has no VAE without it")
    for key in ("shift_factor", "latents_mean", "latents_std"):
        section.only(key, (), "openjanus has no VAE with it")
    for key, known in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        for kind in values.get(key) or ():
            if kind != known:
                raise section.fail(key, f"a list of {known!r}")
    default = VAEConfig()
    return VAEConfig(
        in_channels=section.integer("in_channels", 3),
        out_channels=section.integer("out_channels", 3),
        latent_channels=section.integer("latent_channels", default.latent_channels),
        block_out_channels=section.integers("block_out_channels", default.block_out_channels),
        layers_per_block=section.integer("layers_per_block", default.layers_per_block),
        norm_num_groups=section.integer("norm_num_groups", default.norm_num_groups),
        scaling_factor=section.number("scaling_factor", default.scaling_factor),
        sample_size=section.integer("sample_size", default.sample_size),
    )


def to_vae(config: VAEConfig) -> dict[str, Any]:
    """The diffusers config.json of a VAE."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(config.block_out_channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.layers_per_block,
        "norm_num_groups": config.norm_num_groups,
        "out_channels": config.out_channels,
        "sample_size": config.sample_size,
        "scaling_factor": config.scaling_factor,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
    }
