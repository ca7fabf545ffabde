"""The protocol by which text, code images and flow images are made, and its text implementation.

Every kind runs the same way: the language model reads a prompt up to its last token; then, step by step, it is given `inputs`
and its hidden states are handed to `take`. The first step's input stands in the place of the prompt's last token: for text and
codes it is that token, for a flow it is the time and the noisy latent.

    kind    positions a step    kept in the cache    steps
    text    1                   yes                  up to max_tokens
    codes   1                   yes                  576
    flow    1 + 576             no (the latent moves on)    30

A decoding holds the state of everything of its kind that is in the making, each in a lane: the number of the cache's lane that
its (conditional) row runs in. Who joins and leaves changes nothing for the others. Dims: L lanes, M of them that take a step.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from openjanus.models.llama import Llama
from openjanus.models.sampling import Manner, Sampling, guide
from openjanus.types import ImageOptions, TextOptions


class ImageDecoding(Protocol):
    """The images that one model has in the making."""

    positions: int
    """New positions of a row in a step."""
    keeps: bool
    """Whether the next step stands behind this one's positions; otherwise in their place."""

    def join(self, lane: int, begin: Tensor, options: ImageOptions, seed: int) -> None:
        """Begin an image behind a prompt whose last token is embedded as begin, [D]; all its chance comes from seed.

        options: with a guidance, not None.
        """

    def inputs(self, lanes: Tensor) -> Tensor:
        """Embeddings [M, positions, D] of the next step of the images in lanes, int64 [M]."""

    def manner(self, lanes: Sequence[int]) -> Manner | None:
        """What of the options of the images in lanes decides what a step does, beside numbers on the device."""

    def take(self, lanes: Tensor, hidden: Tensor, paired: Tensor | None, manner: Manner | None) -> None:
        """Move the images in lanes, int64 [M], on by hidden states of the positions `inputs` gave.

        hidden: [R, positions, D], the M conditional rows, behind them the blank rows of those that are guided, and last the rows
        of manner.edited that lack their pictures' codes. paired: which of the M the rows behind them belong to, int64 [R - M];
        None if all, in order. manner: of these lanes.
        """

    def picture(self, lane: int) -> Callable[[], Tensor]:
        """What makes the pixels of the image as it is now: [1, 3, H, W], about -1 to 1. In the middle of its making, of the best
        guess at what it becomes. The lane may be another's before it is called."""

    def grow(self, lanes: int) -> None:
        """Make room for so many lanes, more than before."""


class TextDecoding:
    """The answers that a model has in the making, a token each a step."""

    def __init__(self, language: Llama, lanes: int) -> None:
        device = language.model.norm.weight.device
        self._language = language
        self._last = torch.zeros(lanes, dtype=torch.int64, device=device)
        self._sampling = Sampling(lanes, device)

    def join(self, lane: int, last: int, options: TextOptions) -> None:
        """Begin an answer behind a prompt whose last token is `last`."""
        self._last[lane] = last
        self._sampling.join(lane, options)

    def inputs(self, lanes: Tensor) -> Tensor:
        """Embeddings [M, 1, D] of the next step of the answers in lanes, int64 [M]."""
        return self._language.embed(self._last[lanes][:, None])

    def manner(self, lanes: Sequence[int]) -> Manner:
        """How the answers in lanes choose."""
        return self._sampling.manner(lanes)

    def take(self, lanes: Tensor, hidden: Tensor, uniform: Tensor, manner: Manner) -> Tensor:
        """The next token of the answers in lanes, int64 [M], by hidden states [M, 1, D] and uniform numbers [M] in [0, 1)."""
        tokens = self._sampling.pick(lanes, self._language.logits(hidden[:, -1]), uniform, manner)
        self._last[lanes] = tokens
        return tokens

    def grow(self, lanes: int) -> None:
        """Make room for so many lanes, more than before."""
        self._last = widened(self._last, lanes)
        self._sampling.grow(lanes)


def guided(predictions: Tensor, guidance: Tensor, paired: Tensor | None) -> Tensor:
    """Predictions [M, ...] of M images from those of their rows, [R, ...] (see ImageDecoding.take); guidance: [M]."""
    images = len(guidance)
    if len(predictions) == images:
        return predictions
    conditional, blank = predictions[:images], predictions[images:]
    scale = guidance.view(-1, *[1] * (predictions.dim() - 1))
    if paired is None:
        return guide(conditional, blank, scale)
    return conditional.index_copy(0, paired, guide(conditional[paired], blank, scale[paired]))


def with_pairs(x: Tensor, rows: int, paired: Tensor | None) -> Tensor:
    """x [M, ...] of M images as that of their R rows, [R, ...]: blank rows get what their conditional ones get."""
    if rows == len(x):
        return x
    return torch.cat((x, x if paired is None else x[paired]))


def widened(x: Tensor, lanes: int) -> Tensor:
    """x [L, ...] with zeros behind it up to `lanes`."""
    return torch.cat((x, x.new_zeros(lanes - len(x), *x.shape[1:])))
