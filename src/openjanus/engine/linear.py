"""Linear layers that hold their weights as a processor reads them fastest, and what of a model they replace.

These are torch's own kernels; processors that have ours (tiled.py) run on those.
Decoding reads every weight once a step, so a step costs what its bytes cost: int8 halves them, int4 quarters them. Activations
stay bfloat16. Applied from outside, once, when a model is loaded; what is replaced can be neither trained nor saved as it was.
Dims: N outputs, K inputs, M rows of a step.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.checkpoints.load import Placed
from openjanus.config import FlowGenerationConfig, JanusConfig
from openjanus.engine.tiled import fused_attention, fused_blocks, fused_gate, fused_norm, tiled
from openjanus.engine.wide import wide
from openjanus.errors import ConfigError
from openjanus.models.layers import RMSNorm
from openjanus.models.llama import MLP, Attention, Llama
from openjanus.models.quantization import GROUP, HEADS, Quantization, check_quantization, fits, to_int4, to_int8

TOWER = "understanding.encoder."
# Where unquantised weights are laid out no other way, but layers of one input become one: fewer kernels to launch.
JOINED = ("cuda",)
# Outputs that are packed for the int4 kernel at a time; whole blocks of it.
_PACKED = 1024
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
    """Weights as whole numbers from -127 to 127 with a scale for each output; activations stay as they are."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole, scale = to_int8(linear.weight.detach())
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale.bfloat16())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K], in x's dtype."""
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        if len(rows) <= _FEW and x.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            y = F.linear(rows, self.weight.to(rows.dtype)) * self.scale
        return _finished(y, x, self.bias)


class Int4(nn.Module):
    """Weights as whole numbers from 0 to 15; every GROUP inputs of an output share a scale and a zero."""

    weight: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        whole, scale, zero = to_int4(linear.weight.detach())
        self.register_buffer("scales", torch.stack((scale, zero), dim=-1).transpose(0, 1).contiguous())
        self.on_cpu = whole.device.type == "cpu"
        if self.on_cpu:
            # The packing wants eight times the bytes it gives, so it is given some outputs at a time.
            parts = [torch.ops.aten._convert_weight_to_int4pack_for_cpu(part.int(), 2) for part in whole.split(_PACKED)]
            self.register_buffer("weight", torch.cat(parts))
        else:
            self.register_buffer("weight", torch._convert_weight_to_int4pack(whole[:, ::2] << 4 | whole[:, 1::2], 8))
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


def check_quantization_on(name: str, device: torch.device) -> Quantization:
    """The quantisation of that name; ConfigError if there is none, or not on this device."""
    kind = check_quantization(name)
    if kind == "int4" and device.type == "mps":
        raise ConfigError("int4 runs on CPUs and CUDA GPUs; choose int8 on this device")
    return kind


def placing(quantize: Quantization, config: JanusConfig) -> Placed:
    """`replacement` for the modules of such a model."""
    return partial(replacement, quantize=quantize, few=reads_few(config))


def reads_few(config: JanusConfig) -> bool:
    """Whether mostly few rows at a time pass the language model: a flow's pictures pass it whole, thirty times."""
    return not isinstance(config.generation, FlowGenerationConfig)


def replacement(name: str, module: nn.Module, quantize: Quantization, few: bool) -> nn.Module | None:
    """What takes the place of a module of that name of a model, whose weights are there; None if it stays. In blocks of the
    language model, layers of one input become one.

    To be told of module by module while a model is loaded, so that it never lies in memory whole. A layer stays whose sizes the
    kernels do not take (int4 on CUDA wants multiples of 128 inputs). few: mostly few rows at a time pass the language model.
    """
    if isinstance(module, Attention | MLP):
        if all(_replaced(part, quantize) for part in module.children() if isinstance(part, nn.Linear)):
            make = partial(_packed, quantize=quantize, few=few)
            if isinstance(module, Attention):
                module.join(make, fused_attention(module))
            else:
                module.join(make, fused_gate(module))
    elif isinstance(module, Llama):
        module.run_one = fused_blocks(module)
    elif isinstance(module, RMSNorm) and name.startswith("language.") and _runs_alone(module.weight, quantize):
        return fused_norm(module)
    elif isinstance(module, nn.Linear) and name.startswith(HEADS) and _replaced(module, quantize):
        return _packed(module, quantize, few)
    elif isinstance(module, nn.Linear) and name.startswith(TOWER):
        # It reads many rows at once, which pays for no quantisation.
        return tiled(module, "none", few=False)
    return wide(module)


def _runs_alone(weight: Tensor, quantize: Quantization) -> bool:
    """Whether a model of such weights is for running alone, so that exactness to the last bit of float32 is not asked of it."""
    return quantize != "none" or weight.dtype != torch.float32


def _replaced(linear: nn.Linear, quantize: Quantization) -> bool:
    if quantize == "none" and linear.weight.device.type in JOINED:
        return linear.weight.dtype != torch.float32
    if quantize != "none":
        return takes(linear, quantize, linear.weight.device.type)
    if linear.weight.device.type != "cpu" or linear.weight.dtype != torch.bfloat16:
        return False
    # Builds for other processors than x86 may come without these kernels.
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def takes(linear: nn.Linear, quantize: Quantization, device: str) -> bool:
    """Whether a kind of device has kernels for a layer, quantised."""
    inputs = 128 if quantize == "int4" and device == "cuda" else GROUP
    return fits(tuple(linear.weight.shape)) and linear.in_features % inputs == 0


def _packed(linear: nn.Linear, quantize: Quantization, few: bool) -> nn.Module:
    if quantize == "none" and linear.weight.device.type in JOINED:
        return linear
    return tiled(linear, quantize, few) or {"none": Packed, "int8": Int8, "int4": Int4}[quantize](linear)
