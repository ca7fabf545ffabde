"""The reader of pictures finds what was drawn, also through the slips of a painter, and nothing else."""

from collections import Counter
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from openjanus.data.shapes import PALETTE, Object, Scene, draw
from openjanus.data.shapes_compositions import sample_scene
from openjanus.evaluate.shapes_reader import read_scene

Pixels = NDArray[np.uint8]
Spoil = Callable[[Pixels, np.random.Generator], Pixels]

# Withheld pairs too: they are what the reader must not get wrong.
SCENES = [sample_scene(np.random.default_rng((9, k)), withheld=True) for k in range(1000)]


def share_right(scenes: list[Scene], size: int, spoil: Spoil | None = None) -> float:
    """How many of the scenes are read back whole: every object, and none besides."""
    right = 0
    for k, scene in enumerate(scenes):
        picture = draw(scene, size)
        found = read_scene(picture if spoil is None else spoil(picture, np.random.default_rng(k)))
        right += Counter((one.colour, one.shape) for one in found) == Counter((t.colour, t.shape) for t in scene.objects)
    return right / len(scenes)


@pytest.mark.parametrize("size", [48, 64])
def test_at_least_99_of_100_true_renders_are_read_back_whole(size: int):
    assert share_right(SCENES, size) >= 0.99  # measured: 1.000 at both sizes


def blurred(picture: Pixels, rng: np.random.Generator) -> Pixels:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(1)))


