"""Unified training that starts from a checkpoint or from parts, and learns from records on disk: the papers' recipes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch

from openjanus.checkpoints.assembly import Assembly, assemble
from openjanus.checkpoints.locate import SDXL_VAE
from openjanus.data.formats.opening import ALLOWED
from openjanus.data.records import Records
from openjanus.data.samples import KINDS, Kind
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.janus import JanusModel
from openjanus.models.token_generation import TokenGeneration
from openjanus.processing.prompts import Processor
from openjanus.train.parts import belongs
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import OnError, Start, UnifiedSettings, UnifiedTask, check_stages


@dataclass(frozen=True)
class DataFiles:
    """Files and folders of records, of any format in data/formats, by what they teach."""

    text: tuple[str, ...] = ()
    understanding: tuple[str, ...] = ()
    generation: tuple[str, ...] = ()
    editing: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    """Pictures of one thing and its name, as ImageNet's, for the stages in `category_stages`."""

    @property
    def kinds(self) -> list[Kind]:
        """The kinds that have files."""
        return [kind for kind in KINDS if getattr(self, kind)]


@dataclass(frozen=True)
class CheckpointSettings(UnifiedSettings):
    """What a run can be told that starts from a checkpoint or from parts."""

    init: tuple[str, ...] = ()
    """Where it begins: a checkpoint (a folder in any layout we read, a bundled name or a Hugging Face id) with its sizes,
    tokenizer, template and weights; parts (checkpoints/parts.py says which) that take the place of its own; or parts alone."""
    fresh: tuple[str, ...] = ()
    """What begins with random weights although the checkpoint has some, or because nothing has any: "generation.head";
    "language,understanding,generation" for all but the parts given beside a checkpoint."""
    data: DataFiles = field(default_factory=DataFiles)
    category_stages: tuple[str, ...] = ()
    """Stages whose pictures are the categories (Janus, section 4.2)."""
    first_sentence: float = 0.25
    """Share of captions cut after their first sentence (Janus, section 4.2; JanusFlow, section 4.2)."""
    held_out: int = 0
    """Records of each kind that are never learned from, at most a tenth of it, evenly over its files; every `validate_every`
    steps the run measures its losses on them."""
    on_error: OnError = "stop"
    """stop: a record that cannot be used ends the run, with its name. skip: the next one in the order takes its place, and the
    run tells how many there were and lists them in skipped.txt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("first_sentence", 0 <= self.first_sentence <= 1, "a share from 0 to 1")
        self._check("held_out", self.held_out >= 0, "0 or more")


def recipe_of(name: str, stages: tuple[Stage, ...], settings: CheckpointSettings) -> Recipe:
    """The recipe that takes a checkpoint through some stages."""
    return Recipe(
        name,
        lambda recipe: UnifiedTask(recipe, recipe.settings, lambda: start(recipe)),
        stages,
        settings,
        save_every=1000,
        preview_every=5000,
    )


def start(recipe: Recipe) -> Start:
    """The model that is begun with, and the records of what the stages mix."""
    settings: CheckpointSettings = recipe.settings
    check_stages(recipe, "category_stages", settings.category_stages)
    model, processor = initial(settings)
    sources = {kind: _records(recipe, kind, getattr(settings.data, kind)) for kind in _mixed(recipe, settings.category_stages)}
    categories = _categories(recipe)
    every: dict[str, Records] = dict([*sources.items(), *([("categories", categories)] if categories else [])])
    return Start(
        model,
        processor,
        sources,
        {name: {**sources, "generation": categories} for name in settings.category_stages} if categories else {},
        settings.on_error,
        records={name: source.every for name, source in every.items()},
        validation={kind: source.held_out for kind, source in sources.items()},
        origin=origin(settings),
    )


def initial(settings: CheckpointSettings) -> tuple[JanusModel, Processor]:
    """The model that a run starts from, in any precision, and its processor."""
    if settings.on_error not in get_args(OnError):
        raise ConfigError(f"settings.on_error is {settings.on_error!r}; it must be {' or '.join(get_args(OnError))}")
    if not settings.init:
        raise ConfigError("settings.init names no checkpoint; give a folder or a Hugging Face id: settings.init=PATH")
    begun = assemble(settings.init)
    if begun.checkpoint is not None and not begun.parts and not settings.fresh:
        return begun.checkpoint, begun.processor
    return _put_together(begun, settings), begun.processor


def origin(settings: CheckpointSettings) -> str:
    """The checkpoint that a run starts from as it was found; empty if it starts from something else."""
    return settings.init[0] if len(settings.init) == 1 and not settings.fresh else ""


def _mixed(recipe: Recipe, category_stages: tuple[str, ...]) -> list[Kind]:
    """The kinds that some stage takes from the data of that name."""
    kinds = {
        kind
        for stage in recipe.stages
        for kind, share in stage.mix.items()
        if share and not (kind == "generation" and stage.name in category_stages)
    }
    return [kind for kind in KINDS if kind in kinds]


def _records(recipe: Recipe, kind: Kind, paths: tuple[str, ...], name: str = "") -> Records:
    if not paths:
        raise ConfigError(f"the stages mix {kind}, but settings.data.{name or kind} names no files; {ALLOWED}")
    sentence = recipe.settings.first_sentence if not name else 0.0
    return Records(kind, paths, recipe.seed, sentence, recipe.settings.held_out)


def _categories(recipe: Recipe) -> Records | None:
    """The pictures of the stages that have categories, if there are such stages."""
    settings: CheckpointSettings = recipe.settings
    return _records(recipe, "generation", settings.data.categories, "categories") if settings.category_stages else None


def _put_together(begun: Assembly, settings: CheckpointSettings) -> JanusModel:
    """The model with the weights of the parts, those of the checkpoint that are wanted, and random ones for the rest.

    A fresh table of codes begins as the codebook (training_spec 1.1).
    """
    fresh, places = settings.fresh, [part.place for part in begun.parts]
    model = JanusModel(begun.config)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for part in fresh:
        if not any(belongs(name, [part]) for name in own):
            raise ConfigError(f"settings.fresh names {part!r}, but no parameter begins so; try language or generation.head")
    held = begun.checkpoint.state_dict() if begun.checkpoint else {}
    state = {name: tensor for name, tensor in held.items() if not belongs(name, (*fresh, *places))}
    misfits = [name for name, tensor in state.items() if own.get(name) != tensor.shape]
    # What a part's own layout has no place for, no Janus reads.
    missing = [name for name in own if name not in state and not belongs(name, (*fresh, *places))]
    if misfits or missing:
        raise CheckpointError(_unready(misfits, missing, settings))
    for begins in begun.parts:
        state |= begins.read()
    model.load_state_dict(state, strict=False)
    generation = model.generation
    if isinstance(generation, TokenGeneration) and belongs("generation.embed.weight", fresh):
        with torch.no_grad():
            generation.embed.weight.copy_(generation.tokenizer.quantize.embedding.weight)
    return model


def _unready(misfits: Sequence[str], missing: Sequence[str], settings: CheckpointSettings) -> str:
    """What is said of weights that are of another size than the parts ask for, or that nobody has."""
    given = " and ".join(settings.init)
    if any(belongs(name, ["generation.vae"]) for name in missing):
        return f"{given} hold no VAE; add one: settings.init={','.join((*settings.init, SDXL_VAE))}"
    found = sorted({".".join(name.split(".")[:2]) for name in (*misfits, *missing)})
    why = f"has {misfits[0]} in another size than the parts beside it ask for" if misfits else f"has no {missing[0]}"
    return f"{given} {why}; let it begin with random weights: settings.fresh={','.join((*settings.fresh, *found))}"
