"""A stage as a value: what a stretch of training moves, how fast, on how much of what."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from openjanus.errors import ConfigError

Schedule = Literal["constant", "cosine"]
Precision = Literal["float32", "bfloat16"]
OptimizerName = Literal["adamw", "adamw8bit", "muon"]


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe; the defaults are what the Janus papers share, and what they leave open is said here."""

    name: str
    steps: int
    batch: int
    """Samples a step, over all processes."""
    rate: float
    """Learning rate at the end of the warm-up."""
    schedule: Schedule = "constant"
    floor: float = 0.0
    """The share of the rate at which a cosine ends."""
    warmup: int = 0
    """Steps over which the rate rises in a line from nothing."""
    optimizer: OptimizerName = "adamw"
    """adamw as in the papers; adamw8bit keeps its moments in 8 bits; muon moves the matrices of the blocks, and wants far fewer
    samples (docs/training.md)."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    clip: float = 1.0
    """The gradient is scaled down to this norm, over all parameters of a phase; 0 leaves it."""
    frozen: tuple[str, ...] = ()
    """Parts that do not move, by the beginnings of their parameters' names: "language", "understanding.encoder"."""
    mix: Mapping[str, int] = field(default_factory=dict)
    """How many samples of each kind to how many of the others: {"understanding": 2, "text": 3, "generation": 5}."""
    micro_batch: int | None = None
    """Samples that go through the model at once on one process; None: the process's whole share."""
    ema: float | None = None
    """How much of the moving average of the parameters stays each step, 0.99 in JanusFlow; None keeps none."""
    precision: Precision = "float32"
    """Of the arithmetic; the weights and the optimizer are float32 either way."""
    checkpointing: bool = False
    """Run each block twice instead of keeping what lies inside it: less memory, a third more time."""
    compile: bool = False
    """Compile each block."""
    continues: bool = False
    """Go on with the optimizer and average of the stage before, which must move the same parameters: a curriculum."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "_").isidentifier():
            raise ConfigError(f"a stage is named {self.name!r}; use letters, digits, - and _")
        self._check("steps", self.steps >= 1, "1 or more")
        self._check("batch", self.batch >= 1, "1 or more")
        self._check("micro_batch", self.micro_batch is None or self.micro_batch >= 1, "1 or more, or none")
        self._check("rate", 0 < self.rate < math.inf, "above 0")
        self._check("schedule", self.schedule in ("constant", "cosine"), "constant or cosine")
        self._check("optimizer", self.optimizer in get_args(OptimizerName), "adamw, adamw8bit or muon")
        self._check("floor", 0 <= self.floor <= 1, "from 0 to 1")
        self._check("warmup", self.warmup >= 0, "0 or more")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more")
        self._check("betas", len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas), "two numbers from 0 to below 1")
        self._check("epsilon", 0 < self.epsilon < math.inf, "above 0")
        self._check("clip", 0 <= self.clip < math.inf, "above 0, or 0 for no clipping")
        self._check("ema", self.ema is None or 0 <= self.ema < 1, "from 0 to below 1, or none")
        self._check("precision", self.precision in ("float32", "bfloat16"), "float32 or bfloat16")
        wanted = min(self.mix.values(), default=0) >= 0 and (not self.mix or sum(self.mix.values()) > 0)
        self._check("mix", wanted, "whole numbers of 0 or more, one of them above 0")

    def _check(self, key: str, good: bool, allowed: str) -> None:
        if not good:
            raise ConfigError(f"stages.{self.name}.{key} is {getattr(self, key)!r}; it must be {allowed}")

    def rate_at(self, step: int) -> float:
        """The learning rate of a step of this stage, counted from 0.

        Step `warmup - 1` is the first at the full rate. A cosine falls from there over the rest of the stage; the step after
        the last would have `floor` times the rate.
        """
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.rate
        passed = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.rate * (self.floor + (1 - self.floor) * (1 + math.cos(math.pi * passed)) / 2)
