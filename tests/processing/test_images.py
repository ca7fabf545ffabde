"""Whatever a person hands over becomes the RGB image they see, or one line that says why not."""

import base64
import io
import struct
import urllib.parse
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from openjanus.errors import ConfigError, ImageError
from openjanus.processing.images import MAX_PIXELS, ImageProcessor, ImageProcessorConfig, open_image, to_images

RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def picture(width: int = 19, height: int = 11) -> Image.Image:
    """RGB noise with a fixed seed: no two places look alike."""
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def levels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def refusal(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def empty_png(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose data never comes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def test_every_way_of_giving_an_image_gives_the_same_image(tmp_path: Path) -> None:
    image = picture()
    data = encoded(image)
    path = tmp_path / "a picture.png"
    path.write_bytes(data)
    code = base64.b64encode(data).decode()
    wrapped = "\n".join(code[start : start + 76] for start in range(0, len(code), 76))
    sources = [
        path,
        str(path),
        data,
        bytearray(data),
        memoryview(data),
        f"data:image/png;base64,{code}",
        f"DATA:image/png;charset=utf-8;BASE64,{wrapped}",
        f"data:;base64,{urllib.parse.quote(code, safe='')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(data).decode().rstrip('=')}",
        f"data:image/png,{urllib.parse.quote(data)}",
        image,
        Image.open(path),
        np.asarray(image),
    ]
    for source in sources:
        assert np.array_equal(levels(open_image(source)), np.asarray(image)), repr(source)[:60]


def test_the_callers_image_is_not_changed() -> None:
    image = picture().convert("RGBA")
    before = image.tobytes()
    opened = open_image(image)
    opened.paste("black", (0, 0, *opened.size))
    assert image.mode == "RGBA"
    assert image.tobytes() == before


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_a_colour_image_of_any_mode_keeps_its_colours(mode: str) -> None:
    colour = (200, 60, 90)
    image = Image.new("RGB", (4, 4), colour)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    assert image.mode == mode
    assert np.abs(levels(open_image(image)).astype(int) - colour).max() <= 4


@pytest.mark.parametrize(("mode", "white"), [("1", 1), ("L", 255)])
def test_grey_and_black_and_white_images_become_rgb(mode: str, white: int) -> None:
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), white)
    assert levels(open_image(image))[0].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("LA" if "L" in mode else "RGBA", (2, 1), (0, 0) if "L" in mode else (255, 0, 0, 0))
    image.putpixel((1, 0), (100, 255) if "L" in mode else (255, 0, 0, 255))
    shown = levels(open_image(_as_mode(image, mode)))
    assert tuple(shown[0, 0]) == WHITE
    assert tuple(shown[0, 1]) == ((100, 100, 100) if "L" in mode else RED)


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode != "PA":
        return image.convert(mode)
    indexed = Image.new("PA", image.size)
    indexed.putpalette([*RED, *GREEN])
    indexed.putpixel((0, 0), (1, 0))
    indexed.putpixel((1, 0), (0, 255))
    return indexed


def test_half_transparency_is_half_white() -> None:
    shown = levels(open_image(Image.new("RGBA", (1, 1), (0, 0, 0, 128))))
    assert tuple(shown[0, 0]) == (127, 127, 127)


def test_a_palette_or_grey_file_with_a_transparent_colour_is_laid_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 90)
    colour = Image.new("RGB", (2, 1), (1, 2, 3))
    colour.putpixel((1, 0), GREEN)
    for image, mark, seen in ((palette, 0, GREEN), (grey, 7, (90, 90, 90)), (colour, (1, 2, 3), GREEN)):
        shown = levels(open_image(encoded(image, transparency=mark)))
        assert [tuple(pixel) for pixel in shown[0]] == [WHITE, seen]


def test_opaque_images_with_an_alpha_channel_keep_every_level() -> None:
    image = picture()
    assert np.array_equal(levels(open_image(image.convert("RGBA"))), np.asarray(image))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_greys_are_scaled_not_clipped(mode: str) -> None:
    ramp = np.array([[0, 257, 128 * 257, 255 * 257, 65535, 300]], dtype=np.uint16)
    if mode == "I":
        image = Image.fromarray(ramp.astype(np.int32))
    else:
        image = Image.frombytes(mode, (6, 1), ramp.astype("<u2" if mode == "I;16" else ">u2").tobytes())
    assert image.mode == mode
    assert levels(open_image(image))[0, :, 0].tolist() == [0, 1, 128, 255, 255, 1]


def test_a_sixteen_bit_png_file_is_scaled() -> None:
    ramp = np.array([[0, 1000, 40000, 65535]], dtype=np.uint16)
    shown = levels(open_image(encoded(Image.fromarray(ramp))))
    assert shown[0, :, 1].tolist() == [0, 4, 156, 255]


def test_whole_numbers_that_never_exceed_255_are_levels_of_8_bits_in_mode_i_alone() -> None:
    ramp = np.array([[-3, 0, 1, 128, 255]], dtype=np.int32)
    assert levels(open_image(Image.fromarray(ramp)))[0, :, 2].tolist() == [0, 0, 1, 128, 255]
    assert levels(open_image(Image.fromarray(ramp.clip(0).astype(np.uint16))))[0, :, 2].tolist() == [0, 0, 0, 0, 1]


