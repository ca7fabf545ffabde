"""A recipe: all that a run is, as one value. Files in `recipes/` hold one each, and the story of the run in their docstring."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openjanus.errors import ConfigError
from openjanus.train.stage import Stage
from openjanus.train.task import Task


@dataclass(frozen=True)
class Recipe:
    """What to train, on what, through which stages. The same recipe and seed make the same run."""

    name: str
    task: Callable[["Recipe"], Task[Any]]
    """Builds what is trained; called again for each stage, with torch seeded by `seed`."""
    stages: tuple[Stage, ...]
    settings: Any = None
    """A frozen dataclass of what the task itself can be told: sizes, sources, switches."""
    seed: int = 0
    save_every: int = 500
    """Steps between states that the run can go on from."""
    preview_every: int = 0
    """Steps between previews; 0 makes none."""
    validate_every: int = 0
    """Steps between measures of the losses on what is never learned from; 0 makes none."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError(f"recipe {self.name} has no stages; give it one")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"recipe {self.name} has two stages of one name ({', '.join(names)}); name them apart")
        taken = set(names) & set(Stage.__dataclass_fields__)
        if taken:
            raise ConfigError(f"recipe {self.name} has a stage named {taken.pop()!r}, which is what stages are set by; rename it")
        if self.stages[0].continues:
            raise ConfigError(f"stages.{names[0]}.continues is true, but no stage comes before it")
        if self.save_every < 1:
            raise ConfigError(f"save_every is {self.save_every}; it must be 1 or more")
        for key in ("preview_every", "validate_every"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key} is {getattr(self, key)}; it must be 1 or more, or 0 for none")

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """What recipe.json holds: every value of the run but the code."""
        settings = dataclasses.asdict(self.settings) if dataclasses.is_dataclass(self.settings) else {}  # type: ignore[arg-type]
        stages = {stage.name: dataclasses.asdict(stage) for stage in self.stages}
        for stage in stages.values():
            del stage["name"]
        values = {
            "name": self.name,
            "seed": self.seed,
            "save_every": self.save_every,
            "preview_every": self.preview_every,
            "validate_every": self.validate_every,
            "settings": settings,
            "stages": stages,
        }
        # Through text, so that what a file gives back is equal to it: tuples are lists there, paths are strings.
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return plain


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; empty ones vanish."""
    if not isinstance(values, dict):
        return {key: values}
    return {
        name: leaf for inner, value in values.items() for name, leaf in flat(value, f"{key}.{inner}" if key else inner).items()
    }
