"""Judges behind a server: what they are asked, how they fail, and that nothing they said is lost."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openjanus.errors import ConfigError
from openjanus.evaluate.benchmark import Settings
from openjanus.evaluate.judges.text import JudgeError, Server, TextJudge
from openjanus.evaluate.judges.vqa import visual_judge
from openjanus.evaluate.tools import JudgeOptions, Tools, Verdicts
from openjanus.evaluate.understanding.mmvet import MMVet
from openjanus.evaluate.understanding.seed import SEED

from .official import answered, encoded, write_json, write_picture, write_table


class Desk:
    """A server whose answers are a list: texts, or HTTP codes. It remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                desk.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                desk.headers.append(self.headers)
                answer = desk.answers.pop(0) if len(desk.answers) > 1 else desk.answers[0]
                if isinstance(answer, int):
                    self.send_error(answer)
                    return
                self.send_response(200)
                self.end_headers()
                body = answer if isinstance(answer, dict) else {"choices": [{"message": {"content": answer}}]}
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.name = f"http://127.0.0.1:{self._server.server_port}/v1#judge"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(Server, "pause", 0.0)
    monkeypatch.setattr("openjanus.evaluate.judges.text.time.sleep", lambda _: None)
    monkeypatch.setenv("OPENJANUS_JUDGE_KEY", "secret")
    made = Desk()
    yield made
    made.close()


def test_a_judge_is_asked_with_its_key(desk: Desk):
    desk.answers = ["0.5"]
    assert TextJudge(desk.name).ask("grade this", temperature=0.5, max_tokens=3) == "0.5"
    (asked,) = desk.asked
    assert asked["model"] == "judge" and asked["messages"] == [{"role": "user", "content": "grade this"}]
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 3)
    assert desk.headers[0]["Authorization"] == "Bearer secret"


def test_a_judge_that_stumbles_is_asked_again_and_one_that_refuses_is_not(desk: Desk):
    desk.answers = [500, {"odd": 1}, "yes"]
    assert TextJudge(desk.name).ask("?") == "yes" and len(desk.asked) == 3
    desk.answers, desk.asked = [401], []
    with pytest.raises(JudgeError, match=r"the judge judge at http.* failed: HTTP 401"):
        TextJudge(desk.name).ask("?")
    assert len(desk.asked) == 1


def test_a_judge_that_is_not_there_or_too_slow_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("openjanus.evaluate.judges.text.time.sleep", lambda _: None)
    with pytest.raises(JudgeError, match=r"failed: .*refused"):
        TextJudge("http://127.0.0.1:9#judge", 1).ask("?")

    def slow(*_: Any, **__: Any) -> Any:
        raise TimeoutError("timed out")

    monkeypatch.setattr("openjanus.evaluate.judges.text.urlopen", slow)
    with pytest.raises(JudgeError, match="failed: timed out"):
        TextJudge("http://127.0.0.1:9#judge", 1).ask("?")


@pytest.mark.parametrize("name", ["gpt-4", "http://host/v1", "ftp://host#model"])
def test_a_judges_name_is_url_and_model(name: str):
    with pytest.raises(ConfigError, match="write URL#MODEL"):
        TextJudge(name)


def test_a_served_judge_sees_the_picture_and_says_one_word(desk: Desk):
    desk.answers = ["Yes, it is."]
    assert visual_judge(desk.name, 10).answer(Image.new("RGB", (4, 4)), "Is it red?") == "yes"
    image, text = desk.asked[0]["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,") and text["text"].startswith("Is it red?")


def test_verdicts_are_kept_and_errors_are_not(tmp_path: Path):
    verdicts = Verdicts(tmp_path / "verdicts.jsonl")
    assert verdicts.get("a", lambda: 1) == 1 and verdicts.get("a", lambda: 2) == 1
    with pytest.raises(JudgeError):
        verdicts.get("b", lambda: (_ for _ in ()).throw(JudgeError("no")))
    # A kill in the middle of a line costs that line.
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write('{"key": "c", "ver')
    again = Verdicts(tmp_path / "verdicts.jsonl")
    assert again.get("a", lambda: 3) == 1 and again.get("c", lambda: 4) == 4
    assert Verdicts(tmp_path / "verdicts.jsonl").get("c", lambda: 5) == 4


