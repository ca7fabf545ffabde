"""The tasks of image tokenizer and autoencoder: losses by hand and by the reference, the adversary's start, codes, exports."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from goldens import fixture, part
from openjanus.checkpoints.load import read_vae_config
from openjanus.checkpoints.parts import load_part
from openjanus.config import VAEConfig, VQConfig
from openjanus.errors import CheckpointError, ConfigError
from openjanus.models.vae import AutoencoderKL, Posterior
from openjanus.models.vq import VQTokenizer
from openjanus.train.adversary import PatchDiscriminator, fooling_loss, telling_loss
from openjanus.train.image_autoencoder import AutoencoderSettings, ImageAutoencoder, divergence
from openjanus.train.image_tokenizer import RECENT, ImageTokenizer, TokenizerSettings
from openjanus.train.learner import Learner
from openjanus.train.parallel import World
from openjanus.train.perceptual import Perceptual, Vgg16
from openjanus.train.pictures import ScenePictures, places
from openjanus.train.plan import dry_run
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Adversary, Likeness, ReconstructionSettings
from openjanus.train.stage import Stage
from openjanus.train.trainer import train

SMALL = VQConfig(24, 4, ch=32, encoder_ch_mult=(1, 1), decoder_ch_mult=(1, 1), num_res_blocks=1, z_channels=8)
SMALL_VAE = VAEConfig(block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8)
STAGE = Stage("learn", steps=3, batch=2, rate=1e-3)
ALONE = World(0, 1, torch.device("cpu"))


class Quiet:
    def note(self, text: str) -> None: ...
    def step(self, line: Any, steps: int) -> None: ...


class Noise:
    """Pictures of noise, 8 x 8."""

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        return np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def tokenizer_recipe(stages: tuple[Stage, ...] = (STAGE,), **settings: Any) -> Recipe:
    values = TokenizerSettings(**{"size": 8, "tokenizer": SMALL, **settings})
    return Recipe("tokenizer", lambda recipe: ImageTokenizer(recipe, Noise()), stages, values, save_every=1)


def autoencoder_recipe(**settings: Any) -> Recipe:
    values = AutoencoderSettings(**{"size": 8, "vae": SMALL_VAE, **settings})
    return Recipe("autoencoder", lambda recipe: ImageAutoencoder(recipe, Noise()), (STAGE,), values)


def task_of(recipe: Recipe) -> Any:
    torch.manual_seed(0)
    task = recipe.task(recipe)
    task.module.train()
    return task


def losses_of(task: Any, step: int = 0) -> dict[str, float]:
    (batch,) = task.batches(STAGE, step, 0, 1)
    return {name: float(loss.sum.detach()) / batch.counts[loss.over] for name, loss in task.losses(batch.content).items()}


# -- losses ----------------------------------------------------------------------------


def test_hinge_losses_are_those_of_the_formula() -> None:
    real, made = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert float(fooling_loss(made)) == pytest.approx(2 / 3)
    # real: 0, 0.5, 2 of three; made: 0, 1, 2 of three.
    assert float(telling_loss(real, made)) == pytest.approx(0.5 * (2.5 / 3 + 3 / 3))


def test_a_difference_within_the_tolerance_costs_nothing() -> None:
    task = task_of(tokenizer_recipe(likeness=Likeness(l1=2.0, l2=3.0, tolerance=0.25)))
    pixels = torch.zeros(1, 3, 1, 2)
    made = torch.tensor([0.25, -0.75]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    found = task.module._differences(made, pixels)
    assert {name: float(value) for name, value in found.items()} == {"l1": 2.0 * 0.25, "l2": 3.0 * 0.125}


def test_divergence_is_that_of_two_gaussians() -> None:
    mean, logvar = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    mine = divergence(Posterior(mean, logvar))
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, (logvar / 2).exp()), normal(torch.tensor(0.0), torch.tensor(1.0)))
    torch.testing.assert_close(mine, theirs.mean())


def test_a_tokenizers_losses_match_the_reference() -> None:
    notes, tensors = fixture("vq_model")
    values = notes["config"]
    config = VQConfig(
        values["codebook_size"],
        values["codebook_embed_dim"],
        ch=values["ch"],
        encoder_ch_mult=tuple(values["ch_mult"]),
        decoder_ch_mult=tuple(values["ch_mult"]),
        num_res_blocks=values["num_res_blocks"],
        z_channels=values["z_channels"],
        commit_loss_beta=values["commit_loss_beta"],
        entropy_loss_ratio=values["entropy_loss_ratio"],
    )
    task = task_of(tokenizer_recipe(tokenizer=config))
    task.module.tokenizer.load_state_dict(part(tensors, "weights."))
    image = tensors["in.image"]
    found = task.module.making(image, 0)
    for ours, theirs in (("codebook", "vq_loss"), ("commitment", "commit_loss"), ("entropy", "entropy_loss")):
        torch.testing.assert_close(found[ours], tensors[f"out.train.{theirs}"])
    expected = (tensors["out.forward_eval.reconstruction"] - image).square().mean()
    torch.testing.assert_close(found["l2"], expected, rtol=1e-4, atol=1e-5)


class Brightness(nn.Module):
    """One feature map of two channels: the pixels' mean, and 1."""

    def forward(self, pixels: Tensor) -> list[Tensor]:
        mean = pixels.mean(1, keepdim=True)
        return [torch.cat([mean, torch.ones_like(mean)], 1)]


