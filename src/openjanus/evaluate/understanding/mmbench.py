"""MMBench: choices that must be right however the options are turned (Liu et al. 2023, CircularEval)."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from openjanus.errors import DataError
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question
from openjanus.evaluate.files.finding import data_folder, require
from openjanus.evaluate.files.tables import Row, read_table
from openjanus.evaluate.intervals import Evidence, ratio
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.matching import matched
from openjanus.evaluate.understanding.prompts import LETTERS, NO_SYSTEM, ROLES, choice
from openjanus.files import replace_file

TURN = 1_000_000  # what a further rotation adds to the index of a question
QUESTIONS = {"dev": 1164, "test": 1784}
_FILES = ("MMBench_DEV_EN*.tsv", "mmbench_dev*.tsv", "MMBench_TEST_EN*.tsv", "mmbench_test*.tsv", "MMBench*.tsv")
_UNKNOWN = ""  # the answer of a test question


class MMBench(Benchmark):
    """A question counts only if all of its rotations are right; overall is the mean over questions."""

    name = "mmbench"
    title = "MMBench (English): choices, right only if right in every rotation of the options"
    source = "MMBench_DEV_EN.tsv (or _V11, or TEST_EN, whose answers go to the benchmark's server) as OpenCompass publishes it"
    protocols = ("vlmevalkit",)
    roles = ROLES
    tied = True

    def cases(self, data: Path | None) -> list[Case]:
        """All rotations: those of the file, or made here where it has each question once."""
        folder = data_folder(data, self.name, self.source)
        path = require(folder, self.name, self.source, *_FILES)
        rows = read_table(path, ("index", "question", "A", "B"))
        for row in rows:
            if not row.index.removesuffix(".0").isdecimal():
                raise DataError(f"{path} has the index {row.index!r}; MMBench's are whole numbers: this is another file")
        turned = any(_number(row) >= TURN for row in rows)
        return [
            case for row in rows for case in ([_case(row, _options(row), row.get("answer"), 0)] if turned else _rotations(row))
        ]

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Files of another version, and answers that only the server has."""
        count = len({case.group for case in cases})
        told = [] if count in QUESTIONS.values() else [f"there are {count} questions; dev has 1164 and test 1784 (V1.0)"]
        if any(case.facts["answer"] == _UNKNOWN for case in cases):
            told.append("answers are not public: predictions.tsv goes to the benchmark's server, and there is no score here")
        return told

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """The letter of each rotation's answer."""
        for case, (sample,) in done:
            expected = case.facts["answer"]
            if expected == _UNKNOWN:
                yield Judgement(case.id, 0, case.task, case.group, read=sample.text, skipped="its answer is not public")
                continue
            letter, silent = matched(sample.text, case.facts["question"], case.facts["options"], tools)
            right = letter == expected
            yield Judgement(case.id, 0, case.task, case.group, right, letter or "unknown", expected, skipped=silent)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Overall, every category, and what one pass would give."""
        made = [_circular("overall", judgements)]
        for task in dict.fromkeys(one.task for one in judgements):
            made.append(_circular(task, [one for one in judgements if one.task == task]))
        first = [one for one in judgements if one.case == one.group]
        made.append(Measure("one pass", (Evidence.of((one.group, (one.value, 1.0)) for one in first),), len(first)))
        return made

    def export(self, done: Done, folder: Path) -> list[Path]:
        """predictions.tsv, for the server."""
        path = folder / "predictions.tsv"
        lines: list[list[str]] = [["index", "question", "A", "B", "C", "D", "prediction"]]
        for case, samples in done:
            options = case.facts["options"]
            lines.append([case.id, case.facts["question"], *(options.get(letter, "") for letter in "ABCD"), samples[0].text])
        replace_file(path, "".join(_row(line) for line in lines).encode())
        return [path]


def _row(cells: Sequence[str]) -> str:
    from io import StringIO

    text = StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerow(cells)
    return text.getvalue()


def _circular(name: str, judgements: Sequence[Judgement]) -> Measure:
    questions: dict[str, bool] = {}
    for one in judgements:
        questions[one.group] = questions.get(one.group, True) and bool(one.value)
    evidence = Evidence.of((question, (float(right), 1.0)) for question, right in questions.items())
    return Measure(name, (evidence,), len(questions), ratio)


def _number(row: Row) -> int:
    return int(float(row.index))


def _options(row: Row) -> dict[str, str]:
    return {letter: row.get(letter) for letter in LETTERS if row.get(letter)}


def _rotations(row: Row) -> Iterator[Case]:
    """A question with its options turned by 0, 1, ... places."""
    options = _options(row)
    letters, texts = list(options), list(options.values())
    answer = row.get("answer")
    for turn in range(len(letters)):
        moved = {letter: texts[(place + turn) % len(texts)] for place, letter in enumerate(letters)}
        right = letters[(letters.index(answer) - turn) % len(letters)] if answer in letters else _UNKNOWN
        yield _case(row, moved, right, turn)


def _case(row: Row, options: Mapping[str, str], answer: str, turn: int) -> Question:
    number = _number(row) + turn * TURN
    facts: dict[str, Any] = {"question": row.get("question"), "options": dict(options), "answer": answer}
    text = choice(row.get("question"), options, row.get("hint"))
    task = row.get("l2-category") or row.get("category") or "all"
    return Question(str(number), task, text, (row.image,), facts, group=str(number % TURN), system_prompt=NO_SYSTEM)
