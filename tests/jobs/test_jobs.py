"""Offline jobs on small models: the same results in any batches, on any number of processes, and after a kill."""

import json
import os
from base64 import b64encode
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
from formats.written import captioned, picture, write_lines
from openjanus.cli import main
from openjanus.data.records import RecordFiles
from openjanus.environment import Share
from openjanus.errors import ConfigError, DataError
from openjanus.janus import Janus
from openjanus.jobs.answering import Questions, answer
from openjanus.jobs.painting import paint, read_prompts
from openjanus.processing.images import open_image
from openjanus.types import ImageOptions, TextOptions

OPTIONS = ImageOptions(n=2, steps=2)


class Killed(Exception):
    pass


def silent(done: int, total: int) -> None:
    pass


def killing(after: int) -> Callable[[int, int], None]:
    """A progress that ends the job after so many inputs."""

    def progress(done: int, total: int) -> None:
        if done == after:
            raise Killed

    return progress


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("noise\n\na red cube\nmore noise\na ball\nnothing\n", encoding="utf-8")
    return path


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in folder.glob("*.png")}


def run(janus: Janus, prompts: Path, folder: Path, share: Share = Share(), batch: int = 4, **more: Any) -> tuple[int, int]:  # noqa: B008
    told: list[str] = more.pop("told", [])
    return paint(janus, read_prompts(prompts), folder, OPTIONS, share, batch, more.pop("progress", silent), told.append)


def test_pictures_are_the_same_in_any_batches_on_any_processes_and_after_a_kill(janus: Janus, prompts: Path, tmp_path: Path):
    assert run(janus, prompts, tmp_path / "all") == (5, 0)
    whole = pictures(tmp_path / "all")
    assert len(whole) == 10 and "000002_1.png" in whole  # by the number of its line
    (again,) = janus.generate("a red cube", seed=5, steps=2)
    assert whole["000002_1.png"] == again.tobytes()
    for number in range(3):
        run(janus, prompts, tmp_path / "shared", Share(number, 3), batch=1)
    assert pictures(tmp_path / "shared") == whole
    with pytest.raises(Killed):
        run(janus, prompts, tmp_path / "killed", Share(0, 2), batch=1, progress=killing(2))
    assert len(pictures(tmp_path / "killed")) == 4
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.png")}
    # It goes on alone where two processes were, and does nothing twice.
    assert run(janus, prompts, tmp_path / "killed") == (5, 0)
    assert pictures(tmp_path / "killed") == whole
    assert all((tmp_path / "killed" / name).stat().st_mtime_ns == time for name, time in before.items())


def test_what_was_painted_can_be_learned_from(janus: Janus, prompts: Path, tmp_path: Path):
    run(janus, prompts, tmp_path / "out")
    files = RecordFiles([tmp_path / "out" / "records.jsonl"], "generation")
    samples = [files.sample(number) for number in range(len(files))]
    assert [sample.messages[0].text for sample in samples[:3]] == ["noise", "noise", "a red cube"]
    assert Path(samples[2].picture).name == "000002_0.png"


