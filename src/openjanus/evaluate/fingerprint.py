"""What names a model beyond its name: a fingerprint of its weights."""

import hashlib

import torch
from torch import nn

SAMPLED = 1024  # numbers of each tensor


def fingerprint(module: nn.Module) -> str:
    """Sixteen hex digits that change with any training of the weights, their number format or quantisation.

    Of each tensor: name, shape, format, and numbers evenly spread over it, as it is quick on models of any size.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().reshape(-1)
        step = max(1, -(-flat.numel() // SAMPLED))
        digest.update(flat[::step].to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()[:16]
