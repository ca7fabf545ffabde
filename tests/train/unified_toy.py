"""The papers' stages on small random models with made-up samples: unified training in milliseconds."""

import copy
import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny
from openjanus.data.samples import Sample
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.task import Batch
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask
from openjanus.types import Message, TrainingBatch

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
    """Pictures and their texts; with rivals, each with a text that is not its own."""

    def __init__(self, rivals: bool) -> None:
        self._rivals = rivals

    def __getitem__(self, k: int) -> Sample:
        picture = np.random.default_rng(k).integers(0, 255, (24, 24, 3), dtype=np.uint8)
        rival = f"noise number {k + 1}" if self._rivals else ""
        return Sample("generation", (Message("user", f"noise number {k}"),), k, picture, rival)


@dataclass(frozen=True)
class Settings(UnifiedSettings):
    """delay: seconds a step takes beside its work, so that there is time to stop a run."""

    delay: float = 0.0


class Unified(UnifiedTask):
    settings: Settings

    def batches(self, stage: Stage, step: int, rank: int, world: int) -> Sequence[Batch[TrainingBatch]]:
        time.sleep(self.settings.delay)
        return super().batches(stage, step, rank, world)


def recipe(variant: str, stages: Sequence[Stage], rivals: bool = False) -> Recipe:
    """The stages on a small random model, with samples of every kind they mix."""

    def start() -> Start:
        model = copy.deepcopy(tiny.tiny_model(variant)).requires_grad_(True)
        config = model.config
        if variant == "janusflow":
            # A square latent with as many positions as the tower has patches, as published: 4 x 4.
            config = replace(config, generation=replace(config.generation, latent_size=(8, 8)))
            torch.manual_seed(0)
            model = type(model)(config)
        sources: Any = {"text": Talk(), "understanding": Questions(), "generation": Pictures(rivals)}
        return Start(model, tiny.tiny_processor(variant), sources)

    settings = Settings(context=256, alignment=variant == "janusflow", alignment_block=1, alignment_width=16)
    return Recipe("toy", lambda recipe: Unified(recipe, recipe.settings, start), tuple(stages), settings)
