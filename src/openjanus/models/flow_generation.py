"""The generation pathway of JanusFlow: a latent is carried from noise to image along a velocity. SPEC section 6.

Knows the shallow U-ViT around the language model and the VAE behind it. Does not know prompts, caches or requests.
Dims: B images, R rows (2B when guided), N latent tokens (576), D model width; latents [B, 4, H, W], time 0 (noise) to 1 (image).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from openjanus.config import FlowGenerationConfig, LanguageConfig
from openjanus.errors import CheckpointError
from openjanus.models.decoding import ImageDecoding, guided, widened, with_pairs
from openjanus.models.layers import RMSNorm
from openjanus.models.randomness import source
from openjanus.models.sampling import Manner
from openjanus.models.uvit import ShallowUViTDecoder, ShallowUViTEncoder
from openjanus.models.vae import AutoencoderKL
from openjanus.types import ImageOptions

# The time embedding was trained on 0..1000 (SPEC section 6.2); everything else here counts time from 0 to 1.
TIME_SCALE = 1000.0
FLOW = 2  # the purpose, among a sample's random choices, of its flow (data/documents.py has the others)


class FlowGeneration(nn.Module):
    """U-ViT encoder and decoder with their adaptors to the language model, and the VAE (None where a checkpoint has none)."""

    vae: AutoencoderKL | None

    fixed = ("vae",)
    """Parts that no stage of a paper trains."""

    def __init__(self, config: FlowGenerationConfig, language: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ShallowUViTEncoder(config.encoder)
        self.encoder_adaptor = nn.Linear(config.encoder.channels, language.hidden_size)
        self.decoder_norm = RMSNorm(language.hidden_size, language.rms_norm_eps)
        self.decoder_adaptor = nn.Linear(language.hidden_size, config.decoder.in_channels)
        self.decoder = ShallowUViTDecoder(config.decoder)
        self.vae = AutoencoderKL(config.vae)

    def encode(self, latent: Tensor, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings [B, 1 + N, D] of latents [B, C, H, W] at times [B] in [0, 1]; then what `velocity` needs beside the
        hidden states: skip features [B, C', H', W'] and time embedding [B, D]. The time embedding is the first position."""
        skip, embedded_time = self.encoder(latent, time * TIME_SCALE)
        tokens = self.encoder_adaptor(skip.flatten(2).transpose(1, 2))
        return torch.cat((embedded_time[:, None], tokens), dim=1), skip, embedded_time

    def velocity(self, hidden: Tensor, skip: Tensor, embedded_time: Tensor) -> Tensor:
        """Velocity [B, C, H, W] from hidden states [B, 1 + N, D] of the positions `encode` gave."""
        features = self.decoder_adaptor(self.decoder_norm(hidden[:, 1:]))
        grid = features.transpose(1, 2).unflatten(2, skip.shape[-2:])
        return self.decoder(grid, skip, embedded_time)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], about -1 to 1, of latents [B, C, h, w]; CheckpointError without a VAE."""
        vae = self._present_vae()
        parameter = next(vae.parameters())
        return vae.decode((latent / self.config.vae.scaling_factor).to(parameter))

    def teach(self, pictures: Tensor, seeds: Tensor, earlier: float = 0.0) -> "FlowLesson":
        """What a teacher shows for pictures [M, 3, H, W]: noisy latents at random times and the velocities to predict.

        Each picture's time, noise and posterior sample are drawn from its own seed (seeds: int64 [M]), in float32. Time is
        logit-normal (JanusFlow, section 3.3, after SD3; its mean and deviation are not given there: -earlier and 1 here). No
        gradient reaches the VAE.
        """
        vae = self._present_vae()
        # In its own numbers whatever else runs in, so that what is kept of it serves every run.
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            posterior = vae.encode(pictures.to(next(vae.parameters())))
            mean, deviation = posterior.mean.float(), (0.5 * posterior.logvar.float()).exp()
        draws = np.empty((len(seeds), 2, *mean.shape[1:]), dtype=np.float32)
        times = np.empty(len(seeds), dtype=np.float32)
        for i, seed in enumerate(seeds.tolist()):
            source = np.random.default_rng((seed, FLOW))
            draws[i] = source.standard_normal(draws.shape[1:], dtype=np.float32)
            times[i] = 1 / (1 + np.exp(earlier - source.standard_normal()))
        wobble, noise = torch.from_numpy(draws).to(mean.device).unbind(1)
        time = torch.from_numpy(times).to(mean.device)
        latent = (mean + deviation * wobble) * self.config.vae.scaling_factor
        between = time[:, None, None, None]
        inputs, skip, embedded_time = self.encode((between * latent + (1 - between) * noise).to(pictures), time)
        return FlowLesson(self, latent - noise, skip, embedded_time, inputs)

    def check_paints(self) -> None:
        """CheckpointError without a VAE: better said before the work than after it."""
        self._present_vae()

    def decoding(self, lanes: int) -> ImageDecoding:
        """The images that are in the making, in so many lanes."""
        return FlowDecoding(self, lanes)

    def _present_vae(self) -> AutoencoderKL:
        if self.vae is None:
            raise CheckpointError(
                "this JanusFlow checkpoint has no VAE, so it can read images but not paint them; put stabilityai/sdxl-vae "
                "(config.json and its weights) into its subfolder vae/"
            )
        return self.vae


@dataclass(frozen=True)
class FlowLesson:
    """M pictures to learn: velocities [M, C, H, W], what the decoder needs, and embeddings [M, 1 + N, D]."""

    generation: FlowGeneration
    velocity: Tensor
    skip: Tensor
    time: Tensor
    inputs: Tensor

    # That an error of 1 is worth. The picture's likelihood weighs a time's errors by time / (1 - time), and most of what words
    # decide is decided at times of 0.05 to 0.2.
    nats = 0.05

    def errors(self, hidden: Tensor) -> Tensor:
        """Squared error [M] of each picture's velocity, summed over its elements (JanusFlow, equation 7), from hidden states
        [M, 1 + N, D] of the positions of `inputs`."""
        predicted = self.generation.velocity(hidden, self.skip, self.time).float()
        return (predicted - self.velocity).square().flatten(1).sum(1)


class FlowDecoding:
    """Images in the making, all positions of each a step, by Euler steps of equal length."""

    keeps = False

    def __init__(self, generation: FlowGeneration, lanes: int) -> None:
        weight = generation.encoder_adaptor.weight
        shape = (generation.config.encoder.input_channels, *generation.config.latent_size)
        self.positions = generation.config.positions
        # Differs from the reference: latent, time and step length stay float32. In bf16 1/30 rounds to 0.0334 and time to
        # multiples of 2 to 4 of 1000, so that 30 steps overshoot the image by 0.3 %.
        self.latent = torch.zeros(lanes, *shape, device=weight.device)
        self._velocity = torch.zeros_like(self.latent)
        self._step = torch.zeros(lanes, device=weight.device)
        self._steps = torch.ones(lanes, device=weight.device)
        self._guidance = torch.ones(lanes, device=weight.device)
        self._generation, self._dtype = generation, weight.dtype

    def join(self, lane: int, begin: Tensor, options: ImageOptions, seed: int) -> None:
        noise = source(seed).standard_normal(self.latent.shape[1:], dtype=np.float32)
        self.latent[lane] = torch.from_numpy(noise).to(self.latent.device)
        self._step[lane], self._steps[lane] = 0, options.steps
        assert options.guidance is not None, "the engine fills in the model's own"
        self._guidance[lane] = options.guidance

    def inputs(self, lanes: Tensor) -> Tensor:
        time = self._step[lanes] / self._steps[lanes]
        embeddings, self._skip, self._time = self._generation.encode(self.latent[lanes].to(self._dtype), time)
        return embeddings

    def manner(self, lanes: Sequence[int]) -> Manner | None:
        return None

    def take(self, lanes: Tensor, hidden: Tensor, paired: Tensor | None, manner: Manner | None) -> None:
        skip, time = (with_pairs(x, len(hidden), paired) for x in (self._skip, self._time))
        velocity = guided(self._generation.velocity(hidden, skip, time).float(), self._guidance[lanes], paired)
        self._velocity[lanes] = velocity
        self.latent[lanes] += velocity / self._steps[lanes].view(-1, 1, 1, 1)
        self._step[lanes] += 1

    def picture(self, lane: int) -> Callable[[], Tensor]:
        # Straight on along the last velocity: at the end that is nowhere further.
        left = 1 - self._step[lane] / self._steps[lane]
        return partial(self._generation.decode, (self.latent[lane] + left * self._velocity[lane])[None])

    def grow(self, lanes: int) -> None:
        for name in ("latent", "_velocity", "_step", "_steps", "_guidance"):
            setattr(self, name, widened(getattr(self, name), lanes))
