"""What the shapes benchmark asks: prompts and questions that training never has, always the same ones.

The rules are in data/shapes_compositions.py and data/shapes_questions.py; the scenes come from streams that training never reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openjanus.data.shapes import RELATIONS, WITHHELD, Scene
from openjanus.data.shapes_compositions import TASKS, Composition, Mention, Task, held_out_compositions, sample_scene
from openjanus.data.shapes_questions import KINDS, ask, held_out
from openjanus.data.shapes_streams import stream
from openjanus.data.shapes_text import PLAIN_WORDINGS, phrase

WITHHELD_TASK = "withheld"  # of prompts and of questions: pairs of colour and shape that training never shows
PAIRS = 32  # prompts of position and of color_attr, out of hundreds
QUESTIONS = 40  # of each kind


@dataclass(frozen=True)
class PromptCase:
    """Something to paint. task: one of TASKS, or "withheld"."""

    task: str
    text: str
    composition: Composition


@dataclass(frozen=True)
class QuestionCase:
    """Something to answer. kind: one of KINDS, or "withheld"."""

    kind: str
    scene: Scene
    question: str
    answer: str


def held_out_prompts() -> list[PromptCase]:
    """The benchmark's prompts: of every task as many kinds as there are, at the head of its list as different as can be."""
    cases = []
    for task in TASKS:
        made = held_out_compositions(task)
        if task in ("position", "color_attr"):
            cases += [_prompt(task, one, i) for i, one in enumerate(_some_pairs(task, made))]
        else:
            cases += [_prompt(task, one, i) for i in range(len(PLAIN_WORDINGS)) for one in made]
    return cases


def withheld_prompts() -> list[PromptCase]:
    """Each withheld pair in every plain wording, as in "a red star"."""
    pairs = [Composition((Mention(shape, colour),)) for colour, shape in sorted(WITHHELD)]
    return [_prompt(WITHHELD_TASK, one, i) for i in range(len(PLAIN_WORDINGS)) for one in pairs]


def _prompt(task: str, composition: Composition, wording: int) -> PromptCase:
    return PromptCase(task, PLAIN_WORDINGS[wording % len(PLAIN_WORDINGS)].format(phrase(composition)), composition)


def _some_pairs(task: Task, among: Sequence[Composition]) -> list[Composition]:
    """PAIRS of the compositions, always the same; those of position say the four relations in turn."""
    order = stream("held out prompts", TASKS.index(task), 0).permutation(len(among))
    mixed = [among[i] for i in order]
    if task != "position":
        return mixed[:PAIRS]
    ways = [[one for one in mixed if one.relation == relation] for relation in RELATIONS]
    return [ways[i % len(ways)][i // len(ways)] for i in range(PAIRS)]


def held_out_questions(per_kind: int = QUESTIONS) -> list[QuestionCase]:
    """Questions of every kind on scenes of their own, none of which training asks of a scene with the same contents."""
    return [case for number, kind in enumerate(KINDS) for case in _first(_questions(number, kind, kind, False), per_kind)]


def withheld_questions(count: int = QUESTIONS) -> list[QuestionCase]:
    """Colour and shape of objects that are a withheld pair."""
    return _first(_questions(len(KINDS), WITHHELD_TASK, "shape", True), count // 2) + _first(
        _questions(len(KINDS) + 1, WITHHELD_TASK, "color", True), count - count // 2
    )


def _first(cases: Iterator[QuestionCase], count: int) -> list[QuestionCase]:
    return [next(cases) for _ in range(count)]


def _questions(number: int, named: str, kind: str, withheld: bool) -> Iterator[QuestionCase]:
    """Endless questions of a kind; withheld: those whose answer makes a withheld pair."""
    k = 0
    while True:
        rng = stream("held out questions", number, k)
        k += 1
        scene = sample_scene(rng, withheld=withheld)
        made = ask(rng, scene, kind, withheld)
        if made is None:
            continue
        if withheld:
            answer = made.answer
            if any((t.colour, t.shape) in WITHHELD and answer in (t.colour, t.shape) for t in scene.objects):
                yield QuestionCase(named, scene, made.question, answer)
        elif held_out(made.question, scene):
            yield QuestionCase(named, scene, made.question, made.answer)
