"""The shapes benchmark: GenEval's rules by hand, and a run from end to end with models that know everything or nothing."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from openjanus.cli import console
from openjanus.cli.evaluate import evaluate
from openjanus.data.shapes import WITHHELD, draw, relations
from openjanus.data.shapes_compositions import TASKS, Composition, Mention, sample_scene
from openjanus.data.shapes_questions import KINDS, held_out
from openjanus.data.shapes_streams import painting
from openjanus.errors import ConfigError, PromptError
from openjanus.evaluate.intervals import score
from openjanus.evaluate.shapes import judge, normalise, run_benchmark
from openjanus.evaluate.shapes_cases import held_out_prompts, held_out_questions, withheld_prompts, withheld_questions
from openjanus.evaluate.shapes_reader import Found
from openjanus.janus import Janus
from openjanus.types import ImageOptions

PROMPTS = [*held_out_prompts(), *withheld_prompts()]
QUESTIONS = [*held_out_questions(), *withheld_questions()]
COMPOSITIONS = {case.text: case.composition for case in PROMPTS}


class Knowing:
    """Paints every prompt of the benchmark truly, and knows the answer to every question about every picture of it."""

    name = "knowing"
    fingerprint = "0123456789abcdef"
    model = SimpleNamespace(
        parameters=nn.Linear(1, 1).parameters,
        dtype="float32",
        device=SimpleNamespace(type="cpu"),
    )
    processor = SimpleNamespace(images=SimpleNamespace(config=SimpleNamespace(image_size=48)))
    untrained = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def forget(self) -> None:
        pass

    def paint(self, prompt: Sequence[str], options: ImageOptions) -> list[Any]:
        self.batches.append(len(prompt) * options.n)
        assert options.seed is not None
        seeds = range(options.seed, options.seed + options.n)
        return [SimpleNamespace(image=self.picture(text, seed), prompt=text, seed=seed) for text in prompt for seed in seeds]

    def picture(self, text: str, seed: int) -> Image.Image:
        rng = np.random.default_rng((seed, len(text)))
        return Image.fromarray(draw(sample_scene(rng, COMPOSITIONS[text], withheld=True), 48))

    def understand(self, question: Sequence[str], images: Sequence[Sequence[Image.Image]], max_tokens: int) -> list[str]:
        self.batches.append(len(question))
        return [self.answer(text, np.asarray(group[0])) for text, group in zip(question, images, strict=True)]

    def answer(self, question: str, image: Any) -> str:
        (answer,) = {
            case.answer for case in QUESTIONS if case.question == question and np.array_equal(draw(case.scene, len(image)), image)
        }
        return f" {answer.upper()} "


class Ignorant(Knowing):
    """Paints nothing and answers nothing of use."""

    name = "ignorant"

    def picture(self, text: str, seed: int) -> Image.Image:
        return Image.new("RGB", (48, 48), (128, 128, 128))

    def answer(self, question: str, image: Any) -> str:
        return "I do not know."


def found(shape: str, colour: str = "red", x: float = 32, y: float = 32, agreement: float = 0.99) -> Found:
    return Found(shape, colour, (x, y), 20.0, agreement)


# -- what is asked ---------------------------------------------------------------------


def test_prompts_are_those_of_genevals_tasks_and_held_out():
    counts = Counter(case.task for case in PROMPTS)
    assert counts == {
        "single_object": 24,
        "two_object": 24,
        "counting": 24,
        "colors": 32,
        "position": 32,
        "color_attr": 32,
        "withheld": 24,
    }
    for case in held_out_prompts():
        assert case.composition.task == case.task and case.composition.held_out and not case.composition.withheld
    assert len({case.text for case in PROMPTS}) == len(PROMPTS)
    assert Counter(case.composition.relation for case in PROMPTS if case.task == "position") == {
        "left of": 8,
        "right of": 8,
        "above": 8,
        "below": 8,
    }
    texts = {case.text for case in PROMPTS}
    assert {"a circle", "a photo of a star", "a circle and a diamond", "three circles", "a red diamond", "a red star"} <= texts
    pairs = {(m.colour, m.shape) for case in withheld_prompts() for m in case.composition.mentions}
    assert pairs == WITHHELD


def test_no_training_caption_is_a_prompt():
    assert not {painting(0, k).text.lower().rstrip(".") for k in range(5000)} & {case.text for case in PROMPTS}


def test_questions_are_of_every_kind_and_held_out():
    assert Counter(case.kind for case in QUESTIONS) == {**dict.fromkeys(KINDS, 40), "withheld": 40}
    for case in held_out_questions():
        assert held_out(case.question, case.scene)
        assert not {(thing.colour, thing.shape) for thing in case.scene.objects} & WITHHELD
    assert held_out_questions(3) == held_out_questions(3)
    for case in withheld_questions():
        assert {(thing.colour, thing.shape) for thing in case.scene.objects} & WITHHELD


def test_guessing_the_commonest_answer_reaches_no_more_than_half():
    for kind in KINDS:
        (_, most), *_ = Counter(case.answer for case in QUESTIONS if case.kind == kind).most_common()
        assert most <= 26, kind


# -- what is right ---------------------------------------------------------------------

RED_CIRCLE, BLUE_STAR = Mention("circle", "red"), Mention("star", "blue")


@pytest.mark.parametrize(
    ("composition", "seen", "wrong"),
    [
        # an object: one at least, in any colour; others do no harm
        (Composition((Mention("circle"),)), [found("circle", "blue")], ""),
        (Composition((Mention("circle"),)), [found("circle"), found("circle"), found("star")], ""),
        (Composition((Mention("circle"),)), [found("star")], "no circles"),
        # two objects
        (Composition((Mention("circle"), Mention("star"))), [found("star"), found("circle")], ""),
        (Composition((Mention("circle"), Mention("star"))), [found("circle")], "no stars"),
        # counting: exactly so many
        (Composition((Mention("square", count=3),)), [found("square")] * 3, ""),
        (Composition((Mention("square", count=3),)), [found("square")] * 3 + [found("star")], ""),
        (Composition((Mention("square", count=3),)), [found("square")] * 2, "2 squares"),
        (Composition((Mention("square", count=3),)), [found("square")] * 4, "4 squares"),
        (Composition((Mention("square", count=2),)), [found("square")], "1 square"),
        # colours: the surest of a shape is looked at
        (Composition((RED_CIRCLE,)), [found("circle", "red")], ""),
        (Composition((RED_CIRCLE,)), [found("circle", "blue")], "the circle is blue"),
        (Composition((RED_CIRCLE,)), [found("circle", "blue"), found("circle", "red")], "the circle is blue"),
        (Composition((RED_CIRCLE,)), [found("star", "red"), found("circle", "red")], ""),
        # position: places and colours
        (Composition((RED_CIRCLE, BLUE_STAR), "left of"), [found("circle", x=10), found("star", "blue", x=50)], ""),
        (
            Composition((RED_CIRCLE, BLUE_STAR), "left of"),
            [found("circle", x=50), found("star", "blue", x=10)],
            "the circle is right of the star",
        ),
        (
            Composition((RED_CIRCLE, BLUE_STAR), "left of"),
            [found("circle", x=30), found("star", "blue", x=34)],
            "the circle is too near to say where from the star",
        ),
        (
            Composition((RED_CIRCLE, BLUE_STAR), "left of"),
            [found("circle", x=10), found("star", "red", x=50)],
            "the star is red",
        ),
        # colour attribution: both
        (Composition((RED_CIRCLE, BLUE_STAR)), [found("star", "blue"), found("circle", "red")], ""),
        (Composition((RED_CIRCLE, BLUE_STAR)), [found("star", "red"), found("circle", "blue")], "the circle is blue"),
    ],
)
def test_pictures_are_judged_by_genevals_rules(composition: Composition, seen: list[Found], wrong: str):
    assert judge(composition, seen) == wrong


def test_found_objects_stand_to_each_other_as_drawn_ones_do():
    assert relations(found("circle", x=10, y=10), found("star", x=50, y=50)) == {"left of", "above"}


@pytest.mark.parametrize(
    ("answer", "same_as"),
    [
        ("Yes.", "yes"),
        (" The Red  Circle ", "a red circle"),
        ("Three", "3"),
        ("A", "a"),
        ("A red circle and a blue star.", "red circle and blue star"),
    ],
)
def test_answers_are_compared_without_case_articles_and_full_stops(answer: str, same_as: str):
    assert normalise(answer) == normalise(same_as)


@pytest.mark.parametrize(("answer", "other"), [("A", ""), ("A", "B"), ("a red circle", "a blue circle"), ("yes", "yes it is")])
def test_different_answers_stay_different(answer: str, other: str):
    assert normalise(answer) != normalise(other)


# -- scores ----------------------------------------------------------------------------


def test_the_overall_score_is_the_mean_of_the_tasks_and_not_of_the_pictures():
    made = score([[[True] * 4] * 10, [[False] * 4]])
    assert (made.mean, made.right, made.count) == (0.5, 40, 44)


def test_an_interval_is_as_wide_as_its_evidence():
    rng = np.random.default_rng(0)
    few = score([[[bool(right)] for right in rng.random(50) < 0.7]])
    many = score([[[bool(right)] for right in rng.random(5000) < 0.7]])
    # 1.96 standard errors of a mean of 0 and 1.
    assert many.high - many.low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 5000) ** 0.5, rel=0.1)
    assert few.low < 0.7 < few.high and few.high - few.low > 5 * (many.high - many.low)
    # Four pictures that always fail together are one piece of evidence.
    repeated = score([[[bool(right)] * 4 for right in rng.random(200) < 0.7]])
    assert repeated.high - repeated.low == pytest.approx(2 * 1.96 * (0.7 * 0.3 / 200) ** 0.5, rel=0.2)
    assert score([[[True]]]) == score([[[True]]])


# -- a whole run -----------------------------------------------------------------------


def test_a_model_that_knows_everything_scores_one():
    knowing, steps = Knowing(), []
    report = run_benchmark(
        knowing,  # type: ignore[arg-type]
        size=48,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert [one for one in report.judgements if not one.value] == []
    assert report.overall is not None and report.overall.mean == report.overall.low == 1
    assert report.questions is not None and report.questions.mean == 1
    assert list(report.tasks) == list(TASKS) and list(report.kinds) == list(KINDS)
    assert {score.mean for score in [*report.tasks.values(), *report.kinds.values(), *report.withheld.values()]} == {1}
    assert set(report.withheld) == {"prompts", "questions"}
    total = 4 * len(PROMPTS) + len(QUESTIONS)
    assert steps[-1] == (total, total) and steps == sorted(steps)
    assert len(report.judgements) == total and max(knowing.batches) == 32
    assert {one.number for one in report.judgements} == {0, 1, 2, 3}


def test_a_model_that_knows_nothing_scores_zero():
    report = run_benchmark(Ignorant(), images_per_prompt=1, seed=5)  # type: ignore[arg-type]
    assert report.overall is not None and report.overall.mean == report.overall.high == 0
    assert report.questions is not None and report.questions.mean == 0
    assert report.judgements[0].wrong == "no circles" and report.settings["seed"] == 5


def test_one_half_may_be_run_alone():
    painted = run_benchmark(Knowing(), 2, questions=[], limit=2)  # type: ignore[arg-type]
    assert painted.questions is None and painted.kinds == {} and len(painted.judgements) == 7 * 2 * 2
    answered = run_benchmark(Knowing(), prompts=[], limit=1)  # type: ignore[arg-type]
    assert answered.overall is None and len(answered.judgements) == len(KINDS) + 1
    assert "painting" not in answered.to_text()
    with pytest.raises(PromptError, match="neither prompts nor questions"):
        run_benchmark(Knowing(), prompts=[], questions=[])  # type: ignore[arg-type]


def test_a_report_is_json_and_a_table():
    report = run_benchmark(Knowing(), 1, limit=1)  # type: ignore[arg-type]
    full = json.loads(json.dumps(report.to_json()))
    assert full["overall"]["mean"] == 1 and full["judgements"][0]["facts"]["found"][0]["shape"] == "circle"
    assert "judgements" not in report.summary() and report.summary()["tasks"]["counting"]["count"] == 1
    assert "single_object" in report.to_text() and "withheld pairs, prompts" in report.to_text()


def test_the_models_run_and_give_the_same_twice(janus: Janus):
    first, second = (run_benchmark(janus, 1, limit=1, size=16) for _ in range(2))
    assert first.judgements == second.judgements
    assert first.overall is not None and first.overall.mean == 0


# -- the command ---------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(console, "load_model", lambda *_: Knowing())
    app = typer.Typer()
    app.command()(evaluate)
    return app


def test_the_command_prints_scores_and_writes_its_folder(command: typer.Typer, tmp_path: Path):
    arguments = ["shapes", "--images-per-prompt", "1", "--limit", "2", "-o", str(tmp_path / "run")]
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "painting" in done.stdout and "1.000" in done.stdout
    assert (tmp_path / "run" / "report.json").exists() and "report.html" in done.stdout
    assert (tmp_path / "run" / "shapes" / "00000" / "samples" / "0000.png").exists()


def test_the_command_prints_json(command: typer.Typer):
    done = CliRunner().invoke(command, ["shapes", "--limit", "1", "--json"], catch_exceptions=False)
    summary = json.loads(done.stdout)
    assert summary["benchmark"] == "shapes" and summary["settings"]["size"] == 48


def test_an_unknown_benchmark_lists_those_there_are(command: typer.Typer):
    done = CliRunner().invoke(command, ["geneval2"])
    assert isinstance(done.exception, ConfigError)
    assert "no benchmark 'geneval2'" in str(done.exception) and "shapes" in str(done.exception)
