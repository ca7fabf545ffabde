"""Runs that begin with parts of other projects: what is drawn, what is kept, what is asked for."""

from pathlib import Path

import pytest
import torch

from foreign_parts import llama, llamagen, siglip
from openjanus.config import VAEConfig
from openjanus.errors import CheckpointError
from openjanus.janus import load
from openjanus.models.vae import AutoencoderKL
from openjanus.train.estimate import estimate
from openjanus.train.overrides import override
from openjanus.train.part_files import save_vae
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe

from .on_disk import checkpoint, records
from .running import curve, run

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
VAE = VAEConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    """One of each, in folders of their own."""
    llama(tmp_path / "llama")
    siglip(tmp_path / "siglip")
    llamagen(tmp_path / "vq.pt")
    save_vae(tmp_path / "flow", AutoencoderKL(VAE).state_dict(), VAE)
    checkpoint("janusflow", tmp_path / "janusflow")
    names = {"language": "llama", "tower": "siglip", "codes": "vq.pt", "vae": "flow", "janusflow": "janusflow"}
    return names | {"folder": str(tmp_path)}


def paper(name: str, parts: dict[str, str], kinds: tuple[str, ...], *more: str) -> Recipe:
    """A paper's recipe from parts, with two steps of its first stage and of its last one."""
    folder = Path(parts["folder"])
    files = records(folder / "records")
    init = ",".join(str(folder / parts[kind]) for kind in kinds)
    recipe = load_recipe(str(RECIPES / f"{name}.py"))
    stages = tuple(stage for stage in recipe.stages if stage.name in ("adapt", "tune"))
    known = {stage.name for stage in stages}
    told = [f"settings.data.{kind}={path}" for kind, path in files.items() if kind != "editing"]
    told += [f"settings.data.categories={files['generation']}", f"settings.init={init}", "settings.context=512"]
    told += ["stages.steps=2", "stages.batch=10", "stages.warmup=0", "stages.checkpointing=false", "stages.precision=float32"]
    for key in ("category_stages", "supervise_prompts"):
        told.append(f"settings.{key}={','.join(known & set(getattr(recipe.settings, key)))}")
    told += ["settings.alignment_block=1", "settings.alignment_width=16"]
    return override(Recipe(recipe.name, recipe.task, stages, recipe.settings, save_every=100), [*told, *more])


@pytest.mark.parametrize(
    ("name", "kinds", "size"),
    [("janus_pro_1b", ("language", "tower", "codes"), 32), ("janusflow_1b", ("janusflow", "language", "tower", "vae"), 16)],
)
def test_a_new_janus_is_put_together_and_trained(
    name: str, kinds: tuple[str, ...], size: int, parts: dict[str, str], tmp_path: Path
):
    recipe = paper(name, parts, kinds)
    result = run(tmp_path / "run", recipe=recipe)
    assert [line["stage"] for line in curve(tmp_path / "run")] == ["adapt", "adapt", "tune", "tune"]
    assert result.final is not None
    janus = load(result.final)
    assert janus.understand("What?", images=[tmp_path / "records" / "0.png"], max_tokens=3) is not None
    assert janus.generate("noise", seed=0, steps=1)[0].size == (size, size)
    assert janus.processor.tokenizer.bos_tag == "<s>"
    # What no paper trains is still what the part was.
    after = janus.model.generation.state_dict()
    frozen = {"codes": "tokenizer.encoder.conv_in.weight", "vae": "vae.encoder.conv_in.weight"}[kinds[-1]]
    begun = recipe.task(recipe).module.generation.state_dict()  # type: ignore[union-attr,operator]
    assert torch.equal(after[frozen], begun[frozen])


def test_what_no_part_has_must_be_named_as_fresh(parts: dict[str, str]):
    recipe = paper("janus_1b", parts, ("language", "tower", "codes"), "settings.fresh=generation.head,understanding.adaptor")
    with pytest.raises(
        CheckpointError,
        match=r"vq\.pt has no generation\.\S+; let it begin with random weights: "
        r"settings\.fresh=generation\.head,understanding\.adaptor,generation\.adaptor,generation\.embed$",
    ):
        recipe.task(recipe)


def test_an_adaptor_for_another_width_must_begin_anew(parts: dict[str, str], tmp_path: Path):
    parts |= {"init": "init", "wide": "wide"}
    checkpoint("janus", tmp_path / "init")
    siglip(tmp_path / "wide", hidden_size=28)
    recipe = paper("janus_1b", parts, ("init", "wide"), "settings.fresh=")
    with pytest.raises(
        CheckpointError,
        match=r"has understanding\.adaptor\.\S+ in another size than the parts beside it ask for; let it begin with random "
        r"weights: settings\.fresh=understanding\.adaptor$",
    ):
        recipe.task(recipe)
    recipe = override(recipe, ["settings.fresh=understanding.adaptor"])
    task = recipe.task(recipe)
    assert task.module.understanding.adaptor.layers[0].in_features == 28  # type: ignore[union-attr,index]
    kept = load(str(tmp_path / "init")).model.state_dict()["generation.head.vision_head.weight"]
    assert torch.equal(task.module.state_dict()["generation.head.vision_head.weight"], kept)


def test_the_plan_of_a_run_from_parts_counts_its_parameters(parts: dict[str, str]):
    recipe = paper("janus_1b", parts, ("language", "tower", "codes"))
    module = recipe.task(recipe).module
    (need, *_) = estimate(recipe, 1, 80, 312).stages
    assert need.parameters == sum(parameter.numel() for parameter in module.parameters())