def test_perceptual_distance_is_between_features_at_unit_length() -> None:
    one, other = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    # (0, 1) and (1, 1) / sqrt(2)
    half = 0.5**0.5
    assert float(Perceptual(Brightness())(one, other)) == pytest.approx(half**2 + (1 - half) ** 2)
    weighted = Perceptual(Brightness(), [torch.tensor([3.0, 0.0])])
    assert float(weighted(one, other)) == pytest.approx(3 * half**2)


def test_a_perceptual_term_wants_features() -> None:
    with pytest.raises(ConfigError, match="no features"):
        task_of(tokenizer_recipe(likeness=Likeness(perceptual=1.0)))
    settings = TokenizerSettings(size=8, tokenizer=SMALL, likeness=Likeness(perceptual=2.0))
    recipe = Recipe("seeing", lambda recipe: ImageTokenizer(recipe, Noise(), Perceptual(Brightness())), (STAGE,), settings)
    assert losses_of(task_of(recipe))["perceptual"] > 0


def test_vgg_is_read_from_torchvisions_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = Vgg16()
    torch.save({**made.state_dict(), "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    read = Vgg16.from_file(tmp_path / "vgg16.pth")
    maps = read(torch.zeros(1, 3, 32, 32))
    assert [tuple(one.shape[1:]) for one in maps] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)]
    assert torch.equal(maps[4], made(torch.zeros(1, 3, 32, 32))[4])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(CheckpointError, match="VGG16"):
        Vgg16.from_file(tmp_path / "wrong.pth")


# -- the adversary ---------------------------------------------------------------------


def test_a_discriminator_judges_patches() -> None:
    judge = PatchDiscriminator(width=8, layers=3)
    assert judge(torch.zeros(2, 3, 48, 48)).shape == (2, 1, 4, 4)
    shapes = [tuple(one.weight.shape) for one in judge.modules() if isinstance(one, nn.Conv2d)]
    assert shapes == [(8, 3, 4, 4), (16, 8, 4, 4), (32, 16, 4, 4), (64, 32, 4, 4), (1, 64, 4, 4)]


