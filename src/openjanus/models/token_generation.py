"""The generation pathway of Janus and Janus-Pro: an image is a grid of VQ codes, predicted one by one. SPEC section 4.

Knows the codebook, the adaptor and the image head. Does not know prompts, caches or requests.
Dims: B images, R rows (2B when guided), N codes of an image in row order (576), D model width, K codebook size (16,384).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import TokenGenerationConfig
from openjanus.models.adaptors import ImageHead, build_adaptor
from openjanus.models.decoding import ImageDecoding, guided, repeat_rows
from openjanus.models.sampling import pick
from openjanus.models.vq import VQTokenizer
from openjanus.types import ImageOptions


class TokenGeneration(nn.Module):
    """VQ tokenizer, embedding and adaptor of codes (a table of their own, not the codebook), image head."""

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

    def logits(self, hidden: Tensor) -> Tensor:
        """Code logits [..., K] of hidden states [..., D]."""
        return self.head(hidden)

    def decode(self, codes: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], about -1 to 1, of codes [B, N] on the model's own grid."""
        return self.tokenizer.decode_codes(codes.unflatten(1, self.config.grid))

    def teach(self, pictures: Tensor, seeds: Tensor) -> "CodeLesson":
        """What a teacher shows for pictures [M, 3, H, W]: their codes, each as the input behind which the next is predicted.

        No gradient reaches the tokenizer, which is frozen in every stage (Janus, section 3.3). seeds play no part.
        """
        with torch.no_grad():
            codes = self.tokenizer.encode(pictures).codes.flatten(1)
        return CodeLesson(self, codes, inputs=self.embed_codes(codes))

    def start(self, begin: Tensor, options: ImageOptions, randomness: Sequence[np.random.Generator]) -> ImageDecoding:
        """B images to paint, one source of randomness each; begin: [R, 1, D], the prompts' last embeddings."""
        return CodeDecoding(self, begin, options, randomness)


@dataclass(frozen=True)
class CodeLesson:
    """M pictures to learn: codes [M, N] and their embeddings [M, N, D]."""

    generation: TokenGeneration
    codes: Tensor
    inputs: Tensor

    def losses(self, hidden: Tensor) -> dict[str, tuple[Tensor, int]]:
        """Cross-entropy of every code: its sum and number, from hidden states [M, N, D] of <begin_of_image> and all codes but
        the last (Janus, section 3.3)."""
        logits = self.generation.logits(hidden).float()
        loss = F.cross_entropy(logits.flatten(0, 1), self.codes.flatten(), reduction="sum")
        return {"image": (loss, self.codes.numel())}


class CodeDecoding:
    """B images in the making, one code of each a step."""

    keeps_positions = True

    def __init__(
        self, generation: TokenGeneration, begin: Tensor, options: ImageOptions, randomness: Sequence[np.random.Generator]
    ) -> None:
        self.steps = self.room = generation.config.positions
        self.step = 0
        self.rows = begin.shape[0]
        self.codes = torch.zeros(len(randomness), self.steps, dtype=torch.long, device=begin.device)
        draws = np.stack([source.random(self.steps, dtype=np.float32) for source in randomness])
        self._uniforms = torch.from_numpy(draws).to(begin.device)
        self._generation, self._begin, self._options = generation, begin, options
        self._guidance = generation.config.default_guidance if options.guidance is None else options.guidance

    @property
    def done(self) -> bool:
        return self.step == self.steps

    def inputs(self) -> Tensor:
        if self.step == 0:
            return self._begin
        return repeat_rows(self._generation.embed_codes(self.codes[:, self.step - 1 : self.step]), self.rows)

    def take(self, hidden: Tensor) -> None:
        options = self._options
        logits = guided(self._generation.logits(hidden[:, -1]).float(), len(self.codes), self._guidance)
        self.codes[:, self.step] = pick(logits, self._uniforms[:, self.step], options.temperature, options.top_k, options.top_p)
        self.step += 1

    def pixels(self, image: int) -> Tensor:
        return self._generation.decode(self.codes[image : image + 1])
