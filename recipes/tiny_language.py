"""The language model of janus-tiny and janusflow-tiny: it speaks of this world, and finds in a text what it is asked for.

openjanus train tiny_language -o runs/tiny_language
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import tiny_janus
import tiny_world

from openjanus.data.samples import InTurn
from openjanus.data.shapes_streams import LookupSource, StorySource, TalkSource, ToldSource
from openjanus.train.language import LanguageSettings, LanguageTask
from openjanus.train.recipe import Recipe


def task(recipe: Recipe) -> LanguageTask:
    """In the template of janus-tiny; that of janusflow-tiny differs in the names of the roles."""
    seed = recipe.seed
    told, lookups = (ToldSource(seed), ToldSource(seed + 1), ToldSource(seed + 2)), (LookupSource(seed), LookupSource(seed + 1))
    source = InTurn((*told, *lookups, InTurn((TalkSource(seed), StorySource(seed)))))
    processor = tiny_world.processor(tiny_janus.ROLES, tiny_janus.CONFIG.understanding.slots, begin=False)
    return LanguageTask(recipe, processor, tiny_janus.CONFIG.generation, source)


RECIPE = Recipe(
    name="tiny_language",
    task=task,
    settings=LanguageSettings(tiny_world.LANGUAGE, context=512),
    seed=1,
    save_every=200,
    preview_every=200,
    stages=(replace(tiny_world.BASE, name="text", steps=2000, mix={}, schedule="cosine", floor=0.1),),
)
