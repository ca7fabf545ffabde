"""Pictures from files: every one once a pass, cut inside their edges, some never learned from; and VQ-16's recipe on them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openjanus.errors import ConfigError, DataError
from openjanus.train.overrides import override
from openjanus.train.pictures import UNSEEN, FilePictures
from openjanus.train.recipe_files import load_recipe

from .running import curve, run

VQ16 = Path(__file__).resolve().parents[2] / "recipes" / "vq16.py"
SIZE = 16


def fill(folder: Path, count: int = 40) -> Path:
    """Pictures of one grey each, 4 levels apart, wide and high, in two folders."""
    for k in range(count):
        path = folder / ("ab"[k % 2]) / f"{k:03}.{('png', 'JPG', 'webp')[k % 3]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", ((24, 40), (50, 20))[k % 2], (4 * k, 4 * k, 4 * k)).save(path, quality=95)
    return folder


def grey(picture: np.ndarray) -> int:
    """Which of the pictures it is."""
    return round(float(picture.mean()) / 4)


def test_a_pass_shows_each_picture_once_and_the_next_one_in_another_order(tmp_path: Path):
    pictures = FilePictures([fill(tmp_path)], SIZE)
    passes = [[grey(pictures[k]) for k in range(turn * 38, (turn + 1) * 38)] for turn in range(2)]
    # By their names b/037 and b/039 come last: those are never learned from.
    assert sorted(passes[0]) == sorted(passes[1]) == [*range(37), 38]
    assert passes[0] != passes[1]
    assert {grey(pictures[UNSEEN + k]) for k in range(4)} == {37, 39}


def test_a_picture_is_the_same_every_time_and_another_with_another_seed(tmp_path: Path):
    fill(tmp_path / "flat")
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "flat" / "a" / "noise.png")
    one, again, other = (FilePictures([tmp_path], SIZE, seed) for seed in (1, 1, 2))
    shown = [np.stack([pictures[k] for k in range(39)]) for pictures in (one, again, other)]
    assert shown[0].shape == (39, SIZE, SIZE, 3) and shown[0].dtype == np.uint8
    assert np.array_equal(shown[0], shown[1]) and not np.array_equal(shown[0], shown[2])


def test_cuts_lie_inside_and_some_are_mirrored(tmp_path: Path):
    fill(tmp_path)
    ramp = np.broadcast_to(np.linspace(100, 250, 64, dtype=np.uint8)[None, :, None], (32, 64, 3))
    for k in range(400):
        Image.fromarray(ramp).save(tmp_path / "a" / f"9{k:03}.png")
    pictures = FilePictures([tmp_path / "a"], SIZE)
    ramps = [row for row in (pictures[k][8, :, 0].astype(int) for k in range(380)) if row.std() > 5]
    falling = [row for row in ramps if row[0] > row[-1]]
    assert 0.4 < len(falling) / len(ramps) < 0.6
    assert {bool(np.all(np.diff(row) >= 0) or np.all(np.diff(row) <= 0)) for row in ramps} == {True}
    # 16 to 20 of a height of 16 to 20: between 40 and 50 % of the ramp's width, anywhere in it.
    spans = [abs(row[0] - row[-1]) for row in ramps]
    assert 50 < min(spans) < max(spans) < 78
    assert min(row.min() for row in ramps) < 110 and max(row.max() for row in ramps) > 240


def test_a_folder_without_pictures_and_a_broken_one_are_named(tmp_path: Path):
    with pytest.raises(DataError, match="no folder: 0 pictures"):
        FilePictures([], SIZE)
    with pytest.raises(DataError, match=r"none: 0 pictures .* 20 or more are needed"):
        FilePictures([tmp_path / "none"], SIZE)
    fill(tmp_path)
    (tmp_path / "a" / "000.png").write_bytes(b"no picture")
    pictures = FilePictures([tmp_path], SIZE)
    with pytest.raises(DataError, match=r"000\.png.*mend it or take it out"):
        _ = [pictures[k] for k in range(38)]


def test_vq16_learns_from_files_and_asks_for_what_it_lacks(tmp_path: Path):
    recipe = load_recipe(str(VQ16))
    with pytest.raises(ConfigError, match=r"settings\.vgg names no file"):
        recipe.task(recipe)
    small = override(
        recipe,
        [
            f"settings.pictures={fill(tmp_path / 'pictures')}",
            "settings.likeness.perceptual=0",
            "settings.size=32",
            "settings.tokenizer.ch=32",
            "settings.adversary.start=1",
            "settings.adversary.width=8",
            "stages.learn.steps=2",
            "stages.learn.batch=2",
            "preview_every=2",
        ],
    )
    run(tmp_path / "run", recipe=small)
    assert curve(tmp_path / "run")[-1]["losses"].keys() == {"codebook", "commitment", "l2", "fooling", "telling"}
    assert list((tmp_path / "run" / "previews").rglob("reconstructions.png"))
