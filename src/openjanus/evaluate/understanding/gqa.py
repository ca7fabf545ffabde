"""GQA: questions about scenes, of one or two words' answer (Hudson and Manning 2019)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, by_task, mean
from openjanus.evaluate.files.finding import check_images, data_folder, fields, file_image, find, read_json, require
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.prompts import NO_SYSTEM, ROLES, short

QUESTIONS = 12_578


class GQA(Benchmark):
    """testdev, balanced. Protocols: vlmevalkit compares without regard to case; llava also drops a full stop at the end."""

    name = "gqa"
    title = "GQA testdev-balanced: 12,578 short questions about scenes"
    source = "testdev_balanced_questions.json with the folder images, or VLMEvalKit's GQA_TestDev_Balanced.tsv"
    protocols = ("vlmevalkit", "llava")
    roles = ROLES

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of the table or of the official file."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "GQA_TestDev_Balanced.tsv"):
            rows = read_table(table, ("index", "question", "answer"))
            return [
                _question(row.index, row.get("category") or "all", row.get("question"), row.get("answer"), row.index, row.image)
                for row in rows
            ]
        path = require(folder, self.name, self.source, "testdev_balanced_questions.json")
        content = read_json(path)
        images = require(folder, self.name, self.source, "images")
        made: list[Case] = []
        paths = []
        for name, record in content.items():
            question, answer, image = fields(record, ("question", "answer", "imageId"), f"{path} question {name}")
            kind = (record.get("types") or {}).get("structural", "all")
            paths.append(images / f"{image}.jpg")
            made.append(_question(name, kind, question, answer, image, file_image(paths[-1])))
        check_images(paths, self.name)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of questions."""
        return [] if len(cases) == QUESTIONS else [f"there are {len(cases)} questions; testdev-balanced has {QUESTIONS}"]

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """Exact match."""
        for case, (sample,) in done:
            said = sample.text.strip().lower()
            if self.protocol == "llava":
                said = said.rstrip(".")
            expected = case.facts["answer"].strip().lower()
            yield Judgement(case.id, 0, case.task, case.group, said == expected, said, expected)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Accuracy, and for each kind of question."""
        return [mean("accuracy", judgements), *(mean(task, ones) for task, ones in by_task(judgements).items())]


def _question(name: str, kind: str, question: str, answer: str, image: str, picture: Any) -> Question:
    return Question(name, kind, short(question), (picture,), {"answer": answer}, group=image, system_prompt=NO_SYSTEM)
