"""What `--plan` estimates, against what small models really hold, and by hand at the published sizes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from openjanus.checkpoints.assembly import assemble
from openjanus.checkpoints.save import save_checkpoint
from openjanus.cli import main
from openjanus.config import PRESETS, LanguageConfig
from openjanus.data.samples import KINDS
from openjanus.errors import ConfigError
from openjanus.models.janus import JanusModel
from openjanus.train import estimate as estimates
from openjanus.train.estimate import estimate
from openjanus.train.learner import Learner
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from tiny import tiny_model, tiny_processor

from .on_disk import checkpoint, records
from .peak import peak
from .running import ALONE

SEVEN = PRESETS["janus-pro-7b"]
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def wide_checkpoint(variant: str, folder: Path) -> str:
    """A checkpoint whose language model is large enough to be what a step is made of."""
    config = tiny_model(variant).config
    language = replace(config.language, num_hidden_layers=6, max_position_embeddings=512)
    save_checkpoint(JanusModel(replace(config, language=language)), tiny_processor(variant), folder)
    return str(folder)


def recipe(name: str, init: str, data: Path, *more: str) -> Recipe:
    files = records(data, count=12)
    own = [f"settings.data.understanding={files['understanding']}", f"settings.init={init}", "settings.held_out=0"]
    plain = ["stages.tune.precision=float32", "settings.base=float32", "stages.tune.batch=4", "stages.tune.micro_batch=4"]
    return override(load_recipe(str(RECIPES / f"{name}.py")), [*own, *plain, *more])


@pytest.mark.parametrize("name", ["finetune_full", "finetune_lora"])
def test_parameters_and_optimizer_are_those_of_the_run(name: str, variant: str, tmp_path: Path):
    made = recipe(name, checkpoint(variant, tmp_path / "init"), tmp_path / "data", "stages.tune.ema=0.9")
    (need,) = estimate(made, 1, 80, 312).stages
    learner = Learner(made, made.stages[0], ALONE)
    moving = sum(size for size, _ in learner.sizes.values())
    assert need.moving == moving and need.parameters == sum(size for _, size in learner.sizes.values())
    # Scalars that count steps aside.
    held = [tensor.numel() for key, tensor in learner.tensors().items() if not key.startswith("module.") and tensor.dim()]
    assert need.optimizer == 4 * sum(held) and need.gradients == 4 * moving
    (shared,) = estimate(made, 4, 80, 312).stages
    assert shared.optimizer == need.optimizer // 4 and shared.whole > need.whole
    (copied,) = estimate(made, 4, 80, 312, shards=2).stages
    assert copied.optimizer == need.optimizer // 2 and copied.weights == need.weights // 2 and copied.seconds == shared.seconds


@pytest.mark.parametrize("more", [(), ("stages.tune.precision=bfloat16", "settings.base=bfloat16")], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", ["no", "yes"])
@pytest.mark.parametrize(
    ("name", "kind", "frozen"),
    [
        ("finetune_full", "understanding", "understanding.encoder"),
        ("finetune_full", "understanding", ""),
        ("finetune_full", "generation", "understanding.encoder"),
        ("finetune_lora", "understanding", ""),
        ("finetune_lora", "generation", ""),
    ],
)
def test_the_memory_of_a_step_is_near_what_was_estimated(
    name: str,
    kind: str,
    frozen: str,
    checkpointing: str,
    more: tuple[str, ...],
    variant: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    data = [f"settings.data.{one}={tmp_path / 'data' / f'{one}.jsonl' if one == kind else ''}" for one in KINDS]
    sizes = ["settings.context=512", "stages.tune.batch=16", "stages.tune.micro_batch=16", f"stages.tune.frozen={frozen}"]
    given = [*data, *sizes, f"stages.tune.checkpointing={checkpointing}", *more]
    made = recipe(name, wide_checkpoint(variant, tmp_path / "init"), tmp_path / "data", *given)
    learner = Learner(made, made.stages[0], ALONE)
    (batch,) = learner.task.batches(made.stages[0], 0, 0, 1)
    learner.learn(0, [batch])  # from now on the optimizer has its moments
    module = learner.task.module
    held = [*module.parameters(), *module.buffers(), *learner.tensors().values()]
    most = peak(lambda: learner.learn(1, [batch]), held)
    # The estimate does not know the records; here they are as long as these.
    monkeypatch.setattr(estimates, "_tokens", lambda config: {kind: batch.tokens // 16})
    monkeypatch.setattr(estimates, "ANSWER", batch.counts["text"] // 16)
    (need,) = estimate(made, 1, 80, 312).stages
    assert need.total == pytest.approx(most, rel=0.15)


def test_seven_billion_by_hand(monkeypatch: pytest.MonkeyPatch):
    begun = replace(assemble(("janus-tiny",), weights=False), config=SEVEN)
    monkeypatch.setattr(estimates, "assemble", lambda init, weights: begun)
    monkeypatch.setattr(estimates, "kept_by_a_block", lambda config, half, rank: (30.0 * 4096, 4.0 * 4096))
    full, lora = (estimate(load_recipe(str(RECIPES / f"finetune_{name}.py")), 8, 80, 312).stages[0] for name in ("full", "lora"))
    assert 7.3e9 < full.parameters < 7.6e9
    # float32 weights, gradients and AdamW: sixteen bytes a parameter, over eight GPUs.
    assert full.weights + full.gradients + full.optimizer == pytest.approx(16 * full.moving / 8, rel=0.1)
    assert lora.weights == pytest.approx((2 * 6.9e9 + 4 * 0.6e9) / 8, rel=0.1) and lora.moving < 0.03 * lora.parameters
    language: LanguageConfig = SEVEN.language
    matrices = 32 * language.num_hidden_layers * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert lora.moving > matrices
    # Six products a parameter and token, and two more where blocks run twice.
    assert lora.seconds < full.seconds < 2 * lora.seconds


def test_the_command_prints_it_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    command = ["train", str(RECIPES / "finetune_lora.py"), "settings.init=janus-tiny", "--plan", "--gpus", "2", "--memory"]
    assert main([*command, "80"]) == 0
    assert "on 2 GPUs of 80 GiB" in (said := capsys.readouterr().out) and "GiB, fits" in said
    assert main([*command, "0.11", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["fits"] is (stage["total"] <= 0.9 * 0.11 * 2**30)
    assert main([*command, "0"]) == 2 and "--memory is 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["train", "tiny_janus", "--plan"]) == 2
    assert "--dry-run measures any recipe" in capsys.readouterr().err


def test_a_recipe_without_a_checkpoint_is_told_what_measures_it():
    with pytest.raises(ConfigError, match="--plan counts recipes that start from a checkpoint"):
        estimate(override(load_recipe(str(RECIPES / "finetune_lora.py")), ["settings.init="]), 1, 80, 312)
