"""`openjanus train`: what it prints, writes and refuses."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from openjanus.cli.train import train
from openjanus.errors import ConfigError

TOY = Path(__file__).parents[1] / "train" / "toy.py"
APP = typer.Typer()
APP.command()(train)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(APP, [str(TOY), "--device", "cpu", *arguments])


def test_it_prints_where_the_result_is_and_nothing_else(tmp_path: Path):
    done = call("stages.steps=2", "-o", str(tmp_path / "run"))
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'run' / 'final'}\n")
    assert "toy: 4 of 4" in done.stderr and "samples/s" in done.stderr


def test_as_json_it_prints_one_object(tmp_path: Path):
    done = call("stages.steps=2", "-o", str(tmp_path / "run"), "--json")
    assert json.loads(done.stdout) == {"folder": str(tmp_path / "run" / "final"), "steps": 4}


def test_without_a_folder_it_runs_in_one_named_after_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert call("stages.steps=1").stdout == "runs/toy/final\n"


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = call("--dry-run")
    assert done.exit_code == 0 and "stage adapt: 10 steps, 80 samples" in done.stdout
    assert json.loads(call("--dry-run", "--json").stdout)["recipe"] == "toy"
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_setting_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    done = call("stages.adapt.stesp=3")
    assert isinstance(done.exception, ConfigError) and "did you mean stages.adapt.steps" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_a_stopped_run_leaves_with_the_code_of_its_signal(tmp_path: Path):
    done = call("settings.interrupt_at=2", "-o", str(tmp_path / "run"))
    assert (done.exit_code, done.stdout) == (130, "")
