"""What a part says of its sizes: a SigLIP in its config.json, LlamaGen's tokenizer by its shapes, one of ours in `params`."""

from collections.abc import Mapping
from math import inf, nextafter
from typing import Any, TypeVar

from openjanus.checkpoints.fields import Section
from openjanus.checkpoints.schema import TOWERS
from openjanus.config import TOWER_ACTIVATIONS, TowerConfig, VQConfig
from openjanus.errors import ConfigError
from openjanus.models.siglip import NORM_EPS

SIGLIP, SIGLIP_TOWER = "siglip", "siglip_vision_model"

_Sizes = TypeVar("_Sizes")


def parse_siglip(values: Mapping[str, Any]) -> TowerConfig:
    """The vision tower of a transformers SigLIP, whole or alone, completed with SiglipVisionConfig's defaults.

    ConfigError for another model or a feature our tower does not have.
    """
    root = Section(values, "")
    vision = root.section("vision_config", {}) if values.get("model_type") == SIGLIP else root
    vision.only("model_type", (SIGLIP_TOWER,), f"this reader knows {SIGLIP_TOWER!r}")
    vision.only("num_channels", (3,), "images have 3 channels")
    vision.only("layer_norm_eps", (NORM_EPS,), f"openjanus runs {NORM_EPS:g}")
    vision.only("hidden_act", TOWER_ACTIVATIONS, f"openjanus runs {' or '.join(TOWER_ACTIVATIONS)}")
    patch_size, width = vision.integer("patch_size", 16), vision.integer("hidden_size", 768)
    layers, heads = vision.integer("num_hidden_layers", 12), vision.integer("num_attention_heads", 12)
    hidden = vision.integer("intermediate_size", 3072)
    sizes = (patch_size, width, layers, heads, hidden)
    # A published Janus knows some towers by name; another has its sizes written beside the name.
    named = {name: known[4] for name, known in TOWERS.items() if (*known[:4], int(width * known[4])) == sizes}
    name = next(iter(named), TowerConfig().model_name)
    return TowerConfig(
        image_size=vision.integer("image_size", 224),
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
        mlp_ratio=named.get(name, _ratio(width, hidden)),
        select_layer=-1,
        model_name=name,
        activation=vision.text("hidden_act", TOWER_ACTIVATIONS[1]),
    )


def _ratio(width: int, hidden: int) -> float:
    """By what the width of an MLP's inside is given in a Janus, which rounds down."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else nextafter(ratio, inf)


def vq_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> VQConfig:
    """The sizes of LlamaGen's image tokenizer, whose files hold no configuration; ConfigError if it is none."""
    try:
        codes, width = shapes["quantize.embedding.weight"]
        ch = shapes["encoder.conv_in.weight"][0]
        return VQConfig(
            codebook_size=codes,
            codebook_dim=width,
            ch=ch,
            encoder_ch_mult=tuple(inside // ch for inside in _widths(shapes, "encoder")),
            # The decoder's levels begin with the narrowest grid.
            decoder_ch_mult=tuple(inside // ch for inside in _widths(shapes, "decoder"))[::-1],
            num_res_blocks=sum(name.startswith("encoder.conv_blocks.0.res.") for name in shapes if name.endswith("conv1.weight")),
            z_channels=shapes["encoder.conv_out.weight"][0],
        )
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"these are not the weights of LlamaGen's image tokenizer ({error} is missing or misshapen)") from error


def _widths(shapes: Mapping[str, tuple[int, ...]], half: str) -> list[int]:
    """The width of each level, in the order of the names."""
    widths: list[int] = []
    while (shape := shapes.get(f"{half}.conv_blocks.{len(widths)}.res.0.conv1.weight")) is not None:
        widths.append(shape[0])
    return widths


def parse_params(values: Mapping[str, Any], kind: type[_Sizes]) -> _Sizes:
    """The sizes of a part of our own runs, field by field; ConfigError if they are not those of that kind."""
    params = Section(values, "").section("params").values
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in params.items()})
    except TypeError as error:
        raise ConfigError(f"params are not those of a {kind.__name__}: {error}") from error
