"""Janus-Pro-7B by its paper (Janus-Pro, Table 2, section 2.2), from the sizes, encoders and language model of a checkpoint.

    openjanus train janus_pro_7b settings.init=CHECKPOINT settings.data.text=text.jsonl settings.data.understanding=read.jsonl \\
        settings.data.generation=paint.jsonl settings.data.categories=imagenet.jsonl

Stage 1 paints ImageNet's categories, and longer than Janus did; stage 2 has none of them. The rest is as in janus_1b.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from papers import FRESH, JANUS_PRO_7B

from openjanus.train.from_checkpoint import CheckpointSettings, recipe_of

RECIPE = recipe_of(
    "janus_pro_7b",
    JANUS_PRO_7B,
    CheckpointSettings(
        init=("deepseek-ai/Janus-Pro-7B",),
        fresh=FRESH,
        category_stages=("adapt",),
        supervise_prompts=("adapt", "pretrain"),
    ),
)
