"""Adapters: LoRA in PEFT's own format, put into a checkpoint's weights as they are read.

An adapter is two matrices for each linear layer that it changes, and whole tensors of parts that were trained beside them
("modules to save"). Its names are those of the model it was trained on: the published ones, or transformers'. No PEFT is needed.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from openjanus.checkpoints.files import SafetensorsFile, TorchFile, read_json
from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.layouts import Form, Layout, Slot
from openjanus.checkpoints.locate import find_adapter
from openjanus.checkpoints.processors import as_json
from openjanus.checkpoints.writing import Group, write_file, write_safetensors
from openjanus.errors import CheckpointError

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# What PEFT can do beside, each with the value that means it was not done. All of them change how weights are put together.
_PLAIN: dict[str, Any] = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "lora_bias": False}


@dataclass(frozen=True)
class LowRank:
    """What is added to a weight [O, I]: scale * up @ down, of down [r, I] and up [O, r]."""

    down: Tensor
    up: Tensor
    scale: float

    def added_to(self, weight: Tensor) -> Tensor:
        """The weight with it, in float32."""
        return weight.float() + self.scale * (self.up.float() @ self.down.float())


@dataclass(frozen=True)
class Adapter:
    """What changes in a model, by our names: weights that get something added, and tensors that are others."""

    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    whole: Mapping[str, Tensor] = field(default_factory=dict)

    def changed(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the model as the adapter makes it: itself, another, or its sum in float32."""
        if name in self.whole:
            return self.whole[name]
        return self.low_rank[name].added_to(tensor) if name in self.low_rank else tensor


NO_ADAPTER = Adapter()


def scale_of(alpha: float, rank: int, rslora: bool) -> float:
    """What the product of an adapter's matrices is multiplied by (LoRA, section 4.1; rank-stabilised: Kalajdzievski 2023)."""
    return alpha / (math.sqrt(rank) if rslora else rank)


def read_adapter(name: str | Path, wanted: Mapping[str, Slot], layouts: Sequence[Layout]) -> Adapter:
    """The adapter of a folder or a Hugging Face id, for a model that needs the tensors `wanted`.

    CheckpointError for one that is damaged, no plain LoRA, or trained on another model.
    """
    folder = find_adapter(name)
    config = read_json(folder / CONFIG)
    _check_plain(folder, config)
    path = folder / WEIGHTS
    file = SafetensorsFile(path) if path.exists() or not (folder / OLD_WEIGHTS).exists() else TorchFile(folder / OLD_WEIGHTS)
    stored = {key.removeprefix(_PREFIX).replace(".modules_to_save.", "."): key for key in file.headers}
    odd = [key for key in stored if "lora_" in key and not key.endswith((_DOWN, _UP))]
    if odd:
        raise CheckpointError(f"{folder} holds {odd[0]}, which is no LoRA of a linear layer; merge it with PEFT first")
    targets = {key.removesuffix(_DOWN) + ".weight": key for key in stored if key.endswith(_DOWN)}
    whole = [key for key in stored if "lora_" not in key]
    ours = _our_names([*targets, *whole], wanted, layouts, folder, config)
    low_rank = {}
    for weight, key in targets.items():
        module = weight.removesuffix(".weight")
        if module + _UP not in stored:
            raise CheckpointError(f"{folder} holds {key} without its {_UP.split('.')[1]}; fetch it again")
        down, up = (file.read(stored[module + end]) for end in (_DOWN, _UP))
        _check_shape(folder, weight, (up.shape[0], down.shape[1]), wanted[ours[weight]])
        scale = scale_of(_alpha(config, module), down.shape[0], bool(config.get("use_rslora")))
        low_rank[ours[weight]] = LowRank(down, up, scale)
    tensors = {ours[key]: file.read(stored[key]) for key in whole}
    for key in whole:
        _check_shape(folder, key, tuple(tensors[ours[key]].shape), wanted[ours[key]])
    return Adapter(low_rank, tensors)


def write_adapter(
    folder: Path, adapter: Adapter, layout: Layout, wanted: Mapping[str, Slot], settings: Mapping[str, Any], saved: Sequence[str]
) -> None:
    """Write an adapter as PEFT does, under a layout's names; its tensors in the dtypes they have.

    settings: what adapter_config.json says beside the modules. saved: the modules that are saved whole, by our names; the
    tensors of `adapter.whole` are theirs, or a parameter that is no module.
    """
    table = layout.table({name: wanted[name] for name in (*adapter.low_rank, *adapter.whole)})
    published = {name: stored.names[0] for name, stored in table.items() if stored}
    tensors: dict[str, Tensor] = {}
    for name, one in adapter.low_rank.items():
        module = published[name].removesuffix(".weight")
        tensors |= {_PREFIX + module + _DOWN: one.down, _PREFIX + module + _UP: one.up}
    tensors |= {_PREFIX + published[name]: tensor for name, tensor in adapter.whole.items()}
    inside = [(part, name) for part in saved for name in adapter.whole if name.startswith(f"{part}.")]
    modules = {published[name].removesuffix(name.removeprefix(part)) for part, name in inside}
    config = {
        "peft_type": "LORA",
        **settings,
        "target_modules": [published[name].removesuffix(".weight") for name in adapter.low_rank],
        "modules_to_save": sorted(modules) or None,
        "bias": "none",
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / CONFIG, as_json(config))
    groups = [Group({key: Header(tuple(t.shape), t.dtype)}, lambda t=t: (t,)) for key, t in tensors.items()]  # type: ignore[misc]
    write_safetensors(folder / WEIGHTS, groups)


def _check_plain(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} is an adapter of the kind {config.get('peft_type')!r}; only LORA can be read")
    for key, plain in _PLAIN.items():
        if config.get(key, plain) != plain:
            raise CheckpointError(
                f"{folder}: {key} is {json.dumps(config[key])}, which is not plain LoRA; merge it into its model with PEFT first"
            )


def _alpha(config: Mapping[str, Any], module: str) -> float:
    """The alpha of a module, which may have one of its own (PEFT's alpha_pattern: ends of names, or expressions for them)."""
    patterns = config.get("alpha_pattern") or {}
    found = (value for key, value in patterns.items() if re.fullmatch(rf"(.*\.)?({key})", module))
    return float(next(found, config.get("lora_alpha", 8)))


def _our_names(
    stored: Sequence[str], wanted: Mapping[str, Slot], layouts: Sequence[Layout], folder: Path, config: Mapping[str, Any]
) -> dict[str, str]:
    """Stored names -> ours, by the first layout that knows them all; a bare parameter may stand without its ".weight"."""
    unknown: list[str] = list(stored)
    for layout in layouts:
        table = layout.table(wanted)
        names = {one.names[0]: ours for ours, one in table.items() if one and one.form is Form.SAME and len(one.names) == 1}
        missing = [name for name in stored if name not in names]
        if not missing:
            return {name: names[name] for name in stored}
        unknown = min(unknown, missing, key=len)
    base = config.get("base_model_name_or_path")
    trained = f"; it was trained on {base}" if base else ""
    raise CheckpointError(
        f"the adapter {folder} changes {len(unknown)} tensors that this model does not have (first: {unknown[0]}){trained}. "
        "Give the checkpoint that it was trained on"
    )


def _check_shape(folder: Path, name: str, came: tuple[int, ...], slot: Slot) -> None:
    if tuple(came) != slot.shape:
        raise CheckpointError(
            f"the adapter {folder} makes {name} {list(came)}, and this model has {list(slot.shape)}; "
            "give the checkpoint that it was trained on"
        )
