"""A dry run: everything is built, the last two steps of each stage are run, and what the whole would take is told. Nothing is
written."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from openjanus.errors import JanusError
from openjanus.train.data import follow
from openjanus.train.learner import Learner, Outcome
from openjanus.train.metrics import memory_mib
from openjanus.train.parallel import World
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage


@dataclass(frozen=True)
class StagePlan:
    """A stage as it would run. parts: of each part of the module, the parameters that move and all of them.

    skipped: what is wrong with the records that could not be used, of this process's two steps and of those held out.
    """

    name: str
    steps: int
    samples: int
    parts: dict[str, tuple[int, int]]
    losses: dict[str, float]
    seconds: float
    memory_mib: float
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A recipe as it would run in this world. Seconds are those of the last step times all steps."""

    recipe: str
    processes: int
    device: str
    stages: tuple[StagePlan, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """The plan for people, a block a stage."""
        lines = [f"{self.recipe} on {self.device}" + (f", {self.processes} processes" if self.processes > 1 else "")]
        for stage in self.stages:
            moving, every = (sum(size[which] for size in stage.parts.values()) for which in (0, 1))
            lines += [
                "",
                f"stage {stage.name}: {stage.steps:,} steps, {stage.samples:,} samples, about {duration(stage.seconds)}, "
                f"{stage.memory_mib:,.0f} MiB",
                "  losses after a step: " + ", ".join(f"{name} {value:.4g}" for name, value in stage.losses.items()),
                f"  trains {moving:,} of {every:,} parameters:",
            ]
            lines += [f"    {part:40} {size[0]:>15,} of {size[1]:>15,}" for part, size in stage.parts.items()]
            lines += [f"  skips: {text}" for text in stage.skipped]
        if len(self.stages) > 1:
            lines += ["", f"all stages: about {duration(sum(stage.seconds for stage in self.stages))}"]
        return "\n".join(lines)


def dry_run(recipe: Recipe, world: World) -> Plan:
    """What training a recipe would take. Every process calls it; errors are those of training, as far as these steps show."""
    stages = tuple(_try(recipe, stage, world) for stage in recipe.stages)
    return Plan(recipe.name, world.size, str(world.device), stages)


def _try(recipe: Recipe, stage: Stage, world: World) -> StagePlan:
    learner = Learner(recipe, stage, world)
    outcome: Outcome | None = None
    seconds = 0.0
    skipped = dict.fromkeys(learner.task.look())  # in order, each once
    # By then whatever begins later, as an adversary does, has begun.
    start = max(stage.steps - 2, 0)
    for step, batches in follow(learner.task, stage, start, world, workers=0):
        if isinstance(batches, JanusError):
            raise batches
        clock = time.perf_counter()
        outcome = learner.learn(step, batches)
        seconds = time.perf_counter() - clock
        skipped |= dict.fromkeys(text for batch in batches for text in batch.skipped)
    assert outcome is not None
    memory = memory_mib(world.device)
    return StagePlan(
        stage.name,
        stage.steps,
        stage.steps * stage.batch,
        learner.sizes,
        outcome.losses,
        seconds * stage.steps,
        memory,
        tuple(skipped),
    )


def duration(seconds: float) -> str:
    """Seconds as people say them: "40 s", "12 min", "3.5 h", "9.0 days"."""
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds >= 2 * size or (unit == "h" and seconds >= size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
