"""Compositions: what a caption says of a scene. The six tasks of GenEval, free ones, and which of them training never sees.

A composition is held out as such, in every wording: a caption that says the same in other words is held out with it.
The rule, by task (s: index in SHAPES, c: index in COLOURS):

    single_object   all six           a shape alone and without colour is never a caption; training has "a red circle", "two
                                      circles", "a circle and a star"
    two_object      s2 - s1 = 3       circle and diamond, square and star, triangle and cross: each shape once
    counting        (s + n) % 3 = 0   one of 2, 3, 4 for each shape, two shapes for each number
    colors          (c + s) % 6 = 3   each colour once, none of them a withheld pair
    position        an eighth, by a hash of the sentence in one fixed form ("b right of a" is "a left of b")
    color_attr      an eighth, by the same hash
    everything else is free for training: lists of three and more, counted colours, half-coloured pairs, shapes in a relation.

Apart from that, the withheld pairs of colour and shape (WITHHELD) occur in training in no composition at all.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, product
from typing import Literal

import numpy as np

from openjanus.data.shapes import (
    COLOURS,
    MOST_OBJECTS,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    WITHHELD,
    Object,
    Relation,
    Scene,
    arrange,
)

# GenEval's own names, in its order.
Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
TASKS: tuple[Task, ...] = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COUNTS = (2, 3, 4)
NUMBERS = ("zero", "one", "two", "three", "four")
# What painting is learned from, in shares. All of single_object is held out; "free" is everything GenEval does not ask. There is
# "unsaid" beside them: of two_object and counting training has twelve compositions each, which a model may learn by heart.
TRAINING_TASKS: dict[str, float] = {
    "two_object": 0.12,
    "counting": 0.18,
    "colors": 0.2,
    "position": 0.2,
    "color_attr": 0.15,
    "free": 0.15,
}
HELD_OUT_ONE_IN = 8  # compositions of position and color_attr


@dataclass(frozen=True, slots=True)
class Mention:
    """`count` objects of a shape, all of one colour if it is said."""

    shape: str
    colour: str | None = None
    count: int = 1

    @property
    def withheld(self) -> bool:
        """Whether it names a pair of colour and shape that training never shows."""
        return (self.colour, self.shape) in WITHHELD

    def __str__(self) -> str:
        """As in "three red squares", "an orange star"."""
        words = self.shape if self.colour is None else f"{self.colour} {self.shape}"
        if self.count > 1:
            return f"{NUMBERS[self.count]} {plural(words)}"
        return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@dataclass(frozen=True, slots=True)
class Composition:
    """Everything a scene holds, as a caption says it. relation: how the first mention stands to the second."""

    mentions: tuple[Mention, ...]
    relation: Relation | None = None

    @property
    def count(self) -> int:
        """How many objects are mentioned, which is how many a scene of it holds."""
        return sum(mention.count for mention in self.mentions)

    @property
    def withheld(self) -> bool:
        """Whether it names a withheld pair."""
        return any(mention.withheld for mention in self.mentions)

    @property
    def task(self) -> Task | None:
        """GenEval's task that asks for it; None: free."""
        first, *others = self.mentions
        if not others:
            if first.colour is None:
                return "single_object" if first.count == 1 else "counting"
            return "colors" if first.count == 1 else None
        second = others[0]
        if len(others) > 1 or self.count > 2 or first.shape == second.shape:
            return None
        if first.colour is None and second.colour is None:
            return "two_object" if self.relation is None else None
        if first.colour is None or second.colour is None or first.colour == second.colour:
            return None
        return "color_attr" if self.relation is None else "position"

    @property
    def key(self) -> str:
        """The same for all that say the same: order and direction do not matter."""
        if self.relation is None:
            return ", ".join(sorted(map(str, self.mentions)))
        first, second = self.mentions
        if self.relation in ("right of", "below"):
            return f"{second} {OPPOSITE[self.relation]} {first}"
        return f"{first} {self.relation} {second}"

    @property
    def held_out(self) -> bool:
        """Whether training never has it as a caption; see the top of this file."""
        task, first = self.task, self.mentions[0]
        shape = SHAPES.index(first.shape)
        if task == "single_object":
            return True
        if task == "two_object":
            return abs(SHAPES.index(self.mentions[1].shape) - shape) == 3
        if task == "counting":
            return (shape + first.count) % 3 == 0
        if task == "colors":
            assert first.colour is not None
            return (COLOURS.index(first.colour) + shape) % 6 == 3
        return task is not None and one_in(HELD_OUT_ONE_IN, self.key)


