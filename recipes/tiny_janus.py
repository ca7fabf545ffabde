"""janus-tiny from its parts, on the synthetic world.

    openjanus train tiny_janus -o runs/tiny_janus

Its parts lie in recipes/parts, as tiny_language, tiny_tokenizer and tiny_encoder made them.

The order is the papers' own (Janus, sections 3.3 and 4.1): stage 1, in which the adaptors and the image head move; stage 2, which
begins with single objects by their names, as with ImageNet's there; stage 3, in which the vision tower moves too. 48-pixel
pictures, 12 x 12 codes.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_encoder
import tiny_tokenizer
import tiny_world
from tiny_world import LANGUAGE

from openjanus.config import JanusConfig, ProjectorConfig, TokenGenerationConfig, UnderstandingConfig
from openjanus.train.recipe import Recipe
from openjanus.train.unified import Start

WIDTH = LANGUAGE.hidden_size
CONFIG = JanusConfig(
    LANGUAGE,
    UnderstandingConfig(tiny_encoder.TOWER, ProjectorConfig(tiny_encoder.TOWER.width, WIDTH, "mlp_gelu", depth=2)),
    TokenGenerationConfig(
        tiny_tokenizer.TOKENIZER,
        ProjectorConfig(8, WIDTH, "mlp_gelu", depth=2),
        head_dim=WIDTH,
        grid=(12, 12),
        # Of 1, 1.5, 2, 2.5, 3.5 and 5 the best on prompts of training: rivals do much of what guidance does.
        default_guidance=2.0,
    ),
)
ROLES = ("<|User|>", "<|Assistant|>")
VQ = ("generation.tokenizer",)
VISION = ("understanding.encoder", *VQ)


@dataclass(frozen=True)
class Settings(tiny_world.Settings):
    """With the tokenizer."""

    tokenizer: str = str(tiny_world.PARTS / "tiny_tokenizer")


def start(recipe: Recipe, slots: int = CONFIG.understanding.slots) -> Start:
    """Random weights but for the parts; the embedding of codes begins as their codebook."""
    processor = tiny_world.processor(ROLES, slots, begin=False)
    started = tiny_world.start(recipe, CONFIG, processor, (recipe.settings.tokenizer, recipe.settings.encoder), VISION)
    if not recipe.settings.begin:
        generation = started.model.generation
        with torch.no_grad():
            generation.embed.weight.copy_(generation.tokenizer.quantize.embedding.weight)
    return started


ADAPT, NAMES, PRETRAIN, TUNE = tiny_world.stages(tiny_world.BASE, VISION, VQ)
# Answers that need two thoughts come late, and only once the tower moves too.
TUNE = replace(TUNE, steps=3200, rate=1.5e-3, mix={"understanding": 5, "text": 1, "generation": 3})
RECIPE = tiny_world.recipe_of("tiny_janus", start, Settings(), 1, (ADAPT, NAMES, PRETRAIN, TUNE))
