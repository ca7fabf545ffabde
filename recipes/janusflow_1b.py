"""JanusFlow-1.3B by its paper (Table 1, sections 3.3 and 3.4), from the sizes, encoders and language model of a checkpoint.

    openjanus train janusflow_1b settings.init=CHECKPOINT settings.data.text=text.jsonl settings.data.understanding=read.jsonl \\
        settings.data.generation=paint.jsonl

Answers alone are learned in every stage (equation 6). Representations are aligned with the tower's from block 6 on; what is
released is the moving average after stage 3.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from papers import FRESH_FLOW, JANUSFLOW

from openjanus.train.from_checkpoint import CheckpointSettings, recipe_of

RECIPE = recipe_of(
    "janusflow_1b",
    JANUSFLOW,
    CheckpointSettings(init=("deepseek-ai/JanusFlow-1.3B",), fresh=FRESH_FLOW, alignment=True),
)
