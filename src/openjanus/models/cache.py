"""Keys and values of positions the language model has already run, in memory set aside once."""

import torch
from torch import Tensor

from openjanus.config import LanguageConfig


class KeyValueCache:
    """Keys and values of up to `capacity` positions of `rows` rows, one pair of tensors a layer.

    A forward pass appends every layer's new keys and values behind `length`, then calls `advance`. `rollback` forgets
    positions: a flow step's are never kept, since the next step's latent stands in the same place.
    """

    def __init__(self, config: LanguageConfig, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.num_hidden_layers, rows, config.kv_heads, capacity, config.head_size)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values [R, Hkv, length + T, Dh] of a layer, after writing T new ones [R, Hkv, T, Dh] at `length`."""
        end = self.length + keys.shape[2]
        assert end <= self.capacity, f"{end} positions do not fit a cache of {self.capacity}"
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, positions: int) -> None:
        """Keep the positions just appended to every layer."""
        self.length += positions

    def rollback(self, length: int) -> None:
        """Forget every position from `length` on."""
        assert 0 <= length <= self.length
        self.length = length
