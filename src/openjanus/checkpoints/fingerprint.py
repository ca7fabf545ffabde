"""What names a model beyond its name: a fingerprint of its weights."""

from collections.abc import Mapping
from hashlib import blake2b

from torch import nn

# About how many numbers of a tensor are taken: it costs a moment on models of any size.
SAMPLED = 256


def fingerprint(model: nn.Module) -> str:
    """That of a model as it is, whose weights nothing has laid out anew for a processor."""
    return digest({name: one for path, module in model.named_modules() for name, one in sampled(path, module).items()})


def digest(samples: Mapping[str, str], quantize: str = "none") -> str:
    """Sixteen hex digits that any training of the weights, an adapter, another dtype or quantisation changes.

    samples: those of all modules, in whatever order they were read (`sampled`).
    """
    return blake2b(repr([quantize, *sorted(samples.items())]).encode(), digest_size=8).hexdigest()


def sampled(path: str, module: nn.Module) -> dict[str, str]:
    """By its name, dtype, shape and some numbers of each tensor that is a module's own, as text. path: the module's name."""
    found = {}
    for name, tensor in (*module.named_parameters(path, recurse=False), *module.named_buffers(path, recurse=False)):
        # Steps are odd, so as not to meet the same column in every row.
        numbers = tensor.detach().flatten()[:: tensor.numel() // SAMPLED | 1].cpu().double().numpy()
        found[name] = f"{tensor.dtype} {tuple(tensor.shape)} {numbers.tobytes().hex()}"
    return found
