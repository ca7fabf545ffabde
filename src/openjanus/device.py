"""Where a model runs, in which number format, and whether it was too large for that: people's words and torch's."""

import platform
from functools import cache
from pathlib import Path

import torch

from openjanus.errors import ConfigError

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps; ConfigError if it is not here."""
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not index.isdigit()):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch sees no CUDA GPU here; use --device auto or cpu")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise ConfigError(f"device {name} was asked for, but there are {torch.cuda.device_count()} GPUs, counted from 0")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps was asked for, but torch sees no Apple GPU here; use --device auto or cpu")
    return torch.device(name)


def pick_dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    """The torch dtype of a name. None or "auto": the checkpoint's own, shown as None; ConfigError for other words."""
    if name is None or name == "auto":
        return None
    if isinstance(name, torch.dtype):
        name = str(name).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}; use one of auto, float32, bfloat16, float16")
    return DTYPES[name]


def slow_in_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 take a device longer than those of float32: CPUs that have no matrix units for them (AMX).

    AMD's make two of them in the time of one of float32 where they have instructions for it; Intel's take longer with these.
    """
    fast = torch.cpu._is_amx_tile_supported() or (torch.cpu._is_avx512_bf16_supported() and _of_amd())
    return device.type == "cpu" and not fast


@cache
def _of_amd() -> bool:
    """Whether AMD made the processor; False where nobody says so."""
    told = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (told.read_text(encoding="utf-8", errors="replace") if told.exists() else platform.processor())


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that there is too little memory; on a CPU torch has no class of its own for it."""
    words = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(one in str(error).lower() for one in words)
