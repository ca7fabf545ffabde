"""`openjanus data`, as a person runs it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from openjanus.cli import main
from openjanus.data.records import RecordFiles
from openjanus.processing.images import open_image

Capture = pytest.CaptureFixture[str]
EVIL = '<script>alert("1")</script> & <img src=x>'


def run(*arguments: object) -> int:
    return main(["data", *map(str, arguments)])


def image(path: Path, seed: int = 0) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """One record of each kind."""
    image(tmp_path / "0.png")
    shown = {"type": "image", "image": "0.png"}
    lines = [
        {"text": "Once."},
        {
            "messages": [
                {"role": "user", "content": [shown, {"type": "text", "text": EVIL}]},
                {"role": "assistant", "content": "No."},
            ]
        },
        {"caption": "a fox", "image": "0.png"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures with captions; the last has none."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(3):
        image(path / f"{number}.png", number)
        if number < 2:
            (path / f"{number}.txt").write_text(f"noise {number}")
    return path


# -- check -----------------------------------------------------------------------------


def test_check_counts_and_ends_well(records: Path, capsys: Capture):
    assert run("check", records) == 0
    assert capsys.readouterr().out.splitlines()[0] == "3 records: 1 generation, 1 text, 1 understanding; 2 images"
    assert run("check", records, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kinds"] == {"text": 1, "understanding": 1, "generation": 1}


def test_check_ends_with_1_and_names_what_is_broken(records: Path, folder: Path, capsys: Capture):
    assert run("check", records, folder) == 1
    out = capsys.readouterr().out
    assert "6 records" in out and "broken: 1" in out
    assert f"{folder}/2.png: no .txt or .json with its caption lies beside the image" in out
    assert run("check", records, "--kind", "text", "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["broken"]) == 2


def test_check_shows_twenty_and_with_list_all(tmp_path: Path, capsys: Capture):
    path = tmp_path / "a.jsonl"
    path.write_text("[]\n" * 30)
    assert run("check", path) == 1
    assert capsys.readouterr().out.count("a record is") == 20
    assert run("check", path, "--list") == 1
    assert capsys.readouterr().out.count("a record is") == 30


# -- stats -----------------------------------------------------------------------------


def test_stats_tell_tokens_as_training_will_have_them(checkpoint: Path, records: Path, capsys: Capture):
    assert run("stats", records, "--model", checkpoint, "--context", 30, "--json") == 0
    kinds = json.loads(capsys.readouterr().out)["kinds"]
    assert set(kinds) == {"text", "understanding", "generation"}
    assert kinds["generation"]["widths"] == {"least": 30, "median": 30, "p90": 30, "most": 30}
    assert kinds["generation"]["supervised"]["most"] == tiny.CONFIGS[checkpoint.name].generation.positions
    assert [kinds[kind]["too_long"] for kind in ("text", "understanding")] == [0, 1]
    assert run("stats", records, "--model", checkpoint, "--limit", 1) == 0
    assert "text: 1 record, " in capsys.readouterr().out


def test_stats_say_what_they_leave_out(checkpoint: Path, folder: Path, capsys: Capture):
    assert run("stats", folder, "--model", checkpoint) == 0
    out = capsys.readouterr().out
    assert "generation: 2 records" in out
    assert f"left out: 1 record: {folder}/2.png: no .txt or .json with its caption lies beside the image" in out


def test_stats_say_why_a_model_has_no_use_for_whole_records(tmp_path: Path, capsys: Capture):
    image(tmp_path / "0.png")
    path = tmp_path / "edits.jsonl"
    path.write_text((json.dumps({"input_prompt": "more", "input_image": "0.png", "output_image": "0.png"}) + "\n") * 2)
    assert run("check", path) == 0
    assert run("stats", path, "--model", "janusflow-tiny") == 1
    reason = f"left out: 2 records (--json lists all), the first: {path}, line 1: this model cannot learn to edit"
    assert reason in capsys.readouterr().out
    assert run("stats", path, "--model", "janus-tiny") == 0


# -- preview ---------------------------------------------------------------------------


class Tags(HTMLParser):
    """The tags of a page and the text of its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_preview_shows_tokens_masks_and_images_and_escapes_the_rest(
    checkpoint: Path, records: Path, tmp_path: Path, capsys: Capture
):
    page = tmp_path / "new" / "page.html"
    assert run("preview", records, "--model", checkpoint, "-o", page) == 0
    assert capsys.readouterr().out.strip() == str(page)
    found = Tags()
    html = page.read_text(encoding="utf-8")
    found.feed(html)
    assert "script" not in {tag for tag, _ in found.tags}
    assert EVIL in found.text and EVIL not in html
    images = [values["src"] or "" for tag, values in found.tags if tag == "img"]
    assert len(images) == 2 and all(source.startswith("data:image/png;base64,") for source in images)
    assert open_image(images[0]).size == (16, 16)
    assert not re.search(r'(src|href)="(?!data:)', html)
    tokens = " ".join(re.findall(r'<p class="tokens">.*?</p>', html, flags=re.DOTALL))
    assert set(re.findall(r'<span class="(\w+)">', tokens)) == {"prompt", "learned", "slot", "picture"}
    assert f"{tiny.CONFIGS[checkpoint.name].generation.positions} of a picture" in found.text
    # Nothing is written over.
    assert run("preview", records, "--model", checkpoint, "-o", page) == 2
    assert page.read_text(encoding="utf-8") == html


