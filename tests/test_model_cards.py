"""The cards of the bundled models say how they came about, and repeat the newest measured scores to the digit."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "src" / "openjanus" / "assets"
MODELS = ("janus-tiny", "janusflow-tiny")


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


def test_together_they_fit_into_the_package():
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 40 * 2**20
