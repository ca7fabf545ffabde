"""Pictures as files: encoded, and held for a while under links that nobody can guess."""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from secrets import token_urlsafe
from typing import Any, Literal

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from openjanus.engine.request import Picture

Format = Literal["png", "jpeg", "webp"]


def encode(image: Image.Image, kind: Format, quality: int | None = None, about: dict[str, str] | None = None) -> bytes:
    """The bytes of a file of an image. quality: 0 to 100, of JPEG and WebP; about: what a PNG carries along as text."""
    settings: dict[str, Any] = {}
    if kind == "png":
        settings["pnginfo"] = PngInfo()
        for name, value in (about or {}).items():
            settings["pnginfo"].add_itxt(name, value)
    elif quality is not None:
        settings["quality"] = quality
    file = BytesIO()
    image.save(file, format=kind.upper(), **settings)
    return file.getvalue()


def encode_picture(picture: Picture, model: str, kind: Format = "png", quality: int | None = None) -> bytes:
    """The bytes of a file of a picture; a PNG remembers how it was painted."""
    return encode(picture.image, kind, quality, picture.metadata(model))


def base64_of(data: bytes) -> str:
    """The bytes as text."""
    return base64.b64encode(data).decode("ascii")


@dataclass
class PictureStore:
    """Files in memory for a while. Those that are too old, and the oldest when there are too many bytes, are gone."""

    seconds: float
    most_bytes: int
    clock: Callable[[], float] = time.monotonic
    _files: OrderedDict[str, tuple[float, bytes, str]] = field(default_factory=OrderedDict)
    _bytes: int = 0

    def put(self, data: bytes, kind: Format) -> str:
        """Keep a file and return its name, which cannot be guessed."""
        name = f"{token_urlsafe(24)}.{kind}"
        self._files[name] = (self.clock() + self.seconds, data, f"image/{kind}")
        self._bytes += len(data)
        self._tidy()
        return name

    def get(self, name: str) -> tuple[bytes, str] | None:
        """A file and its media type, None if it is not there any more."""
        self._tidy()
        found = self._files.get(name)
        return None if found is None else found[1:]

    def _tidy(self) -> None:
        while self._files:
            until, data, _ = next(iter(self._files.values()))
            if until > self.clock() and self._bytes <= self.most_bytes:
                return
            self._files.popitem(last=False)
            self._bytes -= len(data)
