"""Short answers as the VQA evaluation reads them: normalised, then matched with ten people's.

Source: the rules of the VQA evaluation server (EvalAI) and its oddities, kept because scores depend on them.
"""

import re
from collections.abc import Sequence

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBERS)}
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the published code passes a flag of this value where the number of replacements goes
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
# Right forms; what people leave out of them is one apostrophe.
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've "
    "he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've "
    "o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's "
    "someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've "
    "there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's "
    "what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've "
    "wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've "
)
_CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form for form in _CONTRACTED.split() for place, sign in enumerate(form) if sign == "'"
} | {"somebody'd": "somebodyd"}


def strip_punctuation(text: str) -> str:
    """Without punctuation: gone where it stands beside a blank or the text has a comma inside a number, else a blank."""
    stripped = text
    gone_everywhere = _COMMA_IN_NUMBER.search(text) is not None
    for sign in _PUNCTUATION:
        gone = gone_everywhere or f"{sign} " in text or f" {sign}" in text
        stripped = stripped.replace(sign, "" if gone else " ")
    return _FULL_STOP.sub("", stripped, count=_MOST_STOPS)


def plain_words(text: str) -> str:
    """Lower case, number words as digits, no articles, contractions with their apostrophes."""
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalise(answer: str) -> str:
    """An answer as VQA compares it."""
    return plain_words(strip_punctuation(answer.replace("\n", " ").replace("\t", " ").strip()))


def normalise_spoken(answer: str) -> str:
    """As `normalise`, after commas and question marks are taken out and 's is split off, as the evaluation of TextVQA does."""
    answer = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalise(answer)


def soft_accuracy(answer: str, people: Sequence[str]) -> float:
    """0 to 1: how many of the other people gave that answer, a third of a point each up to 1, averaged over leaving each out."""
    credits = [
        min(1.0, sum(other == answer for place, other in enumerate(people) if place != left_out) / 3)
        for left_out in range(len(people))
    ]
    return sum(credits) / len(credits)


def relaxed_match(answer: str, expected: str) -> bool:
    """ChartQA's accuracy: numbers within 5 % of the expected one (per cent as fractions), other words without regard to case."""
    given, wanted = _number(answer), _number(expected)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= 0.05
    return answer.lower() == expected.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
