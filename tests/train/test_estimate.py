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
from openjanus.train.estimate import Need, estimate
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


def step_of(made: Recipe, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Bytes of a step of 16 samples: as estimated if samples of `kind` are as long as all of it, and as held at most."""
    learner = Learner(made, made.stages[0], ALONE)
    (batch,) = learner.task.batches(made.stages[0], 0, 0, 1)
    learner.learn(0, [batch])  # from now on the optimizer has its moments
    module = learner.task.module
    held = [*module.parameters(), *module.buffers(), *learner.tensors().values()]
    most = peak(lambda: learner.learn(1, [batch]), held)
    # The estimate does not know the records; here they are as long as these.
    for name in ("TEXT", "ANSWER"):
        monkeypatch.setattr(estimates, name, batch.counts["text"] // 16)
    monkeypatch.setattr(estimates, "WORDS", 0)
    config = assemble(made.settings.init, weights=False).config
    monkeypatch.setattr(estimates, "WORDS", batch.tokens // 16 - estimates._tokens(config)[kind])
    (need,) = estimate(made, 1, 80, 312).stages
    return need.total, most


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
    estimated, most = step_of(made, kind, monkeypatch)
    assert estimated == pytest.approx(most, rel=0.15)


@pytest.mark.parametrize(
    ("name", "kind"), [("finetune_full", "understanding"), ("finetune_lora", "generation"), ("finetune_lora", "editing")]
)
def test_so_it_is_if_the_longest_records_are_replayed(
    name: str, kind: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if kind == "editing" and variant == "janusflow":
        pytest.skip("it edits nothing")
    files = records(tmp_path / "data", count=12)
    data = ["settings.data.understanding=", f"settings.data.text={files['text']}", f"settings.replay.{kind}={files[kind]}"]
    # As near as a step with records of one's own comes to one of the longest alone.
    mix = ["stages.tune.mix.text=1", "stages.tune.mix.replay=15", "stages.tune.frozen="]
    sizes = ["settings.context=512", "stages.tune.batch=16", "stages.tune.micro_batch=16"]
    made = recipe(name, wide_checkpoint(variant, tmp_path / "init"), tmp_path / "data", *data, *mix, *sizes)
    estimated, most = step_of(made, kind, monkeypatch)
    assert estimated == pytest.approx(most, rel=0.15)


@pytest.mark.parametrize("name", ["finetune_full", "finetune_lora"])
@pytest.mark.parametrize("replayed", [*((kind,) for kind in KINDS), ("understanding", "editing"), KINDS])
def test_what_is_replayed_counts_as_the_same_kinds_of_ones_own(name: str, replayed: tuple[str, ...]):
    def need(*more: str) -> Need:
        given = ["settings.init=janus-tiny", "stages.tune.frozen=", "settings.data.text=mine.jsonl", *more]
        return estimate(override(load_recipe(str(RECIPES / f"{name}.py")), given), 1, 80, 312).stages[0]

    share = 12 // len(replayed)
    beside = need("stages.tune.mix.replay=12", *(f"settings.replay.{kind}=others.jsonl" for kind in replayed))
    own = [f"settings.data.{kind}=mine.jsonl" for kind in replayed]
    shares = [f"stages.tune.mix.{kind}={share + 3 * (kind == 'text')}" for kind in replayed]
    assert beside == need(*own, *shares)
    alone = need()
    assert (beside == alone) == (replayed == ("text",))
    assert need("stages.tune.mix.replay=0", *(f"settings.replay.{kind}=others.jsonl" for kind in replayed)) == alone


def sized(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let estimates be of a published size, with what a block keeps set instead of measured."""
    begun = replace(assemble(("janus-tiny",), weights=False), config=PRESETS[preset])
    monkeypatch.setattr(estimates, "assemble", lambda init, weights: begun)
    monkeypatch.setattr(estimates, "kept_by_a_block", lambda config, half, rank: (30.0 * 4096, 4.0 * 4096))


def test_replayed_pictures_beside_text_by_hand(monkeypatch: pytest.MonkeyPatch):
    sized("janus-pro-1b", monkeypatch)
    given = ["stages.tune.micro_batch=16", "settings.data.text=mine.jsonl", "settings.replay.editing=others.jsonl"]
    made = load_recipe(str(RECIPES / "finetune_lora.py"))
    alone, beside = (estimate(override(made, given[:count]), 1, 24, 312).stages[0] for count in (2, 3))
    # A picture that is read, its instruction, and two that are painted: 64 + 578 + 2 * 578 tokens, one sample of four.
    assert (alone.tokens, beside.tokens) == (16 * 256, 16 * 1798)
    assert beside.seconds == pytest.approx(alone.seconds * (3 * 256 + 1798) / (4 * 256))


def test_seven_billion_by_hand(monkeypatch: pytest.MonkeyPatch):
    sized("janus-pro-7b", monkeypatch)
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


def test_files_that_are_not_here_are_named_beside_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    here = records(tmp_path)["text"]
    files = [f"settings.data.text={here},{tmp_path}/mine.jsonl", "settings.replay.editing=others.tar"]
    command = ["train", str(RECIPES / "finetune_lora.py"), "settings.init=janus-tiny", *files, "--plan"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "GiB, fits" in said and said.count("note: ") == 2
    assert f"note: settings.data.text names {tmp_path}/mine.jsonl, which is not on this machine\n" in said
    assert "note: settings.replay.editing names others.tar, which is not on this machine\n" in said
    assert main([*command, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 2
    assert not estimate(recipe("finetune_lora", "janus-tiny", tmp_path), 1, 80, 312).notes


def test_a_recipe_without_a_checkpoint_is_told_what_measures_it():
    with pytest.raises(ConfigError, match="--plan counts recipes that start from a checkpoint"):
        estimate(override(load_recipe(str(RECIPES / "finetune_lora.py")), ["settings.init="]), 1, 80, 312)
