"""What the environment says, read here alone: which of several processes this is, chosen threads, a key.

torchrun tells each process its rank; so may any other launcher that sets the same variables.
"""

import os
from dataclasses import dataclass

import torch

from openjanus.device import pick_device
from openjanus.errors import ConfigError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_HINT = "start the processes with torchrun, which sets RANK, WORLD_SIZE and LOCAL_RANK"


@dataclass(frozen=True)
class Share:
    """This process among those that share a piece of work. local: its number on its machine."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def launched(cls) -> "Share":
        """This process's; all of it without a launcher. ConfigError for numbers that make no sense."""
        values = []
        for name, alone in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
            text = os.environ.get(name, alone)
            if not text.isdecimal():
                raise ConfigError(f"the environment says {name}={text!r}; it must be a whole number: {_HINT}")
            values.append(int(text))
        rank, size, local = values
        if rank >= max(size, 1):
            raise ConfigError(f"the environment says RANK={rank} of WORLD_SIZE={size}; ranks count from 0: {_HINT}")
        return cls(rank, max(size, 1), local)

    @property
    def leads(self) -> bool:
        """Whether this process scores, writes reports and speaks to people."""
        return self.rank == 0

    def device(self, name: str | torch.device) -> torch.device:
        """The device of a name for this process: of several on one machine each takes a GPU of its own. ConfigError as
        `pick_device`."""
        device = pick_device(name)
        if self.size > 1 and device.type == "cuda" and device.index is None:
            return pick_device(f"cuda:{self.local}")
        return device


def attempt() -> str:
    """A name for this start of the processes among those that torchrun made on one machine; "" if nobody can say.

    Machines count the starts each for itself, and need not agree.
    """
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "") if alone else ""


def threads_are_chosen() -> bool:
    """Whether somebody has said how many threads a CPU is to work with."""
    return any(os.environ.get(name) for name in THREADS)


def judge_key() -> str:
    """The key for a judge's server: OPENJANUS_JUDGE_KEY, else OPENAI_API_KEY, else none."""
    return os.environ.get("OPENJANUS_JUDGE_KEY") or os.environ.get("OPENAI_API_KEY") or ""
