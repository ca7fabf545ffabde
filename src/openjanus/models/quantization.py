"""Weights as whole numbers: what int8 and int4 mean here, whatever multiplies them and wherever they lie.

int8: numbers from -127 to 127, and a scale for each output: w = q * scale.
int4: numbers from 0 to 15, and a scale and a zero for every GROUP inputs of an output: w = (q - 8) * scale + zero.
Weights that were made real again give the same numbers, scales and zeros once more (of int4, all groups but those that lie
further from zero than ten times their range, for which bfloat16 zeros are too coarse).
Dims: N outputs, K inputs.
"""

from typing import Literal

import torch
from torch import Tensor

from openjanus.errors import ConfigError

Quantization = Literal["none", "int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = ("none", "int8", "int4")
GROUP = 32
# The parts whose weights are read in every step: the language model and both heads. Pathways run once an image.
HEADS = ("language.lm_head", "generation.head.")
READ_EVERY_STEP = ("language.model.layers.", *HEADS)
_ROWS = 1024  # outputs that are quantised at a time, so that no second copy of a large weight is made


def check_quantization(name: str) -> Quantization:
    """The quantisation of that name; ConfigError if there is none."""
    if name not in QUANTIZATIONS:
        raise ConfigError(f"quantize is {name!r}; it must be none, int8 or int4")
    return name


def fits(shape: tuple[int, ...]) -> bool:
    """Whether weights [N, K] can be quantised: the kernels want multiples of 16 outputs and of 32 inputs."""
    return len(shape) == 2 and shape[0] % 16 == 0 and shape[1] % GROUP == 0


def to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers int8 [N, K] and scales float32 [N] of weights [N, K]."""
    parts = [_to_int8(part.float()) for part in weight.split(_ROWS)]
    numbers, scale = (torch.cat(column) for column in zip(*parts, strict=True))
    return numbers, scale


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1).clamp(min=1e-8) / 127
    return (weight / scale[:, None]).round().to(torch.int8), scale


def from_int8(numbers: Tensor, scale: Tensor) -> Tensor:
    """Weights float32 [N, K]."""
    return numbers * scale[:, None]


def to_int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers uint8 [N, K], scales and zeros bfloat16 [N, K / GROUP] of weights [N, K]."""
    parts = [_to_int4(part.float()) for part in weight.split(_ROWS)]
    numbers, scale, zero = (torch.cat(column) for column in zip(*parts, strict=True))
    return numbers, scale, zero


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    # Of equal weights the scale is 0 and the zero says all.
    by = scale[..., None].float().clamp(min=1e-30)
    numbers = ((groups - zero[..., None].float()) / by + 8).round().clamp(0, 15)
    return numbers.flatten(1).to(torch.uint8), scale, zero


def from_int4(numbers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Weights float32 [N, K]."""
    weight = torch.empty(numbers.shape, device=numbers.device)
    for rows in torch.arange(len(numbers)).split(_ROWS):
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        groups = (numbers[some].float() - 8).unflatten(1, (-1, GROUP))
        weight[some] = (groups * scale[some].float()[..., None] + zero[some].float()[..., None]).flatten(1)
    return weight


def pack(numbers: Tensor) -> Tensor:
    """Two numbers below 16 in each byte: uint8 [N, K / 2] of uint8 [N, K], the one of the even input in the low half."""
    return numbers[:, ::2] | numbers[:, 1::2] << 4


def unpack(pairs: Tensor) -> Tensor:
    """The uint8 [N, K] that `pack` made [N, K / 2] of."""
    return torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten(1)
