"""Linear layers written for one kind of processor, in C: x86 with AVX-512 that multiplies bytes (VNNI) or bfloat16.

They are compiled when the package is installed, if there is a C compiler; where there is none, or the processor is another, all
runs on torch's own kernels. Weights lie in tiles of 32 outputs, which the functions named `tiles_of_` make.
Dims: M rows, N outputs, K inputs.
"""

import ctypes
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

TILE = 32  # outputs that lie together
_GROUP = 32  # inputs of int4 that share a scale
_FORMATS = {torch.float32: 0, torch.bfloat16: 1}


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, None if there are none."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_linear{suffix}"
        if path.exists():
            try:
                # After torch, whose threads these use.
                return ctypes.CDLL(str(path))
            except OSError:
                return None
    return None


@cache
def supported() -> frozenset[str]:
    """Which of int8, int4 and bf16 run here."""
    library = _library()
    told = 0 if library is None else library.supported()
    return frozenset({"int8", "int4"} if told & 1 else ()) | frozenset({"bf16"} if told & 2 else ())


def fits_tiles(outputs: int, inputs: int) -> bool:
    """Whether weights of these sizes can be laid out in tiles."""
    return outputs % TILE == 0 and inputs % _GROUP == 0


def tiles_of_bf16(weight: Tensor) -> Tensor:
    """Weights bfloat16 [N, K] as tiles [N / 32, K / 2, 32, 2]."""
    return weight.unflatten(0, (-1, TILE)).unflatten(2, (-1, 2)).transpose(1, 2).contiguous()


def tiles_of_int8(numbers: Tensor) -> Tensor:
    """Numbers int8 [N, K] as tiles [N / 32, K / 4, 32, 4]."""
    return numbers.unflatten(0, (-1, TILE)).unflatten(2, (-1, 4)).transpose(1, 2).contiguous()


def tiles_of_int4(numbers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Numbers below 16, uint8 [N, K], with scales and zeros bfloat16 [N, K / 32], as tiles uint8 [N / 32, K / 32, 640]."""
    # [tile, half, output, group, four, input] -> [half, tile, group, four, output, input]
    halves = numbers.view(-1, 2, TILE // 2, numbers.shape[1] // _GROUP, 8, 4).permute(1, 0, 3, 4, 2, 5)
    pairs = (halves[0] | halves[1] << 4).flatten(2)
    beside = [one.unflatten(0, (-1, TILE)).transpose(1, 2).contiguous().view(torch.uint8) for one in (scale, zero)]
    return torch.cat((pairs, *beside), dim=-1)


def linear_bf16(x: Tensor, tiles: Tensor) -> Tensor:
    """bfloat16 [M, N] of x bfloat16 [M, K]."""
    y = x.new_empty(len(x), len(tiles) * TILE)
    _call("linear_bf16", x, tiles, y)
    return y


def linear_int8(x: Tensor, tiles: Tensor, sums: Tensor, scale: Tensor) -> Tensor:
    """[M, N] of x [M, K], float32 or bfloat16, each row of which is rounded to bytes of a scale of its own.

    sums: int32 [N], of each output's numbers; scale: float32 [N].
    """
    y = x.new_empty(len(x), len(tiles) * TILE)
    _call("linear_int8", x, tiles, sums, scale, y, format=_FORMATS[x.dtype])
    return y


def linear_int4(x: Tensor, tiles: Tensor) -> Tensor:
    """[M, N] of x [M, K], float32 or bfloat16, each 32 inputs of which are rounded to bytes of a scale of their own."""
    y = x.new_empty(len(x), len(tiles) * TILE)
    _call("linear_int4", x, tiles, y, format=_FORMATS[x.dtype])
    return y


def _call(name: str, x: Tensor, *tensors: Tensor, format: int = 0) -> None:
    library = _library()
    assert library is not None
    rows, inputs = x.shape
    pointers = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (x.contiguous(), *tensors)]
    sizes = [ctypes.c_long(size) for size in (rows, tensors[-1].shape[1], inputs)]
    if library[name](*pointers, *sizes, format):
        raise torch.OutOfMemoryError(f"not enough memory for {rows} rows of {inputs} inputs")
