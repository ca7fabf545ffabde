"""Jobs: what a request is made of. An answer is one row of the language model, a picture one or two."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from openjanus.engine.request import Answer, ImageRequest, TextRequest
from openjanus.engine.rows import Row
from openjanus.models.janus import JanusModel
from openjanus.models.randomness import fresh_seed, source
from openjanus.processing.prompts import Processor
from openjanus.processing.streaming import IncrementalDecoder, StopStrings
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import Prompt


class Job:
    """Rows that begin together. begins: the rotary position of their first step; room: positions that the steps take."""

    def __init__(self, request: int, rows: Sequence[Row], begins: int, room: int) -> None:
        self.request, self.rows, self.begins, self.room = request, rows, begins, room

    @property
    def entries(self) -> int:
        """Entries of a lane that its longest row needs."""
        return max(len(row) for row in self.rows) - 1 + self.room


class Answering(Job):
    """An answer in the making. An answer that would leave the model's context ends there."""

    def __init__(self, request: int, asked: TextRequest, tokenizer: Tokenizer, context: int) -> None:
        row, begins = Row(asked.prompt), len(asked.prompt) - 1
        room = max(1, min(asked.options.max_tokens, context - begins))
        super().__init__(request, [row], begins, room)
        self.options = asked.options
        self._source = source(fresh_seed() if asked.options.seed is None else asked.options.seed)
        self._decoder, self._stops = IncrementalDecoder(tokenizer), StopStrings(asked.options.stop)
        self._eos = tokenizer.eos
        self._text = ""
        self.newest = row.last
        """The token that the next step is given."""
        self._ids: list[int] = []
        self.result: Answer | None = None

    def draw(self) -> float:
        """The uniform number that decides on the next token."""
        return float(self._source.random(dtype="float32")) if self.options.temperature > 0 else 0.0

    def push(self, token: int) -> str:
        """The text that one more token settles, often empty. Spaces before the first word are dropped."""
        piece, reason = "", None
        self.newest = token
        if token == self._eos:
            reason = "stop"
        else:
            self._ids.append(token)
            piece = self._stops.push(self._decoder.push(token))
            reason = "stop" if self._stops.stopped else "length" if len(self._ids) == self.room else None
        if reason is not None:
            piece += self._stops.push(self._decoder.flush()) + self._stops.flush()
        if not self._text:
            piece = piece.lstrip()
        self._text += piece
        if reason is not None:
            self.result = Answer(self._text.strip(), reason, self.begins + 1, tuple(self._ids))
        return piece


class Painting(Job):
    """Picture `image` of a request in the making: a conditional row, a blank one if it is guided, and one without the images'
    codes if it is an edit."""

    def __init__(
        self, request: int, asked: ImageRequest, image: int, prompt: Prompt, model: JanusModel, processor: Processor
    ) -> None:
        """asked.options has a seed and a guidance."""
        assert asked.options.seed is not None
        config = model.config.generation
        rows = [Row(prompt)]
        # Guidance 1 is the conditional prediction itself: a blank row would be computed and thrown away.
        self.blank = asked.options.guidance != 1
        if self.blank:
            rows.append(Row(processor.blank(prompt), _attended(len(prompt), config.attends_blank)))
        # As is one without the codes of the images that an edit begins with.
        self.part = bool(asked.images and asked.options.image_guidance)
        if self.part:
            rows.append(Row(processor.without_codes(prompt)))
        super().__init__(request, rows, len(prompt) - 1, config.positions)
        self.text, self.image, self.seed = asked.text, image, asked.options.seed + image
        self.options = replace(asked.options, seed=self.seed, n=1)
        self.steps = config.steps(asked.options.steps)
        self.done = 0
        self._previews = asked.previews

    @property
    def lane(self) -> int:
        """The lane of the conditional row, under which the image is known."""
        return self.rows[0].lane

    @property
    def shows(self) -> bool:
        """Whether this is a step after which the unfinished picture is to be shown."""
        parts = self._previews + 1
        return self.done < self.steps and self.done * parts // self.steps > (self.done - 1) * parts // self.steps


def _attended(length: int, attends_blank: bool) -> Tensor:
    """Which tokens of a blank prompt may be looked at, bool [length]: all, or only the first (begin of sentence) and the last."""
    attended = torch.full((length,), attends_blank)
    attended[[0, -1]] = True
    return attended
