"""The one loop in which text, code images and flow images are made (the protocol is in models/decoding.py).

Dims: R rows, T prompt positions, S positions of a step.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from openjanus.errors import PromptError
from openjanus.models.attention import causal_mask
from openjanus.models.cache import KeyValueCache
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
    embeddings = model.embed(rows)
    decoding = start(embeddings[:, -1:])
    prompt = rows.ids.shape[1] - 1
    context = model.config.language.max_position_embeddings
    if prompt + decoding.room > context:
        raise PromptError(
            f"a prompt of {prompt + 1} tokens and {decoding.room} more do not fit the model's context of {context}; "
            "shorten the prompt or use fewer images"
        )
    cache = KeyValueCache(model.config.language, len(rows.ids), prompt + decoding.room, model.device, model.dtype)
    attended = torch.cat((rows.attended[:, :-1], rows.attended.new_ones(len(rows.ids), decoding.room)), dim=1)
    padded = not bool(attended.all())

    def run(x: Tensor, positions: Tensor) -> Tensor:
        new = x.shape[1]
        mask = causal_mask(attended[:, : cache.length + new], new) if padded or (cache.length > 0 and new > 1) else None
        return model.language(x, positions, mask, cache)

    if prompt > 0:
        run(embeddings[:, :-1], rows.positions[:, :-1])
    position = rows.positions[:, -1:]
    while not decoding.done:
        x = decoding.inputs()
        hidden = run(x, position + torch.arange(x.shape[1], device=position.device))
        decoding.take(hidden)
        if decoding.keeps_positions:
            position = position + x.shape[1]
        else:
            cache.rollback(prompt)
        yield decoding
