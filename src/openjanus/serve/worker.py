"""The thread in which a model works: requests from the event loop go in, events come out.

A step that breaks off takes all that is in the making with it. Whoever was in it begins again, one at a time: a request that
breaks the engine alone is the one that fails, the others only take longer. Nothing is told twice, since a request comes to the
same whatever runs beside it.
"""

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from threading import Condition, Thread
from types import TracebackType
from typing import Any

from openjanus.engine.engine import Engine, EngineOptions
from openjanus.engine.request import Answer, Event, Failed, Finished, Piece, Preview, Progress, Request, TextRequest
from openjanus.errors import EngineError, JanusError, PromptError
from openjanus.janus import Janus
from openjanus.models.randomness import fresh_seed
from openjanus.serve.metrics import Metrics
from openjanus.serve.refusals import Refusal, refusal_of, unhandled
from openjanus.serve.settings import Limits
from openjanus.serve.waiting import within

FAULTS = 3  # so many steps that break off in a row, and the model is no longer ready
SICK = ("broken", "stuck")  # states that a new start may heal
log = logging.getLogger("openjanus.serve")


class Work:
    """Requests of one caller in a worker's hands: iterate for (which, event) until all are done. Leaving it gives them up."""

    def __init__(self, worker: "Worker", requests: Sequence[Request], seconds: float) -> None:
        self._worker, self._deadline = worker, time.monotonic() + seconds
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[tuple[int, Event | Refusal]] = asyncio.Queue()
        self.tasks = [_Task(self, which, _seeded(request)) for which, request in enumerate(requests)]

    async def __aenter__(self) -> "Work":
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._worker.give_up(self.tasks)

    def stop(self) -> None:
        """Tell whoever iterates that it was stopped: a Refusal with the code "stopped"."""
        self.events.put_nowait((0, Refusal(499, "stopped", "stopped")))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        left = len(self.tasks)
        while left:
            try:
                which, event = await within(self._deadline - time.monotonic(), self.events.get())
            except asyncio.TimeoutError:
                raise Refusal(504, "the request took longer than the server allows; ask for less", "timeout") from None
            if isinstance(event, Refusal):
                raise event
            left -= isinstance(event, Finished)
            yield which, event


@dataclass(eq=False)
class _Task:
    """A request and what its caller has been told of it. number: the engine's, while it has it."""

    work: Work
    which: int
    request: Request
    number: int | None = None
    suspect: bool = False
    done: bool = False
    told: int = 0  # characters of an answer, or steps of a picture
    shown: int = 0  # unfinished pictures
    replayed: int = 0
    reshown: int = 0
    began: float = 0.0

    def rewind(self) -> None:
        """It begins again."""
        self.number, self.suspect, self.replayed, self.reshown = None, True, 0, 0

    def news(self, event: Event) -> Event | None:
        """What of an event its caller does not know yet."""
        if isinstance(event, Piece):
            known = max(0, self.told - self.replayed)
            self.replayed += len(event.text)
            self.told = max(self.told, self.replayed)
            return replace(event, text=event.text[known:]) if len(event.text) > known else None
        if isinstance(event, Progress):
            if event.done <= self.told:
                return None
            self.told = event.done
        if isinstance(event, Preview):
            self.reshown += 1
            if self.reshown <= self.shown:
                return None
            self.shown = self.reshown
        return event


