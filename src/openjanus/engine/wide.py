"""Decoders of pixels as a CPU runs their convolutions fastest: channels last, and in float32 where bfloat16 takes longer."""

import torch
from torch import Tensor, nn

from openjanus.device import slow_in_bfloat16
from openjanus.models import vae, vq


class Wide(nn.Module):
    """A module in float32, between inputs and outputs in any other numbers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.float()

    def forward(self, x: Tensor) -> Tensor:
        """As the module, in x's dtype."""
        y: Tensor = self.module(x.float())
        return y.to(x.dtype)


def wide(module: nn.Module) -> Wide | None:
    """A decoder of pixels in float32, where it is in bfloat16 on a CPU that is slow at that; None for all else.

    Any in bfloat16 on a CPU is laid out channels last, in place, which takes half of the time.
    """
    weight = next(module.parameters(), None)
    if weight is None or not _decodes(module, weight.device, weight.dtype):
        return None
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Wide(module) if slow_in_bfloat16(weight.device) else None


def is_widened(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a module of that dtype is held in float32 on that device."""
    return _decodes(module, device, dtype) and slow_in_bfloat16(device)


def _decodes(module: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    return isinstance(module, vae.Decoder | vq.Decoder) and dtype == torch.bfloat16 and device.type == "cpu"
