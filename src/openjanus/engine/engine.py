"""The engine: requests for text and images in, events out, all that is in the making in one loop.

A request is one or more jobs: an answer, or each of its pictures. A job waits until there are lanes for its rows, first come
first served; its prompts are read, in chunks beside everybody's steps; then it takes its own steps until it is done, and its
lanes are free for the next. No job knows of another: what it comes to does not depend on what else runs, up to the rounding of
matrix kernels that choose their order of sums by the number of rows. Quantised models round activations, which makes such a last
bit visible: with them pictures in float32 may differ.
"""

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock

import torch

from openjanus.device import is_shortage
from openjanus.engine.batch import Batch
from openjanus.engine.jobs import Answering, Painting
from openjanus.engine.lanes import Lanes
from openjanus.engine.memory import allowance, lane_bytes
from openjanus.engine.request import Event, Failed, Finished, Picture, Piece, Preview, Progress, Request, TextRequest
from openjanus.engine.rows import Row, key
from openjanus.engine.runner import Strip
from openjanus.errors import ConfigError, EngineError, JanusError, PromptError
from openjanus.models.janus import JanusModel
from openjanus.models.randomness import fresh_seed
from openjanus.processing.images import to_images
from openjanus.processing.prompts import Processor

# Fewer tokens than these are read again, not waited for: to wait takes a step more, and a step reads all weights.
_WORTH_A_STEP = 4


@dataclass(frozen=True)
class EngineOptions:
    """What an engine may use. None: as much as requests ask for, within memory.

    lanes: rows that run at a time; a guided image takes two. entries: positions a row may have. memory: bytes of the cache (None:
    half of what is free). chunk: prompt tokens read in a step, the longest that a long prompt keeps the others waiting;
    images of a prompt are looked at as they come up, and the pixels of one picture a step are made.
    """

    lanes: int | None = None
    entries: int | None = None
    memory: int | None = None
    chunk: int = 512

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more")


@dataclass
class _Live:
    """A request that is not done. left: its jobs that are not."""

    request: Request
    deadline: float | None
    left: int
    pictures: dict[int, Picture] = field(default_factory=dict)


