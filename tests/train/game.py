"""A game of two: a maker learns to fool a judge, who learns to tell; each step moves one, then the other."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Phase, Task


class Game(Task[Tensor]):
    def __init__(self, recipe: Recipe) -> None:
        self.module = nn.ModuleDict({"maker": nn.Linear(3, 2), "judge": nn.Linear(2, 1)})

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[Tensor]]:
        noise = torch.randn(stage.batch, 3, generator=torch.Generator().manual_seed(step))[rank::world]
        return [Batch(noise, {"fooling": len(noise), "telling": len(noise)})]

    @property
    def phases(self) -> tuple[Phase[Tensor], ...]:
        return Phase("maker", self.fooling, ("maker",)), Phase("judge", self.telling, ("judge",))

    def fooling(self, noise: Tensor) -> Mapping[str, Loss]:
        return {"fooling": Loss(-self.module["judge"](self.module["maker"](noise)).sum())}

    def telling(self, noise: Tensor) -> Mapping[str, Loss]:
        with torch.no_grad():
            made = self.module["maker"](noise)
        judge = self.module["judge"]
        return {"telling": Loss(F.relu(1 + judge(made)).sum() + F.relu(1 - judge(noise[:, :2])).sum())}

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        torch.save(dict(tensors), folder / "weights.pt")


GAME = Recipe("game", Game, (Stage("play", steps=6, batch=5, rate=1e-2, clip=0.0),), save_every=2)
