"""Pictures encoded once: what a frozen image tokenizer or VAE makes of a picture is kept on disk, and read from there again.

Found by what the picture is, pixel by pixel, and by the weights that encode it; so a folder may serve many runs, and what is
cropped at random is found again only where it is square already (settings.random_crop).
"""

import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.token_generation import TokenGeneration
from openjanus.models.vae import Posterior
from openjanus.train.folder import writing


class Encoded:
    """A folder of tensors by what they were made of. Any number of processes may read and write it at a time."""

    def __init__(self, folder: Path, weights: Sequence[Tensor]) -> None:
        """weights: of what encodes, on the CPU; others have a folder of their own."""
        name = blake2b(digest_size=8)
        for tensor in weights:
            name.update(tensor.detach().float().numpy().tobytes())
        self._folder = folder / name.hexdigest()

    def of(self, pictures: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """What `encode` makes of pictures [M, ...], [M, ...]: read where it is there, made and written where it is not."""
        paths = [self._path(picture) for picture in pictures.float().cpu()]
        found = [self._read(path) for path in paths]
        missing = [place for place, one in enumerate(found) if one is None]
        if missing or not len(pictures):
            made = encode(pictures[missing])
            if not len(pictures):
                return made
            for place, one in zip(missing, made, strict=True):
                self._write(paths[place], one)
                found[place] = one
        return torch.stack([one.to(pictures.device) for one in found if one is not None])

    def _path(self, picture: Tensor) -> Path:
        name = blake2b(picture.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        return self._folder / name[:2] / f"{name[2:]}.npy"

    def _read(self, path: Path) -> Tensor | None:
        try:
            return torch.from_numpy(np.load(path))
        except (OSError, ValueError):  # not there, or not whole: it is made again
            return None

    def _write(self, path: Path, tensor: Tensor) -> None:
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, tensor.detach().cpu().numpy())
            partial.replace(path)


def remember(generation: TokenGeneration | FlowGeneration, folder: Path) -> None:
    """Let a model's frozen tokenizer or VAE look into a folder before it encodes a picture, and keep there what it makes."""
    encoder: Any = generation.tokenizer if isinstance(generation, TokenGeneration) else generation.vae
    if encoder is None:
        return  # a JanusFlow without its VAE says so when it is to paint
    encode, kept = encoder.encode, Encoded(folder, list(encoder.state_dict().values()))

    def codes(pictures: Tensor) -> Any:
        return encode(pictures).codes

    def posterior(pictures: Tensor) -> Tensor:
        found = encode(pictures)
        return torch.cat((found.mean, found.logvar), dim=1).float()

    if isinstance(generation, TokenGeneration):
        encoder.encode = lambda pictures: _Codes(kept.of(pictures, codes))
    else:
        encoder.encode = lambda pictures: Posterior(*kept.of(pictures, posterior).chunk(2, dim=1))


class _Codes:
    """What is asked of an encoding: its codes."""

    def __init__(self, codes: Tensor) -> None:
        self.codes = codes
