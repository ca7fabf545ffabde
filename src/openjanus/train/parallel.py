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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from openjanus.environment import Share, attempt
from openjanus.errors import ConfigError
from openjanus.models.llama import Attention
from openjanus.train.stage import Stage
from openjanus.train.task import Task

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them. shards: how many of them hold one copy of the model together; None: all."""

    rank: int
    size: int
    device: torch.device
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.shards is not None and (self.shards < 1 or self.size % self.shards):
            raise ConfigError(
                f"--shards is {self.shards}, and there {'is 1 process' if self.size == 1 else f'are {self.size} processes'}; "
                "it must divide their number"
            )

    @property
    def leads(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def mesh(self) -> DeviceMesh:
        """The processes as sharding sees them: in a row, or copies of the model by shards of one (neighbours in rank)."""
        kind, shards = self.device.type, self.shards or self.size
        if shards == self.size:
            return init_device_mesh(kind, (shards,))
        return init_device_mesh(kind, (self.size // shards, shards), mesh_dim_names=("copy", "shard"))

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
def joined(device: str = "auto", shards: int | None = None) -> Iterator[World]:
    """The world this process belongs to, for the length of the block; ConfigError for a device that is not here, or for a number
    of shards that does not divide that of processes."""
    share = Share.launched()
    world = World(share.rank, share.size, share.device(device), shards)
    place = world.device
    if world.size == 1:
        yield world
        return
    if place.type == "cuda":
        torch.cuda.set_device(place)
    store, rank, size = next(rendezvous("env://"))
    # torchrun keeps one store for all its starts: processes started again would find addresses there of those that have died.
    store = PrefixStore(f"start_{attempt()}", store)
    # gloo beside nccl carries the small values that live on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo", store=store, rank=rank, world_size=size)
    try:
        yield world
        # Who leaves while others still talk makes them fail. After an error nobody waits: the others may never come.
        world.barrier()
    finally:
        dist.destroy_process_group()


def spread(task: Task[Any], stage: Stage, world: World) -> None:
    """Make a task's module ready to train here, block by block: checkpointing, compile, the device, the precision, sharding.

    The order matters: a compiled block holds its own recomputation, and sharding gathers and frees a block around both. All
    wrap `forward` in place, so parameters keep their names. Sharding is FSDP2, over all processes or over those that share a copy
    (HSDP). A block is widened and shared out before the next: of the whole model a process holds no more than it was built with.
    """
    blocks = {f"{name}.{key}": block for name in task.blocks for key, block in task.module.get_submodule(name).named_children()}
    for block in blocks.values():
        if stage.checkpointing:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if stage.compile:
            compile_block(block)
    mesh = None if world.size == 1 else world.mesh()
    settled: set[nn.Module] = set()
    for name, module in (*blocks.items(), ("", task.module)):
        for place, part in module.named_modules(settled, name):
            _settle(part, place, task, world.device)
        if mesh is not None:
            fully_shard(module, mesh=mesh)
    if mesh is not None:
        for name in task.entrances:
            register_fsdp_forward_method(task.module, name)


def _settle(part: nn.Module, name: str, task: Task[Any], device: torch.device) -> None:
    """Put what a part holds itself on the device, parameters in the precision that they are trained in."""
    for leaf, parameter in part.named_parameters(name, recurse=False):
        wide = torch.float32 if parameter.requires_grad else task.precision(leaf)
        parameter.data = parameter.data.to(device, wide)
    for leaf, buffer in part.named_buffers(recurse=False):
        setattr(part, leaf, buffer.to(device))


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
