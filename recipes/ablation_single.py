"""Of the ablation: two encoders, everything at once from the first step on.

openjanus train ablation_single -o runs/ablation_single
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_janus
from ablation import recipe_of, single

RECIPE = recipe_of("ablation_single", single(tiny_janus.VISION))
