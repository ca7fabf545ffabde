"""Adaptors and the image head without the reference pack."""

import pytest
import torch

from openjanus.config import ProjectorConfig
from openjanus.errors import ConfigError
from openjanus.models.adaptors import ImageHead, build_adaptor


def test_an_unknown_type_is_a_config_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'mlp_relu'; it must be identity, linear, mlp_gelu or low_high_hybrid"):
        build_adaptor(ProjectorConfig(4, 6, "mlp_relu"))


@pytest.mark.parametrize(
    ("kind", "depth", "names"),
    [
        ("identity", 1, set()),
        ("linear", 1, {"layers"}),
        ("mlp_gelu", 1, {"layers.0"}),
        ("mlp_gelu", 3, {"layers.0", "layers.2", "layers.4"}),
        ("low_high_hybrid_split_mlp_gelu", 1, {"high_up_proj", "low_up_proj"}),
        ("low_high_hybrid_split_mlp_gelu", 3, {"high_up_proj", "low_up_proj", "layers.1", "layers.3"}),
    ],
)
def test_layers_carry_the_published_names(kind: str, depth: int, names: set[str]) -> None:
    keys = build_adaptor(ProjectorConfig(4, 6, kind, depth)).state_dict().keys()
    assert keys == {f"{name}.{tensor}" for name in names for tensor in ("weight", "bias")}


def test_identity_returns_what_it_got() -> None:
    x = torch.randn(2, 4)
    assert build_adaptor(ProjectorConfig(4, 6, "identity"))(x) is x


def test_the_hybrid_puts_the_fine_features_first() -> None:
    adaptor = build_adaptor(ProjectorConfig(4, 6, "low_high_hybrid_split_mlp_gelu"))
    high, low = torch.randn(2, 5, 4).unbind()
    joined = adaptor((high, low))
    torch.testing.assert_close(joined[:, :3], adaptor.high_up_proj(high))
    torch.testing.assert_close(joined[:, 3:], adaptor.low_up_proj(low))


def test_the_image_head_scores_every_code() -> None:
    assert ImageHead(width=4, hidden=6, codes=10)(torch.randn(2, 3, 4)).shape == (2, 3, 10)
