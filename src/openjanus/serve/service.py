"""What all endpoints share: the models at work, the settings, the numbers, the pictures that are kept."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from openjanus.engine.request import Request
from openjanus.errors import ConfigError
from openjanus.serve.metrics import Metrics
from openjanus.serve.pictures import PictureStore
from openjanus.serve.rates import Rates
from openjanus.serve.refusals import Refusal
from openjanus.serve.remote import RemoteImages
from openjanus.serve.settings import ServeSettings
from openjanus.serve.worker import Work, Worker

T = TypeVar("T")
PREPARING = 2  # prompts prepared at a time: each may hold a large image


class Service:
    """One server's insides. workers: the first is the one that answers where no model is named."""

    def __init__(self, settings: ServeSettings, workers: Sequence[Worker], metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.workers = {worker.name: worker for worker in workers}
        if len(self.workers) < len(workers) or not workers:
            raise ConfigError(f"the models' names are {', '.join(w.name for w in workers) or 'none'}; each needs one of its own")
        limits = settings.limits
        self.pictures = PictureStore(limits.picture_seconds, limits.picture_bytes)
        self.remote = RemoteImages(settings.remote_images, limits.body_bytes)
        self.rates = Rates(limits.rate, limits.concurrent)
        self.draining = False
        self._preparing = asyncio.Semaphore(PREPARING)

    def worker(self, model: str | None) -> Worker:
        """The model of a name; the first if none is named. Refusal 404 with the names that there are."""
        if model is None:
            return next(iter(self.workers.values()))
        if model not in self.workers:
            known = ", ".join(self.workers)
            raise Refusal(404, f"there is no model {model[:100]!r} here; there is {known}", "model_not_found", "model")
        return self.workers[model]

    def take(self, worker: Worker, requests: Sequence[Request]) -> Work:
        """Have a model work on requests; Refusal 503 while the server is about to stop."""
        if self.draining:
            raise Refusal(503, "the server is about to stop; ask another, or later", "draining", retry_after=10)
        return worker.take(requests, self.settings.limits.seconds)

    async def prepare(self, function: Callable[..., T], *arguments: Any) -> T:
        """What a function comes to that would keep everybody else waiting: run beside, a few at a time."""
        async with self._preparing:
            return await asyncio.to_thread(function, *arguments)

    @property
    def idle(self) -> bool:
        """Whether no model has anything to do."""
        return not any(worker.open for worker in self.workers.values())
