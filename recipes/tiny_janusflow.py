"""janusflow-tiny from its parts, on the synthetic world.

    openjanus train tiny_janusflow -o runs/tiny_janusflow

Its language model and tower are those of janus-tiny, as the package bundles it; its autoencoder lies in recipes/parts, as
tiny_vae made it.

The stages are those of tiny_janus (JanusFlow, section 3.3). Pictures have 48 pixels, as janus-tiny's, and a latent of 12 x 12, of
which the language model sees 6 x 6 cells of 2 x 2.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_encoder
import tiny_world
from tiny_world import LANGUAGE

import openjanus
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
BUNDLED = str(Path(openjanus.__file__).parent / "assets" / "janus-tiny")
VAE = ("generation.vae",)
VISION = ("understanding.encoder", *VAE)


@dataclass(frozen=True)
class Settings(tiny_world.Settings):
    """With the autoencoder, and alignment after half of the blocks."""

    # Objects fill a third of a picture's width: at the usual times they are long decided.
    time_earlier: float = 0.8
    alignment: bool = True
    alignment_weight: float = 0.5
    alignment_block: int = 3
    alignment_width: int = 256
    # A language model that has seen and painted knows what words mean, and its tower is the one that it has learned to read.
    language: str = BUNDLED
    encoder: str = BUNDLED
    vae: str = str(tiny_world.PARTS / "tiny_vae")


def start(recipe: Recipe) -> Start:
    """Random weights but for the parts; the sizes of the autoencoder, and the scale of its latents, are its own."""
    config = JanusConfig(
        LANGUAGE,
        UnderstandingConfig(tiny_encoder.TOWER, ProjectorConfig(tiny_encoder.TOWER.width, WIDTH, "linear"), begin=True),
        FlowGenerationConfig(
            UViTEncoderConfig(4, 2, 2, 0, (CHANNELS,), 2, WIDTH),
            UViTDecoderConfig(CHANNELS, 4, (CHANNELS,), 1, 2, WIDTH),
            latent_size=(12, 12),
            vae=read_vae_config(Path(recipe.settings.vae) / "vae"),
        ),
    )
    processor = tiny_world.processor(("User", "Assistant"), config.understanding.slots, begin=True)
    return tiny_world.start(recipe, config, processor, (recipe.settings.vae, recipe.settings.encoder), VISION)


ADAPT, NAMES, PRETRAIN, TUNE = tiny_world.stages(tiny_world.BASE, VISION, VAE)
# The language model can read before it begins, and a picture teaches less than one of codes would: it is seen at one time alone.
PAINT = {"understanding": 1, "text": 1, "generation": 8}
RECIPE = tiny_world.recipe_of(
    "tiny_janusflow",
    start,
    Settings(),
    4,
    (
        replace(ADAPT, steps=150),
        # Longer than janus-tiny's: what words say of a picture is most of what is left to learn where it holds one object.
        replace(NAMES, steps=800, mix=PAINT, rate=2.5e-3),
        # What words say of a picture is a fiftieth of a flow's error. At 4e-3 it was lost in the noise of the steps, and
        # pictures hardly depended on their texts before the rate had fallen.
        replace(PRETRAIN, steps=8000, mix=PAINT, rate=1.6e-3),
        replace(TUNE, steps=500, mix={"understanding": 2, "text": 1, "generation": 6}, rate=6e-4),
    ),
)
