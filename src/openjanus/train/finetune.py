"""Fine-tuning: a checkpoint learns from its owner's records, and from others beside them so that it forgets nothing.

A stage's mix is a ratio of the kinds of one's own records and of "replay", records of any kind that keep alive what is not to be
learned anew. Kinds without files drop out of it, so one recipe serves whatever records there are.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from openjanus.data.formats.opening import ALLOWED
from openjanus.data.records import Records, RecordsInTurn
from openjanus.data.samples import KINDS, Kind
from openjanus.errors import ConfigError
from openjanus.train.from_checkpoint import CheckpointSettings, DataFiles, initial, origin
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Precision, Stage
from openjanus.train.unified import Start, UnifiedTask

REPLAY = "replay"
# Of four samples three are one's own, if they are of one kind.
MIX: dict[str, int] = {**dict.fromkeys(KINDS, 3), REPLAY: 1}
# What each direction is learned from, and what is said of the other.
_DIRECTIONS: dict[str, tuple[Kind, ...]] = {"reading images": ("understanding",), "painting": ("generation", "editing")}


@dataclass(frozen=True)
class FinetuneSettings(CheckpointSettings):
    """What a fine-tuning run can be told."""

    replay: DataFiles = field(default_factory=DataFiles)
    """Records that are learned from beside one's own, so that what they teach is not lost."""
    held_out: int = 32
    first_sentence: float = 0.0
    saved: Precision = "bfloat16"


def recipe_of(name: str, stage: Stage, settings: FinetuneSettings, validate_every: int = 100) -> Recipe:
    """The recipe that fine-tunes a checkpoint in one stage."""
    return Recipe(name, _task, (stage,), settings, save_every=200, preview_every=200, validate_every=validate_every)


def _task(recipe: Recipe) -> UnifiedTask:
    """The task, of stages that mix what there are records of."""
    settings: FinetuneSettings = recipe.settings
    own, replayed = settings.data.kinds, settings.replay.kinds
    if not own:
        raise ConfigError(f"there are no records to learn from: set settings.data.KIND ({', '.join(KINDS)}); {ALLOWED}")
    found = {*own, *([REPLAY] if replayed else [])}
    stages = tuple(
        replace(stage, mix={key: share for key, share in stage.mix.items() if share and key in found}) for stage in recipe.stages
    )
    for stage in stages:
        if not any(stage.mix.get(kind) for kind in own):
            raise ConfigError(
                f"stages.{stage.name}.mix leaves nothing of {', '.join(own)}; set stages.{stage.name}.mix.{own[0]}=1"
            )
    made = replace(recipe, stages=stages)
    return UnifiedTask(made, settings, lambda: _start(made, own, replayed))


def _start(recipe: Recipe, own: list[Kind], replayed: list[Kind]) -> Start:
    settings: FinetuneSettings = recipe.settings

    def records(kind: Kind, files: DataFiles) -> Records:
        return Records(kind, getattr(files, kind), recipe.seed, settings.first_sentence, settings.held_out)

    model, processor = initial(settings)
    mine = {kind: records(kind, settings.data) for kind in own}
    others = {kind: records(kind, settings.replay) for kind in replayed}
    sources: dict[Any, Any] = {**mine}
    if others:
        sources[REPLAY] = RecordsInTurn(tuple(others.values()))
    every: dict[str, Records] = dict([*mine.items(), *((f"{REPLAY} {kind}", source) for kind, source in others.items())])
    return Start(
        model,
        processor,
        sources,
        on_error=settings.on_error,
        records={name: source.every for name, source in every.items()},
        validation={name: source.held_out for name, source in every.items()},
        fixed=tuple(f"generation.{part}" for part in model.generation.fixed),
        origin=origin(settings),
        notes=_warnings(_learned(recipe, replayed)),
    )


def _learned(recipe: Recipe, replayed: list[Kind]) -> set[Any]:
    """The kinds that some stage's mix has a share for, replayed ones too."""
    mixed = {key for stage in recipe.stages for key in stage.mix}
    return mixed - {REPLAY} | ({*replayed} if REPLAY in mixed else set())


def _warnings(kinds: set[Kind]) -> tuple[str, ...]:
    """What is said to whoever trains one direction alone."""
    return tuple(
        f"no records teach {direction}, so the model may lose it; give it some to replay: settings.replay.{names[0]}=FILES "
        "(docs/finetuning.md says where from)"
        for direction, names in _DIRECTIONS.items()
        if not kinds & set(names)
    )
