"""Images from the web: off, and guarded where they are allowed. Servers on loopback and made-up resolvers only."""

import asyncio
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest

from openjanus.errors import ImageError
from openjanus.serve.remote import RemoteImages, is_public
from serve.live import SHAPES, running
from serve.test_openai_client import image_part, text_part, user


@dataclass
class Web:
    """A web server on this machine, and who has asked it for what."""

    port: int
    asked: list[tuple[str, str]] = field(default_factory=list)

    def images(self, **settings: Any) -> RemoteImages:
        """Rules under which this server, and no other, may be asked under any name."""

        async def resolve(host: str, port: int) -> list[str]:
            return ["127.0.0.1"]

        given: dict[str, Any] = {"hosts": ("*",), "ports": (self.port,), "resolve": resolve}
        return RemoteImages(**{**given, "allows": lambda address: address.is_loopback, "seconds": 5, **settings})

    def url(self, path: str, host: str = "pictures.example") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            found.asked.append((self.headers["Host"], self.path))
            where = self.path.partition("?to=")[2]
            if where:
                self.send_response(302)
                self.send_header("Location", where)
                self.end_headers()
                return
            if self.path == "/slow":
                threading.Event().wait(3)
            self.send_response(404 if self.path == "/gone" else 200)
            self.send_header("Content-Type", "text/html" if self.path == "/page" else "image/png")
            self.end_headers()
            data = SHAPES.read_bytes() if self.path != "/large" else b"\0" * 300_000
            with suppress(OSError):  # who asked may have heard enough
                self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Web(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def fetch(images: RemoteImages, url: str) -> bytes:
    return asyncio.run(images.fetch(url))


def test_an_image_is_fetched_from_the_address_that_was_checked_under_its_own_name(web: Web):
    assert fetch(web.images(), web.url("/a.png")) == SHAPES.read_bytes()
    assert web.asked[-1] == (f"pictures.example:{web.port}", "/a.png")


def test_nothing_is_fetched_unless_it_is_allowed(web: Web):
    before = len(web.asked)
    with pytest.raises(ImageError, match="not fetched from the web"):
        fetch(web.images(hosts=()), web.url("/a.png"))
    with pytest.raises(ImageError, match=r"not fetched from other.example; allowed are pictures.example"):
        fetch(web.images(hosts=("pictures.example",)), web.url("/a.png", "other.example"))
    assert len(web.asked) == before


INSIDE = """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 192.0.2.1 224.0.0.1 255.255.255.255
::1 :: fe80::1 fc00::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 2002:7f00:1:: 2002:a9fe:a9fe:: 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 2001:0:4136:e378:8000:63bf:3fff:fdd2 fec0::1 ff02::1 2001:db8::1
64:ff9b:1::7f00:1 64:ff9b:1::a00:1 ::127.0.0.1 ::10.0.0.1 ::ffff:0:127.0.0.1 3fff::1 5f00::1 192.88.99.1 ::ffff:192.88.99.1
2002:c058:6301:: 4000::1"""


@pytest.mark.parametrize("address", INSIDE.split())
def test_addresses_inside_are_never_asked(address: str):
    assert not is_public(ipaddress.ip_address(address))

    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34", address]

    with pytest.raises(ImageError, match="not an address of the open internet"):
        fetch(RemoteImages(("*",), resolve=resolve), "https://pictures.example/a.png")


OUTSIDE = "93.184.216.34 2606:2800:220:1::1 2a00:1450::1 3ffe::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::"


def test_addresses_of_the_open_internet_are():
    assert all(is_public(ipaddress.ip_address(one)) for one in OUTSIDE.split())


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://[::1]/a.png",
        "http://2130706433/a.png",
        "http://0x7f.1/a.png",
        "http://localhost/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
    ],
)
def test_spellings_of_inner_addresses_are_known(url: str):
    """With the system's own resolver, which answers all of these without asking anybody."""
    with pytest.raises(ImageError, match=r"open internet|cannot be found"):
        fetch(RemoteImages(("*",)), url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://pictures.example/a.png", "must be http"),
        ("file:///etc/passwd", "must be http"),
        ("gopher://pictures.example/", "must be http"),
        ("http://user:word@pictures.example/a.png", "without a user name"),
        ("http://pictures.example:22/a.png", "port 22"),
        ("http://", "must be http"),
        ("http://[/", "no web address"),
        ("//pictures.example/a.png", "must be http"),
        ("", "must be http"),
        ("http://pictures.example:99999/", "no web address|port 99999"),
        ("http://\ud800/", "no web address|cannot be found|must be http"),
        ("http://a\r\nX-Evil: 1/", "no web address|cannot be found|must be http"),
    ],
)
def test_other_addresses_are_refused(web: Web, url: str, words: str):
    with pytest.raises(ImageError, match=words):
        fetch(web.images(ports=(80, 443)), url)


