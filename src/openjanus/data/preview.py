"""What a model will see of a record: its tokens with what each is for, and its images as they are cut and scaled."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from PIL import Image

from openjanus.data.documents import Document, Writer
from openjanus.data.records import RecordFiles
from openjanus.data.samples import Sample
from openjanus.errors import JanusError
from openjanus.processing.images import open_image, to_images
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import IGNORE

Role = Literal["prompt", "learned", "slot", "picture", "pad", "unseen"]
# What each role is, in the order in which a position is asked for it.
ROLES: dict[Role, str] = {
    "unseen": "not attended to",
    "slot": "embedding of an image that is read",
    "picture": "code or latent of the picture that is painted",
    "learned": "learned: the position before predicts it",
    "pad": "pad in the place of a text that was dropped",
    "prompt": "read, not learned",
}


@dataclass(frozen=True)
class Piece:
    """One token, or several positions in a row of an image."""

    role: Role
    text: str


@dataclass(frozen=True)
class View:
    """A record as a model sees it. words, codes: supervised positions of text and of pictures. error: why it cannot be seen."""

    origin: str
    kind: str = ""
    tokens: int = 0
    words: int = 0
    codes: int = 0
    pieces: tuple[Piece, ...] = ()
    images: tuple[tuple[str, Image.Image], ...] = ()
    error: str = ""


def views(files: RecordFiles, numbers: Iterable[int], writer: Writer) -> list[View]:
    """Some records as training will see them; record `number` draws its chance from the seed `number`."""
    return [_view(files, number, writer) for number in numbers]


def _view(files: RecordFiles, number: int, writer: Writer) -> View:
    try:
        sample = files.sample(number, seed=number)
        document = writer.document(sample)
        return View(
            origin=sample.origin,
            kind=sample.kind,
            tokens=len(document),
            words=int((document.labels != IGNORE).sum()),
            codes=int(document.outputs.sum()),
            pieces=tuple(_pieces(document, writer.processor.tokenizer)),
            images=tuple(_images(sample, document, writer)),
        )
    except JanusError as error:
        return View(files.origin(number), error=str(error))


def _pieces(document: Document, tokenizer: Tokenizer) -> Iterable[Piece]:
    learned = torch.zeros_like(document.attended)
    learned[1:] = document.labels[:-1] != IGNORE
    everywhere = torch.ones_like(learned)
    holds = {
        "unseen": ~document.attended,
        "slot": document.slots | document.shown,
        "picture": document.inputs,
        "learned": learned,
        "pad": document.ids == tokenizer.pad,
        "prompt": everywhere,
    }
    roles = [next(role for role in ROLES if holds[role][place]) for place in range(len(document))]
    for role, group in groupby(zip(roles, document.ids.tolist(), strict=True), key=lambda pair: pair[0]):
        ids = [id for _, id in group]
        if role in ("slot", "picture"):
            yield Piece(role, f"{len(ids)} positions")
            continue
        yield from (Piece(role, _word(id, tokenizer)) for id in ids)


def _word(id: int, tokenizer: Tokenizer) -> str:
    """A token as people read it; a special one by its name."""
    return (tokenizer.backend.id_to_token(id) if tokenizer.is_special(id) else tokenizer.decode([id])) or f"[{id}]"


def _images(sample: Sample, document: Document, writer: Writer) -> Iterable[tuple[str, Image.Image]]:
    """Each image as it enters the model, with what was done to it."""
    for message in sample.messages:
        for source in message.images:
            image = open_image(source)
            square = writer.processor.images.square(image)
            yield f"read: {image.width} x {image.height} as {square.width} x {square.height}", square
    for picture in to_images(document.originals):
        yield f"shown as codes: {picture.width} x {picture.height}", picture
    for picture in to_images(document.pictures):
        yield f"to paint: cut to {picture.width} x {picture.height}", picture


def spread(count: int, wanted: int) -> list[int]:
    """Numbers of records, evenly over all of them: a file that is sorted shows all it has."""
    return [number * count // wanted for number in range(wanted)] if wanted < count else list(range(count))


def tally(found: Iterable[View]) -> Counter[str]:
    """Views by kind; broken ones are "broken"."""
    return Counter(view.kind or "broken" for view in found)
