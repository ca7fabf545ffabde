"""The VAE without the reference pack: shapes, the posterior."""

from dataclasses import replace

import pytest
import torch

from openjanus.config import VAEConfig
from openjanus.models.vae import AutoencoderKL, Posterior

CONFIG = VAEConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


@pytest.mark.parametrize("widths", [(8,), (8, 16), (8, 16, 16)])
@torch.no_grad()
def test_every_level_but_the_last_halves_the_image(widths: tuple[int, ...]) -> None:
    config = replace(CONFIG, block_out_channels=widths)
    vae = AutoencoderKL(config)
    latent = vae.encode(torch.randn(2, 3, 16, 8)).mode()
    assert latent.shape == (2, 4, 16 // config.stride, 8 // config.stride)
    assert vae.decode(latent).shape == (2, 3, 16, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_the_vae_keeps_a_half_precision_dtype(dtype: torch.dtype) -> None:
    vae = AutoencoderKL(CONFIG).to(dtype)
    assert vae.decode(vae.encode(torch.randn(1, 3, 8, 8, dtype=dtype)).mode()).dtype == dtype


def test_a_posterior_draws_around_its_mean_by_its_deviation() -> None:
    posterior = Posterior(torch.full((1, 1, 100, 100), 2.0), torch.full((1, 1, 100, 100), 0.25).log())
    drawn = posterior.sample(torch.Generator().manual_seed(0))
    assert drawn.mean().item() == pytest.approx(2.0, abs=0.02)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.02)
    assert torch.equal(posterior.mode(), posterior.mean)


def test_the_same_generator_draws_the_same_latent() -> None:
    posterior = Posterior(torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 3, 3))
    first, again = (posterior.sample(torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert posterior.sample().shape == (1, 4, 3, 3)


@torch.no_grad()
def test_an_extreme_logvar_is_bounded_so_that_sampling_stays_finite() -> None:
    vae = AutoencoderKL(CONFIG)
    torch.nn.init.constant_(vae.quant_conv.bias, 1e4)
    posterior = vae.encode(torch.randn(1, 3, 8, 8))
    assert posterior.logvar.max() == 20
    assert posterior.sample().isfinite().all()
