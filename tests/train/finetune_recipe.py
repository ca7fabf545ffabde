"""LoRA on records of every kind, twenty short steps; $FINETUNE_FOLDER holds the checkpoint and the records.

$FINETUNE_DELAY: seconds that a step takes beside its work.
"""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from openjanus.train.overrides import override
from openjanus.train.recipe_files import load_recipe

FOLDER = Path(os.environ["FINETUNE_FOLDER"])
SETTINGS = (
    *(
        "stages.tune.steps=20",
        "stages.tune.batch=8",
        "stages.tune.micro_batch=2",
        "stages.tune.warmup=0",
        "stages.tune.rate=5e-3",
    ),
    *("stages.tune.schedule=constant", "stages.tune.precision=float32", "settings.base=float32", "settings.context=256"),
    *("preview_every=0", "validate_every=5", "settings.held_out=3", "save_every=4", f"settings.init={FOLDER / 'init'}"),
    *(f"settings.data.{kind}={FOLDER / kind}.jsonl" for kind in ("generation", "editing")),
    *(f"settings.replay.{kind}={FOLDER / kind}.jsonl" for kind in ("text", "understanding")),
)
_FINETUNE = override(load_recipe(str(Path(__file__).resolve().parents[2] / "recipes" / "finetune_lora.py")), SETTINGS)


def _slow(recipe: Any) -> Any:
    task = _FINETUNE.task(recipe)
    batches = task.batches

    def delayed(*place: Any) -> Any:
        time.sleep(float(os.environ.get("FINETUNE_DELAY", "0")))
        return batches(*place)

    task.batches = delayed  # type: ignore[method-assign]
    return task


RECIPE = replace(_FINETUNE, task=_slow)
