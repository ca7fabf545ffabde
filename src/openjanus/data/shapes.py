"""The synthetic world: one to four coloured shapes on flat grey, drawn and labelled by our own code.

Knows what a scene is, where its objects may stand, and how it looks. Does not know captions or questions (shapes_text.py,
shapes_questions.py), nor which scene a caption asks for (shapes_compositions.py).
Units: lengths are pixels of a canvas of 64 x 64, y grows downwards; `draw` and `label_map` scale them to any size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Relation = Literal["left of", "right of", "above", "below"]
Floats = NDArray[np.floating[Any]]

CANVAS = 64
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")
PALETTE = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 50),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "purple": (150, 40, 200),
    "black": (20, 20, 20),
    "white": (245, 245, 245),
}
COLOURS = tuple(PALETTE)
# Never in training, neither drawn nor spoken of: what a model makes of them shows whether it puts colour and shape together.
WITHHELD = frozenset(
    {
        ("red", "star"),
        ("blue", "triangle"),
        ("green", "cross"),
        ("yellow", "diamond"),
        ("purple", "square"),
        ("orange", "circle"),
    }
)
WIDTHS = (14.0, 22.0)
GREYS = (118, 138)
MOST_OBJECTS = 4
COLOUR_JITTER = 10  # levels, each way and per channel
# Between bounding boxes. Less, and a blur of one pixel joins neighbours of one colour at 48 pixels.
GAP = 3.0
EDGE = 1.0  # between a bounding box and the edge of the canvas

OPPOSITE: dict[Relation, Relation] = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
RELATIONS: tuple[Relation, ...] = tuple(OPPOSITE)
# Axis and direction of each relation, seen from the second object.
_DIRECTION: dict[Relation, tuple[int, int]] = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
# GenEval's rule: an offset counts beyond a tenth of both widths, and a relation holds beyond half of the offset's length.
OVERLAP_MARGIN = 0.1
HOLDS = 0.5
# Scenes made for a relation show it more clearly than the rule asks for, so that a small slip of the painter is no error.
CLEARLY = 0.65
_TRIES = (1, 8, 24, 64)  # layouts drawn at once for 1, 2, 3, 4 objects: about one of them fits
_PAIRS = tuple(np.triu_indices(count, 1) for count in range(1, MOST_OBJECTS + 1))  # who may overlap with whom


@dataclass(frozen=True, slots=True)
class Object:
    """One shape. centre: of its bounding box; width: of its bounding box; rgb: the colour's value after jitter."""

    shape: str
    colour: str
    centre: tuple[float, float]
    width: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Scene:
    """Objects that do not overlap, on a background of one grey level."""

    objects: tuple[Object, ...]
    grey: int


class Placed(Protocol):
    """Anything with a place: an object of a scene, or one found in a picture."""

    @property
    def centre(self) -> tuple[float, float]: ...
    @property
    def width(self) -> float: ...


def relations(first: Placed, second: Placed) -> set[Relation]:
    """How the first object stands to the second, by GenEval's rule: none, one or (on a diagonal) two relations."""
    offset = np.subtract(first.centre, second.centre)
    strength = _strength(offset, np.float64(first.width + second.width))
    return {relation for relation, (axis, sign) in _DIRECTION.items() if sign * strength[axis] > HOLDS}


