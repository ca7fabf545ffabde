"""The vision tower of janus-tiny and janusflow-tiny: 48-pixel scenes as 8 x 8 patches.

openjanus train tiny_encoder -o runs/tiny_encoder
"""

from openjanus.config import TowerConfig
from openjanus.train.encoder import EncoderSettings, EncoderTask
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

TOWER = TowerConfig(
    image_size=48, patch_size=6, width=128, layers=4, heads=4, select_layer=-1, model_name="siglip_tiny_patch6_48"
)

RECIPE = Recipe(
    name="tiny_encoder",
    task=EncoderTask,
    # Labels of patches alone: on scenes of several objects the captions' loss teaches this small a tower colours, but no shapes.
    settings=EncoderSettings(TOWER, captions=0.0, labels=1.0),
    seed=2,
    save_every=500,
    preview_every=500,
    stages=(
        Stage(
            "scenes",
            steps=5000,
            batch=32,
            rate=2e-3,
            schedule="cosine",
            floor=0.02,
            warmup=100,
            optimizer="muon",
            mix={"scenes": 1},
        ),
    ),
)
