"""The quantiser without the reference pack: nearest code, straight-through gradient, losses, initial codebook."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openjanus.config import VQConfig
from openjanus.models.quantizer import VectorQuantizer, entropy_loss

CONFIG = VQConfig(codebook_size=12, codebook_dim=4)
PLAIN = replace(CONFIG, l2_norm=False)


def quantizer(config: VQConfig) -> VectorQuantizer:
    torch.manual_seed(3)
    return VectorQuantizer(config).eval()


@pytest.mark.parametrize("config", [CONFIG, PLAIN])
def test_each_vector_gets_its_nearest_code(config: VQConfig) -> None:
    q = quantizer(config)
    latent = torch.randn(2, 4, 3, 5)
    quantized = q(latent)
    vectors = latent.permute(0, 2, 3, 1)
    vectors = torch.nn.functional.normalize(vectors, dim=-1) if config.l2_norm else vectors
    distances = torch.cdist(vectors.reshape(-1, 4), q.lookup(torch.arange(12)))
    assert torch.equal(quantized.codes, distances.argmin(-1).view(2, 3, 5))
    torch.testing.assert_close(quantized.latent, q.lookup(quantized.codes).movedim(-1, 1))


@given(st.permutations(range(12)))
def test_of_equally_near_codes_the_first_is_taken(order: list[int]) -> None:
    q = quantizer(PLAIN)
    with torch.no_grad():
        q.embedding.weight.copy_(torch.eye(4).repeat(3, 1)[order])
    codes = q(torch.eye(4).view(4, 4, 1, 1)).codes.flatten()
    firsts = [min(place for place, row in enumerate(order) if row % 4 == axis) for axis in range(4)]
    assert codes.tolist() == firsts


def test_the_gradient_passes_straight_through() -> None:
    q = quantizer(PLAIN)
    latent = torch.randn(1, 4, 2, 2, requires_grad=True)
    weights = torch.randn(1, 4, 2, 2)
    (q(latent).latent * weights).sum().backward()
    assert torch.equal(latent.grad, weights)
    assert q.embedding.weight.grad is None


def test_losses_come_in_training_only() -> None:
    q = quantizer(CONFIG)
    latent = torch.randn(1, 4, 2, 2)
    assert q(latent).losses is None
    assert q.train()(latent).losses is not None


def test_codebook_loss_moves_codes_and_commitment_loss_moves_latents() -> None:
    q = quantizer(PLAIN).train()
    latent = torch.randn(1, 4, 2, 2, requires_grad=True)
    losses = q(latent).losses
    assert losses is not None
    losses.codebook.backward(retain_graph=True)
    assert latent.grad is None and q.embedding.weight.grad is not None
    q.embedding.weight.grad = None
    losses.commitment.backward()
    assert latent.grad is not None and q.embedding.weight.grad is None
    torch.testing.assert_close(losses.commitment, PLAIN.commit_loss_beta * losses.codebook)


def test_entropy_loss_reaches_latents_and_codebook_and_is_zero_without_a_ratio() -> None:
    latent = torch.randn(1, 4, 2, 2, requires_grad=True)
    q = quantizer(replace(CONFIG, entropy_loss_ratio=0.1)).train()
    losses = q(latent).losses
    assert losses is not None
    losses.entropy.backward()
    assert latent.grad.abs().sum() > 0 and q.embedding.weight.grad.abs().sum() > 0
    silent = quantizer(CONFIG).train()(latent).losses
    assert silent is not None and silent.entropy.item() == 0


def test_entropy_loss_is_lowest_when_sure_vectors_use_every_code() -> None:
    sure_and_spread = 1 - torch.eye(6)
    sure_and_bunched = sure_and_spread[:1].expand(6, 6)
    unsure = torch.ones(6, 6)
    assert entropy_loss(sure_and_spread) < -1.7 < entropy_loss(sure_and_bunched)
    torch.testing.assert_close(entropy_loss(unsure), torch.tensor(0.0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_latents_are_compared_in_float32(dtype: torch.dtype) -> None:
    q = quantizer(CONFIG).to(dtype)
    latent = torch.randn(4, 4, 8, 8).to(dtype)
    quantized = q(latent)
    assert quantized.latent.dtype == dtype
    assert torch.equal(quantized.codes, q.float()(latent.float()).codes)


def test_autocast_does_not_change_the_codes() -> None:
    q = quantizer(CONFIG)
    latent = torch.randn(4, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        codes = q(latent).codes
    assert torch.equal(codes, q(latent).codes)


def test_lookup_keeps_the_shape_of_the_codes() -> None:
    q = quantizer(CONFIG)
    codes = torch.randint(12, (2, 3, 5))
    assert q.lookup(codes).shape == (2, 3, 5, 4)
    torch.testing.assert_close(q.lookup(codes).norm(dim=-1), torch.ones(2, 3, 5))


def test_a_normalised_codebook_starts_at_unit_length_and_a_plain_one_within_one_over_its_size() -> None:
    torch.testing.assert_close(quantizer(CONFIG).embedding.weight.norm(dim=-1), torch.ones(12))
    assert quantizer(PLAIN).embedding.weight.abs().max() <= 1 / 12


def test_the_usage_buffer_is_there_only_on_demand() -> None:
    assert quantizer(CONFIG).state_dict()["codebook_used"].shape == (65536,)
    assert "codebook_used" not in quantizer(replace(CONFIG, show_usage=False)).state_dict()
