"""The cards of the bundled models say how they came about; every page repeats the newest measured scores to the digit."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "src" / "openjanus" / "assets"
MODELS = ("janus-tiny", "janusflow-tiny")


@pytest.fixture(scope="module")
def cards() -> ModuleType:
    """benchmarks/cards.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("cards", ROOT / "benchmarks" / "cards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def card(name: str) -> str:
    return (ASSETS / name / "README.md").read_text(encoding="utf-8")


def measured(name: str) -> dict[str, Any]:
    """The newest report of the shapes benchmark in benchmarks/results."""
    newest = max((ROOT / "benchmarks" / "results").glob(f"*-shapes-{name}.json"))
    return json.loads(newest.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_a_card_says_how_its_model_was_made(name: str):
    text = card(name)
    recipe = re.search(r"openjanus train (\w+)", text)
    assert recipe and (ROOT / "recipes" / f"{recipe[1]}.py").is_file()
    assert re.search(r"\d[\d,]* samples|\*\*Seen\*\*: \d", text), "samples seen"
    assert re.search(r"\bcores?\b", text) and re.search(r"20\d\d-\d\d-\d\d", text), "machine and date"
    assert re.search(r"[Ll]oss", text) and re.search(r"\*\*Cannot\*\*", text), "curve and limits"


@pytest.mark.parametrize("name", MODELS)
def test_a_cards_scores_are_the_measured_ones(name: str):
    report, text = measured(name), card(name)
    assert f"`{report['command'].removesuffix(' --json')}`" in text
    rows = dict(re.findall(r"^\| ([\w ,]+?) \| (0\.\d{3}|1\.000) \|", text, flags=re.MULTILINE))
    position = report["kinds"]["position"]["mean"]  # a name of a task and of a kind: the last row is the kind's
    assert rows.pop("position") == f"{position:.3f}"
    expected = {"painting": report["overall"], "questions": report["questions"], **report["tasks"], **report["kinds"]}
    shown = {name.split(",")[0]: score for name, score in rows.items()}
    for key, score in expected.items():
        if key != "position":
            assert shown[key] == f"{score['mean']:.3f}", key


def test_cards_readme_and_the_benchmarks_page_are_what_the_program_writes_of_the_newest_results(cards: ModuleType):
    pages = cards.pages()
    assert len(pages) == 4
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python benchmarks/cards.py"
        assert "0.85" in text and "0.95" in text and "0.70" in text, "the aims"


@pytest.mark.parametrize("name", MODELS)
def test_results_that_name_their_weights_are_of_the_bundled_ones(cards: ModuleType, name: str):
    report = measured(name)
    if "weights" not in report:
        pytest.skip("measured before results named their weights")
    assert report["weights"] == cards.weights(name), "measure them: python benchmarks/cards.py --run"


def test_figures_take_the_place_of_older_ones_and_leave_the_rest_of_a_page(cards: ModuleType):
    old = "Words.\n\n`openjanus evaluate shapes --model x`, 2026:\n\n| | score |\n|---|---|\n| painting | 0.5 |\n\nMore.\n"
    once = cards.placed(old, "| new |", "card")
    assert once == f"Words.\n\n{cards.BEGIN}\n\n| new |\n\n{cards.END}\n\nMore.\n"
    assert cards.placed(once, "| newer |", "card") == once.replace("new", "newer")
    for page, said in (("Words.\n", "no place for the figures"), (f"{cards.BEGIN}\n", "without the other")):
        with pytest.raises(cards.PageError, match=said):
            cards.placed(page, "| new |", "card")


def test_together_they_fit_into_the_package():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 40 * 2**20
