"""The nouns that travel between floors: messages, prompts, rows of a batch, and what a caller may ask for."""

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

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
    """

    ids: "torch.Tensor"
    slots: "torch.Tensor"
    pixels: "torch.Tensor"

    def __len__(self) -> int:
        return int(self.ids.shape[0])


@dataclass(frozen=True)
class Rows:
    """Prompts as left-padded rows of one batch.

    ids: int64 [R, T]; attended: bool [R, T], false where no later position may look (padding);
    positions: int64 [R, T], rotary positions; slots: bool [R, T]; pixels: float32 [N, 3, S, S], images in row order.
    """

    ids: "torch.Tensor"
    attended: "torch.Tensor"
    positions: "torch.Tensor"
    slots: "torch.Tensor"
    pixels: "torch.Tensor"

    def to(self, device: "torch.device") -> "Rows":
        """The same rows on a device."""
        return Rows(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class TrainingBatch:
    """Documents packed into rows, ready to learn from. Positions behind the last document of a row belong to document -1.

    ids, positions, documents: int64 [R, T]; a position sees only its own document, and in it only what is attended: bool [R, T].
    labels: int64 [R, T], the token to predict at a position, or IGNORE.
    slots: bool [R, T] and pixels: float32 [N, 3, S, S], the images that are read.
    inputs, outputs: bool [R, T], where the pictures' own embeddings go in and where their hidden states come out;
    pictures: float32 [M, 3, H, W] in [-1, 1], the pictures to paint, in row order; seeds: int64 [M], their chance.
    """

    ids: "torch.Tensor"
    positions: "torch.Tensor"
    documents: "torch.Tensor"
    attended: "torch.Tensor"
    labels: "torch.Tensor"
    slots: "torch.Tensor"
    pixels: "torch.Tensor"
    inputs: "torch.Tensor"
    outputs: "torch.Tensor"
    pictures: "torch.Tensor"
    seeds: "torch.Tensor"

    def to(self, device: "torch.device") -> "TrainingBatch":
        """The same batch on a device."""
        return TrainingBatch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PromptError(message)


def _check_sampling(temperature: float, top_p: float, top_k: int) -> None:
    _check(isfinite(temperature) and temperature >= 0, f"temperature is {temperature}; it must be 0 (greedy) or more")
    _check(0 < top_p <= 1, f"top_p is {top_p}; it must be above 0 and at most 1")
    _check(top_k >= 0, f"top_k is {top_k}; it must be 0 (off) or more")


def check_seed(seed: int | None) -> None:
    """Raise PromptError unless `seed` is None or a non-negative integer below 2**63."""
    _check(seed is None or 0 <= seed < 2**63, f"seed is {seed}; it must be a whole number from 0 to 2**63 - 1")


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
        _check(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}; it must be 1 or more")
        _check(all(self.stop), "stop holds an empty string; give strings of one character or more")
        _check_sampling(self.temperature, self.top_p, self.top_k)
        check_seed(self.seed)


@dataclass(frozen=True)
class ImageOptions:
    """What a caller may ask of pictures.

    Image i of n is drawn from seed + i, so any one can be painted again alone. guidance None is the model's own default, 1 is
    off. temperature, top_k, top_p act on models that paint with codes (temperature 0: the likeliest code); steps on flow models.
    """

    n: int = 1
    seed: int | None = None
    guidance: float | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    steps: int = 30

    def __post_init__(self) -> None:
        _check(self.n >= 1, f"n is {self.n}; ask for 1 image or more")
        _check(
            self.guidance is None or (isfinite(self.guidance) and self.guidance >= 0),
            f"guidance is {self.guidance}; it must be a number of 0 or more (1 is off, 5 is usual for Janus, 2 for JanusFlow)",
        )
        _check(self.steps >= 1, f"steps is {self.steps}; it must be 1 or more (30 is usual)")
        _check_sampling(self.temperature, self.top_p, self.top_k)
        check_seed(self.seed)
