"""Packing: documents laid end to end in rows, where they cannot see each other and each starts at position 0."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor

from openjanus.data.documents import STRETCH, Document, Writer
from openjanus.data.records import unusable
from openjanus.data.samples import Sample, generator
from openjanus.errors import DataError, JanusError, PromptError
from openjanus.types import IGNORE, TrainingBatch

# Attention over a group runs over its longest document for all of them: at 0.8, for at most 1.6 times the pairs there are.
ALIKE = 0.8


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


def written(writer: Writer, sample: Sample) -> list[Document]:
    """The documents of a sample; DataError, which names its record, if they cannot be made."""
    try:
        return writer.documents(sample)
    except JanusError as error:
        raise unusable(_origin(sample), error) from error


def _origin(sample: Sample) -> str:
    return sample.origin or f"a sample of {sample.kind}"


def fitting(writer: Writer, sample: Sample, context: int) -> list[Document]:
    """The documents of a sample; DataError, which names its record, if they cannot be made or fit no row."""
    documents = written(writer, sample)
    longest = max(map(len, documents))
    if longest > context:
        raise DataError(
            f"{_origin(sample)}: it has {longest} tokens, and a row holds settings.context={context}; shorten it or take it out, "
            f"or begin another run with settings.context={longest} or more"
        )
    return documents


def stretch(document: Document, tokens: int, seed: int) -> Document:
    """So many tokens in a row of a plain text, from a place drawn by the seed; a shorter text as it is.

    Its last label is the token behind it. So nothing of a long text is out of reach, and none fills more than a row.
    """
    start = int(generator(seed, STRETCH).integers(max(len(document) - tokens, 0) + 1))
    places = slice(start, start + tokens)
    along = ("ids", "attended", "labels", "slots", "inputs", "outputs", "shown")
    return replace(document, **{name: getattr(document, name)[places] for name in along})


def batch(rows: Sequence[Sequence[Document]], pad: int) -> TrainingBatch:
    """Packed rows as one batch, as wide as its longest row."""
    width = max(sum(map(len, row)) for row in rows)

    def spread(name: str, empty: int | bool) -> Tensor:
        lines = [torch.cat([getattr(document, name) for document in row]) for row in rows]
        return torch.stack([torch.nn.functional.pad(line, (0, width - len(line)), value=empty) for line in lines])

    every = [document for row in rows for document in row]
    starts = [number * width + start for number, row in enumerate(rows) for start in accumulate(map(len, row[:-1]), initial=0)]
    places = [torch.arange(start, start + len(document)) for start, document in zip(starts, every, strict=True)]
    return TrainingBatch(
        ids=spread("ids", pad),
        documents=tuple(torch.nn.utils.rnn.pad_sequence(group, batch_first=True, padding_value=-1) for group in _alike(places)),
        attended=spread("attended", False),
        labels=spread("labels", IGNORE),
        slots=spread("slots", False),
        pixels=torch.cat([document.pixels for document in every]),
        inputs=spread("inputs", False),
        outputs=spread("outputs", False),
        pictures=torch.cat([document.pictures for document in every]),
        seeds=torch.cat([document.seeds for document in every]),
        rivals=torch.cat([document.rivals for document in every]),
        shown=spread("shown", False),
        originals=torch.cat([document.originals for document in every]),
    )


def _alike(places: Sequence[Tensor]) -> list[list[Tensor]]:
    """Documents by length, the longest first, in groups of which none has any shorter than ALIKE of its longest."""
    groups: list[list[Tensor]] = []
    for place in sorted(places, key=len, reverse=True):
        if groups and len(place) >= ALIKE * len(groups[-1][0]):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
