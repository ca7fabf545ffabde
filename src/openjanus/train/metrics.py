"""The curves of a run: metrics.jsonl, a line a step, and TensorBoard where it is installed."""

import json
import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from PIL import Image

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
        self._board = _Board(folder / "tensorboard", step) if find_spec("tensorboard") else None

    def __enter__(self) -> "Curves":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # A file that could not be written tries once more when it is closed; what was said first is what counts.
        with suppress(OSError) if error else writing(self._path):
            self._file.close()

    def add(self, line: Line) -> None:
        """Write a step's line, so that it outlives the process."""
        with writing(self._path):
            self._file.write(json.dumps(asdict(line)) + "\n")
            self._file.flush()
        if self._board is not None:
            self._board.add(line)

    def show(self, step: int, preview: Path) -> None:
        """Put the pictures and texts of a preview's folder beside the curves."""
        if self._board is not None:
            self._board.show(step, preview)

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


class _Board:
    """A file of TensorBoard's events. Opening it hides the events after `step` that earlier starts of the run have left.

    Written here and not by torch's SummaryWriter: that leaves it to a thread, which tells of a full disk late, prints a traceback
    of its own, and is forked into the processes that prepare batches.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

        # TensorBoard reads the files of a folder in the order of their names.
        self._path = folder / f"events.out.tfevents.{time.time_ns()}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def add(self, line: Line) -> None:
        """Write a step's numbers, so that they outlive the process."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        numbers = {"loss": line.loss, "rate": line.rate, "samples_per_second": line.samples_per_second, **line.metrics}
        numbers |= {f"losses/{name}": value for name, value in line.losses.items()}
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(Event(wall_time=time.time(), step=line.step, summary=Summary(value=values)))

    def show(self, step: int, preview: Path) -> None:
        """Write a preview's pictures and texts."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped]
        from tensorboard.compat.proto.types_pb2 import DT_STRING  # type: ignore[import-untyped]

        values = []
        for path in sorted(preview.glob("*.png")):
            with Image.open(path) as picture:
                height, width = picture.height, picture.width
            shown = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
            values.append(Summary.Value(tag=f"preview/{path.stem}", image=shown))
        for path in sorted(preview.glob("*.txt")):
            # Markdown: each line on its own.
            text = path.read_text(encoding="utf-8").replace("\n", "  \n").encode()
            tensor = TensorProto(dtype=DT_STRING, string_val=[text])
            plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
            values.append(Summary.Value(tag=f"preview/{path.stem}", metadata=plugin, tensor=tensor))
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

        # Opened anew for each event: a disk that refuses says so here, and nothing is left to close.
        with writing(self._path), self._path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())


def memory_mib(device: torch.device) -> float:
    """The most memory held so far, in MiB: the GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Linux counts in KiB, macOS in bytes.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)
