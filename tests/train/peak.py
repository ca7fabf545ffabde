"""The most memory that tensors hold at a time while something runs, counted by their storages."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Held(TorchDispatchMode):
    """Counts each storage from when an operation gives it out until nobody holds it."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[Any]] = {}
        self.now = self.most = 0

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        self.now += size
        self.most = max(self.most, self.now)
        self._known[key] = weakref.ref(storage, lambda _: self._forget(key, size))

    def _forget(self, key: int, size: int) -> None:
        self._known.pop(key, None)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for one in tree_leaves(out):
            if isinstance(one, torch.Tensor):
                self.note(one)
        return out


def peak(run: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Bytes at most while something runs, beside what is held before it and stays."""
    mode = _Held()
    for tensor in held:
        mode.note(tensor)
    with mode:
        run()
    return mode.most
