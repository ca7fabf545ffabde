"""The autoencoder of janusflow-tiny's latents: 48-pixel scenes as 12 x 12 x 4 numbers, which the flow takes in cells of 2 x 2.

openjanus train tiny_vae -o runs/tiny_vae

What a flow can tell apart in noise is how far latents lie from each other, which reconstruction alone does not care for: the
weight of the divergence keeps them apart (docs/training.md, "Latents of a flow").
"""

from openjanus.config import VAEConfig
from openjanus.train.image_autoencoder import AutoencoderSettings, ImageAutoencoder
from openjanus.train.pictures import ScenePictures
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Likeness
from openjanus.train.stage import Stage

SIZE = 48
VAE = VAEConfig(block_out_channels=(16, 32, 32), layers_per_block=1, norm_num_groups=8, sample_size=SIZE)

RECIPE = Recipe(
    name="tiny_vae",
    task=lambda recipe: ImageAutoencoder(recipe, ScenePictures(recipe.seed, recipe.settings.size)),
    settings=AutoencoderSettings(size=SIZE, likeness=Likeness(l1=1.0, l2=5.0, tolerance=5 / 127.5), vae=VAE, kl=5e-4),
    seed=3,
    save_every=1000,
    preview_every=2000,
    stages=(Stage("learn", steps=3000, batch=8, rate=2e-3, schedule="cosine", floor=0.02, warmup=50),),
)
