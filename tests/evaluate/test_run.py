"""A whole run: what is on disk, killed and gone on with, spread over processes, scored again, compared, reported."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tiny
from openjanus.checkpoints.fingerprint import fingerprint
from openjanus.environment import Share
from openjanus.errors import ConfigError, DataError
from openjanus.evaluate.benchmark import Painting, Question, Sample, Settings, limited
from openjanus.evaluate.comparing import compare_runs
from openjanus.evaluate.run import Plan, run
from openjanus.evaluate.samples import Samples, missing
from openjanus.evaluate.sampling import batches, sample, speaking
from openjanus.files import append_lines, read_lines
from openjanus.janus import Janus

from .official import encoded, picture, write_table

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Quiet:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, title: str) -> Any:
        from contextlib import nullcontext

        return nullcontext(lambda done, total: None)


def pope(folder: Path, count: int = 6, broken: int | None = None) -> Path:
    rows = [
        {
            "index": number,
            "category": "random",
            "question": f"Is it {number}?",
            "answer": "Yes" if number % 2 else "No",
            "image": "?" * 100 if number == broken else encoded(number),
        }
        for number in range(count)
    ]
    write_table(folder / "POPE.tsv", rows)
    return folder


def plan(tmp_path: Path, name: str = "run", **settings: Any) -> Plan:
    return Plan(("pope",), tmp_path / name, pope(tmp_path / "data"), Settings(batch=2, **settings))


def tiny_run(given: Plan, at: Share | None = None, reporter: Quiet | None = None) -> Any:
    return run(given, lambda: tiny.tiny_janus("janus"), at or Share(), reporter or Quiet())


def told(folder: Path) -> Any:
    result = json.loads((folder / "pope" / "result.json").read_text())
    return {key: result[key] for key in ("scores", "samples", "counted", "skipped", "empty")}


def lines(folder: Path) -> list[str]:
    return sorted(line for path in (folder / "pope").glob("samples-*.jsonl") for line in path.read_text().splitlines())


# -- what a batch is -----------------------------------------------------------------------


def question(name: str, **changes: Any) -> Question:
    return replace(Question(name, "task", "What?", (picture,), {}), **changes)


def painting(name: str, count: int = 1) -> Painting:
    return Painting(name, "task", "a cat", {}, count, tuple(f"{name}/{number}.png" for number in range(count)))


def test_batches_are_a_function_of_the_cases_alone():
    cases = [painting("a", 4), painting("b", 4), painting("c", 4), question("d"), question("e", system_prompt=""), question("f")]
    assert [[case.id for case in batch] for batch in batches(cases, 8)] == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert [[case.id for case in batch] for batch in batches(cases[:2], 1)] == [["a"], ["b"]]


def test_a_limit_is_of_each_task_and_keeps_together_what_belongs_together():
    cases = [question(f"{number}", task="ab"[number % 2], group=f"{number // 4}{number % 2}") for number in range(12)]
    assert [case.id for case in limited(cases, 1)] == ["0", "1", "2", "3"]
    assert limited(cases, None) == cases


# -- files ---------------------------------------------------------------------------------


def test_a_line_that_a_kill_cut_short_is_left_out_and_cut_off(tmp_path: Path):
    path = tmp_path / "samples-0.jsonl"
    append_lines(path, [{"a": 1}])
    with path.open("ab") as file:
        file.write(b'{"a": 2')
    assert read_lines(path) == [{"a": 1}]
    append_lines(path, [{"a": 3}])
    assert read_lines(path) == [{"a": 1}, {"a": 3}]
    path.write_text("broken\n")
    with pytest.raises(DataError, match=r"samples-0.jsonl line 1 is no JSON"):
        read_lines(path)


def test_two_processes_cannot_write_the_same_samples(tmp_path: Path):
    samples = Samples(tmp_path)
    with samples.locked(), pytest.raises(DataError, match="another process is at work"), Samples(tmp_path).locked():
        pass
    with Samples(tmp_path).locked(), Samples(tmp_path, rank=1).locked():
        pass


def test_a_full_disk_says_that_nothing_is_lost(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written.*what was saved before is intact"):
        append_lines(tmp_path / "file" / "x.jsonl", [{}])


# -- runs ----------------------------------------------------------------------------------


def test_a_run_leaves_samples_scores_and_a_report_that_opens_offline(tmp_path: Path):
    (finished,) = tiny_run(plan(tmp_path))
    folder = tmp_path / "run"
    assert {path.name for path in (folder / "pope").iterdir() if not path.name.startswith(".")} == {
        "settings.json",
        "samples-0.jsonl",
        "judgements.jsonl",
        "result.json",
        "examples.json",
    }
    assert len(lines(folder)) == 6 and set(json.loads(lines(folder)[0])) >= {"case", "number"}
    report = json.loads((folder / "report.json").read_text())["benchmarks"][0]
    assert report["scores"][0]["name"] == "F1" and report["scores"][0]["published"]["Janus-Pro-7B"] == 87.4
    assert report["model"]["fingerprint"] == fingerprint(tiny.tiny_model("janus")) and report["settings"]["batch"] == 2
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "data:image/png;base64," in page and "Janus-Pro-7B" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page and "<script" not in page
    assert finished.result["samples"] == 6


def test_a_run_goes_on_where_it_was(tmp_path: Path):
    tiny_run(plan(tmp_path, "whole"))
    given, path = plan(tmp_path), tmp_path / "run" / "pope" / "samples-0.jsonl"
    tiny_run(given)
    # As after a kill: the second batch half written, the third not begun.
    kept = path.read_text().splitlines(keepends=True)[:3]
    path.write_text("".join(kept) + '{"case": "3", "num')
    reporter = Quiet()
    tiny_run(given, reporter=reporter)
    assert path.read_text().splitlines(keepends=True)[:3] == kept
    assert lines(tmp_path / "run") == lines(tmp_path / "whole") and told(tmp_path / "run") == told(tmp_path / "whole")
    assert any("going on" in note for note in reporter.notes)


def test_a_finished_run_asks_the_model_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = plan(tmp_path)
    tiny_run(given)
    before = told(tmp_path / "run")
    monkeypatch.setattr(Janus, "understand", lambda *_, **__: pytest.fail("asked again"))
    tiny_run(given)
    assert told(tmp_path / "run") == before


def test_two_processes_come_to_what_one_comes_to(tmp_path: Path):
    tiny_run(plan(tmp_path, "one"))
    shared = plan(tmp_path, "two")
    # The second first: the first waits for nobody then.
    assert tiny_run(shared, Share(1, 2, 1)) == []
    assert not (tmp_path / "two" / "report.json").exists()
    tiny_run(shared, Share(0, 2, 0))
    assert lines(tmp_path / "one") == lines(tmp_path / "two") and told(tmp_path / "one") == told(tmp_path / "two")
    assert len((tmp_path / "two" / "pope" / "samples-1.jsonl").read_text().splitlines()) == 2


def test_no_batch_sees_what_an_earlier_one_left_in_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A prompt that begins like one of the batch before would be read on from there, which rounds otherwise.
    engines, understand = [], Janus.understand

    def watched(self: Janus, *given: Any, **settings: Any) -> Any:
        engines.append(self.engine)
        return understand(self, *given, **settings)

    monkeypatch.setattr(Janus, "understand", watched)
    tiny_run(plan(tmp_path))
    assert len(engines) == 3 and len(set(map(id, engines))) == 3


def test_scores_alone_take_no_model(tmp_path: Path):
    given = plan(tmp_path)
    with pytest.raises(DataError, match="has no samples of pope"):
        tiny_run(replace(given, score_only=True))
    tiny_run(given)
    before = told(tmp_path / "run")
    run(replace(given, score_only=True, data=None), lambda: pytest.fail("loaded"), Share(), Quiet())
    assert told(tmp_path / "run") == before
    other = replace(given, score_only=True, settings=Settings(protocol="official"))
    (finished,) = run(other, lambda: pytest.fail("loaded"), Share(), Quiet())
    assert "sampled under the protocol vlmevalkit, scored under official" in finished.result["warnings"]
    path = tmp_path / "run" / "pope" / "samples-0.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match=r"lacks 1 of 6 samples \(first: case 0\)"):
        tiny_run(replace(given, score_only=True))


def test_another_run_in_the_folder_is_not_mixed_up_with_this_one(tmp_path: Path):
    tiny_run(plan(tmp_path))
    with pytest.raises(ConfigError, match="holds another run: seed is 0 there and 1 here"):
        tiny_run(plan(tmp_path, seed=1))
    with pytest.raises(ConfigError, match="the model's fingerprint is"):
        run(plan(tmp_path), lambda: tiny.tiny_janus("janusflow"), Share(), Quiet())


def test_an_image_that_cannot_be_read_is_a_listed_skip(tmp_path: Path):
    given = replace(plan(tmp_path), data=pope(tmp_path / "broken", broken=3))
    tiny_run(given)
    result = told(tmp_path / "run")
    assert (result["samples"], result["counted"]) == (6, 5)
    assert [one["case"] for one in result["skipped"]] == ["3"] and "base64" in result["skipped"][0]["why"]
    assert "1 samples were skipped" in (tmp_path / "run" / "report.html").read_text()


def test_a_question_that_is_too_long_costs_itself_alone(tmp_path: Path):
    janus = tiny.tiny_janus("janus")
    cases = [question("a", text="Why?"), question("b", text="word " * 400), question("c", text="How?")]
    cases = [replace(case, max_tokens=2) for case in cases]
    samples = Samples(tmp_path)
    sample(cases, janus, samples, Settings(), Share())
    made = samples.read()
    assert "reads at most" in made["b", 0].error and made["a", 0].error == made["c", 0].error == ""
    assert missing(cases, made) == []


def test_empty_answers_are_counted_and_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Janus, "understand", lambda self, asked, images, **_: [""] * len(asked))
    tiny_run(plan(tmp_path))
    result = told(tmp_path / "run")
    assert len(result["empty"]) == 6 and next(one for one in result["scores"] if one["name"] == "random accuracy")["value"] == 0


def test_roles_of_a_protocol_are_written_whatever_the_checkpoints_are():
    janus = tiny.tiny_janus("janus")
    other = speaking(janus, ("Asker", "Answerer"))
    from openjanus.types import Message

    def text(one: Janus) -> str:
        return one.processor.chat.render([Message("system", ""), Message("user", "Hi")], add_reply=True)

    assert text(other) == "Asker: Hi\n\nAnswerer:" != text(janus)
    assert speaking(janus, None) is janus


# -- pictures ------------------------------------------------------------------------------


def test_pictures_are_painted_from_their_seeds_and_kept_with_what_belongs_beside_them(tmp_path: Path):
    janus = tiny.tiny_janus("janus")
    case = replace(painting("00000", 2), beside={"00000/metadata.jsonl": "{}\n"})
    samples = Samples(tmp_path)
    sample([case], janus, samples, Settings(seed=7), Share())
    made = samples.read()
    assert made["00000", 1] == Sample("00000", 1, image="00000/1.png", seed=8)
    (alone,) = janus.generate("a cat", n=1, seed=8)
    assert Image.open(tmp_path / "00000" / "1.png").tobytes() == alone.tobytes()
    assert (tmp_path / "00000" / "metadata.jsonl").read_text() == "{}\n"


def test_one_file_for_several_pictures_is_a_sheet(tmp_path: Path):
    janus = tiny.tiny_janus("janus")
    case = Painting("p", "task", "a cat", {}, 4, ("images/p.png",))
    sample([case], janus, Samples(tmp_path), Settings(), Share())
    sheet, pictures = Image.open(tmp_path / "images" / "p.png"), janus.generate("a cat", n=4, seed=0)
    width, height = pictures[0].size
    assert sheet.size == (2 * width, 2 * height)
    assert sheet.crop((0, height, width, 2 * height)).tobytes() == pictures[2].tobytes()


def test_a_fingerprint_changes_with_the_weights():
    from copy import deepcopy

    model = torch.nn.Linear(3, 2)
    other = deepcopy(model)
    assert fingerprint(model) == fingerprint(other)
    with torch.no_grad():
        other.weight[1, 2] += 1e-4
    assert fingerprint(model) != fingerprint(other) != fingerprint(other.to(torch.bfloat16))


# -- comparing -----------------------------------------------------------------------------


def test_two_runs_are_compared_score_by_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.evaluate.intervals.PERMUTATIONS", 500)
    right = ["No", "Yes"] * 3
    for name, answers in (("a", ["Yes"] * 6), ("b", right)):
        said = iter(answers)
        monkeypatch.setattr(Janus, "understand", lambda self, asked, images, said=said, **_: [next(said) for _ in asked])
        tiny_run(plan(tmp_path, name))
    compared = compare_runs(tmp_path / "a", tmp_path / "b")
    accuracy = next(one for one in compared.scores if one.score == "random accuracy")
    assert (accuracy.a, accuracy.b) == (50, 100) and accuracy.difference is not None
    # Three questions differ, all one way: of eight swaps two are as large.
    assert accuracy.difference.p == pytest.approx(0.25, abs=0.08)
    assert "random accuracy" in compared.to_text() and "not significant" in compared.to_text()
    assert json.loads(json.dumps(compared.to_json()))["scores"][0]["score"] == "F1"
    with pytest.raises(DataError, match=r"no finished benchmark.*--compare wants two folders"):
        compare_runs(tmp_path / "a", tmp_path / "absent")


# -- processes of their own ------------------------------------------------------------------


def command(model: str, folder: Path, *more: str) -> list[str]:
    asked = ["evaluate", "shapes", "--model", model, "--limit", "1", "--images-per-prompt", "1", "--batch", "2", "--steps", "4"]
    return [sys.executable, "-m", "openjanus", *asked, "--device", "cpu", "-o", str(folder), *more]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | more


def shapes_told(folder: Path) -> tuple[Any, list[str]]:
    result = json.loads((folder / "shapes" / "result.json").read_text())
    made = sorted(line for path in (folder / "shapes").glob("samples-*.jsonl") for line in path.read_text().splitlines())
    return result["scores"], made


def painted(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.mark.multiproc
@pytest.mark.timeout(900)  # five starts of the command, on a machine that others may use too
@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("model", ["janus-tiny", "janusflow-tiny"])
def test_shapes_killed_in_the_middle_and_on_two_processes_agree_to_the_last_digit(model: str, tmp_path: Path):
    # In the number format that the machine chooses: bfloat16 where there are matrix units, whose sums depend most on what runs
    # together.
    whole, killed, shared = tmp_path / "whole", tmp_path / "killed", tmp_path / "shared"
    # Alone a process has all of a machine's threads, and under torchrun one: what threads share is added up in another order.
    subprocess.run(command(model, whole), env=environment(OMP_NUM_THREADS="2"), check=True, capture_output=True)
    process = subprocess.Popen(command(model, killed), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    path = killed / "shapes" / "samples-0.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cut = path.read_bytes()
    assert cut.count(b"\n") < 17
    subprocess.run(command(model, killed), env=environment(), check=True, capture_output=True)
    assert path.read_bytes().startswith(cut[: cut.rfind(b"\n") + 1])
    ranks = [
        subprocess.Popen(
            command(model, shared, "--json"),
            env=environment(RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], outputs
    assert outputs[1][0] == b"" and json.loads(outputs[0][0])["benchmark"] == "shapes"
    assert shapes_told(whole) == shapes_told(killed) == shapes_told(shared)
    assert painted(whole) == painted(killed) == painted(shared)
