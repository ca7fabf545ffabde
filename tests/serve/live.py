"""Running servers of the bundled models, with any settings."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from openjanus.engine.batch import Batch
from openjanus.engine.engine import EngineOptions
from openjanus.janus import Janus, load
from openjanus.serve.app import create_app
from openjanus.serve.run import Server, address, listen
from openjanus.serve.service import Service
from openjanus.serve.settings import Limits, ServeSettings

BUNDLED = ("janus-tiny", "janusflow-tiny")
SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"


@cache
def bundled(name: str) -> Janus:
    """A bundled model, loaded once."""
    return load(name, device="cpu")


@dataclass
class Live:
    """A running server."""

    url: str
    service: Service
    server: Server
    janus: Janus

    @property
    def name(self) -> str:
        return next(iter(self.service.workers))

    @property
    def worker(self) -> Any:
        return next(iter(self.service.workers.values()))

    def client(self, key: str = "none", **settings: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **settings)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **body)

    def own(self) -> Janus:
        """The model without a past, for answers that must be equal to the last bit; and the server's forgets its own.

        What was read of a prompt before, beside other prompts, differs in its rounding, which may flip a choice.
        """
        assert self.settles()
        self.worker.engine._start()
        return Janus(self.janus.model, self.janus.processor, self.name)

    def settles(self, seconds: float = 20) -> bool:
        """Whether nothing is left to do, now or soon."""
        return eventually(lambda: self.worker.open == 0 and self.worker.engine.rows == 0, seconds)


def eventually(happens: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something becomes true."""
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def slowly(seconds: float) -> Iterator[None]:
    """While steps take their time: a person, or a test, can watch, and nothing is done before, however busy the machine is."""
    step = Batch.step

    def slow(self: Batch, strips: Any) -> Any:
        time.sleep(seconds)
        return step(self, strips)

    Batch.step = slow  # type: ignore[method-assign]
    try:
        yield
    finally:
        Batch.step = step  # type: ignore[method-assign]


@contextmanager
def running(
    names: tuple[str, ...] = ("janus-tiny",),
    engine: EngineOptions | None = None,
    wrap: Callable[[Any], Any] = lambda app: app,
    limits: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Live]:
    """A server on a free port of this machine, in a thread."""
    chosen = ServeSettings(port=0, limits=Limits(**(limits or {})), **settings)
    bound = listen(chosen)
    app = wrap(create_app([(name, bundled(name)) for name in names], chosen, engine))
    server = Server(app, chosen)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    try:
        assert eventually(lambda: server.started)
        yield Live(address(bound), app.state.service, server, bundled(names[0]))
    finally:
        server.should_exit = True
        thread.join(30)
