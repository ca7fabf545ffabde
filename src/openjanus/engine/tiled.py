"""Layers of the language model on our own kernels (kernels/), for the processors that have them. Dims: N outputs, K inputs."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from openjanus.device import slow_in_bfloat16
from openjanus.kernels.decode import (
    BF16,
    COMPACT,
    FORMATS,
    INT4,
    INT8,
    LANES,
    BlockTable,
    LinearTable,
    attend_many,
    attend_one,
    compact_of,
    fits_tiles,
    linear_bf16,
    linear_compact,
    linear_int4,
    linear_int8,
    rms_norm,
    run_blocks,
    supported,
    swiglu,
    tiles_of_bf16,
    tiles_of_int4,
    tiles_of_int8,
)
from openjanus.models.layers import RMSNorm
from openjanus.models.llama import MLP, AttendNew, Attention, Llama, gated
from openjanus.models.quantization import Quantization, to_int4, to_int8


class Tiled(nn.Module):
    """Weights of one linear layer in tiles; a row's result is the same whatever runs beside it, but for int8 and int4 on matrix
    units, which take many rows otherwise than few (matrices.h, MANY)."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.bias = linear.bias
        self.outputs, self.inputs = linear.out_features, linear.in_features

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K], in x's dtype."""
        y = self.multiply(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], self.outputs)
        return y if self.bias is None else y + self.bias

    def multiply(self, rows: Tensor) -> Tensor:
        """[M, N] of rows [M, K], in their dtype."""
        raise NotImplementedError


class TiledBFloat16(Tiled):
    """Weights in bfloat16, as they were."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.register_buffer("weight", tiles_of_bf16(linear.weight.detach()), persistent=False)

    def multiply(self, rows: Tensor) -> Tensor:
        return linear_bf16(rows.bfloat16(), self.weight).to(rows.dtype)


class TiledCompact(Tiled):
    """Weights in bfloat16, every bit as it was, in three quarters of the bytes, which is what a step of few rows costs. Many rows
    have to make them whole again."""

    def __init__(self, linear: nn.Linear, compact: Tensor) -> None:
        super().__init__(linear)
        self.register_buffer("weight", compact, persistent=False)

    def multiply(self, rows: Tensor) -> Tensor:
        return linear_compact(rows.bfloat16(), self.weight, self.outputs, self.inputs).to(rows.dtype)


def _bfloat16(linear: nn.Linear, few: bool) -> Tiled:
    """few: mostly few rows at a time pass it."""
    made = TiledBFloat16(linear)
    compact = compact_of(made.weight) if few else None
    return made if compact is None else TiledCompact(linear, compact)


class TiledInt8(Tiled):
    """Weights in int8; activations are rounded to bytes, each 32 with a scale of their own (more in many rows: `linear_int8`)."""

    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        numbers, scale = to_int8(linear.weight.detach())
        self.register_buffer("weight", tiles_of_int8(numbers))
        self.register_buffer("scale", scale)

    def multiply(self, rows: Tensor) -> Tensor:
        return linear_int8(_readable(rows), self.weight, self.scale).to(rows.dtype)


class TiledInt4(Tiled):
    """Weights in int4; each 32 activations are rounded to bytes of a scale of their own, but in many rows (`linear_int4`)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.register_buffer("weight", tiles_of_int4(*to_int4(linear.weight.detach())))

    def multiply(self, rows: Tensor) -> Tensor:
        return linear_int4(_readable(rows), self.weight).to(rows.dtype)


class FusedNorm(nn.Module):
    """An RMSNorm in one go instead of in six steps."""

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def fused_norm(norm: RMSNorm) -> FusedNorm | None:
    """A norm on our own kernel, None if it does not run here or does not take such a norm."""
    return FusedNorm(norm) if _fused(norm.weight) and norm.weight.dtype in FORMATS and len(norm.weight) % LANES == 0 else None


def fused_gate(mlp: MLP) -> Callable[[Tensor], Tensor] | None:
    """What does as models/llama.py's `gated` in one go; None as `fused_norm`."""
    return _gate if _fused(mlp.gate_proj.weight) and mlp.gate_proj.out_features % LANES == 0 else None


def _gate(x: Tensor) -> Tensor:
    return swiglu(x) if x.dtype in FORMATS else gated(x)


def fused_attention(attention: Attention) -> AttendNew | None:
    """What an attention does for new positions, in one go; None as `fused_norm`."""
    fits = attention.head_dim % 32 == 0 and attention.head_dim <= 256
    return _attend_new if _fused(attention.q_proj.weight) and fits else None


