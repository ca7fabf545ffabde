"""Parts that a Janus can be put together of, wherever they come from: what each is, its sizes, its tensors by our names.

    language model    transformers' Llama (or Mistral), with its tokenizer
    vision tower      transformers' SigLIP, whole or its tower alone
    image tokenizer   LlamaGen's file
    VAE               diffusers' folder, or `vae/` in one

and each of them as `openjanus train` leaves it: weights under the published names, and a config.json that names the part.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from openjanus.checkpoints.companions import CONFIG, PREPROCESSOR, is_janus
from openjanus.checkpoints.files import Weights, open_weight_file, open_weights, read_json
from openjanus.checkpoints.language_schema import LLAMAS, parse_language_model
from openjanus.checkpoints.layouts import (
    LANGUAGE_LAYOUTS,
    TIED_LANGUAGE_LAYOUTS,
    TOKENIZER_LAYOUTS,
    TOWER_LAYOUTS,
    VAE_LAYOUTS,
    Layout,
    looks_like,
    nearest,
    slots,
)
from openjanus.checkpoints.load import empty, load_checkpoint, read_vae_config
from openjanus.checkpoints.locate import expand_path, find_checkpoint, find_description
from openjanus.checkpoints.part_schema import SIGLIP, SIGLIP_TOWER, parse_params, parse_siglip, vq_of_shapes
from openjanus.checkpoints.quantized import kind_of
from openjanus.checkpoints.vocabulary import Vocabulary, read_vocabulary
from openjanus.config import LanguageConfig, TowerConfig, VAEConfig, VQConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.llama import Llama
from openjanus.models.siglip import SiglipTower
from openjanus.models.vae import AutoencoderKL
from openjanus.models.vq import VQTokenizer
from openjanus.processing.tokenizer import TOKENIZER_FILE

Sizes = LanguageConfig | TowerConfig | VQConfig | VAEConfig
LANGUAGE, TOWER, TOKENIZER, VAE = "language", "understanding.encoder", "generation.tokenizer", "generation.vae"
NAMES = {LANGUAGE: "a language model", TOWER: "a vision tower", TOKENIZER: "an image tokenizer", VAE: "a VAE"}
# What lies in such files beside the part: SigLIP's reader of texts and its pooling head, tables that are computed anew.
_BESIDE = re.compile(r"text_model\..*|logit_(scale|bias)|(vision_model\.)?head\..*|.*\.position_ids|.*rotary_emb\.inv_freq")
KNOWN = (
    f"a language model ({', '.join(LLAMAS)}), a vision tower ({SIGLIP}, {SIGLIP_TOWER}), a VAE of diffusers (AutoencoderKL), "
    "the file of LlamaGen's image tokenizer (.pt), or a part that openjanus trained"
)


@dataclass(frozen=True)
class Part:
    """A part as it was found: what people called it, which of our modules it is, its sizes, and what reads its tensors.

    vocabulary: a language model's, if a tokenizer lies beside it; the sizes count its rows.
    """

    source: str
    place: str
    config: Sizes
    read: Callable[[], dict[str, Tensor]]
    vocabulary: Vocabulary | None = None


def find_part(name: str, weights: bool = True) -> Part | None:
    """The part that a folder, a file or a Hugging Face id holds; None if it is a whole Janus. weights False: fetches none.

    CheckpointError and ConfigError say what came, what can be a part, and what to do.
    """
    path = expand_path(name)
    if path.is_file():
        return _tokenizer_file(name, path)
    folder = find_checkpoint(name) if weights else find_description(name)[0]
    if not (folder / CONFIG).exists() and (folder / "vae" / CONFIG).exists():
        folder = folder / "vae"
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{name} holds no {CONFIG}, so nothing says what it is; give {KNOWN}")
    values = read_json(folder / CONFIG)
    if is_janus(values):
        return None
    try:
        kind_of(values)  # refuses the quantised weights of other programs
        return _part_of(name, folder, values)
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from error


def load_part(name: str | Path) -> dict[str, Tensor]:
    """The tensors of a part, or of a whole checkpoint, by our names ("generation.vae.encoder..."). Errors as `find_part`."""
    part = find_part(str(name))
    return load_checkpoint(name).model.state_dict() if part is None else part.read()


def _part_of(name: str, folder: Path, values: Mapping[str, Any]) -> Part:
    if "part" in values:
        return _own(name, folder, values)
    model_type = values.get("model_type")
    if model_type in LLAMAS:
        config, tied = parse_language_model(values)
        return _language(name, folder, config, TIED_LANGUAGE_LAYOUTS if tied else LANGUAGE_LAYOUTS)
    if model_type in (SIGLIP, SIGLIP_TOWER):
        _check_pixels(folder)
        return _in_folder(name, folder, TOWER, parse_siglip(values))
    if values.get("_class_name") == "AutoencoderKL":
        return _in_folder(name, folder, VAE, read_vae_config(folder))
    what = model_type or values.get("_class_name")
    raise CheckpointError(f"{name} is a {what!r}, which is no part of a Janus; give {KNOWN}")


def _own(name: str, folder: Path, values: Mapping[str, Any]) -> Part:
    match values["part"]:
        case "language":
            return _language(name, folder, parse_params(values, LanguageConfig), LANGUAGE_LAYOUTS)
        case "understanding.encoder":
            return _in_folder(name, folder, TOWER, parse_params(values, TowerConfig))
        case "generation.tokenizer":
            return _in_folder(name, folder, TOKENIZER, parse_params(values, VQConfig))
    raise ConfigError(f"part is {values['part']!r}; it must be {', '.join((LANGUAGE, TOWER, TOKENIZER))}")


def _language(name: str, folder: Path, config: LanguageConfig, layouts: tuple[Layout, ...]) -> Part:
    read = partial(_gather, folder, LANGUAGE, config, layouts)
    if not (folder / TOKENIZER_FILE).exists():
        return Part(name, LANGUAGE, config, read)
    vocabulary = read_vocabulary(folder, config.vocab_size)

    def read_grown() -> dict[str, Tensor]:
        tensors = read()
        for table, grown in (("model.embed_tokens", vocabulary.embeddings), ("lm_head", vocabulary.head)):
            tensors[f"language.{table}.weight"] = grown(tensors[f"language.{table}.weight"])
        return tensors

    return Part(name, LANGUAGE, replace(config, vocab_size=vocabulary.rows), read_grown, vocabulary)


def _in_folder(name: str, folder: Path, place: str, config: Sizes) -> Part:
    layouts = {TOWER: TOWER_LAYOUTS, TOKENIZER: TOKENIZER_LAYOUTS, VAE: VAE_LAYOUTS}[place]
    return Part(name, place, config, partial(_gather, folder, place, config, layouts))


def _tokenizer_file(name: str, path: Path) -> Part:
    """LlamaGen's image tokenizer: a file with a table of tensors, or with one under "model"."""
    weights = open_weight_file(path)
    try:
        config = vq_of_shapes(weights.shapes)
    except ConfigError as error:
        looks = looks_like(weights.headers)
        hint = f", but of {looks}; give its folder, with its config.json" if looks else f"; give {KNOWN}"
        raise CheckpointError(f"{path}: {error}{hint}") from error
    return Part(name, TOKENIZER, config, partial(_fit, weights, path, TOKENIZER, config, TOKENIZER_LAYOUTS))


