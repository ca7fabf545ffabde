"""All that is in the making, and the one step in which everything moves on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from openjanus.engine.jobs import Answering, Painting
from openjanus.engine.runner import Runner, Strip
from openjanus.models.decoding import TextDecoding, with_pairs
from openjanus.models.janus import JanusModel


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
        if self._members is None:
            self._members = _Members(self.answers, self.paintings, self._model.device, self._images.positions)
        members = self._members
        x, wide = self._inputs(members)
        if not strips and not wide and not len(x):
            return []
        hidden, made = self.runner.run(members.narrow, x, members.block, members.furthest, [*wide, *strips])
        members.furthest += 1
        if self.paintings:
            ours = torch.stack(made[: len(wide)]) if wide else hidden[len(self.answers) :, None]
            self._images.take(members.images, ours, members.paired)
            for job in self.paintings:
                job.done += 1
                for row in job.rows:
                    row.entries += int(self._images.keeps)
        return self._tokens(members, hidden[: len(self.answers), None])

    def _inputs(self, members: "_Members") -> tuple[Tensor, list[Strip]]:
        """What the lanes of the block are given, [M, D], and the strips of images that take many positions a step."""
        parts, wide = [], []
        if self.answers:
            parts.append(self._text.inputs(members.texts)[:, 0])
        if self.paintings:
            inputs = with_pairs(self._images.inputs(members.images), len(members.rows), members.paired)
            if self._images.positions == 1:
                parts.append(inputs[:, 0])
            else:
                for row, positions, x in zip(members.rows, members.positions, inputs, strict=True):
                    wide.append(Strip(row.lane, row.entries, positions, x))
        if not parts:
            width = self._model.config.language.hidden_size
            parts.append(torch.zeros(0, width, dtype=self._model.dtype, device=self._model.device))
        return torch.cat(parts), wide

    def _tokens(self, members: "_Members", hidden: Tensor) -> list[int]:
        if not self.answers:
            return []
        uniform = torch.tensor([job.draw() for job in self.answers], device=hidden.device)
        # The one time that the device is waited for: only people's words decide when an answer ends.
        tokens = self._text.take(members.texts, hidden, uniform).tolist()
        for job in self.answers:
            job.rows[0].entries += 1
        return tokens


class _Members:
    """Who takes steps at present, as the device wants to know it; made anew when somebody comes or goes."""

    def __init__(self, answers: Sequence[Answering], paintings: Sequence[Painting], device: torch.device, positions: int) -> None:
        guided = [number for number, job in enumerate(paintings) if len(job.rows) > 1]
        # Conditional rows first, then the blank ones.
        self.rows = [job.rows[0] for job in paintings] + [paintings[number].rows[1] for number in guided]
        steppers = [job.rows[0] for job in answers]
        if positions == 1:
            steppers += self.rows
        else:
            begins = [job.begins for job in paintings] + [paintings[number].begins for number in guided]
            every = torch.arange(positions, device=device)
            self.positions = [every + first for first in begins]
        lanes = [row.lane for row in steppers]
        self.block = max(lanes, default=-1) + 1
        self.furthest = max((row.entries for row in steppers), default=0)
        self.narrow = torch.tensor(lanes, dtype=torch.int64, device=device)
        self.texts = self.narrow[: len(answers)]
        self.images = torch.tensor([job.lane for job in paintings], dtype=torch.int64, device=device)
        self.paired = None
        if len(guided) < len(paintings):
            self.paired = torch.tensor(guided, dtype=torch.int64, device=device)
