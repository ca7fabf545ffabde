"""AdamW as the papers use it, Muon for whoever is short of time, and the moving average of what they move."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from openjanus.errors import ConfigError
from openjanus.train.eight_bits import build_adamw8bit, fits
from openjanus.train.parts import belongs
from openjanus.train.stage import Stage

# The papers do not say what decays. These do: the matrices that multiply. Biases, norms and single
# vectors set a level rather than multiply, and a row of an embedding table would shrink in every step that does not read it.
_DECAYING = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def build_optimizers(
    module: nn.Module, parameters: Mapping[str, nn.Parameter], stage: Stage, blocks: Sequence[str] = ()
) -> list[Optimizer]:
    """What moves some of a module's parameters, with a stage's numbers; its state is there from the beginning, as zeros.

    AdamW, for all of them, or with moments of 8 bits for those that fit; or, if the stage says muon, Muon for the matrices inside
    `blocks` (lists of modules, by name) and AdamW for the rest: embeddings, heads, norms and what surrounds the blocks are no
    business of Muon's (Jordan et al. 2024).
    """
    matrices = {id(part.weight) for part in module.modules() if isinstance(part, _DECAYING)}
    inner = {
        name: one
        for name, one in parameters.items()
        if stage.optimizer == "muon" and one.ndim == 2 and id(one) in matrices and belongs(name, blocks)
    }
    narrow = [one for one in parameters.values() if stage.optimizer == "adamw8bit" and fits(one)]
    taken = {id(one) for one in (*inner.values(), *narrow)}
    outer = [one for one in parameters.values() if id(one) not in taken]
    made: list[Optimizer] = []
    if inner:
        if not hasattr(optim, "Muon"):
            raise ConfigError(f"stages.{stage.name}.optimizer is muon, which torch has from 2.9 on; use adamw, or a newer torch")
        # Steps as long as AdamW's own (Liu et al. 2025, section 2.2), so that one rate serves both.
        muon = optim.Muon(list(inner.values()), lr=stage.rate, weight_decay=stage.weight_decay, adjust_lr_fn="match_rms_adamw")
        for parameter in inner.values():
            muon.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        made.append(muon)
    if narrow:
        made.append(build_adamw8bit(_groups(narrow, matrices, stage), stage))
    if outer:
        made.append(_adamw(outer, matrices, stage))
    return made


def _groups(parameters: Sequence[nn.Parameter], matrices: Container[int], stage: Stage) -> list[dict[str, Any]]:
    """matrices: the ids of the parameters that decay."""
    decaying = [parameter for parameter in parameters if id(parameter) in matrices]
    others = [parameter for parameter in parameters if id(parameter) not in matrices]
    groups = [{"params": decaying, "weight_decay": stage.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _adamw(parameters: Sequence[nn.Parameter], matrices: Container[int], stage: Stage) -> AdamW:
    optimizer = AdamW(_groups(parameters, matrices, stage), lr=stage.rate, betas=stage.betas, eps=stage.epsilon, fused=True)
    for parameter in parameters:
        # What AdamW would make in its first step. Made now, a state has the same tensors before it and after it.
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate of an optimizer's next step."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a number there would make compiled steps begin anew
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def clip(parameters: Mapping[str, nn.Parameter], limit: float) -> float:
    """The norm of all gradients together, over all processes; they are scaled down to `limit` if it is larger (0: never)."""
    norm = torch.nn.utils.clip_grad_norm_(parameters.values(), limit or float("inf"))
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


class Average:
    """The exponential moving average of parameters: average <- ratio * average + (1 - ratio) * parameter, after every step.

    It begins at the parameters' values, so it needs no correction for its first steps.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], ratio: float) -> None:
        self.tensors: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self._parameters = parameters
        self._ratio = ratio

    @torch.no_grad()
    def restart(self) -> None:
        """Begin again at the parameters' present values."""
        for name, tensor in self.tensors.items():
            tensor.copy_(self._parameters[name])

    @torch.no_grad()
    def update(self) -> None:
        """Take a step towards the parameters."""
        for name, tensor in self.tensors.items():
            tensor.lerp_(self._parameters[name], 1 - self._ratio)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The parameters hold the average inside the block, and their own values after it."""
        own = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
