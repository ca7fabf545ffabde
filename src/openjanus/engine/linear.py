"""Linear layers that hold their weights as a processor reads them fastest, and what of a model they replace.

Decoding reads every weight once a step, so a step costs what its bytes cost: int8 halves them, int4 quarters them. Activations
stay bfloat16. Applied from outside, once, when a model is loaded; what is replaced can be neither trained nor saved as it was.
Dims: N outputs, K inputs, M rows of a step.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.errors import ConfigError
from openjanus.models.llama import MLP, Attention

Quantization = Literal["none", "int8", "int4"]
GROUP = 32  # inputs that share a scale, of int4
# The parts whose weights are read in every step: the language model and both heads. Pathways run once an image.
_HEADS = ("language.lm_head", "generation.head.")
# More rows than this are faster against weights made whole again.
_FEW = 8


class Packed(nn.Module):
    """Weights in bfloat16, laid out once for the CPU's matrix kernels."""

    weight: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None), persistent=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K]."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        return y


class Int8(nn.Module):
    """Weights as whole numbers from -127 to 127 with a scale for each output.

    A CPU that multiplies bytes (VNNI) is given bytes on both sides: each position's activations are scaled to its largest one.
    Elsewhere only the weights are bytes.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(1).clamp(min=1e-8) / 127
        whole = (weight / scale[:, None]).round().to(torch.int8)
        self.bytes = whole.device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_vnni_supported()
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(whole, None) if self.bytes else whole)
        self.register_buffer("scale", scale if self.bytes else scale.bfloat16())
        self.register_buffer("zero", torch.zeros(len(scale), dtype=torch.int32) if self.bytes else None)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K], in x's dtype."""
        rows = x.reshape(-1, x.shape[-1])
        if self.bytes:
            return _finished(self._multiply_bytes(rows), x, self.bias)
        rows = rows.bfloat16()
        if len(rows) <= _FEW and x.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(rows.dtype)) * self.scale
        return _finished(y, x, self.bias)

    def _multiply_bytes(self, rows: Tensor) -> Tensor:
        wide = rows.float()
        scale = wide.abs().amax(1, keepdim=True).clamp_(min=1e-8).div_(127)
        # The kernels want bytes without a sign: 128 stands for 0.
        bytes = (wide / scale).round_().add_(128).to(torch.uint8)
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            bytes, 1.0, 128, self.weight, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y.mul_(scale)


class Int4(nn.Module):
    """Weights as whole numbers from 0 to 15; every GROUP inputs of an output share a scale and a smallest value."""

    weight: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        groups = weight.unflatten(1, (-1, GROUP))
        low, high = groups.amin(2), groups.amax(2)
        scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
        # The kernels count from 8: w = (q - 8) * scale + zero.
        zero = (low + 8 * scale.float()).bfloat16()
        whole = ((groups - zero[..., None].float()) / scale[..., None].float() + 8).round().clamp(0, 15)
        whole = whole.flatten(1).to(torch.int32)
        self.register_buffer("scales", torch.stack((scale, zero), dim=-1).transpose(0, 1).contiguous())
        self.on_cpu = whole.device.type == "cpu"
        if self.on_cpu:
            self.register_buffer("weight", torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 2))
        else:
            pairs = whole.to(torch.uint8)
            self.register_buffer("weight", torch._convert_weight_to_int4pack(pairs[:, ::2] << 4 | pairs[:, 1::2], 8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K], in x's dtype."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        if self.on_cpu:
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.scales)
        else:
            y = torch._weight_int4pack_mm(rows, self.weight, GROUP, self.scales)
        return _finished(y, x, self.bias)


def _finished(y: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    y = y.to(x.dtype)
    return (y if bias is None else y + bias).unflatten(0, x.shape[:-1])


def check_quantization(name: str, device: torch.device) -> Quantization:
    """The quantisation of that name; ConfigError if there is none, or not on this device."""
    if name not in ("none", "int8", "int4"):
        raise ConfigError(f"quantize is {name!r}; it must be none, int8 or int4")
    if name == "int4" and device.type == "mps":
        raise ConfigError("int4 runs on CPUs and CUDA GPUs; choose int8 on this device")
    return name  # type: ignore[return-value]


def replacement(name: str, module: nn.Module, quantize: Quantization) -> nn.Module | None:
    """What takes the place of a module of that name of a model, whose weights are there; None if it stays. In blocks of the
    language model, layers of one input become one.

    To be told of module by module while a model is loaded, so that it never lies in memory whole. A layer stays whose sizes the
    kernels do not take: they want multiples of 32 inputs (int4 on CUDA: 128) and of 16 outputs.
    """
    if isinstance(module, Attention | MLP):
        if all(_replaced(part, quantize) for part in module.children() if isinstance(part, nn.Linear)):
            module.join(lambda linear: _packed(linear, quantize))
            last = "o_proj" if isinstance(module, Attention) else "down_proj"
            setattr(module, last, _packed(getattr(module, last), quantize))
    elif isinstance(module, nn.Linear) and name.startswith(_HEADS) and _replaced(module, quantize):
        return _packed(module, quantize)
    return None


def _replaced(linear: nn.Linear, quantize: Quantization) -> bool:
    if quantize != "none":
        inputs = 128 if quantize == "int4" and linear.weight.device.type == "cuda" else GROUP
        return linear.in_features % inputs == 0 and linear.out_features % 16 == 0
    if linear.weight.device.type != "cpu" or linear.weight.dtype != torch.bfloat16:
        return False
    # Builds for other processors than x86 may come without these kernels.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _packed(linear: nn.Linear, quantize: Quantization) -> nn.Module:
    return {"none": Packed, "int8": Int8, "int4": Int4}[quantize](linear)
