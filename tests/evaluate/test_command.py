"""`openjanus evaluate` as people type it: mistakes get one line, results go to stdout alone."""

import json
import re
from pathlib import Path

import pytest

import tiny
from openjanus.cli import console, main
from openjanus.cli.evaluate import NAMES
from openjanus.evaluate.catalogue import BENCHMARKS
from openjanus.evaluate.published import published

from .official import encoded, write_table


@pytest.fixture(autouse=True)
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "load_model", lambda *_: tiny.tiny_janus("janus"))


def data(folder: Path) -> Path:
    rows = [
        {"index": number, "category": "random", "question": "?", "answer": "Yes", "image": encoded(number)} for number in range(2)
    ]
    write_table(folder / "pope" / "POPE.tsv", rows)
    seed = [
        {"index": number, "question": "?", "A": "one", "B": "two", "answer": "B", "image": encoded(number)} for number in range(2)
    ]
    write_table(folder / "seed" / "SEEDBench_IMG.tsv", seed)
    return folder


def test_several_benchmarks_run_from_one_folder_of_data_into_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "run")
    assert main(["evaluate", "pope", "seed", "--data", str(data(tmp_path / "data")), "-o", out]) == 0
    told = capsys.readouterr().out
    assert "pope of tiny janus" in told and "seed of tiny janus" in told and told.rstrip().endswith("report.html")
    assert main(["evaluate", "pope", "seed", "--score-only", "-o", out, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [one["benchmark"] for one in results] == ["pope", "seed"] and results[0]["model"]["name"] == "tiny janus"
    assert main(["evaluate", "--compare", out, out]) == 0
    assert "p = 1.0000" in capsys.readouterr().out
    assert main(["evaluate", "--compare", out, out, "--json"]) == 0
    assert {one["benchmark"] for one in json.loads(capsys.readouterr().out)["scores"]} == {"pope", "seed"}


def test_without_an_output_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    assert main(["evaluate", "pope", "--data", str(data(tmp_path / "data")), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no benchmark was named"),
        (["pope"], "pope needs its official files: say --data FOLDER"),
        (["pope", "--data", "absent"], "there is no folder absent"),
        (["shapes", "--score-only"], "name one with -o"),
        (["shapes", "--protocol", "lmms"], "shapes has no protocol 'lmms'"),
        (["mmlu"], "there is no benchmark 'mmlu'; there is shapes, pope"),
        (["--compare", "a", "b"], "--compare wants two folders"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and told.err.count("\n") == 1


def test_the_help_names_every_benchmark_there_is():
    words = NAMES.replace("(understanding)", "").replace("(generation)", "").replace(",", " ").split()
    assert words == list(BENCHMARKS)


def sections() -> dict[str, str]:
    """The sections of the page by their headings."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    parts = re.split(r"^###? (.+)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_page_has_a_recipe_of_every_benchmark_with_its_command_and_the_papers_numbers(name: str):
    recipe, kind = sections()[name], BENCHMARKS[name]
    assert f"`openjanus evaluate {name} --model " in recipe
    for protocol in kind.protocols:
        assert len(kind.protocols) == 1 or protocol in recipe, protocol
    if name != "shapes":
        assert "**Data**" in recipe and "**Ours, hardware, time**" in recipe
        main = {"pope": "F1", "mme": "perception", "mmvet": "total", "coco30k": "FID", "mjhq30k": "FID"}
        overall = {"mmbench": "overall", "geneval": "overall", "dpg": "overall"}
        numbers = published(name, (main | overall).get(name, "accuracy"))
        ours = {model: value for model, value in numbers.items() if model.startswith("Janus")}
        assert ours
        for model, value in ours.items():
            shown = [f"{value:.1f}", f"{value:.2f}", f"{value:.2f}".removeprefix("0")]
            assert model in recipe and any(one in recipe for one in shown), (model, value)
