"""A run: its files, its stages, how it stops and goes on, and what it does when something is in its way."""

import errno
import json
import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from openjanus.errors import CheckpointError, ConfigError, ImageError, TrainingError
from openjanus.train import plan
from openjanus.train.folder import locked, states
from openjanus.train.recipe import Recipe
from openjanus.train.state import Place, Saver, load_state, read_place
from openjanus.train.stopping import Stopping

from .game import GAME
from .running import ALONE, Notes, curve, run, toy, weights

CHANCE = "settings.dropout=0.2"


def places(folder: Path) -> list[Place]:
    return [read_place(state) for state in states(folder / "state")]


def same(one: Path, other: Path) -> bool:
    """Whether two runs came to the same, to the last digit."""
    tensors = weights(other)
    return curve(one) == curve(other) and all(torch.equal(tensor, tensors[name]) for name, tensor in weights(one).items())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(folder, CHANCE)
    return folder


def test_a_run_goes_through_all_stages_and_leaves_its_files(straight: Path):
    lines = curve(straight)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert [line["stage"] for line in lines] == ["adapt"] * 10 + ["tune"] * 10
    assert [line["samples"] for line in lines] == [8 * step for step in range(1, 21)]
    assert lines[0].keys() >= {"loss", "losses", "gradient_norms", "rate", "metrics"}
    assert lines[-1]["metrics"] == {"seen": 20.0}
    assert json.loads((straight / "recipe.json").read_text())["stages"]["tune"]["ema"] == 0.9
    assert [place.step for place in places(straight)] == [20, 16]
    assert {path.name for path in straight.iterdir()} >= {"recipe.json", "metrics.jsonl", "state", "final"}
    assert not list(straight.rglob("*.partial"))


def test_the_first_stage_leaves_its_frozen_part_to_the_second(tmp_path: Path):
    run(tmp_path / "run", "stages.tune.steps=1", "stages.tune.ema=none")
    recipe = toy()
    torch.manual_seed(recipe.seed)
    fresh = recipe.task(recipe).module.state_dict()
    tensors = {"module.encoder.weight": torch.empty(8, 4)}
    load_state(states(tmp_path / "run" / "state")[1], tensors)
    assert torch.equal(tensors["module.encoder.weight"], fresh["encoder.weight"])
    assert not torch.equal(weights(tmp_path / "run")["encoder.weight"], fresh["encoder.weight"])


@pytest.mark.parametrize("at", [0, 3, 6, 9])
def test_ctrl_c_finishes_the_step_and_saves_and_the_run_goes_on_as_if_never_stopped(tmp_path: Path, straight: Path, at: int):
    folder = tmp_path / "run"
    stopped = run(folder, CHANCE, f"settings.interrupt_at={at}")
    assert (stopped.signal, stopped.final, stopped.step) == (signal.SIGINT, None, at + 1)
    assert places(folder)[0].step == at + 1
    _forget_interruption(folder)
    notes = Notes()
    assert run(folder, CHANCE, notes=notes).step == 20
    assert notes.notes == [f"going on from step {at + 1}, in stage adapt"]
    assert same(folder, straight)


def _forget_interruption(folder: Path) -> None:
    path = folder / "recipe.json"
    values = json.loads(path.read_text())
    values["settings"]["interrupt_at"] = None
    path.write_text(json.dumps(values))


