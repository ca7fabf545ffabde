"""Of the ablation: two encoders, the papers' stages.

openjanus train ablation_decoupled -o runs/ablation_decoupled
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_janus
from ablation import recipe_of, staged

RECIPE = recipe_of("ablation_decoupled", staged(tiny_janus.VISION))
