"""The image tokenizer of Janus and Janus-Pro from nothing, "VQ-16", as LlamaGen trains its own (section 3.1): 256-pixel pictures.

    openjanus train vq16 settings.pictures=IMAGENET settings.vgg=vgg16-397923af.pth settings.lpips=vgg.pth

A batch of 128 for 400,000 steps is 40 passes through ImageNet's 1.28 million. Without the files of the perceptual term:
settings.likeness.perceptual=0. The result is a part: settings.init=CHECKPOINT,RUN/final of the recipes that start from one.
"""

from dataclasses import dataclass

from openjanus.errors import ConfigError
from openjanus.train.image_tokenizer import ImageTokenizer, TokenizerSettings
from openjanus.train.perceptual import Perceptual, Vgg16, lpips_weights
from openjanus.train.pictures import FilePictures
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Adversary, Likeness
from openjanus.train.stage import Stage


@dataclass(frozen=True)
class Settings(TokenizerSettings):
    """And where things lie."""

    pictures: tuple[str, ...] = ()
    """Folders; everything below them is read."""
    vgg: str = ""
    """torchvision's weights of VGG16."""
    lpips: str = ""
    """LPIPS's weights of its channels; none: all count alike."""


def task(recipe: Recipe) -> ImageTokenizer:
    """With LPIPS, unless the perceptual term is switched off."""
    settings: Settings = recipe.settings
    features = None
    if settings.likeness.perceptual:
        if not settings.vgg:
            raise ConfigError(
                "settings.vgg names no file; give torchvision's vgg16-397923af.pth, or settings.likeness.perceptual=0"
            )
        features = Perceptual(Vgg16.from_file(settings.vgg), lpips_weights(settings.lpips) if settings.lpips else None)
    return ImageTokenizer(recipe, FilePictures(settings.pictures, settings.size, recipe.seed), features)


RECIPE = Recipe(
    name="vq16",
    task=task,
    settings=Settings(
        size=256, likeness=Likeness(l2=1.0, perceptual=1.0), adversary=Adversary(weight=0.5, start=20_000, width=64, layers=3)
    ),
    save_every=5000,
    preview_every=5000,
    # Weight decay: 0.05 in the paper, none in its code; none here.
    stages=(Stage("learn", steps=400_000, batch=128, rate=1e-4, precision="bfloat16"),),
)
