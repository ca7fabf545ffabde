"""All that is in the making, and the one step in which everything moves on."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from openjanus.engine.graphs import recorder_of
from openjanus.engine.jobs import Answering, Painting
from openjanus.engine.rows import Row
from openjanus.engine.runner import Runner, Strip
from openjanus.models.cache import rounded
from openjanus.models.decoding import ImageDecoding, TextDecoding, with_pairs
from openjanus.models.janus import JanusModel
from openjanus.models.sampling import Manner


class Shape(NamedTuple):
    """All that a step of one position a row depends on, beside numbers on the device.

    block: lanes from 0 on that hold all who take part; upto: entries from 0 on that anybody looks at; answers, images: how many;
    guided: rows beside those of the images, blank ones and those of edits; words, looks: how they choose.
    """

    block: int
    upto: int
    answers: int
    images: int
    guided: int
    words: Manner
    looks: Manner | None


class Batch:
    """The jobs that take steps, with the lanes of a cache they run in.

    Who joins or leaves changes nothing for the others; a step asks the device nothing but the tokens of the answers.
    """

    def __init__(self, model: JanusModel, lanes: int, entries: int) -> None:
        self.runner = Runner(model, lanes, entries)
        self._model = model
        self._text = TextDecoding(model.language, lanes)
        self._images = model.generation.decoding(lanes)
        self.answers: list[Answering] = []
        self.paintings: list[Painting] = []
        self._members: _Members | None = None
        self._recorder = recorder_of(model.device)

    @property
    def jobs(self) -> list[Answering | Painting]:
        """All that take steps."""
        return [*self.answers, *self.paintings]

    def grow(self, lanes: int, entries: int) -> None:
        """Make room for so many lanes of so many entries, at least as many as before."""
        if lanes > self.runner.cache.lanes:
            self._text.grow(lanes)
            self._images.grow(lanes)
        self.runner.grow(lanes, entries)
        if self._recorder is not None:
            self._recorder.forget()
        self._members = None

    def join(self, job: Answering | Painting) -> None:
        """A job whose prompts are read takes steps from now on."""
        row = job.rows[0]
        if isinstance(job, Answering):
            self._text.join(row.lane, row.last, job.options)
            self.answers.append(job)
        else:
            begin = self._model.language.embed(row.ids[-1:].to(self._model.device))[0]
            self._images.join(row.lane, begin, job.options, job.seed)
            self.paintings.append(job)
        if isinstance(job, Answering) or self._images.positions == 1:
            for row in job.rows:
                self.runner.settle(row.lane, row.entries, job.begins)
        self._members = None

    def leave(self, job: Answering | Painting) -> None:
        """A job is done, or is given up."""
        if isinstance(job, Answering):
            self.answers.remove(job)
        else:
            self.paintings.remove(job)
        for row in job.rows:
            self.runner.leave(row.lane)
        self._members = None

    def pixels(self, job: Painting) -> Tensor:
        """A picture as it is now: [1, 3, H, W], about -1 to 1."""
        return self._images.pixels(job.lane)

    def step(self, strips: Sequence[Strip]) -> list[int]:
        """Let every job take a step and run the strips beside them; the new tokens of the answers, in their order."""
        if not strips and not self.jobs:
            return []
        if self._members is None:
            self._members = _Members(self.answers, self.paintings, self._model.device, self._text, self._images)
        members = self._members
        shape = members.shape
        inputs = (members.narrow, members.images, members.paired, self._draws(members))
        if self._recorder is None or strips or members.wide:
            tokens = self._advance(shape, inputs, members.wide, strips)
        else:
            tokens = self._recorder.run(shape, partial(self._advance, shape), inputs)
        members.furthest += 1
        self._count()
        # The one time that the device is waited for: only people's words decide when an answer ends.
        return tokens.tolist() if self.answers else []

    def _draws(self, members: "_Members") -> Tensor:
        if not self.answers:
            return torch.zeros(0, device=members.narrow.device)
        return torch.tensor([job.draw() for job in self.answers], dtype=torch.float32, device=members.narrow.device)

    def _advance(
        self, shape: Shape, inputs: Sequence[Tensor], wide: Sequence[tuple[Row, Tensor]] = (), strips: Sequence[Strip] = ()
    ) -> Tensor:
        """A step: the new tokens of the answers. Without wide rows and strips a function of its shape and of the device alone.

        inputs: the lanes of answers and of what images give a position a step; the lanes of images; which of the images are
        guided; a uniform number for each answer. wide: rows of images that take many positions a step, with these positions.
        """
        lanes, images, guided, draws = inputs
        edited = shape.looks.edited if shape.looks is not None else 0
        paired = guided if edited or shape.guided < shape.images else None
        parts, widely = [], []
        if shape.answers:
            parts.append(self._text.inputs(lanes[: shape.answers])[:, 0])
        if shape.images:
            x = with_pairs(self._images.inputs(images), shape.images + shape.guided, paired)
            if wide:
                widely = [Strip(row.lane, row.entries, positions, one) for (row, positions), one in zip(wide, x, strict=True)]
            else:
                parts.append(x[:, 0])
        hidden, made = self.runner.run(lanes, self._joined(parts), shape.block, shape.upto, [*widely, *strips])
        if shape.images:
            ours = torch.stack(made[: len(widely)]) if widely else hidden[shape.answers :, None]
            self._images.take(images, ours, paired, shape.looks)
        if not shape.answers:
            return draws
        return self._text.take(lanes[: shape.answers], hidden[: shape.answers, None], draws, shape.words)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        if parts:
            return torch.cat(list(parts)).to(self._model.dtype)
        return torch.zeros(0, self._model.config.language.hidden_size, dtype=self._model.dtype, device=self._model.device)

    def _count(self) -> None:
        for answer in self.answers:
            answer.rows[0].entries += 1
        for painting in self.paintings:
            painting.done += 1
            for row in painting.rows:
                row.entries += int(self._images.keeps)


class _Members:
    """Who takes steps at present, as the device wants to know it; made anew when somebody comes or goes."""

    def __init__(
        self,
        answers: Sequence[Answering],
        paintings: Sequence[Painting],
        device: torch.device,
        text: TextDecoding,
        making: ImageDecoding,
    ) -> None:
        blank = [number for number, job in enumerate(paintings) if job.blank]
        edited = [number for number, job in enumerate(paintings) if job.part]
        guided = [*blank, *edited]
        # Conditional rows first, then the blank ones, then those of edits that lack their images' codes.
        jobs = [*paintings, *(paintings[number] for number in guided)]
        rows = [job.rows[0] for job in paintings] + [paintings[number].rows[1] for number in blank]
        rows += [paintings[number].rows[-1] for number in edited]
        narrow = [job.rows[0] for job in answers]
        self.wide: list[tuple[Row, Tensor]] = []
        if making.positions == 1:
            narrow += rows
        else:
            every = torch.arange(making.positions, device=device)
            self.wide = [(row, every + job.begins) for row, job in zip(rows, jobs, strict=True)]
        self._shape = Shape(
            block=max((row.lane for row in narrow), default=-1) + 1,
            upto=0,
            answers=len(answers),
            images=len(paintings),
            guided=len(guided),
            words=text.manner([job.rows[0].lane for job in answers]),
            looks=making.manner([job.lane for job in paintings]),
        )
        self.furthest = max((row.entries for row in narrow), default=0)
        self.narrow = torch.tensor([row.lane for row in narrow], dtype=torch.int64, device=device)
        self.images = torch.tensor([job.lane for job in paintings], dtype=torch.int64, device=device)
        self.paired = torch.tensor(guided, dtype=torch.int64, device=device)

    @property
    def shape(self) -> Shape:
        """The shape of the next step."""
        return self._shape._replace(upto=rounded(self.furthest + 1))
