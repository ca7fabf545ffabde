"""Checkpoints rewritten in the formats and with the faults that are found in the wild."""

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from openjanus.checkpoints.layouts import PADDLEMIX, PADDLEMIX_FLOW, Layout, slots, without_vae
from openjanus.models.janus import JanusModel

WHOLE = "model.safetensors"


def take_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's single file, which is removed."""
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / WHOLE).items()}
    (folder / WHOLE).unlink()
    return tensors


def halves(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    names = list(tensors)
    middle = len(names) // 2
    return [{name: tensors[name] for name in part} for part in (names[:middle], names[middle:])]


def _write_index(folder: Path, stem: str, suffix: str, parts: list[dict[str, Tensor]]) -> None:
    homes = {name: f"{stem}-{i:05d}-of-00002{suffix}" for i, part in enumerate(parts, 1) for name in part}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": homes}))


def _shards(stem: str, suffix: str, save: Callable[[dict[str, Tensor], Path], None], index: bool) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        parts = halves(take_tensors(folder))
        for i, part in enumerate(parts, 1):
            save(part, folder / f"{stem}-{i:05d}-of-00002{suffix}")
        if index:
            _write_index(folder, stem, suffix, parts)

    return rewrite


def _bin(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save(tensors, path)


def _legacy_bin(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def _parameters_bin(tensors: dict[str, Tensor], path: Path) -> None:
    torch.save({name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}, path)


# Every way the published names may be stored.
FORMATS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda folder: None,
    "safetensors shards with index": _shards("model", ".safetensors", save_file, index=True),
    "safetensors shards without index": _shards("model", ".safetensors", save_file, index=False),
    "bin": lambda folder: _bin(take_tensors(folder), folder / "pytorch_model.bin"),
    "bin of parameters": lambda folder: _parameters_bin(take_tensors(folder), folder / "pytorch_model.bin"),
    "bin before torch 1.6": lambda folder: _legacy_bin(take_tensors(folder), folder / "pytorch_model.bin"),
    "bin shards with index": _shards("pytorch_model", ".bin", _bin, index=True),
    "bin shards without index": _shards("pytorch_model", ".bin", _bin, index=False),
    "bin shards before torch 1.6": _shards("pytorch_model", ".bin", _legacy_bin, index=False),
}


def paddle_layout(variant: str, llama: str) -> Layout:
    return (PADDLEMIX if variant == "janus" else PADDLEMIX_FLOW)[("model", "llama").index(llama)]


def paddle_tensors(model: JanusModel, variant: str, llama: str = "model") -> dict[str, Tensor]:
    """A model's tensors as Paddle names and turns them; written here without the table under test, but for the prefixes."""
    published = (PADDLEMIX if variant == "janus" else PADDLEMIX_FLOW)[0].table(without_vae(slots(model)))
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    turned = {}
    for name, tensor in model.state_dict().items():
        stored = published.get(name)
        if stored is not None:
            key = stored.names[0].replace("language_model.model.", f"language_model.{llama}.")
            is_matrix = name.endswith(".weight") and name.removesuffix(".weight") in linears
            turned[key] = (tensor.T if is_matrix else tensor).contiguous()
    return turned


def as_array(tensor: Tensor) -> NDArray[np.generic]:
    """What paddle makes of a tensor: numpy has no bfloat16."""
    array: NDArray[np.generic] = (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def write_pdparams(tensors: Mapping[str, Tensor], path: Path) -> None:
    arrays = {name: as_array(tensor) for name, tensor in tensors.items()}
    path.write_bytes(pickle.dumps({**arrays, "StructuredToParameterName@@": {name: name for name in arrays}}, protocol=4))
