"""Lookups: a list, and then many of its words asked for by what stands beside them.

To find a word in what was said is a part of nearly every answer and of every picture (which of the things that were asked for is
not there yet?). In questions on scenes it is a token of an answer now and then, and a small model had not learned it from 36,000
conversations; here it is every second token. From lists alone it was not learned either, in 1,200 steps: each answer takes two
thoughts, which word is next and what stands beside it. Words to repeat take one, and so do answers that name what they are about:
with these among them, a model of the bundled ones' size begins to find words within 250 steps.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from openjanus.data.shapes import COLOURS, SHAPES, WITHHELD
from openjanus.data.shapes_compositions import NUMBERS, Mention
from openjanus.data.shapes_questions import BY_LETTER, LETTERS, Turn, lettered
from openjanus.data.shapes_text import listing

_MOST_THINGS = 5
_REPEATED = range(4, 13)
# Behind a question whose answers are to name what they are about.
_NAMED = " Say each with its name."


def lookups(rng: np.random.Generator, turns: int) -> list[Turn]:
    """`turns` questions, each about a list of its own: words to repeat, options with their letters, things with their colours."""
    makers = _repeated, _of_letters, _of_things
    return [makers[rng.choice(3, p=(0.2, 0.4, 0.4))](rng) for _ in range(turns)]


def _repeated(rng: np.random.Generator) -> Turn:
    among = (*COLOURS, *SHAPES, *NUMBERS, *LETTERS)
    count = rng.choice(_REPEATED)
    while True:
        words = [among[i] for i in rng.integers(len(among), size=count)]
        if not WITHHELD.intersection(pairwise(words)):
            return Turn("lookup", f"Repeat: {' '.join(words)}", " ".join(words))


def _asked(rng: np.random.Generator, question: str, wanted: Sequence[str], answers: Sequence[str]) -> Turn:
    """A question about several words, whose answers stand alone or each behind what was asked for."""
    if rng.random() < 0.5:
        return Turn("lookup", question, ", ".join(answers))
    return Turn("lookup", question + _NAMED, ", ".join(f"{word} {answer}" for word, answer in zip(wanted, answers, strict=True)))


def _of_letters(rng: np.random.Generator) -> Turn:
    words: Sequence[str] = (COLOURS, SHAPES, NUMBERS)[rng.integers(3)]
    options = _some(rng, words, len(LETTERS))
    if rng.random() < 0.3:
        right = int(rng.integers(len(options)))
        return Turn("lookup", f"Which letter stands before {options[right]}?\n{lettered(options)}\n{BY_LETTER}", LETTERS[right])
    pairs = list(zip(LETTERS, options, strict=True))
    asked = [pairs[i] for i in rng.permutation(len(pairs))]
    if rng.random() < 0.7:
        wanted, answer = [word for _, word in asked], [letter for letter, _ in asked]
        return _asked(rng, f"{lettered(options)}\nWhich letters stand before {listing(wanted)}?", wanted, answer)
    wanted, answer = [letter for letter, _ in asked], [word for _, word in asked]
    return _asked(rng, f"{lettered(options)}\nWhat stands behind {listing(wanted)}?", wanted, answer)


def _of_things(rng: np.random.Generator) -> Turn:
    count = int(rng.integers(2, _MOST_THINGS + 1))
    while True:
        things = list(zip(_some(rng, COLOURS, count), _some(rng, SHAPES, count), strict=True))
        if not WITHHELD.intersection(things):
            break
    said = listing([str(Mention(shape, colour)) for colour, shape in things])
    asked = [things[i] for i in rng.permutation(count)]
    colours, shapes = [colour for colour, _ in asked], [shape for _, shape in asked]
    if rng.random() < 0.5:
        return _asked(
            rng, f"You see {said}. Name the colors of {listing([f'the {shape}' for shape in shapes])}.", shapes, colours
        )
    return _asked(
        rng, f"You see {said}. Name the shapes of {listing([f'the {colour} one' for colour in colours])}.", colours, shapes
    )


def _some(rng: np.random.Generator, among: Sequence[str], count: int) -> list[str]:
    """So many different words, in any order."""
    return [among[i] for i in rng.permutation(len(among))[:count]]
