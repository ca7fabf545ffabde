"""Steps of training at a published size: random weights, bfloat16, blocks that run twice.

    python benchmarks/train_step.py [--steps 2] [--image-kind generation]                        # LoRA, one picture, on a CPU
    python benchmarks/train_step.py --device cuda --batch 6 --context 4096 --steps 12 [--full]   # packed rows, on a GPU

Prints one JSON object: the most memory that was held, seconds of each step, losses, and of steps behind the first two tokens a
second (padding not counted) and the share of the device's peak (--tflops; 989 is an H200's in bfloat16) that the language model's
own products come to: 2 for each weight of a block and token forward, 2 for its input's gradient, 2 more if it moves, and those of
attention; what is done twice counts once. Nothing is read or written.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from openjanus.checkpoints.load import load_without_weights
from openjanus.config import PRESETS, JanusConfig, LanguageConfig
from openjanus.data.samples import Kind, Sample
from openjanus.models.janus import JanusModel
from openjanus.models.llama import Llama
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


def recipe(kind: Kind, arguments: argparse.Namespace) -> Recipe:
    """LoRA of everything that the preset names, or all but the tower, on so many pictures a step."""
    config = PRESETS[arguments.preset]

    def start() -> Start:
        model = random_model(config)
        fixed = tuple(f"generation.{part}" for part in model.generation.fixed)
        return Start(model, processor_of(config), {kind: Noise(kind)}, fixed=fixed)

    stage = Stage(
        "tune",
        steps=arguments.steps,
        batch=arguments.batch,
        rate=1e-4,
        mix={kind: 1},
        frozen=("understanding.encoder",) if arguments.full else (),
        precision="bfloat16",
        checkpointing=True,
    )
    learns = {} if arguments.full else {"lora": LoRA("both"), "base": "bfloat16"}
    settings = UnifiedSettings(context=arguments.context, **learns)
    return Recipe("train_step", lambda recipe: UnifiedTask(recipe, recipe.settings, start), (stage,), settings)


def products(config: LanguageConfig, moving: int, full: bool, lengths: Sequence[int]) -> float:
    """What the language model's blocks must multiply and add for documents of such lengths, in FLOP."""
    with torch.device("meta"):
        language = Llama(config)
    weights = sum(one.numel() for one in language.model.layers.parameters())
    moved = weights if full else min(moving, weights)
    # Scores and means of values, each for half of a document's pairs of positions; forward once, backward twice.
    pairs = sum(length * length for length in lengths) / 2
    attention = 3 * 2 * 2 * config.num_hidden_layers * config.hidden_size * pairs
    return sum(lengths) * (4 * weights + 2 * moved) + attention


def held(device: torch.device) -> float:
    """GiB that the process, or the GPU for it, has held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Take the steps and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=("janus-1.3b", "janus-pro-1b", "janus-pro-7b"), default="janus-pro-1b")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--image-kind", choices=("generation", "understanding"), default="generation")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="pictures a step")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a packed row")
    parser.add_argument("--full", action="store_true", help="all weights but the tower's instead of LoRA")
    parser.add_argument("--tflops", type=float, default=989.0, help="the device's peak in bfloat16")
    arguments = parser.parse_args()
    made, device = recipe(arguments.image_kind, arguments), torch.device(arguments.device)
    learner = Learner(made, made.stages[0], World(0, 1, device))
    built = held(device)
    seconds: list[float] = []
    losses: list[dict[str, float]] = []
    lengths: list[int] = []
    for step in range(arguments.steps):
        batches = learner.task.batches(made.stages[0], step, 0, 1)
        groups = [group for batch in batches for group in batch.content.documents]
        lengths = [length for group in groups for length in (group >= 0).sum(1).tolist()]
        clock = time.perf_counter()
        outcome = learner.learn(step, batches)
        seconds.append(round(time.perf_counter() - clock, 3))
        losses.append(outcome.losses)
    moving, every = (sum(size[which] for size in learner.sizes.values()) for which in (0, 1))
    found: dict[str, Any] = {
        "preset": arguments.preset,
        "kind": arguments.image_kind,
        "parameters": every,
        "moving": moving,
        "gib_when_built": round(built, 2),
        "gib_at_most": round(held(device), 2),
        "tokens": sum(lengths),
        "documents": len(lengths),
        "seconds": seconds,
        "losses": losses,
    }
    if warm := seconds[2:]:
        step_seconds = statistics.median(warm)
        flop = products(PRESETS[arguments.preset].language, moving, arguments.full, lengths)
        reached = flop / step_seconds / (arguments.tflops * 1e12)
        found |= {"tokens_per_second": round(sum(lengths) / step_seconds), "mfu": round(reached, 4)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