def test_edits_can_be_learned_from_wherever_the_job_ran_and_whatever_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Prompts and folder are given relative to one working directory; the job goes on, and is read, from others."""
    images = tmp_path / "prompts" / "images"
    images.mkdir(parents=True)
    for name, grey in (("a.png", 10), ("b.png", 20)):
        Image.fromarray(np.full((9, 9, 3), grey, dtype=np.uint8)).save(images / name)
    embedded = f"data:image/png;base64,{b64encode((images / 'b.png').read_bytes()).decode()}"
    lines = [
        {"prompt": "more", "images": ["images/a.png", embedded]},
        {"prompt": "more", "images": [str(images / "b.png")]},
        {"prompt": "noise"},
    ]
    write_lines(tmp_path / "prompts" / "p.jsonl", *lines)
    janus = tiny.tiny_janus("janus")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        run(janus, Path("prompts/p.jsonl"), Path("deep/out"), batch=1, progress=killing(1))
    monkeypatch.chdir(images)
    assert run(janus, Path("../p.jsonl"), tmp_path / "deep" / "out") == (3, 0)
    files = RecordFiles(["../../deep/out/records.jsonl"])
    samples = [files.sample(number) for number in range(len(files))]
    assert [sample.kind for sample in samples] == ["editing"] * 4 + ["generation"] * 2
    shown = [[open_image(image).getpixel((0, 0))[0] for image in sample.messages[0].images] for sample in samples]
    assert shown == [[10, 20], [10, 20], [20], [20], [], []]
    assert samples[0].messages[0].images[1] == embedded
    assert len({open_image(sample.picture).tobytes() for sample in samples}) == 6
    # Where the whole folder goes its records go.
    assert all(one not in (tmp_path / "deep" / "out" / "records.jsonl").read_text() for one in (str(tmp_path), "prompts/p"))


def test_a_line_that_was_cut_off_is_done_again(janus: Janus, prompts: Path, tmp_path: Path):
    run(janus, prompts, tmp_path / "out")
    path = tmp_path / "out" / "records.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:-30], encoding="utf-8")
    assert run(janus, prompts, tmp_path / "out") == (5, 0)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    # The first of the prompt's two pictures was there already.
    assert lines[-2:] == [json.loads(line) for line in whole.splitlines()[-2:]]


def test_the_results_of_another_job_are_not_mixed_with(janus: Janus, prompts: Path, tmp_path: Path):
    run(janus, prompts, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds the results of another job: options was .*give the same to go on"):
        paint(janus, read_prompts(prompts), tmp_path / "out", ImageOptions(n=1), Share(), 4, silent, print)
    prompts.write_text(f"{prompts.read_text(encoding='utf-8')}one more\n", encoding="utf-8")
    changed = r"holds the results of other prompts: their file has changed since, or is another; give it as it was to go on, or "
    with pytest.raises(ConfigError, match=changed):
        run(janus, prompts, tmp_path / "out")


def test_prompts_that_cannot_be_painted_are_told_and_the_others_are(tmp_path: Path):
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    lines: list[Any] = [
        {"prompt": "more", "images": ["a.png"], "seed": 7},
        {"prompt": "more", "images": ["b.png"]},
        "noise " * 400,
        {"text": "noise"},
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    told: list[str] = []
    janus = tiny.tiny_janus("janus")
    assert run(janus, path, tmp_path / "out", told=told) == (2, 2)
    assert told[0].startswith("prompt 2 is left out: there is no image at") and told[1].startswith(
        "prompt 3 is left out: the prompt"
    )
    (edit, _) = janus.generate("more", images=[tmp_path / "a.png"], seed=7, n=2)
    assert pictures(tmp_path / "out")["000000_0.png"] == edit.tobytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.txt", "\n", "holds no prompt"),
        ("p.jsonl", '{"prompt": "x"}\n{"prompt"', "line 2 is not JSON"),
        ("p.jsonl", '{"prompt": ""}', "line 1 names no prompt"),
        ("p.jsonl", '{"prompt": "x", "seed": -1}', "seed is -1"),
        ("p.jsonl", '{"prompt": "x", "images": "a.png"}', "images is no list of paths"),
    ],
)
def test_a_file_of_prompts_that_is_none_is_refused(tmp_path: Path, name: str, content: str, words: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_prompts(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.txt")


def picture_beside(records: Path, name: str, grey: int) -> Path:
    path = records.with_name(name)
    Image.fromarray(np.full((9, 9, 3), grey, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Four questions: in one form, with an answer; of three turns; in the short form; and one whose image is missing."""
    path = tmp_path / "records.jsonl"
    picture_beside(path, "a.png", 200)
    shown = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    lines = [
        {"messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": "Grey."}]},
        {"messages": turns},
        {"question": "And this?", "image": "a.png", "answer": "Grey too."},
        {"question": "And this?", "images": ["b.png"]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def test_answers_are_those_of_each_record_alone_and_go_on_after_a_kill(janus: Janus, records: Path, tmp_path: Path):
    out, told, options = tmp_path / "out" / "answers.jsonl", list[str](), TextOptions(max_tokens=4)
    questions = Questions.found([str(records)])
    with pytest.raises(Killed):
        answer(janus, questions, out, options, Share(), 1, killing(2), told.append)
    assert answer(janus, questions, out, options, Share(), 2, silent, told.append) == (3, 1)
    assert told == [told[0]] and "record 4 is left out: there is no image at" in told[0]
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    alone = janus.understand("And this?", [tmp_path / "a.png"], max_tokens=4)
    assert lines[2]["answer"] == alone and lines[2]["reference"] == "Grey too." and "reference" not in lines[1]
    # A run can learn from them where they lie.
    sample = RecordFiles([out]).sample(2)
    assert sample.messages[-1].text == alone and Path(sample.messages[0].images[0]).resolve() == tmp_path / "a.png"


def test_questions_that_have_changed_are_refused_in_words(janus: Janus, records: Path, tmp_path: Path):
    out, options = tmp_path / "answers.jsonl", TextOptions(max_tokens=1)
    answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, list[str]().append)
    questions = Questions.found([str(records)] * 2)
    with pytest.raises(ConfigError, match="holds the results of other records: their file has changed since"):
        answer(janus, questions, out, options, Share(), 4, silent, print)
    lines, before = records.read_text(encoding="utf-8").splitlines(), out.read_text(encoding="utf-8")
    changed = (
        "holds the results of other records: number 3, or an image of it, has changed since; give it as it was to go on, or "
    )
    for word, other in (("this?", "that?"), ("Grey too.", "Green."), ("a.png", str(picture_beside(records, "c.png", 7)))):
        records.write_text("\n".join([*lines[:2], lines[2].replace(word, other), lines[3]]), encoding="utf-8")
        with pytest.raises(ConfigError, match=changed):
            answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, print)
    records.write_text("\n".join(lines), encoding="utf-8")
    # A copy of the same image is the same; another image under its name is not.
    os.utime(records.with_name("a.png"), (1, 1))
    answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, print)
    picture_beside(records, "a.png", 99)
    with pytest.raises(ConfigError, match="holds the results of other records: number 1, or an image of it"):
        answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, print)
    assert out.read_text(encoding="utf-8") == before