def _attend_new(
    projected: Tensor, cosine: Tensor, sine: Tensor, entries: Tensor, keys: Tensor, values: Tensor, upto: int
) -> Tensor | None:
    if projected.shape[1] == 1 and projected.dtype in FORMATS:
        return attend_one(projected[:, 0], cosine[:, 0], sine[:, 0], entries[:, 0], keys, values, upto)[:, None]
    # Of few positions over many entries, laying these out costs more than it brings.
    if projected.dtype == torch.bfloat16 and "attend_many" in supported() and upto <= 128 * projected.shape[1]:
        return attend_many(projected, cosine, sine, entries, keys, values, upto)
    return None


_HELD: dict[type, int] = {TiledBFloat16: BF16, TiledCompact: COMPACT, TiledInt8: INT8, TiledInt4: INT4}
_ALIKE: tuple[set[type], ...] = ({TiledBFloat16, TiledCompact}, {TiledInt8}, {TiledInt4})


class FusedBlocks:
    """All blocks of a language model for one new position of each row, in one go: between the layers of a step of few rows Python
    costs more than all that is not a linear layer."""

    def __init__(self, language: Llama) -> None:
        self._config = language.config
        self._modules = [
            (block.input_layernorm, block.post_attention_layernorm, *_linears(block)) for block in language.model.layers
        ]
        self._addresses: list[int] = []

    def __call__(
        self, x: Tensor, cosine: Tensor, sine: Tensor, entries: Tensor, keys: Tensor, values: Tensor, upto: int
    ) -> Tensor:
        table, heads, eps = self._blocks(), self._config.num_attention_heads, self._config.rms_norm_eps
        return run_blocks(table, x, cosine, sine, entries, keys, values, heads, upto, eps)

    def __getstate__(self) -> dict[str, Any]:
        """Without addresses, which are worth nothing in a copy."""
        return {name: value for name, value in vars(self).items() if name != "_table"} | {"_addresses": []}

    def _blocks(self) -> "ctypes.Array[BlockTable]":
        """Where all weights lie, written down anew if one of them has moved."""
        addresses = [module.weight.data_ptr() for block in self._modules for module in block]
        if addresses != self._addresses:
            self._table = (BlockTable * len(self._modules))(*(BlockTable(*map(_entry, block)) for block in self._modules))
            self._addresses = addresses
        return self._table


def _entry(module: FusedNorm | Tiled) -> "int | LinearTable":
    if isinstance(module, FusedNorm):
        return module.weight.data_ptr()
    scale = getattr(module, "scale", None)
    scales = None if scale is None else scale.data_ptr()
    return LinearTable(module.weight.data_ptr(), scales, module.outputs, module.inputs, _HELD[type(module)])


def _linears(block: Any) -> list[Any]:
    return [block.self_attn.qkv_proj, block.self_attn.o_proj, block.mlp.gate_up_proj, block.mlp.down_proj]


def fused_blocks(language: Llama) -> FusedBlocks | None:
    """What does as all blocks in one go; None unless every part of every block runs on our own kernels, and all alike."""
    blocks: list[Any] = list(language.model.layers)
    parts = [module for block in blocks for module in _linears(block)]
    norms = [one for block in blocks for one in (block.input_layernorm, block.post_attention_layernorm)]
    kinds = {type(part) for part in parts}
    alike = any(kinds <= some for some in _ALIKE) and all(part.bias is None for part in parts)
    fused = all(block.self_attn.attend_new is _attend_new and block.mlp.gated is _gate for block in blocks)
    if not (alike and fused and all(isinstance(norm, FusedNorm) for norm in norms)):
        return None
    return FusedBlocks(language)


def _fused(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and "fused" in supported()


def _readable(rows: Tensor) -> Tensor:
    return rows if rows.dtype in FORMATS else rows.float()


def runs_bfloat16(device: torch.device) -> bool:
    """Whether weights in bfloat16 run on our own kernels there. A compiler may know nothing of what a processor has for them:
    then torch's kernels read prompts faster."""
    fast = not supported().isdisjoint(("matrices", "pairs"))
    return device.type == "cpu" and "bf16" in supported() and (fast or slow_in_bfloat16(device))


def tiled(linear: nn.Linear, quantize: Quantization, few: bool) -> Tiled | None:
    """A layer on our own kernels, None if they do not run here or do not take such a layer. few: few rows at a time pass it."""
    if linear.weight.device.type != "cpu" or not fits_tiles(linear.out_features, linear.in_features):
        return None
    if quantize == "none":
        return _bfloat16(linear, few) if linear.weight.dtype == torch.bfloat16 and runs_bfloat16(linear.weight.device) else None
    if quantize not in supported():
        return None
    return TiledInt8(linear) if quantize == "int8" else TiledInt4(linear)
