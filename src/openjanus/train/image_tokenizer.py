"""Training of the image tokenizer, "VQ-16" and smaller (LlamaGen, section 3.1): pictures to codes and back.

Dims: B pictures, K codes of the book, e their width, N vectors of a micro-batch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from openjanus.config import VQConfig
from openjanus.errors import ConfigError
from openjanus.models.vq import VQTokenizer
from openjanus.train.part_files import save_part
from openjanus.train.perceptual import Perceptual
from openjanus.train.pictures import Pictures, steps_before
from openjanus.train.recipe import Recipe
from openjanus.train.reconstruction import Autoencoding, ReconstructionSettings, ReconstructionTask
from openjanus.train.stage import Stage

PREFIX = "generation.tokenizer."
# A code is in use if it is among the last this many ids (LlamaGen's measure).
RECENT = 65_536
# Ids over which the share of a code is averaged.
_REMEMBERED = 32_768
# The squared distance at which a code counts e times less than the nearest, when bits are counted.
_SOFT = 0.1


@dataclass(frozen=True)
class TokenizerSettings(ReconstructionSettings):
    """What a tokenizer's run can be told. Steps are the run's. The losses of codes are weighted in `tokenizer`, as published."""

    tokenizer: VQConfig = field(default_factory=VQConfig)
    rate: float = 0.0
    """Weight of the bits that a code costs, by how common it is: above 0, rare codes must be worth it, and fewer are in use."""
    quantize_from: int = 0
    """First step with codes; before it, vectors pass as they are, and spread out by what they have to say."""
    revive_after: int = 0
    """A code that was not used for this many ids starts again where one is needed; 0: never."""
    revive_until: int | None = None
    """First step at which codes are left alone, so that the book settles; none: they never are."""

    def revives(self, step: int) -> bool:
        """Whether unused codes start again after a step. The step before the first with codes sets up all of them."""
        return (
            bool(self.revive_after) and step + 1 >= self.quantize_from and (self.revive_until is None or step < self.revive_until)
        )


class Tokenizing(Autoencoding):
    """The tokenizer in training, and when each of its codes was used last, which is part of a run's state."""

    last_used: Tensor
    ids: Tensor
    shares: Tensor

    def __init__(self, settings: TokenizerSettings, features: Perceptual | None) -> None:
        super().__init__(settings, features)
        self.tokenizer = VQTokenizer(settings.tokenizer)
        self.quantize_from, self.rate = settings.quantize_from, settings.rate
        codes = settings.tokenizer.codebook_size
        # How many ids had passed when a code was used last (-1: never was), how many have passed, and the share of each code
        # among the latest; alike in all processes.
        self.register_buffer("last_used", torch.full((codes,), -1))
        self.register_buffer("ids", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("shares", torch.full((codes,), 1 / codes))
        # What the step leaves for the step's end: its codes, and the vectors of its last micro-batch.
        self._codes: list[Tensor] = []
        self._vectors = torch.zeros(0, settings.tokenizer.codebook_dim)

    def rebuild(self, pixels: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        tokenizer = self.tokenizer
        latent = tokenizer.quant_conv(tokenizer.encoder(pixels))
        learns = self.training and torch.is_grad_enabled()
        if learns:
            self._vectors = self._compared(latent.detach().float().movedim(1, -1).flatten(0, 2))
        if step < self.quantize_from:
            return tokenizer.decode(self._compared(latent.movedim(1, -1)).movedim(-1, 1)), {}
        quantized = tokenizer.quantize(latent)
        made, losses = tokenizer.decode(quantized.latent), quantized.losses
        if not learns or losses is None:
            return made, {}
        self._codes.append(quantized.codes.flatten())
        costs = {"codebook": losses.codebook, "commitment": losses.commitment}
        if self.rate:
            costs["rate"] = self.rate * self._bits(latent)
        return made, costs | ({"entropy": losses.entropy} if tokenizer.quantize.config.entropy_loss_ratio else {})

    def _compared(self, vectors: Tensor) -> Tensor:
        """Vectors [..., e] as they are compared with codes."""
        return nn.functional.normalize(vectors, dim=-1) if self.tokenizer.quantize.config.l2_norm else vectors

    def _bits(self, latent: Tensor) -> Tensor:
        """The bits that the codes of a latent [B, e, h, w] cost, a mean over positions.

        A code of share p costs -log2 p; all near codes count, by their nearness, so that there is a way to the commoner ones.
        """
        vectors = self._compared(latent.float().movedim(1, -1).flatten(0, 2))
        book = self._compared(self.tokenizer.quantize.embedding.weight.detach().float())
        nearness = (-torch.cdist(vectors, book).square() / _SOFT).softmax(dim=-1)
        return -(nearness @ (self.shares + 1e-4).log2()).mean()

    def usage(self) -> float:
        """The share of codes among the last RECENT ids."""
        return float(self._used_within(RECENT).float().mean())

    def _used_within(self, ids: int) -> Tensor:
        return (self.last_used >= 0) & (self.ids - self.last_used <= ids)

    @torch.no_grad()
    def note_codes(self) -> None:
        """Take down which codes the step used, in all processes."""
        counts = torch.zeros_like(self.last_used)
        for codes in self._codes:
            counts += torch.bincount(codes, minlength=len(counts))
        self._codes = []
        if dist.is_initialized():
            dist.all_reduce(counts)
        total = counts.sum()
        if total > 0:
            self.shares.lerp_(counts / total, min(float(total) / _REMEMBERED, 1.0))
        self.last_used[counts > 0] = self.ids
        self.ids += total

    @torch.no_grad()
    def revive(self, after: int) -> int:
        """Start codes that were not used for `after` ids again, where they are needed most; how many.

        Each goes to that vector of the last micro-batch which is farthest from every other code. So what hardly differs, as empty
        background, gets few codes however much of it there is; drawn at random, most codes would tell its noise apart.
        """
        living = self._used_within(after)
        dead = (~living).nonzero().flatten()
        if len(dead) == 0:
            return 0
        weight = self.tokenizer.quantize.embedding.weight.data
        book = weight.full_tensor() if isinstance(weight, DTensor) else weight.clone()
        book[dead] = _spread(self._vectors, self._compared(book[living]), len(dead))
        if dist.is_initialized():
            dist.broadcast(book, 0)
        weight.copy_(distribute_tensor(book, weight.device_mesh, weight.placements) if isinstance(weight, DTensor) else book)
        self.last_used[dead] = self.ids
        return len(dead)


def _spread(vectors: Tensor, taken: Tensor, count: int) -> Tensor:
    """`count` of the vectors [N, e], each in turn the farthest from those before it and from the ones that are taken [M, e]."""
    distances = torch.cdist(vectors, taken).amin(dim=1) if len(taken) else vectors.new_full((len(vectors),), torch.inf)
    chosen = []
    for _ in range(count):
        chosen.append(vectors[distances.argmax()])
        distances = torch.minimum(distances, (vectors - chosen[-1]).norm(dim=1))
    return torch.stack(chosen)


class ImageTokenizer(ReconstructionTask):
    """The task: settings are TokenizerSettings, `features` what a perceptual term sees with."""

    module: Tokenizing
    settings: TokenizerSettings

    def __init__(self, recipe: Recipe, pictures: Pictures, features: Perceptual | None = None) -> None:
        sizes: VQConfig = recipe.settings.tokenizer
        if sizes.codebook_size < 1:
            raise ConfigError(f"settings.tokenizer.codebook_size is {sizes.codebook_size}; it must be 1 or more")
        super().__init__(recipe, pictures, sizes.stride)
        self.module = Tokenizing(recipe.settings, features)
        self._revived = 0

    def metrics(self) -> Mapping[str, float]:
        return {"usage": self.module.usage(), "revived": self._revived}

    def after_step(self, stage: Stage, step: int) -> None:
        self.module.note_codes()
        revives = self.settings.revives(steps_before(self.recipe, stage) + step)
        self._revived = self.module.revive(self.settings.revive_after) if revives else 0

    def export(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """The tokenizer under its published names, for `load_part`."""
        own = {name.removeprefix("tokenizer."): one for name, one in tensors.items() if name.startswith("tokenizer.")}
        save_part(folder, PREFIX, own, {"params": asdict(self.settings.tokenizer)})
