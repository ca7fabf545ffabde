"""How much memory a cache may take."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from openjanus.config import LanguageConfig
from openjanus.models.cache import bytes_per_entry, rounded

MEMINFO = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")


def lane_bytes(config: LanguageConfig, dtype: torch.dtype, entries: int) -> int:
    """Bytes of a lane that holds so many entries."""
    return rounded(entries + 1) * bytes_per_entry(config, dtype)


def allowance(device: torch.device) -> int:
    """Bytes that a cache may take on a device if nobody says otherwise: half of what is free now, which leaves the other half to
    activations and other programs."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    if device.type == "mps":
        return (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) // 2
    return _available() // 2


def shares(caches: Sequence[tuple[torch.device, int]]) -> list[int]:
    """Bytes that each of several caches may take, given its device and its bytes per entry: together what one alone might.

    A cache of larger entries gets more, so that all hold as many rows.
    """
    whole: Counter[torch.device] = Counter()
    for device, entry in caches:
        whole[device] += entry
    allowed = {device: allowance(device) for device in whole}
    return [max(1, allowed[device] * entry // whole[device]) for device, entry in caches]


def _available() -> int:
    """Bytes that this process may still take: what Linux says is available, within the limit of its container. Elsewhere all
    there is, since other systems do not say."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = CONTAINER / "memory.max", CONTAINER / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text(encoding="ascii").strip()).isdigit():
        free = min(free, int(most) - int(used.read_text(encoding="ascii")) + _droppable())
    return max(free, 0)


def _droppable() -> int:
    """Bytes that count as used in a container but are copies of files, as of a checkpoint: the system drops them at need."""
    path = CONTAINER / "memory.stat"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    stat = dict(line.split(maxsplit=1) for line in lines if line.strip())
    return int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))
