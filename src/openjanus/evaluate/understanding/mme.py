"""MME: fourteen small yes-or-no tasks, two questions an image (Fu et al. 2023)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.errors import DataError
from openjanus.evaluate.answers.yes_no import by_beginning, by_words
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, by_task
from openjanus.evaluate.files.finding import check_ids, data_folder, file_image, find
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.intervals import Evidence, Floats
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.prompts import NO_SYSTEM, ROLES, yes_no

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
QUESTIONS = 2374
_SUFFIXES = (".jpg", ".png", ".jpeg")


class MME(Benchmark):
    """A task's score is accuracy plus accuracy+ (both questions of an image), 200 at most; perception sums ten, cognition 4."""

    name = "mme"
    title = "MME: 14 yes-or-no tasks, two questions an image; perception (2000) and cognition (800)"
    source = "the folder MME_Benchmark_release_version, with a folder for each task, or VLMEvalKit's MME.tsv"
    protocols = ("vlmevalkit", "lmms-eval")
    roles = ROLES
    tied = True

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of MME.tsv, or of the released folders."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "MME.tsv"):
            made: list[Case] = []
            for row in read_table(table, ("index", "question", "answer", "category", "image_path")):
                image = f"{row.get('category')}/{row.get('image_path')}"
                made.append(_question(row.index, row.get("category"), image, row.get("question"), row.get("answer"), row.image))
            return made
        root = find(folder, PERCEPTION[0])
        if root is None:
            raise DataError(f"{folder} has neither MME.tsv nor a folder {PERCEPTION[0]}; mme needs {self.source}")
        made = [case for task in (*PERCEPTION, *COGNITION) for case in _released(root.parent / task)]
        check_ids((case.id for case in made), root.parent)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Counts that the release does not have."""
        told = [] if len(cases) == QUESTIONS else [f"there are {len(cases)} questions; the release has {QUESTIONS}"]
        lacking = [task for task in (*PERCEPTION, *COGNITION) if task not in {case.task for case in cases}]
        return told + ([f"tasks are missing: {', '.join(lacking)}; sums are lower for it"] if lacking else [])

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """Yes or no by the protocol's rule; what is neither is wrong."""
        read = by_words if self.protocol == "vlmevalkit" else by_beginning
        for case, (sample,) in done:
            said, expected = read(sample.text), case.facts["answer"]
            yield Judgement(case.id, 0, case.task, case.group, said == expected, said or "unknown", expected)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Perception and cognition, then every task."""
        tasks = by_task(judgements)
        made = []
        for name, parts in (("perception", PERCEPTION), ("cognition", COGNITION)):
            own = [task for task in parts if task in tasks]
            if own:
                count = sum(len(tasks[task]) for task in own)
                made.append(Measure(name, tuple(_pairs(tasks[task]) for task in own), count, _sum_of_tasks, scale=1.0))
        singles = [Measure(task, (_pairs(ones),), len(ones), _sum_of_tasks, scale=1.0) for task, ones in tasks.items()]
        return made + singles


def _pairs(judgements: Sequence[Judgement]) -> Evidence:
    """For each image: right answers, answers, whether all are right, 1."""
    images: dict[str, list[float]] = {}
    for one in judgements:
        images.setdefault(one.group, []).append(float(one.value))
    return Evidence.of((image, (sum(right), len(right), float(all(right)), 1.0)) for image, right in images.items())


def _sum_of_tasks(strata: Sequence[Floats]) -> Any:
    return np.sum([100 * (sums[..., 0] / sums[..., 1] + sums[..., 2] / sums[..., 3]) for sums in strata], axis=0)


def _question(name: str, task: str, image: str, text: str, answer: str, picture: Any) -> Question:
    facts = {"answer": answer.strip().lower()}
    return Question(name, task, yes_no(text), (picture,), facts, group=image, system_prompt=NO_SYSTEM)


def _released(folder: Path) -> Iterator[Case]:
    """A task of the release: a text file beside each image, or in a folder of their own, two lines of question, tab, answer."""
    texts = sorted((folder / "questions_answers_YN").glob("*.txt")) or sorted(folder.glob("*.txt"))
    for path in texts:
        images = [
            place / f"{path.stem}{suffix}"
            for place in (folder / "images", folder)
            for suffix in _SUFFIXES
            if (place / f"{path.stem}{suffix}").is_file()
        ]
        if not images:
            raise DataError(f"{path} has no image of its name beside it; the download is not whole: fetch MME again")
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, line in enumerate(lines):
            question, _, answer = line.partition("\t")
            if answer.strip().lower() not in ("yes", "no"):
                raise DataError(f"{path} line {number + 1} is not a question, a tab, and Yes or No; fetch MME again")
            image = f"{folder.name}/{path.stem}"
            yield _question(f"{image}/{number}", folder.name, image, question, answer, file_image(images[0]))
