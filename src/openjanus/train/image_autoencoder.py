"""Training of the autoencoder of JanusFlow's latents, a diffusers `AutoencoderKL`: pictures to latents and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from openjanus.config import VAEConfig
from openjanus.models.vae import AutoencoderKL, Posterior
from openjanus.train.part_files import save_vae
from openjanus.train.perceptual import Perceptual
from openjanus.train.pictures import UNSEEN, Pictures, to_pixels
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import LEARNED, Autoencoding, ReconstructionSettings, ReconstructionTask

_MEASURED = 256


@dataclass(frozen=True)
class AutoencoderSettings(ReconstructionSettings):
    """What a run of the autoencoder can be told. `vae.scaling_factor` is measured at the end."""

    vae: VAEConfig = field(default_factory=VAEConfig)
    kl: float = 1e-4
    """Weight of the divergence from a standard Gaussian, a mean over the latent's numbers."""


def divergence(posterior: Posterior) -> Tensor:
    """KL(posterior || standard Gaussian), a mean over all numbers of the latents."""
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


class Autoencoder(Autoencoding):
    """The autoencoder in training."""

    def __init__(self, settings: AutoencoderSettings, features: Perceptual | None) -> None:
        super().__init__(settings, features)
        self.vae = AutoencoderKL(settings.vae)
        self.kl = settings.kl

    def rebuild(self, pixels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        posterior = self.vae.encode(pixels)
        latent = posterior.mode() if step == LEARNED else posterior.sample()
        return self.vae.decode(latent), {"kl": self.kl * divergence(posterior)}


class ImageAutoencoder(ReconstructionTask):
    """The task: settings are AutoencoderSettings, `features` what a perceptual term sees with."""

    module: Autoencoder

    def __init__(self, recipe: Recipe, pictures: Pictures, features: Perceptual | None = None) -> None:
        super().__init__(recipe, pictures, recipe.settings.vae.stride)
        self.module = Autoencoder(recipe.settings, features)

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """A diffusers folder `vae`, whose scaling factor brings latents to a deviation of 1."""
        own = {name.removeprefix("vae."): one for name, one in tensors.items() if name.startswith("vae.")}
        save_vae(
            folder, own, replace(self.settings.vae, scaling_factor=self._scaling_factor(own), sample_size=self.settings.size)
        )

    @torch.no_grad()
    def _scaling_factor(self, tensors: Mapping[str, Tensor]) -> float:
        vae = AutoencoderKL(self.settings.vae).eval()
        vae.load_state_dict(tensors)
        pixels = to_pixels([self.pictures[UNSEEN + k] for k in range(_MEASURED)])
        latents = torch.cat([vae.encode(some).mode() for some in pixels.split(32)])
        return round(1 / float(latents.std()), 5)
