"""How much memory a cache may take."""

import os

import torch

from openjanus.config import LanguageConfig
from openjanus.models.cache import bytes_per_entry, rounded


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
    # macOS does not say what is free, only what there is.
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages) // 2
