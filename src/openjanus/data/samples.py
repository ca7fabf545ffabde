"""Samples: what a model learns from, before it is tokens.

A source is endless and map-style: `source[k]` is a pure function of k, so a run's place in its data is one number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from openjanus.errors import ConfigError
from openjanus.types import ImageSource, Message

Kind = Literal["text", "understanding", "generation", "editing"]
KINDS: tuple[Kind, ...] = ("text", "understanding", "generation", "editing")


@dataclass(frozen=True)
class Sample:
    """One thing to learn: a conversation whose assistant turns are the answers, or a text and its picture.

    seed: every random choice about this sample (guidance dropout, crop, noise, time) is drawn from it and nothing else.
    rival: a text much like the one message that does not describe the picture; learned from by contrast. "": none.
    said: what the assistant says beside the picture. It is not learned: an answer is a picture or a text.
    origin: where it was found ("faces.jsonl, record 7"), for errors that show only when its pictures are opened.
    """

    kind: Kind
    messages: tuple[Message, ...]
    seed: int
    picture: ImageSource | None = None  # generation and editing: what the one user message describes or asks for
    rival: str = ""  # generation only
    said: str = ""  # generation and editing
    origin: str = ""

    @property
    def images(self) -> tuple[ImageSource, ...]:
        """All of its images: those that are read, in their order, and the picture."""
        read = tuple(image for message in self.messages for image in message.images)
        return read if self.picture is None else (*read, self.picture)


class Source(Protocol):
    """An endless, map-style stream of samples of one kind."""

    def __getitem__(self, k: int) -> Sample:
        """Sample k; the same every time."""


@dataclass(frozen=True)
class InTurn:
    """Samples of several sources of one kind, one of each in turn."""

    sources: Sequence[Source]

    def __getitem__(self, k: int) -> Sample:
        rounds, which = divmod(k, len(self.sources))
        return self.sources[which][rounds]


@dataclass(frozen=True)
class Mixture:
    """Samples of several kinds by an exact ratio: over every sum(ratio) samples in a row, and as near as can be between.

    sources: a source a kind. ratio: whole numbers, e.g. understanding : text : generation = 2 : 3 : 5 (Janus, Table 1).
    batch: samples a step. before: samples of each kind that were taken already, by earlier stages.
    ConfigError for a ratio of nothing or a kind without a source.
    """

    sources: Mapping[Kind, Source]
    ratio: Mapping[Kind, int]
    batch: int
    before: Mapping[Kind, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sum(self.ratio.values()) < 1 or min(self.ratio.values()) < 0:
            raise ConfigError(f"the data ratio {dict(self.ratio)} holds nothing; give whole numbers of 0 or more, one above 0")
        for kind, share in self.ratio.items():
            if share and kind not in self.sources:
                raise ConfigError(f"the data ratio asks for {kind}, but there is no source of it; there are {list(self.sources)}")

    @cached_property
    def _period(self) -> list[Kind]:
        """The kinds of sum(ratio) samples in a row: each time the kind that lies furthest behind its share."""
        total = sum(self.ratio.values())
        given = dict.fromkeys(self.ratio, 0)
        order: list[Kind] = []
        for place in range(1, total + 1):
            behind = max(self.ratio, key=lambda kind: self.ratio[kind] * place - given[kind] * total)
            given[behind] += 1
            order.append(behind)
        return order

    def places(self, step: int) -> list[tuple[Kind, int]]:
        """The samples of a step as kinds and numbers in their sources; a pure function of it.

        Together with all other steps each sample of a source once.
        """
        period = self._period
        found = []
        for place in range(step * self.batch, (step + 1) * self.batch):
            rounds, within = divmod(place, len(period))
            kind = period[within]
            taken = rounds * self.ratio[kind] + period[:within].count(kind)
            found.append((kind, self.before.get(kind, 0) + taken))
        return found

    def samples(self, step: int) -> list[Sample]:
        """The samples of a step."""
        return [self.sources[kind][k] for kind, k in self.places(step)]

    def taken(self, steps: int) -> dict[Kind, int]:
        """Samples of each kind that have been taken after so many steps, those before them included."""
        rounds, within = divmod(steps * self.batch, len(self._period))
        own = {kind: rounds * share + self._period[:within].count(kind) for kind, share in self.ratio.items()}
        return {kind: self.before.get(kind, 0) + own.get(kind, 0) for kind in {**self.before, **own}}


def generator(seed: int, *purpose: int) -> np.random.Generator:
    """The source of randomness of one purpose about one sample; different purposes are independent."""
    return np.random.default_rng((seed, *purpose))
