"""A short tuning of a checkpoint on records of text and pictures, as small as a test: what it starts from is set from outside."""

from openjanus.train.from_checkpoint import CheckpointSettings, recipe_of
from openjanus.train.stage import Stage

RECIPE = recipe_of(
    "tuning",
    (Stage("tune", steps=4, batch=6, rate=1e-4, mix={"text": 1, "generation": 2}),),
    CheckpointSettings(context=256, on_error="skip"),
)