class Worker:
    """A model at work under a name, in a thread of its own. `take` and `give_up` are called from event loops."""

    def __init__(self, name: str, janus: Janus, metrics: Metrics, limits: Limits, options: EngineOptions | None = None) -> None:
        self.name, self.janus, self.most, self._patience = name, janus, limits.queue, limits.step_seconds
        self.engine = Engine(janus.model, janus.processor, options)
        self.created = int(time.time())
        self.open = 0
        self._metrics = metrics.of(name)
        self._changed = Condition()
        self._inbox: list[tuple[str, _Task]] = []
        self._queue: deque[_Task] = deque()
        self._suspects: deque[_Task] = deque()
        self._running: dict[int, _Task] = {}
        self._posts: list[tuple[Work, int, Event | Refusal]] = []
        self._faults = 0
        self._began: float | None = None
        self._stopping = False
        self._thread = Thread(target=self._work, name=f"openjanus {name}", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the step and leave; whoever still waits is told."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(60)

    @property
    def size(self) -> str:
        """Width and height of its pictures, as OpenAI writes them."""
        height, width = self.janus.model.config.generation.image_size
        return f"{width}x{height}"

    @property
    def takes_steps(self) -> bool:
        """Whether it paints in as many steps as it is told (and not by choosing codes, which have a temperature)."""
        steps = self.janus.model.config.generation.steps
        return steps(1) != steps(2)

    @property
    def state(self) -> str:
        """ready, full (more is refused for now), stuck (a step does not end), or broken (it will not get better)."""
        if not self._thread.is_alive() or self._faults >= FAULTS:
            return "broken"
        began = self._began
        if began is not None and time.monotonic() - began > self._patience:
            return "stuck"
        return "full" if self.open >= self.most else "ready"

    def take(self, requests: Sequence[Request], seconds: float) -> Work:
        """Work on requests of one caller, for so long at most. Refusal if there are too many already."""
        work = Work(self, requests, seconds)
        with self._changed:
            if self._stopping or not self._thread.is_alive():
                raise Refusal(
                    503, f"{self.name} does not work any more; the server must be started again", "broken", retry_after=30
                )
            if self.open + len(requests) > self.most:
                raise Refusal(
                    503, f"{self.name} has {self.open} requests to work on; ask again later", "overloaded", retry_after=5
                )
            self.open += len(requests)
            self._inbox += [("take", task) for task in work.tasks]
            self._changed.notify()
        return work

    def give_up(self, tasks: Sequence[_Task]) -> None:
        """Forget requests; those that are done are no error."""
        with self._changed:
            self._inbox += [("leave", task) for task in tasks if not task.done]
            self._changed.notify()

    # -- the thread -------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._listen():
                self._began = time.monotonic()
                self._submit()
                self._step()
                self._began = None
                self._measure()
                self._post()
        finally:
            for task in [*self._running.values(), *self._queue, *self._suspects]:
                self._end(task, Refusal(503, f"{self.name} stopped working; ask again", "stopped", retry_after=5))
            self._post()

    def _listen(self) -> bool:
        """Wait until there is something to do and take what has come; False when it is time to leave."""
        with self._changed:
            while not (self._inbox or self._queue or self._suspects or self._stopping or not self.engine.idle):
                self._changed.wait()
            inbox, self._inbox = self._inbox, []
        for word, task in inbox:
            if word == "take":
                task.began = time.monotonic()
                self._queue.append(task)
            elif not task.done:
                if task.number is not None:
                    self.engine.cancel(task.number)
                    del self._running[task.number]
                self._metrics.given_up()
                self._close(task)
        return not self._stopping

    def _submit(self) -> None:
        if any(task.suspect for task in self._running.values()):
            return  # it runs alone
        if self._suspects:
            if not self._running:
                self._hand(self._suspects.popleft())
            return
        while self._queue:
            self._hand(self._queue.popleft())

    def _hand(self, task: _Task) -> None:
        if task.done:
            return
        try:
            task.number = self.engine.submit(task.request)
            self._running[task.number] = task
        except EngineError as error:
            # It could never run here, however long one waits.
            self._end(task, refusal_of(PromptError(str(error))))
        except JanusError as error:
            self._end(task, refusal_of(error))
        except Exception as error:
            self._fault(error)
            self._end(task, unhandled())

    def _step(self) -> None:
        if self.engine.idle:
            return
        began = time.perf_counter()
        try:
            events = self.engine.step()
        except Exception as error:
            self._fault(error)
            broken = list(self._running.values())
            self._running.clear()
            if len(broken) == 1:
                self._end(broken[0], unhandled())
            else:
                for task in broken:
                    task.rewind()
                self._suspects.extend(broken)
            return
        self._metrics.step(time.perf_counter() - began)
        for event in events:
            self._tell(event)

    def _fault(self, error: Exception) -> None:
        self._faults += 1
        self._metrics.fault()
        log.error(json.dumps({"event": "fault", "model": self.name, "error": repr(error)[:500]}), exc_info=error)

    def _tell(self, event: Event) -> None:
        task = self._running.get(event.request)
        if task is None:
            return
        if isinstance(event, Finished | Failed):
            del self._running[event.request]
        if isinstance(event, Failed):
            self._end(task, refusal_of(event.error))
            return
        first = not task.told
        news = task.news(event)
        if news is None:
            return
        waited = time.monotonic() - task.began
        if first and isinstance(event, Piece):
            self._metrics.first_token(waited)
        self._posts.append((task.work, task.which, news))
        if isinstance(event, Finished):
            self._faults = 0
            if isinstance(event.result, Answer):
                self._metrics.answered(waited, event.result.prompt_tokens, len(event.result.ids))
            else:
                self._metrics.painted(waited, len(event.result))
            self._close(task)

    def _end(self, task: _Task, refusal: Refusal) -> None:
        if not task.done:
            self._posts.append((task.work, task.which, refusal))
            self._close(task)

    def _close(self, task: _Task) -> None:
        # What is to be counted of it has been: whoever sees it gone finds it there.
        task.done = True
        with self._changed:
            self.open -= 1

    def _measure(self) -> None:
        self._metrics.load(self.open, self.engine.waiting + len(self._queue), self.engine.rows, self.engine.lanes)

    def _post(self) -> None:
        posts, self._posts = self._posts, []
        for loop in {work.loop for work, _, _ in posts}:
            mine = [(work, which, event) for work, which, event in posts if work.loop is loop]
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, mine)


def _deliver(posts: Sequence[tuple[Work, int, Any]]) -> None:
    for work, which, event in posts:
        work.events.put_nowait((which, event))


def _seeded(request: Request) -> Request:
    """The same request with a seed, so that it comes to the same should it have to begin again."""
    if request.options.seed is not None:
        return request
    seed = fresh_seed()
    if isinstance(request, TextRequest):
        return replace(request, options=replace(request.options, seed=seed))
    return replace(request, options=replace(request.options, seed=seed))
