"""Requests in batches: each result handed over as its batch is done, and one that cannot be is told and left out."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from openjanus.engine.engine import Engine
from openjanus.engine.request import Failed, Finished, Request
from openjanus.errors import EngineError, JanusError

T = TypeVar("T")


def results(
    engine: Engine, inputs: Sequence[T], request: Callable[[T], Request], batch: int
) -> Iterator[tuple[T, Any | JanusError]]:
    """Each input with what its request comes to, in order, or with what is wrong with it; `batch` inputs run together."""
    for start in range(0, len(inputs), batch):
        group = inputs[start : start + batch]
        made: list[Request | JanusError] = [_made(request, one) for one in group]
        yield from zip(group, _run(engine, made), strict=True)


def _made(request: Callable[[T], Request], one: T) -> Request | JanusError:
    try:
        return request(one)
    except JanusError as error:
        return error


def _run(engine: Engine, made: Sequence[Request | JanusError]) -> list[Any]:
    """What requests that run together come to. If one of them is refused, each runs alone."""
    good = [one for one in made if not isinstance(one, JanusError)]
    try:
        found = iter(_together(engine, good))
    except JanusError as error:
        if isinstance(error, EngineError) or len(good) < 2:
            found = iter([error] * len(good))
        else:
            found = iter([result for one in good for result in _run(engine, [one])])
    return [one if isinstance(one, JanusError) else next(found) for one in made]


def _together(engine: Engine, requests: Sequence[Request]) -> list[Any]:
    found: dict[int, Any] = {}
    for event in engine.run(requests):
        if isinstance(event, Finished):
            found[event.request] = event.result
        elif isinstance(event, Failed):
            found[event.request] = event.error
    return [found[number] for number in sorted(found)]
