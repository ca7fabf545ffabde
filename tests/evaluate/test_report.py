"""The report: what it shows, that it opens offline, and that nothing in it can break out of it."""

import json
import re
from pathlib import Path
from typing import Any

from openjanus.evaluate.plots import plot, plots
from openjanus.evaluate.published import published
from openjanus.evaluate.report import page, table, write_report
from openjanus.evaluate.scoring import Score, shown

SCORES = [
    {"name": "F1", "value": 86.0, "low": 85.0, "high": 87.0, "count": 9000, "groups": 500, "higher": True},
    {"name": "random accuracy", "value": 0.0, "low": 0.0, "high": 0.0, "count": 3000, "groups": 500, "higher": True},
]


def result(**changes: Any) -> dict[str, Any]:
    return {
        "benchmark": "pope",
        "title": "POPE",
        "protocol": "vlmevalkit",
        "settings": {"seed": 0, "limit": None, "batch": 32},
        "model": {"name": "<b>mine</b>", "fingerprint": "ab12", "dtype": "bfloat16", "device": "cpu", "parameters": 1234567},
        "judges": {"judge": ""},
        "data": "/data",
        "versions": {"torch": "2"},
        "scores": SCORES,
        "samples": 9001,
        "counted": 9000,
        "skipped": [{"case": "7", "number": 0, "why": "its image is <broken>"}],
        "empty": ["8"],
        "warnings": ["only the first 3 of each task were run (--limit)"],
    } | changes


def examples() -> dict[str, Any]:
    one = {
        "case": "1",
        "task": "random",
        "asked": "<script>alert(1)</script>",
        "answer": "Yes & no",
        "read": "unknown",
        "expected": "yes",
        "wrong": "",
        "value": 0.0,
        "seed": None,
        "images": ["data:image/png;base64,AAAA"],
    }
    return {"worst": [one], "random": [one | {"value": 1.0, "seed": 5}]}


def page_of(*results: dict[str, Any]) -> str:
    told = [
        one | {"scores": [score | {"published": published(one["benchmark"], score["name"])} for score in one["scores"]]}
        for one in results
    ]
    return page(told, {one["benchmark"]: examples() for one in results}, "run")


def test_the_page_shows_scores_papers_settings_skips_and_samples():
    html = page_of(result())
    for said in (
        "86.00",
        "85.00 to 87.00",
        "9000",
        "Janus-Pro-1B",
        "86.2",
        "ab12",
        "1,234,567",
        "&quot;batch&quot;: 32",
        "only the first 3",
        "1 samples were skipped",
        "1 answers are empty",
        "seed 5",
        "Worst samples",
        "Samples by chance",
    ):
        assert said in html, said
    assert html.count("<svg") == 1 and html.count("data:image/png;base64,AAAA") == 2


def test_the_page_needs_nothing_else_and_escapes_everything():
    html = page_of(result())
    assert "<script" not in html and "<b>mine" not in html and "<broken>" not in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html


def test_a_benchmark_without_a_score_says_so():
    assert "There is no score" in page_of(result(scores=[]))
    assert "no score" in table(result(scores=[]))


def test_the_table_for_terminals_tells_the_papers_numbers_and_what_was_skipped():
    text = table(result())
    assert "F1" in text and "86.00  [85.00, 87.00]  of 9000" in text and "Janus-Pro-7B 87.4" in text
    assert "1 of 9001 samples skipped" in text and "first skipped: 7: its image is <broken>" in text
    assert "1 of 9001 samples empty answers, which count as wrong" in text and "note: only the first 3" in text


def test_a_report_is_of_all_that_its_folder_holds(tmp_path: Path):
    for name in ("pope", "seed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(result(benchmark=name, title=name.upper())))
    write_report(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["benchmark"] for one in report["benchmarks"]] == ["pope", "seed"]
    html = (tmp_path / "report.html").read_text()
    assert "POPE" in html and "SEED" in html


def test_plots_put_every_number_on_one_scale():
    svg = plot([Score("a", 50, 40, 60, 9, 9, True), Score("b", 100, None, None, 9, 9, False)], [{"other": 200.0}, {}])
    places = [float(place) for place in re.findall(r'<circle cx="([\d.]+)"', svg)]
    tick = float(re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="[\d.]+" y2="[\d.]+" stroke="#1e88e5"', svg)[0])
    zero = 2 * places[0] - places[1]  # 0, 50 and 100 are evenly spread
    assert tick - zero == 4 * (places[0] - zero)
    assert plot([Score("nothing", 0, 0, 0, 1, 1, True)], [{}]).startswith("<svg")


def test_scores_of_another_size_have_a_plot_of_their_own():
    made = [
        Score(name, value, None, None, 9, 9, True) for name, value in (("sum", 1500), ("rest", 300), ("task", 150), ("none", 0))
    ]
    drawn = plots(made, [{}] * 4).split("<br>")
    assert [[name for name in ("sum", "rest", "task", "none") if f">{name}<" in svg] for svg in drawn] == [
        ["sum", "rest", "none"],
        ["task"],
    ]


def test_the_papers_numbers_are_those_of_the_papers():
    assert published("geneval", "overall")["Janus-Pro-7B"] == 0.80 and published("geneval", "two_object")["Janus-Pro-1B"] == 0.82
    assert published("dpg", "overall")["Janus-Pro-1B"] == 82.63 and published("mme", "perception")["Janus-Pro-7B"] == 1567.1
    assert published("coco30k", "FID")["Janus-1.3B"] == 8.53 and published("pope", "recall") == {}


def test_numbers_are_shown_with_the_digits_that_count():
    assert [shown(value) for value in (1567.13, 79.183, 0.7967)] == ["1567.1", "79.18", "0.797"]
