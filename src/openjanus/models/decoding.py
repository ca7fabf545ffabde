"""The one protocol by which text, code images and flow images are made, and its text implementation.

Every kind runs the same way: the language model reads a prompt up to its last token; then, step by step, it is given `inputs`
and its hidden states are handed to `take`, until `done`. The first step's input stands in the place of the prompt's last token:
for text and codes it is that token, for a flow it is the time and the noisy latent.

    kind    positions a step    kept in the cache    steps
    text    1                   yes                  up to max_tokens
    codes   1                   yes                  576
    flow    1 + 576             no (the latent moves on)    30
"""

from typing import Protocol

import torch
from torch import Tensor

from openjanus.models.llama import Llama
from openjanus.models.sampling import guide, pick
from openjanus.types import TextOptions


class Decoding(Protocol):
    """A batch of answers or images in the making; R rows of the language model."""

    keeps_positions: bool
    steps: int
    step: int  # steps done
    room: int  # positions it needs in the cache, counted from the place of the prompt's last token

    @property
    def done(self) -> bool:
        """Whether every row has all it needs."""

    def inputs(self) -> Tensor:
        """Embeddings [R, S, D] of the next step's positions."""

    def take(self, hidden: Tensor) -> None:
        """Move on by hidden states [R, S, D] of the positions `inputs` gave."""


class ImageDecoding(Decoding, Protocol):
    """A batch of B images in the making; R is 2B when guided (conditional rows first, then blank ones), else B."""

    def pixels(self, image: int) -> Tensor:
        """One image so far: [1, 3, H, W], about -1 to 1."""


class TextDecoding:
    """R answers in the making, one token of each a step. A row is finished by `eos`, by `finish`, or after max_tokens."""

    keeps_positions = True

    def __init__(self, language: Llama, last: Tensor, options: TextOptions, uniforms: Tensor, eos: int) -> None:
        """last: int64 [R], each prompt's last token; uniforms: float32 [R, max_tokens] in [0, 1), one draw a token."""
        self.steps = self.room = options.max_tokens
        self.step = 0
        self.finished = [False] * last.shape[0]
        self.newest: list[int | None] = [None] * last.shape[0]  # each row's token of the last step, None when it is finished
        self._language, self._last, self._options, self._uniforms, self._eos = language, last, options, uniforms, eos

    @property
    def done(self) -> bool:
        return self.step == self.steps or all(self.finished)

    def inputs(self) -> Tensor:
        return self._language.embed(self._last[:, None])

    def take(self, hidden: Tensor) -> None:
        options = self._options
        logits = self._language.logits(hidden[:, -1])
        self._last = pick(logits, self._uniforms[:, self.step], options.temperature, options.top_k, options.top_p)
        self.step += 1
        # The one synchronisation with the device of a text step: whether to stop is decided by the caller's side.
        tokens = self._last.tolist()
        self.finished = [done or token == self._eos for done, token in zip(self.finished, tokens, strict=True)]
        self.newest = [None if done else token for done, token in zip(self.finished, tokens, strict=True)]

    def finish(self, row: int) -> None:
        """End a row early, at a stop string."""
        self.finished[row] = True


def guided(predictions: Tensor, images: int, guidance: float) -> Tensor:
    """Predictions [B, ...] of `images` images from those of their rows: as they are if there are no blank rows, else guided."""
    if len(predictions) == images:
        return predictions
    conditional, blank = predictions.chunk(2)
    return guide(conditional, blank, guidance)


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """x [B, ...] once, or twice one after the other, so that conditional and blank rows get the same: [rows, ...]."""
    return x if x.shape[0] == rows else torch.cat((x, x))
