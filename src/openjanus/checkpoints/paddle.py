"""Paddle's `.pdparams`: a pickled dict of numpy arrays, read without paddle and without running anything from the file.

A pickle is a program: it names functions and calls them. Here every name it may use resolves to one of the few stand-ins below,
which build numbers and nothing else; any other name ends the reading before a call is made.
Paddle keeps bfloat16 as uint16, writes a tensor as an array or as (name, array), and adds a table of parameter names.
"""

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openjanus.errors import CheckpointError

NAME_TABLE = "StructuredToParameterName@@"
# Pickle protocols 2 and 3 cannot hold 4 GB in one piece; paddle then writes slices and this table to put them together.
SLICE_TABLE = "UnpackBigParamInfor@@"

_CODES = {"f2", "f4", "f8", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "b1"}


class _DType:
    """Stand-in for numpy.dtype: plain numbers only."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in _CODES:
            raise pickle.UnpicklingError(f"it holds values of type {code!r}, not numbers")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in "<>":
            self.value = self.value.newbyteorder(state[1])


class _Array:
    """Stand-in for numpy.ndarray. The bytes are those of the pickle, not a copy."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, by_columns, data = state
        self.value = _frombuffer(data, dtype, shape, "F" if by_columns else "C")


def _frombuffer(data: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: str) -> NDArray[Any]:
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 writes b""; bytes(n) would take any amount of memory."""
    return b""


_NUMPY_CORES = ("numpy.core", "numpy._core")
_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("__builtin__", "bytes"): _no_bytes,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in _NUMPY_CORES},
    **{(f"{core}.numeric", "_frombuffer"): _frombuffer for core in _NUMPY_CORES},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no weight file needs; do not trust it")
        return _STAND_INS[module, name]


def read_pdparams(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays by name, in the file's order. CheckpointError if it is damaged, holds something else, or asks to run anything."""
    try:
        with path.open("rb") as file:
            loaded = _Unpickler(file).load()
        arrays = {} if not isinstance(loaded, dict) else _joined({name: _array(value) for name, value in loaded.items()})
    except Exception as error:  # a damaged pickle raises almost anything
        raise CheckpointError(f"{path} cannot be read as Paddle weights: {error}; fetch it again from where you trust") from error
    named = {name: array for name, array in arrays.items() if isinstance(array, np.ndarray) and isinstance(name, str)}
    others = [name for name in arrays if name not in named and name != NAME_TABLE]
    if not named or others:
        reason = f"it holds {', '.join(map(str, others[:3]))}" if others else "it holds none"
        raise CheckpointError(f"{path} is no table of weights ({reason}); give a .pdparams file")
    return named


def _array(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, tuple) and len(value) == 2:
        return _array(value[1])
    return value


def _joined(arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays with sliced ones put together."""
    for name, pieces in arrays.pop(SLICE_TABLE, {}).items():
        flat = [arrays.pop(piece).reshape(-1) for piece in pieces["slices"]]
        arrays[name] = np.concatenate(flat).reshape(pieces["OriginShape"])
    return arrays


def to_tensor(array: NDArray[Any]) -> Tensor:
    """The array as a tensor, in the same memory where numbers are stored as torch wants them; uint16 is Paddle's bfloat16."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    with warnings.catch_warnings():
        # The memory is that of a bytes object, so torch warns against writing there. Nobody else holds the object: it may become
        # a weight and be trained. A copy would put the peak of loading at twice the largest tensor above the file's size.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensor = torch.from_numpy(native)
    return tensor.view(torch.bfloat16) if native.dtype == np.uint16 else tensor
