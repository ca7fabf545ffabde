"""Processes, and a module spread over them. Everything here is applied from outside; models know nothing of it.

torchrun starts the processes and says who is who (environment.py). Without it there is one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from openjanus.environment import Share
from openjanus.models.llama import Attention
from openjanus.train.parts import trainable
from openjanus.train.stage import Stage
from openjanus.train.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everyone's small value, in order of rank, to everyone."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait for everyone."""
        self.gather(None)


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world this process belongs to, for the length of the block; ConfigError for a device that is not here."""
    share = Share.launched()
    place = share.device(device)
    if share.size == 1:
        yield World(0, 1, place)
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # gloo beside nccl carries the small values that live on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo")
    try:
        world = World(share.rank, share.size, place)
        yield world
        # Who leaves while others still talk makes them fail. After an error nobody waits: the others may never come.
        world.barrier()
    finally:
        dist.destroy_process_group()


def spread(task: Task[Any], stage: Stage, world: World) -> None:
    """Make a task's module ready to train here: on the device, float32 what moves, then checkpointing, compile, sharding.

    The order matters: a compiled block holds its own recomputation, and sharding gathers and frees a block around both. All
    wrap `forward` in place, so parameters keep their names. Sharding is FSDP2 over all processes, block by block.
    """
    task.module.to(world.device)
    for parameter in trainable(task.module).values():
        parameter.data = parameter.data.float()
    blocks = [block for name in task.blocks for block in task.module.get_submodule(name).children()]
    for block in blocks:
        if stage.checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if stage.compile:
            compile_block(block)
    if world.size == 1:
        return
    mesh = init_device_mesh(world.device.type, (world.size,))
    for module in (*blocks, task.module):
        fully_shard(module, mesh=mesh)
    for name in task.entrances:
        register_fsdp_forward_method(task.module, name)


def compile_block(block: nn.Module, backend: Any = "inductor") -> None:
    """Compile a block, in place: all but how groups of positions attend.

    How many groups there are, and how long, differs from batch to batch, and a compiler would begin anew for each.
    """
    for part in block.modules():
        if isinstance(part, Attention):
            part.attend_groups = torch.compiler.disable(part.attend_groups)  # type: ignore[method-assign]
    block.forward = torch.compile(block.forward, backend=backend)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Inside the block every process holds all parameters, so that any part of the module may be called (without gradient)."""
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in sharded:
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.reshard()


@contextmanager
def released(module: nn.Module) -> Iterator[None]:
    """After the block no process holds parameters of others: a pass without gradients leaves them as they were gathered for it,
    and the next one would take them for those of now."""
    try:
        yield
    finally:
        for part in module.modules():
            if isinstance(part, FSDPModule):
                part.reshard()


def whole_tensors(module: nn.Module, world: World) -> dict[str, Tensor]:
    """The module's state_dict on the CPU, gathered tensor by tensor; empty on all processes but the first."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if world.leads:
            tensors[name] = whole.detach().cpu().clone()
    return tensors