def _check_pixels(folder: Path) -> None:
    """ConfigError if the tower wants other pixels than Janus makes, which lie in [-1, 1]."""
    path = folder / PREPROCESSOR
    for key in ("image_mean", "image_std") if path.exists() else ():
        value = read_json(path).get(key)
        if value is not None and any(number != 0.5 for number in value):
            raise ConfigError(f"{PREPROCESSOR} has {key} {value}; a Janus makes pixels of 0.5, choose a tower that reads them")


# -- tensors ---------------------------------------------------------------------------


def _gather(folder: Path, place: str, config: Sizes, layouts: tuple[Layout, ...]) -> dict[str, Tensor]:
    return _fit(open_weights(folder), folder, place, config, layouts)


def _fit(weights: Weights, source: Path, place: str, config: Sizes, layouts: tuple[Layout, ...]) -> dict[str, Tensor]:
    """The tensors of a part, in the layout that its names and shapes fit without a remainder; otherwise CheckpointError."""
    wanted = {f"{place}.{name}": slot for name, slot in slots(empty(lambda: _build(config))).items()}
    best = nearest(layouts, wanted, {name: shape for name, shape in weights.shapes.items() if not _BESIDE.fullmatch(name)})
    if best.problems:
        raise CheckpointError(
            f"the weights in {source} are not those of {NAMES[place]} of the sizes that it tells: {best.describe()}. "
            "Fetch configuration and weights from one place"
        )
    return {name: stored.gather(weights.read) for name, stored in best.table.items() if stored}


def _build(config: Sizes) -> nn.Module:
    match config:
        case LanguageConfig():
            return Llama(config)
        case TowerConfig():
            return SiglipTower(config)
        case VQConfig():
            return VQTokenizer(config)
        case VAEConfig():
            return AutoencoderKL(config)
