"""Lookups: a list, and then many of its words asked for by what stands beside them.

To find a word in what was said is a part of nearly every answer and of every picture (which of the things that were asked for is
not there yet?). In questions on scenes it is a token of an answer now and then, and a small model had not learned it from 36,000
conversations; here it is every second token.
"""

from collections.abc import Sequence

import numpy as np

from openjanus.data.shapes import COLOURS, SHAPES, WITHHELD
from openjanus.data.shapes_compositions import NUMBERS, Mention
from openjanus.data.shapes_questions import BY_LETTER, LETTERS, Turn, lettered
from openjanus.data.shapes_text import listing

_MOST_THINGS = 5


def lookups(rng: np.random.Generator, turns: int) -> list[Turn]:
    """`turns` questions, each about a list of its own: of options with their letters, or of things with their colours."""
    return [_of_letters(rng) if rng.random() < 0.5 else _of_things(rng) for _ in range(turns)]


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
        return Turn("lookup", f"{lettered(options)}\nWhich letters stand before {listing(wanted)}?", ", ".join(answer))
    wanted, answer = [letter for letter, _ in asked], [word for _, word in asked]
    return Turn("lookup", f"{lettered(options)}\nWhat stands behind {listing(wanted)}?", ", ".join(answer))


def _of_things(rng: np.random.Generator) -> Turn:
    count = int(rng.integers(2, _MOST_THINGS + 1))
    while True:
        things = list(zip(_some(rng, COLOURS, count), _some(rng, SHAPES, count), strict=True))
        if not WITHHELD.intersection(things):
            break
    said = listing([str(Mention(shape, colour)) for colour, shape in things])
    asked = [things[i] for i in rng.permutation(count)]
    if rng.random() < 0.5:
        wanted, answer = listing([f"the {shape}" for _, shape in asked]), [colour for colour, _ in asked]
        return Turn("lookup", f"You see {said}. Name the colors of {wanted}.", ", ".join(answer))
    wanted, answer = listing([f"the {colour} one" for colour, _ in asked]), [shape for _, shape in asked]
    return Turn("lookup", f"You see {said}. Name the shapes of {wanted}.", ", ".join(answer))


def _some(rng: np.random.Generator, among: Sequence[str], count: int) -> list[str]:
    """So many different words, in any order."""
    return [among[i] for i in rng.permutation(len(among))[:count]]
