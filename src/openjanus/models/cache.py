"""Keys and values of positions the language model has already run, in memory set aside once."""

import torch
from torch import Tensor

from openjanus.config import LanguageConfig

# Attention runs over a multiple of this many entries, the rest of them masked. A sum over a multiple of the vector width adds
# the same numbers in the same order however many masked ones follow, so a row comes out the same whatever is longer beside it.
STRIDE = 64


def rounded(entries: int) -> int:
    """The multiple of STRIDE that holds so many entries."""
    return -(-entries // STRIDE) * STRIDE


class KeyValueCache:
    """Keys and values of sequences, each in a lane of its own, entry by entry.

    An entry that is written again is written over: that is how a flow's steps, none of which is kept, stand one upon the other.
    Where an entry stands and which rotary position its key was turned to are two things: what nobody may look at takes no entry.
    """

    def __init__(self, config: LanguageConfig, lanes: int, entries: int, device: torch.device, dtype: torch.dtype) -> None:
        # One entry more, for lanes that run along with others and have nothing to say.
        shape = (config.num_hidden_layers, lanes, config.kv_heads, rounded(entries + 1), config.head_size)
        # Zeros, not what memory held: a masked value still meets a weight of 0, and 0 times NaN is NaN.
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)

    @property
    def lanes(self) -> int:
        """Sequences there is room for."""
        return self.keys.shape[1]

    @property
    def entries(self) -> int:
        """Entries of a lane."""
        return self.keys.shape[3] - 1

    @property
    def nowhere(self) -> int:
        """The entry of a lane that holds nothing anybody looks at."""
        return self.entries

    def lanes_of(self, layer: int, lanes: slice) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of neighbouring lanes, all entries of them: [R, Hkv, S, Dh] each."""
        return self.keys[layer, lanes], self.values[layer, lanes]

    def write(self, layer: int, lanes: slice, entries: Tensor, keys: Tensor, values: Tensor, upto: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values [R, Hkv, upto, Dh] of R lanes' first `upto` entries, after writing new ones
        [R, Hkv, T, Dh] at entries, int64 [R, T]."""
        held_keys, held_values = self.lanes_of(layer, lanes)
        rows = torch.arange(len(entries), device=entries.device)[:, None]
        # Not scatter_, which is slow for bfloat16 on a CPU.
        held_keys[rows, :, entries] = keys.transpose(1, 2)
        held_values[rows, :, entries] = values.transpose(1, 2)
        return held_keys[:, :, :upto], held_values[:, :, :upto]

    @property
    def growing(self) -> int:
        """Bytes of what is held already that are still there while `grow` fills the larger cache: keys or values, not both."""
        return max(self.keys.nbytes, self.values.nbytes)

    def copy(self, source: int, target: int, entries: int) -> None:
        """Put the first entries of one lane into another."""
        for cached in (self.keys, self.values):
            cached[:, target, :, :entries] = cached[:, source, :, :entries]

    def grow(self, lanes: int, entries: int) -> None:
        """Make room for so many lanes of so many entries, at least as many as before; what is held stays."""
        layers, old, heads, length, width = self.keys.shape
        longer = max(length, rounded(entries + 1))
        for name in ("keys", "values"):
            cached = getattr(self, name)
            larger = cached.new_zeros(layers, max(old, lanes), heads, longer, width)
            larger[:, :old, :, : length - 1] = cached[:, :, :, : length - 1]
            setattr(self, name, larger)


def bytes_per_entry(config: LanguageConfig, dtype: torch.dtype) -> int:
    """Memory of an entry of a lane, in bytes."""
    return 2 * config.num_hidden_layers * config.kv_heads * config.head_size * dtype.itemsize
