"""Answers are read by the official rules: every rule by hand."""

import random

import pytest

from openjanus.evaluate.answers import mmmu
from openjanus.evaluate.answers.choice import NONE, by_letter, by_text, chosen
from openjanus.evaluate.answers.vqa import normalise, normalise_spoken, relaxed_match, soft_accuracy, strip_punctuation
from openjanus.evaluate.answers.yes_no import by_beginning, by_negation, by_words

OPTIONS = {"A": "a red bus", "B": "two cars", "C": "nothing", "D": "a zebra"}


# -- yes or no -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        ("No.", "no"),
        ("yes, there is", "yes"),
        ("No, there is no dog", "no"),
        ("yes and no", ""),  # both
        ("There is a dog", ""),  # neither
        ("nothing of the kind", ""),  # a word that begins with no
        ("Nope", ""),
        ("(yes)", "yes"),
        ("", ""),
    ],
)
def test_vlmevalkit_takes_the_one_of_yes_and_no_that_occurs(answer: str, said: str):
    assert by_words(answer) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes", "yes"),
        ("No, it is not", "no"),
        ("There is no dog", "no"),
        ("It does not show one", "no"),
        ("There is a dog. No cat", "yes"),  # the first sentence alone
        ("nothing", "yes"),  # whole words
        ("NO", "yes"),  # No, no and not as they stand
        ("No,it", "yes"),  # commas go without leaving a blank
        ("", "yes"),
    ],
)
def test_pope_takes_everything_for_yes_that_is_not_denied(answer: str, said: str):
    assert by_negation(answer) == said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes.", "yes"),
        ("y", "yes"),
        ("N", "no"),
        ("x", ""),
        ("No, it is", "no"),
        ("is no", ""),  # behind the first four letters: "is n"
        ("not at all", "no"),  # "not " holds no
        ("oh yes", ""),
        ("", ""),
    ],
)
def test_mme_looks_at_the_first_four_letters(answer: str, said: str):
    assert by_beginning(answer) == said


# -- short answers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Cat", "cat"),
        ("a", ""),
        ("two dogs", "2 dogs"),
        ("None", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("twas", "'twas"),
        ("somebody'd", "somebodyd"),  # the published table's own slip
        ("red/blue", "red blue"),  # nothing beside the sign: a blank
        ("red / blue", "red blue"),  # a blank beside it: gone
        ("t-shirt", "t shirt"),
        ("1,000 t-shirts", "1000 tshirts"),  # a comma in a number: every sign goes without a blank
        ("3.5", "3.5"),
        ("end.", "end"),
        ("U.S.A.", "usa"),
        ("what?\nyes", "what yes"),
    ],
)
def test_vqa_normalises_as_its_server_does(answer: str, normal: str):
    assert normalise(answer) == normal


def test_every_contraction_is_known_by_each_of_its_apostrophes():
    assert normalise("theyre hed've he'dve oclock 'ows'at") == "they're he'd've he'd've o'clock 'ow's'at"
    assert normalise("shell ill id've") == "shell ill id've"  # not in the table


def test_textvqa_first_splits_off_its_s_and_drops_commas():
    assert normalise_spoken("Joe's, bar?") == "joe 's bar"
    assert normalise_spoken("1,000") == "1000"


def test_full_stops_go_thirty_two_times_and_no_more():
    # The published code hands a flag of that value over as the count.
    assert strip_punctuation("a." * 40).count(".") == 8


@pytest.mark.parametrize(("people", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_soft_accuracy_is_the_mean_over_leaving_each_person_out(people: int, score: float):
    # 1 of 10: nine of ten sets keep that person, each worth a third.
    assert soft_accuracy("cat", ["cat"] * people + ["dog"] * (10 - people)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("105", "100", True),
        ("105.1", "100", False),
        ("95", "100", True),
        ("50%", "0.5", True),
        ("0.5", "50%", True),
        ("0", "0", True),  # no share of nothing: compared as words
        ("0.0", "0", False),
        ("Red", "red", True),
        ("reddish", "red", False),
    ],
)
def test_chartqa_is_relaxed_about_numbers_alone(answer: str, expected: str, right: bool):
    assert relaxed_match(answer, expected) is right


# -- choices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**C**", "C"),
        ("The answer is D", "D"),
        ("A or B", ""),  # two letters
        ("A big dog is running in the park", ""),  # an article far from the end
        ("A dog is there", "A"),  # four words: as far from the end as it may be
        ("A dog is there now", ""),  # five
        ("A dog runs, so the answer is B", "B"),  # two letters, but one is said to be the answer
        ("The answer is a dog, of course, as everybody knows", "A"),  # no end of word is asked for
        ("Z", NONE),
        ("Sorry, I can't help with images of people yet. B", NONE),
        ("Cannot determine the answer", NONE),
        ("b", ""),  # letters are capitals
        ("", ""),
    ],
)
def test_a_letter_is_inferred_as_vlmevalkit_does(answer: str, letter: str):
    assert by_letter(answer, OPTIONS) == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("A Zebra", "D"),
        ("two cars and a zebra", ""),  # two options
        ("Two Cars.", "B"),
        ("a bus", ""),
        ("I think that it is a zebra, and the reason is that its stripes are black", ""),  # longer than twice all options (66)
    ],
)
def test_an_option_is_inferred_from_its_text(answer: str, letter: str):
    assert by_text(answer, OPTIONS) == letter


def test_the_letter_comes_before_the_text():
    assert chosen("a zebra is in option A", OPTIONS) == "A"
    assert chosen("it shows two cars", OPTIONS) == "B"
    assert chosen("elephants", OPTIONS) == ""


# -- MMMU ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(B)", "B"),
        ("B", "B"),
        ("B.", "B"),
        ("'C'!", "C"),
        ("(A) is wrong, (C) is right", "C"),  # the latest
        ("A is wrong and C is right", "C"),
        ("(A) is right, B is not", "A"),  # bracketed ones come before bare ones
        ("I see two cars on this road today", "B"),  # more than five words: texts
        ("there is nothing here but a zebra today", "D"),  # the later text
    ],
)
def test_mmmu_reads_a_choice(answer: str, letter: str):
    assert mmmu.choose(answer, OPTIONS, random.Random(42)) == letter


def test_mmmu_chooses_by_chance_where_nothing_is_said_always_alike():
    chance, again = random.Random(42), random.Random(42)
    drawn = [mmmu.choose("two cars", OPTIONS, chance) for _ in range(20)]  # too short for texts
    assert drawn == [again.choice(list(OPTIONS)) for _ in range(20)] and len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("answer", "readings"),
    [
        ("42", [42.0]),
        ("The answer is 1,234.567 meters", ["1,234.567 meters", 1234.0, 234.57]),
        ("so x = 3.14159", [3.14]),
        ("it is 1.5e3", [1500.0, 1.0, 3.0]),  # its digits are found as numbers of their own, too
        ("X", [" x", "x "]),
        ("a cat", ["a cat"]),
        ("The result is blue\nthus it is red", ["blue", "red"]),
        ("x = 2\ny = 5", [5.0]),  # only the last line may be an equation
    ],
)
def test_mmmu_reads_an_open_answer(answer: str, readings: list[object]):
    assert mmmu.read_open(answer) == readings


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("The answer is 3.141", ["3.14"], True),  # rounded to two decimals
        ("3.15", ["3.14"], False),
        ("it is a blue whale", ["Blue Whale"], True),  # held in it
        ("whale", ["blue whale"], False),
        ("vitamin c", ["c"], True),  # a single letter with a blank before it
        ("cat", ["c"], False),
        ("7", ["six", "7"], True),
    ],
)
def test_mmmu_compares_open_answers(answer: str, gold: list[str], right: bool):
    assert mmmu.open_is_right(mmmu.read_open(answer), gold) is right
