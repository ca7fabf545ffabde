"""Short answers: VQAv2, TextVQA and ChartQA, scored against what people answered."""

from ast import literal_eval
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from openjanus.errors import DataError
from openjanus.evaluate.answers.vqa import normalise, normalise_spoken, relaxed_match, soft_accuracy
from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, by_task, mean
from openjanus.evaluate.files.finding import check_ids, check_images, data_folder, fields, file_image, find, read_json, require
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.tools import Tools
from openjanus.evaluate.understanding.prompts import NO_SYSTEM, ROLES, short
from openjanus.files import write_json

_QUESTIONS = ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_OpenEnded_mscoco_test-dev2015_questions.json")


class ShortAnswers(Benchmark):
    """What the three have in common: the prompt, and an accuracy that may be a fraction."""

    roles = ROLES
    official: ClassVar[int | None] = None

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of questions."""
        if self.official is None or len(cases) == self.official:
            return []
        return [f"there are {len(cases)} questions; the official file has {self.official}"]

    def accuracy(self, answer: str, people: Sequence[str]) -> float:
        """0 to 1, for an answer and what people answered."""
        raise NotImplementedError

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """Each answer against people's."""
        for case, (sample,) in done:
            people = case.facts["answers"]
            if not people:
                yield Judgement(case.id, 0, case.task, case.group, read=sample.text, skipped="its answer is not public")
                continue
            expected = ", ".join(dict.fromkeys(people))
            yield Judgement(case.id, 0, case.task, case.group, self.accuracy(sample.text, people), sample.text, expected)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """Accuracy, and for each kind of question."""
        tasks = by_task(judgements)
        return [mean("accuracy", judgements), *(mean(task, ones) for task, ones in tasks.items() if len(tasks) > 1)]


class VQAv2(ShortAnswers):
    """Answers of val2014 or of a file with annotations; those of test go to the EvalAI server (answers.json)."""

    name = "vqav2"
    title = "VQAv2: short questions about COCO images, ten people's answers each"
    source = (
        "v2_OpenEnded_mscoco_val2014_questions.json and v2_mscoco_val2014_annotations.json with COCO's val2014 images, or "
        "v2_OpenEnded_mscoco_test-dev2015_questions.json with test2015"
    )

    def cases(self, data: Path | None) -> list[Case]:
        """Questions with their answers, where those are public."""
        folder = data_folder(data, self.name, self.source)
        path = require(folder, self.name, self.source, *_QUESTIONS)
        split = "val2014" if "val2014" in path.name else "test2015"
        images = require(folder, self.name, self.source, split)
        answers: dict[Any, tuple[str, list[str]]] = {}
        if split == "val2014":
            notes = require(folder, self.name, self.source, "v2_mscoco_val2014_annotations.json")
            for record in fields(read_json(notes), ("annotations",), str(notes))[0]:
                number, kind, people = fields(record, ("question_id", "answer_type", "answers"), str(notes))
                answers[number] = (kind, [one["answer"] for one in people])
        made: list[Case] = []
        paths = []
        for record in fields(read_json(path), ("questions",), str(path))[0]:
            number, image, question = fields(record, ("question_id", "image_id", "question"), str(path))
            if split == "val2014" and number not in answers:
                raise DataError(f"question {number} of {path} has no annotation; questions and annotations are of two versions")
            paths.append(images / f"COCO_{split}_{image:012d}.jpg")
            kind, people = answers.get(number, ("all", []))
            made.append(_question(str(number), kind, question, people, str(image), file_image(paths[-1])))
        check_ids((case.id for case in made), path)
        check_images(paths, self.name)
        return made

    def accuracy(self, answer: str, people: Sequence[str]) -> float:
        """People's answers are normalised only where they differ, as the evaluation server does."""
        plain = [one.replace("\n", " ").replace("\t", " ").strip() for one in people]
        if len(set(plain)) > 1:
            plain = [normalise(one) for one in plain]
        return soft_accuracy(normalise_spoken(answer), plain)

    def export(self, done: Done, folder: Path) -> list[Path]:
        """answers.json, as the EvalAI server takes it."""
        path = folder / "answers.json"
        write_json(path, [{"question_id": int(case.id), "answer": normalise_spoken(samples[0].text)} for case, samples in done])
        return [path]


