"""POPE: does the model see objects that are not there? Yes-or-no questions in three splits (Li et al. 2023)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.evaluate.answers.yes_no import by_negation, by_words
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, valued
from openjanus.evaluate.files.finding import (
    check_ids,
    check_images,
    data_folder,
    fields,
    file_image,
    find,
    read_json_lines,
    require,
)
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.intervals import Floats
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.prompts import NO_SYSTEM, ROLES, yes_no

SPLITS = ("random", "popular", "adversarial")
QUESTIONS = 3000  # of a split
_TAIL = " Please answer yes or no."


class POPE(Benchmark):
    """Three splits of 3,000 questions on 500 images. Protocols differ in how an answer is read and splits are pooled."""

    name = "pope"
    title = "POPE: yes-or-no questions about objects that are or are not there, three splits"
    source = (
        "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json of github.com/AoiDragon/POPE with COCO's "
        "val2014 images, or VLMEvalKit's POPE.tsv"
    )
    protocols = ("vlmevalkit", "official")
    roles = ROLES

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of POPE.tsv, or of the three official files, with a task for each split."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "POPE.tsv"):
            rows = read_table(table, ("index", "question", "answer", "category"))
            return [
                _question(
                    row.index,
                    row.get("category") or "all",
                    row.get("question"),
                    row.get("answer"),
                    row.get("image_path") or row.index,
                    row.image,
                )
                for row in rows
            ]
        made: list[Case] = []
        paths = []
        images = require(folder, self.name, self.source, "val2014")
        for split in SPLITS:
            path = require(folder, self.name, self.source, f"coco_pope_{split}.json")
            for number, record in enumerate(read_json_lines(path), 1):
                name, image, text, label = fields(record, ("question_id", "image", "text", "label"), f"{path} line {number}")
                paths.append(images / image)
                made.append(_question(f"{split}-{name}", split, text, label, image, file_image(images / image)))
        check_ids((case.id for case in made), folder)
        check_images(paths, self.name)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Older lists of the random split have 2,910 questions."""
        counts = {split: sum(split in case.task for case in cases) for split in SPLITS}
        return [
            f"split {split} has {count} questions; the official one has {QUESTIONS}"
            for split, count in counts.items()
            if count != QUESTIONS
        ]

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """Yes, no, or with VLMEvalKit's rule neither, which is wrong and no yes."""
        read = by_words if self.protocol == "vlmevalkit" else by_negation
        for case, (sample,) in done:
            said, expected = read(sample.text), case.facts["answer"]
            yield Judgement(case.id, 0, case.task, case.group, said == expected, said or "unknown", expected)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """The pooled F1 (vlmevalkit) or the mean of the splits' (official), then each split's numbers."""
        splits = {
            split: [one for one in judgements if split in one.task.split(",")]
            for split in dict.fromkeys(split for one in judgements for split in one.task.split(","))
        }
        strata = {split: valued(ones, _counts) for split, ones in splits.items()}
        if self.protocol == "official":
            headline = Measure("F1", tuple(strata.values()), len(judgements), _mean_f1)
        else:
            pooled = valued((one for ones in splits.values() for one in ones), _counts)
            headline = Measure("F1", (pooled,), len(judgements), _mean_f1)
        parts = [
            Measure(f"{split} {name}", (evidence,), len(splits[split]), statistic)
            for split, evidence in strata.items()
            for name, statistic in _STATISTICS.items()
        ]
        return [headline, *parts]


def _question(name: str, split: str, text: str, answer: str, image: str, picture: Any) -> Question:
    text = text.replace(_TAIL, "")
    facts = {"answer": answer.strip().lower()}
    return Question(name, split, yes_no(text), (picture,), facts, group=image, system_prompt=NO_SYSTEM)


def _counts(one: Judgement) -> tuple[float, ...]:
    """True positives, false positives, false negatives, right, all, said yes."""
    yes, true = one.read == "yes", one.expected == "yes"
    return (yes and true, yes and not true, not yes and true, one.value, 1.0, yes)


def _over(above: Any, below: Any) -> Any:
    return np.divide(above, below, out=np.zeros_like(np.asarray(above, np.float64)), where=np.asarray(below) > 0)


def _f1(sums: Floats) -> Any:
    return _over(2 * sums[..., 0], 2 * sums[..., 0] + sums[..., 1] + sums[..., 2])


def _mean_f1(strata: Sequence[Floats]) -> Any:
    return np.mean([_f1(sums) for sums in strata], axis=0)


_STATISTICS = {
    "F1": _mean_f1,
    "accuracy": lambda strata: _over(strata[0][..., 3], strata[0][..., 4]),
    "precision": lambda strata: _over(strata[0][..., 0], strata[0][..., 0] + strata[0][..., 1]),
    "recall": lambda strata: _over(strata[0][..., 0], strata[0][..., 0] + strata[0][..., 2]),
    "yes ratio": lambda strata: _over(strata[0][..., 5], strata[0][..., 4]),
}
