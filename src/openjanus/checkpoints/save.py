"""Saving a model: the published layout or transformers', written aside and put in place when whole."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openjanus.checkpoints.companions import CONFIG, JSON_FILES, KEPT_PUBLISHED, Companions
from openjanus.checkpoints.files import EXTRA_FILE
from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.layouts import (
    TRANSFORMERS,
    VAE_LAYOUTS,
    Form,
    Layout,
    Slot,
    Stored,
    layouts_of,
    only_vae,
    published_name,
    slots,
    without_vae,
)
from openjanus.checkpoints.load import build_empty
from openjanus.checkpoints.processors import as_json, published_files, token_ids, transformers_files
from openjanus.checkpoints.quantized import CONFIG_KEY, described, is_quantized, quantized, stored_headers
from openjanus.checkpoints.schema import to_published
from openjanus.checkpoints.transformers_schema import check_representable, to_transformers
from openjanus.checkpoints.vae_schema import to_vae
from openjanus.checkpoints.writing import MAX_SHARD_SIZE, Group, replacing, write_file, write_safetensors, write_weights
from openjanus.config import FlowGenerationConfig, JanusConfig
from openjanus.errors import ConfigError
from openjanus.models.janus import JanusModel
from openjanus.models.quantization import Quantization
from openjanus.processing.prompts import Processor

LAYOUTS = ("deepseek", "transformers")


@dataclass(frozen=True)
class Source:
    """Tensors to be written: what a model needs, the dtype each has, and what reads one, by our names.

    quantize: what those are written as whose weights every step reads.
    """

    slots: Mapping[str, Slot]
    dtypes: Mapping[str, torch.dtype]
    read: Callable[[str], Tensor]
    quantize: Quantization = "none"

    def groups(self, layout: Layout, names: Mapping[str, Slot]) -> tuple[list[Group], list[Group]]:
        """The stored tensors of a layout, and those it has no place for, under their published names."""
        placed: list[Group] = []
        kept: list[Group] = []
        for name, stored in layout.table(names).items():
            slot = self.slots[name]
            if stored and self.quantize != "none" and is_quantized(name, slot.shape, slot.linear):
                assert stored.form is Form.SAME, "linear layers of the published layout are as ours"
                placed.append(
                    Group(stored_headers(stored.names[0], slot.shape, self.quantize), partial(self._make_quantized, name))
                )
                continue
            header = Header(stored.shape if stored else slot.shape, self.dtypes[name])
            stored_names = stored.names if stored else (published_name(name),)
            (placed if stored else kept).append(Group(dict.fromkeys(stored_names, header), partial(self._make, name, stored)))
        return placed, kept

    def _make(self, name: str, stored: Stored | None) -> tuple[Tensor, ...]:
        tensor = self.read(name).to(self.dtypes[name])
        return stored.scatter(tensor) if stored else (tensor,)

    def _make_quantized(self, name: str) -> Sequence[Tensor]:
        assert self.quantize != "none"
        return quantized(self.read(name), self.quantize)


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
    cannot hold, or one laid out for running; CheckpointError if the folder holds something else or cannot be written.
    """
    tensors = model.state_dict()
    wanted = slots(build_empty(model.config))
    if slots(model) != wanted:
        raise ConfigError(
            "the model was laid out for running when it was loaded (quantised, or in 16 bits) and cannot be saved; "
            "load it with dtype=float32, or write the checkpoint it came from with `openjanus convert`"
        )
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    write_checkpoint(
        Path(folder),
        model.config,
        Source(wanted, dtypes, tensors.__getitem__),
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
    target = choose_layout(layout, config, source.quantize)
    marks: dict[str, Any] = {"untrained": True} if untrained else {}
    if source.quantize != "none":
        marks[CONFIG_KEY] = described(source.quantize)
    files = _small_files(layout, config, processor, companions, str(dtype).removeprefix("torch."), marks)
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


def choose_layout(layout: str, config: JanusConfig, quantize: Quantization = "none") -> Layout:
    """The layout of that name for such a model; ConfigError if there is none or it cannot hold the model."""
    if layout not in LAYOUTS:
        raise ConfigError(f"unknown layout {layout!r}; use one of {', '.join(LAYOUTS)}")
    if layout == "transformers":
        if quantize != "none":
            raise ConfigError(f"transformers cannot read our {quantize} weights; write the deepseek layout, or --quantize none")
        check_representable(config)
        return TRANSFORMERS
    return layouts_of(config.generation)[0]


def _small_files(
    layout: str, config: JanusConfig, processor: Processor, companions: Companions | None, dtype: str, marks: dict[str, Any]
) -> dict[str, bytes]:
    """Every small file of a checkpoint by name. marks: what config.json says of the weights with keys of ours."""

    def mark(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name not in ("untrained", CONFIG_KEY)} | marks

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
