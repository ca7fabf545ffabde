"""What names a model beyond its name: a fingerprint of its weights."""

from collections.abc import Mapping
from hashlib import blake2b

import torch
from torch import nn

# How many runs of how many numbers of a tensor are taken. Runs, because numbers that lie apart would each bring in a page of a
# file that nothing has been read of yet, with all that the system reads ahead.
RUNS, LENGTH = 4, 64


def fingerprint(model: nn.Module) -> str:
    """That of a model as it is, whose weights nothing has laid out anew for a processor."""
    return digest({name: one for path, module in model.named_modules() for name, one in sampled(path, module).items()})


def digest(samples: Mapping[str, str], quantize: str = "none") -> str:
    """Sixteen hex digits that training, an adapter, another dtype or quantisation changes.

    Training that moves nothing but some rows of a table may be missed: `RUNS` places of each tensor are looked at.

    samples: those of all modules, in whatever order they were read (`sampled`).
    """
    return blake2b(repr([quantize, *sorted(samples.items())]).encode(), digest_size=8).hexdigest()


def sampled(path: str, module: nn.Module) -> dict[str, str]:
    """By its name, dtype, shape and some numbers of each tensor that is a module's own, as text. path: the module's name."""
    found = {}
    for name, tensor in (*module.named_parameters(path, recurse=False), *module.named_buffers(path, recurse=False)):
        flat = tensor.detach().flatten()
        last = max(len(flat) - LENGTH, 0)
        runs = [flat[last * place // (RUNS - 1) :][:LENGTH] for place in range(RUNS)]
        numbers = torch.cat(runs).cpu().double().numpy()
        found[name] = f"{tensor.dtype} {tuple(tensor.shape)} {numbers.tobytes().hex()}"
    return found
