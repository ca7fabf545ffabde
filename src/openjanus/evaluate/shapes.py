"""The shapes benchmark: GenEval's six tasks and a question set on the synthetic world, scored exactly and without any network.

GenEval's rules: every object that is asked for must be there, in counting neither fewer nor more; of several of a shape the
surest are taken; colours and places must fit; other objects do no harm. Answers are compared word for word after `normalise`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from PIL import Image

from openjanus.data.shapes import CANVAS, draw, relations
from openjanus.data.shapes_compositions import NUMBERS, Composition, plural
from openjanus.errors import PromptError
from openjanus.evaluate.intervals import Score, score
from openjanus.evaluate.shapes_cases import (
    WITHHELD_TASK,
    PromptCase,
    QuestionCase,
    held_out_prompts,
    held_out_questions,
    withheld_prompts,
    withheld_questions,
)
from openjanus.evaluate.shapes_reader import Found, read_scene
from openjanus.janus import Janus
from openjanus.types import ImageOptions

T = TypeVar("T")

ROWS = 32  # pictures or answers in one batch
MAX_TOKENS = 64  # the longest right answer lists four objects
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Painted:
    """One picture of a prompt, what was found in it, and what is wrong with that ("" if nothing is)."""

    task: str
    prompt: str
    seed: int
    right: bool
    wrong: str
    found: tuple[Found, ...]


@dataclass(frozen=True)
class Answered:
    """One answer."""

    kind: str
    question: str
    expected: str
    answer: str
    right: bool


@dataclass(frozen=True)
class Report:
    """What a model reached. tasks and kinds: scores by name; overall: the mean of the six tasks; questions: of the kinds.

    A score is None when nothing of it was run. withheld: prompts and questions of withheld pairs, in no other score.
    """

    model: str
    settings: dict[str, Any]
    tasks: dict[str, Score]
    overall: Score | None
    kinds: dict[str, Score]
    questions: Score | None
    withheld: dict[str, Score]
    seconds: float
    painted: tuple[Painted, ...] = field(repr=False)
    answered: tuple[Answered, ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The scores and settings alone, as JSON."""
        return {name: value for name, value in self.to_json().items() if name not in ("painted", "answered")}

    def to_json(self) -> dict[str, Any]:
        """Everything, each sample included, as JSON."""
        return {"benchmark": "shapes", **asdict(self)}

    def to_text(self) -> str:
        """A table for people."""
        rows = [("painting", self.overall), *((f"  {name}", value) for name, value in self.tasks.items())]
        rows += [("questions", self.questions), *((f"  {name}", value) for name, value in self.kinds.items())]
        rows += [(f"withheld pairs, {name}", value) for name, value in self.withheld.items()]
        lines = [f"{name:<28}{value}" for name, value in rows if value is not None]
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return "\n".join([f"shapes benchmark of {self.model} ({settings}; {self.seconds:.0f} s)", *lines])


# -- what is right ---------------------------------------------------------------------


def judge(composition: Composition, found: Sequence[Found]) -> str:
    """What is wrong with a picture of a composition, by GenEval's rules; "" if it is right. found: the surest first."""
    matched: list[list[Found]] = []
    for mention in composition.mentions:
        alike = [one for one in found if one.shape == mention.shape]
        chosen = alike[: mention.count]
        if len(chosen) < mention.count:
            return f"{len(alike) or 'no'} {_named(mention.shape, len(alike))}"
        if composition.task == "counting" and len(alike) > mention.count:
            return f"{len(alike)} {plural(mention.shape)}"
        if mention.colour is not None and any(one.colour != mention.colour for one in chosen):
            return f"the {mention.shape} is {', '.join(sorted({one.colour for one in chosen}))}"
        matched.append(chosen)
    if composition.relation is not None:
        holds = relations(matched[0][0], matched[1][0])
        if composition.relation not in holds:
            first, second = composition.mentions
            return f"the {first.shape} is {' and '.join(sorted(holds)) or 'too near to say where from'} the {second.shape}"
    return ""


def _named(shape: str, count: int) -> str:
    return shape if count == 1 else plural(shape)


