"""Unified training that starts from a checkpoint and learns from records on disk: what the papers' recipes are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch

from openjanus.checkpoints.load import load_checkpoint
from openjanus.data.formats.opening import ALLOWED
from openjanus.data.records import Records
from openjanus.data.samples import KINDS, Kind, Sample, Source
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.janus import JanusModel
from openjanus.models.token_generation import TokenGeneration
from openjanus.processing.prompts import Processor
from openjanus.train.part_files import load_part
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


@dataclass(frozen=True)
class CheckpointSettings(UnifiedSettings):
    """What a run can be told that starts from a checkpoint."""

    init: str = ""
    """A checkpoint: a folder in any layout we read, a bundled name or a Hugging Face id. Sizes, tokenizer, template, weights."""
    fresh: tuple[str, ...] = ()
    """Parts that begin with random weights instead: "generation.head"; "language,understanding,generation" for all of them."""
    parts: tuple[str, ...] = ()
    """Folders of parts trained apart (a tokenizer, an encoder, a VAE) that take the place of the checkpoint's."""
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
    """The checkpoint's model, its fresh parts drawn anew and its other parts put in; the records of what the stages mix."""
    settings: CheckpointSettings = recipe.settings
    check_stages(recipe, "category_stages", settings.category_stages)
    model, processor = initial(settings)
    sources = {kind: _records(recipe, kind, getattr(settings.data, kind)) for kind in _mixed(recipe, settings.category_stages)}
    validation: dict[str, Sequence[Sample]] = {kind: source.held_out for kind, source in sources.items()}
    return Start(model, processor, sources, _by_stage(recipe, sources), settings.on_error, validation, origin=settings.init)


def initial(settings: CheckpointSettings) -> tuple[JanusModel, Processor]:
    """The model that a run starts from, in any precision, and its processor."""
    if settings.on_error not in get_args(OnError):
        raise ConfigError(f"settings.on_error is {settings.on_error!r}; it must be {' or '.join(get_args(OnError))}")
    if not settings.init:
        raise ConfigError("settings.init names no checkpoint; give a folder or a Hugging Face id: settings.init=PATH")
    # A part may be finer than the checkpoint; what needs no change stays a view of the file until the task takes it.
    found = load_checkpoint(settings.init, dtype=torch.float32 if settings.parts else None)
    model = found.model
    if settings.fresh:
        model = _drawn_anew(model, settings.fresh)
    for part in settings.parts:
        _put_in(model, part)
    return model, found.processor


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


def _by_stage(recipe: Recipe, sources: Mapping[Kind, Source]) -> dict[str, dict[Kind, Source]]:
    settings: CheckpointSettings = recipe.settings
    names = [stage.name for stage in recipe.stages if stage.name in settings.category_stages]
    if not names:
        return {}
    categories = _records(recipe, "generation", settings.data.categories, "categories")
    return {name: {**sources, "generation": categories} for name in names}


def _drawn_anew(model: JanusModel, fresh: tuple[str, ...]) -> JanusModel:
    """The model with random weights in its fresh parts; a fresh table of codes begins as the codebook (training_spec 1.1)."""
    drawn = JanusModel(model.config)
    state = model.state_dict()
    for part in fresh:
        if not any(belongs(name, [part]) for name in state):
            raise ConfigError(f"settings.fresh names {part!r}, but no parameter begins so; try language or generation.head")
    drawn.load_state_dict({name: tensor for name, tensor in state.items() if not belongs(name, fresh)}, strict=False)
    generation = drawn.generation
    if isinstance(generation, TokenGeneration) and belongs("generation.embed.weight", fresh):
        with torch.no_grad():
            generation.embed.weight.copy_(generation.tokenizer.quantize.embedding.weight)
    return drawn


def _put_in(model: JanusModel, part: str) -> None:
    own = model.state_dict()
    for name, tensor in load_part(part).items():
        if name not in own or own[name].shape != tensor.shape:
            wanted = tuple(own[name].shape) if name in own else "nothing of that name"
            raise CheckpointError(
                f"{part} holds {name} {tuple(tensor.shape)}, the model has {wanted}; train the part at its size"
            )
        own[name].copy_(tensor)
