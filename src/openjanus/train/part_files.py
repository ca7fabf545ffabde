"""Parts of a model in folders of their own: what one recipe leaves and the next begins with.

A part is weights under the published names and a config.json; the flow's VAE is a diffusers folder `vae/`. A whole checkpoint of
the published layout is read alike, so a run may begin with a part of one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from openjanus.checkpoints.files import has_weights, open_weights, read_json
from openjanus.checkpoints.headers import Header
from openjanus.checkpoints.layouts import FLOW_PREFIXES, JANUS_PREFIXES, VAE_PREFIX, published_name
from openjanus.checkpoints.processors import as_json
from openjanus.checkpoints.vae_schema import parse_vae, to_vae
from openjanus.checkpoints.writing import Group, write_file, write_weights
from openjanus.config import VAEConfig
from openjanus.errors import CheckpointError

_OURS = {published: ours for prefixes in (JANUS_PREFIXES, FLOW_PREFIXES) for ours, published in prefixes.items()}


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


def load_part(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a part or a checkpoint by our names ("generation.tokenizer.encoder..."), a VAE's included.

    CheckpointError if there are none, or one whose published name is unknown.
    """
    folder = Path(folder)
    state: dict[str, Tensor] = {}
    vae = folder / "vae"
    if vae.is_dir():
        weights = open_weights(vae)
        state |= {VAE_PREFIX + name: weights.read(name) for name in weights.headers}
    if not state or has_weights(folder):
        weights = open_weights(folder)
        state |= {_our_name(name, folder): weights.read(name) for name in weights.headers}
    return state


def load_vae_config(folder: str | Path) -> VAEConfig:
    """The sizes and the scaling factor of the VAE in a part or a checkpoint; CheckpointError if there is none."""
    path = Path(folder) / "vae" / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no vae/config.json; train a VAE first, or give the folder of one")
    return parse_vae(read_json(path))


def _our_name(published: str, folder: Path) -> str:
    for prefix, ours in _OURS.items():
        if published.startswith(prefix):
            return ours + published.removeprefix(prefix)
    raise CheckpointError(f"{folder} holds {published}, which no part of a published Janus is called; convert it first")


def _groups(tensors: Mapping[str, Tensor]) -> list[Group]:
    return [
        Group({name: Header(tuple(tensor.shape), tensor.dtype)}, lambda tensor=tensor: (tensor,))  # type: ignore[misc]
        for name, tensor in tensors.items()
    ]
