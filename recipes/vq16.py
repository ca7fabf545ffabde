"""The image tokenizer of Janus and Janus-Pro from nothing, "VQ-16", as LlamaGen trains its own (section 3.1): 256-pixel pictures.

    openjanus train vq16 settings.pictures=IMAGENET settings.vgg=vgg16-397923af.pth settings.lpips=vgg.pth

A batch of 128 for 400,000 steps is 40 passes through ImageNet's 1.28 million. Without the files of the perceptual term:
settings.likeness.perceptual=0. The result is a part: settings.init=CHECKPOINT,RUN/final of the recipes that start from one.
"""

from dataclasses import dataclass

from openjanus.train.image_tokenizer import ImageTokenizer, TokenizerSettings
from openjanus.train.picture_files import PictureFiles
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Adversary, Likeness
from openjanus.train.stage import Stage


@dataclass(frozen=True)
class Settings(PictureFiles, TokenizerSettings):
    """A tokenizer's run on files."""


RECIPE = Recipe(
    name="vq16",
    task=lambda recipe: ImageTokenizer(recipe, *recipe.settings.opened(recipe.seed)),
    settings=Settings(
        size=256, likeness=Likeness(l2=1.0, perceptual=1.0), adversary=Adversary(weight=0.5, start=20_000, width=64, layers=3)
    ),
    save_every=5000,
    preview_every=5000,
    # Weight decay: 0.05 in the paper, none in its code; none here.
    stages=(Stage("learn", steps=400_000, batch=128, rate=1e-4, precision="bfloat16"),),
)
