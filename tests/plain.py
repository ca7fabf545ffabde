"""Prompts as left-padded rows of one batch, as the published code runs them: the plain way, to compare the engine with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from openjanus.models.janus import JanusModel
from openjanus.types import Prompt


@dataclass(frozen=True)
class Rows:
    """ids: int64 [R, T]; attended: bool [R, T], false where no later position may look; positions: int64 [R, T], rotary, counted
    from each row's first own token; slots: bool [R, T]; pixels: float32 [N, 3, S, S], images in row order."""

    ids: Tensor
    attended: Tensor
    positions: Tensor
    slots: Tensor
    pixels: Tensor


def collate(prompts: Sequence[Prompt], pad_id: int, attends: Sequence[Tensor] | None = None) -> Rows:
    """attends: bool [T] for each prompt, false where its own tokens may not be looked at (JanusFlow's blank rows)."""
    rows, length = len(prompts), max(map(len, prompts))
    ids = torch.full((rows, length), pad_id, dtype=torch.int64)
    attended = torch.zeros(rows, length, dtype=torch.bool)
    slots = torch.zeros(rows, length, dtype=torch.bool)
    starts = torch.tensor([length - len(prompt) for prompt in prompts])
    for row, prompt in enumerate(prompts):
        own = slice(length - len(prompt), length)
        ids[row, own] = prompt.ids
        slots[row, own] = prompt.slots
        attended[row, own] = True if attends is None else attends[row]
    positions = (torch.arange(length) - starts[:, None]).clamp(min=0)
    return Rows(ids, attended, positions, slots, torch.cat([prompt.pixels for prompt in prompts]))


def embed(model: JanusModel, rows: Rows) -> Tensor:
    """Embeddings [R, T, D]: words from the table, image slots from the understanding pathway."""
    words = model.language.embed(rows.ids.masked_fill(rows.slots, 0))
    slots = int(rows.slots.sum())
    if not slots:
        return words
    return words.masked_scatter(rows.slots[..., None], model.read(slots, rows.pixels).to(words.dtype))
