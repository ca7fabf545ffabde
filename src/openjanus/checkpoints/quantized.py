"""Quantised weights in files: several tensors in the place of one.

        NAME_scale                  NAME_zero                   NAME
int8    float32 [N]                                             int8 [N, K]
int4    bfloat16 [N, K / GROUP]     bfloat16 [N, K / GROUP]     uint8 [N, K / 2], two in a byte

What the numbers mean is said in models/quantization.py. config.json tells of them under quantization_config, so that programs
which do not know them refuse the file instead of reading nonsense.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from openjanus.checkpoints.headers import Header
from openjanus.errors import ConfigError
from openjanus.models.quantization import (
    GROUP,
    READ_EVERY_STEP,
    Quantization,
    fits,
    from_int4,
    from_int8,
    pack,
    to_int4,
    to_int8,
    unpack,
)

CONFIG_KEY = "quantization_config"
_SCALE, _ZERO = "_scale", "_zero"
_METHOD = "openjanus"
KINDS: tuple[Quantization, ...] = ("int8", "int4")


def described(kind: Quantization) -> dict[str, Any]:
    """What config.json says of weights of that kind."""
    if kind == "int8":
        return {"quant_method": _METHOD, "bits": 8}
    return {"quant_method": _METHOD, "bits": 4, "group_size": GROUP}


def kind_of(config: Mapping[str, Any]) -> Quantization:
    """What a config.json says its weights are; ConfigError for numbers of others."""
    told = config.get(CONFIG_KEY)
    if told is None:
        return "none"
    kind = next((kind for kind in KINDS if told == described(kind)), None)
    if kind is None:
        raise ConfigError(
            f"{CONFIG_KEY} is {told!r:.120}; only weights that `openjanus convert --quantize` wrote can be read quantised. "
            "Fetch the unquantised checkpoint, and give --quantize when it is loaded"
        )
    return kind


def find_quantized(headers: Mapping[str, Header]) -> dict[str, Quantization]:
    """The tensors of a file that stand for weights as whole numbers, and what they are."""
    found: dict[str, Quantization] = {}
    for name, header in headers.items():
        kind: Quantization = "int8" if header.dtype == torch.int8 else "int4"
        if header.dtype in (torch.int8, torch.uint8) and len(header.shape) == 2:
            wanted = stored_headers(name, real_header(header, kind).shape, kind)
            if all(headers.get(one) == each for one, each in wanted.items()):
                found[name] = kind
    return found


def companions_of(name: str, kind: Quantization) -> tuple[str, ...]:
    """The names of what lies beside quantised weights."""
    return (name + _SCALE, name + _ZERO) if kind == "int4" else (name + _SCALE,)


def real_header(header: Header, kind: Quantization) -> Header:
    """The header of weights that are stored with `header`, made real again."""
    return Header((header.shape[0], header.shape[1] * (2 if kind == "int4" else 1)), torch.float32)


def read_real(name: str, kind: Quantization, read: Callable[[str], Tensor]) -> Tensor:
    """Weights float32 [N, K], made real again."""
    numbers, *others = (read(one) for one in (name, *companions_of(name, kind)))
    return from_int8(numbers, *others) if kind == "int8" else from_int4(unpack(numbers), *others)


def is_quantized(name: str, shape: tuple[int, ...], linear: bool) -> bool:
    """Whether one of our tensors is written as whole numbers."""
    return linear and name.startswith(READ_EVERY_STEP) and fits(shape)


def stored_headers(name: str, shape: tuple[int, ...], kind: Quantization) -> dict[str, Header]:
    """What weights [N, K] are stored as, wide numbers first."""
    outputs, inputs = shape
    if kind == "int8":
        headers = [Header((outputs,), torch.float32), Header(shape, torch.int8)]
    else:
        groups = Header((outputs, inputs // GROUP), torch.bfloat16)
        headers = [groups, groups, Header((outputs, inputs // 2), torch.uint8)]
    return dict(zip((*companions_of(name, kind), name), headers, strict=True))


def quantized(weight: Tensor, kind: Quantization) -> Sequence[Tensor]:
    """What weights [N, K] are stored as, in the order of `stored_headers`."""
    if kind == "int8":
        numbers, scale = to_int8(weight)
        return scale, numbers
    numbers, scale, zero = to_int4(weight)
    return scale, zero, pack(numbers)
