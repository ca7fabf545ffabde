"""DPG-Bench: long prompts, judged by questions that depend on each other (Hu et al. 2024, ELLA)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from openjanus.errors import DataError, ImageError
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Painting, valued
from openjanus.evaluate.files.finding import data_folder, require
from openjanus.evaluate.intervals import Evidence
from openjanus.evaluate.judges.text import JudgeError
from openjanus.evaluate.tools import Tools, key_of

PROMPTS = 1065
IMAGES_PER_PROMPT = 4
_COLUMNS = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")


class DPG(Benchmark):
    """The mean over prompts of the mean share of questions that are answered "yes" and whose parents are too.

    Protocols: official does as the published script: the first row of the file is lost, prompts whose questions then lack a
    parent are dropped (and listed here), and categories are of the last picture alone, before parents count. fixed keeps every
    row, and categories are of all pictures, after parents count.
    """

    name = "dpg"
    title = "DPG-Bench: 1,065 long prompts, four pictures each, some fourteen questions a prompt"
    source = "dpg_bench.csv and the folder prompts of github.com/TencentQQGYLab/ELLA (folder dpg_bench)"
    protocols = ("official", "fixed")
    tied = True

    def cases(self, data: Path | None) -> list[Case]:
        """A prompt a text file; its pictures tiled into one PNG of that name, as the official script reads them."""
        folder = data_folder(data, self.name, self.source)
        table = require(folder, self.name, self.source, "dpg_bench.csv")
        prompts = require(folder, self.name, self.source, "prompts")
        questions = read_questions(table, self.protocol)
        texts = {path.stem: path.read_text(encoding="utf-8").strip() for path in sorted(prompts.glob("*.txt"))}
        lacking = [name for name in questions if name not in texts]
        if lacking:
            raise DataError(
                f"{prompts} lacks {len(lacking)} of {len(questions)} prompts (first: {lacking[0]}.txt); fetch DPG-Bench again"
            )
        count = self.settings.images_per_prompt or IMAGES_PER_PROMPT
        return [
            Painting(name, "overall", texts[name], {"questions": asked}, count, (f"images/{name}.png",))
            for name, asked in questions.items()
        ]

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of prompts."""
        return [] if len(cases) == PROMPTS else [f"there are {len(cases)} prompts; the release has {PROMPTS}"]

    def wanted(self, tools: Tools) -> None:
        """The judge of pictures."""
        _ = tools.visual_judge

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """The share of each picture's questions that hold; answers are kept as they come."""
        for case, samples in done:
            asked = case.facts["questions"]
            orphan = _orphan(asked)
            for one in samples:
                try:
                    if orphan:
                        raise DataError(f"question {orphan} depends on one that the official script loses; it drops the prompt")
                    answers = _answers(case, one.image, one.number, len(samples), tools)
                except (DataError, ImageError, JudgeError) as error:
                    yield Judgement(case.id, one.number, case.task, case.id, expected=case.text, skipped=str(error))
                    continue
                raw = {number: float(answer == "yes") for number, answer in answers.items()}
                held = with_parents(raw, asked)
                categories = _categories(asked, raw if self.protocol == "official" else held)
                yield Judgement(
                    case.id,
                    one.number,
                    case.task,
                    case.id,
                    value=sum(held.values()) / len(held),
                    read=f"{int(sum(held.values()))} of {len(held)} hold",
                    expected=case.text,
                    wrong="; ".join(asked[number]["question"] for number, points in held.items() if not points),
                    facts={"categories": categories, "last": one.number == len(samples) - 1},
                )

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Overall, then the five categories."""
        made = [Measure("overall", (_prompt_means(judgements),), len(judgements))]
        shown = [one for one in judgements if one.facts["last"]] if self.protocol == "official" else judgements
        for name in sorted({category for one in shown for category in one.facts["categories"]}):
            own = [one for one in shown if name in one.facts["categories"]]
            evidence = valued(own, lambda one, name=name: one.facts["categories"][name])  # type: ignore[misc]
            made.append(Measure(name, (evidence,), int(evidence.sums[:, 1].sum())))
        return made


def read_questions(path: Path, protocol: str) -> dict[str, dict[str, dict[str, Any]]]:
    """By prompt and number: the question, its category, the numbers of its parents. DataError for a broken file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} has no column {lacking[0]!r}; this is another file, or another version of it")
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); it is broken or half-downloaded: fetch it again") from error
    if not rows:
        raise DataError(f"{path} has no rows; it is broken or half-downloaded: fetch it again")
    questions: dict[str, dict[str, dict[str, Any]]] = {}
    for place, row in enumerate(rows):
        if protocol == "official" and not place:
            continue
        try:
            number, parents = str(int(row["proposition_id"])), [str(int(one)) for one in row["dependency"].split(",")]
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} row {place + 1} has no numbers of question and parents ({error}); fetch it again") from error
        own = questions.setdefault(row["item_id"], {})
        if protocol != "official" and number in own:
            raise DataError(f"{path} has question {number} of {row['item_id']} twice; fetch it again")
        category = row["tuple"].split("(")[0].strip().split("-")[0].strip()
        own[number] = {
            "question": row["question_natural_language"],
            "category": category,
            "parents": [one for one in parents if one != "0"],
        }
    return questions


def _orphan(asked: Mapping[str, Mapping[str, Any]]) -> str:
    """A question one of whose parents is not there, "" if there is none."""
    return next((number for number, one in asked.items() if any(parent not in asked for parent in one["parents"])), "")


def with_parents(points: Mapping[str, float], asked: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Points of questions, taken in order: none where a parent has none, as it stands by then."""
    held = dict(points)
    for number, one in asked.items():
        if any(held[parent] == 0 for parent in one["parents"]):
            held[number] = 0.0
    return held


def _categories(asked: Mapping[str, Mapping[str, Any]], points: Mapping[str, float]) -> dict[str, list[float]]:
    """Points and questions of each category."""
    sums: dict[str, list[float]] = {}
    for number, one in asked.items():
        own = sums.setdefault(one["category"], [0.0, 0.0])
        own[0] += points[number]
        own[1] += 1
    return sums


def _prompt_means(judgements: Sequence[Judgement]) -> Evidence:
    """Every prompt counts alike, whatever the number of its pictures."""
    values: dict[str, list[float]] = {}
    for one in judgements:
        values.setdefault(one.group, []).append(one.value)
    return Evidence.of((prompt, (sum(own) / len(own), 1.0)) for prompt, own in values.items())


def _answers(case: Case, file: str, number: int, count: int, tools: Tools) -> dict[str, str]:
    """The judge's answer to every question about one tile of a picture."""
    judge = tools.visual_judge
    image = tile(tools.picture(file), number, count)
    return {
        name: tools.verdicts.get(key_of(judge.name, file, number, name), lambda one=one: judge.answer(image, one["question"]))  # type: ignore[misc]
        for name, one in case.facts["questions"].items()
    }


def tile(image: Image.Image, number: int, count: int) -> Image.Image:
    """Picture `number` of `count` that were tiled in rows of two."""
    across, down = min(2, count), -(-count // 2)
    width, height = image.width // across, image.height // down
    left, top = number % 2 * width, number // 2 * height
    return image.crop((left, top, left + width, top + height))