def one_in(parts: int, text: str) -> bool:
    """True for about one in `parts` texts, the same ones on every machine."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % parts == 0


def plural(words: str) -> str:
    """As in "red crosses"."""
    return words + ("es" if words.endswith("s") else "s")


# -- composing -------------------------------------------------------------------------


def compose(rng: np.random.Generator, task: str, withheld: bool = False) -> Composition:
    """A composition of one of TASKS, a "free" one or one of colours "unsaid", held out or not.

    withheld: whether withheld pairs may be in it.
    """
    while True:
        made = _compose(rng, task)
        if withheld or not made.withheld:
            return made


def compose_for_training(rng: np.random.Generator, tasks: Mapping[str, float] = TRAINING_TASKS) -> Composition:
    """A composition that training may see, of a task drawn by the given shares."""
    names, shares = list(tasks), np.cumsum(list(tasks.values()))
    while True:
        task = names[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
        made = compose(rng, task)
        if not made.held_out:
            return made


def _compose(rng: np.random.Generator, task: str) -> Composition:
    if task in _FREE:
        return _FREE[task](rng)
    first, second = _two(rng, len(SHAPES))
    red, blue = _two(rng, len(COLOURS))
    if task == "single_object":
        return Composition((Mention(SHAPES[first]),))
    if task == "two_object":
        return Composition((Mention(SHAPES[first]), Mention(SHAPES[second])))
    if task == "counting":
        return Composition((Mention(SHAPES[first], count=COUNTS[rng.integers(len(COUNTS))]),))
    if task == "colors":
        return Composition((Mention(SHAPES[first], COLOURS[red]),))
    assert task in ("position", "color_attr"), f"there is no task {task}"
    pair = Mention(SHAPES[first], COLOURS[red]), Mention(SHAPES[second], COLOURS[blue])
    return Composition(pair, RELATIONS[rng.integers(4)] if task == "position" else None)


def _compose_freely(rng: np.random.Generator) -> Composition:
    """Counted colours, a relation of shapes alone or of like objects, a half-coloured pair, or a list of up to four objects."""
    form = rng.integers(4)
    first, second = _kind(rng), _kind(rng)
    while second == first or (form == 2 and second[1] == first[1]):
        second = _kind(rng)  # "a red circle left of a red circle", "a red circle and a circle" would be poor captions
    if form == 0:
        return Composition((Mention(first[1], first[0], int(rng.integers(2, MOST_OBJECTS + 1))),))
    if form == 1:
        relation = RELATIONS[rng.integers(4)]
        if first[1] == second[1] or rng.random() < 0.5:
            return Composition((Mention(first[1], first[0]), Mention(second[1], second[0])), relation)
        return Composition((Mention(first[1]), Mention(second[1])), relation)
    if form == 2:
        return Composition((Mention(first[1], first[0]), Mention(second[1])))
    return whole(_kind(rng) for _ in range(rng.integers(2, MOST_OBJECTS + 1)))


def _compose_of_shapes(rng: np.random.Generator) -> Composition:
    """Two to four objects, like ones counted, of which no colour is said, or of some shapes only; of two, how they stand."""
    said = [shape for shape in SHAPES if rng.random() < 0.5] if rng.random() < 0.5 else []
    kinds = [_kind(rng) for _ in range(rng.integers(2, MOST_OBJECTS + 1))]
    made = together(Mention(shape, colour if shape in said else None) for colour, shape in kinds)
    if len(kinds) == len(made.mentions) == 2 and rng.random() < 0.5:
        return Composition(made.mentions, RELATIONS[rng.integers(4)])
    return made


_FREE: dict[str, Callable[[np.random.Generator], Composition]] = {"free": _compose_freely, "unsaid": _compose_of_shapes}


def _kind(rng: np.random.Generator) -> tuple[str, str]:
    return COLOURS[rng.integers(len(COLOURS))], SHAPES[rng.integers(len(SHAPES))]


def _two(rng: np.random.Generator, among: int) -> tuple[int, int]:
    """Two different numbers below `among`."""
    first = int(rng.integers(among))
    return first, (first + int(rng.integers(1, among))) % among


def whole(kinds: Iterable[tuple[str, str]]) -> Composition:
    """The composition that says all of some objects (colour, shape), like ones counted together, in the order they come."""
    return together(Mention(shape, colour) for colour, shape in kinds)


def together(mentions: Iterable[Mention]) -> Composition:
    """The composition of some mentions, like ones counted together and those of nothing left out, in the order they come."""
    counts: dict[tuple[str, str | None], int] = {}
    for mention in mentions:
        counts[mention.shape, mention.colour] = counts.get((mention.shape, mention.colour), 0) + mention.count
    return Composition(tuple(Mention(*kind, count) for kind, count in counts.items() if count))


def contents(objects: Iterable[Object]) -> Composition:
    """What some objects are, wherever they stand."""
    return whole((thing.colour, thing.shape) for thing in objects)


# -- scenes of a composition -----------------------------------------------------------


def sample_scene(rng: np.random.Generator, composition: Composition | None = None, withheld: bool = False) -> Scene:
    """A scene that holds exactly what a composition says, its objects in the order of the mentions; None: one to four objects.

    A colour that is not said is drawn; withheld: whether that may make a withheld pair.
    """
    if composition is None:
        return arrange(rng, _some_kinds(rng, withheld))
    kinds = []
    for mention in composition.mentions:
        # Several of a kind look alike half of the time, and are of any colours the other half.
        alike = mention.colour or (_colour_for(rng, mention.shape, withheld) if rng.random() < 0.5 else None)
        kinds += [(alike or _colour_for(rng, mention.shape, withheld), mention.shape) for _ in range(mention.count)]
    return arrange(rng, kinds, composition.relation)


def _colour_for(rng: np.random.Generator, shape: str, withheld: bool) -> str:
    while True:
        colour = COLOURS[rng.integers(len(COLOURS))]
        if withheld or (colour, shape) not in WITHHELD:
            return colour


def _some_kinds(rng: np.random.Generator, withheld: bool) -> list[tuple[str, str]]:
    """One to four objects of few shapes and colours, so that there is something to count and to tell apart."""
    count = int(rng.integers(1, MOST_OBJECTS + 1))
    shapes = rng.integers(len(SHAPES), size=rng.integers(1, count + 1))
    kinds: list[tuple[str, str]] = []
    colours = [COLOURS[i] for i in rng.integers(len(COLOURS), size=rng.integers(1, count + 1))]
    while len(kinds) < count:
        shape = SHAPES[shapes[rng.integers(len(shapes))]]
        colour = colours[rng.integers(len(colours))]
        if not withheld and (colour, shape) in WITHHELD:
            colour = _colour_for(rng, shape, withheld)
        kinds.append((colour, shape))
    return kinds


# -- what is held out ------------------------------------------------------------------


def held_out_compositions(task: Task) -> list[Composition]:
    """All compositions of a task that training never has as a caption, without withheld pairs, in a fixed order."""
    mentions = [Mention(shape, colour) for shape, colour in product(SHAPES, COLOURS)]
    plain = [Mention(shape) for shape in SHAPES]
    everything: Iterable[Composition]
    if task == "single_object":
        everything = (Composition((mention,)) for mention in plain)
    elif task == "two_object":
        everything = (Composition(pair) for a, b in combinations(plain, 2) for pair in ((a, b), (b, a)))
    elif task == "counting":
        everything = (Composition((Mention(shape, count=count),)) for count, shape in product(COUNTS, SHAPES))
    elif task == "colors":
        everything = (Composition((mention,)) for mention in mentions)
    else:
        ways = RELATIONS if task == "position" else (None,)
        everything = (Composition((a, b), relation) for a, b in product(mentions, mentions) for relation in ways)
    return [made for made in everything if made.task == task and made.held_out and not made.withheld]
