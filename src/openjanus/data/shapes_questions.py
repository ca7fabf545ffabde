"""Questions about scenes of the synthetic world, their answers, and which of them training never asks.

A question is held out together with what the scene holds: one in ten of all pairs of a question's text and a scene's contents is
never learned from, wherever the objects stand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from openjanus.data.shapes import COLOURS, SHAPES, Scene
from openjanus.data.shapes_askers import ASKERS, IN_A_SENTENCE, Question, View
from openjanus.data.shapes_compositions import NUMBERS, one_in
from openjanus.data.shapes_text import describe, inventory, places

HELD_OUT_ONE_IN = 10
LETTERS = "ABCD"
BY_LETTER = "Answer with the option's letter from the given choices directly."
KINDS = (*ASKERS, "choice")
_DESCRIBE = (
    "Describe the picture.",
    "What do you see?",
    "What does the picture show?",
    "Tell me about this image.",
    "Caption this.",
)


# What evaluation never asks: long answers, which teach to see.
LONG_KINDS: Mapping[str, tuple[Sequence[str], Callable[[np.random.Generator, Scene], str | None]]] = {
    "description": (_DESCRIBE, describe),
    "places": (("Where is everything?",), lambda rng, scene: places(scene)),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; kind is one of KINDS or LONG_KINDS, or "talk"."""

    kind: str
    question: str
    answer: str


def _choice(rng: np.random.Generator, view: View) -> Question | None:
    """Another question with four answers to choose from."""
    kind = ("color", "shape", "count")[rng.integers(3)]
    made = ASKERS[kind](rng, view)
    if made is None or made[0].endswith(IN_A_SENTENCE):
        return None
    question, answer = made
    others: list[str] = [c for c in (COLOURS if kind == "color" else SHAPES if kind == "shape" else NUMBERS) if c != answer]
    if kind != "count":
        # What the asked object cannot be in training is no choice either.
        asked = {(thing.colour, thing.shape) for thing in view.objects if answer in (thing.colour, thing.shape)}
        others = [o for o in others if all(view.may_say(*((o, s) if kind == "color" else (c, o))) for c, s in asked)]
    options = [answer, *(others[i] for i in rng.permutation(len(others))[:3])]
    options = [options[i] for i in rng.permutation(len(options))]
    return f"{question}\n{lettered(options)}\n{BY_LETTER}", LETTERS[options.index(answer)]


def lettered(options: Sequence[str]) -> str:
    """The options of a choice behind their letters, each in a line."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def ask(rng: np.random.Generator, scene: Scene, kind: str, withheld: bool = False) -> Turn | None:
    """A question of one of KINDS, held out or not; None if the scene leaves no such question this time.

    withheld: whether withheld pairs may be spoken of, and compositions that training never has as captions.
    """
    made = _choice(rng, View(scene, withheld)) if kind == "choice" else ASKERS[kind](rng, View(scene, withheld))
    return None if made is None else Turn(kind, *made)


def held_out(question: str, scene: Scene) -> bool:
    """Whether training never asks this of a scene with these contents."""
    return one_in(HELD_OUT_ONE_IN, f"{question} | {inventory(scene).key}")


def converse(rng: np.random.Generator, scene: Scene, turns: int, kinds: Sequence[str] = (*KINDS, "description")) -> list[Turn]:
    """Up to `turns` different questions of a scene that training may ask, of the given kinds (all equally often)."""
    asked: dict[str, Turn] = {}
    for _ in range(8 * turns):
        kind = kinds[int(rng.integers(len(kinds)))]
        if kind in LONG_KINDS:
            wordings, answer = LONG_KINDS[kind]
            text = answer(rng, scene)
            made = None if text is None else Turn(kind, wordings[int(rng.integers(len(wordings)))], text)
        else:
            made = ask(rng, scene, kind)
        if made is not None and not held_out(made.question, scene):
            asked.setdefault(made.question, made)
        if len(asked) == turns:
            break
    return list(asked.values())