def test_a_run_that_was_cut_off_between_states_writes_the_lines_after_its_state_again(tmp_path: Path, straight: Path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    shutil.rmtree(folder / "final")
    shutil.rmtree(folder / "state" / "00000020")
    # What a killed process may leave: a state half written, a line half written.
    shutil.copytree(folder / "state" / "00000016", folder / "state" / "00000020.partial")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "st')
    run(folder, CHANCE)
    assert same(folder, straight)
    assert [path.name for path in states(folder / "state")] == ["00000020", "00000016"]


def test_two_phases_and_their_optimizers_resume_exactly(tmp_path: Path):
    short = replace(GAME, stages=(replace(GAME.stages[0], steps=3),))
    run(tmp_path / "whole", recipe=GAME)
    run(tmp_path / "parts", recipe=short)
    run(tmp_path / "parts", recipe=GAME)
    assert same(tmp_path / "whole", tmp_path / "parts")


def test_batches_prepared_by_other_processes_are_the_same_batches(tmp_path: Path, straight: Path):
    run(tmp_path / "run", CHANCE, workers=2)
    assert same(tmp_path / "run", straight)


def test_a_stage_that_continues_is_the_stage_before_going_on(tmp_path: Path):
    def halves(first: int, second: int) -> Recipe:
        recipe = toy("stages.tune.schedule=constant")
        one = replace(recipe.stages[1], steps=first)
        # Names of one length draw the same data in this toy; the second begins where the first has ended.
        return replace(recipe, stages=(one, replace(one, name="next", steps=second, continues=True)))

    run(tmp_path / "run", recipe=halves(4, 1))
    tensors = {f"optimizer.model.number.bias.{key}": torch.zeros(()) for key in ("step",)}
    load_state(states(tmp_path / "run" / "state")[0], tensors)
    assert float(tensors["optimizer.model.number.bias.step"]) == 5


def test_a_finished_run_says_so_and_goes_on_when_its_last_stage_is_longer(tmp_path: Path):
    folder = tmp_path / "run"
    steady = "stages.tune.schedule=constant"
    run(folder, steady, "stages.tune.steps=5")
    notes = Notes()
    assert run(folder, steady, "stages.tune.steps=5", notes=notes).step == 15
    assert notes.notes == ["this run is finished; to go on, raise the steps of its last stage"]
    notes = Notes()
    assert run(folder, steady, notes=notes).step == 20
    assert notes.notes[0] == "changed since this run was last here: stages.tune.steps 5 -> 10"
    run(tmp_path / "whole", steady)
    assert same(folder, tmp_path / "whole")


def test_a_run_that_ended_before_its_export_exports(tmp_path: Path, straight: Path):
    shutil.copytree(straight, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    run(tmp_path / "run", CHANCE)
    assert same(tmp_path / "run", straight)


def test_a_folder_of_another_run_is_left_alone(tmp_path: Path, straight: Path):
    before = (straight / "recipe.json").read_text()
    with pytest.raises(ConfigError, match=r"holds another run: settings.label is 'toy' there and 'other' here"):
        run(straight, CHANCE, "settings.label=other")
    assert (straight / "recipe.json").read_text() == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty and holds no run"):
        run(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run(tmp_path / "notes.txt")


def test_settings_may_be_mended_as_long_as_no_state_was_saved(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"step 3: the loss number is nan.*No state was saved yet"):
        run(tmp_path / "run", "settings.poison_at=2")
    notes = Notes()
    assert run(tmp_path / "run", notes=notes).step == 20
    assert notes.notes == ["changed since this run was last here: settings.poison_at 2 -> None"]


def test_a_state_of_a_stage_that_the_recipe_has_lost_is_refused(tmp_path: Path, straight: Path):
    shutil.copytree(straight, tmp_path / "run")
    recipe = toy(CHANCE)
    with pytest.raises(CheckpointError, match=r"stands in a stage 'tune', which the recipe does not have \(adapt, other\)"):
        run(tmp_path / "run", recipe=replace(recipe, stages=(recipe.stages[0], replace(recipe.stages[1], name="other"))))


def test_a_damaged_state_is_named_and_nothing_is_lost(tmp_path: Path, straight: Path):
    folder = tmp_path / "run"
    shutil.copytree(straight, folder)
    shutil.rmtree(folder / "final")
    (folder / "state" / "00000020" / "__0_0.distcp").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match=r"00000020 cannot go on: .*remove it to go on from the one before"):
        run(folder, CHANCE)
    (folder / "state" / "00000020" / "place.json").unlink()
    with pytest.raises(CheckpointError, match="00000020 is damaged"):
        run(folder, CHANCE)
    shutil.rmtree(folder / "state" / "00000020")
    run(folder, CHANCE)
    assert same(folder, straight)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path):
    folder = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"step 8: the loss number is nan; .*The last state is that of step 4, in"):
        run(folder, "settings.poison_at=7")
    assert [place.step for place in places(folder)] == [4]
    assert len(curve(folder)) == 7
    assert not (folder / "final").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_data_stops_the_run_with_its_own_words(tmp_path: Path, workers: int):
    with pytest.raises(ImageError, match=r"^a.png cannot be decoded$"):
        run(tmp_path / "run", "settings.broken_at=5", workers=workers)
    assert [place.step for place in places(tmp_path / "run")] == [5, 4]  # it was whole up to there


