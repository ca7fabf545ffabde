"""What the environment says, read here alone: which of several processes this is, and the key of a judge.

torchrun tells each process its rank; so may any other launcher that sets the same variables. Processes share nothing but the
folder of the run, so they may also be on several machines.
"""

import os
from dataclasses import dataclass

import torch

from openjanus.errors import ConfigError

_HINT = "start the processes with torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK"


@dataclass(frozen=True)
class World:
    """This process among those of a run. local: its number on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process scores, writes reports and speaks to people."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device a process takes for a name: several on one machine each take a GPU of their own."""
        if self.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{self.local % torch.cuda.device_count()}"
        return name


def world() -> World:
    """The world of this process; alone without a launcher. ConfigError for numbers that make no sense."""
    values = []
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, default)
        if not text.isdecimal():
            raise ConfigError(f"the environment says {name}={text!r}; it must be a whole number: {_HINT}")
        values.append(int(text))
    rank, size, local = values
    if rank >= max(size, 1):
        raise ConfigError(f"the environment says RANK={rank} of WORLD_SIZE={size}; ranks count from 0: {_HINT}")
    return World(rank, max(size, 1), local)


def judge_key() -> str:
    """The key for a judge's server: OPENJANUS_JUDGE_KEY, else OPENAI_API_KEY, else none."""
    return os.environ.get("OPENJANUS_JUDGE_KEY") or os.environ.get("OPENAI_API_KEY") or ""
