"""All that is in the making, and the one step in which everything moves on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from openjanus.engine.graphs import filled_up, recorder_of
from openjanus.engine.jobs import Answering, Painting
from openjanus.engine.rows import Row
from openjanus.engine.runner import Runner, Strip, side_by_side
from openjanus.models.cache import rounded
from openjanus.models.decoding import ImageDecoding, TextDecoding, with_pairs
from openjanus.models.janus import JanusModel
from openjanus.models.llama import Span
from openjanus.models.sampling import Manner


class Shape(NamedTuple):
    """All that a step depends on, beside strips of prompts and numbers on the device.

    block: the first of the lanes that run side by side, and the one behind the last; upto: entries from 0 on that any of them
    looks at; answers, images: how many; guided: rows beside those of images, blank ones and those of edits; mixed: whether they
    say whose they are; wide: of images that take many positions a step the first lane, the rows, and the entries to look at, of
    each group of neighbours; words, looks: how they choose. Where steps are recorded the numbers are filled up, so that few
    shapes come up.
    """

    block: tuple[int, int]
    upto: int
    answers: int
    images: int
    guided: int
    mixed: bool
    wide: tuple[tuple[int, int, int], ...]
    words: Manner
    looks: Manner | None


class Inputs(NamedTuple):
    """What a step is told on the device.

    lanes: int64 [M], of answers and of images that take a position a step; images: int64, the lanes of images; paired: int64,
    which of the images the rows beside them belong to; draws: a uniform number for each answer. Of rows that take many positions,
    counted with the conditional ones first: order, int64 [R], which of them comes where by lane; place, int64 [R], where each of
    them comes; positions and entries, int64 [R, T], by lane.
    """

    lanes: Tensor
    images: Tensor
    paired: Tensor
    draws: Tensor
    order: Tensor
    place: Tensor
    positions: Tensor
    entries: Tensor


class Batch:
    """The jobs that take steps, with the lanes of a cache they run in.

    Who joins or leaves changes nothing for the others; a step asks the device nothing but the tokens of the answers.
    """

    def __init__(self, model: JanusModel, lanes: int, entries: int) -> None:
        self.runner = Runner(model, lanes, entries)
        self._model = model
        # A place more than there are lanes, for what a step is filled up with.
        self._text = TextDecoding(model.language, lanes + 1)
        self._images = model.generation.decoding(lanes + 1)
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
            self._text.grow(lanes + 1)
            self._images.grow(lanes + 1)
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

    def picture(self, job: Painting) -> Callable[[], Tensor]:
        """What makes the pixels [1, 3, H, W], about -1 to 1, of a picture as it is now, at any time from now on."""
        return self._images.picture(job.lane)

    def spread(self, first: int, last: int) -> int:
        """How many lanes run side by side if all from the first to the last are to."""
        start, stop = self.block(first, last)
        return stop - start

    def block(self, first: int, last: int) -> tuple[int, int]:
        """The lanes that run side by side if all from the first to the last are to, and the one behind them: where steps are
        recorded, always from the first lane of all on."""
        if self._recorder is None:
            return first, last + 1
        return 0, min(filled_up(last + 1), self.runner.cache.lanes)

    def step(self, strips: Sequence[Strip]) -> list[int]:
        """Let every job take a step and run the strips beside them; the new tokens of the answers, in their order."""
        if not strips and not self.jobs:
            return []
        if self._members is None:
            self._members = _Members(self, self._text, self._images, int if self._recorder is None else filled_up)
        members = self._members
        inputs = members.inputs
        if self.answers:
            inputs = inputs._replace(draws=self._draws(len(inputs.draws)))
        if self._recorder is None or strips:
            tokens = self._advance(members.shape, inputs, strips)
        else:
            tokens = self._recorder.run(members.shape, partial(self._advance, members.shape), inputs)
        members.furthest += 1
        self._count()
        # The one time that the device is waited for: only people's words decide when an answer ends.
        return tokens.tolist()[: len(self.answers)] if self.answers else []

    def _draws(self, count: int) -> Tensor:
        draws = [job.draw() for job in self.answers]
        return torch.tensor(draws + [0.0] * (count - len(draws)), dtype=torch.float32).to(self._model.device)

    def _advance(self, shape: Shape, given: Sequence[Tensor], strips: Sequence[Strip] = ()) -> Tensor:
        """A step, given Inputs: the new tokens of the answers. Without strips a function of its shape and of the device alone."""
        inputs = Inputs(*given)
        paired = inputs.paired if shape.mixed else None
        narrow: list[Tensor] = []
        spans, parts = side_by_side(strips)
        if shape.answers:
            narrow.append(self._text.inputs(inputs.lanes[: shape.answers])[:, 0])
        if shape.images:
            x = with_pairs(self._images.inputs(inputs.images), shape.images + shape.guided, paired)
            if shape.wide:
                x = x[inputs.order]
                spans = [*_wide(shape, inputs), *spans]
                parts = [*(one.flatten(0, 1) for one in x.split([rows for _, rows, _ in shape.wide])), *parts]
            else:
                narrow.append(x[:, 0])
        hidden, made = self.runner.run(inputs.lanes, self._joined(narrow), slice(*shape.block), shape.upto, spans, parts)
        if shape.images:
            ours = hidden[shape.answers :, None]
            if shape.wide:
                ours = torch.cat(made[: len(shape.wide)]).view(x.shape)[inputs.place]
            self._images.take(inputs.images, ours, paired, shape.looks)
        if not shape.answers:
            return inputs.draws
        answers = inputs.lanes[: shape.answers]
        return self._text.take(answers, hidden[: shape.answers, None], inputs.draws, shape.words)

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


def _wide(shape: Shape, inputs: Inputs) -> list[Span]:
    spans, at = [], 0
    for first, rows, upto in shape.wide:
        here = slice(at, at + rows)
        spans.append(Span(slice(first, first + rows), inputs.positions[here], inputs.entries[here], upto))
        at += rows
    return spans


class _Members:
    """Who takes steps at present, as the device wants to know it; made anew when somebody comes or goes."""

    def __init__(self, batch: Batch, text: TextDecoding, making: ImageDecoding, fill: Callable[[int], int]) -> None:
        """fill: how many rows a step has for so many."""
        answers, paintings, idle = batch.answers, batch.paintings, batch.runner.cache.lanes
        blank = [number for number, job in enumerate(paintings) if job.blank]
        edited = [number for number, job in enumerate(paintings) if job.part]
        mixed = bool(edited) or 0 < len(blank) < len(paintings)
        asked, conditional = [job.rows[0] for job in answers], [job.rows[0] for job in paintings]
        blanks, parts = [paintings[number].rows[1] for number in blank], [paintings[number].rows[-1] for number in edited]
        alone = making.positions == 1
        # Rows of many positions cost too much to be filled up.
        images, without, lacking = len(conditional), len(blanks), len(parts)
        if alone:
            without, lacking = fill(without), fill(lacking)
            # What rows that are none belong to is an image that is none.
            images = fill(images + int(mixed and (without, lacking) != (len(blanks), len(parts))))
        # Conditional rows first, then the blank ones, then those of edits that lack their images' codes.
        pictures = [*conditional, *blanks, *parts]
        narrow, wide = ([*asked, *pictures], []) if alone else (asked, pictures)
        lanes = _lanes(asked, fill(len(asked)), idle)
        if alone:
            lanes += _lanes(conditional, images, idle) + _lanes(blanks, without, idle) + _lanes(parts, lacking, idle)
        order = sorted(range(len(wide)), key=lambda number: wide[number].lane)
        groups = _neighbours([wide[number] for number in order])
        every = torch.arange(making.positions)
        begins = [job.begins for job in (*paintings, *(paintings[number] for number in (*blank, *edited)))]

        def told(numbers: Sequence[int]) -> Tensor:
            return torch.tensor(numbers, dtype=torch.int64)

        none = images - 1
        on_device = partial(Tensor.to, device=batch.runner.model.device)
        self.inputs = Inputs(
            lanes=told(lanes),
            images=told(_lanes(conditional, images, idle)),
            paired=told([*blank, *[none] * (without - len(blank)), *edited, *[none] * (lacking - len(edited))]),
            draws=torch.zeros(fill(len(asked))),
            order=told(order),
            place=told(order).argsort(),
            positions=told([begins[number] for number in order])[:, None] + every,
            entries=told([wide[number].entries for number in order])[:, None] + every,
        )
        self.inputs = Inputs(*map(on_device, self.inputs))
        looks = making.manner([row.lane for row in conditional])
        self._shape = Shape(
            block=batch.block(min(row.lane for row in narrow), max(row.lane for row in narrow)) if narrow else (0, 0),
            upto=0,
            answers=fill(len(asked)),
            images=images,
            guided=without + lacking,
            mixed=mixed,
            wide=tuple(
                (group[0].lane, len(group), rounded(max(row.entries for row in group) + making.positions)) for group in groups
            ),
            words=text.manner([row.lane for row in asked]),
            looks=looks._replace(edited=lacking) if looks is not None else None,
        )
        self.furthest = max((row.entries for row in narrow), default=0)

    @property
    def shape(self) -> Shape:
        """The shape of the next step."""
        return self._shape._replace(upto=rounded(self.furthest + 1))


def _lanes(rows: Sequence[Row], count: int, idle: int) -> list[int]:
    """The lanes of rows, filled up to a number."""
    return [row.lane for row in rows] + [idle] * (count - len(rows))


def _neighbours(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows, sorted by lane, in groups of neighbours."""
    groups: list[list[Row]] = []
    for row in rows:
        if groups and groups[-1][-1].lane + 1 == row.lane:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