def test_a_sixteen_bit_png_with_a_transparent_level_is_laid_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1000, 40000, 1001]], dtype=np.uint16))
    shown = open_image(encoded(image, transparency=1000))
    assert levels(shown)[0, :, 0].tolist() == [0, 255, 156, 4]


def test_float_images_of_either_range_are_shown() -> None:
    unit = Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32))
    bytes_ = Image.fromarray(np.array([[0.0, 127.6, 255.0]], dtype=np.float32))
    assert levels(open_image(unit))[0, :, 0].tolist() == [0, 128, 255]
    assert levels(open_image(bytes_))[0, :, 0].tolist() == [0, 128, 255]
    assert "0..1 or 0..255" in refusal(Image.fromarray(np.array([[0.0, 3000.0]], dtype=np.float32)))
    assert "nan" in refusal(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_taken_sideways_are_upright(orientation: int) -> None:
    upright = picture(24, 16)
    # How a camera held that way stores the scene: the inverse of what the viewer has to do.
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for format in ("PNG", "TIFF", "WEBP"):
        shown = open_image(encoded(stored, format, exif=exif, **({"lossless": True} if format == "WEBP" else {})))
        assert np.array_equal(levels(shown), np.asarray(upright)), format
    given_open = Image.open(io.BytesIO(encoded(stored, exif=exif)))
    assert np.array_equal(levels(open_image(given_open)), np.asarray(upright))
    assert np.array_equal(levels(open_image(open_image(given_open))), np.asarray(upright)), "turned a second time"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_does_not_cost_the_picture() -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"):
        assert open_image(encoded(picture(), "JPEG", exif=exif)).size == (19, 11)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert tuple(levels(open_image(data))[0, 0]) == RED, format


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[[0], [7], [255]]], np.uint8), [0, 7, 255]),
        (np.array([[0, 257 * 7, 65535]], np.uint16), [0, 7, 255]),
        (np.array([[0, 257 * 7, 65535]], ">u2"), [0, 7, 255]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0, 7 / 255, 1]], np.float64), [0, 7, 255]),
        (np.array([[-0.0005, 7 / 255, 1.0005]], np.float32), [0, 7, 255]),
        (np.array([[0, 0.5, 1]], np.float16), [0, 128, 255]),
    ],
)
def test_grey_arrays_of_any_kind_become_rgb(array: np.ndarray, expected: list[int]) -> None:
    shown = levels(open_image(array))
    assert shown.shape == (1, len(expected), 3)
    assert all(shown[0, :, channel].tolist() == expected for channel in range(3))


