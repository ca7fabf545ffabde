"""The SigLIP tower without the reference pack: depth, sizes, normalisation, initial weights."""

import pytest
import torch

from openjanus.config import TowerConfig
from openjanus.errors import ConfigError, ImageError
from openjanus.models.siglip import SiglipTower

SIZES = {"image_size": 8, "patch_size": 4, "width": 16, "layers": 3, "heads": 2}


def tower(**changes: object) -> SiglipTower:
    return SiglipTower(TowerConfig(**{**SIZES, "select_layer": -1, **changes})).eval()


@pytest.mark.parametrize(("select_layer", "depth"), [(-1, 3), (0, 3), (-2, 2), (-3, 1), (1, 1), (2, 2), (9, 3)])
def test_select_layer_says_how_many_blocks_are_built(select_layer: int, depth: int) -> None:
    assert len(tower(select_layer=select_layer).vision_tower.blocks) == depth


def test_select_layer_below_every_block_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="select_layer -5"):
        tower(select_layer=-5)


def test_a_truncated_tower_still_ends_with_the_final_norm() -> None:
    features = tower(select_layer=-2)(torch.randn(2, 3, 8, 8))
    torch.testing.assert_close(features.mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)


def test_the_head_pools_to_one_vector_an_image() -> None:
    assert tower(ignore_head=False)(torch.randn(2, 3, 8, 8)).shape == (2, 16)


def test_the_unread_head_is_built_so_that_checkpoints_fit() -> None:
    assert tower().state_dict().keys() == tower(ignore_head=False).state_dict().keys()
    assert "vision_tower.attn_pool.latent" in tower().state_dict()


def test_patches_are_read_in_row_order() -> None:
    vit = tower(image_size=12, select_layer=-1).vision_tower
    pixels = torch.randn(1, 3, 12, 12)
    patch = pixels[:, :, 0:4, 8:12]  # first row, third column
    expected = (patch.flatten(1) @ vit.patch_embed.proj.weight.flatten(1).T) + vit.patch_embed.proj.bias
    torch.testing.assert_close(vit.patch_embed(pixels)[:, 2], expected)


def test_pixels_of_another_size_are_an_image_error() -> None:
    with pytest.raises(ImageError, match="8x12; it reads 8x8"):
        tower()(torch.randn(1, 3, 8, 12))


def test_mean_and_std_normalise_only_when_both_are_given() -> None:
    statistics = {"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (0.5, 0.6, 0.7)}
    pixels = torch.rand(1, 3, 8, 8)
    normalised = (pixels - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    torch.testing.assert_close(tower(**statistics).image_norm(pixels), normalised)
    for name, value in statistics.items():
        assert torch.equal(tower(**{name: value}).image_norm(pixels), pixels)


def test_normalising_adds_nothing_to_the_state_dict() -> None:
    normalising = tower(pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3)
    assert normalising.state_dict().keys() == tower().state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_tower_works_in_half_precision(dtype: torch.dtype) -> None:
    reading = tower(pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3).to(dtype)
    features = reading(torch.randn(1, 3, 8, 8, dtype=dtype))
    assert features.dtype == dtype and features.isfinite().all()


def test_an_mlp_ratio_that_gives_no_whole_width_rounds_down() -> None:
    assert tower(mlp_ratio=3.7362).vision_tower.blocks[0].mlp.fc1.out_features == 59


def test_position_embeddings_start_small() -> None:
    torch.manual_seed(0)
    wide = SiglipTower(TowerConfig(image_size=64, patch_size=4, width=64, layers=1, heads=2, select_layer=-1)).vision_tower
    assert wide.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert wide.attn_pool.latent.std().item() == pytest.approx(64**-0.5, rel=0.3)
