"""Captions and descriptions of the synthetic world: every sentence is true of its scene.

A caption says all of a composition and nothing else (the wording of GenEval's tasks, and free variations of it). A description is
made from a scene: what there is, then where some of it stands. Neither says what training never sees (shapes_compositions.py).
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from openjanus.data.shapes import CANVAS, Object, Relation, Scene, relations
from openjanus.data.shapes_compositions import Composition, Mention, contents, plural, whole

# GenEval's own wording and the plainest others. Evaluation asks in these; training knows them and more.
PLAIN_WORDINGS = ("{}", "a photo of {}", "a picture of {}", "an image of {}")
_MORE_WORDINGS = (
    "a drawing of {}",
    "a simple picture of {}",
    "a small image showing {}",
    "{} on a gray background",
    "{} on gray",
    "there {be} {}",
    "a scene with {}",
    "a picture with {}",
    "just {}",
    "please draw {}",
    "paint {}",
    "I want to see {}",
)
_RELATION_WORDINGS: dict[Relation, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of", "on the left side of"),
    "right of": ("right of", "to the right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "lower than"),
}
# An object is in one half of the picture if its centre is this far from the middle line, and in the middle if this near to it.
CLEAR_OF_MIDDLE = 4.0
NEAR_MIDDLE = 6.0


def phrase(composition: Composition) -> str:
    """The composition in GenEval's wording, as in "a red circle left of a blue star", "three squares"."""
    parts = [str(mention) for mention in composition.mentions]
    if composition.relation is not None:
        return f"{parts[0]} {composition.relation} {parts[1]}"
    return listing(parts)


def listing(parts: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def caption(rng: np.random.Generator, composition: Composition) -> str:
    """The composition in one of many wordings: a third bare, a third in GenEval's "a photo of", the rest freely."""
    draw = rng.random()
    words = phrase(composition) if draw < 0.6 else _free_phrase(rng, composition)
    if draw < 0.35:
        return words
    if draw < 0.65:
        return _pick(rng, PLAIN_WORDINGS[1:2] if draw < 0.5 else PLAIN_WORDINGS).format(words)
    be = "is" if composition.mentions[0].count == 1 else "are"
    text = _pick(rng, _MORE_WORDINGS).format(words, be=be)
    return sentence(text) if rng.random() < 0.3 else text


def _free_phrase(rng: np.random.Generator, composition: Composition) -> str:
    """The same in other words: numerals, "exactly", relations told the other way round or in more words."""
    first, *others = composition.mentions
    if composition.relation is not None:
        way = _pick(rng, _RELATION_WORDINGS[composition.relation])
        if rng.random() < 0.4:
            return f"{first} and {others[0]}, the {_bare(first)} {way} the {_bare(others[0])}"
        return f"{first} {way} {others[0]}"
    if not others:
        if first.count == 1:
            return _pick(rng, ("one {}", "a single {}", "only one {}", "just one {}")).format(_bare(first))
        number = str(first).split(" ", 1)[0]
        words = plural(_bare(first))
        return _pick(rng, ("{n} {w}", "{d} {w}", "exactly {n} {w}", "a group of {n} {w}")).format(
            n=number, d=first.count, w=words
        )
    order = rng.permutation(len(composition.mentions))
    parts = [str(composition.mentions[i]) for i in order]
    if len(parts) > 2 or rng.random() < 0.6:
        return listing(parts)
    return _pick(rng, ("{} with {}", "{} together with {}", "{}, {}")).format(*parts)


def _bare(mention: Mention) -> str:
    return mention.shape if mention.colour is None else f"{mention.colour} {mention.shape}"


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[0].upper() + text[1:] + "."


def _pick(rng: np.random.Generator, among: Sequence[str]) -> str:
    return among[int(rng.integers(len(among)))]


# -- scenes in words -------------------------------------------------------------------


def name(thing: Object) -> str:
    """As in "red circle"."""
    return f"{thing.colour} {thing.shape}"


def unique(scene: Scene) -> list[Object]:
    """The objects whose colour and shape together are theirs alone, so that "the red circle" says which."""
    kinds = [(thing.colour, thing.shape) for thing in scene.objects]
    return [thing for thing, kind in zip(scene.objects, kinds, strict=True) if kinds.count(kind) == 1]


def half(thing: Object, axis: int) -> str | None:
    """ "left", "right" (axis 0), "top", "bottom" (axis 1), or None when it stands too near the middle line to say."""
    offset = thing.centre[axis] - CANVAS / 2
    if abs(offset) < CLEAR_OF_MIDDLE:
        return None
    return (("left", "right"), ("top", "bottom"))[axis][int(offset > 0)]


def place(thing: Object) -> str | None:
    """As in "at the top left", "in the middle", or None when it stands between such places."""
    if max(abs(value - CANVAS / 2) for value in thing.centre) < NEAR_MIDDLE:
        return "in the middle"
    across, down = half(thing, 0), half(thing, 1)
    return f"at the {down} {across}" if across and down else None


def region(thing: Object) -> str:
    """As `place`, and of an object between such places the side alone: "at the top", "on the left"."""
    across, down = half(thing, 0), half(thing, 1)
    return place(thing) or (f"at the {down}" if down else f"on the {across}")


def inventory(scene: Scene) -> Composition:
    """All there is in a scene, in the order of its objects."""
    return contents(scene.objects)


def describe(rng: np.random.Generator, scene: Scene) -> str | None:
    """One to four sentences: what there is, then where. None if its first sentence is held out of training."""
    order = rng.permutation(len(scene.objects))
    said = whole((scene.objects[i].colour, scene.objects[i].shape) for i in order)
    if said.held_out:
        return None
    words = listing([str(mention) for mention in said.mentions])
    be = "is" if said.mentions[0].count == 1 else "are"
    opening = _pick(rng, ("{}", "there {be} {}", "the picture shows {}", "a picture of {}", "{} on gray", "I see {}"))
    sentences = [sentence(opening.format(words, be=be)), *facts(rng, scene)[: int(rng.integers(4))]]
    return " ".join(sentences)


def places(scene: Scene) -> str | None:
    """Where each object is, from left to right, as in "a red circle at the top left and a blue star in the middle".

    None if the scene's contents are held out of training.
    """
    along = sorted(scene.objects, key=lambda thing: thing.centre[0])
    if whole((thing.colour, thing.shape) for thing in along).held_out:
        return None
    return sentence(listing([f"{Mention(thing.shape, thing.colour)} {region(thing)}" for thing in along]))


def facts(rng: np.random.Generator, scene: Scene) -> list[str]:
    """What is true of the places of a scene's objects, sentence by sentence, in random order."""
    named = unique(scene)
    found = [f"The {name(thing)} is {where}." for thing in named if (where := place(thing))]
    for first, second in permutations(named, 2):
        holds = relations(first, second)
        # On a diagonal both relations hold; a caption that names one of them is not held out by the other.
        for relation in sorted(holds):
            if not pair(first, second, relation).held_out:
                found.append(f"The {name(first)} is {_pick(rng, _RELATION_WORDINGS[relation])} the {name(second)}.")
    return [found[i] for i in rng.permutation(len(found))]


def pair(first: Object, second: Object, relation: Relation | None = None) -> Composition:
    """Two objects and how the first stands to the second, as a composition."""
    return Composition((Mention(first.shape, first.colour), Mention(second.shape, second.colour)), relation)
