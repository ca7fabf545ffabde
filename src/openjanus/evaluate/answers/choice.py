"""Choices: the letter of the option that an answer means, by VLMEvalKit's rules without its language model."""

import re
from collections.abc import Mapping

NONE = "Z"  # the answer refuses to choose
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 4  # words at the end of an answer, one of which its letter must be
# No end of word is asked for, so "the answer is a dog" says A; kept, because scores depend on it.
_SAID = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def chosen(answer: str, options: Mapping[str, str]) -> str:
    """The letter of an option, NONE for a refusal, "" where the rules cannot tell. options: text by letter."""
    return by_letter(answer, options) or by_text(answer, options)


def by_letter(answer: str, options: Mapping[str, str]) -> str:
    """The one option letter among the last words of an answer, or behind "answer is"."""
    if any(refusal in answer for refusal in _REFUSALS):
        return NONE
    words = answer.translate(_BLANKS).split()
    letters = [letter for letter in options if letter in words]
    # An "A" far from the end is an article more often than a choice.
    if len(letters) == 1 and words.index(letters[0]) >= len(words) - _LAST:
        return letters[0]
    if not letters and NONE in words:
        return NONE
    said = _SAID.search(answer)
    return said[1].upper() if said and said[1].upper() in options else ""


def by_text(answer: str, options: Mapping[str, str]) -> str:
    """The one option whose text stands in an answer that is no more than twice as long as all options together."""
    if len(answer) > 2 * sum(map(len, options.values())):
        return ""
    held = [letter for letter, text in options.items() if text.lower() in answer.lower()]
    return held[0] if len(held) == 1 else ""
