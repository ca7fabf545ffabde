"""Judging choices: by rule, and by a judge where rules cannot tell and one was asked for."""

from collections.abc import Mapping

from openjanus.evaluate.answers.choice import NONE, chosen
from openjanus.evaluate.judges.text import JudgeError
from openjanus.evaluate.tools import Tools, key_of

_TRIES = 3


def matched(answer: str, question: str, options: Mapping[str, str], tools: Tools) -> tuple[str, str]:
    """The letter an answer means ("" for none), and why there is no verdict ("" if there is one)."""
    letter = chosen(answer, options)
    judge = tools.text_judge
    if letter or judge is None:
        return letter, ""
    asked = _asked(answer, question, options)
    for attempt in range(_TRIES):
        try:
            said = tools.verdicts.get(
                key_of(judge.name, attempt, asked),
                lambda: judge.ask(asked, temperature=0.5 * attempt),  # noqa: B023
            )
        except JudgeError as error:
            return "", str(error)
        if letter := chosen(said, options):
            return letter, ""
    return NONE, ""


def _asked(answer: str, question: str, options: Mapping[str, str]) -> str:
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return (
        f"A question has these options:\n\nQuestion: {question}\n{listed}\n\nSomebody answered: {answer}\n\n"
        f"Which option means the same as that answer? Write its letter alone, or {NONE} if none does."
    )
