"""Parts of a model in folders of their own, as one recipe leaves them for the next (checkpoints/parts.py reads them).

A part is weights under the published names and a config.json; the flow's VAE is a diffusers folder `vae/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.layouts import published_name
from openjanus.checkpoints.processors import as_json
from openjanus.checkpoints.vae_schema import to_vae
from openjanus.checkpoints.writing import Group, write_file, write_weights
from openjanus.config import VAEConfig


def save_part(folder: Path, prefix: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a part whose tensors, named from `prefix` on ("generation.tokenizer."), are these; config says its sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / "config.json", as_json({"part": prefix.rstrip("."), **config}))
    write_weights(folder, _groups({published_name(prefix + name): tensor for name, tensor in tensors.items()}))


def save_vae(folder: Path, tensors: Mapping[str, Tensor], config: VAEConfig) -> None:
    """Write a VAE as diffusers does, into `folder`/vae."""
    inside = folder / "vae"
    inside.mkdir(parents=True, exist_ok=True)
    write_file(inside / "config.json", as_json(to_vae(config)))
    write_weights(inside, _groups(tensors), stem="diffusion_pytorch_model")


def _groups(tensors: Mapping[str, Tensor]) -> list[Group]:
    return [
        Group({name: Header(tuple(tensor.shape), tensor.dtype)}, lambda tensor=tensor: (tensor,))  # type: ignore[misc]
        for name, tensor in tensors.items()
    ]
