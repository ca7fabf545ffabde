"""The one loop in which text, code images and flow images are made (the protocol is in models/decoding.py).

Dims: R rows, T prompt positions, S positions of a step.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from openjanus.errors import PromptError
from openjanus.models.attention import cache_mask
from openjanus.models.cache import KeyValueCache, rounded
from openjanus.models.decoding import Decoding
from openjanus.models.janus import JanusModel
from openjanus.types import Rows

D = TypeVar("D", bound=Decoding)


@torch.inference_mode()
def decode(model: JanusModel, rows: Rows, start: Callable[[Tensor], D]) -> Iterator[D]:
    """Yield the decoding after every step, until it is done.

    start: makes the decoding from the embeddings [R, 1, D] of the prompts' last tokens. The caller may look at what it yields and
    end rows early. PromptError if prompt and result do not fit the model's context together.
    """
    length = rows.ids.shape[1]
    decoding = start(model.language.embed(rows.ids[:, -1:]))
    needed = length - 1 + decoding.room
    context = model.config.language.max_position_embeddings
    if needed > context:
        raise PromptError(
            f"a prompt of {length} tokens and {decoding.room} more do not fit the model's context of {context}; "
            "shorten the prompt or use fewer images"
        )
    embeddings = model.embed(rows)
    cache = KeyValueCache(model.config.language, len(rows.ids), needed, model.device, model.dtype)
    attended = _attended(rows, cache.capacity)

    def run(x: Tensor, positions: Tensor, upto: int) -> Tensor:
        """Hidden states [R, S, D] of new positions, the last of which is upto - 1."""
        return model.language(x, positions, cache_mask(attended[:, : rounded(upto)], positions), cache)

    # Rows begin at position 0 and end where they end. What a shorter row runs beyond its prompt is written over by its own steps
    # before they look at it.
    every = torch.arange(length, device=model.device).expand(len(rows.ids), -1)
    aligned = embeddings.gather(1, _from_left(rows)[..., None].expand_as(embeddings))
    if length > 1:
        run(aligned[:, :-1], every[:, :-1], length - 1)
    # The first step stands in the place of the last token.
    position, end = rows.positions[:, -1:], length - 1
    while not decoding.done:
        x = decoding.inputs()
        new = x.shape[1]
        decoding.take(run(x, position + torch.arange(new, device=model.device), end + new))
        if decoding.keeps_positions:
            position, end = position + new, end + new
        yield decoding


def _from_left(rows: Rows) -> Tensor:
    """Where the tokens of left-padded rows are to be found so that each row begins with its own: int64 [R, T]."""
    length = rows.ids.shape[1]
    padding = length - 1 - rows.positions[:, -1:]
    return (torch.arange(length, device=padding.device) + padding) % length


def _attended(rows: Rows, capacity: int) -> Tensor:
    """Which positions of each row may be looked at, bool [R, capacity]: of its prompt what the row says, behind it all."""
    prompt = rows.attended.gather(1, _from_left(rows))
    attended = prompt.new_ones(len(prompt), capacity)
    behind = torch.arange(prompt.shape[1], device=prompt.device) >= rows.positions[:, -1:]
    attended[:, : prompt.shape[1]] = prompt | behind
    return attended
