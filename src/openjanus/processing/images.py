"""Images: whatever a person hands over -> upright RGB -> the pixels a model reads; and a model's pixels -> images.

Knows PIL and numpy arithmetic. Does not know prompts, tokens or models.
"""

import binascii
import os
import re
import warnings
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from openjanus.errors import ConfigError, ImageError
from openjanus.types import ImageSource

# 10,000 x 10,000: 300 MB once decoded. More than that is a mistake or an attack, and is refused before decoding.
MAX_PIXELS = 100_000_000
# Read by running Ghostscript on the file, which is a program: never on what a stranger uploads.
PROGRAM_FORMATS = ("EPS",)

ACCEPTED = "give a path, bytes, a data: URL, a PIL image or a numpy array"
FORMATS = "PNG, JPEG, WebP, GIF, BMP or TIFF"

ORIENTATION_TAG = 0x0112  # EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A float image may leave 0..1 by this much (rounding, resampling): it is less than half a level of 255.
FLOAT_SLACK = 1e-3


def open_image(source: ImageSource, name: str = "the image given as bytes") -> Image.Image:
    """An upright RGB image from a path, bytes, a data: URL, a PIL image or a numpy array.

    Arrays are [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]: uint8, uint16 (0..65535), bool, or floats in 0..1. Transparency is laid
    on white, EXIF rotation is applied, 16-bit greys are scaled, of an animation the first frame is taken. name: what errors
    call bytes.
    ImageError if there is no such image, it is damaged or truncated, or its header tells of more than MAX_PIXELS pixels.
    Differs from the reference: it drops transparency and rotation, and clips 16-bit greys to white.
    """
    if isinstance(source, Image.Image):
        return _finish(source, f"the PIL image (mode {source.mode})")
    if isinstance(source, np.ndarray):
        return _finish(_from_array(source), "the numpy array")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode_bytes(bytes(source), name)
    if isinstance(source, str) and source[:5].lower() == "data:":
        return _from_data_url(source)
    if isinstance(source, str) and source[:8].lower().startswith(("http://", "https://")):
        raise ImageError(
            f"{_short(source)} is a web address, and images are not fetched from the web; download it, then {ACCEPTED}"
        )
    if isinstance(source, (str, os.PathLike)):
        return _from_path(Path(source))
    raise ImageError(f"an image came as {type(source).__name__}; {ACCEPTED}")


def _short(text: object) -> str:
    """The text on one line, at most 120 characters of it: what a stranger sends may be megabytes of base64."""
    line = " ".join(str(text)[:1000].split())
    return line if len(line) <= 120 else f"{line[:117]}..."


def _from_path(path: Path) -> Image.Image:
    name = _short(path)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; give one image file")
        with path.open("rb") as stream:
            return _decode(stream, name)
    except FileNotFoundError:
        raise ImageError(f"there is no image at {name}; give the path of an image file ({FORMATS})") from None
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte in it
        raise ImageError(f"{name} cannot be read ({_short(error)}); give the path of an image file you may read") from error


def _from_data_url(url: str) -> Image.Image:
    header, comma, payload = url.partition(",")
    name = f"the data: URL ({_short(header)[:40]})"
    if not comma:
        raise ImageError(f"{name} holds no data; it must read data:image/png;base64,DATA")
    data = unquote_to_bytes(payload)
    if header.lower().endswith(";base64"):
        # Both alphabets, line breaks and missing padding are in the wild; nothing is lost by reading them all.
        code = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        try:
            data = b64decode(code + b"=" * (-len(code) % 4), validate=True)
        except binascii.Error as error:
            raise ImageError(f"{name} is not valid base64 ({_short(error)}); encode the image file's bytes again") from error
    return _decode_bytes(data, name)


def _decode_bytes(data: bytes, name: str) -> Image.Image:
    return _decode(BytesIO(data), name)


