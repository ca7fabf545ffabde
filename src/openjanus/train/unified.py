"""Unified training of a Janus or JanusFlow: text, understanding and generation in one model, by one loss each.

Janus, sections 3.3 and 4.1; Janus-Pro, section 2.2; JanusFlow, sections 3.3 and 3.4. Which parts move, how fast, on what mix is
the stages' business (recipes/); what the papers leave open is a setting here, with its default and reason.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from openjanus.checkpoints.load import build_empty
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import JanusConfig
from openjanus.data.documents import Document, Writer
from openjanus.data.packing import batch, fitting, pack
from openjanus.data.samples import Kind, Mixture, Sample, Source
from openjanus.data.skipping import Replaceable, first_good
from openjanus.errors import ConfigError, DataError
from openjanus.janus import Janus
from openjanus.models.alignment import Alignment
from openjanus.models.janus import JanusModel
from openjanus.processing.prompts import Processor
from openjanus.train.encoded import remember
from openjanus.train.lora import LoRA, add_lora, save_adapter, take_out
from openjanus.train.parts import belongs
from openjanus.train.recipe import Recipe
from openjanus.train.showing import asking, chosen, show
from openjanus.train.stage import Precision, Stage
from openjanus.train.task import Batch, Loss, Task
from openjanus.types import IGNORE, TrainingBatch

OnError = Literal["stop", "skip"]


@dataclass(frozen=True)
class Start:
    """What a run starts from: a model with weights, everything around it, and the sources of its samples by kind.

    by_stage: other sources for some stages, by the stage's name (single objects first, Janus section 4.2).
    on_error: whether a record that cannot be used stops the run or gives its place to the next (`Replaceable` sources).
    records: how many there are of each kind, where samples are records on disk (`Task.records`).
    validation: samples of each kind that are never learned from.
    fixed: parts that no stage moves; states leave them out. origin: the checkpoint it is, if it is one as it was found.
    notes: what people should know before the run begins.
    """

    model: JanusModel
    processor: Processor
    sources: Mapping[Kind, Source]
    by_stage: Mapping[str, Mapping[Kind, Source]] = field(default_factory=dict)
    on_error: OnError = "stop"
    records: Mapping[str, int] = field(default_factory=dict)
    validation: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    origin: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnifiedSettings:
    """What a unified run can be told beside its stages."""

    context: int = 4096
    """Tokens of a packed row (Janus-Pro, Table 1)."""
    guidance_dropout: float = 0.1
    """Share of pictures learned without their text (Janus, footnote 2; JanusFlow, section 3.4)."""
    supervise_prompts: tuple[str, ...] = ()
    """Stages in which questions are learned as well as answers. Papers: loss "on the text sequence" in stages 1 and 2 of Janus,
    on the response alone in JanusFlow; whether that means prompts too is not said, so the default is answers alone."""
    contrast_weight: float = 1.0
    """Weight of telling a picture's text from its rival, where samples have one, beside the picture itself. No paper of Janus has
    this loss; what it is for stands in docs/training.md."""
    time_earlier: float = 0.0
    """By how much the times of a flow lie nearer to noise: their logit is normal around -time_earlier (JanusFlow, section 3.3,
    gives no mean, and SD3's is 0). What a picture holds is decided while its objects can just be made out. The larger they are,
    the more noise that takes."""
    text_weight: float = 1.0
    """Weight of each position of text beside a position of an image. Papers: none, so 1. Answers of a word or two beside many
    codes are a small part of a step's loss; a larger weight lets a small model learn to read sooner."""
    alignment: bool = False
    """Representation alignment (JanusFlow, section 3.4)."""
    alignment_weight: float = 1.0
    alignment_block: int = 6
    alignment_width: int = 2048
    """Width inside the alignment's MLP, which the paper does not give; 2048 is REPA's."""
    random_crop: bool = True
    hidden_codes: float = 0.5
    """Share of edits learned without the codes of the images they begin with (Janus-4o; training_spec 6.3)."""
    edit_dropout: float = 0.0
    """Share of edits learned without text and images. Janus-4o: none, pictures without edits are there to learn that from."""
    lora: LoRA = field(default_factory=LoRA)
    """Train matrices beside the language model's layers, and little else (train/lora.py)."""
    base: Precision = "float32"
    """What those weights of the language model are held in that no stage moves: bfloat16 takes half the memory, and wants
    bfloat16 as the stages' precision. What moves is float32 either way."""
    encoded: str = ""
    """A folder in which the codes or latents of pictures are kept once they were computed (train/encoded.py); "" keeps none."""
    saved: Precision = "float32"
    """What the final checkpoint's weights are stored in; the published ones are in bfloat16."""
    preview_prompts: tuple[str, ...] = ()
    """What previews paint, and what they are asked; without both a few records that are held out, if there are any."""
    preview_questions: tuple[str, ...] = ()
    preview_image: str = ""

    def __post_init__(self) -> None:
        for share in ("guidance_dropout", "hidden_codes", "edit_dropout"):
            self._check(share, 0 <= getattr(self, share) <= 1, "a share from 0 to 1")
        for weight in ("contrast_weight", "text_weight", "alignment_weight"):
            self._check(weight, 0 <= getattr(self, weight) < math.inf, "0 or more")
        for number in ("context", "alignment_block", "alignment_width"):
            self._check(number, getattr(self, number) >= 1, "1 or more")

    def _check(self, key: str, good: bool, allowed: str) -> None:
        if not good:
            raise ConfigError(f"settings.{key} is {getattr(self, key)!r}; it must be {allowed}")


def check_stages(recipe: Recipe, key: str, names: Sequence[str]) -> None:
    """ConfigError if the names in a setting are not all stages of the recipe."""
    known = [stage.name for stage in recipe.stages]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"settings.{key} names {name!r}, which is no stage of the recipe {recipe.name}; {hint}")


