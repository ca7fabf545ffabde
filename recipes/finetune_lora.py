"""LoRA: small matrices in a checkpoint's language model learn from one's own records, and whole what stands around it.

    openjanus train finetune_lora settings.init=deepseek-ai/Janus-Pro-1B settings.data.generation=mine.jsonl \\
        settings.replay.understanding=others.jsonl

The result is a whole checkpoint, and the adapter alone in its folder adapter/, in PEFT's format. settings.lora.preset says which
direction is learned: understanding, generation or both. On most CPUs it is faster with settings.base=float32
stages.tune.precision=float32. What runs on the bundled models came to: docs/finetuning.md.
"""

from openjanus.train.finetune import MIX, FinetuneSettings, recipe_of
from openjanus.train.lora import LoRA
from openjanus.train.stage import Stage

RECIPE = recipe_of(
    "finetune_lora",
    Stage(
        "tune",
        steps=1000,
        batch=32,
        micro_batch=4,
        rate=2e-4,
        schedule="cosine",
        floor=0.1,
        warmup=50,
        mix=MIX,
        ema=0.99,
        precision="bfloat16",
        checkpointing=True,
    ),
    FinetuneSettings(init=("deepseek-ai/Janus-Pro-1B",), lora=LoRA("both"), base="bfloat16"),
)
