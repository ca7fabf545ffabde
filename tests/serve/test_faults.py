"""What goes wrong around a server: clients that leave, bodies that do not arrive, an engine that breaks off."""

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from openjanus.engine.batch import Batch
from openjanus.engine.rows import Row
from openjanus.errors import ImageError
from serve.live import Live, eventually, running, slowly

Patch = pytest.MonkeyPatch


def address(live: Live) -> tuple[str, int]:
    host, port = live.url.removeprefix("http://").split(":")
    return host, int(port)


@contextmanager
def line_to(live: Live) -> Iterator[socket.socket]:
    """A bare connection."""
    with socket.create_connection(address(live), timeout=30) as line:
        yield line


def head(path: str, length: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n".encode()
    )


def everything(line: socket.socket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    while part := line.recv(65536):
        found += part
    return found


def slow_picture(live: Live, n: int = 1) -> dict[str, Any]:
    """One that takes a while."""
    return {
        "prompt": "a red circle",
        "stream": True,
        "partial_images": 3,
        "n": n,
        **({"steps": 900} if live.worker.takes_steps else {}),
    }


def opened(text: str) -> Any:
    return np.asarray(Image.open(BytesIO(base64.b64decode(text)))).astype(int)


def works(live: Live) -> bool:
    answer = live.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
    return answer.status_code == 200


# -- clients -------------------------------------------------------------------------


def test_a_client_that_leaves_a_stream_of_pictures_frees_its_rows(live: Live):
    given_up = live.service.metrics.given_up.labels(live.name)._value.get()
    with slowly(0.3):
        with httpx.stream("POST", f"{live.url}/v1/images/generations", json=slow_picture(live, 4), timeout=60) as stream:
            assert stream.status_code == 200 and eventually(lambda: live.worker.engine.rows == 8)
        assert live.settles()
    assert live.service.metrics.given_up.labels(live.name)._value.get() == given_up + 4
    assert works(live)


def test_a_client_that_leaves_in_the_middle_of_a_stream_of_words_frees_its_row(live: Live, monkeypatch: Patch):
    monkeypatch.setattr(live.janus.processor.tokenizer, "eos", -1)
    given_up = live.service.metrics.given_up.labels(live.name)._value.get()
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 250}
    with slowly(0.3):
        with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()  # kept: httpx leaves as soon as nobody holds them
            next(lines)
            assert live.worker.open == 1
        assert live.settles()
    assert live.service.metrics.given_up.labels(live.name)._value.get() == given_up + 1


def test_a_client_that_does_not_wait_for_its_answer_frees_its_rows(live: Live):
    given_up = live.service.metrics.given_up.labels(live.name)._value.get()
    body = json.dumps({**slow_picture(live, 4), "stream": False, "partial_images": 0}).encode()
    with slowly(0.3):
        with line_to(live) as line:
            line.sendall(head("/v1/images/generations", len(body)) + body)
            assert eventually(lambda: live.worker.engine.rows == 8)
        assert live.settles()
    assert live.service.metrics.given_up.labels(live.name)._value.get() == given_up + 4


