"""How far apart the latents of an autoencoder lie, by what they show, and what comes back of pictures.

    python benchmarks/latents.py recipes/parts/tiny_vae

Takes a folder of an autoencoder (with vae/ in it, as a run or a JanusFlow has). Distances are between the mean latents of the
colours of the synthetic world, inside of objects, and of the gray ground, in units of what scaled latents vary by; "read back" is
the share of scenes of which every object is recognised after the way through. Prints one JSON object.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from openjanus.checkpoints.load import read_vae_config
from openjanus.checkpoints.parts import load_part
from openjanus.data.shapes import COLOURS, SHAPES, Scene, arrange, draw
from openjanus.data.shapes_compositions import sample_scene
from openjanus.evaluate.shapes_reader import read_scene
from openjanus.models.vae import AutoencoderKL
from openjanus.processing.images import to_images
from openjanus.train.pictures import to_pixels

SCENES = 200
PER_COLOUR = 24


def autoencoder(folder: str) -> tuple[AutoencoderKL, float]:
    """The one in a folder, and what its latents are scaled by."""
    config = read_vae_config(Path(folder) / "vae")
    vae = AutoencoderKL(config).eval()
    prefix = "generation.vae."
    vae.load_state_dict({k.removeprefix(prefix): v.float() for k, v in load_part(folder).items() if k.startswith(prefix)})
    return vae, config.scaling_factor


def pixels_of(scenes: list[Scene], size: int) -> Tensor:
    """Drawn, [N, 3, size, size] in [-1, 1]."""
    return to_pixels([draw(scene, size) for scene in scenes])


def places(vae: AutoencoderKL, scale: float, size: int) -> dict[str, Tensor]:
    """The mean latent [C] of each colour where it fills a position, and of the ground."""
    rng = np.random.default_rng(0)
    means, grounds = {}, []
    for colour in COLOURS:
        pixels = pixels_of([arrange(rng, [(colour, SHAPES[k % len(SHAPES)])]) for k in range(PER_COLOUR)], size)
        latents = (vae.encode(pixels).mean * scale).permute(0, 2, 3, 1)
        coloured = ((pixels - pixels[:, :, :1, :1]).abs().sum(1, keepdim=True) > 0.15).float()
        covered = F.avg_pool2d(coloured, size // latents.shape[1])
        means[colour] = latents[covered[:, 0] > 0.95].mean(0)
        # A position beside an object knows of it.
        grounds.append(latents[F.max_pool2d(covered, 3, 1, 1)[:, 0] == 0].mean(0))
    return {"ground": torch.stack(grounds).mean(0), **means}


def read_back(vae: AutoencoderKL, size: int) -> float:
    """The share of scenes that are recognised whole."""
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng) for _ in range(SCENES)]
    pictures = to_images(vae.decode(vae.encode(pixels_of(scenes, size)).mode()))
    right = 0
    for scene, picture in zip(scenes, pictures, strict=True):
        found = sorted((one.shape, one.colour) for one in read_scene(picture))
        right += found == sorted((thing.shape, thing.colour) for thing in scene.objects)
    return right / SCENES


@torch.inference_mode()
def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=48, help="pixels along a side (default: 48)")
    chosen = parser.parse_args()
    vae, scale = autoencoder(chosen.folder)
    where = places(vae, scale, chosen.size)
    from_ground = {colour: round(float((where[colour] - where["ground"]).norm()), 2) for colour in COLOURS}
    pairs = {
        f"{one}, {other}": round(float((where[one] - where[other]).norm()), 2)
        for i, one in enumerate(COLOURS)
        for other in COLOURS[i + 1 :]
    }
    nearest = dict(sorted(pairs.items(), key=lambda pair: pair[1])[:3])
    report = {"from_ground": from_ground, "nearest": nearest, "read_back": read_back(vae, chosen.size)}
    print(json.dumps({"autoencoder": chosen.folder, "size": chosen.size, **report}))


if __name__ == "__main__":
    main()
