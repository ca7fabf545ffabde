"""The fine-tuning recipes on small checkpoints and records on disk: mixing, replay, validation, warnings."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjanus.data.records import Records
from openjanus.errors import ConfigError, DataError, TrainingError
from openjanus.janus import load
from openjanus.train.finetune import REPLAY
from openjanus.train.overrides import override
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.stage import Stage
from openjanus.train.unified import UnifiedTask

from .on_disk import checkpoint, records
from .running import Notes, curve, run

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
NAMES = ("finetune_full", "finetune_lora")
SMALL = (
    *("stages.tune.steps=4", "stages.tune.batch=8", "stages.tune.warmup=0", "stages.tune.rate=1e-2", "settings.context=256"),
    *("stages.tune.precision=float32", "settings.base=float32", "settings.saved=float32", "preview_every=0"),
)


def recipe(name: str, init: str, *more: str) -> Recipe:
    """A fine-tuning recipe at the size of a test."""
    return override(load_recipe(str(RECIPES / f"{name}.py")), [*SMALL, f"settings.init={init}", *more])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_learns_from_ones_own_records_with_replay(name: str, variant: str, tmp_path: Path):
    files = records(tmp_path / "data")
    own = f"settings.data.generation={files['generation']}"
    made = recipe(name, checkpoint(variant, tmp_path / "init"), own, f"settings.replay.understanding={files['understanding']}")
    notes = Notes()
    result = run(tmp_path / "run", recipe=made, notes=notes)
    assert result.final is not None and not any("may lose it" in note for note in notes.notes)
    before, after = (load(folder).model.state_dict() for folder in (tmp_path / "init", result.final))
    fixed = ("generation.vae", "generation.tokenizer", "understanding.encoder")
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items() if key.startswith(fixed))
    assert not torch.equal(
        before["language.model.layers.0.mlp.up_proj.weight"], after["language.model.layers.0.mlp.up_proj.weight"]
    )
    assert (result.final / "adapter" / "adapter_config.json").exists() == (name == "finetune_lora")
    # Words are learned from replay, pictures from one's own records: both losses are there at every step.
    assert all({"text", "image"} <= line["losses"].keys() for line in curve(tmp_path / "run"))


def task_of(made: Recipe) -> UnifiedTask:
    task = made.task(made)
    assert isinstance(task, UnifiedTask)
    return task


def taken(task: UnifiedTask, stage: Stage) -> Counter[str]:
    """How many samples of each kind and key the first steps hold."""
    places = [place for step in range(4) for place in task._mixtures[stage.name].places(step)]
    return Counter(f"{key}: {task.sources[key][k].kind}" for key, k in places)


def test_the_mix_is_exact_and_kinds_without_files_drop_out(tmp_path: Path):
    files, init = records(tmp_path / "data"), checkpoint("janus", tmp_path / "init")
    own = f"settings.data.generation={files['generation']}"
    replay = [f"settings.replay.{kind}={files[kind]}" for kind in ("text", "understanding")]
    made = recipe("finetune_full", init, own, *replay)
    stage = made.stages[0]
    assert taken(task_of(made), stage) == {"generation: generation": 24, f"{REPLAY}: text": 4, f"{REPLAY}: understanding": 4}
    half = override(made, ["stages.tune.mix.replay=3"])
    assert taken(task_of(half), stage)["generation: generation"] == 16
    alone = recipe("finetune_full", init, own)
    assert taken(task_of(alone), stage) == {"generation: generation": 32}


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (("generation",), ["no records teach reading images"]),
        (("understanding", "text"), ["no records teach painting"]),
        (("text",), ["no records teach reading images", "no records teach painting"]),
        (("generation", "understanding"), []),
        # A kind of which the mix takes nothing teaches nothing.
        (("generation", "understanding", "no understanding"), ["no records teach reading images"]),
    ],
)
def test_whoever_trains_one_direction_alone_is_warned(tmp_path: Path, own: tuple[str, ...], words: list[str]):
    files = records(tmp_path / "data")
    said = [f"stages.tune.mix.{kind[3:]}=0" if kind.startswith("no ") else f"settings.data.{kind}={files[kind]}" for kind in own]
    made = recipe("finetune_full", checkpoint("janus", tmp_path / "init"), *said)
    notes = Notes()
    run(tmp_path / "run", recipe=override(made, ["stages.tune.steps=1"]), notes=notes)
    warned = [note for note in notes.notes if "may lose it" in note]
    assert len(warned) == len(words) and all(note.startswith(word) for note, word in zip(warned, words, strict=True))


def test_without_records_of_ones_own_there_is_nothing_to_do(tmp_path: Path):
    files, init = records(tmp_path / "data"), checkpoint("janus", tmp_path / "init")
    made = recipe("finetune_lora", init, f"settings.replay.text={files['text']}")
    with pytest.raises(ConfigError, match=r"no records to learn from: set settings\.data\.KIND \(text, understanding"):
        made.task(made)
    none = recipe("finetune_lora", init, f"settings.data.text={files['text']}", "stages.tune.mix.text=0")
    with pytest.raises(ConfigError, match=r"stages\.tune\.mix leaves nothing of text; set stages\.tune\.mix\.text=1"):
        none.task(none)


def test_held_out_records_are_measured_and_never_learned_from(variant: str, tmp_path: Path):
    files = records(tmp_path / "data", count=40)
    own = [f"settings.data.{kind}={files[kind]}" for kind in ("generation", "understanding")]
    every = ("validate_every=2", "settings.held_out=3", "stages.tune.micro_batch=2")
    made = recipe("finetune_full", checkpoint(variant, tmp_path / "init"), *own, *every)
    notes = Notes()
    run(tmp_path / "run", recipe=made, notes=notes)
    lines = curve(tmp_path / "run")
    assert [sorted(line["metrics"]) for line in lines] == [
        *([], ["validation/generation/image", "validation/understanding/text"]) * 2
    ]
    assert any(note.startswith("held out, after step 2: ") for note in notes.notes)
    # With and without validation the same curve.
    run(tmp_path / "without", recipe=replace(made, validate_every=0))
    assert [line["losses"] for line in curve(tmp_path / "without")] == [line["losses"] for line in lines]
    # What is measured is the mean over all codes or latents of the held-out records, as the model that was saved sees them.
    task = task_of(recipe("finetune_full", str(tmp_path / "run" / "final"), *own, "settings.held_out=3"))
    task.module.eval()
    batches = task.validation(made.stages[0], 0, 1)["generation"]
    assert len(batches) == 2
    with torch.no_grad():
        total = sum(float(task.losses(batch.content)["image"].sum) for batch in batches)
    mean = total / sum(batch.counts["image"] for batch in batches)
    assert lines[-1]["metrics"]["validation/generation/image"] == pytest.approx(mean, rel=1e-4)


def test_held_out_records_stand_evenly_and_all_others_are_learned_once_a_pass(tmp_path: Path):
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"Number {i}."}) for i in range(50)), encoding="utf-8")
    held = Records("text", [path], held_out=4)
    kept = [sample.messages[0].text for sample in held.held_out]
    assert kept == ["Number 0.", "Number 12.", "Number 25.", "Number 37."]
    seen = [held[k].messages[0].text for k in range(len(held))]
    assert len(held) == len(set(seen)) == 46 and not set(seen) & set(kept)
    assert set(seen) | set(kept) == {f"Number {i}." for i in range(50)}
    # Of few records a tenth.
    assert len(Records("text", [path], held_out=40).held_out) == 5


def test_a_broken_record_that_is_held_out_stops_the_run_or_is_passed_over(tmp_path: Path):
    files = records(tmp_path / "data", count=30)
    path = Path(files["text"])
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(["{}", *lines[1:]]), encoding="utf-8")
    every = (f"settings.data.text={path}", "settings.held_out=3", "validate_every=1", "stages.tune.steps=1")
    made = recipe("finetune_full", checkpoint("janus", tmp_path / "init"), *every)
    with pytest.raises(DataError, match=r"text\.jsonl, line 1: "):
        run(tmp_path / "stopped", recipe=made)
    run(tmp_path / "skipped", recipe=override(made, ["settings.on_error=skip"]))
    (line,) = curve(tmp_path / "skipped")
    assert line["metrics"]["validation/text/text"] > 0


def poisoned(made: Recipe, word: str) -> Recipe:
    """The recipe with a model that knows no number for a word."""

    def task(resolved: Recipe) -> UnifiedTask:
        built = made.task(resolved)
        assert isinstance(built, UnifiedTask)
        with torch.no_grad():
            built.module.language.model.embed_tokens.weight[built.processor.tokenizer.encode(word)[-1]] = float("nan")
        return built

    return replace(made, task=task)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("text", "And 7?"), ("understanding", "What is 7?"), ("generation", "noise 7"), ("editing", "more noise 7")],
)
def test_a_record_whose_loss_is_no_number_stops_the_run_and_is_named(kind: str, said: str, tmp_path: Path):
    path = Path(records(tmp_path / "data")[kind])
    path.write_text(path.read_text(encoding="utf-8").replace(said, f"{said} ~"), encoding="utf-8")
    small = (f"settings.data.{kind}={path}", "settings.held_out=0", "settings.guidance_dropout=0")
    steps = ("stages.tune.batch=2", "stages.tune.steps=5", "save_every=1")
    made = poisoned(recipe("finetune_full", checkpoint("janus", tmp_path / "init"), *small, *steps), "~")
    two = r"the loss \w+ is nan; .* It came with (.*; .*) \(stages\.tune\.micro_batch=1 tells which\): look"
    with pytest.raises(TrainingError, match=two) as told:
        run(tmp_path / "run", recipe=made)
    assert f"{path}, line 8" in str(told.value)
    # The same command with a record at a time comes to the same step, and names the very record.
    with pytest.raises(TrainingError) as again:
        run(tmp_path / "run", recipe=override(made, ["stages.tune.micro_batch=1"]))
    assert f"It came with {path}, line 8: look at" in str(again.value)
    assert str(again.value).partition(":")[0] == str(told.value).partition(":")[0]
    assert not (tmp_path / "run" / "final").exists()


def test_the_record_that_stands_in_for_a_broken_one_is_the_one_that_is_named(tmp_path: Path):
    path = Path(records(tmp_path / "data")["text"])
    path.write_text("\n".join(["[]"] * 9 + [json.dumps({"text": "A number ~"})]), encoding="utf-8")
    small = (f"settings.data.text={path}", "settings.held_out=0", "settings.on_error=skip", "stages.tune.batch=1")
    made = poisoned(recipe("finetune_full", checkpoint("janus", tmp_path / "init"), *small), "~")
    with pytest.raises(TrainingError, match=r"It came with .*text\.jsonl, line 10: look"):
        run(tmp_path / "run", recipe=made)
