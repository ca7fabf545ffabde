"""Answers that take a while: given up when the client leaves, and in pieces as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openjanus.serve.guard import ClientGone
from openjanus.serve.refusals import Refusal

T = TypeVar("T")
QUIET = 15  # seconds after which a silent stream says that it is alive, so that nothing between closes it


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to; ClientGone, with the work cancelled, when the client leaves first. The body must have been read."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while True:
        try:
            if (await receive())["type"] == "http.disconnect":
                return
        except (ClientGone, HTTPException):
            return


def sse(content: Mapping[str, Any] | str, event: str | None = None) -> bytes:
    """One server-sent event: JSON or a word, with a name if it has one."""
    data = content if isinstance(content, str) else json.dumps(content)
    return (f"event: {event}\n" if event else "").encode() + f"data: {data}\n\n".encode()


class EventStream(Response):
    """A stream of server-sent events. An error in its midst is its last event; a client that leaves ends it."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, events: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._request, self._events = request, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await while_connected(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        events = _lively(self._events)
        try:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except Refusal as refusal:
            self._request.scope["openjanus.notes"]["code"] = refusal.code
            await send({"type": "http.response.body", "body": sse(refusal.content(), "error"), "more_body": True})
        finally:
            await events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def begun(request: Request, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, once the first of them is there: what goes wrong before it can be answered with a status of its own."""
    first = await while_connected(request.receive, _next(events))
    return _again(first, events)


async def _next(events: AsyncIterator[bytes]) -> bytes:
    return await anext(events)


async def _again(first: bytes, events: Any) -> AsyncIterator[bytes]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


async def _lively(events: AsyncIterator[bytes]) -> Any:
    """The events, with a comment wherever there is none for long."""
    following: asyncio.Future[bytes] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({following}, timeout=QUIET)
            if not done:
                yield b": working\n\n"
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            following = None
            yield event
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()


def now() -> int:
    """Seconds since 1970, as OpenAI's answers bear them."""
    return int(time.time())