# -- MM-Vet ------------------------------------------------------------------------------


def mmvet_files(folder: Path) -> Path:
    record = {"question": "What is x?", "answer": "-1<AND>-5", "imagename": "v.png", "capability": ["ocr", "math"]}
    write_json(folder / "mm-vet.json", {"v1_0": record, "v1_1": record | {"answer": "a cat<OR>cats", "capability": ["rec"]}})
    write_picture(folder / "images" / "v.png")
    return folder


def test_mmvet_grades_and_averages_by_skill(desk: Desk, tmp_path: Path):
    desk.answers = ["0.5", "nonsense", "7", " 1.0"]
    benchmark = MMVet(Settings())
    cases = benchmark.cases(mmvet_files(tmp_path))
    assert cases[0].text == "<image_placeholder>\nWhat is x?" and "step by step" in (cases[0].system_prompt or "")
    told, judgements = answered(benchmark, cases, ["x = -1", "cat"], tmp_path / "out", JudgeOptions(judge=desk.name))
    assert {name: score.value for name, score in told.items()} == {"total": 75, "OCR": 50, "math": 50, "recognition": 100}
    last = desk.asked[-1]
    assert last["messages"][0]["content"].endswith("What is x? | a cat <OR> cats | cat | ")
    # What is no grade is asked for again, warmer each time.
    assert [one["temperature"] for one in desk.asked] == [0, 0, 0.5, 1.0]
    # A second time nobody is asked.
    desk.asked.clear()
    assert answered(benchmark, cases, ["x = -1", "cat"], tmp_path / "out", JudgeOptions(judge=desk.name))[1] == judgements
    assert not desk.asked


def test_mmvet_without_a_judge_or_with_one_that_fails_lists_skips(desk: Desk, tmp_path: Path):
    benchmark = MMVet(Settings())
    cases = benchmark.cases(mmvet_files(tmp_path))
    told, judgements = answered(benchmark, cases, ["a", "b"], tmp_path / "out")
    assert told == {} and all("no judge was named" in one.skipped for one in judgements)
    desk.answers = ["1.0", 404]
    told, judgements = answered(benchmark, cases, ["a", "b"], tmp_path / "out", JudgeOptions(judge=desk.name))
    assert told["total"].value == 100 and told["total"].count == 1 and "HTTP 404" in judgements[1].skipped
    desk.answers = ["a lot"]
    _, judgements = answered(benchmark, cases, ["c", "d"], tmp_path / "out", JudgeOptions(judge=desk.name))
    assert "gave no grade in 5 tries" in judgements[0].skipped


def test_the_official_prompt_is_used_where_it_lies(tmp_path: Path):
    benchmark = MMVet(Settings())
    warning = "the judge is asked in our words; put the official prompt into mm-vet_prompt.txt to compare with the papers"
    assert warning in benchmark.warnings(benchmark.cases(mmvet_files(tmp_path)))
    (tmp_path / "mm-vet_prompt.txt").write_text("Official\n")
    cases = benchmark.cases(tmp_path)
    assert cases[0].facts["prompt"] == "Official\n" and warning not in benchmark.warnings(cases)


def test_a_judge_matches_answers_that_rules_cannot(desk: Desk, tmp_path: Path):
    rows = [
        {"index": number, "question": "What?", "A": "cat", "B": "dog", "answer": "B", "image": encoded()} for number in range(2)
    ]
    write_table(tmp_path / "SEEDBench_IMG.tsv", rows)
    benchmark = SEED(Settings())
    cases = benchmark.cases(tmp_path)
    desk.answers = ["hm", "B"]
    told, _ = answered(benchmark, cases, ["a puppy", "A"], tmp_path / "out", JudgeOptions(judge=desk.name))
    assert told["accuracy"].value == 50 and len(desk.asked) == 2  # "A" needs no judge
    desk.answers = [403]
    told, judgements = answered(benchmark, cases, ["a whelp", "A"], tmp_path / "out", JudgeOptions(judge=desk.name))
    assert "HTTP 403" in judgements[0].skipped and told["accuracy"].count == 1


def test_tools_load_nothing_before_it_is_wanted(tmp_path: Path):
    tools = Tools(tmp_path, JudgeOptions(detector="nowhere", clip="nowhere", inception="nowhere", vqa="nowhere"))
    assert tools.text_judge is None
