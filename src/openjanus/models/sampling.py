"""From logits to a choice: guidance, temperature, top-k, top-p, and one pre-drawn number a choice.

The randomness comes from outside as uniform numbers, so a choice depends on its logits and its own number alone: not on the
batch it runs in, not on the device, and a GPU is never asked to stop and draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from openjanus.types import ImageOptions, TextOptions

# Below this float32 takes a temperature for 0.
GREEDY = torch.finfo(torch.float32).tiny


def guide(conditional: Tensor, blank: Tensor, guidance: float | Tensor) -> Tensor:
    """Classifier-free guidance for logits or velocities, elementwise; guidance 1 is `conditional`, 0 is `blank`."""
    return blank + guidance * (conditional - blank)


def guide_image(full: Tensor, part: Tensor, guidance: float | Tensor) -> Tensor:
    """What a prompt asks for that shows pictures as codes (full), and `guidance` times as much as it would without (part): their
    mean, elementwise; guidance 0 is `full` (Janus-4o, training_spec 6.3)."""
    return (full + guidance * part) / (1 + guidance)


def pick(
    logits: Tensor, uniform: Tensor, temperature: float | Tensor, top_k: int | Tensor = 0, top_p: float | Tensor = 1.0
) -> Tensor:
    """One index int64 [B] for each row of logits [B, K], by uniform numbers [B] in [0, 1); settings are one for all, or [B].

    temperature 0 takes the largest logit (the first of equals). top_k keeps the k largest logits (0: all), then top_p the
    fewest of the largest probabilities that sum to at least top_p (1: all); both act after the temperature.
    """
    if not isinstance(temperature, Tensor) and temperature < GREEDY:
        return logits.argmax(dim=-1)
    # Differs from the reference: float32 softmax. In fp16 the published loop overflows (inf/nan in multinomial). The largest
    # logit goes to 0 before the division, so that a tiny temperature divides into minus infinity, never into NaN.
    scale = temperature.clamp(min=GREEDY)[:, None] if isinstance(temperature, Tensor) else temperature
    scaled = (logits.float() - logits.float().max(dim=-1, keepdim=True).values) / scale
    probabilities = _keep(scaled, top_k, top_p).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    # A hair below the total, so that rounding can never reach past the last index with any probability.
    threshold = uniform[:, None].to(cumulative) * (1 - 1e-6) * cumulative[:, -1:]
    sampled = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    if not isinstance(temperature, Tensor):
        return sampled
    return torch.where(temperature < GREEDY, logits.argmax(dim=-1), sampled)


def _keep(logits: Tensor, top_k: int | Tensor, top_p: float | Tensor) -> Tensor:
    """Logits with everything outside top-k and top-p at minus infinity."""
    if not isinstance(top_k, Tensor) and not isinstance(top_p, Tensor) and top_k == 0 and top_p == 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    # Numbers stay numbers: made a tensor, they would have to be sent to the device.
    most = top_k[:, None] if isinstance(top_k, Tensor) else top_k
    dropped = (rank >= most) & (most > 0)
    probabilities = ordered.masked_fill(dropped, -torch.inf).softmax(dim=-1)
    # Dropped are those before which the sum already reaches top_p; all stay where it is 1, and the largest always does, also
    # where float32 takes top_p for 0.
    share = top_p[:, None] if isinstance(top_p, Tensor) else top_p
    dropped = dropped | ((probabilities.cumsum(dim=-1) - probabilities >= share) & (share < 1) & (rank > 0))
    return logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)


class Manner(NamedTuple):
    """What choosing takes for some rows; what is off for all of them is not computed."""

    greedy: bool
    top_k: bool
    top_p: bool
    edited: int = 0
    """Rows that have a further one beside them, without the pictures' codes."""


class Sampling:
    """How each of L lanes chooses, so that rows with settings of their own choose together."""

    def __init__(self, lanes: int, device: torch.device) -> None:
        self._options: dict[int, TextOptions | ImageOptions] = {}
        self._temperature = torch.zeros(lanes, device=device)
        self._top_k = torch.zeros(lanes, dtype=torch.int64, device=device)
        self._top_p = torch.ones(lanes, device=device)

    def join(self, lane: int, options: TextOptions | ImageOptions) -> None:
        """A lane chooses by these options from now on."""
        self._options[lane] = options
        self._temperature[lane], self._top_k[lane], self._top_p[lane] = options.temperature, options.top_k, options.top_p

    def manner(self, lanes: Sequence[int]) -> Manner:
        """What choosing takes for these lanes; the device is not asked."""
        options = [self._options[lane] for lane in lanes]
        return Manner(
            greedy=all(one.temperature < GREEDY for one in options),
            top_k=any(one.top_k for one in options),
            top_p=any(one.top_p < 1 for one in options),
        )

    def pick(self, lanes: Tensor, logits: Tensor, uniform: Tensor, manner: Manner) -> Tensor:
        """As the function, for logits [M, K] of lanes, int64 [M], of which manner tells."""
        temperature = 0.0 if manner.greedy else self._temperature[lanes]
        top_k = self._top_k[lanes] if manner.top_k else 0
        return pick(logits, uniform, temperature, top_k, self._top_p[lanes] if manner.top_p else 1.0)

    def grow(self, lanes: int) -> None:
        """Make room for so many lanes, more than before."""
        more = lanes - len(self._temperature)
        self._temperature = torch.cat((self._temperature, self._temperature.new_zeros(more)))
        self._top_k = torch.cat((self._top_k, self._top_k.new_zeros(more)))
        self._top_p = torch.cat((self._top_p, self._top_p.new_ones(more)))
