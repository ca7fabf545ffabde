"""Steps that are recorded once and played again, so that a GPU does not wait while Python launches kernel after kernel.

A step is recorded as a function of tensors that stay where they are: who runs in it is copied there before it is played. All else
that a step depends on is its shape; steps of one shape are played from one recording. A shape that is met for the first time runs
unrecorded, for recording costs more than a step does, and many shapes are met once.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """Runs steps by their shapes.

    begin: makes what records until all is forgotten. most: recordings that are kept; one more, and all are forgotten together,
    for they share memory.
    """

    def __init__(self, begin: Callable[[], Record], most: int = 64) -> None:
        self._begin, self._most = begin, most
        self.forget()

    def run(self, shape: Hashable, step: Step, inputs: Sequence[Tensor]) -> Tensor:
        """What the step gives. Steps of one shape must differ in their inputs alone, whose sizes and dtypes are the same."""
        if shape not in self._met:
            self._met.add(shape)
            return step(inputs)
        recording = self._recordings.get(shape)
        if recording is None:
            if len(self._recordings) == self._most:
                self.forget()
            held = tuple(x.clone() for x in inputs)
            recording = self._recordings[shape] = _Recording(held, self._record(lambda: step(held)))
        for mine, given in zip(recording.inputs, inputs, strict=True):
            mine.copy_(given)
        return recording.play()

    def forget(self) -> None:
        """Throw all recordings away: tensors that steps read or write beside their inputs have moved."""
        self._met: set[Hashable] = set()
        self._recordings: dict[Hashable, _Recording] = {}
        self._record = self._begin()


def filled_up(count: int) -> int:
    """How many rows a recorded step has for so many: powers of two up to 8, then eight steps to each doubling, so that few
    shapes come up and few rows run for nothing."""
    if count <= 8:
        return 1 << (count - 1).bit_length() if count else 0
    step = 1 << ((count - 1).bit_length() - 3)
    return -(-count // step) * step


def recorder_of(device: torch.device) -> Recorder | None:
    """What records steps on a device; None where launching them costs little."""
    return Recorder(partial(_cuda_graphs, device)) if device.type == "cuda" else None


def _cuda_graphs(device: torch.device) -> Record:
    """Records CUDA graphs, which share their memory, for no two of them run at a time.

    They share a stream too, that no others use: matrix kernels keep working memory by stream, and lose it with any of its graphs.
    """
    with torch.cuda.device(device):
        pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the GPU meanwhile.
        graphing = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.device(device), graphing:
            result = step()

        def play() -> Tensor:
            graph.replay()
            return result

        return play

    return record
