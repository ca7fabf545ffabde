"""How much memory a model takes that runs, counted before it is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from openjanus.config import JanusConfig
from openjanus.engine.linear import reads_few, takes
from openjanus.engine.memory import lane_bytes
from openjanus.engine.tiled import runs_bfloat16
from openjanus.engine.wide import is_widened
from openjanus.kernels.decode import HEAD_BYTES, TILE, fits_tiles
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.janus import JanusModel
from openjanus.models.llama import MLP, Attention
from openjanus.models.quantization import GROUP, HEADS, Quantization
from openjanus.models.token_generation import CodeDecoding, TokenGeneration


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model's weights, as they lie on a device, and of the cache of a row of so many positions."""

    device: str
    dtype: str
    quantize: Quantization
    weights: int
    positions: int
    row: int

    def to_json(self) -> dict[str, Any]:
        """In MiB; the image is one with its guidance, of two rows."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "quantize": self.quantize,
            "weights_mib": self.weights >> 20,
            "positions": self.positions,
            "cache_of_a_row_mib": self.row >> 20,
            "one_guided_image_mib": (self.weights + 2 * self.row) >> 20,
        }

    def to_text(self) -> str:
        """As a line for people."""
        kind = self.dtype if self.quantize == "none" else f"{self.quantize} and {self.dtype}"
        return (
            f"{_mib(self.weights)} of weights, {_mib(self.row)} of cache a row of {self.positions:,} positions; "
            f"an image takes two rows ({kind}, {self.device})"
        )


def footprint(
    model: JanusModel, device: torch.device, dtype: torch.dtype, quantize: Quantization, positions: int | None = None
) -> Footprint:
    """What a model would take, of whose tensors only the shapes are looked at (see checkpoints/load.py, build_empty).

    positions: of a row; None: an image with a prompt of 64 tokens.
    """
    used = positions or image_positions(model.config)
    row = lane_bytes(model.config.language, dtype, used)
    return Footprint(device.type, _word(dtype), quantize, weight_bytes(model, device, dtype, quantize), used, row)


def image_positions(config: JanusConfig) -> int:
    """Positions of a row of an image, with a prompt of 64 tokens."""
    return config.generation.positions + 64


def weight_bytes(model: JanusModel, device: torch.device, dtype: torch.dtype, quantize: Quantization) -> int:
    """Bytes of all that a model holds once it is loaded onto a device in such numbers."""
    quantised = set(_quantised(model, device, quantize))
    compact = set(_compact(model, device, dtype)) if quantize == "none" else set()
    widened = {
        id(tensor)
        for module in model.modules()
        if is_widened(module, device, dtype)
        for tensor in (*module.parameters(), *module.buffers())
    }
    if dtype == torch.float16 and isinstance(model.generation, FlowGeneration) and model.generation.vae is not None:
        # It overflows in float16, and is loaded in float32.
        widened |= {id(tensor) for tensor in (*model.generation.vae.parameters(), *model.generation.vae.buffers())}
    total = 0
    for tensor in (*model.parameters(), *model.buffers()):
        if id(tensor) in quantised:
            total += _quantised_bytes(tensor.shape, quantize)
        elif id(tensor) in compact:
            total += tensor.numel() * 3 // 2 + len(tensor) // TILE * HEAD_BYTES
        else:
            total += tensor.numel() * (4 if id(tensor) in widened else dtype.itemsize)
    if isinstance(model.generation, TokenGeneration) and CodeDecoding.folds(device):
        total += model.generation.embed.num_embeddings * model.config.language.hidden_size * dtype.itemsize
    return total


def _quantised(model: JanusModel, device: torch.device, quantize: Quantization) -> Iterator[int]:
    """The weights that are held as whole numbers, by their ids."""
    if quantize == "none":
        return
    for together in _read_in_steps(model):
        if all(takes(one, quantize, device.type) for one in together):
            yield from (id(one.weight) for one in together)


def _compact(model: JanusModel, device: torch.device, dtype: torch.dtype) -> Iterator[int]:
    """The weights in bfloat16 that are held in fewer bytes, by their ids, as far as sizes tell: not which layers have too many
    rare ones for it. A few more of these bytes than are counted here hold what is rare."""
    if dtype != torch.bfloat16 or not runs_bfloat16(device) or not reads_few(model.config):
        return
    for together in _read_in_steps(model):
        yield from (id(one.weight) for one in together if fits_tiles(one.out_features, one.in_features))


def _read_in_steps(model: JanusModel) -> Iterator[list[nn.Linear]]:
    """The linear layers that are replaced: of a block all together, and heads."""
    for name, module in model.named_modules():
        if isinstance(module, Attention | MLP):
            yield [one for one in module.children() if isinstance(one, nn.Linear)]
        elif isinstance(module, nn.Linear) and name.startswith(HEADS):
            yield [module]


def _quantised_bytes(shape: torch.Size, quantize: Quantization) -> int:
    outputs, inputs = shape
    if quantize == "int8":
        return outputs * (inputs + 4)
    # A scale and a zero in two bytes each.
    return outputs * (inputs // 2 + inputs // GROUP * 4)


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
