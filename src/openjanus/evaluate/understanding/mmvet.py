"""MM-Vet: long answers that need several skills, graded by a language model (Yu et al. 2023)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openjanus.evaluate.benchmark import Benchmark, Case, Done, Judgement, Measure, Question, mean
from openjanus.evaluate.files.finding import check_images, data_folder, fields, file_image, find, read_json, require
from openjanus.evaluate.files.tables import read_table
from openjanus.evaluate.judges.text import JudgeError, TextJudge
from openjanus.evaluate.tools import Tools, key_of
from openjanus.evaluate.understanding.prompts import ROLES, free
from openjanus.files import write_json

SKILLS = {"rec": "recognition", "ocr": "OCR", "know": "knowledge", "gen": "generation", "spat": "space", "math": "math"}
QUESTIONS = 218
TRIES = 5
PROMPT_FILE = "mm-vet_prompt.txt"
# The adapter's words, which the scores of the papers were reached with.
SYSTEM = (
    "You are a helpful assistant. Please answer truthfully and write out your thinking step by step "
    "to be sure you get the right answer."
)
# Of the same form as the official one (a table to complete, seven graded examples), in our words.
PROMPT = """Grade an answer by the true one. <AND> joins parts that must all be there, <OR> parts any of which will do.
The grade is 0.0 (wrong), 0.1, ... or 1.0 (right); half of the parts give 0.5. Complete the last row with its grade alone.

Question | Truth | Answer | Grade
--- | --- | --- | ---
Which two numbers solve it? | 2 <AND> -7 | 5 | 0.0
Which two numbers solve it? | 2 <AND> -7 | It is 2. | 0.5
Which two numbers solve it? | 2 <AND> -7 | -7, or 7 | 0.5
Which two numbers solve it? | 2 <AND> -7 | 2 and -7 | 1.0
What is on the table? | a cup <OR> a mug | a mug | 1.0
Why is it funny? | The cat wears a tie and sits at the desk as if it were the boss. | There is a cat. | 0.2
Why is it funny? | The cat wears a tie and sits at the desk as if it were the boss. | A cat in a tie plays the boss. | 1.0
"""


class MMVet(Benchmark):
    """The mean grade, and that of each skill. Without a judge there is no score: answers.json can be graded elsewhere."""

    name = "mmvet"
    title = "MM-Vet: 218 questions with long answers, graded 0 to 1 by a language model"
    source = (
        "mm-vet.json with the folder images, or VLMEvalKit's MMVet.tsv (beside it, if you have it, the official prompt as "
        f"{PROMPT_FILE})"
    )
    protocols = ("vlmevalkit",)
    roles = ROLES

    def cases(self, data: Path | None) -> list[Case]:
        """All questions."""
        folder = data_folder(data, self.name, self.source)
        found = find(folder, PROMPT_FILE)
        prompt = found.read_text(encoding="utf-8") if found else PROMPT
        if table := find(folder, "MMVet.tsv", "MMVet_Hard.tsv"):
            rows = read_table(table, ("index", "question", "answer", "category"))
            return [
                _question(row.index, row.get("question"), row.get("answer"), row.get("category").split(","), prompt, row.image)
                for row in rows
            ]
        path = require(folder, self.name, self.source, "mm-vet.json")
        images = require(folder, self.name, self.source, "images")
        made: list[Case] = []
        paths = []
        for name, record in read_json(path).items():
            question, answer, image, skills = fields(
                record, ("question", "answer", "imagename", "capability"), f"{path} question {name}"
            )
            paths.append(images / image)
            made.append(_question(name, question, answer, skills, prompt, file_image(paths[-1])))
        check_images(paths, self.name)
        return made

    def warnings(self, cases: Sequence[Case]) -> list[str]:
        """Another number of questions; a prompt that is not the official one."""
        told = [] if len(cases) == QUESTIONS else [f"there are {len(cases)} questions; the release has {QUESTIONS}"]
        if any(case.facts["prompt"] == PROMPT for case in cases):
            told.append(f"the judge is asked in our words; put the official prompt into {PROMPT_FILE} to compare with the papers")
        return told

    def judge(self, done: Done, tools: Tools) -> Iterator[Judgement]:
        """A grade for every answer; skipped where the judge fails."""
        judge = tools.text_judge
        for case, (sample,) in done:
            if judge is None:
                grade, silent = 0.0, "no judge was named; say --judge URL#MODEL (the papers' was gpt-4-0613)"
            else:
                grade, silent = _grade(case, sample.text, judge, tools)
            facts, truth = {"skills": case.facts["skills"]}, case.facts["answer"]
            yield Judgement(case.id, 0, case.task, case.id, grade, f"{grade:.1f}", truth, skipped=silent, facts=facts)

    def measures(self, judgements: Sequence[Judgement]) -> list[Measure]:
        """The total, and each skill's."""
        skills = {skill: [one for one in judgements if skill in one.facts["skills"]] for skill in SKILLS}
        return [mean("total", judgements), *(mean(SKILLS[skill], ones) for skill, ones in skills.items() if ones)]

    def export(self, done: Done, folder: Path) -> list[Path]:
        """answers.json, as the benchmark's online grader takes it."""
        path = folder / "answers.json"
        write_json(path, {case.id: samples[0].text for case, samples in done})
        return [path]


def _grade(case: Case, answer: str, judge: TextJudge, tools: Tools) -> tuple[float, str]:
    """A grade, and why there is none ("" if there is one). What is no grade is asked for again, warmer each time."""
    truth = case.facts["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    asked = case.facts["prompt"].rstrip("\n") + "\n" + " | ".join([case.facts["question"], truth, answer, ""])
    said = ""
    for attempt in range(TRIES):
        try:
            said = tools.verdicts.get(
                key_of(judge.name, attempt, asked),
                lambda: judge.ask(asked, temperature=0.5 * attempt, max_tokens=3),  # noqa: B023
            )
        except JudgeError as error:
            return 0.0, str(error)
        try:
            grade = float(said)
        except ValueError:
            continue
        if 0 <= grade <= 1:
            return grade, ""
    return 0.0, f"the judge gave no grade in {TRIES} tries (last: {said[:40]!r})"


def _question(name: str, question: str, answer: str, skills: Sequence[str], prompt: str, picture: Any) -> Question:
    facts = {"question": question, "answer": str(answer), "skills": list(skills), "prompt": prompt}
    task = ",".join(skills)
    return Question(name, task, free(question), (picture,), facts, system_prompt=SYSTEM)
