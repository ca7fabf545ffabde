"""Weight files: found in a folder, their headers read first, their tensors one by one.

Safetensors, torch's `.bin` (never executing anything) and Paddle's `.pdparams`; one file or shards, with or without an index.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.paddle import read_pdparams, to_tensor
from openjanus.checkpoints.quantized import companions_of, find_quantized, read_real, real_header
from openjanus.errors import CheckpointError
from openjanus.models.quantization import Quantization

# What the transformers layout has no place for, kept beside it under the published names (see convert.py).
EXTRA_FILE = "openjanus_extra.safetensors"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    # Paddle's bfloat16. No Janus tensor is a whole number, so it can be nothing else.
    "U16": torch.bfloat16,
    # Quantised weights; scales must lie beside them.
    "I8": torch.int8,
    "U8": torch.uint8,
}


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes one CheckpointError with the file's name."""
    try:
        yield
    except (CheckpointError, KeyboardInterrupt):
        raise
    except Exception as error:  # safetensors, zip and pickle readers raise almost anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged or incomplete ({reason[:160]}); fetch it again") from error


def _check_readable(path: Path) -> None:
    """CheckpointError for what is recognisably no weights: nothing, or the note Git leaves for a large file."""
    with _reading(path), path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise CheckpointError(f"{path} is empty; fetch it again")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull` there, or fetch it again")


# The three formats are read alike: `headers` by name, and `read` for one tensor on the CPU, to be asked for once a name.


class SafetensorsFile:
    """A `.safetensors` file; `read` gives views of a private memory map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_readable(path)
        with _reading(path):
            self._file = safe_open(path, framework="pt", device="cpu")
            self.headers: dict[str, Header] = {name: self._header(name) for name in self._file.keys()}  # noqa: SIM118

    def _header(self, name: str) -> Header:
        slice = self._file.get_slice(name)
        dtype = slice.get_dtype()
        if dtype not in _DTYPES:
            raise CheckpointError(f"{self.path}: {name} is stored as {dtype}; only {', '.join(_DTYPES)} can be read")
        return Header(tuple(slice.get_shape()), _DTYPES[dtype])

    def read(self, name: str) -> Tensor:
        with _reading(self.path):
            tensor: Tensor = self._file.get_tensor(name)
        return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor


# Under what training programs keep a model beside what else they save, the better one first.
_NESTED = ("ema", "model", "state_dict")


def _innermost(loaded: Any) -> Any:
    """The table of tensors in what was loaded, if it lies where training programs put it; else what was loaded."""
    if not isinstance(loaded, dict):
        return loaded
    return next((loaded[key] for key in _NESTED if isinstance(loaded.get(key), dict)), loaded)


def _load_tensors(path: Path) -> Any:
    """What torch.save wrote, as long as it is tensors and plain values: nothing in a file is ever executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error):
            raise
        raise CheckpointError(
            f"{path} holds Python objects beside its tensors, which could run anything when they are loaded; if you trust it, "
            "save its tensors alone with torch.save"
        ) from error


class TorchFile:
    """A `.bin` or `.pt` file of torch.save; memory-mapped unless it is of the format before torch 1.6."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_readable(path)
        with _reading(path):
            loaded = _load_tensors(path)
        loaded = _innermost(loaded)
        if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise CheckpointError(f"{path} is no plain table of tensors; save a model's state_dict there")
        self._tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in loaded.items()}
        self.headers = {name: Header(tuple(tensor.shape), tensor.dtype) for name, tensor in self._tensors.items()}
        for name, header in self.headers.items():
            if not header.dtype.is_floating_point or header.dtype.itemsize == 1:
                raise CheckpointError(f"{path}: {name} is stored as {header.dtype}; fetch the unquantised checkpoint")

    def read(self, name: str) -> Tensor:
        return self._tensors[name]


class PaddleFile:
    """A `.pdparams` file, wholly in memory; each tensor leaves it as it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_readable(path)
        self._arrays = read_pdparams(path)
        kinds = {"u2": torch.bfloat16, "f2": torch.float16, "f4": torch.float32, "f8": torch.float64}
        self.headers: dict[str, Header] = {}
        for name, array in self._arrays.items():
            kind = array.dtype.str[1:]
            if kind not in kinds:
                raise CheckpointError(f"{path}: {name} is stored as {array.dtype}; fetch the unquantised checkpoint")
            self.headers[name] = Header(tuple(array.shape), kinds[kind])

    def read(self, name: str) -> Tensor:
        return to_tensor(self._arrays.pop(name))


WeightFile = SafetensorsFile | TorchFile | PaddleFile


@dataclass(frozen=True)
class _Kind:
    """A file format: how its files are called, and what opens them."""

    stems: tuple[str, ...]
    suffix: str
    opens: type[WeightFile]


_DIFFUSERS = "diffusion_pytorch_model"
_KINDS = (
    _Kind(("model", _DIFFUSERS), ".safetensors", SafetensorsFile),
    _Kind(("pytorch_model", _DIFFUSERS), ".bin", TorchFile),
    _Kind(("model_state",), ".pdparams", PaddleFile),
)
_NAMES = ", ".join(stem + kind.suffix for kind in _KINDS for stem in kind.stems)
# Every file name that belongs to the weights of a checkpoint, in whatever format.
WEIGHT_NAMES = re.compile(
    r"(openjanus_extra|(" + "|".join(stem for kind in _KINDS for stem in kind.stems) + r")(-\d+-of-\d+)?)"
    r"\.(safetensors|bin|pdparams)(\.index\.json)?"
)


class Weights:
    """All tensors of a folder, by name. Quantised ones are told of, and read, as the float32 that they stand for."""

    def __init__(self, paths: list[Path], opens: type[WeightFile]) -> None:
        self.paths = paths
        self.files: list[WeightFile] = [opens(path) for path in paths]
        self._homes: dict[str, WeightFile] = {}
        for file in self.files:
            for name in file.headers:
                if name in self._homes:
                    raise CheckpointError(f"{name} stands in {self._homes[name].path} and in {file.path}; remove one of them")
                self._homes[name] = file

    @property
    def format(self) -> str:
        """What the files are, by their ending."""
        return self.paths[0].suffix.removeprefix(".")

    @cached_property
    def _stored(self) -> dict[str, Header]:
        """Every tensor's header as it lies there, in the order of the files."""
        return {name: header for file in self.files for name, header in file.headers.items()}

    @cached_property
    def quantized(self) -> dict[str, Quantization]:
        """The tensors that lie there as whole numbers. CheckpointError for numbers without a scale."""
        found = find_quantized(self._stored)
        for name, header in self._stored.items():
            if not header.dtype.is_floating_point and name not in found:
                home = self._homes[name].path
                raise CheckpointError(
                    f"{home}: {name} is stored as {header.dtype} without scales; fetch the unquantised checkpoint"
                )
        return found

    @cached_property
    def headers(self) -> dict[str, Header]:
        """Every tensor's header, in the order of the files."""
        beside = {one for name, kind in self.quantized.items() for one in companions_of(name, kind)}
        kinds = self.quantized
        return {
            name: real_header(header, kinds[name]) if name in kinds else header
            for name, header in self._stored.items()
            if name not in beside
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: header.shape for name, header in self.headers.items()}

    @cached_property
    def formats(self) -> dict[str, int]:
        """Bytes by number format ("bfloat16"), of quantised tensors with their scales ("int4")."""
        sizes: dict[str, int] = {}
        kinds = {one: kind for name, kind in self.quantized.items() for one in (name, *companions_of(name, kind))}
        for name, header in self._stored.items():
            format = kinds.get(name, str(header.dtype).removeprefix("torch."))
            sizes[format] = sizes.get(format, 0) + header.bytes
        return sizes

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype that most bytes are stored in, of what is not quantised."""
        sizes: dict[torch.dtype, int] = {}
        for name, header in self.headers.items():
            if name not in self.quantized:
                sizes[header.dtype] = sizes.get(header.dtype, 0) + header.bytes
        return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)

    def read(self, name: str) -> Tensor:
        """One tensor on the CPU; ask for each name once."""
        if name in self.quantized:
            return read_real(name, self.quantized[name], lambda one: self._homes[one].read(one))
        return self._homes[name].read(name)


def open_weight_file(path: Path) -> Weights:
    """The weights of one file, by its ending; CheckpointError if it is damaged or of no kind that is known."""
    if path.suffix == ".safetensors":
        return Weights([path], SafetensorsFile)
    if path.suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return Weights([path], TorchFile)
    raise CheckpointError(f"{path} is no weight file that can be read; give a .safetensors, .pt, .pth, .bin or .ckpt file")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; CheckpointError if the file is absent, unreadable, or holds something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; copy it there from the checkpoint") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); fetch it again") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}; it must be a JSON object")
    return values


def has_weights(folder: Path) -> bool:
    """Whether any weight file is there; the index of absent shards alone is none."""
    return any(path.exists() for kind in _KINDS for path in _find(folder, kind))


def open_weights(folder: Path) -> Weights:
    """The weights of a folder: safetensors before `.bin` before `.pdparams`, one file before shards.

    CheckpointError if there are none, a shard is absent, or a file is damaged.
    """
    for kind in _KINDS:
        paths = _find(folder, kind)
        if paths:
            absent = [path.name for path in paths if not path.exists()]
            if absent:
                raise CheckpointError(
                    f"{folder} lacks {len(absent)} of its {len(paths)} weight files ({', '.join(absent[:3])}); fetch them"
                )
            return Weights(paths, kind.opens)
    raise CheckpointError(f"{folder} holds no weights; looked for {_NAMES}, whole or in shards")


def _find(folder: Path, kind: _Kind) -> list[Path]:
    """The files of one kind, absent ones included; an empty list if there is no trace of any."""
    for stem in kind.stems:
        whole, index = folder / f"{stem}{kind.suffix}", folder / f"{stem}{kind.suffix}.index.json"
        if whole.exists():
            return [whole]
        if index.exists():
            return _indexed(index)
        shards = sorted(folder.glob(f"{stem}-*-of-*{kind.suffix}"))
        if shards:
            return _counted(folder, stem, kind.suffix, shards)
    return []


def _indexed(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index} has no weight_map; fetch it again, or delete it to read the shards without it")
    return [index.parent / Path(name).name for name in dict.fromkeys(names.values())]


def _counted(folder: Path, stem: str, suffix: str, shards: list[Path]) -> list[Path]:
    """Shards without an index: their names say how many there must be."""
    match = re.fullmatch(rf"{stem}-(\d+)-of-(\d+){re.escape(suffix)}", shards[0].name)
    if match is None:
        return shards
    digits, total = len(match[1]), match[2]
    return [folder / f"{stem}-{number:0{digits}d}-of-{total}{suffix}" for number in range(1, int(total) + 1)]
