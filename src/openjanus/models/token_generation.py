"""The generation pathway of Janus and Janus-Pro: an image is a grid of VQ codes, predicted one by one. SPEC section 4.

Knows the codebook, the adaptor and the image head. Does not know prompts, caches or requests.
Dims: B images, R rows (2B when guided), N codes of an image in row order (576), D model width, K codebook size (16,384).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import TokenGenerationConfig
from openjanus.models.adaptors import ImageHead, build_adaptor
from openjanus.models.decoding import ImageDecoding, guided, widened
from openjanus.models.randomness import source
from openjanus.models.sampling import Manner, Sampling, guide_image
from openjanus.models.vq import VQTokenizer
from openjanus.types import ImageOptions


class TokenGeneration(nn.Module):
    """VQ tokenizer, embedding and adaptor of codes (a table of their own, not the codebook), image head."""

    fixed = ("tokenizer",)
    """Parts that no stage of a paper trains."""

    def __init__(self, config: TokenGenerationConfig) -> None:
        super().__init__()
        self.config = config
        codes = config.tokenizer.codebook_size
        self.tokenizer = VQTokenizer(config.tokenizer)
        self.embed = nn.Embedding(codes, config.tokenizer.codebook_dim)
        self.adaptor = build_adaptor(config.adaptor)
        self.head = ImageHead(config.adaptor.n_embed, config.head_dim, codes)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Language-model embeddings [..., D] of codes [...]."""
        return self.adaptor(self.embed(codes))

    @torch.no_grad()
    def table(self) -> Tensor:
        """The same of all codes [codes, D]: embedding and adaptor as one table."""
        return self.embed_codes(torch.arange(self.embed.num_embeddings, device=self.embed.weight.device))

    def logits(self, hidden: Tensor) -> Tensor:
        """Code logits [..., K] of hidden states [..., D]."""
        return self.head(hidden)

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], about -1 to 1, of codes [B, N] on the model's own grid."""
        return self.tokenizer.decode_codes(codes.unflatten(1, self.config.grid))

    def show(self, pictures: Tensor) -> Tensor:
        """Embeddings [M, N, D] of pictures [M, 3, H, W] in [-1, 1] as their codes, which is how they stand in a prompt."""
        return self.embed_codes(self._codes(pictures))

    def teach(self, pictures: Tensor, seeds: Tensor, earlier: float = 0.0) -> "CodeLesson":
        """What a teacher shows for pictures [M, 3, H, W]: their codes, each as the input behind which the next is predicted.

        No gradient reaches the tokenizer, which is frozen in every stage (Janus, section 3.3). Neither seeds nor
        times play a part.
        """
        codes = self._codes(pictures)
        return CodeLesson(self, codes, inputs=self.embed_codes(codes))

    def _codes(self, pictures: Tensor) -> Tensor:
        """Codes [M, N] of pictures, in the numbers of the tokenizer whatever else runs in: rounded to bfloat16, a quarter of
        janus-tiny's pictures would have another code somewhere, and codes that are kept would be those of one run alone."""
        with torch.no_grad(), torch.autocast(pictures.device.type, enabled=False):
            return self.tokenizer.encode(pictures.to(next(self.tokenizer.parameters()))).codes.flatten(1)

    def check_paints(self) -> None:
        """Nothing that painting takes can be missing."""

    def decoding(self, lanes: int) -> ImageDecoding:
        """The images that are in the making, in so many lanes."""
        return CodeDecoding(self, lanes)


@dataclass(frozen=True)
class CodeLesson:
    """M pictures to learn: codes [M, N] and their embeddings [M, N, D]."""

    generation: TokenGeneration
    codes: Tensor
    inputs: Tensor

    nats = 1.0  # that an error of 1 is worth

    def errors(self, hidden: Tensor) -> Tensor:
        """Cross-entropy [M] of each picture's codes together, from hidden states [M, N, D] of <begin_of_image> and all codes but
        the last (Janus, section 3.3)."""
        logits = self.generation.logits(hidden).float()
        of_codes = F.cross_entropy(logits.flatten(0, 1), self.codes.flatten(), reduction="none")
        return of_codes.unflatten(0, self.codes.shape).sum(1)


