"""What a file says about its tensors before they are read."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Header:
    """Shape and number format of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Numbers in it."""
        return torch.Size(self.shape).numel()

    @property
    def bytes(self) -> int:
        """Bytes of it."""
        return self.count * self.dtype.itemsize
