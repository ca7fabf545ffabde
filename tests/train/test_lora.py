"""LoRA in a unified run: what it moves, what it leaves alone, what comes out of it."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tiny
from openjanus.checkpoints.convert import convert_checkpoint
from openjanus.checkpoints.save import save_checkpoint
from openjanus.errors import CheckpointError, ConfigError
from openjanus.janus import load
from openjanus.models.janus import JanusModel
from openjanus.train.lora import LoRA, add_lora, take_out, whole_parts
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import Start, UnifiedSettings, UnifiedTask

from .running import curve, run
from .unified_toy import Pictures, Questions, Talk

STAGE = Stage("tune", steps=4, batch=6, rate=1e-2, mix={"understanding": 1, "text": 1, "generation": 1}, ema=0.5)


def recipe(variant: str, *changes: str) -> Recipe:
    """A short LoRA run on the small checkpoint of a variant."""

    def start() -> Start:
        sources: Any = {"text": Talk(), "understanding": Questions(), "generation": Pictures(rivals=False)}
        fixed = tuple(f"generation.{name}" for name in tiny.tiny_model(variant).generation.fixed)
        return Start(
            copy.deepcopy(tiny.tiny_model(variant)), tiny.tiny_processor(variant), sources, fixed=fixed, origin="the base"
        )

    settings = UnifiedSettings(context=256, lora=LoRA("both", rank=4, alpha=8))
    made = Recipe("lora", lambda recipe: UnifiedTask(recipe, recipe.settings, start), (STAGE,), settings, save_every=2)
    return override(made, changes)


@pytest.fixture
def base(variant: str, tmp_path: Path) -> Path:
    """The checkpoint that these runs start from."""
    save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), tmp_path / "base")
    return tmp_path / "base"


def with_lora(variant: str, lora: LoRA) -> JanusModel:
    """The small model with matrices that do something."""
    model = copy.deepcopy(tiny.tiny_model(variant))
    add_lora(model, lora)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    return model


def hidden(model: JanusModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, model.config.language.hidden_size, generator=generator)
    return model.language(x, torch.arange(9)[None].expand(2, 9))


@pytest.mark.parametrize("rslora", [False, True])
def test_merged_is_applied(variant: str, rslora: bool):
    lora = LoRA("both", rank=4, alpha=6, rslora=rslora)
    model = with_lora(variant, lora)
    plain = JanusModel(model.config)
    tensors, adapter = take_out(model.state_dict(), lora, plain)
    plain.load_state_dict(tensors)
    with torch.no_grad():
        applied, merged, before = hidden(model), hidden(plain), hidden(tiny.tiny_model(variant))
    torch.testing.assert_close(merged, applied, atol=1e-5, rtol=1e-5)
    assert (applied - before).abs().max() > 0.01
    assert len(adapter.low_rank) == 7 * model.config.language.num_hidden_layers


def test_a_run_moves_what_its_preset_names_and_no_other_bit(variant: str, base: Path, tmp_path: Path):
    result = run(tmp_path / "run", recipe=recipe(variant))
    assert result.final is not None
    before, after = load(base).model.state_dict(), load(result.final).model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    model = tiny.tiny_model(variant)
    whole = {name for name in before if name.startswith(tuple(f"{part}" for part in whole_parts(model, "both")))}
    matrices = {name for name in before if "layers" in name and name.startswith("language") and name.endswith("_proj.weight")}
    assert matrices <= changed <= matrices | whole
    # The codebook's users, the adaptors and the head all move, whatever layer they have.
    assert {name.rsplit(".", 1)[0] for name in whole - changed} <= {"generation.encoder.mid_block.attentions"}


def test_the_adapter_on_its_checkpoint_is_the_merged_result(variant: str, base: Path, tmp_path: Path):
    result = run(tmp_path / "run", recipe=recipe(variant))
    assert result.final is not None
    merged = load(result.final).model.state_dict()
    for other in (
        load(base, adapter=result.final / "adapter").model.state_dict(),
        load(_converted(base, tmp_path / "converted", result.final / "adapter")).model.state_dict(),
    ):
        for name, tensor in merged.items():
            torch.testing.assert_close(other[name], tensor, atol=1e-6, rtol=0)
    config = json.loads((result.final / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "the base" and config["peft_type"] == "LORA" and config["r"] == 4


def _converted(source: Path, target: Path, adapter: Path) -> Path:
    convert_checkpoint(source, target, adapter=adapter)
    return target


def test_states_hold_what_moves_and_a_run_goes_on_from_them_exactly(variant: str, tmp_path: Path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    run(straight, recipe=recipe(variant))
    run(resumed, recipe=recipe(variant, "stages.tune.steps=2"))
    run(resumed, recipe=recipe(variant))
    assert curve(resumed) == curve(straight)
    one, two = (load(folder / "final").model.state_dict() for folder in (straight, resumed))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    from torch.distributed.checkpoint import FileSystemReader

    kept = FileSystemReader(straight / "state" / "00000004").read_metadata().state_dict_metadata
    assert any(".lora_A." in name for name in kept) and not any(".base_layer." in name for name in kept)


def test_a_base_in_bfloat16_is_trained_previewed_and_exported(variant: str, tmp_path: Path):
    half = ("settings.base=bfloat16", "stages.tune.precision=bfloat16", "preview_every=2")
    made = recipe(variant, *half, "settings.preview_prompts=noise", "settings.preview_questions=What?")
    result = run(tmp_path / "run", recipe=made)
    assert result.final is not None and (tmp_path / "run" / "previews" / "00000004" / "0.png").exists()
    with safe_open(result.final / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float32}  # noqa: SIM118
    with pytest.raises(ConfigError, match=r"settings.base is bfloat16 and stages.tune.precision is float32"):
        run(tmp_path / "other", recipe=recipe(variant, "settings.base=bfloat16"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("settings.lora.rank=0", r"settings\.lora\.rank is 0; it must be 1 or more"),
        ("settings.lora.layers=w_proj", r"no linear layer of language ends in w_proj"),
    ],
)
def test_settings_that_make_no_lora_are_refused(tmp_path: Path, change: str, words: str):
    with pytest.raises(ConfigError, match=words):
        run(tmp_path / "run", recipe=recipe("janus", change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora is true, which is not plain LoRA"),
        ({"peft_type": "IA3"}, "of the kind 'IA3'; only LORA can be read"),
    ],
)
def test_an_adapter_that_is_no_plain_lora_is_refused(base: Path, tmp_path: Path, change: dict[str, Any], words: str):
    if "janusflow" in str(load(base).model.config):
        pytest.skip("the same for both variants")
    adapter = _trained(tmp_path)
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=words):
        load(base, adapter=adapter)


def _trained(tmp_path: Path) -> Path:
    made = recipe("janus", "stages.tune.steps=1")
    result = run(tmp_path / "run", recipe=replace(made, save_every=100))
    assert result.final is not None
    return result.final / "adapter"


def test_an_adapter_of_another_model_is_refused_by_name(tmp_path: Path):
    adapter = _trained(tmp_path)
    flow = tmp_path / "flow"
    save_checkpoint(tiny.tiny_model("janusflow"), tiny.tiny_processor("janusflow"), flow)
    with pytest.raises(
        CheckpointError, match=r"changes \d+ tensors that this model does not have \(first: .*trained on the base"
    ):
        load(flow, adapter=adapter)
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json, so it is no adapter"):
        load(flow, adapter=tmp_path)
    shutil.rmtree(flow)
