"""The curves of a run: metrics.jsonl, a line a step, and TensorBoard where it is installed."""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from openjanus.train.folder import partial_of, writing


@dataclass(frozen=True)
class Line:
    """What is known of a step, over all processes. Memory is the most that this process has held so far."""

    step: int
    stage: str
    loss: float
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    rate: float
    samples: int
    samples_per_second: float
    tokens_per_second: float
    memory_mib: float
    metrics: dict[str, float]


class Curves:
    """Where the lines of a run go. Opening it drops the lines after `step`, which the run is about to write again."""

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        with writing(self._path):
            _keep(self._path, step)
            self._file = self._path.open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard", step)

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()

    def add(self, line: Line) -> None:
        """Write a step's line, so that it outlives the process."""
        with writing(self._path):
            self._file.write(json.dumps(asdict(line)) + "\n")
            self._file.flush()
        if self._board is not None:
            named = {f"losses/{name}": value for name, value in line.losses.items()} | line.metrics
            speed = {"loss": line.loss, "rate": line.rate, "samples_per_second": line.samples_per_second}
            for name, value in {**named, **speed}.items():
                self._board.add_scalar(name, value, line.step)

    def sync(self) -> None:
        """Make the lines outlive the machine; called before a state that follows on them is written."""
        with writing(self._path):
            os.fsync(self._file.fileno())


def _keep(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a line that was cut off."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as old, partial_of(path).open("w", encoding="utf-8") as kept:
        for line in old:
            if not line.endswith("\n") or json.loads(line)["step"] > step:
                break
            kept.write(line)
    partial_of(path).replace(path)


def _board(folder: Path, step: int) -> Any:
    """A TensorBoard writer, or None where it is not installed."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: the GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux counts in KiB, macOS in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
