"""Reads a picture of the synthetic world back into objects, from its pixels alone.

Each pixel goes to the nearest colour of the palette or to the background, touching pixels of one colour make a component, and a
component takes the shape whose drawing fits it best. No weights, no network; small slips of a painter (blur, noise, a drift of
colour, the blocks of a tokenizer) do not change the reading, and what fits no shape is not an object.
Dims: H, W pixels of the picture.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openjanus.data.shapes import CANVAS, COLOURS, PALETTE, SHAPES, coverage
from openjanus.processing.images import open_image
from openjanus.types import ImageSource

Floats = NDArray[np.floating[Any]]

_PALETTE = np.array(list(PALETTE.values()), np.float32)
LARGEST = 96  # pictures with a longer side are reduced to CANVAS first: reading costs time, not accuracy, beyond it
SMALLEST_AREA = 28.0  # of a component, on a canvas of 64: 40 % of the smallest star
LEAST_WIDTH, MOST_WIDTH = 11.0, 28.0  # of an object, on a canvas of 64; they are drawn 14 to 22 wide
# How well a component must agree with a drawing of its shape (cosine of the two, 1 is the same). At 48 pixels one object in a
# thousand stays below 0.999 as drawn, 0.997 blurred by a pixel, 0.951 under noise of 25 levels, 0.975 rebuilt from 2,048 blocks
# of 4 x 4; shapes we do not have (an upturned triangle, a turned cross or star, a bar of 3 x 2) reach 0.93 to 0.94 at most.
AGREEMENT = 0.95
# The share of background three pixels around an object. Drawn objects reach 0.66 at least, in the closest company; patches of a
# noisy picture do not, and would otherwise be objects by chance.
FREE = 0.6
_WIDTH_STEPS = (0.92, 1.0, 1.08)
_SOFTEST = 3  # blurs of 1-2-1 on the drawings compared: one, as on the picture itself, to three


@dataclass(frozen=True, slots=True)
class Found:
    """An object found in a picture. centre and width as in `Object`, on a canvas of 64; agreement: how sure, 0 to 1."""

    shape: str
    colour: str
    centre: tuple[float, float]
    width: float
    agreement: float


def read_scene(image: ImageSource) -> list[Found]:
    """The objects in a picture, the surest first; [] for one without any.

    image: anything `open_image` takes; a picture that is not square is read as if it lay at the top left of a square canvas.
    """
    pixels = _pixels(image)
    scale = CANVAS / max(pixels.shape[:2])
    background = np.median(pixels.reshape(-1, 3), axis=0)
    classes = _classes(pixels, background)
    parts = _components(classes)
    found = []
    for part in _large(parts, SMALLEST_AREA / scale**2):
        one = _recognise(pixels, background, classes, parts == part, scale)
        if one is not None:
            found.append(one)
    return sorted(found, key=lambda one: -one.agreement)


def _pixels(image: ImageSource) -> Floats:
    """float32 [H, W, 3] in 0..255."""
    opened = open_image(image)
    if max(opened.size) > LARGEST:
        scale = CANVAS / max(opened.size)
        size = max(1, round(opened.width * scale)), max(1, round(opened.height * scale))
        opened = opened.resize(size, Image.Resampling.BOX)
    return np.asarray(opened, np.float32)


def _classes(pixels: Floats, background: Floats) -> NDArray[np.int64]:
    """The nearest colour of each pixel, int64 [H, W]: 0 is the background, else 1 + index in COLOURS."""
    colours = np.concatenate((background[None], _PALETTE))
    # |p - c|^2 without |p|^2, which is the same for every colour.
    return np.asarray(((colours**2).sum(-1) - 2 * pixels @ colours.T).argmin(-1))


def _components(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each patch of touching pixels of one class, int64 [H, W]; 0 is the background."""
    height, width = classes.shape
    parts = np.where(classes > 0, np.arange(1, classes.size + 1).reshape(height, width), 0)
    beside, beneath = classes[:, 1:] == classes[:, :-1], classes[1:] == classes[:-1]
    # Each pixel takes the highest number of its neighbours of the same class until nothing changes. Numbers travel a pixel a
    # round, so a round per pixel of the longest way through an object: some twenty.
    while True:
        before = parts
        parts = parts.copy()
        for joined, one, two in ((beside, parts[:, :-1], parts[:, 1:]), (beneath, parts[:-1], parts[1:])):
            highest = np.where(joined, np.maximum(one, two), 0)
            np.maximum(one, highest, out=one)
            np.maximum(two, highest, out=two)
        if np.array_equal(parts, before):
            return parts


