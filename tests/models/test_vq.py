"""The VQ tokenizer without the reference pack: shapes, half precision, where attention stands."""

from dataclasses import replace

import pytest
import torch

from openjanus.config import VQConfig
from openjanus.models.vq import VQTokenizer

CONFIG = VQConfig(
    codebook_size=16, codebook_dim=4, ch=32, encoder_ch_mult=(1, 1, 2), decoder_ch_mult=(1, 1, 2), num_res_blocks=1, z_channels=8
)


def tokenizer(config: VQConfig = CONFIG) -> VQTokenizer:
    torch.manual_seed(0)
    return VQTokenizer(config).eval()


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 1, 2)])
@torch.no_grad()
def test_every_level_but_the_last_halves_the_image(multipliers: tuple[int, ...]) -> None:
    config = replace(CONFIG, encoder_ch_mult=multipliers, decoder_ch_mult=multipliers)
    vq = tokenizer(config)
    codes = vq.encode(torch.randn(1, 3, 16, 8)).codes
    assert codes.shape == (1, 16 // config.stride, 8 // config.stride)
    assert vq.decode_codes(codes).shape == (1, 3, 16, 8)


@torch.no_grad()
def test_codes_of_a_wide_image_decode_to_a_wide_image() -> None:
    vq = tokenizer()
    quantized = vq.encode(torch.randn(2, 3, 8, 20))
    assert quantized.codes.shape == (2, 2, 5) and quantized.codes.dtype == torch.int64
    assert quantized.latent.shape == (2, 4, 2, 5)
    torch.testing.assert_close(vq.decode_codes(quantized.codes), vq.decode(quantized.latent), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_decoding_works_in_every_dtype(dtype: torch.dtype) -> None:
    vq = tokenizer()
    codes = torch.randint(16, (1, 3, 2), generator=torch.Generator().manual_seed(1))
    expected = vq.decode_codes(codes)
    pixels = vq.to(dtype).decode_codes(codes)
    assert pixels.dtype == dtype
    torch.testing.assert_close(pixels.float(), expected, atol=0.05, rtol=0.05)


def test_attention_stands_on_the_lowest_resolution_only() -> None:
    keys = tokenizer().state_dict()
    attending = {name.split(".attn.")[0] for name in keys if ".attn." in name}
    assert attending == {"encoder.conv_blocks.2", "decoder.conv_blocks.0"}


def test_dropout_acts_in_training_only() -> None:
    vq = tokenizer(replace(CONFIG, dropout=0.5))
    pixels = torch.randn(1, 3, 8, 8)
    assert torch.equal(vq.encoder(pixels), vq.encoder(pixels))
    vq.train()
    assert not torch.equal(vq.encoder(pixels), vq.encoder(pixels))


def test_training_reaches_every_parameter() -> None:
    vq = tokenizer(replace(CONFIG, entropy_loss_ratio=0.1)).train()
    quantized = vq.encode(torch.randn(1, 3, 8, 8))
    assert quantized.losses is not None
    losses = quantized.losses.codebook + quantized.losses.commitment + quantized.losses.entropy
    (vq.decode(quantized.latent).square().mean() + losses).backward()
    assert [name for name, parameter in vq.named_parameters() if parameter.grad is None] == []