class _HeldOut(NamedTuple):
    """Samples that are never learned from, with their documents, by kind; and what is wrong with those that cannot be used."""

    usable: dict[str, list[tuple[Sample, list[Document]]]]
    unusable: tuple[str, ...]


class UnifiedModel(JanusModel):
    """A Janus with the alignment MLP that helps it learn; `losses` is the one way in."""

    def __init__(self, config: JanusConfig, alignment: Alignment | None) -> None:
        super().__init__(config)
        self.alignment = alignment

    def learn(self, content: TrainingBatch, earlier: float) -> dict[str, tuple[Tensor, int]]:
        """The losses of a batch, with alignment if there is an MLP for it."""
        return self.losses(content, self.alignment, earlier)


class UnifiedTask(Task[TrainingBatch]):
    """Text, understanding and generation, mixed in each step by the stage's exact ratio."""

    blocks = ("language.model.layers",)
    entrances = ("learn",)

    def __init__(self, recipe: Recipe, settings: UnifiedSettings, start: Callable[[], Start]) -> None:
        check_stages(recipe, "supervise_prompts", settings.supervise_prompts)
        self.recipe, self.settings = recipe, settings
        started = start()
        self.config = started.model.config
        self.processor, self.sources, self.by_stage = started.processor, started.sources, started.by_stage
        self.on_error, self._records, self._validation = started.on_error, started.records, started.validation
        self.notes, self._origin = started.notes, started.origin
        self.module: UnifiedModel = self._build(started.model)
        self._settle(started.fixed)
        # One cross-entropy over all supervised positions where both kinds are tokens; a velocity's error is a mean of its own.
        self.over = "positions" if self.config.generation.counts_with_text else None

    def _build(self, model: JanusModel) -> UnifiedModel:
        settings, width = self.settings, model.config.language.hidden_size
        blocks = model.config.language.num_hidden_layers
        if settings.alignment and settings.alignment_block > blocks:
            raise ConfigError(
                f"settings.alignment_block is {settings.alignment_block}; it must be from 1 to {blocks}, "
                "as many blocks as the language model has"
            )
        tower = model.config.understanding.encoder.width
        alignment = Alignment(width, tower, settings.alignment_block, settings.alignment_width) if settings.alignment else None
        with torch.device("meta"):
            learner = UnifiedModel(model.config, None)
        learner.load_state_dict(model.state_dict(), assign=True)
        learner.alignment = alignment
        return learner

    def _settle(self, fixed: Sequence[str]) -> None:
        """Put LoRA in if it is wanted, and mark what never moves."""
        lora, base = self.settings.lora, self.settings.base
        lora.check()
        if lora.preset != "none":
            helper, self.module.alignment = self.module.alignment, None
            add_lora(self.module, lora)
            self.module.alignment = helper
        for name, parameter in self.module.named_parameters():
            if belongs(name, fixed):
                parameter.requires_grad_(False)
        wide = [stage.name for stage in self.recipe.stages if stage.precision != base]
        if base == "bfloat16" and wide:
            raise ConfigError(
                f"settings.base is bfloat16 and stages.{wide[0]}.precision is float32; set one of them as the other is"
            )
        moves = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        self._rests = {name for name, moving in moves.items() if name.startswith("language.") and not moving}
        for name, buffer in self.module.named_buffers():
            part, _, leaf = name.rpartition(".")
            self.module.get_submodule(part).register_buffer(leaf, buffer.float())
        if self.settings.encoded:
            remember(self.module.generation, Path(self.settings.encoded))

    def precision(self, name: str) -> torch.dtype:
        return getattr(torch, self.settings.base) if name in self._rests else torch.float32

    def records(self) -> Mapping[str, int]:
        return self._records

    def look(self) -> Sequence[str]:
        return self._held_out.unusable

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[TrainingBatch]]:
        own = self._mixtures[stage.name].places(step)[rank::world]
        size = stage.micro_batch or max(len(own), 1)
        return [self._batch(stage, own[i : i + size]) for i in range(0, len(own), size)]

    @cached_property
    def _mixtures(self) -> dict[str, Mixture]:
        """The mixture of each stage, which goes on through each kind's samples where the stages before it have left them."""
        made: dict[str, Mixture] = {}
        taken: dict[Kind, int] = {}
        for stage in self.recipe.stages:
            sources = self.by_stage.get(stage.name, self.sources)
            made[stage.name] = Mixture(sources, dict(stage.mix), stage.batch, taken)  # type: ignore[arg-type]
            taken = made[stage.name].taken(stage.steps)
        return made

    def validation(self, stage: Stage, rank: int, world: int) -> Mapping[str, Sequence[Batch[TrainingBatch]]]:
        size = stage.micro_batch or 8
        found = {}
        for kind, held in self._held_out.usable.items():
            documents = [written for _, written in held]
            own = documents[rank::world]
            batches = [self._packed(own[start : start + size]) for start in range(0, len(own), size)]
            # A process without samples of its own runs along on the first, which counts nothing there.
            found[kind] = batches or [replace(self._packed(documents[:1]), counts={})]
        return found

    @cached_property
    def _held_out(self) -> _HeldOut:
        """What is never learned from; every process has all of it, so that all know what of it is broken."""
        writer = Writer(self.processor, self.config.generation, guidance_dropout=0.0, random_crop=False, hidden_codes=0.0)
        usable: dict[str, list[tuple[Sample, list[Document]]]] = {}
        unusable = []
        for kind, samples in self._validation.items():
            for place in range(len(samples)):
                try:
                    sample = samples[place]
                    written = fitting(writer, sample, self.settings.context)
                except DataError as error:
                    if self.on_error == "stop":
                        raise
                    unusable.append(str(error))
                else:
                    usable.setdefault(kind, []).append((sample, written))
        return _HeldOut(usable, tuple(unusable))

    def _batch(self, stage: Stage, places: Sequence[tuple[Kind, int]]) -> Batch[TrainingBatch]:
        writer = Writer(
            self.processor,
            self.config.generation,
            guidance_dropout=self.settings.guidance_dropout,
            supervise_prompts=stage.name in self.settings.supervise_prompts,
            random_crop=self.settings.random_crop,
            hidden_codes=self.settings.hidden_codes,
            edit_dropout=self.settings.edit_dropout,
        )
        sources = self.by_stage.get(stage.name, self.sources)
        taken = [self._taken(writer, sources[kind], k) for kind, k in places]
        return replace(
            self._packed([documents for _, documents, _ in taken]),
            skipped=tuple(text for _, _, wrong in taken for text in wrong),
            origins=tuple(origin for origin, _, _ in taken if origin),
        )

    def _packed(self, documents: Sequence[Sequence[Document]]) -> Batch[TrainingBatch]:
        """The documents of some samples as a micro-batch."""
        rows = pack([one for group in documents for one in group], self.settings.context)
        content = batch(rows, self.processor.tokenizer.pad)
        text, rivals = int((content.labels != IGNORE).sum()), int(content.rivals.sum())
        pictures = len(content.pictures) - rivals
        image = pictures * self.config.generation.elements
        aligned = pictures * math.prod(self.config.generation.grid)
        counts = {"text": text, "image": image, "positions": text + image, "contrast": rivals, "alignment": aligned}
        return Batch(content, counts, tokens=content.ids.numel())

    def _taken(self, writer: Writer, source: Source, k: int) -> tuple[str, list[Document], tuple[str, ...]]:
        """Origin and documents of sample k, or of what stands in its place, and what is wrong with the records that do not."""

        def read(sample: Sample) -> tuple[str, list[Document]]:
            return sample.origin, fitting(writer, sample, self.settings.context)

        if self.on_error == "skip" and isinstance(source, Replaceable):
            (origin, documents), wrong = first_good(source, k, read)
            return origin, documents, wrong
        return *read(source[k]), ()

    def losses(self, content: TrainingBatch) -> Mapping[str, Loss]:
        settings = self.settings
        sums = {name: total for name, (total, _) in self.module.learn(content, settings.time_earlier).items()}
        losses = {
            "text": Loss(sums["text"], settings.text_weight, self.over),
            "image": Loss(sums["image"], 1.0, self.over),
            "contrast": Loss(sums["contrast"], settings.contrast_weight, self.over or "image"),
        }
        if "alignment" in sums:
            losses["alignment"] = Loss(sums["alignment"], settings.alignment_weight)
        return losses

    @cached_property
    def _shown(self) -> list[Sample]:
        """What previews paint and answer: what the settings say or, if they say nothing, a few held-out records of each kind."""
        settings = self.settings
        if settings.preview_prompts or settings.preview_questions:
            return chosen(settings.preview_prompts, settings.preview_questions, settings.preview_image)
        return [one for held in self._held_out.usable.values() for one in asking(sample for sample, _ in held)]

    @property
    def has_preview(self) -> bool:
        return bool(self._shown)

    def preview(self, folder: Path | None, step: int) -> None:
        show(Janus(self.module, self.processor, "preview"), self._shown, folder)

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        found = {name: tensor for name, tensor in tensors.items() if not name.startswith("alignment.")}
        model, lora = build_empty(self.config), self.settings.lora
        adapter = None
        if lora.preset != "none":
            found, adapter = take_out(found, lora, model)
        model.load_state_dict(found, assign=True)
        save_checkpoint(model.to(getattr(torch, self.settings.saved)), self.processor, folder)
        if adapter is not None:
            save_adapter(folder / "adapter", adapter, lora, self.config, self._origin)