@pytest.mark.parametrize("make", [tokenizer_recipe, autoencoder_recipe])
def test_the_adversary_starts_at_its_step_and_each_side_moves_its_own(make: Any) -> None:
    recipe = make(adversary=Adversary(weight=0.5, start=1, width=4, layers=2))
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, size=16))
    recipe = dataclasses.replace(recipe, task=_larger(recipe.task))
    learner = Learner(recipe, STAGE, ALONE)
    judge = learner.task.module.discriminator.layers[0].weight
    before = judge.detach().clone()
    first = learner.learn(0, learner.task.batches(STAGE, 0, 0, 1))
    assert "fooling" not in first.losses and "telling" not in first.losses
    assert torch.equal(judge, before)
    second = learner.learn(1, learner.task.batches(STAGE, 1, 0, 1))
    assert {"fooling", "telling"} <= set(second.losses)
    # At first it calls all pictures 0 or so: half of 1 + 1, at half weight.
    assert second.losses["telling"] == pytest.approx(0.5, abs=0.2)
    assert not torch.equal(judge, before)


def test_a_dry_run_runs_what_begins_late() -> None:
    recipe = tokenizer_recipe(adversary=Adversary(weight=0.5, start=20_000, width=4, layers=2), quantize_from=3_000)
    stages = (dataclasses.replace(STAGE, steps=400_000),)
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, size=16), stages=stages)
    plan = dry_run(dataclasses.replace(recipe, task=_larger(recipe.task)), ALONE)
    assert {"fooling", "telling", "codebook"} <= set(plan.stages[0].losses)


def _larger(make: Any) -> Any:
    def task(recipe: Recipe) -> Any:
        made = make(recipe)
        made.pictures = ScenePictures(0, 16)
        return made

    return task


# -- codes -----------------------------------------------------------------------------


def test_usage_counts_the_codes_among_the_recent_ids() -> None:
    module = task_of(tokenizer_recipe()).module
    assert module.usage() == 0
    module._codes = [torch.tensor([0, 1, 1]), torch.tensor([1, 2, 2])]
    module.note_codes()
    assert module.usage() == 3 / 24 and int(module.ids) == 6
    module._codes = [torch.full((RECENT,), 1)]
    module.note_codes()
    assert module.usage() == pytest.approx(1 / 24)


def test_a_common_code_costs_few_bits() -> None:
    plane = dataclasses.replace(SMALL, codebook_size=2, codebook_dim=2)
    module = task_of(tokenizer_recipe(tokenizer=plane)).module
    with torch.no_grad():
        module.tokenizer.quantize.embedding.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    module._codes = [torch.tensor([0, 0, 0, 1]).repeat(10_000)]
    module.note_codes()
    torch.testing.assert_close(module.shares, torch.tensor([0.75, 0.25]))
    common, rare = (torch.tensor([x, 0.0]).view(1, 2, 1, 1) for x in (5.0, -5.0))
    assert float(module._bits(common)) == pytest.approx(0.415, abs=1e-3)
    assert float(module._bits(rare)) == pytest.approx(2, abs=1e-3)
    assert "rate" in losses_of(task_of(tokenizer_recipe(rate=0.1)))


def test_dead_codes_start_again_where_they_are_farthest_from_the_others() -> None:
    module = task_of(tokenizer_recipe(tokenizer=dataclasses.replace(SMALL, codebook_size=4, codebook_dim=2))).module
    book = module.tokenizer.quantize.embedding.weight
    with torch.no_grad():
        book.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]]))
    module._codes = [torch.tensor([0, 1])]
    module.note_codes()
    angles = torch.tensor([0.0, 0.1, 1.5, 3.4, 4.2])
    module._vectors = torch.stack([angles.cos(), angles.sin()], 1)
    assert module.revive(after=100) == 2
    torch.testing.assert_close(book[:2].detach(), torch.eye(2))
    torch.testing.assert_close(book[2:].detach(), module._vectors[[4, 3]])
    assert module.revive(after=100) == 0
    for _ in range(2):
        module._codes = [torch.zeros(60, dtype=torch.int64)]
        module.note_codes()
    assert module.revive(after=100) == 3


