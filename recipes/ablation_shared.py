"""Of the ablation: one encoder for both directions, the papers' stages.

openjanus train ablation_shared -o runs/ablation_shared
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_janus
from ablation import recipe_of, staged

RECIPE = recipe_of("ablation_shared", staged(tiny_janus.VQ), shared=True)