def test_embedded_images_that_have_changed_are_refused(tmp_path: Path):
    janus, out, options = tiny.tiny_janus("janus"), tmp_path / "answers.jsonl", TextOptions(max_tokens=1)
    path = captioned(tmp_path, "shard.tar")
    answer(janus, Questions.found([str(path)]), out, options, Share(), 4, silent, print)
    content = path.read_bytes()
    assert content.count(picture(2)) == 1 and len(picture(3)) == len(picture(2))
    path.write_bytes(content.replace(picture(2), picture(3)))
    with pytest.raises(ConfigError, match="number 3, or an image of it, has changed since"):
        answer(janus, Questions.found([str(path)]), out, options, Share(), 4, silent, print)


def test_a_question_that_was_left_out_may_be_mended(records: Path, tmp_path: Path):
    janus, out, options = tiny.tiny_janus("janus"), tmp_path / "answers.jsonl", TextOptions(max_tokens=1)
    told = list[str]()
    assert answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, told.append) == (3, 1)
    picture_beside(records, "b.png", 50)
    assert answer(janus, Questions.found([str(records)]), out, options, Share(), 4, silent, told.append) == (4, 0)


def test_a_job_of_another_model_of_the_same_name_is_refused(janus: Janus, prompts: Path, records: Path, tmp_path: Path):
    out, told, options = tmp_path / "answers.jsonl", list[str](), TextOptions(max_tokens=1)
    questions = Questions.found([str(records)])
    run(janus, prompts, tmp_path / "out")
    answer(janus, questions, out, options, Share(), 4, silent, told.append)
    other = Janus(deepcopy(janus.model), janus.processor, janus.name)
    other.model.language.model.layers[1].mlp.up_proj.weight.data.add_(0.01)
    words = (
        "results of another model: it was tiny .* and is tiny .*weights, adapter, precision or quantisation differ; give it as"
    )
    with pytest.raises(ConfigError, match=words):
        run(other, prompts, tmp_path / "out")
    with pytest.raises(ConfigError, match=words):
        answer(other, questions, out, options, Share(), 4, silent, told.append)
    # A copy of the same weights goes on.
    assert run(Janus(deepcopy(janus.model), janus.processor, janus.name), prompts, tmp_path / "out") == (5, 0)


