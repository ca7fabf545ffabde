"""The parts of a module by the names of their parameters: which are frozen, which move, how large each is."""

from collections.abc import Sequence
from difflib import get_close_matches

from torch import nn

from openjanus.errors import ConfigError


def belongs(name: str, parts: Sequence[str]) -> bool:
    """Whether a parameter is in one of the parts: "language" holds "language.lm_head.weight" and not "languages.weight"."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def freeze(module: nn.Module, parts: Sequence[str], key: str) -> None:
    """Put the module in training mode, but make these parts, and what was frozen already, stay as they are, in eval mode.

    ConfigError, naming `key`, for a part that is not there and if nothing is left to train.
    """
    parameters = dict(module.named_parameters())
    for part in parts:
        if not any(belongs(name, [part]) for name in parameters):
            near = get_close_matches(part, _places(parameters), 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sizes(module))}"
            raise ConfigError(f"{key} names {part!r}, but no parameter begins so; {hint}")
    for name, parameter in parameters.items():
        if belongs(name, parts):
            parameter.requires_grad_(False)
    if not trainable(module):
        raise ConfigError(f"{key} freezes everything ({', '.join(parts)}); leave something to train")
    module.train()
    for inner in module.modules():
        inside = list(inner.parameters())
        if inside and not any(parameter.requires_grad for parameter in inside):
            inner.eval()


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def sizes(module: nn.Module) -> dict[str, tuple[int, int]]:
    """Each part's parameters that move, and all of them. A part is what the first two words of the names share."""
    found: dict[str, tuple[int, int]] = {}
    for name, parameter in module.named_parameters():
        part = ".".join(name.split(".")[:-1][:2]) or name
        moving, every = found.get(part, (0, 0))
        found[part] = (moving + parameter.numel() * parameter.requires_grad, every + parameter.numel())
    return found


def _places(names: Sequence[str] | dict[str, nn.Parameter]) -> set[str]:
    """Every beginning that a name has."""
    words = [name.split(".") for name in names]
    return {".".join(word[:end]) for word in words for end in range(1, len(word) + 1)}
