"""The numbers of the recipes that make parts of published sizes from one's own data, with where each comes from.

vq16: LlamaGen (arXiv 2406.06525), section 3.1 and its code (training_spec section 3).
siglip_large: SigLIP (arXiv 2303.15343): batch, temperature, bias, second beta; 32,000 entries and 64 tokens are the published
models'. deepseek_1b: DeepSeek LLM (arXiv 2401.02954), section 2: optimizer, warm-up, the steps of the rate, vocabulary; its rate
is that of DeepSeek-V2-Lite's model card. sdxl_vae: SDXL (arXiv 2307.01952), section 2.4: batch, an average; latent diffusion's
kl-f8: likeness, divergence, discriminator, betas. OURS marks what no source says.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from openjanus.config import (
    PRESETS,
    FlowGenerationConfig,
    LanguageConfig,
    TokenGenerationConfig,
    TowerConfig,
    VAEConfig,
    VQConfig,
)
from openjanus.models.llama import Llama
from openjanus.models.siglip import SiglipTower
from openjanus.models.vae import AutoencoderKL
from openjanus.models.vq import VQTokenizer
from openjanus.train.encoder import POSITIONS
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.reconstruction import Adversary, Likeness
from openjanus.train.stage import Stage

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def published(name: str) -> Recipe:
    return load_recipe(str(RECIPES / f"{name}.py"))


# Whole stages, so that what is not named here stands at a stage's default: betas (0.9, 0.95), clip 1, constant rate, no decay.
STAGES: dict[str, tuple[Stage, ...]] = {
    # A batch of 128, 1e-4, bfloat16; 40 epochs of ImageNet; no decay in the code (0.05 in the paper).
    "vq16": (Stage("learn", steps=400_000, batch=128, rate=1e-4, precision="bfloat16"),),
    # OURS: steps, micro_batch, rate, schedule, warmup, weight_decay, precision, checkpointing.
    "siglip_large": (
        Stage(
            "pairs",
            steps=100_000,
            batch=32_768,
            micro_batch=512,
            rate=1e-3,
            schedule="cosine",
            warmup=2_000,
            weight_decay=1e-4,
            precision="bfloat16",
            checkpointing=True,
        ),
    ),
    # 80, 10 and 10 % of the way. OURS: steps, batch, micro_batch, precision, checkpointing.
    "deepseek_1b": (
        base := Stage(
            "learn",
            steps=80_000,
            batch=1024,
            micro_batch=8,
            rate=4.2e-4,
            warmup=2_000,
            weight_decay=0.1,
            precision="bfloat16",
            checkpointing=True,
        ),
        replace(base, name="settle", steps=10_000, warmup=0, rate=0.316 * 4.2e-4, continues=True),
        replace(base, name="end", steps=10_000, warmup=0, rate=0.1 * 4.2e-4, continues=True),
    ),
    # OURS: steps, micro_batch, rate, how much of the average stays, precision.
    "sdxl_vae": (
        Stage(
            "learn",
            steps=200_000,
            batch=256,
            micro_batch=16,
            rate=1e-4,
            betas=(0.5, 0.9),
            ema=0.999,
            precision="bfloat16",
        ),
    ),
}


@pytest.mark.parametrize("name", STAGES)
def test_the_stages_hold_what_their_source_says(name: str):
    assert published(name).stages == STAGES[name]


SETTINGS: dict[str, dict[str, Any]] = {
    "vq16": {
        "size": 256,
        "likeness": Likeness(l1=0.0, l2=1.0, perceptual=1.0),
        "adversary": Adversary(weight=0.5, start=20_000, width=64, layers=3),
        "tokenizer": VQConfig(commit_loss_beta=0.25, entropy_loss_ratio=0.0),
    },
    # OURS: text_layers (SigLIP-Large's own reader has 24).
    "siglip_large": {"captions": 1.0, "labels": 0.0, "temperature": 10.0, "bias": -10.0, "vocabulary": 32_000, "text_layers": 6},
    "deepseek_1b": {"context": 4096, "vocabulary": 100_009, "stretches": True, "supervise_prompts": False},
    # kl-f8 weighs a sum over 4 numbers of a latent with 1e-6 beside one over the 3 x 8 x 8 of its pixels. OURS: a fixed weight.
    "sdxl_vae": {
        "size": 256,
        "likeness": Likeness(l1=1.0, l2=0.0, perceptual=1.0),
        "adversary": Adversary(weight=0.5, start=50_001, width=64, layers=3),
        "kl": pytest.approx(1e-6 * 4 / (3 * 8 * 8)),
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_settings_hold_what_their_source_says(name: str):
    settings = published(name).settings
    assert {key: getattr(settings, key) for key in SETTINGS[name]} == SETTINGS[name]


def test_blocks_read_as_many_words_as_siglip():
    assert POSITIONS == 64


def parameters(build: type[nn.Module], config: object) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(config).parameters())


def test_the_parts_have_the_sizes_of_the_published_models():
    janus, flow = PRESETS["janus-1.3b"], PRESETS["janusflow-1.3b"].generation
    assert isinstance(janus.generation, TokenGenerationConfig) and isinstance(flow, FlowGenerationConfig)
    settings = {name: published(name).settings for name in STAGES}
    made: list[tuple[type[nn.Module], object, object, int]] = [
        # 24 layers, 2,048 wide; 16 heads, 102,400 rows (SPEC section 6; training_spec section 1).
        (Llama, settings["deepseek_1b"].language, janus.language, 1_652_656_128),
        # 24 layers, 1,024 wide, 16 heads, 576 patches (SPEC section 1), with the pooling head that published files hold.
        (SiglipTower, settings["siglip_large"].tower, janus.understanding.encoder, 316_000_000),
        # "72M" (LlamaGen, section 3.1).
        (VQTokenizer, settings["vq16"].tokenizer, janus.generation.tokenizer, 72_000_000),
        (AutoencoderKL, settings["sdxl_vae"].vae, flow.vae, 83_653_863),
    ]
    for build, found, wanted, count in made:
        assert isinstance(found, LanguageConfig | TowerConfig | VQConfig | VAEConfig) and found == wanted
        assert parameters(build, found) == pytest.approx(count, rel=0.01), build.__name__
