"""Who may ask, how often, how much; what the server says of itself; how it stops."""

import asyncio
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from openjanus.engine.engine import EngineOptions
from openjanus.errors import ConfigError
from openjanus.serve.guard import Guard
from openjanus.serve.logs import JsonLines
from openjanus.serve.metrics import Metrics
from openjanus.serve.rates import Rates
from openjanus.serve.refusals import Refusal
from openjanus.serve.settings import Limits, ServeSettings
from serve.live import Live, eventually, running, slowly
from serve.server_process import command

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
LONG: dict[str, Any] = {"prompt": "a red circle", "n": 1}


def ask(live: Live, **headers: str) -> httpx.Response:
    return live.post("/v1/chat/completions", json=HELLO, headers=headers)


# -- keys and addresses --------------------------------------------------------------


def test_with_keys_nobody_asks_without_one():
    keys = ("first-key-1", "second-key-2")
    with running(keys=keys) as live:
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/v1/nothing"):
            answer = httpx.get(live.url + path)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key", path
            assert answer.headers["www-authenticate"].startswith("Basic")
        for wrong in ("wrong-key-3", "first-key-", "first-key-11", "\N{SNOWMAN}"):
            header = {"Authorization": f"Bearer {wrong}".encode()}
            assert live.post("/v1/chat/completions", json=HELLO, headers=header).status_code == 401
        for key in keys:
            assert live.client(key).chat.completions.create(model=live.name, **HELLO).choices
        with pytest.raises(openai.AuthenticationError):
            live.client("sk-nothing").models.list()
        assert httpx.get(f"{live.url}/v1/models", auth=("anybody", keys[1])).status_code == 200, "how a browser sends it"
        assert httpx.get(f"{live.url}/health").status_code == httpx.get(f"{live.url}/ready").status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_reach_is_refused_without_a_key(host: str):
    with pytest.raises(ConfigError, match="there is no API key"):
        ServeSettings(host=host)
    ServeSettings(host=host, keys=("long-enough",))
    ServeSettings(host=host, insecure=True)
    ServeSettings(host="127.0.0.1")
    ServeSettings(host="::1")


