"""What the papers claim, at the size of janus-tiny: two encoders against one, stages against none (docs/training.md).

Each run is a recipe of its own (ablation_decoupled, ablation_shared, ablation_single) of the same steps, samples and seed, and
ends with the shapes benchmark instead of a checkpoint: a model with one encoder is in no published layout.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

import tiny_janus
import tiny_world

from openjanus.evaluate.shapes import run_benchmark
from openjanus.janus import Janus
from openjanus.models.adaptors import build_adaptor
from openjanus.models.janus import JanusModel
from openjanus.models.token_generation import TokenGeneration
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import Start, UnifiedTask


@dataclass(frozen=True)
class Settings(tiny_janus.Settings):
    """Of an ablation."""

    contrast_weight: float = 0.0  # the papers' losses alone
    shared: bool = False
    """One encoder for both: pictures are read as the VQ tokenizer's codes too (Janus, Table 5, experiment A)."""
    cases: int = 25
    """Prompts of each task and questions of each kind in the benchmark at the end."""


class SharedUnderstanding(nn.Module):
    """Reads pictures as the tokenizer that paints them writes them: the vectors of their codes, through an adaptor of its own."""

    def __init__(self, generation: TokenGeneration) -> None:
        super().__init__()
        self.slots = generation.config.positions
        self.adaptor = build_adaptor(generation.config.adaptor)
        # In a tuple, so that its weights are the generation's alone.
        self._generation = (generation,)

    def read(self, pixels: Tensor) -> Tensor:
        """Embeddings [N, codes, D] of pixels [N, 3, S, S]."""
        tokenizer = self._generation[0].tokenizer
        with torch.no_grad():
            codes = tokenizer.encode(pixels).codes.flatten(1)
            vectors = tokenizer.quantize.lookup(codes)
        return self.adaptor(vectors.to(pixels))


class AblationTask(UnifiedTask):
    """Unified training whose result is a score."""

    def _build(self, model: JanusModel) -> nn.Module:  # type: ignore[override]
        learner = super()._build(model)
        if self.settings.shared:
            assert isinstance(learner.generation, TokenGeneration)
            learner.understanding = SharedUnderstanding(learner.generation)  # type: ignore[assignment]
        return learner

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The report of the benchmark, with every answer and what was found in every picture."""
        self.module.load_state_dict(tensors)
        self.module.eval()
        report = run_benchmark(Janus(self.module, self.processor, self.recipe.name), limit=self.settings.cases)
        (folder / "report.json").write_text(json.dumps(report.to_json(), indent=1), encoding="utf-8")


def start(recipe: Recipe) -> Start:
    """janus-tiny's; a picture that is read takes a position a code where it is read as codes."""
    config = tiny_janus.CONFIG
    return tiny_janus.start(recipe, config.generation.positions if recipe.settings.shared else config.understanding.slots)


def staged(frozen: tuple[str, ...]) -> tuple[Stage, ...]:
    """The order of the papers, shortened; the tower never moves, so that both runs read with frozen encoders."""
    adapt, names, pretrain, _ = tiny_world.stages(tiny_world.BASE, frozen, ())
    return (replace(adapt, steps=100), replace(names, steps=350), replace(pretrain, steps=900))


def single(frozen: tuple[str, ...]) -> tuple[Stage, ...]:
    """As many steps of everything at once."""
    steps = sum(stage.steps for stage in staged(frozen))
    return (replace(staged(frozen)[-1], steps=steps),)


def recipe_of(name: str, stages: tuple[Stage, ...], shared: bool = False) -> Recipe:
    """An ablation."""
    return Recipe(
        name,
        lambda recipe: AblationTask(recipe, recipe.settings, lambda: start(recipe)),
        stages,
        Settings(shared=shared),
        seed=1,
    )
