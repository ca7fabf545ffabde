"""A server that runs until it is told to stop, and then finishes what it has begun."""

import asyncio
import signal
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from openjanus.errors import ConfigError
from openjanus.serve.logs import log_to_stderr
from openjanus.serve.service import Service
from openjanus.serve.settings import ServeSettings

CONNECTIONS = 1000  # more are answered 503 at once
CLOSING = 5  # seconds that open connections (pages, idle clients) are given at the end


def listen(settings: ServeSettings) -> socket.socket:
    """A socket bound to the host and port; nobody can connect yet. ConfigError if it is taken, or not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({reason}); choose another --host or --port"
        ) from error
    return bound


def address(bound: socket.socket) -> str:
    """What to type into a browser."""
    host, port = bound.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class Server(uvicorn.Server):
    """Told to stop, it takes no new work and says so at /ready, finishes the old, and leaves; told again, it leaves at once."""

    def __init__(self, app: FastAPI, settings: ServeSettings) -> None:
        self._service: Service = app.state.service
        self._drain_seconds = settings.drain_seconds
        config = uvicorn.Config(
            app,
            http=_protocol(settings.limits.header_seconds),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=CLOSING,
        )
        super().__init__(config)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends."""
        if self._service.draining or not self.started:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self.drain()

    def drain(self) -> None:
        """Take no more work, and stop when there is none left."""
        self._service.draining = True
        self._drained_at = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: whether to stop."""
        if self._service.draining and (self._service.idle or time.monotonic() > self._drained_at):
            self.should_exit = True
        return await super().on_tick(counter)


def serve(app: FastAPI, settings: ServeSettings, bound: socket.socket) -> int:
    """Serve until a signal ends it, and return the exit code: 0 after SIGTERM, 130 after Ctrl-C."""
    log_to_stderr()
    server = Server(app, settings)
    received: list[int] = []
    # What uvicorn raises again at the end, when all is done.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda sig, frame: received.append(sig))
    server.run(sockets=[bound])
    return 130 if signal.SIGINT in received else 0


def _protocol(header_seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which closes a connection on which a request's head, the first or a later one, is too slow."""

    class Protocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """A head is waited for unless a request is being answered; what of it has come does not make the time longer."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._unwatch()
            elif self._waiting is None:
                self._waiting = self.loop.call_later(header_seconds, self.transport.close)

        def _unwatch(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Protocol