@pytest.mark.parametrize(
    "settings", [{"keys": ("short",)}, {"keys": ("with spaces",)}, {"port": 70000}, {"public_url": "http://["}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError, match="must"):
        ServeSettings(**settings)
    with pytest.raises(ConfigError, match="queue is 0; it must be 1 or more"):
        Limits(queue=0)


def hosts(live: Live, *names: str) -> list[int]:
    return [httpx.get(f"{live.url}/v1/models", headers={"host": name}).status_code for name in names]


def test_a_name_of_somebody_else_that_leads_here_is_refused_where_no_key_is_asked_for(janus_server: Live):
    known = ("localhost", "LocalHost:8000", "127.0.0.1:1", "127.9.9.9", "[::1]:8000", "localhost.")
    others = ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", "localhost.evil.example")
    assert set(hosts(janus_server, *known)) == {200} and set(hosts(janus_server, *others)) == {403}
    refused = ask(janus_server, host="evil.example:8000", origin="http://evil.example:8000")
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "unknown_host"
    assert "not as evil.example" in refused.json()["error"]["message"] and "--insecure" in refused.json()["error"]["message"]
    for settings in ({"keys": ("long-enough",)}, {"insecure": True}, {"public_url": "https://evil.example/janus"}):
        assert ServeSettings(**settings).knows_host("evil.example")  # type: ignore[arg-type]
    assert not ServeSettings(public_url="https://good.example").knows_host("evil.example")


@pytest.mark.parametrize("host", ["[", "[x", "a b", "a/b", "a@b", "\xff", "", "a:b", "[::1]x"])
def test_a_host_that_is_none_is_told_so(host: str):
    with running(keys=("long-enough",)) as live:
        for path in ("/health", "/nothing"):
            answer = httpx.get(live.url + path, headers={"host": host.encode("latin-1")})  # type: ignore[dict-item]
            assert answer.status_code == 400, (host, answer.text)


def test_pages_of_other_origins_may_not_ask(janus_server: Live):
    assert ask(janus_server, origin="http://evil.example").status_code == 403
    assert ask(janus_server, origin="null").status_code == 403
    assert ask(janus_server, origin=janus_server.url).status_code == 200
    assert "access-control-allow-origin" not in httpx.get(f"{janus_server.url}/v1/models").headers


def test_pages_of_an_allowed_origin_may_ask():
    with running(cors=("https://app.example",), keys=("long-enough",), limits={"rate": 1, "body_bytes": 1000}) as live:
        preflight = {"origin": "https://app.example", "access-control-request-method": "POST"}
        answer = httpx.options(f"{live.url}/v1/chat/completions", headers=preflight)
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://app.example"
        own = {"origin": "https://app.example", "authorization": "Bearer long-enough"}
        large = live.post("/v1/chat/completions", content=b" " * 2000, headers=own)
        answers = [ask(live, **own), ask(live, **own), ask(live, origin="https://app.example"), large]
        assert [answer.status_code for answer in answers] == [200, 429, 401, 413]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == "https://app.example", "what is refused can be read, too"
            assert {"retry-after", "x-request-id"} <= set(answer.headers["access-control-expose-headers"].lower().split(", "))
        other = ask(live, origin="https://other.example", authorization="Bearer long-enough")
        assert other.status_code == 403 and "access-control-allow-origin" not in other.headers


# -- rates and queues ----------------------------------------------------------------


def test_a_caller_who_asks_too_often_is_told_when_to_come_back():
    with running(keys=("long-enough", "another-one"), limits={"rate": 3}) as live:
        answers = [ask(live, authorization="Bearer long-enough") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers.get("x-ratelimit-remaining-requests") for answer in answers[:3]] == ["2", "1", "0"]
        assert 1 <= int(answers[3].headers["retry-after"]) <= 20
        assert answers[3].json()["error"]["type"] == "rate_limit_error"
        with pytest.raises(openai.RateLimitError):
            live.client("long-enough").chat.completions.create(model=live.name, **HELLO)
        assert ask(live, authorization="Bearer another-one").status_code == 200, "others have a rate of their own"
        assert httpx.get(f"{live.url}/v1/models", headers={"authorization": "Bearer long-enough"}).status_code == 200


def test_a_bucket_fills_again_and_idle_callers_are_forgotten():
    rates = Rates(rate=60, concurrent=0)
    for _ in range(60):
        rates.enter("a", 100.0)
        rates.leave("a")
    with pytest.raises(Refusal) as refused:
        rates.enter("a", 100.5)
    assert refused.value.headers == {"Retry-After": "1"}
    rates.enter("a", 101.6)
    for number in range(20_500):
        rates.enter(str(number), 200.0 + number)
        rates.leave(str(number))
    assert len(rates.callers) <= 10_001 and "a" in rates.callers, "who has something running is remembered"


@contextmanager
def painting(live: Live, headers: dict[str, str] | None = None, **more: Any) -> Iterator[httpx.Response]:
    """While a picture is painted."""
    body = {**LONG, "stream": True, **more}
    with httpx.stream("POST", f"{live.url}/v1/images/generations", json=body, headers=headers, timeout=60) as stream:
        assert stream.status_code == 200
        yield stream


def test_a_caller_with_too_many_requests_at_a_time_waits(live: Live):
    with running((live.name,), limits={"concurrent": 1}) as strict:
        with slowly(0.3), painting(strict):
            answer = ask(strict)
            assert answer.status_code == 429 and answer.json()["error"]["code"] == "concurrency_limit"
            assert answer.headers["retry-after"] == "1"
        assert eventually(lambda: ask(strict).status_code == 200)


def test_a_full_queue_refuses_and_says_so(live: Live):
    with running((live.name,), EngineOptions(lanes=2), limits={"queue": 3}) as full:
        with slowly(0.3), painting(full, n=3):
            answer = ask(full)
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) > 0
            assert httpx.get(f"{full.url}/ready").status_code == 503
            assert httpx.get(f"{full.url}/ready").json()["models"] == {full.name: "full"}
            assert httpx.get(f"{full.url}/health").status_code == 200
            for gauge in ("queue_length", "running_rows"):
                line = f'openjanus_{gauge}{{model="{full.name}"}} 2.0'
                assert eventually(lambda line=line: line in httpx.get(f"{full.url}/metrics").text), line
        assert full.settles() and httpx.get(f"{full.url}/ready").status_code == 200
        with pytest.raises(openai.InternalServerError, match="requests to work on"):
            full.client().images.generate(prompt="a", n=4)


def test_a_request_that_takes_too_long_ends():
    with running(limits={"seconds": 0.2}) as live:
        answer = live.post("/v1/images/generations", json={**LONG, "n": 10})
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
        assert live.settles()


