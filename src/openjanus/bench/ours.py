"""Our side of a benchmark: requests through the engine, timed step by step."""

from collections.abc import Sequence
from itertools import chain
from statistics import median

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from openjanus.bench.timing import Times, now
from openjanus.checkpoints.load import build_empty
from openjanus.config import JanusConfig
from openjanus.engine.engine import Engine, EngineOptions
from openjanus.engine.request import Request
from openjanus.janus import Janus
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.token_generation import TokenGeneration


class Ours:
    """Requests that run together, for at most so many steps."""

    def __init__(self, janus: Janus, requests: Sequence[Request], steps: int) -> None:
        self._janus, self._requests, self._steps = janus, requests, steps

    def run(self) -> Times:
        """Once, in an engine that has seen nothing before."""
        engine = Engine(self._janus.model, self._janus.processor, EngineOptions(chunk=1 << 20))
        times, device = Times(), self._janus.model.device
        numbers = [engine.submit(request) for request in self._requests]
        start = now(device)
        while engine.reading:
            engine.step()
        times.prompt.append(now(device) - start)
        while not (engine.idle or engine.developing) and len(times.steps) < self._steps:
            start = now(device)
            engine.step()
            times.steps.append(now(device) - start)
        if engine.idle or engine.developing:
            # The step that ends a prompt may take the first of an image too; the last one brought the first pixels.
            times.begun = self._steps - len(times.steps)
            last = times.steps.pop()
            start = now(device)
            while not engine.idle:
                engine.step()
            times.end.append(last - median(times.steps) + now(device) - start)
        for number in numbers:
            engine.cancel(number)
        return times


def step_bytes(janus: Janus, images: bool) -> int:
    """Bytes of weights that a step of one position a row must read: the language model's blocks and the head."""
    model = janus.model
    read: list[nn.Module] = [model.language.model.layers]
    if images and isinstance(model.generation, TokenGeneration):
        read.append(model.generation.head)
    elif not images:
        read.append(model.language.lm_head)
    return sum(_bytes(module) for module in read)


def step_flops(config: JanusConfig, images: int) -> int:
    """Additions and multiplications that a step of guided images of a flow must do: its own network, and the language model's
    blocks over all positions of both rows of each."""
    model = build_empty(config).eval().requires_grad_(False)
    generation = model.generation
    assert isinstance(generation, FlowGeneration)
    sizes = generation.config
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        latent = torch.empty(images, sizes.encoder.input_channels, *sizes.latent_size)
        x, *rest = generation.encode(latent, torch.empty(images))
        rows = torch.arange(2 * images) % images
        hidden = model.language(x[rows], torch.arange(x.shape[1])[None])
        generation.velocity(hidden, *(one[rows] for one in rest))
    return counter.get_total_flops()


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in chain(module.parameters(), module.buffers()))
