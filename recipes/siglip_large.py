"""The vision tower of all Janus models from nothing: SigLIP-Large, 16-pixel patches of 384 pixels, from pictures and captions.

    openjanus train siglip_large settings.data=PAIRS

Records are those of generation (docs/data.md). From SigLIP (arXiv 2303.15343): the sigmoid loss, its temperature and bias, a
batch of 32,768, a second beta of 0.95; its published models read 64 tokens of a vocabulary of 32,000. Our own: a reader of
captions of 6 blocks instead of 24, rate, decay, warm-up, steps (3.3 billion pictures), and that a picture is told from those of
its micro-batch alone: let stages.micro_batch be as large as memory allows.

Without settings.tokenizer, a byte-level BPE is trained on the captions whenever the run starts. The result is a part:
settings.init=CHECKPOINT,RUN/final.
"""

from dataclasses import dataclass

from openjanus.config import PRESETS
from openjanus.train.captioned import CaptionedFiles
from openjanus.train.encoder import EncoderSettings, EncoderTask
from openjanus.train.own_records import OwnRecords, RecordFiles
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage


@dataclass(frozen=True)
class Settings(RecordFiles, EncoderSettings):
    """A tower's run on pictures and captions."""


def task(recipe: Recipe) -> EncoderTask:
    """The tower and a reader of captions."""
    settings: Settings = recipe.settings
    records = OwnRecords("generation", settings.data, recipe.seed)
    return EncoderTask(recipe, CaptionedFiles(records, settings.tower, settings.tokenizer_of(records)))


RECIPE = Recipe(
    name="siglip_large",
    task=task,
    settings=Settings(PRESETS["janus-1.3b"].understanding.encoder, captions=1.0, labels=0.0, text_layers=6),
    save_every=1000,
    preview_every=5000,
    stages=(
        Stage(
            "pairs",
            steps=100_000,
            batch=32_768,
            micro_batch=512,
            rate=1e-3,
            schedule="cosine",
            warmup=2_000,
            weight_decay=1e-4,
            precision="bfloat16",
            checkpointing=True,
        ),
    ),
)