def test_an_answer_that_takes_longer_than_a_body_may_is_not_cut_off():
    """The page's streams are read so: they ask again and again whether anybody is still there."""
    told: list[bool] = []

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(3):
            told.append(await Request(scope, receive).is_disconnected())
            await asyncio.sleep(0.05)
        await Response("done")(scope, receive, send)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    guard = Guard(patient, ServeSettings(limits=Limits(body_seconds=0.01)), Metrics(), Rates(0, 0))
    scope = {"type": "http", "method": "GET", "path": "/stream", "headers": [], "client": ("127.0.0.1", 1)}
    asyncio.run(guard(scope, receive, send))
    assert told == [False] * 3 and sent[0]["status"] == 200


# -- what it says of itself ----------------------------------------------------------


def test_numbers_for_prometheus_add_up(live: Live):
    def number(name: str, **labels: str) -> float:
        found = live.service.metrics.registry.get_sample_value(f"openjanus_{name}", {"model": live.name, **labels})
        return found or 0.0

    names = ("answers_total", "tokens_total", "images_total", "prompt_tokens_total", "answer_seconds_count")
    names = (*names, "time_to_first_token_seconds_count", "image_seconds_count", "step_seconds_count")
    before = {name: number(name) for name in names}
    client = live.client()
    usage = client.chat.completions.create(model=live.name, messages=HELLO["messages"], max_tokens=3, n=2).usage
    client.images.generate(prompt="a star", n=2, extra_body={"steps": 2} if live.worker.takes_steps else {})
    after = {name: number(name) - before[name] for name in names}
    assert usage and after.pop("step_seconds_count") >= 3
    assert after == {
        "answers_total": 2,
        "tokens_total": usage.completion_tokens,
        "prompt_tokens_total": 2 * usage.prompt_tokens,
        "images_total": 2,
        "answer_seconds_count": 2,
        "time_to_first_token_seconds_count": 2,
        "image_seconds_count": 2,
    }
    assert live.settles() and number("running_rows") == number("open") == 0 < number("cache_rows")
    text = httpx.get(f"{live.url}/metrics").text
    assert 'path="/v1/images/generations",status="200"' in text and "process_resident_memory_bytes" in text


def test_refusals_are_counted_by_their_code_and_unknown_paths_as_one(janus_server: Live):
    for path in ("/nothing/a", "/nothing/b"):
        assert httpx.get(janus_server.url + path).status_code == 404
    janus_server.post("/v1/chat/completions", json={})
    registry = janus_server.service.metrics.registry
    assert registry.get_sample_value("openjanus_refusals_total", {"code": "invalid_value"})
    assert "/nothing" not in httpx.get(f"{janus_server.url}/metrics").text


def test_every_answer_bears_a_number(janus_server: Live):
    given = ask(janus_server, **{"x-request-id": "abc-1.2"})
    assert given.headers["x-request-id"] == "abc-1.2"
    for odd in ("a b", "x" * 200, 'a"b', "a\tb"):
        own = ask(janus_server, **{"x-request-id": odd}).headers["x-request-id"]
        assert own.startswith("req-") and own != odd
    assert httpx.get(f"{janus_server.url}/nothing").headers["x-request-id"]


def log_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "openjanus.serve"]


def test_logs_tell_what_was_asked_but_not_the_words(live: Live, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "openjanus.serve"):
        body = {"messages": [{"role": "user", "content": "My secret"}], "max_tokens": 1}
        answer = live.post("/v1/chat/completions", json=body)
        live.post("/v1/images/generations", json={"prompt": "My secret", "size": "1x1"})
        eventually(lambda: len(log_lines(caplog)) >= 2)
    lines = log_lines(caplog)
    assert lines[0]["request"] == answer.headers["x-request-id"] and lines[0]["model"] == live.name
    assert lines[0]["status"] == 200 and lines[0]["completion_tokens"] == 1 and lines[0]["prompt_tokens"] > 1
    assert lines[1]["status"] == 400 and lines[1]["code"] == "invalid_value"
    assert "secret" not in caplog.text


def test_a_line_of_the_log_is_json_whoever_writes_it_and_holds_the_traceback():
    lines = JsonLines()
    try:
        raise ZeroDivisionError("a kernel\ngave up")
    except ZeroDivisionError as error:
        trouble = (type(error), error, error.__traceback__)
    ours = logging.LogRecord("openjanus.serve", logging.ERROR, "", 1, json.dumps({"event": "fault"}), None, trouble)
    theirs = logging.LogRecord("uvicorn.error", logging.ERROR, "", 1, "Exception in\n%s", ("app",), None)
    first, second = lines.format(ours), lines.format(theirs)
    assert "\n" not in first + second
    assert json.loads(first)["event"] == "fault" and "ZeroDivisionError: a kernel\ngave up" in json.loads(first)["traceback"]
    assert json.loads(second) | {"time": ""} == {
        "time": "",
        "event": "log",
        "logger": "uvicorn.error",
        "level": "error",
        "message": "Exception in\napp",
    }


