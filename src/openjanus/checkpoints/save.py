"""Saving a model: the published layout or transformers', written aside and put in place when whole."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjanus.checkpoints.companions import CONFIG, JSON_FILES, KEPT_PUBLISHED, Companions
from openjanus.checkpoints.files import EXTRA_FILE, Header
from openjanus.checkpoints.layouts import (
    TRANSFORMERS,
    VAE_LAYOUTS,
    Layout,
    Slot,
    Stored,
    layouts_of,
    only_vae,
    published_name,
    slots,
    without_vae,
)
from openjanus.checkpoints.processors import as_json, published_files, token_ids, transformers_files
from openjanus.checkpoints.schema import to_published
from openjanus.checkpoints.transformers_schema import check_representable, to_transformers
from openjanus.checkpoints.vae_schema import to_vae
from openjanus.checkpoints.writing import MAX_SHARD_SIZE, Group, replacing, write_file, write_safetensors, write_weights
from openjanus.config import FlowGenerationConfig, JanusConfig
from openjanus.errors import ConfigError
from openjanus.models.janus import JanusModel
from openjanus.processing.prompts import Processor

LAYOUTS = ("deepseek", "transformers")


@dataclass(frozen=True)
class Source:
    """Tensors to be written: what a model needs, the dtype each has, and what reads one, by our names."""

    slots: Mapping[str, Slot]
    dtypes: Mapping[str, torch.dtype]
    read: Callable[[str], Tensor]

    def groups(self, layout: Layout, names: Mapping[str, Slot]) -> tuple[list[Group], list[Group]]:
        """The stored tensors of a layout, and those it has no place for, under their published names."""
        placed: list[Group] = []
        kept: list[Group] = []
        for name, stored in layout.table(names).items():
            header = Header(stored.shape if stored else self.slots[name].shape, self.dtypes[name])
            stored_names = stored.names if stored else (published_name(name),)
            (placed if stored else kept).append(Group(stored_names, header, partial(self._make, name, stored)))
        return placed, kept

    def _make(self, name: str, stored: Stored | None) -> tuple[Tensor, ...]:
        tensor = self.read(name)
        return stored.scatter(tensor) if stored else (tensor,)


def save_checkpoint(
    model: JanusModel,
    processor: Processor,
    folder: str | Path,
    *,
    layout: str = "deepseek",
    companions: Companions | None = None,
    max_shard_size: int = MAX_SHARD_SIZE,
    untrained: bool = False,
) -> None:
    """Write a model and its processor as a checkpoint, in the dtype it has.

    companions: the small files of the checkpoint it came from, whose keys are kept. A checkpoint that is in `folder` already is
    replaced once everything is written, and is untouched if anything fails. ConfigError for an unknown layout or a model it
    cannot hold; CheckpointError if the folder holds something else or cannot be written.
    """
    tensors = model.state_dict()
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    write_checkpoint(
        Path(folder),
        model.config,
        Source(slots(model), dtypes, tensors.__getitem__),
        processor,
        companions,
        layout=layout,
        dtype=model.dtype,
        max_shard_size=max_shard_size,
        untrained=untrained,
    )


def write_checkpoint(
    folder: Path,
    config: JanusConfig,
    source: Source,
    processor: Processor,
    companions: Companions | None,
    *,
    layout: str,
    dtype: torch.dtype,
    max_shard_size: int,
    untrained: bool,
) -> None:
    """Write a checkpoint from wherever its tensors come; as `save_checkpoint`."""
    target = choose_layout(layout, config)
    files = _small_files(layout, config, processor, companions, str(dtype).removeprefix("torch."), untrained)
    with replacing(folder) as partial:
        for name, content in files.items():
            write_file(partial / name, content)
        placed, kept = source.groups(target, without_vae(source.slots))
        write_weights(partial, placed, max_shard_size=max_shard_size)
        if kept:
            write_safetensors(partial / EXTRA_FILE, kept)
        vae = only_vae(source.slots)
        if vae and isinstance(config.generation, FlowGenerationConfig):
            (partial / "vae").mkdir()
            write_file(partial / "vae" / CONFIG, as_json(to_vae(config.generation.vae)))
            write_weights(partial / "vae", source.groups(VAE_LAYOUTS[0], vae)[0], stem="diffusion_pytorch_model")


def choose_layout(layout: str, config: JanusConfig) -> Layout:
    """The layout of that name for such a model; ConfigError if there is none or it cannot hold the model."""
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; use one of {', '.join(LAYOUTS)}")
    if layout == "transformers":
        check_representable(config)
        return TRANSFORMERS
    return layouts_of(config.generation)[0]


def _small_files(
    layout: str, config: JanusConfig, processor: Processor, companions: Companions | None, dtype: str, untrained: bool
) -> dict[str, bytes]:
    """Every small file of a checkpoint by name."""

    def mark(values: dict[str, Any]) -> dict[str, Any]:
        values.pop("untrained", None)
        return {**values, "untrained": True} if untrained else values

    published = mark(to_published(config, companions.published_json(CONFIG) if companions else None, dtype))
    files = {CONFIG: as_json(published), **published_files(processor, companions)}
    if layout == "deepseek":
        return files
    kept = {name: json.loads(content) for name, content in files.items() if name in (CONFIG, *JSON_FILES)}
    base = companions.config if companions and companions.layout == "transformers" else None
    return {
        CONFIG: as_json(mark(to_transformers(config, token_ids(processor), base, dtype))),
        **transformers_files(processor, companions),
        KEPT_PUBLISHED: as_json(kept),
    }
