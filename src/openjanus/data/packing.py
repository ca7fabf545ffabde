"""Packing: documents laid end to end in rows, where they cannot see each other and each starts at position 0."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openjanus.data.documents import Document
from openjanus.errors import PromptError
from openjanus.types import IGNORE, TrainingBatch


def pack(documents: Sequence[Document], context: int) -> list[list[Document]]:
    """Documents in rows of at most `context` tokens: each goes, in order, into the first row with room (first fit).

    PromptError for a document that fits no row; the order of rows and in rows depends on the documents alone.
    """
    rows: list[list[Document]] = []
    room: list[int] = []
    for document in documents:
        if len(document) > context:
            raise PromptError(f"a {document.kind} sample has {len(document)} tokens, a row holds {context}; raise the context")
        row = next((row for row, left in enumerate(room) if left >= len(document)), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(context)
        rows[row].append(document)
        room[row] -= len(document)
    return rows


def batch(rows: Sequence[Sequence[Document]], pad: int) -> TrainingBatch:
    """Packed rows as one batch, as wide as its longest row."""
    width = max(sum(map(len, row)) for row in rows)

    def spread(name: str, empty: int | bool) -> Tensor:
        lines = [torch.cat([getattr(document, name) for document in row]) for row in rows]
        return torch.stack([torch.nn.functional.pad(line, (0, width - len(line)), value=empty) for line in lines])

    every = [document for row in rows for document in row]
    lengths = [torch.tensor([len(document) for document in row]) for row in rows]
    numbers = [torch.arange(len(length)).repeat_interleave(length) for length in lengths]
    places = [torch.cat([torch.arange(n) for n in length.tolist()]) for length in lengths]
    return TrainingBatch(
        ids=spread("ids", pad),
        positions=torch.nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=0),
        documents=torch.nn.utils.rnn.pad_sequence(numbers, batch_first=True, padding_value=-1),
        attended=spread("attended", False),
        labels=spread("labels", IGNORE),
        slots=spread("slots", False),
        pixels=torch.cat([document.pixels for document in every]),
        inputs=spread("inputs", False),
        outputs=spread("outputs", False),
        pictures=torch.cat([document.pictures for document in every]),
        seeds=torch.cat([document.seeds for document in every]),
    )