def _large(parts: NDArray[np.int64], area: float) -> Iterator[int]:
    """The numbers of the components of at least `area` pixels."""
    numbers, areas = np.unique(parts, return_counts=True)
    for number, size in zip(numbers.tolist(), areas.tolist(), strict=True):
        if number and size >= area:
            yield number


def _recognise(
    pixels: Floats, background: Floats, classes: NDArray[np.int64], mask: NDArray[np.bool_], scale: float
) -> Found | None:
    """The object that a component is, or None if it agrees with no shape, does not stand free or has an impossible size."""
    rows, columns = np.nonzero(mask)
    margin = 3
    top, left = max(rows.min() - margin, 0), max(columns.min() - margin, 0)
    window = slice(top, rows.max() + margin + 1), slice(left, columns.max() + margin + 1)
    mask, crop = mask[window], pixels[window]
    core, near = _shrink(mask), _grow(_grow(mask))
    around = classes[window][_grow(near) & ~near]
    # Without a core it is a rim between two colours, one pixel thin.
    if not core.any() or (around == 0).sum() < max(FREE * around.size, 1):
        return None
    colour = np.median(crop[core], axis=0)
    name = COLOURS[int(((_PALETTE - colour) ** 2).sum(-1).argmin())]
    towards = colour - background
    # Beyond two pixels of the component lie only other objects and noise.
    offset: Floats = np.where(near[..., None], crop - background, 0)
    share = np.clip(offset @ towards / max(float(towards @ towards), 1e-6), 0, 1)
    if not share.any():
        return None
    agreement, shape, (x, y), width = _fit(share, _smooth(np.moveaxis(offset, -1, 0)))
    if agreement < AGREEMENT or not LEAST_WIDTH <= width * scale <= MOST_WIDTH:
        return None
    return Found(shape, name, (float((x + left) * scale), float((y + top) * scale)), float(width * scale), agreement)


def _fit(share: Floats, offset: Floats) -> tuple[float, str, tuple[float, float], float]:
    """Agreement, shape, centre and width of the shape that agrees best, among those of the same area and centre of mass.

    share: [h, w], how much of each pixel is the object; offset: [3, h, w], how far its colour is from the background.
    """
    across, down = np.arange(share.shape[1]) + 0.5, np.arange(share.shape[0]) + 0.5
    mass = float(share.sum())
    x, y = float(share.sum(0) @ across) / mass, float(share.sum(1) @ down) / mass
    fits: list[tuple[str, tuple[float, float], float]] = []
    side = max(share.shape)
    drawings = np.zeros((len(SHAPES) * len(_WIDTH_STEPS), side, side), np.float32)
    for shape in SHAPES:
        area, below = _measures(shape)
        for step in _WIDTH_STEPS:
            width = step * (mass / area) ** 0.5
            centre = x, y - below * width
            window, covered = coverage(shape, centre, width, side)
            drawings[len(fits)][window] = covered
            fits.append((shape, centre, width))
    best = -1.0, 0
    for _ in range(_SOFTEST):
        # The picture may be softer than a drawing, and a blurred star is more of a circle than a sharp one.
        drawings = _smooth(drawings)
        seen = drawings[:, : share.shape[0], : share.shape[1]].reshape(len(fits), -1)
        # The cosine between the picture and the drawing in the colour that suits it best.
        levels = np.linalg.norm(seen @ offset.reshape(3, -1).T, axis=1)
        agreements = levels / np.maximum(np.linalg.norm(seen, axis=1) * np.linalg.norm(offset), 1e-6)
        best = max(best, (float(agreements.max()), int(agreements.argmax())))
    return best[0], *fits[best[1]]


@functools.cache
def _measures(shape: str) -> tuple[float, float]:
    """Area of a shape of width 1, and how far its centre of mass lies below the middle of its box."""
    size = 240
    (rows, _), covered = coverage(shape, (size / 2, size / 2), size * 0.9, size)
    down = np.arange(rows.start, rows.stop) + 0.5 - size / 2
    mass = float(covered.sum())
    return mass / (size * 0.9) ** 2, float(covered.sum(1) @ down) / mass / (size * 0.9)


def _smooth(values: Floats) -> Floats:
    """The last two axes blurred by 1-2-1, so that a blur or grain of about a pixel hardly counts; beyond the edges lies 0."""
    values = values * np.float32(0.5)
    across = values.copy()
    across[..., 1:] += values[..., :-1] / 2
    across[..., :-1] += values[..., 1:] / 2
    across *= np.float32(0.5)
    down = across.copy()
    down[..., 1:, :] += across[..., :-1, :] / 2
    down[..., :-1, :] += across[..., 1:, :] / 2
    return down


def _grow(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With the four neighbours of each pixel."""
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown


def _shrink(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Only pixels whose four neighbours are in the mask."""
    return np.asarray(~_grow(~mask))
