"""The parts put together: one language model, one pathway that reads images, one that paints them.

The variant is decided here, by the type of the generation pathway's configuration, and nowhere else.
Dims: R rows, T positions, D model width.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import GenerationConfig, JanusConfig, LanguageConfig, TokenGenerationConfig
from openjanus.errors import PromptError
from openjanus.models.alignment import Alignment, clean_features
from openjanus.models.attention import Documents, causal_mask
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.llama import Llama
from openjanus.models.token_generation import TokenGeneration
from openjanus.models.understanding import Understanding
from openjanus.types import IGNORE, TrainingBatch


def build_generation(config: GenerationConfig, language: LanguageConfig) -> TokenGeneration | FlowGeneration:
    """The generation pathway a configuration describes."""
    if isinstance(config, TokenGenerationConfig):
        return TokenGeneration(config)
    return FlowGeneration(config, language)


def contrast(errors: Tensor, nats: float, seeds: Tensor, rivals: Tensor) -> tuple[Tensor, int]:
    """Sum, in units of the errors, and number of -log P(text | picture), where the text is the picture's own or its rival's.

    errors: of M pictures [M], each worth `nats` of -log P(picture | text). Those in rivals (bool [M]) stand a second time, behind
    a text that does not describe them, with the seed (seeds: int64 [M]) of the first time. Bayes' rule turns one probability into
    the other. What a picture costs behind either text is nearly the same, so the difference is learned with far less noise than
    the cost itself, and is least where that is least: where the model is right. Condition contrastive alignment (Chen et al.
    2024, arXiv 2410.09347) compares in this way against a reference model.
    """
    first = {seed: place for place, (seed, rival) in enumerate(zip(seeds.tolist(), rivals.tolist(), strict=True)) if not rival}
    own = [first[seed] for seed in seeds[rivals].tolist()]
    return F.softplus((errors[own] - errors[rivals]) * nats).sum() / nats, len(own)


class JanusModel(nn.Module):
    """A whole Janus, Janus-Pro or JanusFlow. Build it under `torch.device("meta")` to learn its shapes without memory."""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.config = config
        self.language = Llama(config.language)
        self.understanding = Understanding(config.understanding)
        self.generation = build_generation(config.generation, config.language)

    @property
    def device(self) -> torch.device:
        """Where the language model lives."""
        return self.language.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the language model computes in."""
        return self.language.model.norm.weight.dtype

    def losses(
        self, batch: TrainingBatch, alignment: Alignment | None = None, earlier: float = 0.0
    ) -> dict[str, tuple[Tensor, int]]:
        """Sum and number of the losses of a packed batch: "text" over labelled tokens, "image" as the generation pathway counts
        (codes, or latent elements), "contrast" over rivals, "alignment" over picture positions where one is given.

        earlier: by how much a flow's times lie nearer to noise, as a logit.

        Every part runs, on nothing if need be, so that sharded processes always meet; what a batch does not hold counts 0.
        """
        # What stands in an image slot is replaced; its id may lie behind the table, where a processor appended the image token.
        words = self.language.embed(batch.ids.masked_fill(batch.slots, 0))
        images = self.read(int(batch.slots.sum()), batch.pixels)
        embeddings = words.masked_scatter(batch.slots[..., None], images.to(words.dtype))
        if len(batch.originals):
            assert isinstance(self.generation, TokenGeneration), "only codes can be shown; documents of others are refused"
            shown = self.generation.show(batch.originals)
            embeddings = embeddings.masked_scatter(batch.shown[..., None], shown.to(embeddings.dtype))
        lesson = self.generation.teach(batch.pictures, batch.seeds, earlier)
        embeddings = embeddings.masked_scatter(batch.inputs[..., None], lesson.inputs.to(embeddings.dtype))
        documents = Documents.found(batch.documents, batch.ids.shape)
        run = partial(self.language.run_documents, documents=documents, masks=self._masks(batch, documents))
        tap = None if alignment is None else alignment.block
        tapped = run(embeddings, stop=tap)
        hidden = self.language.model.norm(tapped if tap is None else run(tapped, start=tap))
        learned = batch.labels != IGNORE
        logits = self.language.logits(hidden[learned]).float()
        text = F.cross_entropy(logits, batch.labels[learned], reduction="sum")

        def of_pictures(x: Tensor) -> Tensor:
            return x[batch.outputs].unflatten(0, (len(batch.pictures), self.config.generation.positions))

        errors, own = lesson.errors(of_pictures(hidden)), ~batch.rivals
        losses = {
            "text": (text, int(learned.sum())),
            "image": (errors[own].sum(), int(own.sum()) * self.config.generation.elements),
            "contrast": contrast(errors, lesson.nats, batch.seeds, batch.rivals),
        }
        if alignment is not None:
            size, grid = self.config.understanding.encoder.image_size, self.config.generation.grid
            features = clean_features(self.understanding.encoder, batch.pictures[own], size, grid)
            losses["alignment"] = alignment.loss(of_pictures(tapped)[own, -features.shape[1] :], features)
        return losses

    def _masks(self, batch: TrainingBatch, documents: Documents) -> list[Tensor | None]:
        if self.config.generation.attends_blank:
            # All is attended to, and what stands behind the end of a document is behind all that could see it.
            return [None] * len(documents.apart)
        return [causal_mask(batch.attended.flatten()[group], group.shape[1]) for group in documents.apart]

    def read(self, slots: int, pixels: Tensor) -> Tensor:
        """Embeddings [slots, D] of images, pixels [N, 3, S, S] in [-1, 1], for as many slots in a row; PromptError if they do not
        fit."""
        self.check_images(slots, len(pixels))
        return self.understanding.read(pixels.to(self.dtype)).flatten(0, 1)

    def check_images(self, slots: int, images: int) -> None:
        """PromptError if so many images do not fill so many slots."""
        filled = images * self.understanding.slots
        if slots != filled:
            raise PromptError(
                f"the prompt has {slots} image positions but its {images} images fill {filled}; "
                "give one image for every image placeholder"
            )
