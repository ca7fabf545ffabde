"""Janus-1.3B by its paper (Janus, Table 1, sections 3.3 and 4), from the sizes, encoders and language model of a checkpoint.

    openjanus train janus_1b settings.init=CHECKPOINT settings.data.text=text.jsonl settings.data.understanding=read.jsonl \\
        settings.data.generation=paint.jsonl settings.data.categories=imagenet.jsonl

The adaptors and the image head begin anew, as the paper's do. From parts: settings.init=LLAMA,SIGLIP,VQ (docs/training.md).
From zero: settings.fresh=language,understanding,generation settings.init=CHECKPOINT,TOKENIZER,ENCODER, parts trained apart.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from papers import FRESH, JANUS

from openjanus.train.from_checkpoint import CheckpointSettings, recipe_of

RECIPE = recipe_of(
    "janus_1b",
    JANUS,
    CheckpointSettings(
        init=("deepseek-ai/Janus-1.3B",),
        fresh=FRESH,
        category_stages=("adapt", "names"),
        # "On the text sequence" in stages 1 and 2; on the answers in stage 3 (section 3.3).
        supervise_prompts=("adapt", "names", "pretrain"),
    ),
)
