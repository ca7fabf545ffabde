"""The parts put together: one language model, one pathway that reads images, one that paints them.

The variant is decided here, by the type of the generation pathway's configuration, and nowhere else.
Dims: R rows, T positions, D model width.
"""

import torch
from torch import Tensor, nn

from openjanus.config import GenerationConfig, JanusConfig, LanguageConfig, TokenGenerationConfig
from openjanus.errors import PromptError
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.llama import Llama
from openjanus.models.token_generation import TokenGeneration
from openjanus.models.understanding import Understanding
from openjanus.types import Rows


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
        embeddings = self.language.embed(rows.ids)
        if len(rows.pixels) == 0 and not rows.slots.any():
            return embeddings
        images = self.understanding.read(rows.pixels.to(self.dtype)).flatten(0, 1)
        if int(rows.slots.sum()) != images.shape[0]:
            raise PromptError(
                f"the prompt has {int(rows.slots.sum())} image positions but its {len(rows.pixels)} images fill "
                f"{images.shape[0]}; give one image for every image placeholder"
            )
        return embeddings.masked_scatter(rows.slots[..., None], images.to(embeddings.dtype))