class CodeDecoding:
    """Images in the making, one code of each a step."""

    positions = 1
    keeps = True

    def __init__(self, generation: TokenGeneration, lanes: int) -> None:
        weight = generation.embed.weight
        count, width = generation.config.positions, generation.config.adaptor.n_embed
        self._generation = generation
        self.codes = torch.zeros(lanes, count, dtype=torch.int64, device=weight.device)
        self._step = torch.zeros(lanes, dtype=torch.int64, device=weight.device)
        self._uniforms = torch.zeros(lanes, count, device=weight.device)
        self._guidance = torch.ones(lanes, device=weight.device)
        self._image_guidance = torch.zeros(lanes, device=weight.device)
        self._next = torch.zeros(lanes, width, dtype=weight.dtype, device=weight.device)
        self._sampling = Sampling(lanes, weight.device)
        self._embed = partial(F.embedding, weight=generation.table()) if self.folds(weight.device) else generation.embed_codes

    @staticmethod
    def folds(device: torch.device) -> bool:
        """Whether codes are embedded by one table.

        A GPU makes it in milliseconds and launches less each step; a CPU takes seconds for that of a large model, and there the
        adaptor is a 300th of what a step reads.
        """
        return device.type == "cuda"

    def join(self, lane: int, begin: Tensor, options: ImageOptions, seed: int) -> None:
        self.codes[lane] = 0
        self._step[lane] = 0
        draws = source(seed).random(self.codes.shape[1], dtype=np.float32)
        self._uniforms[lane] = torch.from_numpy(draws).to(self._uniforms.device)
        assert options.guidance is not None, "the engine fills in the model's own"
        self._guidance[lane] = options.guidance
        self._image_guidance[lane] = options.image_guidance or 0.0
        self._next[lane] = begin
        self._sampling.join(lane, options)

    def inputs(self, lanes: Tensor) -> Tensor:
        return self._next[lanes][:, None]

    def manner(self, lanes: Sequence[int]) -> Manner:
        return self._sampling.manner(lanes)

    def take(self, lanes: Tensor, hidden: Tensor, paired: Tensor | None, manner: Manner | None) -> None:
        assert manner is not None
        logits = self._generation.logits(hidden[:, -1]).float()
        if manner.edited:
            assert paired is not None, "rows of edits say whose they are"
            parts, paired, of = logits[-manner.edited :], paired[: -manner.edited], paired[-manner.edited :]
            own = guide_image(logits[of], parts, self._image_guidance[lanes][of, None])
            logits = logits[: -manner.edited].index_copy(0, of, own)
        logits = guided(logits, self._guidance[lanes], paired)
        # A place that steps are filled up with never ends.
        step = self._step[lanes].clamp(max=self.codes.shape[1] - 1)
        codes = self._sampling.pick(lanes, logits, self._uniforms[lanes, step], manner)
        self.codes[lanes, step] = codes
        self._step[lanes] = step + 1
        self._next[lanes] = self._embed(codes).to(self._next.dtype)

    def picture(self, lane: int) -> Callable[[], Tensor]:
        return partial(self._pixels, self.codes[lane : lane + 1].clone(), int(self._step[lane]))

    def _pixels(self, codes: Tensor, step: int) -> Tensor:
        pixels = self._generation.decode(codes)
        # Rows of codes that are not there yet are grey.
        height = self._generation.config.grid[0]
        rows = step * height // codes.shape[1]
        pixels[:, :, pixels.shape[2] * rows // height :] = 0
        return pixels

    def grow(self, lanes: int) -> None:
        for name in ("codes", "_step", "_uniforms", "_guidance", "_image_guidance", "_next"):
            setattr(self, name, widened(getattr(self, name), lanes))
        self._sampling.grow(lanes)
