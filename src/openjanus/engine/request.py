"""What is asked of an engine, and what it tells."""

import json
from dataclasses import dataclass, field
from typing import IO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from openjanus.errors import JanusError
from openjanus.types import ImageOptions, ImageSource, Prompt, TextOptions


@dataclass(frozen=True)
class TextRequest:
    """An answer to a prompt."""

    prompt: Prompt
    options: TextOptions = field(default_factory=TextOptions)


@dataclass(frozen=True)
class ImageRequest:
    """options.n pictures of a text; picture i is drawn from options.seed + i.

    previews: how often, evenly over its making, an unfinished picture is shown; less often where many are at a time. images:
    those that the picture is made of, if it is an edit.
    """

    text: str
    options: ImageOptions = field(default_factory=ImageOptions)
    previews: int = 0
    images: tuple[ImageSource, ...] = ()


Request = TextRequest | ImageRequest


@dataclass(frozen=True)
class Answer:
    """A finished answer. reason: "stop" (the model ended it, or a stop string did) or "length" (no token more was allowed)."""

    text: str
    reason: str
    prompt_tokens: int
    ids: tuple[int, ...]
    """Its tokens, the one that ended it left out."""


@dataclass(frozen=True)
class Picture:
    """A painted image and what it takes to paint it again."""

    image: Image.Image
    prompt: str
    seed: int
    options: ImageOptions

    def metadata(self, model: str) -> dict[str, str]:
        """What a PNG of the picture carries along, as text: prompt, seed, and the settings as JSON."""
        settings = {name: getattr(self.options, name) for name in ("guidance", "temperature", "top_p", "top_k", "steps")}
        if self.options.image_guidance is not None:
            settings["image_guidance"] = self.options.image_guidance
        return {
            "Software": "openjanus",
            "prompt": self.prompt,
            "seed": str(self.seed),
            "settings": json.dumps({"model": model, **settings}),
        }

    def write(self, file: IO[bytes], model: str) -> None:
        """Write it as PNG with that metadata; OSError if the disk refuses."""
        info = PngInfo()
        for key, value in self.metadata(model).items():
            info.add_itxt(key, value)
        self.image.save(file, format="PNG", pnginfo=info)


@dataclass(frozen=True)
class Piece:
    """More text of an answer."""

    request: int
    text: str


@dataclass(frozen=True)
class Progress:
    """A step of picture `image` of a request is done."""

    request: int
    image: int
    done: int
    steps: int


@dataclass(frozen=True)
class Preview:
    """Picture `image` of a request as it is now."""

    request: int
    image: int
    picture: Image.Image


@dataclass(frozen=True)
class Finished:
    """The last event of a request that went well: an answer, or all of its pictures in order."""

    request: int
    result: Answer | tuple[Picture, ...]


@dataclass(frozen=True)
class Failed:
    """The last event of a request that did not."""

    request: int
    error: JanusError


Event = Piece | Progress | Preview | Finished | Failed