def test_every_hop_of_a_redirect_is_checked(web: Web):
    images = web.images(hosts=("pictures.example", "other.example"))
    assert fetch(images, web.url(f"/?to={web.url('/b.png', 'other.example')}")) == SHAPES.read_bytes()
    assert fetch(images, web.url("/?to=/c.png")) == SHAPES.read_bytes()
    before = len(web.asked)
    for inner in (
        "http://169.254.169.254/",
        web.url("/secret", "inner.example"),
        "file:///etc/passwd",
        "http://x:22/",
        "http://[",
        "http://[v1.x",
    ):
        with pytest.raises(ImageError):
            fetch(images, web.url(f"/?to={inner}"))
    assert [path for _, path in web.asked[before:] if "secret" in path and "to=" not in path] == []
    loop = web.url("/?to=" + web.url("/?to=" + web.url("/?to=" + web.url("/?to=/d.png"))))
    with pytest.raises(ImageError, match="leads on more than 3 times"):
        fetch(images, loop)


def test_a_name_that_changes_its_mind_is_asked_once(web: Web):
    answers = [["127.0.0.1"], ["10.0.0.1"]]

    async def resolve(host: str, port: int) -> list[str]:
        return answers.pop(0)

    assert fetch(web.images(resolve=resolve), web.url("/e.png")) == SHAPES.read_bytes()
    assert answers == [["10.0.0.1"]]


def test_proxies_of_the_environment_are_not_used(web: Web, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert fetch(web.images(), web.url("/f.png")) == SHAPES.read_bytes()


def test_what_is_no_image_too_large_too_slow_or_gone_is_refused(web: Web):
    for path, words in (("/page", "no image"), ("/gone", "status 404")):
        with pytest.raises(ImageError, match=words) as refused:
            fetch(web.images(), web.url(path))
        assert "html" not in str(refused.value)
    with pytest.raises(ImageError, match="more than 100,000 bytes"):
        fetch(web.images(most_bytes=100_000), web.url("/large"))
    with pytest.raises(ImageError, match=r"within 0\.3 s"):
        fetch(web.images(seconds=0.3), web.url("/slow"))
    with pytest.raises(ImageError, match="could not be fetched"):
        fetch(web.images(ports=(9,)), "http://pictures.example:9/")


def test_a_server_that_may_fetch_does(web: Web):
    with running(remote_images=("pictures.example",)) as live:
        live.service.remote = replace(web.images(), hosts=("pictures.example",))
        ask = {"model": live.name, "max_tokens": 8}
        fetched, sent = (
            live.client().chat.completions.create(messages=[user(image_part(url), text_part("How many circles?"))], **ask)
            for url in (web.url("/g.png"), None)
        )
        assert fetched.choices[0].message == sent.choices[0].message
        with pytest.raises(openai.BadRequestError, match="no web address"):
            live.client().chat.completions.create(messages=[user(image_part(web.url("/?to=http://[")), text_part("?"))], **ask)