def normalise(answer: str) -> str:
    """Lower case, without articles, trailing full stops and spare blanks, numbers as digits."""
    words = answer.lower().strip().rstrip(".").split()
    # An article alone is an answer: "A" of a choice.
    kept = [word for word in words if word not in _ARTICLES] or words
    return " ".join(str(NUMBERS.index(word)) if word in NUMBERS else word for word in kept)


# -- running ---------------------------------------------------------------------------


def run_benchmark(
    janus: Janus,
    images_per_prompt: int = 4,
    prompts: Sequence[PromptCase] | None = None,
    questions: Sequence[QuestionCase] | None = None,
    seed: int = 0,
    limit: int | None = None,
    size: int = CANVAS,
    progress: Callable[[int, int], None] = lambda done, total: None,
    keep: Callable[[Painted | Answered, Image.Image], None] = lambda sample, image: None,
) -> Report:
    """A model's scores, with its default settings, greedy answers, and pictures i of each prompt drawn from seed + i.

    prompts, questions: None is all of the benchmark, with the withheld pairs. limit: only the first so many of each.
    size: of the scenes shown; best what the model reads, so that nothing is resampled.
    progress(done, total) counts pictures and answers; keep(sample, image) is shown every sample once, prompts first.
    PromptError if there is nothing to do.
    """
    prompts = [*held_out_prompts(), *withheld_prompts()] if prompts is None else prompts
    questions = [*held_out_questions(), *withheld_questions()] if questions is None else questions
    if limit is not None:
        prompts = _first_of_each(prompts, [case.task for case in prompts], limit)
        questions = _first_of_each(questions, [case.kind for case in questions], limit)
    total = len(prompts) * images_per_prompt + len(questions)
    if total == 0:
        raise PromptError("the benchmark was given neither prompts nor questions; give one at least")
    started = time.monotonic()
    options = ImageOptions(n=images_per_prompt, seed=seed)
    painted: list[Painted] = []
    for cases in _batches(prompts, max(1, ROWS // images_per_prompt)):
        pictures = janus.paint([case.text for case in cases], options)
        for number, picture in enumerate(pictures):
            case = cases[number // images_per_prompt]
            found = tuple(read_scene(picture.image))
            wrong = judge(case.composition, found)
            painted.append(Painted(case.task, case.text, picture.seed, not wrong, wrong, found))
            keep(painted[-1], picture.image)
        progress(len(painted), total)
    answered: list[Answered] = []
    for asked in _batches(questions, ROWS):
        images = [Image.fromarray(draw(case.scene, size)) for case in asked]
        answers = janus.understand([case.question for case in asked], [[image] for image in images], max_tokens=MAX_TOKENS)
        for one, image, answer in zip(asked, images, answers, strict=True):
            right = normalise(answer) == normalise(one.answer)
            answered.append(Answered(one.kind, one.question, one.answer, answer, right))
            keep(answered[-1], image)
        progress(len(painted) + len(answered), total)
    settings = {"images_per_prompt": images_per_prompt, "seed": seed, "limit": limit, "size": size}
    return _report(janus.name, settings, images_per_prompt, painted, answered, time.monotonic() - started)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _first_of_each(items: Sequence[T], names: Sequence[str], limit: int) -> list[T]:
    """The first `limit` items of each name."""
    return [item for place, item in enumerate(items) if names[:place].count(names[place]) < limit]


def _report(
    model: str,
    settings: dict[str, Any],
    per_prompt: int,
    painted: Sequence[Painted],
    answered: Sequence[Answered],
    seconds: float,
) -> Report:
    right: dict[str, list[list[bool]]] = {}
    for group in _batches(painted, per_prompt):
        right.setdefault(group[0].task, []).append([sample.right for sample in group])
    told: dict[str, list[list[bool]]] = {}
    for answer in answered:
        told.setdefault(answer.kind, []).append([answer.right])
    withheld = {}
    for name, scores in (("prompts", right), ("questions", told)):
        if WITHHELD_TASK in scores:
            withheld[name] = score([scores.pop(WITHHELD_TASK)])
    return Report(
        model,
        settings,
        {task: score([groups]) for task, groups in right.items()},
        score(list(right.values())) if right else None,
        {kind: score([groups]) for kind, groups in told.items()},
        # Every question counts alike.
        score([[group for groups in told.values() for group in groups]]) if told else None,
        withheld,
        seconds,
        tuple(painted),
        tuple(answered),
    )