def test_a_preview_shows_what_is_broken_and_evenly_so_many(checkpoint: Path, folder: Path, tmp_path: Path):
    assert run("preview", folder, "--model", checkpoint, "-o", tmp_path / "all.html") == 0
    assert 'class="error"' in (tmp_path / "all.html").read_text(encoding="utf-8")
    assert run("preview", folder, "--model", checkpoint, "-n", 2, "-o", tmp_path / "two.html") == 0
    assert (tmp_path / "two.html").read_text(encoding="utf-8").count("<h2>") == 2


# -- convert ---------------------------------------------------------------------------


def test_what_was_converted_is_equal_to_what_it_was(records: Path, tmp_path: Path, capsys: Capture):
    output = tmp_path / "elsewhere" / "out.jsonl"
    assert run("convert", records, "-o", output) == 0
    assert capsys.readouterr().out.strip() == str(output)
    before, after = RecordFiles([records]), RecordFiles([output])
    assert len(after) == len(before)
    for number in range(len(before)):
        old, new = before.sample(number), after.sample(number)
        assert [(one.role, one.text) for one in new.messages] == [(one.role, one.text) for one in old.messages]
        assert [path.resolve() for path in new.images] == [path.resolve() for path in old.images]
    assert "../0.png" in output.read_text(encoding="utf-8")


def test_convert_writes_over_nothing_and_leaves_nothing_half_done(records: Path, folder: Path, tmp_path: Path, capsys: Capture):
    output = tmp_path / "out.jsonl"
    assert run("convert", folder, "-o", output) == 2
    assert "2.png: no .txt or .json" in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))
    assert run("convert", folder, "-o", output, "--on-error", "skip", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"path": str(output), "records": 2, "images": 0, "skipped": 1}
    assert "note: skipped" in captured.err and "2.png" in captured.err
    content = output.read_bytes()
    assert run("convert", records, "-o", output) == 2
    assert "exists and is not written over" in capsys.readouterr().err
    assert output.read_bytes() == content
    assert run("convert", records, "-o", tmp_path / "out.json") == 2


# -- mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check", "absent.jsonl"], "absent.jsonl cannot be read"),
        (["check"], "paths"),
        (["check", "{records}", "--kind", "video"], "--kind is 'video'; it must be one of text, understanding, generation"),
        (["convert", "{records}", "-o", "x.jsonl", "--on-error", "ignore"], "must be stop or skip"),
        (["stats", "{records}", "--model", "./absent"], "absent"),
        (["preview", "{records}", "-o", "{records}/page.html"], "a.jsonl"),
        (["chek"], "chek"),
    ],
)
def test_a_mistake_is_one_line(
    records: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
):
    monkeypatch.chdir(tmp_path)
    assert run(*(argument.replace("{records}", str(records)) for argument in arguments)) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("note:")]
    assert captured.out == "" and len(lines) == 1
    assert says in lines[0]


def test_data_alone_shows_its_help(capsys: Capture):
    assert run() == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("check", "stats", "preview", "convert"))
