"""janus-tiny from its parts, on the synthetic world.

    openjanus train tiny_tokenizer -o runs/tiny_tokenizer
    openjanus train tiny_encoder -o runs/tiny_encoder
    openjanus train tiny_janus -o runs/tiny_janus

The order is the papers' own (Janus, sections 3.3 and 4.1): a language model that speaks of this world; stage 1, in which the
adaptors and the image head move; stage 2, which begins with single objects by their names, as with ImageNet's there; stage 3, in
which the vision tower moves too. 48-pixel pictures, 12 x 12 codes.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_encoder
import tiny_tokenizer
from tiny_world import LANGUAGE, PROMPTS, QUESTIONS, processor, sources

from openjanus.config import JanusConfig, ProjectorConfig, TokenGenerationConfig, UnderstandingConfig
from openjanus.data.shapes_streams import PaintingSource, StorySource
from openjanus.models.janus import JanusModel
from openjanus.train.part_files import load_part
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask

WIDTH = LANGUAGE.hidden_size
CONFIG = JanusConfig(
    LANGUAGE,
    UnderstandingConfig(tiny_encoder.TOWER, ProjectorConfig(tiny_encoder.TOWER.width, WIDTH, "mlp_gelu", depth=2)),
    TokenGenerationConfig(
        tiny_tokenizer.TOKENIZER, ProjectorConfig(8, WIDTH, "mlp_gelu", depth=2), head_dim=WIDTH, grid=(12, 12)
    ),
)
VISION = ("understanding.encoder", "generation.tokenizer")


@dataclass(frozen=True)
class Settings(UnifiedSettings):
    """Where the parts lie, beside what every unified run can be told."""

    tokenizer: str = "runs/tiny_tokenizer/final"
    encoder: str = "runs/tiny_encoder/final"


def start(recipe: Recipe) -> Start:
    """Random weights but for the parts; the embedding of codes begins as their codebook."""
    model = JanusModel(CONFIG)
    state = load_part(recipe.settings.tokenizer) | load_part(recipe.settings.encoder)
    missing = [name for name in model.state_dict() if name.startswith(VISION) and name not in state]
    assert not missing, missing
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        model.generation.embed.weight.copy_(model.generation.tokenizer.quantize.embedding.weight)
    own = sources(recipe.seed)
    by_stage = {
        "text": {"text": StorySource(recipe.seed)},
        "names": {**own, "generation": PaintingSource(recipe.seed, categories=True, size=tiny_tokenizer.SIZE)},
    }
    return Start(model, processor(tiny_encoder.TOWER, ("<|User|>", "<|Assistant|>"), begin=False), own, by_stage)


BASE = Stage("base", steps=1, batch=32, rate=1e-3, schedule="cosine", floor=0.1, warmup=100, precision="bfloat16", frozen=VISION)

RECIPE = Recipe(
    name="tiny_janus",
    task=lambda recipe: UnifiedTask(recipe, recipe.settings, lambda: start(recipe)),
    settings=Settings(
        context=512, preview_prompts=PROMPTS, preview_questions=QUESTIONS, preview_image="examples/images/shapes.png"
    ),
    seed=1,
    save_every=500,
    preview_every=2000,
    stages=(
        replace(BASE, name="text", steps=1000, mix={"text": 1}, frozen=("understanding", "generation"), rate=2e-3),
        replace(BASE, name="adapt", steps=500, mix={"understanding": 1, "generation": 3}, frozen=(*VISION, "language")),
        replace(BASE, name="names", steps=4000, mix={"understanding": 2, "text": 1, "generation": 5}, rate=2e-3),
        replace(BASE, name="pretrain", steps=20000, mix={"understanding": 2, "text": 1, "generation": 5}, ema=0.999, rate=2e-3),
        replace(
            BASE,
            name="tune",
            steps=4000,
            mix={"understanding": 5, "text": 1, "generation": 4},
            rate=3e-4,
            ema=0.999,
            frozen=("generation.tokenizer",),
        ),
    ),
)
