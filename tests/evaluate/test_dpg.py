"""DPG-Bench: questions that depend on each other, in both modes, by hand."""

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openjanus.errors import CheckpointError, DataError
from openjanus.evaluate.benchmark import Sample, Settings
from openjanus.evaluate.generation.dpg import DPG, read_questions, tile, with_parents
from openjanus.evaluate.judges.text import JudgeError
from openjanus.evaluate.samples import tiled
from openjanus.evaluate.scoring import judged, measured, score_of
from openjanus.evaluate.tools import JudgeOptions, Tools

COLUMNS = (
    "item_id",
    "text",
    "keywords",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "tuple",
    "question_natural_language",
)


def write_dpg(folder: Path, rows: list[tuple[str, int, str, str]]) -> Path:
    """rows: prompt, number, parents, category; the question is named after prompt and number."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dpg_bench.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for prompt, number, parents, category in rows:
            writer.writerow([prompt, "text", "", number, parents, "", "", f"{category} - whole (thing)", f"{prompt} {number}?"])
    (folder / "prompts").mkdir(exist_ok=True)
    for prompt in {row[0] for row in rows}:
        (folder / "prompts" / f"{prompt}.txt").write_text(f"{prompt} in words\n")
    return folder


ROWS = [
    ("lost", 1, "0", "entity"),
    ("lost", 2, "1", "attribute"),
    ("p", 1, "0", "entity"),
    ("p", 2, "1", "attribute"),
    ("p", 3, "1, 2", "relation"),
    ("p", 4, "0", "global"),
]


class Judge:
    """Says no to the questions it is given, for a tile of one colour."""

    name = "made"

    def __init__(self, no: set[tuple[str, int]]) -> None:
        self.no, self.asked = no, 0

    def answer(self, image: Image.Image, question: str) -> str:
        self.asked += 1
        shade = image.getpixel((0, 0))[0]
        if (question, shade) in self.no:
            return "no"
        if "fails" in question:
            raise JudgeError("the judge failed")
        return "yes"


def run(data: Path, out: Path, protocol: str, no: set[tuple[str, int]], pictures: int = 2) -> tuple[dict[str, float], Any]:
    benchmark = DPG(Settings(protocol=protocol, images_per_prompt=pictures))
    cases = benchmark.cases(data)
    samples = {}
    for case in cases:
        path = out / case.files[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        tiled([Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in range(pictures)]).save(path)
        samples |= {(case.id, number): Sample(case.id, number, image=case.files[0]) for number in range(pictures)}
    tools = Tools(out)
    tools.__dict__["visual_judge"] = Judge(no)
    judgements = judged(benchmark, cases, samples, tools)
    return {one.name: score_of(one).value for one in measured(benchmark, judgements)}, (
        judgements,
        tools,
        benchmark,
        cases,
        samples,
    )


def test_a_question_falls_with_its_parents_in_a_row():
    asked = read_questions_of([("p", 1, "0"), ("p", 2, "1"), ("p", 3, "2"), ("p", 4, "0")])
    assert with_parents({"1": 0.0, "2": 1.0, "3": 1.0, "4": 1.0}, asked) == {"1": 0, "2": 0, "3": 0, "4": 1}
    # In the file's order: a question before its parent sees it as it is by then.
    early = read_questions_of([("p", 3, "2"), ("p", 2, "1"), ("p", 1, "0")])
    assert with_parents({"1": 0.0, "2": 1.0, "3": 1.0}, early) == {"3": 1, "2": 0, "1": 0}


def read_questions_of(rows: list[tuple[str, int, str]]) -> dict[str, dict[str, Any]]:
    return {
        str(number): {"question": "", "category": "", "parents": [one for one in parents.split(",") if one != "0"]}
        for _, number, parents in rows
    }


def test_the_fixed_mode_keeps_every_row_and_counts_all_pictures(tmp_path: Path):
    told, _ = run(write_dpg(tmp_path, ROWS), tmp_path / "out", "fixed", {("p 1?", 0), ("p 4?", 1)})
    # p, picture 0: 1 is no, so 2 and 3 fall: 1 of 4; picture 1: 4 is no: 3 of 4. lost: all.
    assert told["overall"] == pytest.approx(100 * (0.5 + 1) / 2)
    assert told["entity"] == pytest.approx(100 * 3 / 4) and told["attribute"] == pytest.approx(100 * 3 / 4)
    assert told["relation"] == 50 and told["global"] == 50


def test_the_official_mode_loses_the_first_row_and_the_prompt_that_needs_it(tmp_path: Path):
    told, (judgements, *_) = run(write_dpg(tmp_path, ROWS), tmp_path / "out", "official", {("p 1?", 1), ("p 4?", 0)})
    assert told["overall"] == pytest.approx(50)  # picture 0: 3 of 4; picture 1: 1 of 4
    # Categories are of the last picture alone, before parents count: only 1 is no there.
    assert {name: told[name] for name in ("entity", "attribute", "relation", "global")} == {
        "entity": 0,
        "attribute": 100,
        "relation": 100,
        "global": 100,
    }
    lost = [one for one in judgements if one.case == "lost"]
    assert len(lost) == 2 and all("the official script loses" in one.skipped for one in lost)


def test_a_judge_that_fails_costs_one_prompt_and_nothing_that_was_asked(tmp_path: Path):
    rows = [("a", 1, "0", "entity"), ("p", 1, "0", "entity"), ("p fails", 1, "0", "entity"), ("q", 1, "0", "entity")]
    told, (judgements, tools, benchmark, cases, samples) = run(write_dpg(tmp_path, rows), tmp_path / "out", "fixed", set())
    assert told["overall"] == 100
    assert [one.case for one in judgements if one.skipped] == ["p fails"] * 2
    judge = tools.visual_judge
    judge.asked = 0
    judged(benchmark, cases, samples, tools)
    assert judge.asked == 2  # the failed ones alone are asked again


def test_tiles_come_back_as_they_were_laid():
    for count in (1, 2, 3, 4):
        pictures = [Image.new("RGB", (6, 4), (shade * 50, 0, 0)) for shade in range(count)]
        sheet = tiled(pictures)
        assert [tile(sheet, number, count).tobytes() for number in range(count)] == [one.tobytes() for one in pictures]


def test_files_of_another_kind_are_refused(tmp_path: Path):
    write_dpg(tmp_path, ROWS)
    (tmp_path / "prompts" / "p.txt").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 2 prompts \(first: p.txt\)"):
        DPG(Settings(protocol="fixed")).cases(tmp_path)
    (tmp_path / "dpg_bench.csv").write_text("item_id,text\np,x\n")
    with pytest.raises(DataError, match="has no column 'proposition_id'"):
        read_questions(tmp_path / "dpg_bench.csv", "fixed")
    write_dpg(tmp_path, [("p", 1, "none", "entity")])
    with pytest.raises(DataError, match="row 1 has no numbers of question and parents"):
        read_questions(tmp_path / "dpg_bench.csv", "fixed")


@pytest.mark.parametrize(
    ("name", "said"), [("", "no judge is named"), ("blip", "there is no judge 'blip'"), ("mplug", "modelscope")]
)
def test_a_judge_that_is_not_there_says_what_is_wanted(name: str, said: str, tmp_path: Path):
    with pytest.raises(CheckpointError, match=f"{said}.*--vqa URL#MODEL"):
        _ = Tools(tmp_path, JudgeOptions(vqa=name)).visual_judge