def test_what_earlier_versions_wrote_goes_on(janus: Janus, prompts: Path, records: Path, tmp_path: Path):
    """Their notes hold no fingerprint, and their answers do not say of which questions they are."""
    out, told, options = tmp_path / "answers.jsonl", list[str](), TextOptions(max_tokens=1)
    questions = Questions.found([str(records)])
    with pytest.raises(Killed):
        run(janus, prompts, tmp_path / "out", batch=1, progress=killing(2))
    with pytest.raises(Killed):
        answer(janus, questions, out, options, Share(), 1, killing(2), told.append)
    for note in (tmp_path / "out" / ".records.json", tmp_path / ".answers.json"):
        values = json.loads(note.read_text(encoding="utf-8"))
        del values["fingerprint"]
        note.write_text(json.dumps(values), encoding="utf-8")
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    write_lines(out, *({key: value for key, value in line.items() if key != "asked"} for line in lines))
    assert run(janus, prompts, tmp_path / "out") == (5, 0)
    assert answer(janus, questions, out, options, Share(), 1, silent, told.append) == (3, 1)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3
    # From then on it is this model's.
    other = Janus(deepcopy(janus.model).bfloat16(), janus.processor, janus.name)
    with pytest.raises(ConfigError, match="results of another model"):
        run(other, prompts, tmp_path / "out")


@pytest.mark.parametrize("name", ["shard.tar", "rows.parquet", "data.jsonl"])
def test_answers_about_embedded_images_keep_them(janus: Janus, tmp_path: Path, name: str):
    if name == "data.jsonl":
        urls = [f"data:image/png;base64,{b64encode(picture(number)).decode()}" for number in range(4)]
        path = write_lines(tmp_path / name, *({"question": "What?", "image": url} for url in urls))
    else:
        path = captioned(tmp_path, name)
    out, options, told = tmp_path / "out" / "answers.jsonl", TextOptions(max_tokens=1), list[str]()
    questions = Questions.found([str(path)])
    with pytest.raises(Killed):
        answer(janus, questions, out, options, Share(0, 2), 1, killing(1), told.append)
    # It goes on as one process where two were.
    for share in (Share(1, 2), Share()):
        answer(janus, questions, out, options, share, 2, silent, told.append)
    found = {}
    for file in sorted(out.parent.glob("answers*.jsonl")):
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        samples = RecordFiles([file])
        found |= {line["number"]: samples.sample(place).messages[0].images for place, line in enumerate(lines)}
    assert told == [] and sorted(found) == [0, 1, 2, 3]
    for number, (image,) in found.items():
        np.testing.assert_array_equal(open_image(image), open_image(picture(number)))
    if name == "data.jsonl":
        assert [found[number] for number in range(4)] == [(url,) for url in urls]
        assert not (out.parent / "answers_images").exists()
    else:
        written = {file.name: file.read_bytes() for file in (out.parent / "answers_images").iterdir()}
        assert written == {f"{number:08d}_0.png": picture(number) for number in range(4)}


def test_the_commands_do_so_too(
    checkpoint: Path, prompts: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = str(tmp_path / "painted")
    assert main(["generate", "--prompts", str(prompts), "-o", out, "--model", str(checkpoint), "--steps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": out, "prompts": 5, "failed": 0}
    answers = str(tmp_path / "answers.jsonl")
    command = ["understand", "--records", str(records), "-o", answers, "--model", str(checkpoint), "--max-tokens", "2"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert said.out.strip() == answers and "record 4 is left out" in said.err
    for wrong in (["generate", "x", "--prompts", str(prompts)], ["generate"], ["understand", "x", "--records", str(records)]):
        assert main(wrong) == 2
        assert "give either" in capsys.readouterr().err
