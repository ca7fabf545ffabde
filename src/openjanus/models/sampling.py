"""From logits to a choice: guidance, temperature, top-k, top-p, and one pre-drawn number a choice.

The randomness comes from outside as uniform numbers, so a choice depends on its logits and its own number alone: not on the
batch it runs in, not on the device, and a GPU is never asked to stop and draw.
"""

import torch
from torch import Tensor


def guide(conditional: Tensor, blank: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance for logits or velocities, elementwise; guidance 1 is `conditional`, 0 is `blank`."""
    return blank + guidance * (conditional - blank)


def pick(logits: Tensor, uniform: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One index int64 [B] for each row of logits [B, K], by uniform numbers [B] in [0, 1).

    temperature 0 takes the largest logit (the first of equals). top_k keeps the k largest logits (0: all), then top_p the
    fewest of the largest probabilities that sum to at least top_p (1: all); both act after the temperature.
    """
    if temperature < torch.finfo(torch.float32).tiny:  # 0, or so little that float32 takes it for 0
        return logits.argmax(dim=-1)
    # Differs from the reference: float32 softmax. In fp16 the published loop overflows (inf/nan in multinomial). The largest
    # logit goes to 0 before the division, so that a tiny temperature divides into minus infinity, never into NaN.
    logits = logits.float()
    logits = (logits - logits.max(dim=-1, keepdim=True).values) / temperature
    probabilities = _keep(logits, top_k, top_p).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1)
    # A hair below the total, so that rounding can never reach past the last index with any probability.
    threshold = uniform[:, None].to(cumulative) * (1 - 1e-6) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def _keep(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Logits with everything outside top-k and top-p at minus infinity."""
    if 0 < top_k < logits.shape[-1]:
        largest, places = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, places, largest)
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        probabilities = ordered.softmax(dim=-1)
        # Dropped are those before which the sum already reaches top_p; the largest always stays.
        dropped = probabilities.cumsum(dim=-1) - probabilities >= top_p
        logits = logits.masked_fill(dropped.scatter(-1, order, dropped), -torch.inf)
    return logits
