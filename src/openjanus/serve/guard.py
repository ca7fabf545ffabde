"""The door: who may ask, how often, how large; a number for each request; a line in the log when it leaves.

Everything passes here, API and page, before any of it is looked at. Logs are JSON, one line a request.
"""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import re
import time
from hashlib import sha256
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openjanus.serve.metrics import Metrics
from openjanus.serve.rates import Rates
from openjanus.serve.refusals import Refusal, unhandled
from openjanus.serve.settings import ServeSettings
from openjanus.serve.waiting import within

log = logging.getLogger("openjanus.serve")

# Asked by machines that watch the server; a link to a picture is a secret of its own.
OPEN = ("/health", "/ready")
LINKS = "/pictures/"
# What makes a model work, or fills a disk: the paths that rates and concurrency are counted for. All buttons of the page come by
# one path and few of them make a model work, so the page counts those itself.
_API = ("/v1/chat/completions", "/v1/images/generations", "/understand_image_and_question/", "/generate_images/")
WORK = (*_API, "/gradio_api/upload")
CALLER = "openjanus.caller"  # in a request's scope: who asks
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class ClientGone(Exception):
    """The client has left before its answer was whole."""


class Guard:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics, rates: Rates) -> None:
        self.app, self.settings, self.metrics, self.rates = app, settings, metrics, rates
        self._digests = [sha256(key.encode()).digest() for key in settings.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        visit = _Visit(scope, send)
        try:
            await self._answer(visit, scope, receive)
        except Refusal as refusal:
            visit.code = refusal.code
            await visit.say(refusal)
        except ClientGone:
            visit.status = 499
        except Exception as error:
            log.error(json.dumps({"event": "error", "request": visit.id, "error": repr(error)[:500]}), exc_info=error)
            await visit.say(unhandled())
        finally:
            self._record(visit)

    async def _answer(self, visit: "_Visit", scope: Scope, receive: Receive) -> None:
        path = scope["path"]
        self._check_host(visit.headers)
        visit.caller = scope[CALLER] = self._caller(scope, visit.headers, path)
        self._check_origin(scope, visit.headers)
        limited = await self._limited(visit, receive)
        if scope["method"] != "POST" or path not in WORK:
            await self.app(scope, limited, visit.send)
            return
        limits = self.settings.limits
        with self.rates.counted(visit.caller) as visit.extra:
            try:
                # Who works has ended by then: what still runs is a client that does not read.
                await within(limits.seconds + limits.body_seconds + 60, self.app(scope, limited, visit.send))
            except asyncio.TimeoutError:
                raise ClientGone from None

    def _caller(self, scope: Scope, headers: dict[str, str], path: str) -> str:
        """A name for whoever asks: the number of its key, or its address where no keys are. Refusal 401 without a key."""
        address = (scope.get("client") or ("local", 0))[0]
        if not self._digests or path in OPEN or path.startswith(LINKS) or _is_preflight(scope, headers):
            return f"address {address}"
        given = sha256(_key_in(headers.get("authorization", "")).encode("utf-8", "replace")).digest()
        # All are compared, each in the same time, so that how long it takes tells nothing.
        found = [hmac.compare_digest(given, digest) for digest in self._digests]
        if not any(found):
            refusal = Refusal(
                401,
                "an API key is needed: send the header Authorization: Bearer KEY with a key of this server's",
                "invalid_api_key",
            )
            # A browser asks for it: any user name, the key as password.
            refusal.headers = {"WWW-Authenticate": 'Basic realm="openjanus: any name, and an API key as password"'}
            raise refusal
        return f"key {found.index(True) + 1}"

    def _check_host(self, headers: dict[str, str]) -> None:
        """Refusal for a Host that is none, 400; and 403 for one that is not this server's, if it has no other protection.

        A name of somebody else that is made to stand for 127.0.0.1 makes their page this server's own in a browser's eyes.
        """
        given = headers.get("host")
        if given is None:  # no browser
            return
        found = _HOST.fullmatch(given)
        if found is None:
            raise Refusal(400, "the header Host is no name of a host; send the one that the address holds", "bad_host")
        name = found[1].lower().rstrip(".")
        if not self.settings.knows_host(name):
            message = f"this server is asked by the names of this machine, not as {name[:100]}; ask 127.0.0.1 or localhost, or "
            raise Refusal(403, message + "start it with --api-key, --public-url of that name, or --insecure", "unknown_host")

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        """Refusal 403 for a request that a page of another origin has made a browser send."""
        origin = headers.get("origin")
        if scope["method"] in ("GET", "HEAD") or origin is None or origin in self.settings.cors or "*" in self.settings.cors:
            return
        if _is_preflight(scope, headers) or _host_of(origin) != headers.get("host"):
            message = "pages of other origins may not ask this server; start it with --cors ORIGIN to allow one"
            raise Refusal(403, message, "cross_origin")

    async def _limited(self, visit: "_Visit", receive: Receive) -> Receive:
        """`receive`, with a limit on the size of the body and on the time that it takes to arrive."""
        limits = self.settings.limits
        too_large = Refusal(
            413, f"the body has more than {limits.body_bytes:,} bytes; send less, or smaller images", "body_too_large"
        )
        if "content-length" not in visit.headers and "transfer-encoding" not in visit.headers:
            return receive  # no body; what is received is that the client has left
        length = int(visit.headers.get("content-length", "0")[:20])  # the HTTP parser lets only digits through
        if length > limits.body_bytes:
            if length < 4 * limits.body_bytes:
                await _discard(receive)
            raise too_large
        deadline = time.monotonic() + limits.body_seconds
        seen, whole = 0, False

        async def limited() -> Message:
            nonlocal seen, whole
            if whole:
                return await receive()
            try:
                message = await within(deadline - time.monotonic(), receive())
            except asyncio.TimeoutError:
                late = f"the body did not arrive within {limits.body_seconds:g} s; send it again, or less"
                raise Refusal(408, late, "slow_body") from None
            if message["type"] == "http.disconnect":
                raise ClientGone
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > limits.body_bytes:
                if not whole:
                    await _discard(receive)
                raise too_large
            return message

        return limited

    def _record(self, visit: "_Visit") -> None:
        route = visit.scope.get("route")
        path = str(getattr(route, "path", "other"))
        seconds = time.monotonic() - visit.began
        method = visit.scope["method"] if visit.scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self.metrics.requests.labels(method, path, str(visit.status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        code = visit.notes.pop("code", visit.code)
        if code is not None:
            self.metrics.refusals.labels(code).inc()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request": visit.id,
            "caller": visit.caller,
            "method": visit.scope["method"],
            "path": visit.scope["path"][:200],
            "status": visit.status,
            "seconds": round(seconds, 3),
            **({"code": code} if code else {}),
            **visit.notes,
        }
        # Probes, and the parts of a page.
        quiet = visit.scope["method"] == "GET" and not path.startswith("/v1/")
        log.log(logging.DEBUG if quiet and visit.status < 400 else logging.INFO, json.dumps(line))


class _Visit:
    """One request on its way through: its number, what it is answered, and what the log is to say of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        self.id = given if _ID.fullmatch(given) else f"req-{token_hex(12)}"
        self.began = time.monotonic()
        self.caller = "nobody"
        self.status = 500
        self.started = False
        self.code: str | None = None
        self.extra: dict[str, str] = {}
        self.notes: dict[str, Any] = scope.setdefault("openjanus.notes", {})

    async def send(self, message: Message) -> None:
        """Send on, with the request's number in the answer's head."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            extra = {"x-request-id": self.id, "x-content-type-options": "nosniff", **self.extra}
            message["headers"] = [
                *message.get("headers", []),
                *((name.encode(), value.encode("latin-1", "replace")) for name, value in extra.items()),
            ]
        await self._send(message)

    async def say(self, refusal: Refusal) -> None:
        """Answer with a refusal, if the answer has not begun."""
        if self.started:
            return
        await refusal.response(self.scope["path"])(self.scope, _nothing, self.send)


async def _discard(receive: Receive) -> None:
    """Read on for a while and keep nothing: who is still sending would not see the answer."""
    deadline, more = time.monotonic() + 5, True
    while more and time.monotonic() < deadline:
        try:
            more = (await within(5, receive())).get("more_body", False)
        except asyncio.TimeoutError:
            return


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def _is_preflight(scope: Scope, headers: dict[str, str]) -> bool:
    return bool(scope["method"] == "OPTIONS" and "access-control-request-method" in headers)


def _host_of(origin: str) -> str | None:
    """The host and port of an origin; None if it is no address."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _key_in(authorization: str) -> str:
    """The key of an Authorization header: a bearer's, or the password of a browser's question."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
