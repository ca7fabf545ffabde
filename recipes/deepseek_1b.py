"""The language model of Janus-1.3B, Janus-Pro-1B and JanusFlow from nothing: DeepSeek-LLM 1.3B and its byte-level BPE.

    openjanus train deepseek_1b settings.data=TEXTS

Records are those of text (docs/data.md): {"text": ...}, or conversations, whose answers are learned. From DeepSeek LLM (arXiv
2401.02954, section 2): 100,000 tokens beside the special ones in 102,400 rows, texts in rows of 4,096, AdamW's betas, decay and
clip, 2,000 steps of warm-up, 31.6 % of the rate from 80 % of the way on and 10 % from 90 %: the three stages. It has no table
for 1.3 billion parameters, so these are our own: the rate (DeepSeek-V2-Lite's, a model as wide), batch, steps.

A batch counts records: with 1,024 of a full row, a step is 4.2 million tokens, the run 420 billion. Of a text longer than a row,
a stretch is learned, another one in each pass; cut long ones into records to learn all of them. Without settings.tokenizer, the
BPE is trained on the texts whenever the run starts; settings.tokenizer=RUN/final takes that of a run before.

The result is a part: settings.init=CHECKPOINT,RUN/final, or RUN/final with a tower and an image tokenizer or VAE.
"""

from dataclasses import dataclass, replace
from functools import cache

import tokenizers

from openjanus.checkpoints.processors import HALF
from openjanus.config import PRESETS
from openjanus.errors import ConfigError
from openjanus.processing.chat import ChatFormat
from openjanus.processing.images import ImageProcessor, ImageProcessorConfig
from openjanus.processing.prompts import Processor
from openjanus.processing.tokenizer import ROLES, SPECIAL_TOKENS, Tokenizer
from openjanus.train.language import LanguageSettings, LanguageTask
from openjanus.train.own_records import OwnRecords, RecordFiles
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage

JANUS = PRESETS["janus-1.3b"]


@dataclass(frozen=True)
class Settings(RecordFiles, LanguageSettings):
    """A language model's run on texts; special tokens that a given tokenizer lacks are added."""

    vocabulary: int = 100_000 + len(SPECIAL_TOKENS)


def task(recipe: Recipe) -> LanguageTask:
    """In the template of a Janus that is put together of parts."""
    settings: Settings = recipe.settings
    records = OwnRecords("text", settings.data, recipe.seed)
    tokenizer = Tokenizer(backend(settings, recipe.seed), extra_tags=SPECIAL_TOKENS)
    if tokenizer.vocab_size > settings.language.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} entries, and settings.language.vocab_size is "
            f"{settings.language.vocab_size}; lower settings.vocabulary, or raise the rows to as many"
        )
    processor = Processor(
        tokenizer,
        ImageProcessor(ImageProcessorConfig(JANUS.understanding.encoder.image_size, image_mean=HALF, image_std=HALF)),
        ChatFormat(roles=ROLES),
        slots_per_image=JANUS.understanding.slots,
        begin_is_slot=False,
        context=settings.language.max_position_embeddings,
        vocab_size=settings.language.vocab_size,
    )
    return LanguageTask(recipe, processor, JANUS.generation, records)


@cache
def backend(settings: Settings, seed: int) -> tokenizers.Tokenizer:
    """The tokenizer: the same for all stages of a run."""
    return settings.tokenizer_of(OwnRecords("text", settings.data, seed))


LEARN = Stage(
    "learn",
    steps=80_000,
    batch=1024,
    micro_batch=8,
    rate=4.2e-4,
    warmup=2_000,
    weight_decay=0.1,
    precision="bfloat16",
    checkpointing=True,
)

RECIPE = Recipe(
    name="deepseek_1b",
    task=task,
    settings=Settings(JANUS.language, context=4096, stretches=True),
    save_every=1000,
    preview_every=5000,
    stages=(
        LEARN,
        replace(LEARN, name="settle", steps=10_000, warmup=0, rate=0.316 * LEARN.rate, continues=True),
        replace(LEARN, name="end", steps=10_000, warmup=0, rate=0.1 * LEARN.rate, continues=True),
    ),
)
