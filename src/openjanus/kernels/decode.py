"""What a step of few rows is made of, written in C for one kind of processor: x86 with AVX-512, for int8 and int4 with VNNI.

It is compiled when the package is installed, if there is a C compiler; where there is none, or the processor is another, all runs
on torch's own kernels. Weights lie in tiles of 32 outputs, which the functions named `tiles_of_` make.
Dims: M rows, N outputs, K inputs.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from openjanus.errors import ConfigError
from openjanus.models.quantization import GROUP

_VERSION = 8  # as decode.c says
TILE = 32  # outputs that lie together
HEAD_BYTES = 12  # that `compact_of` adds to each tile, besides what is rare
LANES = 16  # numbers that are worked on at a time
FORMATS = {torch.float32: 0, torch.bfloat16: 1}
# How a layer's weights are held, as the C file counts.
BF16, COMPACT, INT8, INT4 = range(4)
# At most this share of a layer's weights may be rare: each takes eight bytes more, and time of its own.
_RARE = 0.01


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels, None if there are none."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).parent / f"_decode{suffix}"
        if path.exists():
            try:
                # After torch, whose threads these use.
                library = ctypes.CDLL(str(path))
                # Compiled of another version of the C file, as an old build may be.
                return _typed(library) if library.version() == _VERSION else None
            except (OSError, AttributeError):
                return None
    return None


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, number, format = ctypes.c_void_p, ctypes.c_long, ctypes.c_float, ctypes.c_int
    library.linear.argtypes = [ctypes.POINTER(LinearTable)] + [pointer] * 2 + [size, format]
    library.compact_heads.argtypes = library.compact_tiles.argtypes = [pointer] * 2 + [size] * 2
    library.compact_heads.restype = size
    library.rms_norm.argtypes = [pointer] * 3 + [size] * 2 + [number, format]
    library.attend_one.argtypes = [pointer] * 7 + [size] * 6 + [format]
    if library.matrices() or library.pairs():
        library.attend_many.argtypes = [pointer] * 7 + [size] * 7
    library.swiglu.argtypes = [pointer] * 2 + [size] * 2 + [format]
    library.in_large_pages.argtypes = [pointer, size]
    library.run_blocks.argtypes = [pointer, size, *[pointer] * 6, *[size] * 8, number, format]
    return library


class LinearTable(ctypes.Structure):
    """A linear layer, as the C file has it."""

    _fields_ = (
        ("tiles", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("outputs", ctypes.c_long),
        ("inputs", ctypes.c_long),
        ("held", ctypes.c_int),
    )


class BlockTable(ctypes.Structure):
    """A block of the language model, as the C file has it."""

    _fields_ = (
        ("input_norm", ctypes.c_void_p),
        ("post_norm", ctypes.c_void_p),
        ("qkv", LinearTable),
        ("o", LinearTable),
        ("gate_up", LinearTable),
        ("down", LinearTable),
    )


@cache
def supported() -> frozenset[str]:
    """Which run here: bf16, with matrices if it does so on matrix units (AMX), with pairs if it makes two products at a time
    (AVX512_BF16, where that is faster), and with either attend_many; where bytes are multiplied, int8, int4 and fused: the norm,
    the gate, attention."""
    library = _library()
    if library is None:
        return frozenset()
    told, matrices, pairs = library.supported(), library.matrices(), library.pairs()
    bytes = {"int8", "int4", "fused"} if told & 1 else set()
    named = {"bf16": told & 2, "matrices": matrices, "pairs": pairs, "attend_many": matrices or pairs}
    return frozenset(bytes | {name for name, there in named.items() if there})


def palette() -> int:
    """What the matrix units of this thread are set to; 0 is nothing. Only where `supported` names matrices."""
    found: int = _loaded().palette()
    return found


def fits_tiles(outputs: int, inputs: int) -> bool:
    """Whether weights of these sizes can be laid out in tiles."""
    return outputs % TILE == 0 and inputs % GROUP == 0


def tiles_of_bf16(weight: Tensor) -> Tensor:
    """Weights bfloat16 [N, K] as tiles [N / 32, K / 2, 32, 2]."""
    return _laid_out(weight.unflatten(0, (-1, TILE)).unflatten(2, (-1, 2)).transpose(1, 2))


def compact_of(tiles: Tensor) -> Tensor | None:
    """Tiles of bfloat16 in about three quarters of their bytes, every bit kept, uint8 [bytes] (compact.h).

    None for weights of so many sizes that it is not worth it: more than 1 % would not be among the fifteen most frequent
    neighbouring exponents of their tile.
    """
    _expect(tiles, torch.bfloat16)
    outputs, inputs = len(tiles) * TILE, tiles.shape[1] * 2
    heads = torch.empty(len(tiles), HEAD_BYTES // 4, dtype=torch.int32)
    rare = _loaded().compact_heads(tiles.data_ptr(), heads.data_ptr(), outputs, inputs)
    if rare > _RARE * tiles.numel():
        return None
    planes = tiles.numel() * 3 // 2
    made = _empty((planes + heads.nbytes + 8 * rare,), torch.uint8)
    made[planes : planes + heads.nbytes] = heads.view(torch.uint8).flatten()
    _loaded().compact_tiles(tiles.data_ptr(), made.data_ptr(), outputs, inputs)
    return made


def tiles_of_int8(numbers: Tensor) -> Tensor:
    """Numbers int8 [N, K] as tiles uint8 [N / 32, K / 4, 32, 4], in which 128 stands for 0."""
    bytes = numbers.view(torch.uint8) ^ 128
    return _laid_out(bytes.unflatten(0, (-1, TILE)).unflatten(2, (-1, 4)).transpose(1, 2))


def tiles_of_int4(numbers: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Numbers below 16, uint8 [N, K], with scales and zeros bfloat16 [N, K / 32], as tiles uint8 [N / 32, K / 32, 640]."""
    # [tile, half, output, group, four, input] -> [half, tile, group, four, output, input]
    halves = numbers.view(-1, 2, TILE // 2, numbers.shape[1] // GROUP, 8, 4).permute(1, 0, 3, 4, 2, 5)
    pairs = (halves[0] | halves[1] << 4).flatten(2)
    beside = [one.unflatten(0, (-1, TILE)).transpose(1, 2).contiguous().view(torch.uint8) for one in (scale, zero)]
    return _laid_out(torch.cat((pairs, *beside), dim=-1))


def _laid_out(weights: Tensor) -> Tensor:
    """A contiguous copy, in large pages where the system has them."""
    return _empty(weights.shape, weights.dtype).copy_(weights)


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    made = torch.empty(shape, dtype=dtype)
    if (library := _library()) is not None:
        library.in_large_pages(made.data_ptr(), made.nbytes)
    return made


def linear_bf16(x: Tensor, tiles: Tensor) -> Tensor:
    """bfloat16 [M, N] of x bfloat16 [M, K], multiplied exactly and added up as float32.

    With matrices or pairs (`supported`), numbers below 1e-38 are zero.
    """
    _expect(x, torch.bfloat16)
    _expect(tiles, torch.bfloat16)
    return _linear(x, tiles, None, len(tiles) * TILE, tiles.shape[1] * 2, BF16)


def linear_compact(x: Tensor, compact: Tensor, outputs: int, inputs: int) -> Tensor:
    """As `linear_bf16`, to the last bit, of what `compact_of` made of tiles of so many outputs and inputs."""
    _expect(x, torch.bfloat16)
    _expect(compact, torch.uint8)
    return _linear(x, compact, None, outputs, inputs, COMPACT)


def linear_int8(x: Tensor, tiles: Tensor, scale: Tensor) -> Tensor:
    """[M, N] of x [M, K], float32 or bfloat16, each 32 inputs of which are rounded to bytes of a scale of their own.

    24 rows in bfloat16 or more run on matrix units, if there are any and K is a multiple of 64: 512 inputs then share a scale,
    beside which none is lost (matrices.h). scale: float32 [N].
    """
    _expect(x, *FORMATS)
    _expect(tiles, torch.uint8)
    _expect(scale, torch.float32)
    return _linear(x, tiles, scale, len(tiles) * TILE, tiles.shape[1] * 4, INT8)


def linear_int4(x: Tensor, tiles: Tensor) -> Tensor:
    """[M, N] of x [M, K], float32 or bfloat16, each 32 inputs of which are rounded as in `linear_int8`.

    24 rows in bfloat16 or more run on matrix units, if there are any, unrounded, on weights that are widened to bfloat16.
    """
    _expect(x, *FORMATS)
    _expect(tiles, torch.uint8)
    return _linear(x, tiles, None, len(tiles) * TILE, tiles.shape[1] * GROUP, INT4)


def _linear(x: Tensor, tiles: Tensor, scale: Tensor | None, outputs: int, inputs: int, held: int) -> Tensor:
    assert x.shape[1] == inputs, f"{x.shape[1]} inputs for {inputs}"
    x, y = x.contiguous(), x.new_empty(len(x), outputs)
    table = LinearTable(tiles.data_ptr(), None if scale is None else scale.data_ptr(), outputs, inputs, held)
    _check(_loaded().linear(table, x.data_ptr(), y.data_ptr(), len(x), FORMATS[x.dtype]), x)
    return y


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., K] of x [..., K], float32 or bfloat16 as the weight [K]; K is a multiple of LANES."""
    _expect(x, *FORMATS)
    _expect(weight, x.dtype)
    x = x.contiguous()
    y, inputs = torch.empty_like(x), x.shape[-1]
    assert inputs % LANES == 0, inputs
    sizes = (x.numel() // inputs, inputs)
    _loaded().rms_norm(x.data_ptr(), weight.data_ptr(), y.data_ptr(), *sizes, eps, FORMATS[x.dtype])
    return y


def swiglu(x: Tensor) -> Tensor:
    """[..., N], the SiLU of the left half of x [..., 2 N] times the right half; float32 or bfloat16, N a multiple of LANES."""
    _expect(x, *FORMATS)
    x, half = x.contiguous(), x.shape[-1] // 2
    assert half % LANES == 0, half
    y = x.new_empty(*x.shape[:-1], half)
    _loaded().swiglu(x.data_ptr(), y.data_ptr(), y.numel() // half, half, FORMATS[x.dtype])
    return y


def attend_one(
    projected: Tensor, cosine: Tensor, sine: Tensor, entries: Tensor, keys: Tensor, values: Tensor, upto: int
) -> Tensor:
    """Attention [R, H * Dh] of a new position of each of R rows; float32 or bfloat16, Dh a multiple of 32 up to 256.

    projected: queries, keys and values side by side, [R, (H + 2 Hkv) * Dh], queries and keys not turned yet. cosine, sine:
    [R, Dh] (see models/attention.py). keys, values: [R, Hkv, S, Dh] of a cache; the new ones are written at entries, int64 [R],
    and all up to them, below upto, are looked at.
    """
    rows, shared, length, width = keys.shape
    heads = projected.shape[1] // width - 2 * shared
    assert keys.is_contiguous() and values.is_contiguous(), "lanes lie side by side"
    for one in (projected, cosine, sine, keys, values):
        _expect(one, projected.dtype)
    _expect(projected, *FORMATS)
    assert entries.dtype == torch.int64, entries.dtype
    given = [x.contiguous() for x in (projected, cosine, sine, entries)]
    y = projected.new_empty(rows, heads * width)
    pointers = (x.data_ptr() for x in (*given, keys, values, y))
    _loaded().attend_one(*pointers, rows, heads, shared, width, length, upto, FORMATS[projected.dtype])
    return y


def attend_many(
    projected: Tensor, cosine: Tensor, sine: Tensor, entries: Tensor, keys: Tensor, values: Tensor, upto: int
) -> Tensor:
    """Attention [R, T, H * Dh] of T new positions of each of R rows, in bfloat16; where `supported` names it.

    As `attend_one`, of projections [R, T, (H + 2 Hkv) * Dh], cosines and sines [R, T, Dh], entries int64 [R, T].
    """
    rows, shared, length, width = keys.shape
    new, heads = projected.shape[1], projected.shape[2] // width - 2 * shared
    assert keys.is_contiguous() and values.is_contiguous(), "lanes lie side by side"
    for one in (projected, cosine, sine, keys, values):
        _expect(one, torch.bfloat16)
    assert entries.dtype == torch.int64 and int(entries.min()) >= 0 and int(entries.max()) < length, "places in a lane"
    given = [x.contiguous() for x in (projected, cosine, sine, entries)]
    y = projected.new_empty(rows, new, heads * width)
    pointers = (x.data_ptr() for x in (*given, keys, values, y))
    if _loaded().attend_many(*pointers, rows, new, heads, shared, width, length, upto):
        raise torch.OutOfMemoryError(f"not enough memory for attention of {new} positions over {upto}")
    return y


def run_blocks(
    blocks: "ctypes.Array[BlockTable]",
    x: Tensor,
    cosine: Tensor,
    sine: Tensor,
    entries: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    upto: int,
    eps: float,
) -> Tensor:
    """[R, D] of x [R, D], behind all blocks: what `rms_norm`, `linear_*`, `attend_one` and `swiglu` do one by one.

    x is bfloat16 where weights are, whole or compact. keys, values: [blocks, R, Hkv, S, Dh] of neighbouring lanes of
    a cache. The rest as for `attend_one`.
    """
    _, rows, shared, length, width = keys.shape
    assert keys[0].is_contiguous() and keys.stride() == values.stride(), "lanes lie side by side"
    whole = blocks[0].qkv.held in (BF16, COMPACT)
    for one in (x, cosine, sine, keys, values):
        _expect(one, torch.bfloat16 if whole else x.dtype)
    _expect(x, *FORMATS)
    y = x.clone(memory_format=torch.contiguous_format)
    given = [one.contiguous() for one in (cosine, sine, entries)]
    pointers = [one.data_ptr() for one in (y, *given, keys, values)]
    lanes = keys.stride(0) // (shared * length * width)
    sizes = (rows, x.shape[1], heads, shared, width, lanes, length, upto)
    table = ctypes.addressof(blocks)
    _check(_loaded().run_blocks(table, len(blocks), *pointers, *sizes, eps, FORMATS[x.dtype]), x)
    return y


def _loaded() -> ctypes.CDLL:
    library = _library()
    assert library is not None, "ask `supported` first"
    return library


def _expect(tensor: Tensor, *dtypes: torch.dtype) -> None:
    """The kernels see addresses alone. What is laid out in tiles cannot follow a model to another dtype or device."""
    if tensor.dtype not in dtypes or tensor.device.type != "cpu":
        raise ConfigError(
            f"a model that was laid out for this CPU came upon {tensor.dtype} on {tensor.device}; "
            "load it again with the dtype and device that it is to have"
        )


def _check(failed: int, x: Tensor) -> None:
    if failed:
        raise torch.OutOfMemoryError(f"not enough memory for {len(x)} rows of {x.shape[1]} inputs")