def test_colour_arrays_keep_their_colours_and_lay_alpha_on_white() -> None:
    colour = np.asarray(picture())
    assert np.array_equal(levels(open_image(colour)), colour)
    assert np.array_equal(levels(open_image(colour / 255)), colour)
    assert np.array_equal(levels(open_image(colour[::-1, ::2])), colour[::-1, ::2])
    clear = np.zeros((2, 2, 4), np.float32)
    assert np.array_equal(levels(open_image(clear)), np.full((2, 2, 3), 255))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 8), np.uint8), ["[3, 8, 8]", "channels last"]),
        (np.zeros((8,), np.uint8), ["[8]"]),
        (np.zeros((1, 8, 8, 3), np.uint8), ["[1, 8, 8, 3]"]),
        (np.zeros((0, 8, 3), np.uint8), ["no pixels"]),
        (np.zeros((8, 8), np.int64), ["int64", "astype"]),
        (np.full((8, 8), 200.0), ["200", "divide by 255"]),
        (np.full((8, 8), np.nan), ["nan"]),
        (np.full((8, 8), "x"), ["uint8"]),
        (np.zeros((8, 8), np.complex64), ["complex64"]),
    ],
)
def test_arrays_that_are_no_image_are_refused(array: np.ndarray, words: list[str]) -> None:
    message = refusal(array)
    assert all(word in message for word in words), message


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    assert "there is no image at" in refusal(tmp_path / "none.png")
    assert "folder" in refusal(tmp_path)
    assert "cannot be read" in refusal("a" * 5000)
    assert "cannot be read" in refusal("a\0b.png")
    assert "there is no image at ~nobody" in refusal("~nobody-of-that-name/x.png")
    assert "download" in refusal("https://example.com/a.png")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("I am not a picture\n" * 40)
    assert str(text) in refusal(text)
    assert "not an image" in refusal(text)
    nothing = tmp_path / "nothing.png"
    nothing.touch()
    assert "is empty" in refusal(nothing)
    assert "is empty" in refusal(b"")
    assert "no data" in refusal("data:image/png;base64")
    assert "is empty" in refusal("data:image/png;base64,")
    assert "base64" in refusal("data:image/png;base64,%%%%")
    assert "base64" in refusal("data:image/png;base64,a")
    assert "<svg" not in refusal("data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "no pixels" in refusal(Image.new("RGB", (0, 5)))
    for other in (None, 3, object(), ["a.png"], io.BytesIO(encoded(picture()))):
        assert type(other).__name__ in refusal(other)


def test_postscript_is_never_run() -> None:
    drawing = encoded(picture(), "EPS")
    assert "drawing program" in refusal(drawing)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(encoded(picture()))
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        assert "cannot be read" in refusal(path)
    else:
        pytest.skip("this user may read every file")


@pytest.mark.parametrize("side", [10_001, 12_000, 30_000, 2**31 - 1])
def test_a_huge_image_is_refused_from_its_header_without_a_warning(side: int, tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(empty_png(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for source in (path, path.read_bytes()):
            message = refusal(source)
            assert f"{side * side:,}" in message
            assert f"{MAX_PIXELS:,}" in message


def test_a_large_image_within_the_limit_is_opened_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = encoded(Image.new("1", (10_000, 9_500)))  # beyond what PIL warns of
        assert open_image(data).size == (10_000, 9_500)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_truncated_image_is_refused_wherever_it_is_cut(format: str) -> None:
    data = encoded(picture(64, 48), format)
    whole = levels(open_image(data))
    for kept in [*range(0, len(data) - 1, max(1, len(data) // 40)), len(data) - 20]:
        try:
            shown = levels(open_image(data[:kept]))
        except ImageError:
            continue
        assert kept > len(data) - 40, f"{format}: {kept} of {len(data)} bytes were accepted"
        assert np.array_equal(shown, whole)  # only a closing mark was missing


def test_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(encoded(picture(200, 200), "JPEG")[:3000])
    message = refusal(path)
    assert "truncated" in message
    assert str(path) in message
    assert "truncated" in refusal(Image.open(path))


@settings(max_examples=60, deadline=None)
@given(
    place=st.integers(0, 2000), byte=st.integers(0, 255), format=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
)
def test_a_flipped_byte_gives_an_image_or_one_line(place: int, byte: int, format: str) -> None:
    data = bytearray(encoded(picture(), format))
    data[place % len(data)] = byte
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's remarks on odd metadata
        try:
            assert open_image(data).mode == "RGB"
        except ImageError as error:
            assert "\n" not in str(error)


def test_small_images_are_enlarged_and_long_ones_keep_a_least_side() -> None:
    processor = ImageProcessor(ImageProcessorConfig(32, image_mean=(0.5,) * 3, image_std=(0.5,) * 3))
    small = np.asarray(processor.square(Image.new("RGB", (2, 1), RED)))
    assert (small[8:24] == RED).all()
    assert (small[:8] == 127).all()
    line = np.asarray(processor.square(Image.new("RGB", (1000, 1), RED)))
    assert (line == RED).all(axis=2).sum() == 14 * 32


def test_images_of_other_modes_are_read_as_rgb() -> None:
    processor = ImageProcessor(ImageProcessorConfig(8))
    grey = picture().convert("L")
    assert np.array_equal(processor.pixels([grey]), processor.pixels([grey.convert("RGB")]))


def test_no_images_are_an_empty_batch() -> None:
    assert ImageProcessor(ImageProcessorConfig(8)).pixels([]).shape == (0, 3, 8, 8)


def test_a_model_smaller_than_the_least_side_still_gets_its_size() -> None:
    assert ImageProcessor(ImageProcessorConfig(8, min_size=14)).pixels([picture()]).shape == (1, 3, 8, 8)


def test_the_configuration_is_read_from_both_layouts_and_written_back() -> None:
    published = {"image_size": 384, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "background_color": [0, 0, 0]}
    config = ImageProcessorConfig.from_json(published)
    assert config.background == (127, 127, 127)
    assert config.rescale_factor == 1 / 255
    other = {"size": {"height": 384, "width": 384}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    assert ImageProcessorConfig.from_json(other) == config
    assert ImageProcessorConfig.from_json(config.to_json()) == config
    assert ImageProcessorConfig.from_json({"image_size": 24}).background == (122, 116, 104)
    assert ImageProcessorConfig(8, background=(1, 2, 3)).fill == (1, 2, 3)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"image_size": "384"},
        {"image_size": 0},
        {"image_size": 8, "image_mean": [0.5]},
        {"image_size": 8, "image_mean": None},
        {"image_size": 8, "image_std": "abc"},
        {"image_size": 8, "min_size": None},
    ],
)
def test_an_impossible_configuration_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="preprocessor_config"):
        ImageProcessorConfig.from_json(values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_pixels_are_clipped_and_truncated_to_levels(dtype: torch.dtype) -> None:
    row = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0], dtype=dtype, requires_grad=True)
    (image,) = to_images(row.expand(1, 3, 2, 5))
    assert image.mode == "RGB"
    assert image.size == (5, 2)
    assert np.asarray(image)[1, :, 2].tolist() == [0, 0, 127, 255, 255]


def test_arrays_and_nan_become_images_too() -> None:
    (image,) = to_images(np.full((1, 3, 1, 1), np.nan, np.float32))
    assert image.getpixel((0, 0)) == (0, 0, 0)
    assert to_images(np.zeros((0, 3, 2, 2), np.float32)) == []
