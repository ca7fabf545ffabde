"""janusflow-tiny from its parts, on the synthetic world.

    openjanus train tiny_janusflow -o runs/tiny_janusflow

Its parts lie in recipes/parts, as tiny_language, tiny_vae and tiny_encoder made them.

The stages are those of tiny_janus (JanusFlow, section 3.3). Pictures to paint have 64 pixels and a latent of 16 x 16, of which
the language model sees cells of 2 x 2: as many as the tower, which reads 48 pixels, has patches, so representations align.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_encoder
import tiny_world
from tiny_world import LANGUAGE

from openjanus.checkpoints.load import read_vae_config
from openjanus.config import (
    FlowGenerationConfig,
    JanusConfig,
    ProjectorConfig,
    UnderstandingConfig,
    UViTDecoderConfig,
    UViTEncoderConfig,
)
from openjanus.train.recipe import Recipe
from openjanus.train.unified import Start

WIDTH = LANGUAGE.hidden_size
CHANNELS = 128
VAE = ("generation.vae",)
VISION = ("understanding.encoder", *VAE)


@dataclass(frozen=True)
class Settings(tiny_world.Settings):
    """With the autoencoder, and alignment after half of the blocks: there are only six."""

    # Objects fill a third of a picture's width: at the usual times they are long decided.
    time_earlier: float = 1.5
    alignment: bool = True
    alignment_weight: float = 0.5
    alignment_block: int = 3
    alignment_width: int = 256
    vae: str = str(tiny_world.PARTS / "tiny_vae")


def start(recipe: Recipe) -> Start:
    """Random weights but for the parts; the sizes of the autoencoder, and the scale of its latents, are its own."""
    config = JanusConfig(
        LANGUAGE,
        UnderstandingConfig(tiny_encoder.TOWER, ProjectorConfig(tiny_encoder.TOWER.width, WIDTH, "linear"), begin=True),
        FlowGenerationConfig(
            UViTEncoderConfig(4, 2, 2, 0, (CHANNELS,), 2, WIDTH),
            UViTDecoderConfig(CHANNELS, 4, (CHANNELS,), 1, 2, WIDTH),
            latent_size=(16, 16),
            vae=read_vae_config(Path(recipe.settings.vae) / "vae"),
        ),
    )
    processor = tiny_world.processor(("User", "Assistant"), config.understanding.slots, begin=True)
    return tiny_world.start(recipe, config, processor, (recipe.settings.vae, recipe.settings.encoder), VISION)


RECIPE = tiny_world.recipe_of("tiny_janusflow", start, Settings(), 4, VISION, VAE)
