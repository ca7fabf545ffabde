"""The adaptors under their published name (SPEC section 2)."""

from typing import Any

from torch import Tensor, nn

from janus.assembly import Params
from openjanus.config import ProjectorConfig
from openjanus.errors import ConfigError
from openjanus.models.adaptors import build_adaptor


class MlpProjector(nn.Module):
    """The adaptor that `cfg.projector_type` names: [..., input_dim] -> [..., n_embed], or a pair of inputs for the hybrid one.

    cfg: attributes or keys projector_type, input_dim, n_embed, depth (1). ValueError for an unknown type.
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.cfg = cfg = Params(cfg if isinstance(cfg, dict) else vars(cfg))
        try:
            adaptor = build_adaptor(
                ProjectorConfig(cfg.get("input_dim", 0), cfg.get("n_embed", 0), cfg.projector_type, cfg.get("depth", 1))
            )
        except ConfigError as error:
            raise ValueError(f"Unknown projector type: {cfg.projector_type}") from error
        # The layers move in under their published names; the arithmetic stays the adaptor's.
        for name, layer in adaptor.named_children():
            self.add_module(name, layer)
        self._adapt = type(adaptor).forward

    def forward(self, x_or_tuple: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        return self._adapt(self, x_or_tuple)
