"""The batches of a stage, in order, prepared ahead if there are processes for it."""

import signal
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset

from openjanus.errors import JanusError
from openjanus.train.parallel import World
from openjanus.train.stage import Stage
from openjanus.train.task import Batch, Task

Prepared = Sequence[Batch[Any]] | JanusError


class _Steps(Dataset[Prepared]):
    """What one process gets at each step, or why it cannot have it; pure, so any process may prepare it."""

    def __init__(self, task: Task[Any], stage: Stage, world: World) -> None:
        self._task = task
        self._stage = stage
        self._world = world

    def __getitem__(self, step: int) -> Prepared:
        try:
            return list(self._task.batches(self._stage, step, self._world.rank, self._world.size))
        except JanusError as error:
            # Handed over, not raised: raised in a worker, it would arrive as the text of a traceback.
            return error


def follow(task: Task[Any], stage: Stage, start: int, world: World, workers: int) -> Iterator[tuple[int, Prepared]]:
    """Steps from `start` to the end of a stage, each with this process's micro-batches.

    Where a process cannot have its own, every process gets the error in place of them: they end together, and may save before.
    workers: how many processes prepare them, a step each, and pickle them; 0: this one does, when they are asked for.
    """
    steps = range(start, stage.steps)
    loader: DataLoader[Prepared] = DataLoader(
        _Steps(task, stage, world),
        batch_size=None,
        sampler=steps,
        collate_fn=_as_it_is,
        num_workers=workers,
        # A task need not be picklable; a forked process has it.
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_outlast_signals,
    )
    for step, prepared in zip(steps, loader, strict=True):
        errors = world.gather(prepared if isinstance(prepared, JanusError) else None)
        yield step, next((error for error in errors if error is not None), prepared)


def _as_it_is(prepared: Prepared) -> Prepared:
    return prepared


def _outlast_signals(worker: int) -> None:
    """The process that trains decides when to stop; until then its workers work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
