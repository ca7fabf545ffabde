"""Rivals: compositions that differ in one thing from what a scene holds, so that their captions are not true of it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from openjanus.data.shapes import COLOURS, MOST_OBJECTS, OPPOSITE, SHAPES
from openjanus.data.shapes_compositions import Composition, Mention, together


def rival(rng: np.random.Generator, made: Composition) -> Composition:
    """A composition that training may see and no scene of `made` fits.

    The relation the other way round, two colours exchanged, one object more or fewer, another shape or colour, one thing twice
    instead of two things, or two things instead of one thing twice.
    """
    while True:
        changes = _CHANGES if made.relation is None else _CHANGES_OF_PAIRS
        other = changes[rng.integers(len(changes))](rng, made)
        if 1 <= other.count <= MOST_OBJECTS and other.key != made.key and not other.held_out and not other.withheld:
            return other


def _two(rng: np.random.Generator, made: Composition) -> tuple[int, int]:
    """Two places among the mentions; the same twice if there is but one."""
    first, many = int(rng.integers(len(made.mentions))), len(made.mentions)
    return first, (first + int(rng.integers(1, max(many, 2)))) % many


def _put(made: Composition, *changed: tuple[int, Mention]) -> Composition:
    """The composition with other mentions in some places; like ones are counted together, and those of nothing left out."""
    mentions = list(made.mentions)
    for place, mention in changed:
        mentions[place] = mention
    return replace(made, mentions=tuple(mentions)) if made.relation else together(mentions)


def _turned(rng: np.random.Generator, made: Composition) -> Composition:
    assert made.relation is not None
    return replace(made, relation=OPPOSITE[made.relation])


def _exchanged(rng: np.random.Generator, made: Composition) -> Composition:
    """Two colours change places."""
    one, other = _two(rng, made)
    first, second = made.mentions[one], made.mentions[other]
    if first.colour is None or second.colour is None:
        return made
    return _put(made, (one, replace(first, colour=second.colour)), (other, replace(second, colour=first.colour)))


def _reshaped(rng: np.random.Generator, made: Composition) -> Composition:
    one, _ = _two(rng, made)
    return _put(made, (one, replace(made.mentions[one], shape=SHAPES[rng.integers(len(SHAPES))])))


def _recoloured(rng: np.random.Generator, made: Composition) -> Composition:
    one, _ = _two(rng, made)
    if made.mentions[one].colour is None:
        return made
    return _put(made, (one, replace(made.mentions[one], colour=COLOURS[rng.integers(len(COLOURS))])))


def _recounted(rng: np.random.Generator, made: Composition) -> Composition:
    one, _ = _two(rng, made)
    mention = made.mentions[one]
    return _put(made, (one, replace(mention, count=mention.count + (1 if rng.random() < 0.5 else -1))))


def _repeated(rng: np.random.Generator, made: Composition) -> Composition:
    """One thing is like another: what a painter does who has forgotten what is there already."""
    one, other = _two(rng, made)
    model = made.mentions[other]
    return _put(made, (one, replace(model, count=made.mentions[one].count)))


def _parted(rng: np.random.Generator, made: Composition) -> Composition:
    """Of several alike one is something else: the same the other way round."""
    one, _ = _two(rng, made)
    mention = made.mentions[one]
    if mention.count == 1:
        return made
    colour = mention.colour and COLOURS[rng.integers(len(COLOURS))]
    new = Mention(SHAPES[rng.integers(len(SHAPES))], colour)
    rest = [replace(mention, count=mention.count - 1), new]
    return together([*made.mentions[:one], *(rest if rng.random() < 0.5 else rest[::-1]), *made.mentions[one + 1 :]])


_CHANGES: tuple[Callable[[np.random.Generator, Composition], Composition], ...] = (
    _exchanged,
    _reshaped,
    _recoloured,
    _recounted,
    _repeated,
    _parted,
)
_CHANGES_OF_PAIRS = (_turned, _turned, _turned, _exchanged, _reshaped, _recoloured)