class TextVQA(ShortAnswers):
    """Validation split; no OCR tokens in the prompt. Protocols differ in how an answer is normalised."""

    name = "textvqa"
    title = "TextVQA validation: 5,000 questions about text in images"
    source = "TextVQA_0.5.1_val.json with the folder train_images, or VLMEvalKit's TextVQA_VAL.tsv"
    protocols = ("vlmevalkit", "official")
    official = 5000

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of the table or of the official file."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "TextVQA_VAL.tsv"):
            rows = read_table(table, ("index", "question", "answer"))
            return [
                _question(row.index, "all", row.get("question"), _listed(row.get("answer")), row.index, row.image) for row in rows
            ]
        path = require(folder, self.name, self.source, "TextVQA_0.5.1_val.json")
        images = require(folder, self.name, self.source, "train_images")
        made: list[Case] = []
        paths = []
        for record in fields(read_json(path), ("data",), str(path))[0]:
            number, image, question, people = fields(record, ("question_id", "image_id", "question", "answers"), str(path))
            paths.append(images / f"{image}.jpg")
            made.append(_question(str(number), "all", question, people, image, file_image(paths[-1])))
        check_ids((case.id for case in made), path)
        check_images(paths, self.name)
        return made

    def accuracy(self, answer: str, people: Sequence[str]) -> float:
        """Soft accuracy of normalised answers."""
        read = normalise if self.protocol == "vlmevalkit" else normalise_spoken
        return soft_accuracy(read(answer), [read(one) for one in people])


class ChartQA(ShortAnswers):
    """Test split: questions that people wrote and questions that were made; the score is over all, as VLMEvalKit has it."""

    name = "chartqa"
    title = "ChartQA test: 2,500 questions about charts"
    source = "test_human.json and test_augmented.json with the folder png, or VLMEvalKit's ChartQA_TEST.tsv"
    protocols = ("vlmevalkit",)
    official = 2500

    def cases(self, data: Path | None) -> list[Case]:
        """Questions of the table or of the official files."""
        folder = data_folder(data, self.name, self.source)
        if table := find(folder, "ChartQA_TEST.tsv"):
            rows = read_table(table, ("index", "question", "answer"))
            return [
                _question(
                    row.index, row.get("split") or "all", row.get("question"), _listed(row.get("answer")), row.index, row.image
                )
                for row in rows
            ]
        made: list[Case] = []
        paths = []
        images = require(folder, self.name, self.source, "png")
        for split in ("human", "augmented"):
            path = require(folder, self.name, self.source, f"test_{split}.json")
            for number, record in enumerate(read_json(path)):
                name, question, answer = fields(record, ("imgname", "query", "label"), f"{path} record {number + 1}")
                paths.append(images / name)
                made.append(_question(f"{split}-{number}", split, question, [str(answer)], name, file_image(paths[-1])))
        check_images(paths, self.name)
        return made

    def accuracy(self, answer: str, people: Sequence[str]) -> float:
        """1 for a relaxed match."""
        return float(max(relaxed_match(answer.strip(), one) for one in people))


def _question(name: str, task: str, question: str, people: Sequence[str], image: str, picture: Any) -> Question:
    facts = {"answers": [str(one) for one in people]}
    return Question(name, task, short(question), (picture,), facts, group=str(image), system_prompt=NO_SYSTEM)


def _listed(text: str) -> list[str]:
    """A cell that may hold a list, as Python writes it."""
    if not text.startswith("["):
        return [text]
    try:
        return [str(one) for one in literal_eval(text)]
    except (ValueError, SyntaxError) as error:
        raise DataError(f"an answer list cannot be read: {text[:60]} ({error}); fetch the table again") from error
