"""Keys and values of positions the language model has already run, in memory set aside once."""

import torch
from torch import Tensor

from openjanus.config import LanguageConfig

# Attention runs over a multiple of this many positions, the rest of them masked. A sum over a multiple of the vector width adds
# the same numbers in the same order however many masked ones follow, so a row comes out the same whatever is longer beside it.
STRIDE = 64


def rounded(positions: int) -> int:
    """The multiple of STRIDE that holds so many positions."""
    return -(-positions // STRIDE) * STRIDE


class KeyValueCache:
    """Keys and values of up to `capacity` positions of `rows` rows, each at the place of its own rotary position.

    A position that is run again is written over: that is how a flow's steps, none of which is kept, stand one upon the other,
    and how rows of different lengths share a batch.
    """

    def __init__(self, config: LanguageConfig, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (config.num_hidden_layers, rows, config.kv_heads, rounded(capacity), config.head_size)
        # Zeros, not what memory held: a masked value still meets a weight of 0, and 0 times NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def capacity(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor, upto: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values [R, Hkv, upto, Dh] of the first `upto` positions, after writing new ones [R, Hkv, T, Dh] at
        positions, int64 [R, T]."""
        place = positions[:, None, :, None].expand_as(keys)
        self.keys[layer].scatter_(2, place, keys)
        self.values[layer].scatter_(2, place, values)
        return self.keys[layer, :, :, :upto], self.values[layer, :, :, :upto]
