"""Unified training in two short stages on a small random model; $UNIFIED_VARIANT says which: janus or janusflow."""

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from train.unified_toy import PAPERS, small
from train.unified_toy import recipe as unified

VARIANT = os.environ.get("UNIFIED_VARIANT", "janus")
STAGES = {stage.name: stage for stage in (PAPERS.JANUSFLOW if VARIANT == "janusflow" else PAPERS.JANUS)}
# Three samples at a time: micro-batches that lack a kind, and a last one that is smaller than the others.
RECIPE = replace(
    unified(VARIANT, [small(STAGES["adapt"], steps=5, micro_batch=3), small(STAGES["tune"], steps=6, micro_batch=3)]),
    save_every=2,
)
