"""One question of each kind about a scene, and its answer: short, exact, and decided by the scene without doubt.

An asker returns None when the scene has no such question, or would leave doubt about it (a near tie, an object on the middle
line), this time. Which questions training may ask is decided in shapes_questions.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from openjanus.data.shapes import (
    COLOURS,
    OPPOSITE,
    OVERLAP_MARGIN,
    RELATIONS,
    SHAPES,
    WITHHELD,
    Object,
    Relation,
    Scene,
    relations,
)
from openjanus.data.shapes_compositions import NUMBERS, Composition, Mention, plural
from openjanus.data.shapes_text import half, inventory, listing, name, pair, sentence, unique

# Differences that leave no doubt, in pixels of a canvas of 64.
CLEAR_SIZE = 3.0
CLEAR_ORDER = 4.0
IN_A_SENTENCE = " Answer in a sentence."

Question = tuple[str, str]  # with its answer


@dataclass(frozen=True)
class View:
    """A scene as questions look at it. withheld: whether withheld pairs may be spoken of."""

    scene: Scene
    withheld: bool

    @property
    def objects(self) -> tuple[Object, ...]:
        return self.scene.objects

    def count(self, colour: str | None = None, shape: str | None = None) -> int:
        """How many objects are of a colour, a shape, or both."""
        return sum(colour in (None, thing.colour) and shape in (None, thing.shape) for thing in self.objects)

    def by_shape(self) -> list[Object]:
        """The objects that "the circle" names."""
        return [thing for thing in self.objects if self.count(shape=thing.shape) == 1]

    def by_colour(self) -> list[Object]:
        """The objects that "the red object" names."""
        return [thing for thing in self.objects if self.count(colour=thing.colour) == 1]

    def may_say(self, colour: str | None, shape: str | None) -> bool:
        """False for a withheld pair, unless this is evaluation."""
        return self.withheld or (colour, shape) not in WITHHELD


def _pick(rng: np.random.Generator, among: Sequence[Any]) -> Any:
    """One of them, or None if there is none."""
    return among[int(rng.integers(len(among)))] if among else None


def _two(rng: np.random.Generator, among: Sequence[Object]) -> tuple[Object, Object]:
    first, second = rng.permutation(len(among))[:2]
    return among[first], among[second]


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def _refer(rng: np.random.Generator, view: View, thing: Object) -> str:
    """A name that only this object of unique(scene) has, without "the": its shape alone if that is enough, or both words."""
    return thing.shape if view.count(shape=thing.shape) == 1 and rng.random() < 0.5 else name(thing)


def _color(rng: np.random.Generator, view: View) -> Question | None:
    if view.count() == 2 and rng.random() < 0.3:
        return _by_side(rng, view, "color")
    thing = _pick(rng, view.by_shape())
    if thing is None:
        return None
    called = "object" if view.count() == 1 and rng.random() < 0.3 else thing.shape
    question = _pick(
        rng, ("What color is the {}?", "Which color does the {} have?", "What colour is the {}?", "Name the color of the {}.")
    )
    if rng.random() < 0.1:
        return question.format(called) + IN_A_SENTENCE, f"The {called} is {thing.colour}."
    return question.format(called), thing.colour


def _shape(rng: np.random.Generator, view: View) -> Question | None:
    if view.count() == 2 and rng.random() < 0.3:
        return _by_side(rng, view, "shape")
    thing = _pick(rng, view.by_colour())
    if thing is None:
        return None
    called = "object" if view.count() == 1 and rng.random() < 0.3 else f"{thing.colour} object"
    question = _pick(
        rng, ("What shape is the {}?", "Which shape does the {} have?", "What is the {}?", "Name the shape of the {}.")
    )
    if rng.random() < 0.1:
        return question.format(called) + IN_A_SENTENCE, f"The {called} is a {thing.shape}."
    return question.format(called), thing.shape


def _by_side(rng: np.random.Generator, view: View, what: str) -> Question | None:
    """Colour or shape of one of two objects, named by its side."""
    thing, other = (view.objects[i] for i in rng.permutation(2))
    side = {"left of": "on the left", "right of": "on the right", "above": "at the top", "below": "at the bottom"}
    relation = _pick(rng, sorted(relations(thing, other)))
    if relation is None:
        return None
    return f"What {what} is the object {side[relation]}?", thing.colour if what == "color" else thing.shape


def _count(rng: np.random.Generator, view: View) -> Question | None:
    colour = shape = None
    form = rng.integers(4)
    thing = _pick(rng, view.objects)
    if form in (1, 3):
        shape = thing.shape if rng.random() < 0.8 else _pick(rng, SHAPES)
    if form in (2, 3):
        colour = thing.colour if rng.random() < 0.8 else _pick(rng, COLOURS)
    if not view.may_say(colour, shape):
        return None
    word = " ".join(part for part in (colour, shape or "object") if part)
    number = view.count(colour, shape)
    if rng.random() < 0.1 and not (shape and number and Composition((Mention(shape, colour, number),)).held_out):
        words = f"is one {word}" if number == 1 else f"are {NUMBERS[number] if number else 'no'} {plural(word)}"
        return f"How many {plural(word)} are there?{IN_A_SENTENCE}", f"There {words}."
    question = _pick(rng, ("How many {} are there?", "How many {} do you see?", "Count the {}.", "What is the number of {}?"))
    return question.format(plural(word)), NUMBERS[number]


def _presence(rng: np.random.Generator, view: View) -> Question | None:
    wanted, form = rng.random() < 0.5, rng.integers(3)
    for _ in range(8):  # as often as it takes to find something absent: else "yes" would be the better guess
        thing, other = _pick(rng, view.objects), _pick(rng, view.objects)
        colour, shape = thing.colour, thing.shape
        if not wanted and form == 0 and rng.random() < 0.5:
            # Made of what is there, so that seeing the colour or the shape alone does not decide.
            shape = other.shape
        elif not wanted:
            colour, shape = _pick(rng, COLOURS), _pick(rng, SHAPES)
        asked = (colour if form != 1 else None), (shape if form != 2 else None)
        if view.may_say(*asked) and bool(view.count(*asked)) == wanted:
            break
    else:
        return None
    if form == 2:
        question = _pick(rng, ("Is there anything {}?", "Do you see something {}?", "Does the picture show anything {}?"))
        return question.format(colour), _yes(wanted)
    word = str(Mention(shape, asked[0]))
    many = plural(word.split(" ", 1)[1])
    question = _pick(rng, ("Is there {}?", "Do you see {}?", "Does the picture show {}?", "Are there any {m}?"))
    return question.format(word, m=many), _yes(wanted)


def _position(rng: np.random.Generator, view: View) -> Question | None:
    return _place(rng, view) if rng.random() < 0.4 else _place_of_two(rng, view)


def _place(rng: np.random.Generator, view: View) -> Question | None:
    """Where in the picture one object is."""
    thing = _pick(rng, unique(view.scene))
    if thing is None:
        return None
    called, across, down = _refer(rng, view, thing), half(thing, 0), half(thing, 1)
    if across and down and rng.random() < 0.5:
        return f"In which corner of the picture is the {called}?", f"{down} {across}"
    axis = int(rng.integers(2))
    sides, side = (("left", "right"), ("top", "bottom"))[axis], (across, down)[axis]
    return (f"Is the {called} in the {sides[0]} or the {sides[1]} half of the picture?", side) if side else None


def _place_of_two(rng: np.random.Generator, view: View) -> Question | None:
    """Where one object is, seen from another."""
    named = unique(view.scene)
    if len(named) < 2:
        return None
    first, second = _two(rng, named)
    holds = sorted(relations(first, second))
    relation: Relation | None = _pick(rng, holds)
    if relation is None or (pair(first, second, relation).held_out and not view.withheld):
        return None
    one, two = _refer(rng, view, first), _refer(rng, view, second)
    form, answer = rng.integers(3), relation.removesuffix(" of")
    if form == 0 and len(holds) == 1:
        return f"Where is the {one}, seen from the {two}?", answer
    if form == 1 and view.count() == 2:
        return f"What is {relation} the {two}?", name(first)
    ways = RELATIONS[:2] if relation in RELATIONS[:2] else RELATIONS[2:]
    return f"Is the {one} {ways[0].removesuffix(' of')} or {ways[1]} the {two}?", answer


def _comparison(rng: np.random.Generator, view: View) -> Question | None:
    return (_more, _same, _size, _size)[rng.integers(4)](rng, view)


def _more(rng: np.random.Generator, view: View) -> Question | None:
    """Whether there are more of one shape than of another."""
    shapes = sorted({thing.shape for thing in view.objects})
    one = _pick(rng, shapes)
    two = _pick(rng, [shape for shape in (shapes if len(shapes) > 1 and rng.random() < 0.7 else SHAPES) if shape != one])
    one, two = (one, two) if rng.random() < 0.5 else (two, one)
    way = _pick(rng, ("more", "fewer"))
    difference = view.count(shape=one) - view.count(shape=two)
    return f"Are there {way} {plural(one)} than {plural(two)}?", _yes(difference > 0 if way == "more" else difference < 0)


def _same(rng: np.random.Generator, view: View) -> Question | None:
    """Whether two objects share colour or shape."""
    if view.count() == 2 and rng.random() < 0.6:
        first, second = view.objects
        if rng.random() < 0.5:
            return "Do the two objects have the same shape?", _yes(first.shape == second.shape)
        return "Do the two objects have the same color?", _yes(first.colour == second.colour)
    alone = view.by_shape()
    if len(alone) < 2:
        return None
    first, second = _two(rng, alone)
    return f"Do the {first.shape} and the {second.shape} have the same color?", _yes(first.colour == second.colour)


def _size(rng: np.random.Generator, view: View) -> Question | None:
    """Which of two objects is the bigger or the smaller one."""
    named = unique(view.scene)
    if len(named) < 2:
        return None
    first, second = _two(rng, named)
    if abs(first.width - second.width) < CLEAR_SIZE:
        return None
    one, two = _refer(rng, view, first), _refer(rng, view, second)
    way = _pick(rng, ("bigger", "smaller"))
    first_is_it = (first.width > second.width) == (way == "bigger")
    if rng.random() < 0.5:
        return f"Which is {way}, the {one} or the {two}?", one if first_is_it else two
    return f"Is the {one} {way} than the {two}?", _yes(first_is_it)


def _attribute(rng: np.random.Generator, view: View) -> Question | None:
    form, wanted = rng.integers(4), rng.random() < 0.5
    if form == 0 and (thing := _pick(rng, view.by_shape())):
        colour = (
            thing.colour if wanted else _pick(rng, [c for c in COLOURS if c != thing.colour and view.may_say(c, thing.shape)])
        )
        return f"Is the {thing.shape} {colour}?", _yes(wanted)
    if form == 1 and (thing := _pick(rng, view.by_colour())):
        shape = thing.shape if wanted else _pick(rng, [s for s in SHAPES if s != thing.shape and view.may_say(thing.colour, s)])
        return f"Is the {thing.colour} object a {shape}?", _yes(wanted)
    if form == 2:
        thing = _pick(rng, view.objects)
        number = view.count(shape=thing.shape)
        asked = number if wanted else _pick(rng, [n for n in range(1, 5) if n != number])
        words = f"one {thing.shape}" if asked == 1 else f"{NUMBERS[asked]} {plural(thing.shape)}"
        return f"{'Is' if asked == 1 else 'Are'} there exactly {words}?", _yes(wanted)
    return _relation(rng, view, wanted)


def _relation(rng: np.random.Generator, view: View, wanted: bool) -> Question | None:
    named = unique(view.scene)
    if len(named) < 2:
        return None
    first, second = _two(rng, named)
    relation: Relation = _pick(rng, RELATIONS)
    holds = relations(first, second)
    axis = 0 if relation in RELATIONS[:2] else 1
    level = abs(first.centre[axis] - second.centre[axis]) < OVERLAP_MARGIN * (first.width + second.width)
    clear = relation in holds if wanted else OPPOSITE[relation] in holds or level
    if not clear or (pair(first, second, relation).held_out and not view.withheld):
        return None
    return f"Is the {_refer(rng, view, first)} {relation} the {_refer(rng, view, second)}?", _yes(wanted)


def _caption(rng: np.random.Generator, view: View) -> Question | None:
    ordered = sorted(view.objects, key=lambda thing: thing.centre[0])
    steps = [b.centre[0] - a.centre[0] for a, b in pairwise(ordered)]
    if min(steps, default=CLEAR_ORDER) < CLEAR_ORDER or (inventory(view.scene).held_out and not view.withheld):
        return None
    question = _pick(
        rng,
        (
            "Describe the picture from left to right.",
            "What is in the picture, from left to right?",
            "List the objects from left to right.",
        ),
    )
    return question, sentence(listing([str(Mention(thing.shape, thing.colour)) for thing in ordered]))


ASKERS: dict[str, Callable[[np.random.Generator, View], Question | None]] = {
    "color": _color,
    "shape": _shape,
    "count": _count,
    "presence": _presence,
    "position": _position,
    "comparison": _comparison,
    "attribute": _attribute,
    "caption": _caption,
}
