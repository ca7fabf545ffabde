"""The shallow U-ViT without the reference pack: shapes, time, the global response norm."""

from dataclasses import replace

import pytest
import torch

from openjanus.config import UViTDecoderConfig, UViTEncoderConfig
from openjanus.errors import ConfigError
from openjanus.models.uvit import ConvNextBlock, GlobalResponseNorm, ShallowUViTDecoder, ShallowUViTEncoder, time_projection

ENCODER = UViTEncoderConfig(input_channels=4, stride=2, kernel_size=2, block_out_channels=(8,), hidden_size=12)
DECODER = UViTDecoderConfig(in_channels=6, out_channels=4, block_out_channels=(8,), upsamples=1, hidden_size=12)


def test_time_projection_puts_cosines_before_sines() -> None:
    projected = time_projection(torch.tensor([0.0, 500.0]), 6)
    assert projected.tolist()[0] == [1, 1, 1, 0, 0, 0]
    angles = 500.0 * 10000.0 ** (-torch.arange(3) / 3)
    torch.testing.assert_close(projected[1], torch.cat((angles.cos(), angles.sin())), atol=1e-4, rtol=0)


def test_time_is_projected_in_float32_whatever_its_dtype() -> None:
    time = torch.tensor([334.0], dtype=torch.bfloat16)
    assert torch.equal(time_projection(time, 8), time_projection(time.float(), 8))


@pytest.mark.parametrize(
    ("stride", "kernel", "upsamples", "height", "width"), [(2, 2, 1, 8, 4), (4, 7, 2, 8, 16), (1, 1, 1, 3, 5), (4, 4, 2, 4, 12)]
)
@torch.no_grad()
def test_features_and_velocity_have_their_sizes_on_any_stride(
    stride: int, kernel: int, upsamples: int, height: int, width: int
) -> None:
    encoder = ShallowUViTEncoder(replace(ENCODER, stride=stride, kernel_size=kernel))
    features, time = encoder(torch.randn(2, 4, height, width), torch.tensor([0.0, 1000.0]))
    grid = height // stride, width // stride
    assert features.shape == (2, 8, *grid) and time.shape == (2, 12)
    decoder = ShallowUViTDecoder(replace(DECODER, upsamples=upsamples))
    velocity = decoder(torch.randn(2, 6, *grid), features, time)
    assert velocity.shape == (2, 4, grid[0] * 2**upsamples, grid[1] * 2**upsamples)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_both_halves_keep_a_half_precision_dtype(dtype: torch.dtype) -> None:
    encoder, decoder = ShallowUViTEncoder(ENCODER).to(dtype), ShallowUViTDecoder(DECODER).to(dtype)
    features, time = encoder(torch.randn(1, 4, 4, 6, dtype=dtype), torch.tensor([250.0]))
    velocity = decoder(torch.randn(1, 6, 2, 3, dtype=dtype), features, time)
    assert {features.dtype, time.dtype, velocity.dtype} == {dtype}


def test_the_global_response_norm_starts_as_identity() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(GlobalResponseNorm(5)(x), x)


def test_time_acts_on_the_carried_features_too() -> None:
    block = ConvNextBlock(8, ENCODER)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.cond_embeds_mapper.bias[:8] = 1.0  # scale
        block.cond_embeds_mapper.bias[8:] = 0.5  # shift
    x = torch.randn(1, 8, 3, 3)
    torch.testing.assert_close(block(x, torch.randn(1, 12)), 2 * x + 0.5)


def test_without_a_middle_there_are_no_middle_parameters() -> None:
    parts = (
        ShallowUViTEncoder(replace(ENCODER, use_mid_block=False)),
        ShallowUViTDecoder(replace(DECODER, use_mid_block=False)),
    )
    assert not any("mid_block" in name for part in parts for name in part.state_dict())


def test_without_bias_the_middle_has_none_but_the_response_norms() -> None:
    block = ConvNextBlock(8, replace(ENCODER, use_bias=False))
    assert [name for name in block.state_dict() if "bias" in name] == ["channelwise_norm.bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"elementwise_affine": False}, "elementwise_affine is false"),
        ({"block_out_channels": (8, 16)}, "has one resolution"),
    ],
)
def test_what_the_shallow_uvit_cannot_be_is_a_config_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShallowUViTEncoder(replace(ENCODER, **change))
    with pytest.raises(ConfigError, match=message):
        ShallowUViTDecoder(replace(DECODER, **change))


def test_a_decoder_without_upsampling_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="upsamples is 0"):
        ShallowUViTDecoder(replace(DECODER, upsamples=0))
