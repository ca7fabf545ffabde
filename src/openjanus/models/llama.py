"""The language model: a plain Llama decoder (grouped-query attention, any rotary base). SPEC section 4.

Parameter names equal the published ones under `language_model.`. Knows embeddings and positions; not where a position came from
(a word, an image patch, a code, a time) and not what its output is read for.
Dims: R rows, T new positions, S positions in all, D width.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import LanguageConfig
from openjanus.models.attention import attend, rotary, rotate
from openjanus.models.cache import KeyValueCache
from openjanus.models.layers import RMSNorm


class Place(NamedTuple):
    """Where positions stand: int64 [R, T], and the cosines and sines [R, 1, T, Dh] that turn queries and keys there."""

    positions: Tensor
    cosine: Tensor
    sine: Tensor


class Attention(nn.Module):
    """Causal self-attention with rotary positions; `num_key_value_heads` below `num_attention_heads` shares keys and values."""

    def __init__(self, config: LanguageConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_size
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * config.head_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, place: Place, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        query, key, value = (self._heads(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        query, key = rotate(query, place.cosine, place.sine), rotate(key, place.cosine, place.sine)
        if cache is not None:
            assert mask is not None, "what lies in a cache is told apart by a mask"
            key, value = cache.write(self.layer, place.positions, key, value, upto=mask.shape[-1])
        out = attend(query, key, value, mask, causal=mask is None)
        return self.o_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    """One decoder layer: residual attention, residual feed-forward, each after its norm."""

    def __init__(self, config: LanguageConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, place: Place, mask: Tensor | None, cache: KeyValueCache | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), place, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Token embeddings, the stack of blocks and the final norm (published prefix `model.`)."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """The decoder and its untied text head."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(_initialise)

    def forward(
        self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Hidden states [R, T, D] after the final norm, for embeddings [R, T, D] at rotary positions [R, T].

        mask: bool [R or 1, 1, T, S], true where a position may look; None is causal. cache: the new keys and values are written
        into it at their positions, and attention runs over its first S; it needs a mask.
        """
        return self.model.norm(self.run_blocks(embeddings, positions, mask, cache))

    def run_blocks(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        cache: KeyValueCache | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """x [R, T, D] after blocks start to stop (None: the last), before the final norm."""
        place = Place(positions, *rotary(positions, self.config.head_size, self.config.rope_theta, x.dtype))
        for block in self.model.layers[start:stop]:
            x = block(x, place, mask, cache)
        return x

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [..., D] of token ids [...]."""
        return self.model.embed_tokens(ids)

    def logits(self, hidden: Tensor) -> Tensor:
        """Text logits [..., vocabulary] of hidden states [..., D]."""
        return self.lm_head(hidden)


def _initialise(module: nn.Module) -> None:
    """Normal with standard deviation 0.02, as LlamaConfig's initializer_range."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
