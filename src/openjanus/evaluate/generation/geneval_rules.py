"""GenEval's rules: whether the objects found in a picture are what a prompt asks for (Ghosh et al. 2023).

Rules only: no detector, no pictures. Colours come from a function, which is asked for the objects that matter alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from openjanus.evaluate.judges.detector import Detected

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
# COCO's classes in its order, under GenEval's names.
CLASSES = tuple(
    (
        "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign, "
        "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, "
        "handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
        "skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
        "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining "
        "table, toilet, tv, laptop, computer mouse, tv remote, computer keyboard, cell phone, microwave, oven, "
        "toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush "
    )
    .strip()
    .split(", ")
)
CONFIDENCE, COUNTING_CONFIDENCE = 0.3, 0.9
MOST = 16  # objects of a class
NEAR = 0.1  # of the sum of widths or heights; a smaller offset is none
DIAGONAL = 0.5  # of a direction; a smaller part of it is no relation
_HAIR = 1e-3  # pixels

Found = Mapping[str, Sequence[Detected]]
Colours = Callable[[Sequence[Detected], str], Sequence[str]]
"""The colour of each of some objects of a class."""


def kept(detected: Sequence[Detected], tag: str) -> dict[str, list[Detected]]:
    """The objects that count, by class, the surest first. Overlapping ones all do: suppression is off."""
    least = COUNTING_CONFIDENCE if tag == "counting" else CONFIDENCE
    found: dict[str, list[Detected]] = {}
    for label, name in enumerate(CLASSES):
        own = [one for one in detected if one.label == label]
        # The published order, also among equals.
        order = np.argsort([one.score for one in own])[::-1]
        sure = [own[place] for place in order if own[place].score > least][:MOST]
        if sure:
            found[name] = sure
    return found


def wrong_with(found: Found, metadata: Mapping[str, Any], colours: Colours) -> str:
    """What is wrong with a picture of a prompt, "" if it is right. metadata: a line of the official file."""
    wrong: list[str] = []
    groups: list[Sequence[Detected] | None] = []
    for wanted in metadata.get("include", ()):
        name, count = wanted["class"], wanted["count"]
        chosen = list(found.get(name, ()))[:count]
        faults = _faults(chosen, wanted, groups, colours) if len(chosen) >= count else [f"{len(chosen)} of {count} {name}"]
        wrong += faults
        groups.append(None if faults else chosen)
    for unwanted in metadata.get("exclude", ()):
        there = len(found.get(unwanted["class"], ()))
        if there >= unwanted["count"]:
            wrong.append(f"{there} {unwanted['class']}, and fewer than {unwanted['count']} are allowed")
    return "; ".join(wrong)


def _faults(
    chosen: Sequence[Detected], wanted: Mapping[str, Any], groups: Sequence[Sequence[Detected] | None], colours: Colours
) -> list[str]:
    """What is wrong with the objects that were taken for a wanted one: first colours, then places."""
    name = wanted["class"]
    if "color" in wanted:
        named = list(colours(chosen, name))
        if named.count(wanted["color"]) < wanted["count"]:
            return [f"the {name} is {', '.join(named)}, not {wanted['color']}"]
    if "position" in wanted:
        relation, target = wanted["position"]
        others = groups[target]
        if others is None:
            return [f"nothing that the {name} could be {relation}"]
        for one in chosen:
            for other in others:
                if relation not in (holds := relations(one.box, other.box)):
                    return [f"the {name} is {' and '.join(sorted(holds)) or 'nowhere in particular'}, not {relation}"]
    return []


def relations(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """How a box lies to another: of "left of", "right of", "above", "below" none, one or two."""
    boxes = np.array([box[:4], other[:4]], np.float64).reshape(2, 2, 2)
    (ours, theirs), sizes = boxes.mean(1), np.abs(boxes[:, 1] - boxes[:, 0])
    offset = ours - theirs
    beyond = np.maximum(np.abs(offset) - NEAR * sizes.sum(0), 0) * np.sign(offset)
    if (np.abs(beyond) < _HAIR).all():
        return set()
    across, down = beyond / np.linalg.norm(offset)
    said = {"left of": across < -DIAGONAL, "right of": across > DIAGONAL, "above": down < -DIAGONAL, "below": down > DIAGONAL}
    return {name for name, holds in said.items() if holds}