def test_a_full_disk_is_a_clear_error_and_the_last_states_stay_whole(tmp_path: Path, straight: Path):
    folder = tmp_path / "run"
    run(folder, CHANCE, "stages.tune.steps=1")
    shutil.rmtree(folder / "final")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this: the lines still fit, a state does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(TrainingError, match=r"00000012 cannot be written: File too large; what was saved before is intact"):
            run(folder, CHANCE, "stages.tune.steps=2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [place.step for place in places(folder)] == [11, 10]
    assert not list(folder.rglob("*.partial"))
    run(folder, CHANCE)
    assert places(folder)[0].step == 20


@pytest.mark.parametrize("what", ["state", "metrics", "preview", "export"])
def test_no_space_left_is_said_wherever_it_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recipe = toy("preview_every=6", "stages.tune.steps=1")
    task = recipe.task
    target = {
        "state": "openjanus.train.state.save",
        "metrics": "openjanus.train.metrics.Curves.sync",
        "preview": f"{task.__module__}.Toy.preview",
        "export": f"{task.__module__}.Toy.export",
    }[what]
    if what in ("preview", "export"):
        monkeypatch.setattr(task, what, full)
    elif what == "metrics":
        monkeypatch.setattr(
            "os.fsync", lambda handle: full() if "metrics" in str(Path(f"/proc/self/fd/{handle}").readlink()) else None
        )
    else:
        monkeypatch.setattr(target, full)
    with pytest.raises(TrainingError, match="cannot be written: No space left on device"):
        run(tmp_path / "run", recipe=recipe)
    assert not list(tmp_path.rglob("*.partial"))
    assert len(states(tmp_path / "run" / "state")) == {"state": 0, "metrics": 0, "preview": 1, "export": 2}[what]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path):
    with locked(tmp_path / "run"), pytest.raises(TrainingError, match="another process is training in"):
        run(tmp_path / "run")
    run(tmp_path / "run", "stages.steps=1")


def test_a_second_signal_leaves_at_once_but_an_echo_of_the_first_does_not(monkeypatch: pytest.MonkeyPatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Stopping(speaks=False) as stopping:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stopping.signal == signal.SIGTERM
        now[0] += 5
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_previews_are_made_every_so_many_steps_and_states_kept_only_twice(tmp_path: Path):
    run(tmp_path / "run", "preview_every=8", "save_every=3")
    assert sorted(path.name for path in (tmp_path / "run" / "previews").iterdir()) == ["00000008", "00000016"]
    assert [place.step for place in places(tmp_path / "run")] == [20, 18]


def test_a_state_is_replaced_when_its_step_is_saved_again(tmp_path: Path):
    place, saver = Place("adapt", 1, 1, 8), Saver(tmp_path, ALONE)
    for value in (1.0, 2.0):
        saver.save({"w": torch.tensor([value])}, place)
    tensors = {"w": torch.zeros(1)}
    load_state(states(tmp_path)[0], tensors)
    assert tensors["w"].item() == 2.0
    assert len(states(tmp_path)) == 1


def test_a_dry_run_tries_every_stage_and_tells_what_it_would_take():
    expected = plan.dry_run(toy("stages.tune.steps=1000"), ALONE)
    adapt, tune = expected.stages
    assert (adapt.steps, adapt.samples, tune.samples) == (10, 80, 8000)
    assert adapt.parts["encoder"] == (0, 40) and tune.parts["encoder"] == (40, 40)
    text = expected.to_text()
    assert "stage adapt: 10 steps, 80 samples, about" in text and "trains 194 of 234 parameters" in text
    assert json.loads(json.dumps(expected.to_json()))["stages"][1]["name"] == "tune"


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (119, "119 s"), (600, "10 min"), (5400, "1.5 h"), (259200, "3.0 days")]
)
def test_durations_read_as_people_say_them(seconds: float, words: str):
    assert plan.duration(seconds) == words
