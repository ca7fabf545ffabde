"""The shapes benchmark: GenEval's six tasks and a question set on the synthetic world, scored exactly and without any network.

GenEval's rules: every object that is asked for must be there, in counting neither fewer nor more; of several of a shape the
surest are taken; colours and places must fit; other objects do no harm. Answers are compared word for word after `normalise`.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from openjanus.data.shapes import CANVAS, Scene, draw, relations
from openjanus.data.shapes_compositions import NUMBERS, TASKS, Composition, plural
from openjanus.data.shapes_questions import KINDS
from openjanus.environment import Share
from openjanus.errors import PromptError
from openjanus.evaluate.benchmark import (
    Benchmark,
    Case,
    Done,
    Judgement,
    Measure,
    Painting,
    Question,
    Settings,
    by_task,
    limited,
    mean,
    mean_of_tasks,
)
from openjanus.evaluate.intervals import Score, score
from openjanus.evaluate.samples import Samples
from openjanus.evaluate.sampling import Progress, sample, whole
from openjanus.evaluate.scoring import judged
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
from openjanus.evaluate.tools import Tools
from openjanus.janus import Janus

MAX_TOKENS = 64  # the longest right answer lists four objects
IMAGES_PER_PROMPT = 4
_ARTICLES = {"a", "an", "the"}
_PAINTED, _ASKED = "painting", "questions"


class Shapes(Benchmark):
    """The benchmark. Scenes are shown in the size that the model reads, so that nothing is resampled."""

    name = "shapes"
    title = "GenEval's six tasks (192 prompts, 4 pictures each) and 400 questions on drawn shapes"
    source = "drawn by the package itself; no data and no network needed"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._compositions = {case.text: case.composition for case in (*held_out_prompts(), *withheld_prompts())}

    def cases(self, data: Path | None = None) -> list[Case]:
        """Prompts, then questions, each with the withheld pairs at their end."""
        count = self.settings.images_per_prompt or IMAGES_PER_PROMPT
        return [
            *prompt_cases([*held_out_prompts(), *withheld_prompts()], count),
            *question_cases([*held_out_questions(), *withheld_questions()], self.drawn),
        ]

    def fit(self, image_size: int) -> None:
        """Take the model's size, unless one was asked for."""
        if self.settings.size is None:
            self.settings = replace(self.settings, size=image_size)

    def drawn(self, scene: Scene) -> Image.Image:
        """The picture of a scene that is asked about."""
        return Image.fromarray(draw(scene, self.settings.size or CANVAS))

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """Pictures are read from their pixels, answers compared."""
        for case, samples in done:
            group = case.group or case.id
            for one in samples:
                if isinstance(case, Question):
                    right = normalise(one.text) == normalise(case.facts["answer"])
                    yield Judgement(case.id, one.number, case.task, group, right, one.text, case.facts["answer"])
                    continue
                found = tuple(read_scene(tools.picture(one.image)))
                wrong = judge(self._compositions[case.text], found)
                seen = ", ".join(f"{thing.colour} {thing.shape}" for thing in found)
                facts = {"found": [asdict(thing) for thing in found]}
                yield Judgement(case.id, one.number, case.task, group, not wrong, seen, case.text, wrong, facts=facts)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Painting is the mean of its tasks, every question counts alike, withheld pairs are apart."""
        tasks = by_task(judgements)
        apart = {name: tasks.pop(name) for name in (f"{_PAINTED} {WITHHELD_TASK}", f"{_ASKED} {WITHHELD_TASK}") if name in tasks}
        made = []
        for half, summary in ((_PAINTED, mean_of_tasks), (_ASKED, mean)):
            own = {name: ones for name, ones in tasks.items() if name.startswith(half)}
            if own:
                made.append(summary(half, [one for ones in own.values() for one in ones], scale=1.0))
            made += [mean(name, ones, scale=1.0) for name, ones in own.items()]
        return made + [mean(f"{name} pairs", ones, scale=1.0) for name, ones in apart.items()]


def prompt_cases(prompts: Sequence[PromptCase], count: int) -> list[Case]:
    """Prompts as cases, `count` pictures each, in GenEval's layout."""
    return [
        Painting(
            f"p{number:03d}",
            f"{_PAINTED} {case.task}",
            case.text,
            {},
            count,
            tuple(f"{number:05d}/samples/{image:04d}.png" for image in range(count)),
        )
        for number, case in enumerate(prompts)
    ]


