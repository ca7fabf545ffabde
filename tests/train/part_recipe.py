"""Short runs of the parts that a Janus is made of; $PART says which."""

import os
from dataclasses import replace

from openjanus.config import TowerConfig, VQConfig
from openjanus.train.encoder import EncoderSettings, EncoderTask
from openjanus.train.image_tokenizer import ImageTokenizer, TokenizerSettings
from openjanus.train.pictures import ScenePictures
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

_STAGE = Stage("learn", steps=8, batch=6, micro_batch=2, rate=1e-3)
_BOOK = VQConfig(24, 4, ch=32, encoder_ch_mult=(1, 1), decoder_ch_mult=(1, 1), num_res_blocks=0, z_channels=8)
_TOWER = TowerConfig(image_size=16, patch_size=4, width=16, layers=1, heads=2, select_layer=-1)

_TOKENIZER = Recipe(
    "tokenizer",
    lambda recipe: ImageTokenizer(recipe, ScenePictures(recipe.seed, 16)),
    (_STAGE,),
    TokenizerSettings(size=16, tokenizer=_BOOK),
)
RECIPE = {
    "tokenizer": _TOKENIZER,
    # Codes that the last step did not use start again after each: 64 vectors come to 24 codes.
    "reviving tokenizer": replace(_TOKENIZER, settings=replace(_TOKENIZER.settings, revive_after=1)),
    "encoder": Recipe(
        "encoder",
        EncoderTask,
        (replace(_STAGE, mix={"single": 1, "scenes": 1}),),
        EncoderSettings(_TOWER, captions=0.0, labels=1.0),
    ),
}[os.environ.get("PART", "tokenizer")]