def test_before_codes_begin_vectors_pass_as_they_are_and_then_all_codes_are_set_up() -> None:
    recipe = tokenizer_recipe(quantize_from=1, revive_after=1000)
    learner = Learner(recipe, STAGE, ALONE)
    first = learner.learn(0, learner.task.batches(STAGE, 0, 0, 1))
    assert "codebook" not in first.losses
    assert learner.task.metrics() == {"usage": 1.0, "revived": 24}
    assert "codebook" in learner.learn(1, learner.task.batches(STAGE, 1, 0, 1)).losses


def test_revival_is_the_same_after_a_resume(tmp_path: Path) -> None:
    recipe = tokenizer_recipe((dataclasses.replace(STAGE, steps=4),), quantize_from=1, revive_after=20)
    train(recipe, tmp_path / "whole", ALONE, Quiet())
    part_of_it = dataclasses.replace(recipe, stages=(dataclasses.replace(STAGE, steps=2),))
    train(part_of_it, tmp_path / "halves", ALONE, Quiet())
    train(recipe, tmp_path / "halves", ALONE, Quiet())
    whole, halves = (load_part(tmp_path / name / "final") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


# -- what comes out --------------------------------------------------------------------


def test_a_tokenizer_loads_back_bit_for_bit(tmp_path: Path) -> None:
    task = task_of(tokenizer_recipe())
    task.export(tmp_path, task.module.state_dict())
    state = load_part(tmp_path)
    assert {name.split(".")[0] + "." + name.split(".")[1] for name in state} == {"generation.tokenizer"}
    again = VQTokenizer(SMALL)
    again.load_state_dict({name.removeprefix("generation.tokenizer."): tensor for name, tensor in state.items()})
    for name, tensor in task.module.tokenizer.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_an_autoencoder_loads_back_with_latents_of_unit_deviation(tmp_path: Path) -> None:
    task = task_of(autoencoder_recipe())
    task.export(tmp_path, task.module.state_dict())
    config = read_vae_config(tmp_path / "vae")
    assert dataclasses.replace(config, scaling_factor=SMALL_VAE.scaling_factor, sample_size=1024) == SMALL_VAE
    vae = AutoencoderKL(config).eval()
    vae.load_state_dict({name.removeprefix("generation.vae."): tensor for name, tensor in load_part(tmp_path).items()})
    (batch,) = task.batches(dataclasses.replace(STAGE, batch=64), 0, 0, 1)
    with torch.no_grad():
        latents = vae.encode(batch.content.pixels).mode() * config.scaling_factor
    assert float(latents.std()) == pytest.approx(1, abs=0.1)


def test_previews_show_pictures_above_what_became_of_them(tmp_path: Path) -> None:
    for recipe in (tokenizer_recipe(), autoencoder_recipe()):
        task = task_of(recipe)
        task.module.eval()
        with torch.no_grad():
            task.preview(tmp_path, 0)
        assert (tmp_path / "reconstructions.png").stat().st_size > 0


def test_a_folder_that_is_no_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load_part(tmp_path)


# -- pictures --------------------------------------------------------------------------


def test_a_run_takes_each_picture_once_whatever_the_number_of_processes() -> None:
    stages = (Stage("a", steps=2, batch=3, rate=1e-3), Stage("b", steps=2, batch=4, rate=1e-3, micro_batch=1))
    recipe = Recipe("two", lambda recipe: ImageTokenizer(recipe, Noise()), stages, ReconstructionSettings())
    for world in (1, 2):
        taken = [
            k
            for stage in stages
            for step in range(stage.steps)
            for rank in range(world)
            for own in places(recipe, stage, step, rank, world)
            for k in own
        ]
        assert sorted(taken) == list(range(14))
    assert [len(own) for own in places(recipe, stages[1], 0, 0, 2)] == [1, 1]