def question_cases(questions: Sequence[QuestionCase], drawn: Callable[[Scene], Image.Image]) -> list[Case]:
    """Questions as cases, each about the drawing of its scene."""
    return [
        Question(
            f"q{number:03d}",
            f"{_ASKED} {case.kind}",
            case.question,
            (partial(drawn, case.scene),),
            {"answer": case.answer},
            max_tokens=MAX_TOKENS,
        )
        for number, case in enumerate(questions)
    ]


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


# -- its own report --------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a model reached. tasks and kinds: scores by name; overall: the mean of the six tasks; questions: of the kinds.

    A score is None when nothing of it was run. withheld: prompts and questions of withheld pairs, in no other score.
    """

    model: str
    settings: Mapping[str, Any]
    tasks: Mapping[str, Score]
    overall: Score | None
    kinds: Mapping[str, Score]
    questions: Score | None
    withheld: Mapping[str, Score]
    seconds: float
    judgements: tuple[Judgement, ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The scores and settings alone, as JSON."""
        return {name: value for name, value in self.to_json().items() if name != "judgements"}

    def to_json(self) -> dict[str, Any]:
        """Everything, each judgement included, as JSON."""
        return {"benchmark": "shapes", **asdict(self)}

    def to_text(self) -> str:
        """A table for people."""
        rows = [("painting", self.overall), *((f"  {name}", value) for name, value in self.tasks.items())]
        rows += [("questions", self.questions), *((f"  {name}", value) for name, value in self.kinds.items())]
        rows += [(f"withheld pairs, {name}", value) for name, value in self.withheld.items()]
        lines = [f"{name:<28}{value}" for name, value in rows if value is not None]
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items() if value is not None)
        return "\n".join([f"shapes benchmark of {self.model} ({settings}; {self.seconds:.0f} s)", *lines])


def report_of(model: str, benchmark: Shapes, judgements: Sequence[Judgement], seconds: float) -> Report:
    """The report of a finished run."""
    groups: dict[str, dict[str, list[bool]]] = {}
    for one in judgements:
        groups.setdefault(one.task, {}).setdefault(one.group, []).append(bool(one.value))
    right = {task: list(ones.values()) for task, ones in groups.items()}
    withheld = {
        name: score([right[f"{half} {WITHHELD_TASK}"]])
        for name, half in (("prompts", _PAINTED), ("questions", _ASKED))
        if f"{half} {WITHHELD_TASK}" in right
    }
    tasks = {task: right[f"{_PAINTED} {task}"] for task in TASKS if f"{_PAINTED} {task}" in right}
    kinds = {kind: right[f"{_ASKED} {kind}"] for kind in KINDS if f"{_ASKED} {kind}" in right}
    settings = benchmark.settings
    return Report(
        model,
        {
            "images_per_prompt": settings.images_per_prompt or IMAGES_PER_PROMPT,
            "seed": settings.seed,
            "limit": settings.limit,
            "size": settings.size,
        },
        {task: score([ones]) for task, ones in tasks.items()},
        score(list(tasks.values())) if tasks else None,
        {kind: score([ones]) for kind, ones in kinds.items()},
        # Every question counts alike.
        score([[group for ones in kinds.values() for group in ones]]) if kinds else None,
        withheld,
        seconds,
        tuple(judgements),
    )


def run_benchmark(
    janus: Janus,
    images_per_prompt: int = IMAGES_PER_PROMPT,
    prompts: Sequence[PromptCase] | None = None,
    questions: Sequence[QuestionCase] | None = None,
    seed: int = 0,
    limit: int | None = None,
    size: int = CANVAS,
    progress: Progress = lambda done, total: None,
) -> Report:
    """A model's scores, with its default settings, greedy answers, and pictures i of each prompt drawn from seed + i.

    prompts, questions: None is all of the benchmark, with the withheld pairs. limit: only the first so many of each.
    size: of the scenes shown. progress(done, total) counts pictures and answers. Nothing is kept on disk.
    PromptError if there is nothing to do.
    """
    benchmark = Shapes(Settings(seed=seed, limit=limit, images_per_prompt=images_per_prompt, size=size))
    if prompts is None:
        prompts = [*held_out_prompts(), *withheld_prompts()]
    if questions is None:
        questions = [*held_out_questions(), *withheld_questions()]
    cases = limited([*prompt_cases(prompts, images_per_prompt), *question_cases(questions, benchmark.drawn)], limit)
    if not cases:
        raise PromptError("the benchmark was given neither prompts nor questions; give one at least")
    started = time.monotonic()
    with TemporaryDirectory(prefix="openjanus-") as folder:
        samples = Samples(Path(folder))
        sample(cases, janus, samples, benchmark.settings, Share(), progress)
        judgements = judged(benchmark, cases, whole(cases, samples), Tools(Path(folder)))
    return report_of(janus.name, benchmark, judgements, time.monotonic() - started)
