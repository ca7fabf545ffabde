"""Steps that are recorded once and played again, so that a GPU does not wait while Python launches kernel after kernel.

A step is recorded as a function of tensors that stay where they are: who runs in it is copied there before it is played. All else
that a step depends on is its shape; steps of one shape are played from one recording. A shape that is met for the first time runs
unrecorded, for recording costs more than a step does, and many shapes are met once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# What a step does with its tensors, and what it gives.
Step = Callable[[Sequence[Tensor]], Tensor]
# Records a function, without running it as far as anybody can tell, and returns what plays it.
Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


@dataclass(frozen=True)
class _Recording:
    """A recorded step, the tensors it reads, and what plays it; its result is overwritten by the next."""

    inputs: tuple[Tensor, ...]
    play: Callable[[], Tensor]


class Recorder:
    """Runs steps by their shapes. most: recordings that are kept, those that were played last."""

    def __init__(self, record: Record, most: int = 64) -> None:
        self._record, self._most = record, most
        self._recordings: OrderedDict[Hashable, _Recording | None] = OrderedDict()

    def run(self, shape: Hashable, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        """What the step gives. Steps of one shape must differ in their inputs alone, whose sizes and dtypes are the same."""
        if shape not in self._recordings:
            self._keep(shape, None)
            return step(inputs)
        recording = self._recordings[shape]
        if recording is None:
            held = tuple(x.clone() for x in inputs)
            recording = _Recording(held, self._record(lambda: step(held)))
            self._keep(shape, recording)
        self._recordings.move_to_end(shape)
        for mine, given in zip(recording.inputs, inputs, strict=True):
            mine.copy_(given)
        return recording.play()

    def _keep(self, shape: Hashable, recording: _Recording | None) -> None:
        self._recordings[shape] = recording
        while len(self._recordings) > self._most:
            self._recordings.popitem(last=False)

    def forget(self) -> None:
        """Throw all recordings away: tensors that steps read or write beside their inputs have moved."""
        self._recordings.clear()


def recorder_of(device: torch.device) -> Recorder | None:
    """What records steps on a device; None where launching them costs little."""
    return cuda_recorder() if device.type == "cuda" else None


def cuda_recorder() -> Recorder:
    """Records CUDA graphs, which share their memory, for no two of them run at a time."""
    pool = torch.cuda.graph_pool_handle()

    def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            result = step()

        def play() -> Tensor:
            graph.replay()
            return result

        return play

    return Recorder(record)
