"""Images that strangers send: looked at before they are decoded, never read from a path."""

import base64
import binascii
from io import BytesIO
from urllib.parse import unquote_to_bytes

from PIL import Image, UnidentifiedImageError

from openjanus.errors import ImageError
from openjanus.processing.images import open_image
from openjanus.processing.prompts import Processor

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# A second picture in a photo (a phone's depth map) is no animation.
_ANIMATED = ("PNG", "WEBP", "GIF")


def bytes_of_data_url(url: str) -> bytes:
    """What a data: URL of an image holds; ImageError if it is none."""
    header, comma, payload = url.partition(",")
    media = header[5:].split(";")[0].strip().lower()
    if not comma or (media and not media.startswith("image/")):
        raise ImageError(f"the data: URL is of type {media[:40] or 'nothing'!r}; it must read data:image/png;base64,DATA")
    if not header.lower().rstrip().endswith(";base64"):
        return unquote_to_bytes(payload.encode("utf-8", "replace"))
    try:
        # Both alphabets, line breaks and missing padding are in the wild; nothing is lost by reading them all.
        code = b"".join(payload.encode("ascii").split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return base64.b64decode(code + b"=" * (-len(code) % 4), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ImageError("the data: URL is not valid base64; encode the image file's bytes again") from None


def small_image(data: bytes, pixels: int, processor: Processor) -> Image.Image:
    """The image of a file's bytes, as large as the model reads it: no more than one is ever held at its full size.

    ImageError for what is no image, an animation, or more pixels than allowed, told from its header.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            moving = image.format in _ANIMATED and getattr(image, "is_animated", False)
    except UnidentifiedImageError:
        start = data.lstrip()[:200].lower()
        drawing = " (an SVG is a drawing: export it as PNG)" if b"<svg" in start or start.startswith(b"<?xml") else ""
        raise ImageError(f"the image is of no kind that is read here{drawing}; send PNG, JPEG, WebP, GIF or BMP") from None
    except Image.DecompressionBombError:
        raise ImageError(f"the image has too many pixels; at most {pixels:,} are allowed: make it smaller") from None
    except Exception:  # the readers of some formats raise almost anything on a damaged header
        raise ImageError("the image is damaged; fetch or export it again") from None
    if width * height > pixels:
        raise ImageError(f"the image has {width} x {height} pixels; at most {pixels:,} are allowed: make it smaller")
    if moving:
        raise ImageError("the image is an animation; send one frame of it")
    return processor.images.square(open_image(data, "the image"))
