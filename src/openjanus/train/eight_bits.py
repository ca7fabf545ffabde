"""AdamW with moments of a byte an element, by torchao: 256 neighbours share a scale (Dettmers et al. 2021, arXiv 2110.02861).

Only rows that are whole blocks of 256 are kept so, the rest stays in float32. Then no block lies in two shards, and a state holds
the same tensors whatever the number of processes: codes as the parameter, scales [rows, blocks].
"""

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from openjanus.errors import ConfigError
from openjanus.train.stage import Stage

BLOCK = 256
# Smaller ones are not worth it: their moments are few, and they set levels (as in the paper, section 2).
_LEAST = 4096


def fits(parameter: Tensor) -> bool:
    """Whether a parameter's moments are kept in 8 bits."""
    return parameter.ndim > 1 and prod(parameter.shape[1:]) % BLOCK == 0 and parameter.numel() >= _LEAST


def build_adamw8bit(groups: list[dict[str, Any]], stage: Stage) -> Optimizer:
    """What moves parameters that fit, in groups of "params" and "weight_decay"; its state is there from the beginning.

    ConfigError without torchao.
    """
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError(
            f"stages.{stage.name}.optimizer is adamw8bit, which needs torchao: pip install 'openjanus[quantize]'; or use adamw"
        ) from error
    optimizer: Optimizer = AdamW8bit(groups, lr=stage.rate, betas=stage.betas, eps=stage.epsilon, block_size=BLOCK)
    for parameter in (one for group in groups for one in group["params"]):
        optimizer.state[parameter] = {
            "step": torch.zeros(()),
            "exp_avg": _zeros(parameter, signed=True),
            "exp_avg_sq": _zeros(parameter, signed=False),
        }
    return optimizer


@torch.no_grad()
def _zeros(parameter: nn.Parameter, signed: bool) -> Tensor:
    from torchao.optim.subclass_8bit import OptimState8bit

    local = _local(parameter)
    # A process may have no row of a parameter that has fewer rows than there are processes.
    made = (
        OptimState8bit.zeros(local.shape, signed, BLOCK, local.device, local.dtype) if local.numel() else torch.zeros_like(local)
    )
    return _like(parameter, made, parameter.shape)


@torch.no_grad()
def plain_tensors(optimizer: Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """An optimizer's state of a parameter as tensors that can be saved, which share its memory: of 8 bits codes and scales."""
    state: Mapping[str, Tensor] = optimizer.state[parameter]
    if not hasattr(optimizer, "block_size"):  # which torchao's have
        return dict(state)
    blocks = prod(parameter.shape[1:]) // BLOCK
    found = {"step": state["step"]}
    for key in ("exp_avg", "exp_avg_sq"):
        local: Any = _local(state[key])
        codes = local.codes if local.numel() else torch.zeros_like(local, dtype=torch.uint8)
        scales = local.scale.view(-1, blocks) if local.numel() else codes.new_zeros(0, blocks, dtype=torch.float32)
        found[f"{key}.codes"] = _like(parameter, codes, parameter.shape)
        found[f"{key}.scales"] = _like(parameter, scales, (parameter.shape[0], blocks))
    return found


def optimizer_bytes(parameters: Iterable[Tensor], stage: Stage) -> int:
    """Bytes of AdamW's moments of some parameters."""
    narrow = 2 + 8 / BLOCK
    return int(sum(one.numel() * (narrow if stage.optimizer == "adamw8bit" and fits(one) else 8) for one in parameters))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _like(parameter: Tensor, local: Tensor, shape: Iterable[int]) -> Tensor:
    """This process's part of a tensor that is spread as a parameter is, by rows."""
    if not isinstance(parameter, DTensor):
        return local
    size = torch.Size(shape)
    stride = tuple(prod(size[place + 1 :]) for place in range(len(size)))
    return DTensor.from_local(local, parameter.device_mesh, parameter.placements, run_check=False, shape=size, stride=stride)
