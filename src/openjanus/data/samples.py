"""Samples: what a model learns from, before it is tokens.

A source is endless and map-style: `source[k]` is a pure function of k, so a run's place in its data is one number.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from openjanus.errors import ConfigError
from openjanus.types import ImageSource, Message

Kind = Literal["text", "understanding", "generation"]
KINDS: tuple[Kind, ...] = ("text", "understanding", "generation")


@dataclass(frozen=True)
class Sample:
    """One thing to learn: a conversation whose assistant turns are the answers, or a text and its picture.

    seed: every random choice about this sample (guidance dropout, crop, noise, time) is drawn from it and nothing else.
    """

    kind: Kind
    messages: tuple[Message, ...]
    seed: int
    picture: ImageSource | None = None  # generation only: what the one user message describes


class Source(Protocol):
    """An endless, map-style stream of samples of one kind."""

    def __getitem__(self, k: int) -> Sample:
        """Sample k; the same every time."""


@dataclass(frozen=True)
class Mixture:
    """Samples of several kinds by an exact ratio: over every sum(ratio) samples in a row, and as near as can be between.

    sources: a source a kind. ratio: whole numbers, e.g. understanding : text : generation = 2 : 3 : 5 (Janus, Table 1).
    batch: samples a step. ConfigError for a ratio of nothing or a kind without a source.
    """

    sources: Mapping[Kind, Source]
    ratio: Mapping[Kind, int]
    batch: int

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

    def samples(self, step: int) -> list[Sample]:
        """The samples of a step; a pure function of it, and together with all other steps each sample of a source once."""
        period = self._period
        made = []
        for place in range(step * self.batch, (step + 1) * self.batch):
            rounds, within = divmod(place, len(period))
            kind = period[within]
            made.append(self.sources[kind][rounds * self.ratio[kind] + period[:within].count(kind)])
        return made


def generator(seed: int, *purpose: int) -> np.random.Generator:
    """The source of randomness of one purpose about one sample; different purposes are independent."""
    return np.random.default_rng((seed, *purpose))
