"""MMMU's own reading of answers: a letter for a choice, words and numbers for an open question.

Source: the rules of MMMU's evaluation, training_spec section 5.4; where it has oddities they are kept, because scores depend on
them (an open answer is lower case before it is split into sentences at capitals, so only line breaks split it).
"""

import random
import re
from collections.abc import Mapping, Sequence

_ENDS = (",", ".", "!", "?", ";", ":", "'")
_LONG = 5  # words; a longer answer may name its option by text
_KEYS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_SENTENCE = re.compile(r"\.\s(?=[A-Z])|\n")
_TRIVIAL = {":", ",", ".", "!", "?", ";", "'"}
_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
_SCIENTIFIC = re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+")
_SIMPLE = re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])")

Reading = float | str


def choose(answer: str, options: Mapping[str, str], chance: random.Random) -> str:
    """The letter of an option; one by chance where there is none to be read. options: text by letter."""
    for sign in _ENDS:
        answer = answer.strip(sign)
    answer = f" {answer} "
    for form in ("({})", " {} "):
        if places := {letter: answer.rfind(form.format(letter)) for letter in options if form.format(letter) in answer}:
            return _latest(places)
    if len(answer.split()) > _LONG:
        low = answer.lower()
        if places := {letter: low.rfind(text.lower()) for letter, text in options.items() if text.lower() in low}:
            return _latest(places)
    return chance.choice(list(options))


def _latest(places: Mapping[str, int]) -> str:
    """The letter that stands last; of several at one place the first."""
    return max(places, key=lambda letter: places[letter])


def read_open(answer: str) -> list[Reading]:
    """What an open answer says: the tails of its sentences behind a key word, and every number in them."""
    tails = _tails(answer)
    said = [*tails, *(number for tail in tails for number in _numbers(tail))]
    return list(dict.fromkeys(reading for text in said for reading in normalise(text)))


def _tails(answer: str) -> list[str]:
    answer = answer.strip().strip(".").lower()
    sentences = _SENTENCE.split(answer)
    tails = []
    for number, sentence in enumerate(sentences):
        # The last sentence may be an equation.
        keys = (*_KEYS, "=") if number == len(sentences) - 1 else _KEYS
        behind = [sentence.split(key)[-1].strip() for key in keys if key in sentence]
        shortest = ""
        for tail in behind:
            if not shortest or len(tail) < len(shortest):
                shortest = tail
        if shortest and shortest not in _TRIVIAL:
            tails.append(shortest)
    return tails or [answer]


def _numbers(text: str) -> list[str]:
    return [*_WITH_COMMAS.findall(text), *_SCIENTIFIC.findall(text), *_SIMPLE.findall(text)]


def normalise(text: str) -> list[Reading]:
    """A number rounded to two decimals, or lower case; a single character with a blank before it, and behind it."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def open_is_right(readings: Sequence[Reading], expected: Sequence[str]) -> bool:
    """Whether a reading is an expected number, or holds an expected text."""
    wanted = [one for text in expected for one in normalise(text)]
    for reading in readings:
        if isinstance(reading, str):
            if any(isinstance(one, str) and one in reading for one in wanted):
                return True
        elif reading in wanted:
            return True
    return False