class Engine:
    """Runs a model for any number of requests at a time. `run` may be used by several threads, all else by one."""

    def __init__(
        self,
        model: JanusModel,
        processor: Processor,
        options: EngineOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model, self.processor, self.options = model, processor, options or EngineOptions()
        self._clock = clock
        self._memory = self.options.memory or allowance(model.device)
        self._check_options()
        self._next = 0
        self._live: dict[int, _Live] = {}
        self._queue: deque[Answering | Painting] = deque()
        self._reading: list[Answering | Painting] = []
        # What makes the pixels of pictures that are done, or to be shown unfinished, in the order in which they wait for that.
        self._undeveloped: dict[Painting, Callable[[], torch.Tensor]] = {}
        # Events of requests that some `run` waits for, and of all others, which `step` tells.
        self._inbox: dict[int, deque[Event]] = {}
        self._unclaimed: list[Event] = []
        self._lock = RLock()
        self._stepping = False
        self._abandoned: set[int] = set()
        self._start()

    def _check_options(self) -> None:
        """EngineError if the lanes and entries that were asked for are more than the memory that is allowed."""
        lanes, entries = self.options.lanes or 1, self.options.entries or 1
        asked = lanes * self._lane_bytes(entries)
        if (self.options.lanes or self.options.entries) and asked > self._memory:
            raise EngineError(
                f"{lanes} lanes of {entries} positions take {asked >> 20} MiB of cache and {self._memory >> 20} MiB are allowed; "
                "ask for fewer, or allow the engine more memory"
            )

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self._live

    @property
    def waiting(self) -> int:
        """Answers and pictures that have no lanes yet."""
        return len(self._queue)

    @property
    def reading(self) -> bool:
        """Whether something waits for its prompt to be read."""
        return bool(self._queue or self._reading)

    @property
    def developing(self) -> bool:
        """Whether all that is left are pixels of pictures that are done."""
        return bool(self._undeveloped) and not (self.reading or self._batch.jobs)

    @property
    def rows(self) -> int:
        """Rows that have a lane."""
        return len(self._lanes) - self._lanes.free

    @property
    def lanes(self) -> int:
        """Lanes that the cache has at present."""
        return len(self._lanes)

    # -- requests -----------------------------------------------------------------------

    @torch.inference_mode()
    def submit(self, request: Request, timeout: float | None = None) -> int:
        """Take a request and return its number, which its events bear; timeout: seconds after which it fails.

        PromptError if it does not fit the model's context, EngineError if it could never fit the memory, CheckpointError if the
        model lacks a part that it needs.
        """
        number = self._next
        if isinstance(request, TextRequest) and not len(request.prompt):
            raise PromptError("the prompt holds nothing; give it at least the begin of sentence")
        jobs = self._jobs(number, request)
        self._check(jobs[0])
        if self.idle and self._weights != _fingerprint(self.model):
            self._start()
        self._next += 1
        deadline = None if timeout is None else self._clock() + timeout
        self._live[number] = _Live(request, deadline, len(jobs))
        self._queue.extend(jobs)
        return number

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """Forget a request, whose lanes are free at once. One that is done, or that never was, is no error."""
        self._inbox.get(number, deque()).clear()
        self._unclaimed = [event for event in self._unclaimed if event.request != number]
        if self._live.pop(number, None) is None:
            return
        self._queue = deque(job for job in self._queue if job.request != number)
        for reader in [job for job in self._reading if job.request == number]:
            self._reading.remove(reader)
            self._free(reader)
        for maker in [job for job in self._batch.jobs if job.request == number]:
            self._batch.leave(maker)
            self._free(maker)
        for picture in [job for job in self._undeveloped if job.request == number]:
            del self._undeveloped[picture]

    def _jobs(self, number: int, request: Request) -> Sequence[Answering | Painting]:
        model, processor = self.model, self.processor
        if isinstance(request, TextRequest):
            return [Answering(number, request, processor.tokenizer, model.config.language.max_position_embeddings)]
        model.generation.check_paints()
        painter, options = model.config.generation, request.options
        guidance = painter.default_guidance if options.guidance is None else options.guidance
        seed = fresh_seed() if options.seed is None else options.seed
        held = None
        if not request.images:
            prompt = processor.generation_prompt(request.text)
        elif painter.shows:
            prompt = processor.editing_prompt(request.text, request.images, painter.positions, painter.image_size)
            held = painter.default_image_guidance if options.image_guidance is None else options.image_guidance
        else:
            raise PromptError("this model paints no picture from others: it paints latents, and was shown none; use a Janus")
        asked = replace(request, options=replace(options, seed=seed, guidance=guidance, image_guidance=held))
        return [Painting(number, asked, image, prompt, model, processor) for image in range(asked.options.n)]

    def _check(self, job: Answering | Painting) -> None:
        rows = self.model.config.language.vocab_size
        if any(bool((((row.ids >= rows) | (row.ids < 0)) & ~row.slots).any()) for row in job.rows):
            raise PromptError(f"the prompt holds a token that this model does not know; it has words 0 to {rows - 1}")
        context = self.model.config.language.max_position_embeddings
        if job.begins + job.room > context:
            raise PromptError(
                f"a prompt of {job.begins + 1} tokens and {job.room} more do not fit the model's context of {context}; "
                "shorten the prompt or use fewer images"
            )
        lanes, entries = self.options.lanes, self.options.entries
        if entries is not None and job.entries > entries:
            raise EngineError(
                f"the request needs {job.entries} positions and the engine has {entries} a row; shorten it, or start the engine "
                "with more"
            )
        if lanes is not None and len(job.rows) > lanes:
            raise EngineError(f"the request needs {len(job.rows)} rows and the engine has {lanes}; start the engine with more")
        needed = len(job.rows) * self._lane_bytes(job.entries)
        if needed > self._memory:
            raise EngineError(
                f"the request needs {needed >> 20} MiB of cache and {self._memory >> 20} MiB are allowed; shorten it, or allow "
                "the engine more memory"
            )

    # -- the loop -----------------------------------------------------------------------

    def run(self, requests: Sequence[Request]) -> Iterator[Event]:
        """Submit requests, all or none, and step until they are done, yielding their events.

        Several threads may run requests of their own, which share their steps. Who stops listening cancels.
        """
        unfinished: set[int] = set()
        try:
            with self._lock:
                for request in requests:
                    unfinished.add(self.submit(request))
                self._inbox |= {number: deque() for number in unfinished}
            while unfinished:
                with self._lock:
                    events = self._told(unfinished)
                    if not events:
                        self._share(self._step())
                    # Somebody cancelled it, or a step of somebody else's broke off.
                    told = {event.request for event in events}
                    gone = [number for number in unfinished - told if number not in self._live and not self._inbox.get(number)]
                    events += [Failed(number, EngineError("the request was given up")) for number in gone]
                    done = {event.request for event in events if isinstance(event, Finished | Failed)}
                    for number in done:
                        self._inbox.pop(number, None)
                unfinished -= done
                yield from events
        finally:
            with self._lock:
                for number in unfinished:
                    self._inbox.pop(number, None)
                # In the middle of a step when the collector finds a run that was forgotten: then the next step cancels it.
                self._abandoned |= unfinished
                if not self._stepping:
                    self._sweep()

    def _told(self, numbers: set[int]) -> list[Event]:
        """What the inbox holds for these requests, taken out."""
        events: list[Event] = []
        for number in sorted(numbers):
            held = self._inbox.get(number, deque())
            events += held
            held.clear()
        return events

    def _share(self, events: Sequence[Event]) -> None:
        for event in events:
            self._inbox.get(event.request, self._unclaimed).append(event)

    def _sweep(self) -> None:
        while self._abandoned:
            self.cancel(self._abandoned.pop())

    def step(self) -> list[Event]:
        """Let everything that runs take a step, and say what came of it; but for requests that some `run` waits for."""
        self._share(self._step())
        events, self._unclaimed = self._unclaimed, []
        return events

    @torch.inference_mode()
    def _step(self) -> list[Event]:
        events: list[Event] = []
        self._sweep()
        self._stepping = True
        try:
            self._expire(events)
            self._admit()
            strips = self._read(events)
            self._begin_read()
            tokens = self._batch.step([strip for _, strip in strips])
            for row, strip in strips:
                self._lanes.extend(row.lane, row.keys[row.entries : row.entries + len(strip.x)])
                row.entries += len(strip.x)
            self._tell_answers(tokens, events)
            self._tell_pictures(events)
            self._develop(events)
            self._begin_read()
        except BaseException as error:
            # Nobody knows how far the step has come.
            failed = list(self._live)
            for number in failed:
                self.cancel(number)
            self._start(lanes=1, entries=1)
            if not is_shortage(error):
                raise
            said = EngineError("too little memory for all that ran at once; allow fewer lanes")
            return [Failed(number, said) for number in failed]
        finally:
            self._stepping = False
        return events

    def _expire(self, events: list[Event]) -> None:
        now = self._clock()
        for number, live in list(self._live.items()):
            if live.deadline is not None and now >= live.deadline:
                self._fail(number, EngineError("the request took longer than it was given and was stopped"), events)

    def _admit(self) -> None:
        while self._queue and self._has_room(self._queue[0]):
            job = self._queue.popleft()
            for row in job.rows:
                row.lane = self._lanes.take(row.prefix)
            self._reading.append(job)

    def _has_room(self, job: Answering | Painting) -> bool:
        """Whether there are lanes for a job, now or after the cache has grown."""
        cache = self._batch.runner.cache
        missing = len(job.rows) - self._lanes.free
        if missing <= 0 and job.entries <= cache.entries:
            return True
        entries = max(cache.entries, job.entries)
        waiting = sum(len(other.rows) for other in self._queue)
        most = self._most(entries, beside=cache.growing)
        if len(self._lanes) + max(0, missing) <= most:
            # Twice as many as there are, or as many as wait: growing copies what there is.
            more = max(len(self._lanes), waiting - self._lanes.free) if missing > 0 else 0
            lanes = min(most, len(self._lanes) + more)
            self._batch.grow(lanes, entries)
            self._lanes.grow(lanes)
            return True
        if self.rows:
            return False
        # Nobody is in the old one, which needs not be copied: as many lanes as there can be.
        wanted = max(waiting, len(job.rows), self.options.lanes or 0)
        self._start(min(self._most(job.entries), wanted), job.entries)
        return True

    def _most(self, entries: int, beside: int = 0) -> int:
        """Lanes of so many entries that there may be, beside so many bytes of the memory that are taken."""
        most = (self._memory - beside) // self._lane_bytes(entries)
        return most if self.options.lanes is None else min(most, self.options.lanes)

    def _read(self, events: list[Event]) -> list[tuple[Row, Strip]]:
        """What is read of prompts in this step."""
        strips: list[tuple[Row, Strip]] = []
        budget = self.options.chunk
        ahead: list[Row] = []
        for job in list(self._reading):
            if job.request not in self._live:
                continue
            try:
                for row in job.rows:
                    if not row.started and not self._start_reading(row, ahead):
                        continue
                    upto = row.entries + min(row.unread, budget)
                    if upto > row.entries:
                        x = row.embed(self.model, upto)
                        strips.append((row, Strip(row.lane, row.entries, row.positions[row.entries : upto], x)))
                        budget -= len(x)
                    if row.unread:
                        ahead.append(row)
            except JanusError as error:
                strips = [(row, strip) for row, strip in strips if row not in job.rows]
                self._fail(job.request, error, events)
        return strips

    def _begin_read(self) -> None:
        """Jobs whose prompts are read take steps from now on."""
        for job in [job for job in self._reading if all(row.started and not row.unread for row in job.rows)]:
            self._reading.remove(job)
            self._batch.join(job)

    def _start_reading(self, row: Row, ahead: Sequence[Row]) -> bool:
        """Begin a row behind what is known of its prompt already; False while somebody else is reading more of it."""
        lane, known = self._lanes.longest(row.prefix)
        if any(row.common(other) >= known + _WORTH_A_STEP for other in ahead):
            return False
        if known and lane != row.lane:
            self._batch.runner.cache.copy(lane, row.lane, known)
        self._lanes.hold(row.lane, row.keys[:known])
        row.started, row.entries = True, known
        return True

    # -- what came of a step ------------------------------------------------------------

    def _tell_answers(self, tokens: Sequence[int], events: list[Event]) -> None:
        for job, token in zip(list(self._batch.answers), tokens, strict=True):
            (row,) = job.rows
            # What was said stays: the next turn of a chat begins with it.
            self._lanes.extend(row.lane, array("q", [key(job.newest, row.entries - 1)]))
            if piece := job.push(token):
                events.append(Piece(job.request, piece))
            if job.result is not None:
                self._batch.leave(job)
                self._free(job)
                del self._live[job.request]
                events.append(Finished(job.request, job.result))

    def _tell_pictures(self, events: list[Event]) -> None:
        for job in list(self._batch.paintings):
            events.append(Progress(job.request, job.image, job.done, job.steps))
            if job.shows or job.done == job.steps:
                # One that still waits to be shown is shown, or finished, as it is now.
                self._undeveloped[job] = self._batch.picture(job)
            if job.done == job.steps:
                self._batch.leave(job)
                self._free(job)

    def _develop(self, events: list[Event]) -> None:
        """Make the pixels of one picture, the first that is done or else the first that is to be shown.

        That takes about as long as a chunk of a prompt; pictures that end together would keep the others waiting for as many.
        """
        if not self._undeveloped:
            return
        job = next((job for job in self._undeveloped if job.done == job.steps), next(iter(self._undeveloped)))
        image = to_images(self._undeveloped.pop(job)())[0]
        if job.done < job.steps:
            events.append(Preview(job.request, job.image, image))
            return
        live = self._live[job.request]
        live.pictures[job.image] = Picture(image, job.text, job.seed, job.options)
        live.left -= 1
        if not live.left:
            del self._live[job.request]
            events.append(Finished(job.request, tuple(live.pictures[i] for i in sorted(live.pictures))))

    def _fail(self, number: int, error: JanusError, events: list[Event]) -> None:
        self.cancel(number)
        events.append(Failed(number, error))

    # -- memory -------------------------------------------------------------------------

    def _start(self, lanes: int | None = None, entries: int | None = None) -> None:
        """An empty cache, for the weights as they are now: what was read with others is worth nothing."""
        self._weights = _fingerprint(self.model)
        # The old one's memory first.
        self.__dict__.pop("_batch", None)
        self._batch = Batch(self.model, lanes or self.options.lanes or 2, entries or self.options.entries or 1)
        self._lanes = Lanes(self._batch.runner.cache.lanes, self._batch.spread)

    def _free(self, job: Answering | Painting) -> None:
        for row in job.rows:
            self._lanes.give_back(row.lane)

    def _lane_bytes(self, entries: int) -> int:
        return lane_bytes(self.model.config.language, self.model.dtype, max(entries, self.options.entries or 0))


def _fingerprint(model: JanusModel) -> tuple[object, ...]:
    """Something that changes when weights do: where they lie, and how often torch was told that they were written to."""
    return tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in model.parameters())