def _strength(offset: NDArray[np.float64], widths: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    """Offsets [..., 2] less the margin, as a share of their own length; widths [...]: the sums of both widths."""
    reduced = np.sign(offset) * np.maximum(np.abs(offset) - OVERLAP_MARGIN * np.asarray(widths)[..., None], 0)
    length = np.sqrt((offset**2).sum(-1, keepdims=True))
    return np.asarray(reduced / np.maximum(length, 1e-9))


# -- making scenes ---------------------------------------------------------------------


def arrange(rng: np.random.Generator, kinds: Sequence[tuple[str, str]], relation: Relation | None = None) -> Scene:
    """A scene of objects of the given kinds (colour, shape), anywhere they do not overlap.

    relation: how the first stands to the second, clearly and in no other way; None lets them stand as they like.
    """
    count = len(kinds)
    assert 1 <= count <= MOST_OBJECTS, f"a scene holds 1 to {MOST_OBJECTS} objects, not {count}"
    centres, widths = _layout(rng, count, relation)
    jitter = rng.integers(-COLOUR_JITTER, COLOUR_JITTER + 1, (count, 3))
    levels = np.clip(np.array([PALETTE[colour] for colour, _ in kinds]) + jitter, 0, 255)
    objects = tuple(
        Object(shape, colour, (x, y), width, (red, green, blue))
        for (colour, shape), (x, y), width, (red, green, blue) in zip(
            kinds, centres.tolist(), widths.tolist(), levels.tolist(), strict=True
        )
    )
    return Scene(objects, int(rng.integers(GREYS[0], GREYS[1] + 1)))


def _layout(rng: np.random.Generator, count: int, relation: Relation | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [count, 2] and widths [count]: the first of many layouts tried at once in which nothing overlaps."""
    tries = _TRIES[count - 1] * (1 if relation is None else 4)
    first, second = _PAIRS[count - 1]
    while True:
        widths = rng.uniform(*WIDTHS, (tries, count))
        reach = widths[..., None] / 2 + EDGE
        centres = reach + rng.random((tries, count, 2)) * (CANVAS - 2 * reach)
        if count == 1:
            return centres[0], widths[0]
        offset = centres[:, first] - centres[:, second]
        sums = widths[:, first] + widths[:, second]
        fits = (np.abs(offset).max(-1) >= sums / 2 + GAP).all(-1)
        if relation is not None:
            axis, sign = _DIRECTION[relation]
            strength = _strength(offset[:, 0], sums[:, 0])
            fits &= (sign * strength[:, axis] > CLEARLY) & (np.abs(strength[:, 1 - axis]) < HOLDS)
        if fits.any():
            best = int(fits.argmax())
            return centres[best], widths[best]


# -- drawing ---------------------------------------------------------------------------
# Signed distances in pixels, negative inside, from offsets x [1, w] and y [h, 1] to the centre of a box of half width `half`.


def _circle(x: Floats, y: Floats, half: float) -> Floats:
    return np.sqrt(x * x + y * y) - half


def _square(x: Floats, y: Floats, half: float) -> Floats:
    return np.maximum(np.abs(x), np.abs(y)) - half


def _diamond(x: Floats, y: Floats, half: float) -> Floats:
    return (np.abs(x) + np.abs(y) - half) * math.sqrt(0.5)


def _triangle(x: Floats, y: Floats, half: float) -> Floats:
    height = math.sqrt(0.75) * half  # half of an equilateral triangle's height, on half of its side
    return np.maximum(math.sqrt(0.75) * np.abs(x) - 0.5 * (y + height), y - height)


def _cross(x: Floats, y: Floats, half: float) -> Floats:
    x, y, arm = np.abs(x), np.abs(y), 0.36 * half
    return np.minimum(np.maximum(x - half, y - arm), np.maximum(x - arm, y - half))


def _star(x: Floats, y: Floats, half: float) -> Floats:
    """Five points, one of them up; its inner corners lie a little further out than a pentagram's, to last at 48 pixels."""
    sine, cosine = math.sin(math.pi / 5), math.cos(math.pi / 5)
    tip = half / math.sin(2 * math.pi / 5)
    inner = 0.45 * tip
    x = np.abs(x)
    up = tip * (1 - cosine) / 2 - y  # from the star's centre, which lies below the middle of its box
    # Folding twice over the line between two points brings all ten edges onto one.
    for _ in range(2):
        beyond = np.maximum(cosine * x - sine * up, 0)
        x, up = np.abs(x - 2 * cosine * beyond), up + 2 * sine * beyond
    across, along = tip - inner * cosine, inner * sine
    return (across * x + along * (up - tip)) / math.hypot(across, along)


_DISTANCES: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
}


def coverage(shape: str, centre: tuple[float, float], width: float, size: int) -> tuple[tuple[slice, slice], Floats]:
    """Where a shape is seen on a size x size canvas, and how much of each pixel there it covers: float32 in 0..1.

    centre and width are in pixels of that canvas. The window is cut off at the canvas.
    """
    half = width / 2
    window, offsets = [], []
    for middle in centre:
        low, high = max(math.floor(middle - half) - 1, 0), min(math.ceil(middle + half) + 1, size)
        window.append(slice(low, max(high, low)))
        offsets.append(np.arange(low, max(high, low), dtype=np.float32) + np.float32(0.5 - middle))
    distance = _DISTANCES[shape](offsets[0][None, :], offsets[1][:, None], half)
    return (window[1], window[0]), np.minimum(np.maximum(0.5 - distance, 0), 1)


def _covered(thing: Object, size: int) -> tuple[tuple[slice, slice], Floats]:
    scale = size / CANVAS
    return coverage(thing.shape, (thing.centre[0] * scale, thing.centre[1] * scale), thing.width * scale, size)


def draw(scene: Scene, size: int = CANVAS) -> NDArray[np.uint8]:
    """The scene as uint8 [size, size, 3], edges anti-aliased."""
    canvas = np.full((size, size, 3), scene.grey, np.float32)
    for thing in scene.objects:
        window, share = _covered(thing, size)
        part = canvas[window]
        part += share[..., None] * (np.array(thing.rgb, np.float32) - part)
    return (canvas + 0.5).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Labels:
    """What is on each of G x G patches; a patch belongs to what covers most of it.

    colours, shapes: int64 [G, G], 0 for the background, else 1 + index in COLOURS or SHAPES. places: float32 [G, G, 3], centre x,
    centre y and width of the object, in shares of the canvas; the background's are its own middle and 0. hearts: bool [G, G],
    whether an object's centre lies there, as often as there are objects.
    """

    colours: NDArray[np.int64]
    shapes: NDArray[np.int64]
    places: NDArray[np.float32]
    hearts: NDArray[np.bool_]


def label_map(scene: Scene, size: int, patch: int) -> Labels:
    """The labels of the patches of a scene drawn at size x size."""
    assert size % patch == 0, f"patches of {patch} pixels do not tile a canvas of {size}"
    grid = size // patch
    areas = np.zeros((len(scene.objects) + 1, size, size), np.float32)
    areas[0] = 1
    for number, thing in enumerate(scene.objects, start=1):
        window, share = _covered(thing, size)
        areas[number][window] = share
        areas[0][window] -= share
    most = areas.reshape(-1, grid, patch, grid, patch).sum((2, 4)).argmax(0)
    colours = np.array([0, *(1 + COLOURS.index(thing.colour) for thing in scene.objects)])
    shapes = np.array([0, *(1 + SHAPES.index(thing.shape) for thing in scene.objects)])
    own = np.array([(*thing.centre, thing.width) for thing in scene.objects], np.float32).reshape(-1, 3) / CANVAS
    middle = (np.arange(grid, dtype=np.float32) + 0.5) / grid
    ground = np.stack((*np.meshgrid(middle, middle), np.zeros((grid, grid), np.float32)), axis=-1)
    places = np.where(most[..., None] == 0, ground, np.concatenate((np.zeros((1, 3), np.float32), own))[most])
    hearts = np.zeros((grid, grid), np.bool_)
    for x, y, _ in own:
        hearts[int(y * grid), int(x * grid)] = True
    return Labels(colours[most], shapes[most], places, hearts)
