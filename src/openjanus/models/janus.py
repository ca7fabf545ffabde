"""The parts put together: one language model, one pathway that reads images, one that paints them.

The variant is decided here, by the type of the generation pathway's configuration, and nowhere else.
Dims: R rows, T positions, D model width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import GenerationConfig, JanusConfig, LanguageConfig, TokenGenerationConfig
from openjanus.errors import PromptError
from openjanus.models.attention import document_mask
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.llama import Llama
from openjanus.models.token_generation import TokenGeneration
from openjanus.models.understanding import Understanding
from openjanus.types import IGNORE, Rows, TrainingBatch


def build_generation(config: GenerationConfig, language: LanguageConfig) -> TokenGeneration | FlowGeneration:
    """The generation pathway a configuration describes."""
    if isinstance(config, TokenGenerationConfig):
        return TokenGeneration(config)
    return FlowGeneration(config, language)


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
        return self.language.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the language model computes in."""
        return self.language.lm_head.weight.dtype

    def embed(self, rows: Rows) -> Tensor:
        """Embeddings [R, T, D] of prompts: words from the table, image slots from the understanding pathway, in row order.

        Without images the vision tower does not run. PromptError if the slots do not fit the images.
        """
        return self._weave(self.language.embed(rows.ids), rows.slots, rows.pixels)

    def _weave(self, embeddings: Tensor, slots: Tensor, pixels: Tensor) -> Tensor:
        if len(pixels) == 0 and not slots.any():
            return embeddings
        images = self.understanding.read(pixels.to(self.dtype)).flatten(0, 1)
        if int(slots.sum()) != images.shape[0]:
            raise PromptError(
                f"the prompt has {int(slots.sum())} image positions but its {len(pixels)} images fill "
                f"{images.shape[0]}; give one image for every image placeholder"
            )
        return embeddings.masked_scatter(slots[..., None], images.to(embeddings.dtype))

    def losses(self, batch: TrainingBatch) -> dict[str, tuple[Tensor, int]]:
        """Sum and number of the losses of a packed batch, by kind: "text" over labelled tokens, "image" as the generation pathway
        counts (codes, or latent elements). A kind the batch does not hold is left out.
        """
        embeddings = self._weave(self.language.embed(batch.ids), batch.slots, batch.pixels)
        lesson = self.generation.teach(batch.pictures, batch.seeds) if len(batch.pictures) else None
        if lesson is not None:
            embeddings = embeddings.masked_scatter(batch.inputs[..., None], lesson.inputs.to(embeddings.dtype))
        hidden = self.language(embeddings, batch.positions, document_mask(batch.documents, batch.attended))
        losses: dict[str, tuple[Tensor, int]] = {}
        learned = batch.labels != IGNORE
        if learned.any():
            logits = self.language.logits(hidden[learned]).float()
            loss = F.cross_entropy(logits, batch.labels[learned], reduction="sum")
            losses["text"] = (loss, int(learned.sum()))
        if lesson is not None:
            painted = hidden[batch.outputs].unflatten(0, (len(batch.pictures), -1))
            losses |= lesson.losses(painted)
        return losses
