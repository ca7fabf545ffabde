"""Attention and rotary positions of the language model.

Dims: R rows, H heads, T new positions, S positions that may be looked at (cached and new), Dh width of a head.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Attention output [R, H, T, Dh] for query [R, H, T, Dh], key and value [R, Hkv, S, Dh]; Hkv divides H.

    mask: [R or 1, 1, T, S], bool, true where a query may look, or what is added to its logits. `causal` (only without a mask,
    and with T = S) is the same as a lower-triangular mask, on a faster path.
    """
    grouped = query.shape[1] != key.shape[1]
    if torch.compiler.is_compiling():
        # torch 2.13 builds the strides of the first lengths into what it compiles for a CPU, and then refuses other lengths.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    if query.requires_grad and query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # Its gradients take a CPU four times as long in bfloat16 as in float32, with and without matrix units.
        with torch.autocast("cpu", enabled=False):
            return attend(query.float(), key.float(), value.float(), mask, causal)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped)


def causal_mask(attended: Tensor, new: int) -> Tensor:
    """What each of the last `new` positions may look at: bool [R, 1, new, S] for attended, bool [R, S].

    A position sees attended positions up to itself, and always itself: a padding position would otherwise see nothing,
    and a softmax over nothing is NaN, which a later zero weight does not undo. With S = 3 and the first one padding:

        1 0 0
        0 1 0
        0 1 1
    """
    length = attended.shape[1]
    query = torch.arange(length - new, length, device=attended.device)[:, None]
    key = torch.arange(length, device=attended.device)[None, :]
    return ((key <= query) & attended[:, None, None, :]) | (key == query)


def entry_mask(entries: Tensor, upto: int, dtype: torch.dtype) -> Tensor:
    """What new positions at entries of a cache, int64 [R, T], may look at of its first `upto`: [R, 1, T, upto], 0 or -inf.

    All up to their own: entries are taken in order, and only by what may be looked at. Not bool, of which attention would make
    these numbers in every layer anew.
    """
    hidden = torch.arange(upto, device=entries.device) > entries[:, None, :, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=entries.device).masked_fill_(hidden, float("-inf"))


class Layout(Protocol):
    """How positions that run through linear layers side by side are laid out for attention, in groups."""

    def take_apart(self, x: Tensor) -> Sequence[Tensor]:
        """All positions, [..., W], as groups of rows [R_g, T_g, W]."""

    def put_together(self, groups: Sequence[Tensor]) -> Tensor:
        """Groups of rows as all positions again."""


class Packed(NamedTuple):
    """Groups of rows one behind the other, without padding: positions [N, W]."""

    shapes: tuple[tuple[int, int], ...]
    """R_g and T_g of each group; N is the sum of their products."""

    def take_apart(self, x: Tensor) -> list[Tensor]:
        """[N, W] as groups [R_g, T_g, W], without a copy."""
        groups = x.split([rows * new for rows, new in self.shapes])
        return [group.view(*shape, -1) for group, shape in zip(groups, self.shapes, strict=True)]

    def put_together(self, groups: Sequence[Tensor]) -> Tensor:
        """Groups [R_g, T_g, W] as [N, W]."""
        flat = [group.flatten(0, 1) for group in groups]
        return flat[0] if len(flat) == 1 else torch.cat(flat)


class Documents(NamedTuple):
    """The documents of packed rows, each to attend to itself alone.

    Attention costs the square of what it runs over, and is fastest without a mask: so it runs over documents laid out one below
    the other, those of like length together, while everything else runs over packed rows, where little is padding.
    Dims: N = R * T positions of the rows; a group g of P_g documents, L_g tokens the longest of them.
    """

    apart: tuple[Tensor, ...]
    """int64 [P_g, L_g] a group: which of the N positions stands there; behind the end of a document, any."""
    together: Tensor
    """int64 [R, T]: which place of all groups, one behind the other, holds a position; for padding, any."""

    @classmethod
    def found(cls, groups: Sequence[Tensor], rows: torch.Size) -> "Documents":
        """From groups, int64 [P_g, L_g]: where in the flattened rows [R, T] each document's tokens are, -1 behind its end."""
        total = rows.numel()
        places = torch.cat([group.flatten() for group in groups])
        together = torch.zeros(total + 1, dtype=torch.int64, device=places.device)
        together = together.scatter(0, places.where(places >= 0, total), torch.arange(len(places), device=places.device))
        return cls(tuple(group.clamp(min=0) for group in groups), together[:total].view(rows))

    @property
    def positions(self) -> Tensor:
        """int64 [R, T]: the place of each position in its document; for padding, any."""
        counts = [torch.arange(group.shape[1], device=group.device).expand(group.shape).flatten() for group in self.apart]
        return torch.cat(counts)[self.together]

    def take_apart(self, x: Tensor) -> list[Tensor]:
        """Rows [R, T, W] as groups of documents [P_g, L_g, W]."""
        # In one go: the gradient of each single choice would be as large as all rows.
        chosen = x.flatten(0, 1).index_select(0, torch.cat([group.flatten() for group in self.apart]))
        parts = chosen.split([group.numel() for group in self.apart])
        return [part.unflatten(0, group.shape) for part, group in zip(parts, self.apart, strict=True)]

    def put_together(self, groups: Sequence[Tensor]) -> Tensor:
        """Groups of documents [P_g, L_g, W] as rows [R, T, W]."""
        places = torch.cat([group.flatten(0, 1) for group in groups])
        return places.index_select(0, self.together.flatten()).unflatten(0, self.together.shape)


def rotary(positions: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines [R, 1, T, Dh] of rotary positions [R, T]; the angle of pair i is position * theta^(-2i/Dh).

    The sines of a pair's first member have the sign with which the second is added to it.
    """
    # float32 whatever the working dtype: in bf16 positions beyond 256 would collapse onto each other.
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions[:, None, :, None].float() * (1.0 / theta**exponent)
    cosine, sine = angles.cos().to(dtype), angles.sin().to(dtype)
    return torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """x [R, H, T, Dh] turned by its rotary position; pairs are (i, i + Dh/2), the layout of the published weights."""
    left, right = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((right, left), dim=-1) * sine
