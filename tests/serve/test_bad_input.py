"""Whatever strangers send is answered with a 4xx that helps; never a 500, never a traceback, and no file is touched."""

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from openjanus.engine.engine import Engine
from serve.live import SHAPES, Live, running

JSON = {"content-type": "application/json"}
CHAT, IMAGES = "/v1/chat/completions", "/v1/images/generations"


def helpful(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which must be of the right shape and tell something."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 10 and error["code"] and answer.headers["x-request-id"]
    assert "Traceback" not in answer.text and "/src/" not in answer.text and len(answer.text) < 3000
    return error


def chat(content: Any = "Hello", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 1, **more}


def shown(url: str) -> dict[str, Any]:
    return chat([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}])


def data_url(data: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def animation(kind: str) -> bytes:
    file, frames = BytesIO(), [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def jpeg() -> bytes:
    file = BytesIO()
    Image.open(SHAPES).convert("RGB").save(file, "JPEG")
    return file.getvalue()


PICTURE = data_url(SHAPES.read_bytes())
HUGE = 10**400
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"

BY_HAND: list[tuple[str, str, Any, str]] = [
    # what it is, where it goes, the body, what the answer must mention
    ("no messages", CHAT, {}, "messages"),
    ("empty messages", CHAT, {"messages": []}, "messages"),
    ("messages of another kind", CHAT, {"messages": "Hello"}, "messages"),
    ("a message that is a word", CHAT, {"messages": ["Hello"]}, "messages.0"),
    ("an unknown role", CHAT, {"messages": [{"role": "wizard", "content": "Hi"}]}, "role"),
    ("a tool's role", CHAT, {"messages": [{"role": "tool", "content": "Hi", "tool_call_id": "1"}]}, "role"),
    ("no content", CHAT, {"messages": [{"role": "user"}]}, "content"),
    ("null content", CHAT, chat(None), "content"),
    ("an empty question", CHAT, chat(""), "question"),
    ("no parts", CHAT, chat([]), "question"),
    ("an unknown part", CHAT, chat([{"type": "input_audio", "input_audio": {}}]), "input_audio"),
    ("the assistant last", CHAT, {"messages": [{"role": "assistant", "content": "Hi"}]}, "last message"),
    ("only a system message", CHAT, {"messages": [{"role": "system", "content": "Hi"}]}, "question"),
    (
        "a late system message",
        CHAT,
        {"messages": [*chat()["messages"], {"role": "system", "content": "Hi"}, *chat()["messages"]]},
        "system",
    ),
    ("an image of the assistant", CHAT, {"messages": [{**shown(PICTURE)["messages"][0], "role": "assistant"}]}, "assistant"),
    ("a huge number", CHAT, chat(max_tokens=HUGE), "max_tokens"),
    ("a larger context than there is", CHAT, chat(max_tokens=10**9), "context"),
    ("a word for a number", CHAT, chat(max_tokens="5"), "max_tokens"),
    ("truth for a number", CHAT, chat(max_tokens=True), "max_tokens"),
    ("half a token", CHAT, chat(max_tokens=1.5), "max_tokens"),
    ("two limits", CHAT, chat(max_completion_tokens=7), "differ"),
    ("NaN", CHAT, chat(temperature=float("nan")), "temperature"),
    ("infinity", CHAT, chat(top_p=float("inf")), "top_p"),
    ("a temperature below zero", CHAT, chat(temperature=-0.1), "temperature"),
    ("a temperature too high", CHAT, chat(temperature=2.1), "temperature"),
    ("a top_p of zero", CHAT, chat(top_p=0), "top_p"),
    ("negative n", CHAT, chat(n=-1), "n"),
    ("too large n", CHAT, chat(n=1000), "at most 10"),
    ("a negative seed", CHAT, chat(seed=-1), "seed"),
    ("a huge seed", CHAT, chat(seed=2**64), "seed"),
    ("an empty stop", CHAT, chat(stop=""), "stop"),
    ("a stop of numbers", CHAT, chat(stop=[1]), "stop"),
    ("many stops", CHAT, chat(stop=["a"] * 1000), "stop"),
    ("a stream that is a word", CHAT, chat(stream="yes"), "stream"),
    ("a model that is a number", CHAT, chat(model=5), "model"),
    ("another model", CHAT, chat(model="../../etc/passwd"), "there is no model"),
    ("an unknown parameter", CHAT, chat(colour="red"), "unknown parameter"),
    ("half a character", CHAT, chat("\ud800"), "UTF-8"),
    ("half a character as a name", CHAT, chat(**{"\udfff": 1}), "unicode"),
    ("long text", CHAT, chat("word " * 50_000), "characters"),
    ("more text than the model reads", CHAT, chat("word " * 3_000), "tokens"),
    ("a placeholder without an image", CHAT, chat("<image_placeholder>"), "image_placeholder"),
    ("1,000 images", CHAT, chat([*shown(data_url(png(1, 1)))["messages"][0]["content"][:1] * 1000]), "1000 images"),
    ("more images than the model reads", CHAT, chat([*shown(PICTURE)["messages"][0]["content"][:1] * 16]), "tokens"),
    ("no address", CHAT, shown(""), "data:"),
    ("a path", CHAT, shown(str(SHAPES)), "data:"),
    ("a file", CHAT, shown(f"file://{SHAPES}"), "data:"),
    ("a web address", CHAT, shown("https://example.org/a.png"), "data:"),
    ("an internal address", CHAT, shown("http://169.254.169.254/latest/meta-data"), "data:"),
    ("an address that is a number", CHAT, shown(5), "url"),  # type: ignore[arg-type]
    ("a data: URL without data", CHAT, shown("data:image/png;base64"), "data:"),
    ("a data: URL of nothing", CHAT, shown("data:image/png;base64,"), "image"),
    ("a data: URL that is no base64", CHAT, shown("data:image/png;base64,!!!!"), "base64"),
    ("a data: URL with a snowman", CHAT, shown("data:image/png;base64,\u2603"), "base64"),
    ("a data: URL that lies about its kind", CHAT, shown(data_url(b"<html>hello</html>")), "no kind that is read"),
    ("a data: URL of a page", CHAT, shown(data_url(SHAPES.read_bytes(), "text/html")), "text/html"),
    ("a data: URL of a program", CHAT, shown(data_url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")), "no kind"),
    ("an SVG", CHAT, shown(data_url(SVG, "image/svg+xml")), "SVG"),
    ("an animated GIF", CHAT, shown(data_url(animation("GIF"), "image/gif")), "animation"),
    ("an animated WebP", CHAT, shown(data_url(animation("WEBP"), "image/webp")), "animation"),
    ("an animated PNG", CHAT, shown(data_url(animation("PNG"))), "animation"),
    ("a truncated JPEG", CHAT, shown(data_url(jpeg()[:-2000], "image/jpeg")), "truncated"),
    ("a truncated PNG", CHAT, shown(data_url(SHAPES.read_bytes()[:200])), "truncated"),
    ("a decompression bomb", CHAT, shown(data_url(png(60_000, 60_000))), "pixels"),
    ("a large image", CHAT, shown(data_url(png(9_000, 9_000))), "pixels"),
    ("an image of no pixels", CHAT, shown(data_url(png(0, 5))), "image"),
    ("a header alone", CHAT, shown(data_url(png(5, 5)[:40])), "image"),
    ("no prompt", IMAGES, {}, "prompt"),
    ("an empty prompt", IMAGES, {"prompt": ""}, "prompt"),
    ("a blank prompt", IMAGES, {"prompt": "  "}, "prompt"),
    ("a list of prompts", IMAGES, {"prompt": ["a", "b"]}, "prompt"),
    ("half a character to paint", IMAGES, {"prompt": "\udc00"}, "prompt"),
    ("a long prompt", IMAGES, {"prompt": "a" * 200_000}, "characters"),
    ("a prompt longer than the context", IMAGES, {"prompt": "word " * 5_000}, "tokens"),
    ("no pictures", IMAGES, {"prompt": "a", "n": 0}, "n"),
    ("fewer than no pictures", IMAGES, {"prompt": "a", "n": -5}, "n"),
    ("too many pictures", IMAGES, {"prompt": "a", "n": 10_000}, "at most 10"),
    ("another size", IMAGES, {"prompt": "a", "size": "1x1"}, "only"),
    ("no size", IMAGES, {"prompt": "a", "size": "large"}, "only"),
    ("another format", IMAGES, {"prompt": "a", "output_format": "bmp"}, "output_format"),
    ("another answer", IMAGES, {"prompt": "a", "response_format": "file"}, "response_format"),
    ("too many unfinished pictures", IMAGES, {"prompt": "a", "stream": True, "partial_images": 4}, "partial_images"),
    ("a guidance of NaN", IMAGES, {"prompt": "a", "guidance_scale": float("nan")}, "guidance_scale"),
    ("a guidance below zero", IMAGES, {"prompt": "a", "guidance_scale": -1}, "guidance_scale"),
    ("a huge guidance", IMAGES, {"prompt": "a", "guidance_scale": 10**300}, "guidance_scale"),
    ("too many steps", IMAGES, {"prompt": "a", "steps": 10**9}, "steps"),
    ("an edit", "/v1/images/edits", {"prompt": "a"}, "cannot edit"),
    ("a word that is none", "/v1/completions", {"prompt": "a"}, "there is no"),
    ("a place that is none", "/nowhere", {}, "nothing"),
]


@pytest.mark.parametrize(("path", "body", "words"), [pytest.param(*case[1:], id=case[0]) for case in BY_HAND])
def test_a_bad_request_is_answered_with_what_to_do(live: Live, path: str, body: Any, words: str):
    content = json.dumps(body).encode()
    error = helpful(live.post(path, content=content, headers=JSON))
    assert words in error["message"] or words in str(error["param"]), error


RAW: list[tuple[str, bytes, dict[str, str]]] = [
    ("nothing", b"", JSON),
    ("no JSON", b"{", JSON),
    ("a list", b"[]", JSON),
    ("a word", b'"hello"', JSON),
    ("null", b"null", JSON),
    ("bytes", bytes(range(256)), JSON),
    ("half a character", b'{"messages": "\xff\xfe"}', JSON),
    ("deep lists", b"[" * 100_000, JSON),
    ("deep objects", b'{"a":' * 50_000 + b"1" + b"}" * 50_000, JSON),
    ("a number of 5,000 digits", b'{"max_tokens": ' + b"9" * 5000 + b"}", JSON),
    ("a form", b"messages=hello", {"content-type": "application/x-www-form-urlencoded"}),
    ("no type", json.dumps(chat()).encode(), {"content-type": "text/plain"}),
    ("an odd type", json.dumps(chat()).encode(), {"content-type": "application/json; charset=\x00x"}),
    ("a broken multipart", b"--x\r\nbroken", {"content-type": "multipart/form-data; boundary=x"}),
]


@pytest.mark.parametrize(
    ("content", "headers"), [pytest.param(*case[1:], id=case[0]) for case in RAW if case[0] != "an odd type"]
)
@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_a_body_that_is_no_request_is_answered_with_what_to_do(
    janus_server: Live, path: str, content: bytes, headers: dict[str, str]
):
    helpful(janus_server.post(path, content=content, headers=headers))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_answered_with_what_to_do(janus_server: Live, method: str):
    for path in (CHAT, IMAGES, "/generate_images/"):
        answer = httpx.request(method, janus_server.url + path)
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"
        assert helpful(answer)["message"] == f"{path} is asked with POST, not {method}"
    if method != "GET":
        for path in ("/v1/models", "/v1/models/janus-tiny", "/pictures/a", "/metrics", "/health"):
            answer = httpx.request(method, janus_server.url + path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET"), path
    assert httpx.request(method, f"{janus_server.url}/v1/nothing").status_code == 404


HEADERS: list[tuple[str, str, int]] = [
    ("origin", "http://[", 403),
    ("origin", "http://]", 403),
    ("origin", "http://[::1", 403),
    ("origin", "http://[v1.x]:99999999", 403),
    ("origin", "\xff\xfe", 403),
    ("origin", "", 403),
    ("authorization", "Basic !!!", 200),
    ("authorization", "Bearer", 200),
    ("authorization", "Basic " + "A" * 9999, 200),
    ("x-request-id", "\xff" * 300, 200),
    ("accept", "*/*;q=nan, a/b;q=1e999", 200),
    ("cookie", "a=\xff; =; ;;", 200),
    ("range", "bytes=-1-", 200),
    ("forwarded", "for=[", 200),
    ("x-forwarded-for", "[", 200),
    ("x-forwarded-host", "[", 200),
    ("upgrade", "websocket", 200),
]


@pytest.mark.parametrize(("name", "value", "status"), HEADERS)
def test_headers_may_hold_anything(janus_server: Live, name: str, value: str, status: int):
    headers = {**JSON, name: value.encode("latin-1")}
    answer = janus_server.post(CHAT, content=json.dumps(chat()).encode(), headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert status == 200 or helpful(answer)


# -- the published demo's endpoints --------------------------------------------------


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


FORM = {"content-type": "multipart/form-data; boundary=x"}
NAMES = ["../../../tmp/evil.png", "/etc/passwd", 'a"; name="question', "a\x01b.png", "CON", "a" * 5000, "\u202egnp.exe"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_lead_nowhere(janus_server: Live, name: str):
    good = part("file", SHAPES.read_bytes(), name) + part("question", b"What?") + part("temperature", b"0") + b"--x--\r\n"
    answer = janus_server.post("/understand_image_and_question/", content=good, headers=FORM)
    assert answer.status_code == 200 or helpful(answer)
    assert name not in answer.text or len(name) < 4


def test_a_header_hidden_in_a_files_name_is_no_header(janus_server: Live):
    name = 'a.png"\r\nX-Evil: 1\r\n\r\nevil'
    body = part("file", SHAPES.read_bytes(), name) + part("question", b"What?") + b"--x--\r\n"
    answer = janus_server.post("/understand_image_and_question/", content=body, headers=FORM)
    helpful(answer)
    assert "x-evil" not in answer.headers


FORMS: list[tuple[str, list[bytes]]] = [
    ("/understand_image_and_question/", [part("question", b"What?")]),
    ("/understand_image_and_question/", [part("file", SHAPES.read_bytes(), "a.png")]),
    ("/understand_image_and_question/", [part("file", b"no image", "a.png"), part("question", b"What?")]),
    (
        "/understand_image_and_question/",
        [part("file", SHAPES.read_bytes(), "a.png"), part("question", b"a"), part("seed", b"x")],
    ),
    (
        "/understand_image_and_question/",
        [part("file", SHAPES.read_bytes(), "a.png"), part("question", b"a"), part("temperature", b"nan")],
    ),
    ("/understand_image_and_question/", [part("file", b"text"), part("question", b"What?")]),
    ("/generate_images/", []),
    ("/generate_images/", [part("prompt", b"")]),
    ("/generate_images/", [part("prompt", b" ")]),
    ("/generate_images/", [part("prompt", b"a"), part("seed", b"-1")]),
    ("/generate_images/", [part("prompt", b"a"), part("seed", b"9" * 5000)]),
    ("/generate_images/", [part("prompt", b"a"), part("guidance", b"inf")]),
    ("/generate_images/", [part("prompt", b"a" * 200_000)]),
    ("/generate_images/", [part(str(number), b"a") for number in range(5000)]),
]


@pytest.mark.parametrize(("path", "fields"), FORMS)
def test_a_bad_form_is_answered_with_what_to_do(janus_server: Live, path: str, fields: list[bytes]):
    helpful(janus_server.post(path, content=b"".join(fields) + b"--x--\r\n", headers=FORM))


# -- the page ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page() -> Iterator[Live]:
    """A server with the page."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    from openjanus.serve.page import mount_page

    with running(wrap=mount_page, limits={"body_bytes": 100_000}) as server:
        yield server


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"data": []}',
        b'{"data": [], "fn_index": 99999, "session_hash": "a"}',
        b'{"data": [1], "fn_index": -1, "session_hash": "a"}',
        b'{"data": [], "fn_index": 1e400, "session_hash": "\\ud800"}',
        b'{"data": "a", "fn_index": "b", "session_hash": []}',
        b'{"data": ["' + b"a" * 200_000 + b'"], "fn_index": 0, "session_hash": "a"}',
    ],
)
@pytest.mark.parametrize("path", ["queue/join", "cancel", "reset", "upload", "call/ask", "run/ask", "process_recording"])
def test_what_the_page_never_sends_is_answered_with_what_to_do(page: Live, path: str, content: bytes):
    answer = page.post(f"/gradio_api/{path}", content=content, headers=JSON)
    error = helpful(answer)
    assert answer.json()["detail"] == error["message"], "what the page's script shows"


@pytest.mark.parametrize(
    "path",
    ["dev/reload", "runs", "openapi.json", "proxy=http://127.0.0.1:9/", "vibe-code", "file=/etc/passwd", "queue/data", "x"],
)
def test_what_gradio_has_beside_the_page_is_closed(page: Live, path: str):
    helpful(httpx.get(f"{page.url}/gradio_api/{path}", timeout=60))


def test_with_the_page_too_a_wrong_method_is_told_and_probes_may_ask_for_the_head_alone(page: Live):
    for path in (CHAT, "/generate_images/"):
        answer = httpx.get(page.url + path)
        assert answer.status_code == 405 and answer.headers["allow"] == "POST" and helpful(answer)
    for path in ("/health", "/ready"):
        answer = httpx.head(page.url + path)
        assert answer.status_code == 200 and not answer.content


def test_the_page_and_its_parts_are_there(page: Live):
    for path in ("/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/startup-events", "/static/img/logo.svg"):
        assert httpx.get(page.url + path, timeout=60).status_code == 200, path


# -- generated -----------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)
CHAT_FIELDS = [
    "messages",
    "model",
    "n",
    "seed",
    "stop",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "stream_options",
]
CHAT_FIELDS += ["max_completion_tokens", "tools", "logprobs", "response_format", "logit_bias", "user"]
IMAGE_FIELDS = ["prompt", "model", "n", "size", "response_format", "output_format", "output_compression", "stream", "seed"]
IMAGE_FIELDS += ["partial_images", "guidance_scale", "temperature", "top_p", "top_k", "steps", "quality", "background"]
parts = st.dictionaries(st.sampled_from(["type", "text", "image_url", "url", "x"]), anything | st.just("text"), max_size=3)
turns = st.dictionaries(
    st.sampled_from(["role", "content", "name", "tool_calls", "x"]),
    anything | st.sampled_from(["user", "assistant", "system"]) | st.lists(parts, max_size=2),
    max_size=3,
)
bodies = st.one_of(
    st.tuples(st.just(CHAT), st.dictionaries(st.sampled_from(CHAT_FIELDS), anything, max_size=5)),
    st.tuples(st.just(CHAT), st.dictionaries(st.sampled_from(CHAT_FIELDS), anything, max_size=2).map(lambda b: {**chat(), **b})),
    st.tuples(st.just(CHAT), st.lists(turns, max_size=3).map(lambda messages: {"messages": messages})),
    st.tuples(st.just(IMAGES), st.dictionaries(st.sampled_from(IMAGE_FIELDS), anything, max_size=5)),
    st.tuples(
        st.just(IMAGES),
        st.dictionaries(st.sampled_from(IMAGE_FIELDS), anything, min_size=1, max_size=2).map(lambda b: {"prompt": "a", **b}),
    ),
    st.tuples(st.sampled_from([CHAT, IMAGES]), anything),
    st.tuples(st.just(CHAT), st.binary(max_size=200).map(lambda data: shown(data_url(data)))),
    st.tuples(st.just(CHAT), st.text(max_size=60).map(lambda text: shown(f"data:{text}"))),
)


class Idle(Exception):
    """Good requests are let through, and go no further."""


@pytest.fixture(scope="module")
def connection(janus_server: Live) -> httpx.Client:
    return httpx.Client(base_url=janus_server.url, timeout=60)


def test_no_generated_request_is_answered_with_a_mistake_of_ours(
    janus_server: Live, connection: httpx.Client, monkeypatch: pytest.MonkeyPatch
):
    """Those that happen to be good are stopped at the engine's door, which makes this quick: they are known by their error."""
    from openjanus.errors import PromptError

    def closed(*_: Any) -> int:
        raise PromptError("good, and stopped by the test")

    monkeypatch.setattr(Engine, "submit", closed)
    seen: dict[int, int] = {}

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(bodies)
    def ask(request: tuple[str, Any]) -> None:
        path, body = request
        answer = connection.post(path, content=json.dumps(body).encode(), headers=JSON)
        error = helpful(answer)
        seen[answer.status_code] = seen.get(answer.status_code, 0) + ("stopped by the test" not in error["message"])

    ask()
    assert sum(seen.values()) >= 300 and set(seen) <= {400, 404, 413}, seen
    assert janus_server.settles()


# What a float32 takes for 0, for 1 or for the next number, and the largest and smallest that are allowed.
SHARES = st.sampled_from([5e-324, 1e-320, 1e-46, 1.2e-38, 1e-7, 0.5, 1 - 2**-53, 1.0])
SEEDS = st.sampled_from([0, 2**31, 2**32, 2**63 - 1001])
COUNTS = st.sampled_from([0, 1, 2, 2**31 - 1])


def temperatures(most: float) -> st.SearchStrategy[float]:
    return st.sampled_from([0.0, -0.0, 5e-324, 1e-320, 1e-46, 1.2e-38, 1e-7, 1.0, most])


answers_to_give = st.fixed_dictionaries(
    {"temperature": temperatures(2.0), "top_p": SHARES},
    optional={
        "top_k": COUNTS,
        "seed": SEEDS,
        "n": st.sampled_from([1, 2]),
        "max_tokens": st.sampled_from([1, 2]),
        "stop": st.sampled_from(["\x00", "a" * 500, ["\u2603"] * 16]),
        "stream": st.booleans(),
    },
).map(lambda body: (CHAT, chat(**body)))
GUIDANCES = st.sampled_from([0.0, 5e-324, 1e-46, 1e-7, 1.0, 1 + 2**-52, 1000.0])


def pictures_to_paint(live: Live) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    way: dict[str, st.SearchStrategy[Any]] = {"temperature": temperatures(100.0), "top_p": SHARES, "top_k": COUNTS}
    if live.worker.takes_steps:
        way = {"steps": st.sampled_from([1, 2])}
    ways = st.fixed_dictionaries({"guidance_scale": GUIDANCES}, optional={**way, "seed": SEEDS})
    return ways.map(lambda body: (IMAGES, {"prompt": "a red circle", **body}))


def test_no_setting_that_is_allowed_breaks_the_engine(live: Live):
    """Numbers at the edges of what is allowed, all the way through the model: many at a time, as pictures take their while."""
    faults = live.service.metrics.faults.labels(live.name)._value
    before = faults.get()
    drawn: list[tuple[str, dict[str, Any]]] = []

    @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(answers_to_give | answers_to_give | pictures_to_paint(live))
    def draw(request: tuple[str, dict[str, Any]]) -> None:
        drawn.append(request)

    draw()
    paths = [path for path, _ in drawn]
    assert paths.count(CHAT) > 30 and paths.count(IMAGES) > 15

    def ask(request: tuple[str, dict[str, Any]]) -> httpx.Response:
        return live.post(request[0], content=json.dumps(request[1]).encode(), headers=JSON)

    with ThreadPoolExecutor(32) as pool:
        for request, answer in zip(drawn, pool.map(ask, drawn), strict=True):
            assert answer.status_code == 200 and '"error"' not in answer.text, (request, answer.text[:300])
    assert faults.get() == before
    assert live.settles() and httpx.get(f"{live.url}/ready").status_code == 200


def pixels(answer: httpx.Response) -> bytes:
    return Image.open(BytesIO(base64.b64decode(answer.json()["data"][0]["b64_json"]))).tobytes()


@pytest.mark.parametrize("path", [CHAT, IMAGES])
def test_a_tiny_top_p_takes_the_likeliest(janus_server: Live, path: str):
    asked = {**({"prompt": "a red circle"} if path == IMAGES else chat()), "seed": 3}
    tiny = janus_server.post(path, json={**asked, "temperature": 1, "top_p": 5e-324})
    greedy = janus_server.post(path, json={**asked, "temperature": 0})
    assert tiny.status_code == 200, tiny.text
    if path == CHAT:
        assert tiny.json()["choices"] == greedy.json()["choices"]
    else:
        assert pixels(tiny) == pixels(greedy)
