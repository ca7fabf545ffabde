"""MMMU: college questions in thirty subjects, with one or several images (Yue et al. 2023)."""

import random
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from openjanus.errors import DataError
from openjanus.evaluate.answers.mmmu import choose, open_is_right, read_open
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Picture, Question, by_task, mean
from openjanus.evaluate.files.finding import DEPTH, check_ids, data_folder, fields, find
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.matching import matched
from openjanus.evaluate.understanding.prompts import LETTERS, NO_SYSTEM, ROLES, TAG, choice
from openjanus.processing.images import open_image

QUESTIONS = 900
SEED = 42  # of the official choice where an answer says none
_IMAGE = re.compile(r"<image (\d)>")
_COLUMNS = ("id", "question", "options", "answer", "question_type")


class MMMU(Benchmark):
    """Validation. Protocols: vlmevalkit puts images first and makes open questions choices between their answer and others;
    official puts images where the question says and reads answers by MMMU's own rules."""

    name = "mmmu"
    title = "MMMU validation: 900 college questions in 30 subjects"
    source = "the validation parquet files of Hugging Face's MMMU/MMMU (a folder a subject), or VLMEvalKit's MMMU_DEV_VAL.tsv"
    protocols = ("vlmevalkit", "official")
    roles = ROLES

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of the validation split."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "MMMU_DEV_VAL.tsv"):
            rows = [
                row for row in read_table(table, ("index", "question", "answer", "split")) if row.get("split") == "validation"
            ]
            made: list[Case] = [
                self._case(
                    row.get("id") or row.index,
                    row.get("category") or "all",
                    row.get("question"),
                    {letter: row.get(letter) for letter in LETTERS if row.get(letter)},
                    row.get("answer"),
                    row.images,
                )
                for row in rows
            ]
            if not made:
                raise DataError(f"{table} has no rows of the split validation; fetch it again")
            return made
        paths = [path for depth in range(DEPTH) for path in sorted(folder.glob("*/" * depth + "validation-*.parquet"))]
        if not paths:
            raise DataError(f"{folder} has neither MMMU_DEV_VAL.tsv nor validation-*.parquet; mmmu needs {self.source}")
        released: list[Case] = [case for path in paths for case in self._released(path)]
        check_ids((case.id for case in released), folder)
        return released

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of questions."""
        return [] if len(cases) == QUESTIONS else [f"there are {len(cases)} questions; the validation split has {QUESTIONS}"]

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """By the protocol's rules."""
        chance = random.Random(SEED)
        for case, (sample,) in done:
            options, answer = case.facts["options"], case.facts["answer"]
            expected, silent = answer, ""
            if self.protocol == "official":
                if options:
                    read = choose(sample.text, options, chance)
                    right = read == answer
                else:
                    readings = read_open(sample.text)
                    read, right = "; ".join(map(str, readings)), open_is_right(readings, _golden(answer))
            else:
                given = options or {"A": answer, "B": "Other Answers"}
                expected = answer if options else "A"
                read, silent = matched(sample.text, case.facts["question"], given, tools)
                right = read == expected
            yield Judgement(case.id, 0, case.task, case.id, right, read or "unknown", expected, skipped=silent)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Accuracy over all questions, and in each subject."""
        return [mean("accuracy", judgements), *(mean(task, ones) for task, ones in by_task(judgements).items())]

    def _case(
        self, name: str, task: str, question: str, options: Mapping[str, str], answer: str, images: Sequence[Picture]
    ) -> Question:
        facts = {"question": question, "options": dict(options), "answer": answer}
        if self.protocol == "vlmevalkit":
            text = choice(question, options, images=len(images))
            return Question(name, task, text, tuple(images), facts, system_prompt=NO_SYSTEM)
        listed = "".join(f"({letter}) {option}\n" for letter, option in options.items())
        last = (
            "Answer with the option's letter from the given choices directly."
            if options
            else ("Answer the question using a single word or phrase.")
        )
        text = f"{question}\n\n{listed}\n{last}" if options else f"{question}\n\n{last}"
        # A question may show an image twice, and not all that it comes with.
        order = [int(number) - 1 for number in _IMAGE.findall(text)] or list(range(len(images)))
        if any(place >= len(images) for place in order):
            raise DataError(f"question {name} of MMMU shows image {max(order) + 1} and has {len(images)}; fetch it again")
        text = _IMAGE.sub(TAG, text) if _IMAGE.search(text) else TAG * len(images) + text
        return Question(name, task, text, tuple(images[place] for place in order), facts, system_prompt=NO_SYSTEM)

    def _released(self, path: Path) -> Iterator[Case]:
        try:
            from pyarrow import parquet
        except ImportError:
            raise DataError(f"{path} is parquet, which pyarrow reads; pip install 'openjanus[data]'") from None
        try:
            records = parquet.read_table(path).to_pylist()
        except Exception as error:
            raise DataError(
                f"{path} cannot be read as parquet ({error}); it is broken or half-downloaded: fetch it again"
            ) from error
        for record in records:
            name, question, options, answer, kind = fields(record, _COLUMNS, str(path))
            images = [
                partial(open_image, record[f"image_{number}"]["bytes"])
                for number in range(1, 8)
                if record.get(f"image_{number}") and record[f"image_{number}"].get("bytes")
            ]
            listed = literal_eval(options) if isinstance(options, str) else list(options or ())
            texts = dict(zip(LETTERS, map(str, listed), strict=False)) if kind == "multiple-choice" else {}
            subject = re.sub(r"^validation_|_\d+$", "", str(name))
            yield self._case(str(name), subject, question, texts, answer, images)


def _golden(answer: str) -> list[Any]:
    """The answers that count: one, or a list as Python writes it."""
    if answer.startswith("["):
        try:
            return [str(one) for one in literal_eval(answer)]
        except (ValueError, SyntaxError):
            pass
    return [answer]
