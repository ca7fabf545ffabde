"""A LoRA step of a Janus-Pro-1B's size on a CPU: random weights, bfloat16, blocks that run twice, one picture to learn.

    python benchmarks/lora_step.py [--steps 2] [--image-kind generation]

Prints one JSON object: the most memory that the process has held, seconds of each step, losses. Nothing is read or written.
"""

import argparse
import json
import resource
import time
from typing import Any

import numpy as np
import torch

from openjanus.checkpoints.load import load_without_weights
from openjanus.config import PRESETS, JanusConfig
from openjanus.data.samples import Kind, Sample
from openjanus.models.janus import JanusModel
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.train.learner import Learner
from openjanus.train.lora import LoRA
from openjanus.train.parallel import World
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask
from openjanus.types import Message


class Noise:
    """Pictures of noise: to be painted, or asked about."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __getitem__(self, k: int) -> Sample:
        picture = np.random.default_rng(k).integers(0, 255, (384, 384, 3), dtype=np.uint8)
        if self._kind == "generation":
            return Sample("generation", (Message("user", "noise of every color"),), k, picture)
        return Sample("understanding", (Message("user", "What is it?", (picture,)), Message("assistant", "Noise.")), k)


def random_model(config: JanusConfig) -> JanusModel:
    """A model with random weights in bfloat16, made part by part so that no float32 copy of it is ever whole."""
    with torch.device("meta"):
        model = JanusModel(config)
    torch.manual_seed(0)
    for name, parameter in list(model.named_parameters()):
        path, _, leaf = name.rpartition(".")
        values = torch.ones(parameter.shape) if "norm" in name else torch.randn(parameter.shape).mul_(0.02)
        setattr(model.get_submodule(path), leaf, torch.nn.Parameter(values.bfloat16()))
    for name, buffer in list(model.named_buffers()):
        path, _, leaf = name.rpartition(".")
        model.get_submodule(path).register_buffer(leaf, torch.zeros(buffer.shape, dtype=torch.bfloat16))
    return model


def processor_of(config: JanusConfig) -> Processor:
    """The bundled model's tokenizer, at the sizes of the published one."""
    small, _ = load_without_weights("janus-tiny")
    half = (0.5, 0.5, 0.5)
    images = ImageProcessor(
        ImageProcessorConfig(image_size=config.understanding.encoder.image_size, image_mean=half, image_std=half)
    )
    return Processor(small.tokenizer, images, small.chat, config.understanding.slots, begin_is_slot=False)


def recipe(kind: Kind) -> Recipe:
    """LoRA of everything that the preset names, on one picture a step."""
    config = PRESETS["janus-pro-1b"]

    def start() -> Start:
        model = random_model(config)
        fixed = tuple(f"generation.{part}" for part in model.generation.fixed)
        return Start(model, processor_of(config), {kind: Noise(kind)}, fixed=fixed)

    stage = Stage("tune", steps=9, batch=1, rate=1e-4, mix={kind: 1}, precision="bfloat16", checkpointing=True)
    settings = UnifiedSettings(lora=LoRA("both"), base="bfloat16")
    return Recipe("lora_step", lambda recipe: UnifiedTask(recipe, recipe.settings, start), (stage,), settings)


def main() -> None:
    """Take the steps and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--image-kind", choices=("generation", "understanding"), default="generation")
    arguments = parser.parse_args()
    made = recipe(arguments.image_kind)
    learner = Learner(made, made.stages[0], World(0, 1, torch.device("cpu")))
    built = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds, losses = [], []
    for step in range(arguments.steps):
        clock = time.perf_counter()
        outcome = learner.learn(step, learner.task.batches(made.stages[0], step, 0, 1))
        seconds.append(round(time.perf_counter() - clock, 1))
        losses.append(outcome.losses)
    moving, every = (sum(size[which] for size in learner.sizes.values()) for which in (0, 1))
    found: dict[str, Any] = {
        "kind": arguments.image_kind,
        "parameters": every,
        "moving": moving,
        "gib_when_built": round(built, 2),
        "gib_at_most": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "seconds": seconds,
        "losses": losses,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
