"""The small files beside the weights: configurations and the tokenizer, read as they are so that nothing of them is lost.

The transformers layout has other small files than the published one. When a checkpoint is written there, the published ones are
kept in `openjanus_published.json`, and count again when it is read back.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openjanus.checkpoints.files import WEIGHT_NAMES, has_weights, read_json
from openjanus.checkpoints.quantized import kind_of
from openjanus.checkpoints.schema import MODEL_TYPE as PUBLISHED
from openjanus.checkpoints.schema import parse_published
from openjanus.checkpoints.transformers_schema import MODEL_TYPE as TRANSFORMERS
from openjanus.checkpoints.transformers_schema import parse_transformers, to_transformers
from openjanus.config import JanusConfig, VAEConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.quantization import Quantization

CONFIG, PROCESSOR, PREPROCESSOR = "config.json", "processor_config.json", "preprocessor_config.json"
TOKENIZER_SETTINGS, GENERATION = "tokenizer_config.json", "generation_config.json"
KEPT_PUBLISHED = "openjanus_published.json"
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
_TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model")
JSON_FILES = (PROCESSOR, PREPROCESSOR, TOKENIZER_SETTINGS, GENERATION)
_LAYOUTS = {PUBLISHED: "deepseek", TRANSFORMERS: "transformers"}


@dataclass(frozen=True)
class Companions:
    """The small files of a checkpoint.

    layout: deepseek or transformers, which all but `published` are written for. json: parsed files by name, without config.json.
    files: tokenizer and chat templates, byte for byte. published: the files of the published layout kept beside transformers'.
    """

    layout: str
    config: dict[str, Any]
    json: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    published: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def untrained(self) -> bool:
        """Whether the weights are random, which config.json may say with a key of ours."""
        return bool(self.config.get("untrained", False))

    @property
    def quantization(self) -> Quantization:
        """What the weights are, as config.json says; ConfigError for numbers of others."""
        return kind_of(self.config)

    def published_json(self, name: str) -> dict[str, Any] | None:
        """A file as the published layout has it: the file itself, or what was kept of it; None where there is none."""
        if self.layout == "transformers":
            return self.published.get(name)
        return self.config if name == CONFIG else self.json.get(name)

    def model_config(self, vae: VAEConfig | None = None) -> JanusConfig:
        """The model these files describe; `vae` is what JanusFlow's own config says. ConfigError for one we do not know."""
        if self.layout == "deepseek":
            return parse_published(self.config, vae)
        config = parse_transformers(self.config)
        kept = self.published.get(CONFIG)
        if kept is None:
            return config
        # What was kept says more than transformers' config can hold, as long as it is about the same model: one of them may have
        # been edited since.
        try:
            full = parse_published(kept, vae)
            held = parse_transformers(to_transformers(full, dict.fromkeys(("bos", "eos", "pad", "image"), 0)))
        except ConfigError:  # of a model that this layout cannot hold, so not of this one
            return config
        return full if held == config else config


def read_companions(folder: Path) -> Companions:
    """The small files of a folder; CheckpointError if one is damaged or config.json missing, ConfigError for another model's."""
    config = read_json(folder / CONFIG)
    layout = _layout_of(config)
    if layout is None:
        raise ConfigError(
            f"{folder / CONFIG} says model_type {config.get('model_type')!r}; known are {PUBLISHED!r} (Janus, Janus-Pro, "
            f"JanusFlow as published) and {TRANSFORMERS!r} (transformers' Janus)"
        )
    return Companions(
        layout=layout,
        config=config,
        json={name: read_json(folder / name) for name in JSON_FILES if (folder / name).exists()},
        files={name: _read_bytes(folder / name) for name in (*_TOKENIZER_FILES, *CHAT_TEMPLATES) if (folder / name).exists()},
        published=_read_kept(folder / KEPT_PUBLISHED) if layout == "transformers" else {},
    )


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of Janus: a config.json that says so, and weights beside it."""
    try:
        return is_janus(read_json(folder / CONFIG)) and has_weights(folder)
    except CheckpointError:
        return False


def is_janus(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a whole Janus, in a layout that is known."""
    return _layout_of(config) is not None


def _layout_of(config: Mapping[str, Any]) -> str | None:
    """The layout that the model_type of a config.json stands for, None if it is another model's."""
    kind = config.get("model_type")
    return _LAYOUTS.get(kind) if isinstance(kind, str) else None


def _read_kept(path: Path) -> dict[str, dict[str, Any]]:
    kept = read_json(path) if path.exists() else {}
    return {name: values for name, values in kept.items() if isinstance(values, dict)}


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); fetch it again") from error


_OWN_NAMES = {CONFIG, *JSON_FILES, *_TOKENIZER_FILES, *CHAT_TEMPLATES, KEPT_PUBLISHED, "vae"}


def belongs_to_checkpoint(name: str) -> bool:
    """Whether a file of that name is a checkpoint's, and so is replaced when another is saved in its place."""
    return name in _OWN_NAMES or re.fullmatch(WEIGHT_NAMES, name) is not None
