"""A recipe for tests: a small network learns a number and a sign from random vectors, in two stages.

openjanus train tests/train/toy.py -o runs/toy
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.errors import ImageError
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Task


@dataclass(frozen=True)
class Settings:
    """dropout: chance inside the module. delay: seconds a step takes. The others: steps of a stage at which something happens."""

    dropout: float = 0.0
    delay: float = 0.0
    poison_at: int | None = None
    interrupt_at: int | None = None
    empty_at: int | None = None
    broken_at: int | None = None
    label: str = "toy"


@dataclass(frozen=True)
class Lesson:
    """inputs [B, 4]; number [B]; sign [B] of 0 and 1, learned where `known` [B]."""

    inputs: Tensor
    number: Tensor
    sign: Tensor
    known: Tensor

    def to(self, device: torch.device) -> "Lesson":
        return Lesson(*(tensor.to(device) for tensor in vars(self).values()))


class Network(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh()) for _ in range(2))
        self.number = nn.Linear(8, 1)
        self.sign = nn.Linear(8, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    def answers(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(inputs)
        for layer in self.layers:
            hidden = hidden + self.dropout(layer(hidden))
        return self.number(hidden).sum(1), self.sign(hidden).sum(1)


class Toy(Task[Lesson]):
    """Counts: numbers, and the signs that are known."""

    blocks = ("layers",)
    entrances = ("answers",)

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.settings: Settings = recipe.settings
        self.module: Network = Network(self.settings.dropout)

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[Lesson]]:
        if step == self.settings.broken_at:
            raise ImageError("a.png cannot be decoded")
        rng = np.random.default_rng([self.recipe.seed, len(stage.name), step])
        inputs = torch.from_numpy(rng.normal(size=(stage.batch, 4)).astype(np.float32))
        number = inputs.sum(1) * (float("nan") if step == self.settings.poison_at else 1)
        known = torch.from_numpy(rng.random(stage.batch) < 0.6) & (step != self.settings.empty_at)
        every = Lesson(inputs, number, (inputs[:, 0] > 0).float(), known)
        own = Lesson(*(tensor[rank::world] for tensor in vars(every).values()))
        pieces = zip(*(tensor.split(stage.micro_batch or stage.batch) for tensor in vars(own).values()), strict=True)
        if step == self.settings.interrupt_at and stage.name == "adapt":
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(self.settings.delay)
        return [self._batch(Lesson(*piece), step) for piece in pieces if len(piece[0])]

    def _batch(self, lesson: Lesson, step: int) -> Batch[Lesson]:
        numbers = 0 if step == self.settings.empty_at else len(lesson.number)
        return Batch(lesson, {"number": numbers, "sign": int(lesson.known.sum())}, tokens=lesson.inputs.numel())

    def losses(self, content: Lesson) -> Mapping[str, Loss]:
        number, sign = self.module.answers(content.inputs)
        losses = F.binary_cross_entropy_with_logits(sign, content.sign, reduction="none")
        return {
            "number": Loss((number - content.number).square().sum(), weight=0.5),
            "sign": Loss((losses * content.known).sum()),
        }

    def metrics(self) -> Mapping[str, float]:
        return {"seen": float(self.module.seen)}

    def after_step(self, stage: Stage, step: int) -> None:
        self.module.seen += 1

    def preview(self, folder: Path | None, step: int) -> None:
        # Calls a part by itself, as painting does.
        answer = self.module.number(self.module.layers[0](self.module.encoder(torch.ones(1, 4))))
        if folder is not None:
            (folder / "answer.txt").write_text(f"{step} {answer.item()} {self.module.training}")

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        torch.save(dict(tensors), folder / "weights.pt")


RECIPE = Recipe(
    "toy",
    Toy,
    (
        Stage("adapt", steps=10, batch=8, rate=1e-2, warmup=3, frozen=("encoder",), micro_batch=3, mix={"a": 1, "b": 2}),
        Stage("tune", steps=10, batch=8, rate=5e-3, schedule="cosine", weight_decay=0.1, ema=0.9),
    ),
    Settings(),
    save_every=4,
)