def test_logs_hold_the_words_if_asked_to(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "openjanus.serve"), running(log_prompts=True) as live:
        ask(live)
        eventually(lambda: bool(log_lines(caplog)))
    assert log_lines(caplog)[0]["messages"] == [{"role": "user", "text": "Hello"}]


def test_the_reference_needs_nothing_from_elsewhere(janus_server: Live):
    page = httpx.get(f"{janus_server.url}/docs").text
    assert "/v1/images/generations" in page and "guidance_scale" in page and "max_completion_tokens" in page
    assert "<script" not in page and "http" not in page.replace("<!doctype html>", "").replace("HTTP", "").replace(
        "https", "http"
    )
    schema = httpx.get(f"{janus_server.url}/openapi.json").json()
    assert set(schema["paths"]) >= {"/v1/models", "/v1/chat/completions", "/v1/images/generations", "/ready", "/metrics"}


def test_each_server_counts_for_itself():
    Metrics(), Metrics()
    with pytest.raises(ConfigError, match="each needs one of its own"):
        running(("janus-tiny", "janus-tiny")).__enter__()


# -- the command ---------------------------------------------------------------------


def test_a_server_that_is_told_to_stop_finishes_what_it_has_begun():
    with command() as (process, url):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        stream = client.images.generate(prompt="a red circle", stream=True, n=6, partial_images=1)
        next(iter(stream))
        process.send_signal(signal.SIGTERM)
        assert eventually(lambda: httpx.get(f"{url}/ready").status_code == 503)
        assert set(httpx.get(f"{url}/ready").json()["models"].values()) == {"draining"}
        refused = httpx.post(f"{url}/v1/chat/completions", json=HELLO)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "draining"
        kinds = [event.type for event in stream]
        assert kinds.count("image_generation.completed") == 6
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_a_server_that_is_killed_under_load_starts_again_at_the_same_place():
    with command() as (process, url):
        streams = [
            httpx.Client().send(httpx.Request("POST", f"{url}/v1/images/generations", json={**LONG, "stream": True}), stream=True)
            for _ in range(4)
        ]
        process.kill()
        assert process.wait(30) == -signal.SIGKILL
        with pytest.raises(httpx.HTTPError):
            for stream in streams:
                stream.read()
        port = int(url.rsplit(":", 1)[1])
        with command(port=port) as (_, again):
            assert again == url
            assert httpx.post(f"{url}/v1/chat/completions", json=HELLO, timeout=60).status_code == 200


def test_several_quantized_models_are_served_by_one_command():
    with command("--model", "janus-tiny", "-m", "janusflow-tiny", "--quantize", "int8", "--device", "cpu") as (_, url):
        assert set(httpx.get(f"{url}/ready").json()["models"]) == {"janus-tiny", "janusflow-tiny"}
        for name in ("janus-tiny", "janusflow-tiny"):
            asked = {"model": name, "prompt": "a red circle", **({"steps": 2} if "flow" in name else {})}
            assert httpx.post(f"{url}/v1/images/generations", json=asked, timeout=60).json()["data"][0]["b64_json"]
            assert httpx.post(f"{url}/v1/chat/completions", json={**HELLO, "model": name}, timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "there is no API key"),
        (["--api-key-file", "absent.txt"], "the API keys in absent.txt cannot be read"),
        (["--model", "absent-model"], "there is no folder 'absent-model'"),
        (["--queue", "0"], "queue is 0; it must be 1 or more"),
        (["--rows", "0"], "lanes is 0; it must be 1 or more"),
        (["--host", "999.1.1.1", "--insecure"], "cannot listen on 999.1.1.1:8000"),
    ],
)
def test_a_command_that_cannot_serve_says_why_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from openjanus.cli import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    port = [] if "999.1.1.1" in arguments else ["--port", "0"]
    assert main(["serve", "--no-page", *port, *arguments]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and words in errors[0]


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(janus_server: Live, capsys: pytest.CaptureFixture[str]):
    from openjanus.cli import main

    port = janus_server.url.rsplit(":", 1)[1]
    assert main(["serve", "--no-page", "--port", port, "--model", "absent-model"]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
