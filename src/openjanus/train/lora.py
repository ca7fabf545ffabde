"""LoRA by PEFT: small matrices beside frozen linear layers, and parts that are trained whole beside them.

A recipe turns it on with settings.lora.preset. What a preset trains follows from the direction that is to be learned: matrices in
the language model, which both directions share, and whole what stands between it and the images of that direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor, nn

from openjanus.checkpoints.adapters import Adapter, LowRank, scale_of, write_adapter
from openjanus.checkpoints.layouts import VAE_PREFIX, Slot, layouts_of, slots
from openjanus.checkpoints.load import build_empty
from openjanus.config import JanusConfig
from openjanus.errors import ConfigError
from openjanus.models.janus import JanusModel
from openjanus.train.parts import belongs

Preset = Literal["none", "understanding", "generation", "both"]
_BASE, _DOWN, _UP = ".base_layer.", ".lora_A.default.weight", ".lora_B.default.weight"


@dataclass(frozen=True)
class LoRA:
    """What of a model LoRA moves, and how much. The defaults are what people use for models of this size."""

    preset: Preset = "none"
    """none: no LoRA. understanding, generation, both: what is to be learned; what is whole follows from it (`whole_parts`)."""
    rank: int = 32
    alpha: int = 64
    """The matrices' product counts alpha / rank times."""
    rslora: bool = False
    """It counts alpha / sqrt(rank) times instead, so that one rate serves all ranks."""
    dropout: float = 0.0
    """Of the matrices' inputs."""
    parts: tuple[str, ...] = ("language",)
    """Parts whose linear layers get matrices; "understanding.encoder" is the vision tower."""
    layers: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers in these parts, by the ends of their names; of the tower qkv, proj, fc1 and fc2."""

    @property
    def scale(self) -> float:
        """What the product of two matrices is multiplied by."""
        return scale_of(self.alpha, self.rank, self.rslora)

    def check(self) -> None:
        """ConfigError for a value that is none."""
        if self.preset not in get_args(Preset):
            raise ConfigError(f"settings.lora.preset is {self.preset!r}; it must be one of {', '.join(get_args(Preset))}")
        for key, good, allowed in (
            ("rank", self.rank >= 1, "1 or more"),
            ("alpha", self.alpha > 0, "above 0"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
        ):
            if not good:
                raise ConfigError(f"settings.lora.{key} is {getattr(self, key)}; it must be {allowed}")


def whole_parts(model: JanusModel, preset: Preset) -> tuple[str, ...]:
    """The parts that a preset trains whole, by the beginnings of their parameters' names."""
    reads = ("understanding.adaptor", *(("understanding.begin",) if model.config.understanding.begin else ()))
    paints = tuple(f"generation.{name}" for name, _ in model.generation.named_children() if name not in model.generation.fixed)
    wholes: dict[Preset, tuple[str, ...]] = {"none": (), "understanding": reads, "generation": paints, "both": (*reads, *paints)}
    return wholes[preset]


def saved_parts(model: JanusModel, preset: Preset) -> tuple[str, ...]:
    """The parts that an adapter holds whole: those that are trained so, and those that PEFT would take for one of them.

    It knows modules to save by the ends of their published names, and "aligner" is the end of "gen_aligner".
    """
    trained = whole_parts(model, preset)
    sides = (("understanding", model.understanding), ("generation", model.generation))
    every = [f"{side}.{name}" for side, parts in sides for name, _ in parts.named_children()]
    layout = layouts_of(model.config.generation)[0]
    placed = {part: layout.place(f"{part}.", Slot(())) for part in every if f"{part}." != VAE_PREFIX}
    names = {part: found[0][0] for part, found in placed.items() if found}
    ends = tuple(names[part] for part in trained if part in names)
    return (*trained, *(part for part, name in names.items() if part not in trained and name.endswith(ends)))


def add_lora(model: JanusModel, lora: LoRA) -> None:
    """Put matrices beside a model's linear layers, in place, and freeze all but them and what the preset trains whole.

    The matrices begin as nothing: the model computes what it did. Their chance is torch's. ConfigError if no layer fits, or
    without PEFT.
    """
    lora.check()
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and belongs(name, lora.parts) and name.rsplit(".", 1)[-1] in lora.layers
    ]
    if not targets:
        parts, layers = ", ".join(lora.parts), ", ".join(lora.layers)
        raise ConfigError(f"no linear layer of {parts} ends in {layers}; change settings.lora.parts or settings.lora.layers")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("LoRA needs PEFT; pip install 'openjanus[train]', or set settings.lora.preset=none") from error
    whole = whole_parts(model, lora.preset)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, use_rslora=lora.rslora, lora_dropout=lora.dropout, target_modules=targets
    )
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith((_DOWN, _UP)) or belongs(name, whole))


def take_out(tensors: Mapping[str, Tensor], lora: LoRA, model: JanusModel) -> tuple[dict[str, Tensor], Adapter]:
    """A plain model's tensors with the matrices merged in, and the adapter alone, from the state_dict of a model with LoRA.

    model: a plain one, of which nothing but shapes and names is looked at. What is merged is in float32.
    """
    layers = [name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)]
    low_rank = {f"{name}.weight": LowRank(tensors[name + _DOWN], tensors[name + _UP], lora.scale) for name in layers}
    plain = {name.replace(_BASE, "."): tensor for name, tensor in tensors.items() if not name.endswith((_DOWN, _UP))}
    whole = {name: tensor for name, tensor in plain.items() if belongs(name, saved_parts(model, lora.preset))}
    adapter = Adapter(low_rank, whole)
    return {name: adapter.changed(name, tensor) for name, tensor in plain.items()}, adapter


def save_adapter(folder: Path, adapter: Adapter, lora: LoRA, config: JanusConfig, base: str) -> None:
    """Write what LoRA has learned as PEFT does, under the published names. base: the checkpoint it was trained on."""
    model = build_empty(config)
    settings: dict[str, Any] = {
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "use_rslora": lora.rslora,
        "lora_dropout": lora.dropout,
        "task_type": None,
    }
    write_adapter(folder, adapter, layouts_of(config.generation)[0], slots(model), settings, saved_parts(model, lora.preset))
