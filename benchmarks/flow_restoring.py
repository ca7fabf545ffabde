"""From which time on a flow finishes pictures rightly: true pictures, noised to a time, and carried on from there.

    python benchmarks/flow_restoring.py --model janusflow-tiny [--times 0 0.2 0.4 0.6 1] [--task color_attr] [--pictures 64]

Says at which times a flow in training is weak. Where it fails from 0 on and is right from 0.3 on, it does not know what stands
where; where it fails from 0.6 on, when any eye could tell what there is, it does not know what things look like. 1 is what
the autoencoder alone loses. Captions are some that training may see. Prints one JSON object.
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from openjanus.data.shapes import draw
from openjanus.data.shapes_compositions import TASKS, compose_for_training, sample_scene
from openjanus.data.shapes_text import phrase
from openjanus.engine.request import Finished, ImageRequest
from openjanus.evaluate.shapes import judge
from openjanus.evaluate.shapes_reader import read_scene
from openjanus.janus import Janus, load
from openjanus.models.flow_generation import FlowDecoding, FlowGeneration
from openjanus.processing.images import to_images
from openjanus.train.pictures import to_pixels
from openjanus.types import ImageOptions

STEPS = 30  # of a whole picture


class Restoring(FlowDecoding):
    """Pictures that begin as others, by seed, noised: the time follows from how many steps of a whole picture are asked for."""

    def __init__(self, generation: FlowGeneration, lanes: int, latents: Tensor) -> None:
        super().__init__(generation, lanes)
        self._latents = latents

    def join(self, lane: int, begin: Tensor, options: ImageOptions, seed: int) -> None:
        super().join(lane, begin, options, seed)
        done = STEPS - options.steps
        self._step[lane], self._steps[lane] = done, STEPS
        self.latent[lane] = (1 - done / STEPS) * self.latent[lane] + done / STEPS * self._latents[seed]


@torch.no_grad()
def latents_of(generation: FlowGeneration, pictures: list[np.ndarray]) -> Tensor:
    """The pictures' latents [B, C, H, W], their posterior's means."""
    assert generation.vae is not None
    mean = generation.vae.encode(to_pixels(pictures).to(next(generation.vae.parameters()))).mean.float()
    return mean * generation.config.vae.scaling_factor


@torch.no_grad()
def restored(janus: Janus, task: str, count: int, times: list[float]) -> dict[str, float]:
    """The share of pictures that are right, by the time they are carried on from."""
    chances = [np.random.default_rng([TASKS.index(task), k]) for k in range(count)]
    compositions = [compose_for_training(rng, {task: 1}) for rng in chances]
    generation = janus.model.generation
    size = generation.config.image_size[0]
    latents = latents_of(generation, [draw(sample_scene(*case), size) for case in zip(chances, compositions, strict=True)])
    generation.decoding = lambda lanes: Restoring(generation, lanes, latents)
    janus.forget()
    texts = [f"a photo of {phrase(made)}" for made in compositions]
    shares = {}
    for time in times:
        steps = round((1 - time) * STEPS)
        pictures = painted(janus, texts, steps) if steps else to_images(generation.decode(latents))
        right = [not judge(made, read_scene(picture)) for made, picture in zip(compositions, pictures, strict=True)]
        shares[f"{time:g}"] = round(float(np.mean(right)), 3)
    return shares


def painted(janus: Janus, texts: list[str], steps: int) -> list[Image.Image]:
    """Picture k is of seed k."""
    requests = [ImageRequest(text, ImageOptions(seed=k, steps=steps)) for k, text in enumerate(texts)]
    results = {event.request: event.result for event in janus.engine.run(requests) if isinstance(event, Finished)}
    return [results[number][0].image for number in sorted(results)]


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="janusflow-tiny")
    parser.add_argument("--times", type=float, nargs="+", default=[0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1])
    parser.add_argument("--task", choices=[task for task in TASKS if task != "single_object"], nargs="+", default=["color_attr"])
    parser.add_argument("--pictures", type=int, default=64)
    chosen = parser.parse_args()
    janus = load(chosen.model)
    if not isinstance(janus.model.generation, FlowGeneration):
        parser.error(f"{chosen.model} paints codes, which have no time; give a JanusFlow")
    found = {task: restored(janus, task, chosen.pictures, chosen.times) for task in chosen.task}
    print(json.dumps({"model": chosen.model, "pictures": chosen.pictures, "right": found}))


if __name__ == "__main__":
    main()