def _decode(stream: BinaryIO, name: str) -> Image.Image:
    """The stream's image, wholly decoded; ImageError if it is none, too large, or damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # PIL warns from 89 million pixels; our limit follows
            image = Image.open(stream)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))  # PIL refuses before it tells the size in any other way
        raise ImageError(_too_large(name, int(pixels[0]) if pixels else None)) from None
    except UnidentifiedImageError:
        if stream.seekable() and stream.seek(0, os.SEEK_END) == 0:
            raise ImageError(f"{name} is empty; give an image file ({FORMATS})") from None
        raise ImageError(f"{name} is not an image that can be read here; give {FORMATS}") from None
    except Exception as error:  # the readers of some formats raise almost anything on a damaged header
        raise ImageError(f"{name} is damaged ({_short(error)}); give a whole image file ({FORMATS})") from error
    if image.format in PROGRAM_FORMATS:
        raise ImageError(f"{name} is a drawing program ({image.format}), not a picture; export it as PNG first")
    return _finish(image, name)


def _too_large(name: str, pixels: int | None, size: tuple[int, int] | None = None) -> str:
    shape = f" ({size[0]} x {size[1]})" if size else ""
    count = f"{pixels:,}" if pixels else "too many"
    return f"{name} has {count} pixels{shape}; the limit is {MAX_PIXELS:,}: make it smaller first"


def _finish(image: Image.Image, name: str) -> Image.Image:
    """The image loaded, upright and RGB; its size is checked before a pixel is decoded."""
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); give an image of at least 1 x 1")
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(name, width * height, image.size))
    try:
        image.load()
        return _rgb(_turn_upright(image), name)
    except ImageError:
        raise
    except Exception as error:  # the readers of some formats raise almost anything on damaged data
        raise ImageError(f"{name} is truncated or damaged ({_short(error)}); fetch or export it again") from error


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata is no reason to refuse a good picture
        return image
    if turn is None:
        return image
    turned = image.transpose(turn)
    # The turned picture must not ask to be turned again when it is opened a second time.
    for key in ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"):
        turned.info.pop(key, None)
    return turned


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _of_whole_numbers(image)
    elif image.mode == "F":
        image = Image.fromarray(_bytes_of_float_image(np.asarray(image), name))
    if image.has_transparency_data:
        front = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")  # PIL knows no way from La to RGBA
        return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
    return image.convert("RGB")


def _of_whole_numbers(image: Image.Image) -> Image.Image:
    """A PIL image of mode I or I;16 as L, or as LA if one of its levels is declared transparent.

    Mode I is of 8 bits if nothing exceeds 255 (what PIL itself and many programs put into it), else of 16.
    """
    values = np.asarray(image)
    eight_bits = image.mode == "I" and int(values.max()) <= 255
    grey = Image.fromarray(values.clip(0, 255).astype(np.uint8) if eight_bits else _bytes_of_words(values.clip(0, 65535)))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _bytes_of_words(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels 0..65535 as the nearest of 0..255; 257 * n becomes n exactly."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _bytes_of_unit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in 0..1 as the nearest level of 0..255."""
    return np.rint(values.astype(np.float32).clip(0, 1) * 255).astype(np.uint8)


