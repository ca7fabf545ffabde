"""SEED-Bench: choices about images in nine dimensions (Li et al. 2023)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, by_task, mean
from openjanus.evaluate.files.finding import check_ids, check_images, data_folder, fields, file_image, find, read_json, require
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.matching import matched
from openjanus.evaluate.understanding.prompts import LETTERS, NO_SYSTEM, ROLES, choice

QUESTIONS = (14_232, 14_233)
_FIELDS = ("question_id", "question", "choice_a", "choice_b", "choice_c", "choice_d", "answer", "data_id", "question_type_id")


class SEED(Benchmark):
    """The questions on images; the published numbers of the Janus papers are on these. Videos are left out.

    Protocols: vlmevalkit reads the letter by its rules; lmms-eval takes the answer's first character.
    """

    name = "seed"
    title = "SEED-Bench: 14,232 choices about images in nine dimensions"
    source = "SEED-Bench.json with the folder SEED-Bench-image, or VLMEvalKit's SEEDBench_IMG.tsv"
    protocols = ("vlmevalkit", "lmms-eval")
    roles = ROLES

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of the table, or those on images of the official file."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "SEEDBench_IMG.tsv"):
            rows = read_table(table, ("index", "question", "A", "B", "answer"))
            return [
                _question(
                    row.index,
                    row.get("category") or "all",
                    row.get("question"),
                    {letter: row.get(letter) for letter in LETTERS if row.get(letter)},
                    row.get("answer"),
                    row.image,
                )
                for row in rows
            ]
        path = require(folder, self.name, self.source, "SEED-Bench.json")
        content = read_json(path)
        records, types = fields(content, ("questions", "question_type"), str(path))
        names = {number: name for name, number in types.items()}
        images = require(folder, self.name, self.source, "SEED-Bench-image")
        made: list[Case] = []
        paths = []
        for place, record in enumerate(records):
            if not isinstance(record, dict) or record.get("data_type", "image") != "image":
                continue
            name, question, a, b, c, d, answer, image, kind = fields(record, _FIELDS, f"{path} question {place + 1}")
            paths.append(images / image)
            options = dict(zip("ABCD", (a, b, c, d), strict=True))
            made.append(_question(str(name), names.get(kind, str(kind)), question, options, answer, file_image(images / image)))
        check_ids((case.id for case in made), path)
        check_images(paths, self.name)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of questions."""
        return [] if len(cases) in QUESTIONS else [f"there are {len(cases)} questions on images; the release has {QUESTIONS[0]}"]

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """The letter of each answer."""
        for case, (sample,) in done:
            expected = case.facts["answer"]
            if self.protocol == "lmms-eval":
                letter, silent = sample.text.strip()[:1].upper(), ""
            else:
                letter, silent = matched(sample.text, case.facts["question"], case.facts["options"], tools)
            right = letter == expected
            yield Judgement(case.id, 0, case.task, case.id, right, letter or "unknown", expected, skipped=silent)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Accuracy over all questions, and in each dimension."""
        return [mean("accuracy", judgements), *(mean(task, ones) for task, ones in by_task(judgements).items())]


def _question(name: str, task: str, question: str, options: dict[str, str], answer: str, picture: Any) -> Question:
    facts = {"question": question, "options": options, "answer": answer.strip().upper()}
    return Question(name, task, choice(question, options), (picture,), facts, system_prompt=NO_SYSTEM)
