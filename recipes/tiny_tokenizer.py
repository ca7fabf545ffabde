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
# No residual blocks on the way down: half the time a picture, and no worse.
TOKENIZER = VQConfig(256, 8, ch=32, encoder_ch_mult=(1, 1, 1), decoder_ch_mult=(1, 1, 1), num_res_blocks=0, z_channels=32)

RECIPE = Recipe(
    name="tiny_tokenizer",
    task=lambda recipe: ImageTokenizer(recipe, ScenePictures(recipe.seed, recipe.settings.size)),
    settings=TokenizerSettings(
        size=SIZE,
        # A grey of 118 to 138 and colours that differ by 10 levels are one grey and one colour to this tokenizer.
        likeness=Likeness(l1=1.0, l2=5.0, tolerance=10 / 127.5),
        tokenizer=TOKENIZER,
        rate=0.005,
        quantize_from=3000,
        revive_after=8000,
        revive_until=9000,
    ),
    save_every=1000,
    preview_every=5000,
    stages=(Stage("learn", steps=15000, batch=2, rate=2e-3, schedule="cosine", floor=0.02, warmup=50),),
)
