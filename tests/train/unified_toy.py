"""The papers' stages on small random models with made-up samples: unified training in milliseconds."""

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny
from openjanus.data.samples import Sample
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask
from openjanus.types import Message

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def papers() -> Any:
    """recipes/papers.py as a module."""
    spec = importlib.util.spec_from_file_location("papers", RECIPES / "papers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAPERS = papers()


def small(stage: Stage, **changes: Any) -> Stage:
    """A stage with its published ratio, rate and decay, twenty samples a step, and no warm-up, so that the first step moves."""
    return replace(stage, batch=20, warmup=0, continues=False, checkpointing=False, precision="float32", **changes)


class Talk:
    def __getitem__(self, k: int) -> Sample:
        return Sample("text", (Message("user", f"What is {k}?"), Message("assistant", "A number.")), k)


class Questions:
    def __getitem__(self, k: int) -> Sample:
        picture = np.random.default_rng(k).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        messages = (Message("user", "What is it?", (picture,)), Message("assistant", "Noise."))
        return Sample("understanding", messages, k)


class Pictures:
    def __getitem__(self, k: int) -> Sample:
        picture = np.random.default_rng(k).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        return Sample("generation", (Message("user", f"noise number {k}"),), k, picture)


def recipe(variant: str, stages: Sequence[Stage]) -> Recipe:
    """The stages on a small random model, with four samples a step (and one of every kind the stage mixes)."""

    def start() -> Start:
        model = copy.deepcopy(tiny.tiny_model(variant)).requires_grad_(True)
        config = model.config
        if variant == "janusflow":
            # Alignment needs as many picture positions as patches: 4 x 4.
            config = replace(config, generation=replace(config.generation, latent_size=(8, 8)))
            torch.manual_seed(0)
            model = type(model)(config)
        sources: Any = {"text": Talk(), "understanding": Questions(), "generation": Pictures()}
        return Start(model, tiny.tiny_processor(variant), sources)

    settings = UnifiedSettings(context=256, alignment=variant == "janusflow", alignment_block=1, alignment_width=16)
    return Recipe("toy", lambda recipe: UnifiedTask(recipe, recipe.settings, start), tuple(stages), settings)
