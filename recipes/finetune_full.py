"""All of a checkpoint but its tower learns from one's own records.

    openjanus train finetune_full settings.init=deepseek-ai/Janus-Pro-1B settings.data.generation=mine.jsonl \\
        settings.replay.understanding=others.jsonl

For Janus, Janus-Pro and JanusFlow alike, the bundled ones too (with stages.tune.precision=float32, faster on most CPUs). The rate
is that of Janus' last stage (Table 1); its decay to a tenth is usual for short runs. The tower rests, as in all stages but the
papers' last: stages.tune.frozen= trains it too. docs/finetuning.md tells of memory.
"""

from openjanus.train.finetune import MIX, FinetuneSettings, recipe_of
from openjanus.train.stage import Stage

RECIPE = recipe_of(
    "finetune_full",
    Stage(
        "tune",
        steps=1000,
        batch=32,
        micro_batch=4,
        rate=2e-5,
        schedule="cosine",
        floor=0.1,
        warmup=50,
        mix=MIX,
        frozen=("understanding.encoder",),
        precision="bfloat16",
        checkpointing=True,
    ),
    FinetuneSettings(init=("deepseek-ai/Janus-Pro-1B",)),
)
