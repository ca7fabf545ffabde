"""The nouns that travel between floors: messages, prompts, rows of a batch, and what a caller may ask for."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, SupportsFloat

from openjanus.errors import PromptError

if TYPE_CHECKING:
    import torch

Role = Literal["system", "user", "assistant"]
# The label of a position that is not learned from.
IGNORE = -100
# Whatever a person may hand over as an image: path, bytes, data: URL, PIL image, numpy array.
ImageSource = Any


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. Images stand where `<image_placeholder>` stands in the text, or before it if it has none."""

    role: Role
    text: str
    images: tuple[ImageSource, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """One tokenised prompt.

    ids: int64 [T]; slots: bool [T], true where an image embedding replaces the token's;
    pixels: float32 [N, 3, S, S] in [-1, 1], the images in the order of their slots.
    shown: bool [T], true where images stand as what the model paints with, and pictures: float32 [M, 3, H, W] in [-1, 1], these
    images (editing); None: nowhere.
    """

    ids: "torch.Tensor"
    slots: "torch.Tensor"
    pixels: "torch.Tensor"
    shown: "torch.Tensor | None" = None
    pictures: "torch.Tensor | None" = None

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True)
class TrainingBatch:
    """Documents packed into rows, ready to learn from.

    ids: int64 [R, T]. documents: groups of documents of like length, int64 [P_g, L_g] each: where in the flattened rows the
    tokens of a document stand, -1 behind its end. A position sees only its own document, and in it only what is attended:
    bool [R, T].
    labels: int64 [R, T], the token to predict at a position, or IGNORE.
    slots: bool [R, T] and pixels: float32 [N, 3, S, S], the images that are read.
    inputs, outputs: bool [R, T], where the pictures' own embeddings go in and where their hidden states come out;
    pictures: float32 [M, 3, H, W] in [-1, 1], the pictures to paint, in row order; seeds: int64 [M], their chance.
    rivals: bool [M], pictures that stand here a second time, behind a text that does not describe them, with the same seed.
    shown: bool [R, T] and originals: float32 [K, 3, H, W] in [-1, 1], pictures that stand in prompts as what the model paints
    with.
    """

    ids: "torch.Tensor"
    documents: "tuple[torch.Tensor, ...]"
    attended: "torch.Tensor"
    labels: "torch.Tensor"
    slots: "torch.Tensor"
    pixels: "torch.Tensor"
    inputs: "torch.Tensor"
    outputs: "torch.Tensor"
    pictures: "torch.Tensor"
    seeds: "torch.Tensor"
    rivals: "torch.Tensor"
    shown: "torch.Tensor"
    originals: "torch.Tensor"

    def to(self, device: "torch.device") -> "TrainingBatch":
        """The same batch on a device."""
        moved = {name: one.to(device, non_blocking=True) for name, one in vars(self).items() if name != "documents"}
        return TrainingBatch(**moved, documents=tuple(group.to(device, non_blocking=True) for group in self.documents))


def _whole(options: object, name: str, least: int, allowed: str) -> None:
    """Make a field of options a plain int of at least `least`; PromptError for anything else."""
    value = getattr(options, name)
    try:
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least or isinstance(value, bool):
        raise PromptError(f"{name} is {value!r}; it must be {allowed}")
    object.__setattr__(options, name, whole)


def _number(options: object, name: str, allowed: Callable[[float], bool], words: str) -> None:
    """Make a field of options a finite float that is allowed; PromptError for anything else."""
    value = getattr(options, name)
    if isinstance(value, bool | str) or not isinstance(value, SupportsFloat) or not isfinite(value) or not allowed(float(value)):
        raise PromptError(f"{name} is {value!r}; it must be {words}")
    object.__setattr__(options, name, float(value))


def _check_sampling(options: "TextOptions | ImageOptions") -> None:
    _number(options, "temperature", lambda value: value >= 0, "a number of 0 (always the likeliest) or more")
    _number(options, "top_p", lambda value: 0 < value <= 1, "a number above 0 and at most 1")
    _whole(options, "top_k", 0, "a whole number of 0 (off) or more")
    if options.seed is not None:
        _whole(options, "seed", 0, "a whole number from 0 to 2**63 - 1")
        if options.seed >= 2**63:
            raise PromptError(f"seed is {options.seed}; it must be a whole number from 0 to 2**63 - 1")


@dataclass(frozen=True)
class TextOptions:
    """What a caller may ask of an answer. Temperature 0 is greedy; top_k 0 and top_p 1 are off; seed None is a fresh one."""

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        _whole(self, "max_tokens", 1, "a whole number of 1 or more")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if not all(isinstance(text, str) and text for text in stop):
            raise PromptError(f"stop is {self.stop!r}; it must be texts of one character or more")
        object.__setattr__(self, "stop", stop)
        _check_sampling(self)


@dataclass(frozen=True)
class ImageOptions:
    """What a caller may ask of pictures.

    Image i of n is drawn from seed + i, so any one can be painted again alone. guidance None is the model's own default, 1 is
    off. temperature, top_k, top_p act on models that paint with codes (temperature 0: the likeliest code); steps on flow models.
    image_guidance: of a picture that is made of others, how much more the prompt counts than the codes of these; None is the
    model's own, 0 is off.
    """

    n: int = 1
    seed: int | None = None
    guidance: float | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    steps: int = 30
    image_guidance: float | None = None

    def __post_init__(self) -> None:
        _whole(self, "n", 1, "a whole number of 1 or more")
        _whole(self, "steps", 1, "a whole number of 1 or more (30 is usual)")
        if self.guidance is not None:
            words = "a number from 0 to 1000 (1 is off, 5 is usual for Janus, 2 for JanusFlow)"
            _number(self, "guidance", lambda value: 0 <= value <= 1000, words)
        if self.image_guidance is not None:
            words = "a number from 0 (off) to 1000 (5 is usual)"
            _number(self, "image_guidance", lambda value: 0 <= value <= 1000, words)
        _check_sampling(self)
