"""What the papers' recipes are told beside their stages, and which of their stages paint the categories."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.train.overrides import override
from openjanus.train.recipe_files import load_recipe
from train.unified_toy import PAPERS, RECIPES

JANUS_1B = {
    "stages": PAPERS.JANUS,
    "init": ("deepseek-ai/Janus-1.3B",),
    "fresh": PAPERS.FRESH,
    "context": 4096,  # Janus-Pro, Table 1; JanusFlow, section 4.1
    # "On the text sequence" in stages 1 and 2 (Janus, section 3.3); on responses alone in JanusFlow (equation 6).
    "supervise_prompts": ("adapt", "names", "pretrain"),
    "guidance_dropout": 0.1,  # Janus, footnote 2; JanusFlow, section 3.4
    "first_sentence": 0.25,  # Janus and JanusFlow, section 4.2
    "text_weight": 1.0,  # Janus, section 3.3: no weights
    "time_earlier": 0.0,  # JanusFlow, section 3.3, after SD3
    "alignment": False,
    "alignment_block": 6,  # JanusFlow, sections 3.4 and 4.1, as the weight
    "alignment_weight": 1.0,
    "category_stages": ("adapt", "names"),  # Janus, section 4.2; of Janus-Pro's stages the first alone (section 2.2)
}
JANUS_PRO_1B = JANUS_1B | {
    "stages": PAPERS.JANUS_PRO_1B,
    "init": ("deepseek-ai/Janus-Pro-1B",),
    "supervise_prompts": ("adapt", "pretrain"),
    "category_stages": ("adapt",),
}
SETTINGS = {
    "janus_1b": JANUS_1B,
    "janus_pro_1b": JANUS_PRO_1B,
    "janus_pro_7b": JANUS_PRO_1B | {"stages": PAPERS.JANUS_PRO_7B, "init": ("deepseek-ai/Janus-Pro-7B",)},
    "janusflow_1b": JANUS_1B
    | {
        "stages": PAPERS.JANUSFLOW,
        "init": ("deepseek-ai/JanusFlow-1.3B",),
        "fresh": PAPERS.FRESH_FLOW,
        "supervise_prompts": (),
        "alignment": True,
        "category_stages": (),
    },
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_recipes_are_told_what_the_papers_say(name: str):
    recipe = load_recipe(str(RECIPES / f"{name}.py"))
    found = vars(recipe.settings) | {"stages": recipe.stages}
    assert {key: found[key] for key in SETTINGS[name]} == SETTINGS[name]


def records(folder: Path) -> list[str]:
    """Three records of each kind, as settings: the pictures of categories are black, those of other texts white."""
    shades = {"text": None, "understanding": 128, "generation": 255, "categories": 0}
    for kind, shade in shades.items():
        record: dict[str, object] = {"text": "A number."}
        if shade is not None:
            Image.fromarray(np.full((20, 24, 3), shade, dtype=np.uint8)).save(folder / f"{kind}.png")
            turns = ["What?", [{"type": "image", "image": f"{kind}.png"}]]
            user, assistant = reversed(turns) if kind == "understanding" else turns
            record = {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}
        (folder / f"{kind}.jsonl").write_text("\n".join([json.dumps(record)] * 3), encoding="utf-8")
    return [f"settings.data.{kind}={folder / f'{kind}.jsonl'}" for kind in shades]


@pytest.mark.parametrize("name", SETTINGS)
def test_the_stages_of_the_categories_paint_them_and_no_others_do(name: str, tmp_path: Path):
    variant = "janusflow" if name == "janusflow_1b" else "janus"
    save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), tmp_path / "init")
    papers = load_recipe(str(RECIPES / f"{name}.py"))
    short = replace(papers, stages=tuple(replace(stage, steps=2, batch=10) for stage in papers.stages))
    told = [
        f"settings.init={tmp_path / 'init'}",
        "settings.context=256",
        "settings.alignment_width=16",
        "settings.alignment_block=2",
        *records(tmp_path),
    ]
    recipe = override(short, told)
    task = recipe.task(recipe)
    for stage in recipe.stages:
        batches = [batch for step in range(stage.steps) for batch in task.batches(stage, step, 0, 1)]
        shades = {shade for batch in batches for shade in batch.content.pictures.unique().tolist()}
        assert shades == ({-1.0} if stage.name in SETTINGS[name]["category_stages"] else {1.0}), stage.name