def test_clients_that_come_and_leave_leave_nothing_behind(janus_server: Live):
    live = janus_server
    bodies = [json.dumps(slow_picture(live)).encode(), json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode()]

    def leave(number: int) -> None:
        body, path = bodies[number % 2], ("/v1/images/generations", "/v1/chat/completions")[number % 2]
        with line_to(live) as line:
            line.sendall((head(path, len(body)) + body)[: len(body) + 110 - number])
            time.sleep(0.01 * (number % 7))

    threads = [threading.Thread(target=leave, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert live.settles() and works(live)
    assert eventually(lambda: not any(caller.running for caller in _guard(live).rates.callers.values()))
    assert eventually(lambda: len(live.server.server_state.connections) == 0)
    assert not live.worker._running and not live.worker._queue and not live.worker._inbox


def _guard(live: Live) -> Any:
    layer = live.server.config.loaded_app
    while type(layer).__name__ != "Guard":
        layer = layer.middleware_stack if hasattr(layer, "middleware_stack") else layer.app
    return layer


# -- bodies --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict() -> Iterator[Live]:
    """A server of little patience."""
    with running(limits={"body_seconds": 0.5, "header_seconds": 0.5, "body_bytes": 5000}) as server:
        yield server


def test_a_body_that_stops_in_its_midst_is_answered_and_closed(strict: Live):
    with line_to(strict) as line:
        line.sendall(head("/v1/chat/completions", 100) + b'{"messages": ')
        answer = everything(line)
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.5 s" in answer and b"slow_body" in answer


def test_a_body_that_trickles_is_answered_and_closed(strict: Live):
    with line_to(strict) as line:
        line.sendall(head("/v1/chat/completions", 100))
        began = time.monotonic()
        while time.monotonic() - began < 0.7:
            with suppress(OSError):  # it may have closed already
                line.sendall(b" ")
            time.sleep(0.1)
        assert everything(line).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
def test_a_head_that_does_not_arrive_is_cut_off(strict: Live, start: bytes):
    with line_to(strict) as line:
        line.sendall(start)
        assert everything(line) == b""


@pytest.mark.parametrize("trickles", [False, True])
def test_a_later_head_that_does_not_arrive_is_cut_off_too(strict: Live, trickles: bool):
    first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with line_to(strict) as line:
        line.settimeout(10)
        line.sendall(first)
        answer = b""
        while not answer.endswith(b"}"):
            answer += line.recv(65536)
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        began = time.monotonic()
        while trickles and time.monotonic() - began < 1.5:
            with suppress(OSError):  # it may have closed already
                line.sendall(b"a")
            time.sleep(0.1)
        with suppress(ConnectionResetError):
            assert everything(line) == b""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_refused_while_it_is_read(strict: Live, chunked: bool):
    body = json.dumps({"messages": [{"role": "user", "content": "a" * 9000}]}).encode()
    content: Any = (body[i : i + 1000] for i in range(0, len(body), 1000)) if chunked else body
    answer = strict.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "more than 5,000 bytes" in answer.json()["error"]["message"]
    # A promise of more than anybody will read is not waited for.
    with line_to(strict) as line:
        line.sendall(head("/v1/chat/completions", 10**12))
        assert everything(line).startswith(b"HTTP/1.1 413")
    assert works(strict)


# -- the engine ----------------------------------------------------------------------


def broken_step(monkeypatch: Patch, when: Callable[[Batch], bool]) -> None:
    """Steps break off when something is so."""
    step = Batch.step

    def sometimes(self: Batch, strips: Any) -> Any:
        if when(self):
            raise ZeroDivisionError("a kernel gave up")
        return step(self, strips)

    monkeypatch.setattr(Batch, "step", sometimes)


def poisoned(batch: Batch) -> bool:
    return any(getattr(job, "text", "") == "poison" and job.done == 3 for job in batch.paintings)


def test_a_request_that_breaks_the_engine_fails_alone_and_the_others_go_on(live: Live, monkeypatch: Patch):
    broken_step(monkeypatch, poisoned)
    client = live.client()
    # The likeliest of everything, which rounding does not change.
    extra = {"seed": 4, **({"steps": 12} if live.worker.takes_steps else {"temperature": 0})}
    words: Any = {"model": live.name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 30}
    results: dict[str, Any] = {}

    def paint() -> None:
        events = client.images.generate(prompt="a red circle", stream=True, partial_images=3, extra_body=extra)
        results["picture"] = [(event.type, opened(event.b64_json)) for event in events]

    def text() -> None:
        chunks = client.chat.completions.create(**words, stream=True)
        results["text"] = [chunk.choices[0].delta.content or "" for chunk in chunks]

    def poison() -> None:
        try:
            client.images.generate(prompt="poison", extra_body=extra)
        except openai.InternalServerError as error:
            results["poison"] = error

    for _ in range(3):
        threads = [threading.Thread(target=one) for one in (paint, text, poison)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results["poison"].status_code == 500 and "x-request-id" in str(results["poison"])
        assert "kernel" not in str(results["poison"]), "what went wrong inside is told to the log alone"
        together = dict(results)
        paint()
        text()
        assert "".join(together["text"]) == "".join(results["text"])
        kinds, pictures = zip(*together["picture"], strict=True)
        assert kinds == ("image_generation.partial_image",) * 3 + ("image_generation.completed",)
        for picture, (_, alone) in zip(pictures, results["picture"], strict=True):
            assert np.abs(picture - alone).mean() < 2, "up to the rounding of kernels for more rows"
    assert live.settles() and httpx.get(f"{live.url}/ready").status_code == 200
    assert live.service.metrics.faults.labels(live.name)._value.get() >= 3


def test_an_engine_that_breaks_off_every_time_is_not_ready(live: Live, monkeypatch: Patch):
    with running((live.name,)) as sick:
        with monkeypatch.context() as patch:
            broken_step(patch, lambda _: True)
            for _ in range(3):
                assert not works(sick)
            for path in ("ready", "health"):
                assert httpx.get(f"{sick.url}/{path}").status_code == 503
            assert httpx.get(f"{sick.url}/health").json()["broken"] == [sick.name]
        assert works(sick), "it is still tried"
        assert httpx.get(f"{sick.url}/ready").status_code == httpx.get(f"{sick.url}/health").status_code == 200


def test_a_step_that_does_not_end_is_told_by_the_probes(live: Live, monkeypatch: Patch):
    with running((live.name,), limits={"step_seconds": 0.3}) as slow:
        step, ends = Batch.step, threading.Event()

        def hangs(self: Batch, strips: Any) -> Any:
            ends.wait(60)
            return step(self, strips)

        assert works(slow)
        monkeypatch.setattr(Batch, "step", hangs)
        asking = threading.Thread(target=works, args=(slow,))
        asking.start()
        try:
            assert eventually(lambda: httpx.get(f"{slow.url}/ready").status_code == 503)
            assert httpx.get(f"{slow.url}/ready").json() == {"ready": False, "models": {slow.name: "stuck"}}
            assert httpx.get(f"{slow.url}/health").status_code == 503
            assert httpx.get(f"{slow.url}/health").json()["broken"] == [slow.name]
        finally:
            ends.set()
            asking.join()
        assert httpx.get(f"{slow.url}/ready").status_code == httpx.get(f"{slow.url}/health").status_code == 200


def test_a_mistake_that_shows_when_a_prompt_is_read_fails_that_request_alone(live: Live, monkeypatch: Patch):
    embed = Row.embed

    def picky(self: Row, *rest: Any) -> Any:
        if self.slots.any():
            raise ImageError("this image cannot be looked at; send another")
        return embed(self, *rest)

    monkeypatch.setattr(Row, "embed", picky)
    from serve.test_openai_client import image_part, text_part, user

    with pytest.raises(openai.BadRequestError, match="cannot be looked at"):
        live.client().chat.completions.create(model=live.name, messages=[user(image_part(), text_part("What?"))], stream=True)
    assert works(live) and live.settles()


def test_too_little_memory_is_told_as_that(live: Live, monkeypatch: Patch):
    with monkeypatch.context() as patch:
        patch.setattr(Batch, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: not enough memory")))
        answer = live.post("/v1/images/generations", json={"prompt": "a star"})
    assert answer.status_code == 503 and "too little memory" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] and works(live)


def test_an_error_in_the_midst_of_a_stream_is_its_last_event(live: Live, monkeypatch: Patch):
    broken_step(monkeypatch, lambda batch: any(job.done == 5 for job in batch.paintings))
    stream = live.client().images.generate(
        prompt="a star", stream=True, partial_images=3, extra_body={"steps": 12} if live.worker.takes_steps else {}
    )
    with pytest.raises(openai.APIError, match="the server made a mistake"):
        list(stream)
    assert live.settles()


def test_a_server_that_ends_tells_those_who_wait(live: Live):
    with running((live.name,)) as short:
        with httpx.stream("POST", f"{short.url}/v1/images/generations", json=slow_picture(short, 10), timeout=60) as stream:
            assert stream.status_code == 200
            short.worker.stop()
            last = list(stream.iter_lines())
        assert any("stopped working" in line for line in last)
        assert httpx.get(f"{short.url}/ready").json()["models"] == {short.name: "broken"}
        refused = short.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]})
        assert refused.status_code == 503 and "started again" in refused.json()["error"]["message"]
