"""RMSNorm and the convolutional blocks that the VQ tokenizer and the VAE share."""

import pytest
import torch

from openjanus.errors import ConfigError
from openjanus.models.layers import Downsample, ResidualBlock, RMSNorm, Upsample, attend_over_positions, group_norm

HALVES = [torch.float16, torch.bfloat16]


def test_rms_norm_gives_unit_root_mean_square_times_the_weight() -> None:
    norm = RMSNorm(8)
    torch.nn.init.constant_(norm.weight, 3.0)
    x = torch.randn(2, 5, 8) * 40
    torch.testing.assert_close(norm(x).square().mean(-1).sqrt(), torch.full((2, 5), 3.0))


def test_rms_norm_takes_its_statistics_in_float32() -> None:
    norm = RMSNorm(4).half()
    # The squares overflow float16.
    torch.testing.assert_close(norm(torch.full((1, 4), 1000.0, dtype=torch.float16)), torch.ones(1, 4, dtype=torch.float16))


def test_rms_norm_applies_its_weight_after_the_cast_back() -> None:
    norm = RMSNorm(64).bfloat16()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 64).bfloat16()
    unit = (x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + 1e-6)).bfloat16()
    assert torch.equal(norm(x), norm.weight * unit)


def test_channels_that_do_not_fill_the_groups_are_a_config_error() -> None:
    with pytest.raises(ConfigError, match="48 channels cannot be normalised in 32 groups"):
        group_norm(48)


@pytest.mark.parametrize("dtype", HALVES)
def test_upsample_keeps_the_dtype_and_copies_each_pixel_to_four(dtype: torch.dtype) -> None:
    upsample = Upsample(2).to(dtype)
    torch.nn.init.dirac_(upsample.conv.weight)
    torch.nn.init.zeros_(upsample.conv.bias)
    x = torch.randn(1, 2, 3, 5).to(dtype)
    with torch.no_grad():
        doubled = upsample(x)
    assert doubled.dtype == dtype
    assert torch.equal(doubled, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize(("size", "expected"), [((8, 8), (4, 4)), ((6, 10), (3, 5)), ((7, 9), (3, 4))])
def test_downsample_halves_and_rounds_down(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Downsample(2)(torch.randn(1, 2, *size)).shape == (1, 2, *expected)


def test_downsample_pads_on_the_right_and_at_the_bottom_only() -> None:
    downsample = Downsample(1)
    torch.nn.init.zeros_(downsample.conv.bias)
    corner = torch.zeros(1, 1, 3, 3)
    corner[..., 0, 0] = 1.0
    downsample.conv.weight.data = corner
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(downsample(x), x[..., ::2, ::2])


def test_residual_block_names_its_shortcut_as_told_and_only_where_widths_differ() -> None:
    assert "nin_shortcut.weight" in ResidualBlock(4, 8, "nin_shortcut", groups=4).state_dict()
    assert "conv_shortcut.weight" in ResidualBlock(4, 8, "conv_shortcut", groups=4).state_dict()
    assert not any("shortcut" in name for name in ResidualBlock(4, 4, "nin_shortcut", groups=4).state_dict())


def test_residual_block_drops_out_in_training_only() -> None:
    block = ResidualBlock(4, 4, "nin_shortcut", groups=4, dropout=0.5)
    x = torch.randn(1, 4, 6, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))


def test_attention_over_positions_is_scaled_dot_product_attention_with_one_head() -> None:
    query, key, value = torch.randn(3, 2, 7, 5).unbind()
    expected = (query @ key.mT / 5**0.5).softmax(-1) @ value
    torch.testing.assert_close(attend_over_positions(query, key, value), expected)