def noisy(picture: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(picture + rng.normal(0, 20, picture.shape), 0, 255).astype(np.uint8)


def down_and_up(picture: Pixels, rng: np.random.Generator) -> Pixels:
    size = len(picture)
    small = Image.fromarray(picture).resize((size // 2, size // 2), Image.Resampling.BOX)
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def compressed(picture: Pixels, rng: np.random.Generator) -> Pixels:
    file = BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=60, subsampling=0)
    return np.asarray(Image.open(file))


def drifted(picture: Pixels, rng: np.random.Generator) -> Pixels:
    return np.clip(picture * rng.uniform(0.9, 1.1, 3) + rng.uniform(-12, 12, 3), 0, 255).astype(np.uint8)


def all_at_once(picture: Pixels, rng: np.random.Generator) -> Pixels:
    soft = Image.fromarray(drifted(picture, rng)).filter(ImageFilter.GaussianBlur(0.7))
    return np.clip(np.asarray(soft) + rng.normal(0, 10, picture.shape), 0, 255).astype(np.uint8)


def _blocks(picture: Pixels) -> NDArray[np.float32]:
    grid = len(picture) // 4
    return picture.reshape(grid, 4, grid, 4, 3).swapaxes(1, 2).reshape(-1, 48).astype(np.float32)


def rebuilt_from(book: NDArray[np.float32]) -> Spoil:
    """As a tokenizer without any learning would: each block of 4 x 4 pixels becomes the nearest of a book of blocks."""

    def rebuild(picture: Pixels, rng: np.random.Generator) -> Pixels:
        grid = len(picture) // 4
        nearest = ((book**2).sum(1) - 2 * _blocks(picture) @ book.T).argmin(1)
        return book[nearest].reshape(grid, grid, 4, 4, 3).swapaxes(1, 2).reshape(picture.shape).astype(np.uint8)

    return rebuild


# The least share at 48 and at 64 pixels; measured on 1,000 scenes: 1.000 unless another figure stands behind.
SPOILED: list[tuple[Spoil, float, float]] = [
    (blurred, 0.98, 0.99),
    (noisy, 0.98, 0.99),
    (down_and_up, 0.98, 0.99),
    (compressed, 0.98, 0.99),
    (drifted, 0.98, 0.99),
    (all_at_once, 0.98, 0.99),
]


@pytest.mark.parametrize("place", [0, 1], ids=["48", "64"])
@pytest.mark.parametrize("spoiled", SPOILED, ids=lambda spoiled: spoiled[0].__name__)
def test_small_slips_do_not_change_the_reading(spoiled: tuple[Spoil, float, float], place: int):
    spoil, *least = spoiled
    assert share_right(SCENES[:250], (48, 64)[place], spoil) >= least[place]


@pytest.mark.parametrize(("size", "least"), [(48, 0.98), (64, 0.99)])  # measured on 1,000 scenes: 0.996 and 1.000
def test_pictures_rebuilt_from_two_thousand_blocks_are_read(size: int, least: float):
    rng = np.random.default_rng(0)
    blocks = np.concatenate([_blocks(draw(sample_scene(np.random.default_rng((77, k))), size)) for k in range(300)])
    varied = blocks[blocks.std(1) > 8]
    flat = [np.tile(levels, 16) for levels in [*PALETTE.values(), *((grey,) * 3 for grey in range(118, 139, 4))]]
    book = np.concatenate((varied[rng.permutation(len(varied))[:2048]], np.array(flat, np.float32)))
    assert share_right(SCENES[:250], size, rebuilt_from(book)) >= least


def test_places_and_widths_are_found_to_a_fraction_of_a_pixel():
    for scene in SCENES[:100]:
        found = {(one.colour, one.shape): one for one in read_scene(draw(scene, 48))}
        kinds = Counter((thing.colour, thing.shape) for thing in scene.objects)
        for thing in scene.objects:
            if kinds[thing.colour, thing.shape] == 1:
                one = found[thing.colour, thing.shape]
                assert np.abs(np.subtract(one.centre, thing.centre)).max() < 0.5
                assert abs(one.width - thing.width) < 1.5
                assert one.agreement > 0.99


@pytest.mark.parametrize("size", [32, 96, 384])
def test_pictures_of_other_sizes_are_read_on_the_same_scale(size: int):
    thing = Object("star", "red", (20.0, 40.0), 22.0, PALETTE["red"])
    (found,) = read_scene(draw(Scene((thing,), 128), size))
    assert (found.shape, found.colour) == ("star", "red")
    assert np.abs(np.subtract(found.centre, thing.centre)).max() < 1


def test_an_oblong_picture_is_read_too():
    picture = draw(Scene((Object("star", "red", (20.0, 20.0), 20.0, PALETTE["red"]),), 128), 64)[:40]
    assert [(one.shape, one.colour) for one in read_scene(picture)] == [("star", "red")]


def pictured(paint: Callable[[ImageDraw.ImageDraw], None], background: tuple[int, int, int] = (128, 128, 128)) -> Image.Image:
    """A picture of 48 x 48, painted at eight times that size."""
    image = Image.new("RGB", (384, 384), background)
    paint(ImageDraw.Draw(image))
    return image.resize((48, 48), Image.Resampling.BOX)


RED, BLUE = PALETTE["red"], PALETTE["blue"]


@pytest.mark.parametrize(
    "paint",
    [
        lambda pen: None,
        lambda pen: pen.rectangle((100, 100, 108, 108), RED),  # a pixel
        lambda pen: pen.line((0, 200, 384, 200), RED, 8),  # a line, one pixel thin
        lambda pen: pen.rectangle((50, 100, 330, 190), RED),  # a bar
        lambda pen: pen.rectangle((8, 8, 370, 370), RED),  # as large as the picture
        lambda pen: pen.polygon([(130, 130), (250, 130), (190, 234)], RED),  # a triangle on its head
        lambda pen: pen.ellipse((130, 130, 250, 250), outline=RED, width=32),  # a ring
        lambda pen: [pen.ellipse((100 + x, 140, 190 + x, 230), RED) for x in (0, 86)],  # two circles that have run together
        lambda pen: pen.pieslice((130, 130, 250, 250), 0, 180, RED),  # half a circle
    ],
)
def test_what_is_no_shape_of_this_world_is_not_found(paint: Callable[[ImageDraw.ImageDraw], None]):
    assert read_scene(pictured(paint)) == []


def test_neighbours_of_different_colours_may_touch():
    def paint(pen: ImageDraw.ImageDraw) -> None:
        pen.rectangle((80, 130, 180, 230), RED)
        pen.ellipse((181, 130, 281, 230), BLUE)

    found = read_scene(pictured(paint))
    assert {(one.shape, one.colour) for one in found} == {("square", "red"), ("circle", "blue")}


def test_noise_holds_no_objects():
    rng = np.random.default_rng(0)
    for grain in (1, 2, 3, 4) * 10:  # pixels, smooth in between: what an untrained model paints
        levels = rng.integers(0, 256, (48 // grain, 48 // grain, 3), dtype=np.uint8)
        assert read_scene(Image.fromarray(levels).resize((48, 48), Image.Resampling.BICUBIC)) == []


def test_pictures_of_one_colour_hold_no_objects():
    for colour in (*PALETTE.values(), (128, 128, 128), (0, 0, 0), (255, 255, 255)):
        assert read_scene(Image.new("RGB", (48, 48), colour)) == []
