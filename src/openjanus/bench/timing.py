"""Times of two sides in one run, taken in turn, so that whatever else the machine does meets both."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor

from openjanus.models.quantization import Quantization


@dataclass
class Times:
    """Seconds of one side. prompt: to read the prompt; steps: each step; end: what follows the last step (pixels).

    begun: how many steps are over when the prompt has been read.
    """

    prompt: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    begun: int = 0

    def add(self, other: "Times") -> None:
        """More times of the same side."""
        self.prompt += other.prompt
        self.steps += other.steps
        self.end += other.end
        self.begun = other.begun

    def whole(self, steps: int) -> float:
        """Seconds of so many steps with the prompt before and what follows them, from medians."""
        return median(self.prompt) + (steps - self.begun) * median(self.steps) + median(self.end)

    def to_json(self) -> dict[str, Any]:
        """Medians and minima in milliseconds."""
        parts = {"prompt": self.prompt, "step": self.steps, "end": self.end}
        return {
            f"{name}_ms": {"median": round(median(one) * 1e3, 3), "min": round(min(one) * 1e3, 3), "count": len(one)}
            for name, one in parts.items()
            if one
        }


class Side(Protocol):
    """One of the two sides."""

    def run(self) -> Times:
        """Do the work once, from the prompt on."""


def interleaved(sides: dict[str, Side], rounds: int, note: Callable[[str], None]) -> dict[str, Times]:
    """Each side's times of `rounds` rounds, A B A B, after a round that does not count."""
    times = {name: Times() for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            taken = side.run()
            if number:
                times[name].add(taken)
            note(f"round {number} of {rounds}: {name} {median(taken.steps) * 1e3:.1f} ms a step")
    return times


def now(device: torch.device) -> float:
    """The time at which everything asked of a device so far is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def bandwidth(device: torch.device) -> float:
    """Bytes a second that this machine reads from a device's memory: the best of ten sums over more than its caches hold."""
    size = (1 << 30) if device.type == "cuda" else (1 << 29)
    block = torch.ones(size // 4, dtype=torch.int32, device=device)
    best = float("inf")
    for _ in range(10):
        start = now(device)
        block.sum(dtype=torch.int32)
        best = min(best, now(device) - start)
    return size / best


def arithmetic(device: torch.device, quantize: Quantization) -> float:
    """Additions and multiplications a second that torch's products of large matrices come to: the best of ten, in the fastest
    numbers, of which int8 is one where weights are quantised."""
    size = 8192 if device.type == "cuda" else 2048
    numbers = torch.randint(-9, 9, (size, size), device=device)
    multiply: list[Callable[[], Tensor]] = []
    for dtype in (torch.float32, torch.bfloat16):
        multiply.append(partial(torch.matmul, numbers.to(dtype), numbers.to(dtype).T))
    if quantize != "none" and device.type in ("cpu", "cuda"):
        multiply.append(partial(torch._int_mm, numbers.to(torch.int8), numbers.to(torch.int8).T))
    best = float("inf")
    for product in multiply * 10:
        start = now(device)
        product()
        best = min(best, now(device) - start)
    return 2 * size**3 / best
