"""Words without pictures: small talk, and facts and riddles of the synthetic world.

A riddle tells a scene in words and asks about it, so that language alone learns what left, above, more and fewer mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from openjanus.data.shapes import COLOURS, OPPOSITE, RELATIONS, SHAPES, WITHHELD, Relation
from openjanus.data.shapes_compositions import NUMBERS, Mention, compose_for_training, plural, sample_scene
from openjanus.data.shapes_questions import Turn, ask, converse
from openjanus.data.shapes_text import describe, inventory, listing, phrase, sentence

_SMALL_TALK = (
    (("Hello!", "Hi!", "Hi there.", "Good morning.", "Hey!"), "Hello! Show me a picture of shapes, or ask me to paint one."),
    (("How are you?", "How are you today?", "Are you well?"), "I am well, thank you. Shall we look at some shapes?"),
    (
        ("Who are you?", "What are you?", "What is your name?"),
        "I am a small Janus model. I look at pictures of shapes and paint them.",
    ),
    (
        ("What can you do?", "How can you help me?", "What are you good at?"),
        "I answer questions about pictures of colored shapes, and I paint such pictures.",
    ),
    (("Thank you!", "Thanks.", "Great, thanks!", "Well done!"), "You are welcome."),
    (("Goodbye.", "Bye!", "See you later."), "Goodbye!"),
    (
        ("Can you paint a dog?", "What is the capital of France?", "Tell me a joke.", "What time is it?", "Write a poem."),
        "I do not know about that. I only know pictures of colored shapes.",
    ),
    (("What shapes do you know?", "Which shapes are there?", "List the shapes."), sentence(listing([plural(s) for s in SHAPES]))),
    (("What colors do you know?", "Which colors are there?", "List the colors."), sentence(listing(COLOURS))),
    (("What color is the background?", "What is behind the shapes?"), "The background is gray."),
    (("How many objects can a picture have?", "What is the largest number of objects?"), "A picture has one to four objects."),
)
# Star and cross are left out: people count their sides and corners in two ways.
_SIDES = {"circle": 0, "square": 4, "triangle": 3, "diamond": 4}
_SMALL = (*NUMBERS, "five", "six", "seven", "eight")


def _pick(rng: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(rng.integers(len(among)))]


def _small_talk(rng: np.random.Generator) -> Turn:
    questions, answer = _SMALL_TALK[rng.integers(len(_SMALL_TALK))]
    return Turn("talk", _pick(rng, questions), answer)


def _sides(rng: np.random.Generator) -> Turn:
    shape = _pick(rng, list(_SIDES))
    number = _SMALL[_SIDES[shape]]
    what = _pick(rng, ("sides", "corners"))
    if rng.random() < 0.5:
        return Turn("talk", f"How many {what} does a {shape} have?", number)
    other = _pick(rng, [s for s in _SIDES if _SIDES[s] != _SIDES[shape]])
    more = shape if _SIDES[shape] > _SIDES[other] else other
    return Turn("talk", f"Which has more {what}, a {shape} or a {other}?", more)


def _sum(rng: np.random.Generator) -> Turn:
    one, two = (int(n) for n in rng.integers(1, 5, 2))
    if rng.random() < 0.5:
        first, second = _safe(rng), _safe(rng)
        question = f"How many objects are {Mention(first[1], first[0], one)} and {Mention(second[1], second[0], two)}?"
        return Turn("talk", question, _SMALL[one + two])
    return Turn("talk", f"What is {_SMALL[one]} plus {_SMALL[two]}?", _SMALL[one + two])


def _words(rng: np.random.Generator) -> Turn:
    if rng.random() < 0.5:
        shape = _pick(rng, SHAPES)
        return Turn("talk", f"What is the plural of {shape}?", plural(shape))
    relation = RELATIONS[rng.integers(len(RELATIONS))]
    return Turn("talk", f"What is the opposite of {relation.removesuffix(' of')}?", OPPOSITE[relation].removesuffix(" of"))


def _which(rng: np.random.Generator) -> Turn:
    word, what = (_pick(rng, COLOURS), "color") if rng.random() < 0.5 else (_pick(rng, SHAPES), "shape")
    return Turn("talk", f"Is {word} a color or a shape?", what)


def _place_riddle(rng: np.random.Generator) -> Turn:
    composition = compose_for_training(rng, {"position": 1})
    first, second = composition.mentions
    assert composition.relation is not None
    relation: Relation = OPPOSITE[composition.relation]
    told = f"There is {phrase(composition)}."
    if rng.random() < 0.5:
        return Turn("talk", f"{told} What is {relation} the {first.colour} {first.shape}?", f"{second.colour} {second.shape}")
    return Turn("talk", f"{told} Where is the {second.shape}, seen from the {first.shape}?", relation.removesuffix(" of"))


def _scene_riddle(rng: np.random.Generator) -> Turn:
    while True:
        composition = compose_for_training(rng, {"color_attr": 1, "free": 2})
        if any(mention.colour is None for mention in composition.mentions) or composition.relation:
            continue
        scene = sample_scene(rng, composition)
        turn = ask(rng, scene, _pick(rng, ("color", "shape", "count", "presence", "attribute")))
        told = "are" if composition.mentions[0].count > 1 else "is"
        # Sides and sizes are not told.
        if turn and not any(
            word in turn.question for word in (" left", " right", " top", " bottom", " above", " below", "picture")
        ):
            return Turn("talk", f"There {told} {phrase(composition)}. {turn.question}", turn.answer)


_TALK: tuple[tuple[float, Callable[[np.random.Generator], Turn]], ...] = (
    (0.15, _small_talk),
    (0.1, _sides),
    (0.1, _sum),
    (0.1, _words),
    (0.05, _which),
    (0.2, _place_riddle),
    (0.3, _scene_riddle),
)


def chat(rng: np.random.Generator) -> list[Turn]:
    """One to three different turns without a picture."""
    shares = np.cumsum([share for share, _ in _TALK])
    turns: dict[str, Turn] = {}
    for _ in range(int(rng.integers(1, 4))):
        turn = _TALK[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))][1](rng)
        turns.setdefault(turn.question, turn)
    return list(turns.values())


# What a told scene leaves open: where things stand, how large they are.
_UNTOLD = (
    " left",
    " right",
    " top",
    " bottom",
    " above",
    " below",
    "picture",
    "corner",
    "bigger",
    "smaller",
    "larg",
    "middle",
    "row",
)
# A choice is another question and a second look at its options, so it is asked more often.
_ASKED = ("color", "shape", "count", "presence", "attribute", "comparison", "choice", "choice", "choice")


def told(rng: np.random.Generator, turns: int) -> list[Turn]:
    """Up to `turns` questions in a row about a scene that is told thing by thing: the answers without the eyes."""
    while True:
        scene = sample_scene(rng)
        if inventory(scene).held_out:
            continue
        asked = [turn for turn in converse(rng, scene, 2 * turns, _ASKED) if not any(word in turn.question for word in _UNTOLD)]
        if not asked:
            continue
        things = listing([str(Mention(thing.shape, thing.colour)) for thing in scene.objects])
        first, *others = asked[:turns]
        return [replace(first, question=f"You see {things}. {first.question}"), *others]


def story(rng: np.random.Generator) -> str:
    """A few sentences about one scene: plain text for the first steps of a language model."""
    while True:
        text = describe(rng, sample_scene(rng))
        if text is not None:
            return text


def _safe(rng: np.random.Generator) -> tuple[str, str]:
    """A colour and a shape that are not a withheld pair."""
    while True:
        kind = _pick(rng, COLOURS), _pick(rng, SHAPES)
        if kind not in WITHHELD:
            return kind
