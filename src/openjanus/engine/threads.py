"""How many threads a CPU works with."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from openjanus.environment import threads_are_chosen

CONTROL = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def settle_threads(device: torch.device) -> None:
    """Let torch use no more threads on a CPU than this process has processors (see `processors`).

    torch itself takes as many as the machine has, and in a container with a share of it they wait for each other at the end of
    every layer. Fewer, as somebody has chosen with `torch.set_num_threads`, stay; a number in OMP_NUM_THREADS or
    MKL_NUM_THREADS stands whatever it is.
    """
    if device.type == "cpu" and not threads_are_chosen():
        torch.set_num_threads(min(torch.get_num_threads(), processors()))


@contextmanager
def working_with(threads: int) -> Iterator[None]:
    """Let torch use so many threads on a CPU meanwhile: with as many, sums are added up in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def processors() -> int:
    """How many processors' time this process may use: those it may run on, and no more than the quotas of its containers, of
    which a part counts as a whole."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *(max(1, math.ceil(quota)) for quota in _quotas())])


def _quotas() -> Iterator[float]:
    """Limits on time, in processors, of the control groups this process is in: its own and those around it, of both versions."""
    for hierarchy, path in _groups():
        for folder in (path, *path.parents):
            group = CONTROL / hierarchy / folder
            limit = _words(group / "cpu.max") or _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
            # "max" and -1 are no limit.
            if len(limit) == 2 and all(word.isdigit() and int(word) for word in limit):
                yield int(limit[0]) / int(limit[1])


def _groups() -> Iterator[tuple[str, Path]]:
    """Where under CONTROL the groups are that this process is in, and its path there. A container may show its own as root."""
    lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines() if MEMBERSHIP.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield "", Path(path.lstrip("/"))
        elif "cpu" in controllers.split(","):
            yield controllers, Path(path.lstrip("/"))
            yield "cpu", Path(path.lstrip("/"))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []
