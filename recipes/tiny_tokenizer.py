"""The image tokenizer of janus-tiny: 48-pixel scenes of the synthetic world as 12 x 12 codes.

openjanus train tiny_tokenizer -o runs/tiny_tokenizer
"""

from openjanus.config import VQConfig
from openjanus.train.image_tokenizer import ImageTokenizer, TokenizerSettings
from openjanus.train.pictures import ScenePictures
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Likeness
from openjanus.train.stage import Stage

SIZE = 48
TOKENIZER = VQConfig(256, 8, ch=32, encoder_ch_mult=(1, 1, 1), decoder_ch_mult=(1, 1, 1), num_res_blocks=1, z_channels=32)

RECIPE = Recipe(
    name="tiny_tokenizer",
    task=lambda recipe: ImageTokenizer(recipe, ScenePictures(recipe.seed, recipe.settings.size)),
    settings=TokenizerSettings(
        size=SIZE, likeness=Likeness(l1=1.0, l2=1.0), tokenizer=TOKENIZER, revive_after=20_000, revive_until=600
    ),
    stages=(
        Stage(
            "learn",
            steps=1500,
            batch=8,
            rate=2e-3,
            schedule="cosine",
            floor=0.02,
            warmup=50,
            betas=(0.9, 0.95),
            precision="float32",
        ),
    ),
)
