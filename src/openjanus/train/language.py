"""Training of a language model from text and conversations, before it ever sees a picture: where "from zero" begins.

What a Janus then starts from is the model alone, in `load_part`'s layout, with the tokenizer it was trained with beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from openjanus.checkpoints.writing import write_file
from openjanus.config import GenerationConfig, LanguageConfig
from openjanus.data.documents import Document, Writer
from openjanus.data.packing import batch, fitting, pack, stretch, written
from openjanus.data.samples import Sample, Source
from openjanus.models.attention import Documents
from openjanus.models.llama import Llama
from openjanus.processing.prompts import Processor
from openjanus.train.part_files import save_part
from openjanus.train.pictures import UNSEEN, places
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Loss, Task
from openjanus.types import IGNORE, TrainingBatch

PREFIX = "language."
_MEASURED = 64


@dataclass(frozen=True)
class LanguageSettings:
    """What a run of the language model can be told."""

    language: LanguageConfig = field(default_factory=LanguageConfig)
    context: int = 4096
    """Tokens of a packed row."""
    supervise_prompts: bool = False
    """Questions are learned as well as answers; plain text is learned whole either way."""
    stretches: bool = False
    """Of a plain text that is longer than a row, a row's worth is learned, from another place each time; otherwise it is refused,
    as a conversation is."""


class LanguageModel(Llama):
    """A Llama and its loss."""

    def learn(self, content: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Of the labelled tokens: the sum of their cross-entropies, and how many of them were the likeliest ones."""
        documents = Documents.found(content.documents, content.ids.shape)
        hidden = self.run_documents(self.embed(content.ids), documents, [None] * len(documents.apart))
        learned = content.labels != IGNORE
        logits, labels = self.logits(self.model.norm(hidden)[learned]).float(), content.labels[learned]
        return F.cross_entropy(logits, labels, reduction="sum"), (logits.argmax(-1) == labels).sum()


class LanguageTask(Task[TrainingBatch]):
    """Samples of text from one source; settings are LanguageSettings.

    generation: of the Janus that is to come, whose prompts these samples are written in.
    """

    module: LanguageModel
    blocks = ("model.layers",)
    entrances = ("learn",)

    def __init__(self, recipe: Recipe, processor: Processor, generation: GenerationConfig, source: Source) -> None:
        self.recipe = recipe
        self.settings: LanguageSettings = recipe.settings
        self.processor, self._source = processor, source
        self._writer = Writer(processor, generation, supervise_prompts=self.settings.supervise_prompts)
        self.module = LanguageModel(self.settings.language)

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[TrainingBatch]]:
        return [self._batch(own) for own in places(self.recipe, stage, step, rank, world)]

    def _batch(self, places: Sequence[int]) -> Batch[TrainingBatch]:
        context = self.settings.context
        rows = pack([document for k in places for document in self._documents(self._source[k])], context)
        content = batch(rows, self.processor.tokenizer.pad)
        return Batch(content, {"text": int((content.labels != IGNORE).sum())}, tokens=content.ids.numel())

    def _documents(self, sample: Sample) -> list[Document]:
        context, plain = self.settings.context, len(sample.messages) == 1
        if self.settings.stretches and plain:
            return [stretch(document, context, sample.seed) for document in written(self._writer, sample)]
        return fitting(self._writer, sample, context)

    def losses(self, content: TrainingBatch) -> Mapping[str, Loss]:
        return {"text": Loss(self.module.learn(content)[0])}

    def measure(self, samples: int = _MEASURED) -> dict[str, float]:
        """On samples never learned from: the nats of a token, and the share of tokens that were the likeliest ones."""
        one = self._batch(range(UNSEEN, UNSEEN + samples))
        with torch.no_grad():
            nats, right = self.module.learn(one.content.to(next(self.module.parameters()).device))
        return {"nats": float(nats) / one.counts["text"], "right": float(right) / one.counts["text"]}

    def preview(self, folder: Path | None, step: int) -> None:
        """A line of what `measure` finds."""
        found = self.measure()
        if folder is not None:
            text = f"{_MEASURED} samples never learned from: {found['nats']:.4f} nats a token, {found['right']:.4f} of them right"
            (folder / "text.txt").write_text(f"{text}\n", encoding="utf-8")

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The language model for `load_part`, and tokenizer.json."""
        save_part(folder, PREFIX, tensors, {"params": asdict(self.settings.language)})
        write_file(folder / "tokenizer.json", self.processor.tokenizer.backend.to_str(pretty=True).encode())