def _bytes_of_float_image(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """A PIL image of mode F: 0..1 if nothing exceeds 1 (float TIFFs), else 0..255 (what PIL itself puts into this mode)."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -FLOAT_SLACK * 255 and high <= 255 * (1 + FLOAT_SLACK)):  # also true of NaN
        raise ImageError(f"{name} holds values from {low:g} to {high:g}; floats must be in 0..1 or 0..255: scale them first")
    return _bytes_of_unit(values if high <= 1 + FLOAT_SLACK else values / 255)


def _from_array(array: NDArray[Any]) -> Image.Image:
    """A PIL image L, RGB or RGBA of the array; ImageError for other shapes, types and ranges."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in {3, 4})):
        raise ImageError(
            f"a numpy image came with shape {list(array.shape)}; give [height, width] or [height, width, channels] "
            "with 1, 3 or 4 channels, channels last"
        )
    if array.size == 0:
        raise ImageError(f"a numpy image came with shape {list(array.shape)}, which has no pixels; give at least 1 x 1")
    kind = array.dtype.kind
    if kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    elif kind == "u" and array.dtype.itemsize == 2:
        array = _bytes_of_words(array)
    elif kind == "f":
        low, high = float(array.min()), float(array.max())
        if not (low >= -FLOAT_SLACK and high <= 1 + FLOAT_SLACK):  # also true of NaN
            raise ImageError(
                f"a numpy image of {array.dtype} holds values from {low:g} to {high:g}; floats must be in 0..1: "
                "divide by 255, or cast to uint8"
            )
        array = _bytes_of_unit(array)
    elif array.dtype != np.uint8:
        raise ImageError(
            f"a numpy image came as {array.dtype}; give uint8, uint16, bool, or floats in 0..1: array.astype('uint8')"
        )
    return Image.fromarray(np.ascontiguousarray(array))


CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class ImageProcessorConfig:
    """What `preprocessor_config.json` says (SPEC section 5); defaults complete a partial one.

    `background` fills the square around an image, per channel 0..255; None: int(255 * image_mean), or 127 without a mean.
    """

    image_size: int
    min_size: int = 14
    image_mean: tuple[float, float, float] | None = CLIP_MEAN
    image_std: tuple[float, float, float] | None = CLIP_STD
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    background: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ConfigError(f"preprocessor_config: image_size is {self.image_size}; it must be 1 or more")
        if self.do_normalize and (self.image_mean is None or self.image_std is None):
            raise ConfigError("preprocessor_config: do_normalize needs image_mean and image_std; give both or set it to false")
        if self.background is None:
            mean = self.image_mean
            object.__setattr__(self, "background", (127,) * 3 if mean is None else tuple(int(255 * value) for value in mean))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ImageProcessorConfig":
        """The configuration of a parsed `preprocessor_config.json`, of the published or the transformers layout.

        `background_color` is not read: both derive it from the mean, whatever the file says. ConfigError for wrong kinds.
        """
        size = values.get("image_size", values.get("size"))
        if isinstance(size, Mapping):
            size = size.get("height")
        if not isinstance(size, int) or isinstance(size, bool):
            raise ConfigError(f"preprocessor_config: image_size is {size!r}; it must be a whole number, such as 384")
        try:
            return cls(
                image_size=size,
                min_size=int(values.get("min_size", 14)),
                image_mean=_triple(values.get("image_mean", CLIP_MEAN)),
                image_std=_triple(values.get("image_std", CLIP_STD)),
                rescale_factor=float(values.get("rescale_factor", 1 / 255)),
                do_normalize=bool(values.get("do_normalize", True)),
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessor_config: a value is of the wrong kind ({error})") from error

    def to_json(self) -> dict[str, Any]:
        """The content of a published `preprocessor_config.json`."""
        return {
            "background_color": list(self.fill),
            "do_normalize": self.do_normalize,
            "image_mean": None if self.image_mean is None else list(self.image_mean),
            "image_processor_type": "VLMImageProcessor",
            "image_size": self.image_size,
            "image_std": None if self.image_std is None else list(self.image_std),
            "min_size": self.min_size,
            "processor_class": "VLChatProcessor",
            "rescale_factor": self.rescale_factor,
        }

    @property
    def fill(self) -> tuple[int, int, int]:
        """The background, derived or given."""
        assert self.background is not None
        return self.background


def _triple(values: Any) -> tuple[float, float, float] | None:
    if values is None:
        return None
    red, green, blue = (float(value) for value in values)
    return red, green, blue


@dataclass(frozen=True)
class ImageProcessor:
    """Images to the pixels the understanding pathway reads (SPEC section 5), bit for bit as the published processor."""

    config: ImageProcessorConfig
    levels: NDArray[np.float32] = field(init=False, repr=False, compare=False)  # [3, 256]: the value of each level per channel

    def __post_init__(self) -> None:
        # The product is taken in float64, the rest in float32: any other order differs from the published values in the last bit.
        scaled = (np.arange(256, dtype=np.float64) * self.config.rescale_factor).astype(np.float32)
        levels = np.tile(scaled, (3, 1))
        if self.config.do_normalize:
            mean, std = (np.asarray(values, np.float32)[:, None] for values in (self.config.image_mean, self.config.image_std))
            levels = (levels - mean) / std
        object.__setattr__(self, "levels", levels)

    def square(self, image: Image.Image) -> Image.Image:
        """The image scaled to fit S x S (small ones are enlarged) and centred on the background; its ratio is kept."""
        size, longest = self.config.image_size, max(image.size)
        # Differs from the reference: a min_size above S would make the square larger than the model reads.
        least = min(self.config.min_size, size)
        width, height = (max(int(side / longest * size), least) for side in image.size)
        image = image if image.mode == "RGB" else image.convert("RGB")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        square = Image.new("RGB", (size, size), self.config.fill)
        square.paste(image, ((size - width) // 2, (size - height) // 2))
        return square

    def pixels(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Pixels float32 [N, 3, S, S] of N RGB images; [0, 3, S, S] of none."""
        size = self.config.image_size
        pixels = np.empty((len(images), 3, size, size), np.float32)
        for row, image in zip(pixels, images, strict=True):
            levels = np.asarray(self.square(image))
            for channel in range(3):
                row[channel] = self.levels[channel][levels[:, :, channel]]
        return pixels


def to_images(pixels: torch.Tensor | NDArray[Any]) -> list[Image.Image]:
    """RGB images of pixels [B, 3, H, W] in [-1, 1], any float type; what lies outside is clipped.

    Levels are truncated, not rounded, as in the published scripts (SPEC section 4.1). NaN becomes black.
    """
    values = torch.as_tensor(pixels).detach().to("cpu", torch.float32).numpy()
    levels = np.nan_to_num(((values + 1) / 2 * 255).clip(0, 255)).astype(np.uint8)
    return [Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in levels]
