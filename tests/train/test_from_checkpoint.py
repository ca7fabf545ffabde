"""The papers' recipe files, run on a small checkpoint and records on disk."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.data.order import shuffled
from openjanus.errors import CheckpointError, ConfigError, DataError
from openjanus.janus import load
from openjanus.train.folder import states
from openjanus.train.overrides import override
from openjanus.train.part_files import save_part
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.state import read_place

from .running import curve, run

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
VARIANTS = {"janus_1b": "janus", "janus_pro_1b": "janus", "janus_pro_7b": "janus", "janusflow_1b": "janusflow"}


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Ten records of each kind, as settings."""
    chance = np.random.default_rng(0)
    kinds: dict[str, list[object]] = {"text": [], "understanding": [], "generation": [], "categories": []}
    for i in range(10):
        Image.fromarray(chance.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        shown = [{"type": "image", "image": f"{i}.png"}]
        kinds["text"].append({"text": f"Number {i}."})
        for kind, user, assistant in (
            ("understanding", [*shown, {"type": "text", "text": "What?"}], "Noise."),
            ("generation", f"noise {i}. A lot of it.", shown),
            ("categories", f"noise {i}", shown),
        ):
            kinds[kind].append({"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]})
    for kind, records in kinds.items():
        (tmp_path / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return {f"settings.data.{kind}": str(tmp_path / f"{kind}.jsonl") for kind in kinds}


def checkpoint(variant: str, folder: Path) -> str:
    model = tiny.tiny_model(variant)
    if variant == "janusflow":
        # As many picture positions as patches, as published: 4 x 4.
        torch.manual_seed(0)
        model = type(model)(replace(model.config, generation=replace(model.config.generation, latent_size=(8, 8))))  # type: ignore[arg-type]
    save_checkpoint(model, tiny.tiny_processor(variant), folder)
    return str(folder)


def shrunk(name: str, init: str, data: dict[str, str], *more: str) -> Recipe:
    """A paper's recipe at the size of a test: the small checkpoint, one step a stage of ten samples."""
    recipe = load_recipe(str(RECIPES / f"{name}.py"))
    # Stage by stage, so that the ratios stay the papers'; of JanusFlow's 14 : 6 : 80 ten samples can be 2 : 1 : 7.
    stages = tuple(
        replace(stage, steps=1, batch=10, warmup=0, checkpointing=False, precision="float32") for stage in recipe.stages
    )
    small = ["settings.context=256", "settings.alignment_block=1", "settings.alignment_width=16", f"settings.init={init}"]
    return override(replace(recipe, stages=stages), [*small, *(f"{key}={value}" for key, value in data.items()), *more])


@pytest.mark.parametrize("name", VARIANTS)
def test_a_papers_recipe_runs_through_all_its_stages_on_records(name: str, tmp_path: Path, data: dict[str, str]):
    init = checkpoint(VARIANTS[name], tmp_path / "init")
    recipe = shrunk(name, init, data)
    result = run(tmp_path / "run", recipe=recipe)
    assert [line["stage"] for line in curve(tmp_path / "run")] == [stage.name for stage in recipe.stages]
    assert result.final is not None
    janus = load(result.final)
    assert janus.understand("What?", images=[tmp_path / "0.png"], max_tokens=3) is not None
    # What no paper trains is what the checkpoint had; what begins anew is not.
    before, after = load(init).model.state_dict(), janus.model.state_dict()
    fixed = "generation.vae" if VARIANTS[name] == "janusflow" else "generation.tokenizer"
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items() if key.startswith(fixed))
    adaptor = [name for name in before if name.startswith("understanding.adaptor") and name.endswith("weight")]
    assert adaptor and not any(torch.equal(before[name], after[name]) for name in adaptor)


def test_fresh_parts_are_drawn_anew_and_codes_begin_as_their_codebook(tmp_path: Path, data: dict[str, str]):
    init = checkpoint("janus", tmp_path / "init")
    torch.manual_seed(1)  # the checkpoint's weights are what 0 draws
    task = (recipe := shrunk("janus_1b", init, data)).task(recipe)
    assert task.records().keys() == {"text", "understanding", "generation", "categories"}
    before, now = load(init).model.state_dict(), task.module.state_dict()
    assert torch.equal(now["language.lm_head.weight"], before["language.lm_head.weight"])
    assert not torch.equal(now["generation.head.vision_head.weight"], before["generation.head.vision_head.weight"])
    assert torch.equal(now["generation.embed.weight"], before["generation.tokenizer.quantize.embedding.weight"])
    everything = shrunk("janus_1b", init, data, "settings.fresh=language,understanding,generation")
    drawn = everything.task(everything).module.state_dict()
    assert not any(torch.equal(drawn[name], tensor) for name, tensor in before.items() if name.endswith("proj.weight"))


def test_a_part_trained_apart_takes_the_place_of_the_checkpoints(tmp_path: Path, data: dict[str, str]):
    init = checkpoint("janus", tmp_path / "init")
    model, tower_config = copy.deepcopy(tiny.tiny_model("janus")), tiny.CONFIGS["janus"].understanding.encoder
    tower = model.understanding.encoder
    with torch.no_grad():
        tower.vision_tower.pos_embed.fill_(3.0)
    save_part(tmp_path / "other", "understanding.encoder.", tower.state_dict(), {"params": asdict(tower_config)})
    recipe = shrunk("janus_1b", f"{init},{tmp_path / 'other'}", data)
    assert bool((recipe.task(recipe).module.state_dict()["understanding.encoder.vision_tower.pos_embed"] == 3).all())
    # Nor does "fresh" reach what was trained apart.
    recipe = override(recipe, ["settings.fresh=understanding,generation"])
    assert bool((recipe.task(recipe).module.state_dict()["understanding.encoder.vision_tower.pos_embed"] == 3).all())
    flow = checkpoint("janusflow", tmp_path / "flow")
    recipe = shrunk("janus_1b", f"{init},{flow}", data)
    with pytest.raises(CheckpointError, match=r"init and .*flow are both a whole Janus; begin with one of them"):
        recipe.task(recipe)
    recipe = shrunk("janus_1b", f"{init},{flow}/vae", data)
    with pytest.raises(CheckpointError, match=r"init paints with codes, and .*vae is a VAE; leave it out"):
        recipe.task(recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("settings.init=", "settings.init names no checkpoint"),
        ("settings.data.text=", "the stages mix text, but settings.data.text names no files"),
        ("settings.data.categories=", r"settings\.data\.categories names no files"),
        ("settings.fresh=langage", "settings.fresh names 'langage'"),
    ],
)
def test_what_is_missing_is_asked_for(tmp_path: Path, data: dict[str, str], change: str, message: str):
    recipe = shrunk("janus_1b", checkpoint("janus", tmp_path / "init"), data, change)
    with pytest.raises(ConfigError, match=message):
        recipe.task(recipe)


def test_a_broken_record_stops_the_run_and_keeps_what_was_saved(tmp_path: Path, data: dict[str, str]):
    path = Path(data["settings.data.text"])
    path.write_text('{"text": "fine"}\n{"text"\n', encoding="utf-8")
    recipe = shrunk("janus_1b", checkpoint("janus", tmp_path / "init"), data, "stages.names.steps=4", "save_every=1")
    with pytest.raises(DataError, match=r"text\.jsonl, line 2: .*; mend it or take it out"):
        run(tmp_path / "run", recipe=recipe)
    assert kept(tmp_path / "run") == len(curve(tmp_path / "run")) >= 1


def kept(folder: Path) -> int:
    """The step of the newest state that is whole."""
    return read_place(states(folder / "state")[0]).step


def spoil(path: Path, record: Callable[[dict[str, Any]], None]) -> int:
    """Change the record that the second step comes to last; its number."""
    lines = path.read_text(encoding="utf-8").splitlines()
    # Ten records, of which a step of the first stage takes five.
    place = shuffled(9, 10, (0, 0))
    values = json.loads(lines[place])
    record(values)
    lines[place] = json.dumps(values)
    path.write_text("\n".join(lines), encoding="utf-8")
    return place + 1


@pytest.mark.parametrize(("fault", "words"), [("missing", "there is no image at"), ("cut off", "is truncated or damaged")])
@pytest.mark.parametrize("kind", ["understanding", "categories"])
def test_a_picture_that_cannot_be_read_is_named_with_its_record(
    tmp_path: Path, data: dict[str, str], kind: str, fault: str, words: str
):
    picture, speaker = tmp_path / "bad.png", 0 if kind == "understanding" else 1
    if fault == "cut off":
        picture.write_bytes((tmp_path / "0.png").read_bytes()[:200])

    def point_at_it(record: dict[str, Any]) -> None:
        record["messages"][speaker]["content"][0]["image"] = "bad.png"

    number = spoil(Path(data[f"settings.data.{kind}"]), point_at_it)
    recipe = shrunk("janus_1b", checkpoint("janus", tmp_path / "init"), data, "stages.adapt.steps=3", "save_every=1")
    with pytest.raises(DataError, match=rf"{kind}\.jsonl, line {number}: .*{words}") as told:
        run(tmp_path / "run", recipe=recipe)
    assert "bad.png" in str(told.value) and "; mend it or take it out. The last state is that of step 1, in" in str(told.value)
    assert kept(tmp_path / "run") == 1
    (tmp_path / "bad.png").write_bytes((tmp_path / "0.png").read_bytes())
    assert run(tmp_path / "run", recipe=recipe).final is not None


def test_a_sample_that_fits_no_row_is_named_and_the_run_goes_on_when_it_is_shorter(tmp_path: Path, data: dict[str, str]):
    path = Path(data["settings.data.understanding"])
    whole = path.read_text(encoding="utf-8")
    number = spoil(path, lambda record: record["messages"][1].update(content="Noise. " * 300))
    recipe = shrunk("janus_1b", checkpoint("janus", tmp_path / "init"), data, "stages.adapt.steps=3", "save_every=1")
    told = rf"understanding\.jsonl, line {number}: it has \d+ tokens, and a row holds settings\.context=256; shorten it or"
    with pytest.raises(DataError, match=told):
        run(tmp_path / "run", recipe=recipe)
    assert kept(tmp_path / "run") == 1
    path.write_text(whole, encoding="utf-8")
    assert run(tmp_path / "run", recipe=recipe).final is not None


@pytest.mark.parametrize("key", ["supervise_prompts", "category_stages"])
def test_a_stage_that_is_none_is_refused_before_anything_is_built(tmp_path: Path, data: dict[str, str], key: str):
    def asking(names: str, init: str = "nowhere") -> Recipe:
        return shrunk("janus_1b", init, data, f"settings.{key}={names}")

    recipe = asking("names,adpat")
    with pytest.raises(
        ConfigError, match=rf"settings\.{key} names 'adpat', which is no stage of the recipe janus_1b; did you mean adapt\?"
    ):
        recipe.task(recipe)
    recipe = asking("zzz")
    with pytest.raises(ConfigError, match="there are adapt, names, pretrain, tune"):
        run(tmp_path / "run", recipe=recipe)
    # A slip of the first try does not cost the folder.
    assert run(tmp_path / "run", recipe=asking("adapt", checkpoint("janus", tmp_path / "init"))).final is not None
