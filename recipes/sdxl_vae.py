"""The autoencoder of JanusFlow's latents from nothing: SDXL-VAE's sizes, on 256-pixel cuts of your pictures.

    openjanus train sdxl_vae settings.pictures=PICTURES settings.vgg=vgg16-397923af.pth settings.lpips=vgg.pth

From SDXL (arXiv 2307.01952, section 2.4): the architecture, a batch of 256, a moving average. From the code of latent diffusion,
whose kl-f8 that is: L1 and LPIPS, the weight of the divergence, the discriminator's first step, Adam's betas. Our own: rate,
steps, how much of the average stays, and a fixed weight of the discriminator, which that code weighs by gradients.

Without the files of the perceptual term: settings.likeness.perceptual=0. The result is a part:
settings.init=CHECKPOINT,RUN/final.
"""

from dataclasses import dataclass

from openjanus.config import VAEConfig
from openjanus.train.image_autoencoder import AutoencoderSettings, ImageAutoencoder
from openjanus.train.picture_files import PictureFiles
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Adversary, Likeness
from openjanus.train.stage import Stage


@dataclass(frozen=True)
class Settings(PictureFiles, AutoencoderSettings):
    """An autoencoder's run on files."""


RECIPE = Recipe(
    name="sdxl_vae",
    task=lambda recipe: ImageAutoencoder(recipe, *recipe.settings.opened(recipe.seed)),
    settings=Settings(
        size=256,
        likeness=Likeness(l1=1.0, l2=0.0, perceptual=1.0),
        adversary=Adversary(weight=0.5, start=50_001, width=64, layers=3),
        vae=VAEConfig(),
        # 1e-6 between sums, over 4 numbers of a latent for 3 x 64 of pixels; here both are means.
        kl=1e-6 / 48,
    ),
    save_every=5000,
    preview_every=5000,
    stages=(
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
)
