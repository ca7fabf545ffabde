"""What carries features from one width to another: adaptors into the language model, the head that scores image codes.

SPEC section 2. Module names are the published ones. Dims: D the width that comes out (`n_embed`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openjanus.config import ProjectorConfig
from openjanus.errors import ConfigError


def _gelu_linears(width: int, count: int) -> list[nn.Module]:
    """GELU and Linear, `count` times."""
    return [layer for _ in range(count) for layer in (nn.GELU(), nn.Linear(width, width))]


class Adaptor(nn.Module):
    """One or more layers under the name `layers`: [..., input_dim] -> [..., D]."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class HybridAdaptor(nn.Module):
    """Features of a fine and a coarse encoder, half the width each: (high, low), both [..., input_dim] -> [..., D]."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.high_up_proj = nn.Linear(config.input_dim, config.n_embed // 2)
        self.low_up_proj = nn.Linear(config.input_dim, config.n_embed // 2)
        self.layers = nn.Sequential(*_gelu_linears(config.n_embed, config.depth - 1))

    def forward(self, features: tuple[Tensor, Tensor]) -> Tensor:
        high, low = features
        return self.layers(torch.cat((self.high_up_proj(high), self.low_up_proj(low)), dim=-1))


def build_adaptor(config: ProjectorConfig) -> nn.Module:
    """The adaptor that `config.projector_type` names; ConfigError if it names none."""
    match config.projector_type:
        case "identity":
            return Adaptor(nn.Identity())
        case "linear":
            return Adaptor(nn.Linear(config.input_dim, config.n_embed))
        case "mlp_gelu":
            first = nn.Linear(config.input_dim, config.n_embed)
            return Adaptor(nn.Sequential(first, *_gelu_linears(config.n_embed, config.depth - 1)))
        case "low_high_hybrid_split_mlp_gelu":
            return HybridAdaptor(config)
    raise ConfigError(
        f"projector_type is {config.projector_type!r}; it must be identity, linear, mlp_gelu or low_high_hybrid_split_mlp_gelu"
    )


class ImageHead(nn.Module):
    """Scores of every image code for hidden states: [..., width] -> [..., codes]."""

    def __init__(self, width: int, hidden: int, codes: int) -> None:
        super().__init__()
        self.output_mlp_projector = nn.Linear(width, hidden)
        self.vision_head = nn.Linear(hidden, codes)

    def forward(self, x: Tensor) -> Tensor:
        return self.vision_head(F.gelu(self.output_mlp_projector(x)))
