"""The language model: a plain Llama decoder (grouped-query attention, any rotary base). SPEC section 4.

Parameter names equal the published ones under `language_model.`. Knows embeddings and positions; not where a position came from
(a word, an image patch, a code, a time) and not what its output is read for.
Dims: R rows, T new positions, S positions in all, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openjanus.config import LanguageConfig
from openjanus.models.attention import Documents, Layout, Packed, attend, entry_mask, rotary, rotate
from openjanus.models.cache import KeyValueCache
from openjanus.models.layers import RMSNorm


class Span(NamedTuple):
    """T new positions of each of R neighbouring lanes of a cache: what runs together in a step.

    positions: int64 [R, T], rotary; entries: int64 [R, T], where their keys and values go; upto: how many entries there are to be
    looked at, of which each position sees those up to its own.
    """

    lanes: slice
    positions: Tensor
    entries: Tensor
    upto: int


class Turn(NamedTuple):
    """The cosines and sines, [R, 1, T, Dh], that turn queries and keys to their positions."""

    cosine: Tensor
    sine: Tensor


class Place(NamedTuple):
    """Where a group's positions stand: how queries and keys are turned there (None if they were before they were laid out in
    groups), what each may look at, [R or 1, 1, T, S] (None if all up to itself; see `attend`), and the span of a cache they
    belong to, if there is one."""

    turn: Turn | None
    mask: Tensor | None
    span: Span | None = None


@dataclass(frozen=True, eq=False)
class Positions:
    """What blocks are told of the positions that run through them.

    places: of each group; layout: how they are laid out in groups (None: they are one); cache: where keys and values go, if they
    are kept; turn: of all positions as they stand, where they are turned before they are laid out.
    """

    places: Sequence[Place]
    layout: Layout | None = None
    cache: KeyValueCache | None = None
    turn: Turn | None = None


# Makes, of a linear layer that is for running alone, what runs in its place.
Make = Callable[[nn.Linear], nn.Module]
# Does what an Attention does between its projections, for new positions of each row: [R, T, H * Dh] of queries, keys and values
# side by side [R, T, (H + 2 Hkv) * Dh], cosines and sines [R, T, Dh], entries int64 [R, T], keys and values of the rows' lanes
# [R, Hkv, S, Dh], and how many entries there are to look at. None, and nothing done, where it does not take such rows.
AttendNew = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor | None]
# Does what all blocks do for one new position of each row: [R, D] of x [R, D], cosines and sines [R, Dh], entries int64 [R], keys
# and values of the rows' lanes in all layers [layers, R, Hkv, S, Dh], and how many entries there are to look at. Not in float16.
RunOne = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]


def joined(parts: Sequence[nn.Linear]) -> nn.Linear:
    """Several linear layers of one input as one, whose outputs stand side by side: the weights are read in one go."""
    outputs = sum(part.out_features for part in parts)
    whole = nn.Linear(parts[0].in_features, outputs, bias=False, device="meta")
    whole.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
    return whole


def gated(x: Tensor) -> Tensor:
    """SwiGLU [..., I] of a gate and, beside it, what it lets through: [..., 2 I]."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


class Attention(nn.Module):
    """Causal self-attention with rotary positions; `num_key_value_heads` below `num_attention_heads` shares keys and values."""

    def __init__(self, config: LanguageConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim, self.kv_heads = config.head_size, config.kv_heads
        self.q_proj = nn.Linear(config.hidden_size, config.num_attention_heads * config.head_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.kv_heads * config.head_size, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_size, config.hidden_size, bias=False)
        self.qkv_proj: nn.Module | None = None
        self.attend_new: AttendNew | None = None

    def join(self, make: Make, attend_new: AttendNew | None = None) -> None:
        """Hold all weights as `make` makes them, those of queries, keys and values as one: for running alone."""
        self.attend_new = attend_new
        self.qkv_proj = make(joined([self.q_proj, self.k_proj, self.v_proj]))
        self.o_proj = make(self.o_proj)  # type: ignore[assignment]
        del self.q_proj, self.k_proj, self.v_proj

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values of x [..., D], side by side: [..., (H + 2 Hkv) * Dh]."""
        if self.qkv_proj is None:
            return torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        return self.qkv_proj(x)

    def forward(self, x: Tensor, at: Positions) -> Tensor:
        projected = self.project(x)
        if at.turn is not None:
            projected = torch.cat(self._turned(projected, at.turn), dim=1).transpose(1, 2).flatten(2)
        return self.o_proj(self.attend_groups(projected, at))

    def attend_groups(self, projected: Tensor, at: Positions) -> Tensor:
        """What lies between the projections, group by group: [..., H * Dh] of [..., (H + 2 Hkv) * Dh]."""
        if at.layout is None:
            return self._attend(projected, at.places[0], at.cache)
        groups = zip(at.layout.take_apart(projected), at.places, strict=True)
        return at.layout.put_together([self._attend(*group, at.cache) for group in groups])

    def _turned(self, projected: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [R, H, T, Dh], keys and values [R, Hkv, T, Dh] of projections [R, T, (H + 2 Hkv) * Dh]."""
        heads = projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        # Queries and keys are turned to their positions, values stand nowhere.
        turned, value = heads[:, : -self.kv_heads], heads[:, -self.kv_heads :]
        if turn is not None:
            turned = rotate(turned, turn.cosine, turn.sine)
        return turned[:, : -self.kv_heads], turned[:, -self.kv_heads :], value

    def _attend(self, projected: Tensor, place: Place, cache: KeyValueCache | None) -> Tensor:
        """[R, T, H * Dh] of projections [R, T, (H + 2 Hkv) * Dh]."""
        if self.attend_new is not None and cache is not None and (done := self._attend_new(projected, place, cache)) is not None:
            return done
        query, key, value = self._turned(projected, place.turn)
        if cache is not None:
            assert place.span is not None, "what goes into a cache has a place there"
            key, value = cache.write(self.layer, place.span.lanes, place.span.entries, key, value, place.span.upto)
        return attend(query, key, value, place.mask, causal=place.mask is None).transpose(1, 2).flatten(2)

    def _attend_new(self, projected: Tensor, place: Place, cache: KeyValueCache) -> Tensor | None:
        assert place.span is not None and place.turn is not None and self.attend_new is not None
        cosine, sine = place.turn.cosine[:, 0], place.turn.sine[:, 0]
        held = cache.lanes_of(self.layer, place.span.lanes)
        return self.attend_new(projected, cosine, sine, place.span.entries, *held, place.span.upto)


class MLP(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.gate_up_proj: nn.Module | None = None
        self.gated: Callable[[Tensor], Tensor] = gated

    def join(self, make: Make, gate: Callable[[Tensor], Tensor] | None = None) -> None:
        """As Attention.join, gate and up as one. gate: what does the same as `gated`."""
        self.gate_up_proj = make(joined([self.gate_proj, self.up_proj]))
        self.down_proj = make(self.down_proj)  # type: ignore[assignment]
        self.gated = gate or gated
        del self.gate_proj, self.up_proj

    def forward(self, x: Tensor) -> Tensor:
        if self.gate_up_proj is None:
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return self.down_proj(self.gated(self.gate_up_proj(x)))


class Block(nn.Module):
    """One decoder layer: residual attention, residual feed-forward, each after its norm."""

    def __init__(self, config: LanguageConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, at: Positions) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), at)
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
        self.run_one: RunOne | None = None
        self.apply(_initialise)

    def forward(self, embeddings: Tensor, positions: Tensor, mask: Tensor | None = None) -> Tensor:
        """Hidden states [R, T, D] after the final norm, for embeddings [R, T, D] at rotary positions [R, T].

        mask: bool [R or 1, 1, T, T], true where a position may look; None is causal.
        """
        return self.model.norm(self._run_blocks(embeddings, Positions([Place(self._turn(positions, embeddings.dtype), mask)])))

    def step(self, x: Tensor, spans: Sequence[Span], cache: KeyValueCache) -> Tensor:
        """Hidden states [N, D] after the final norm, for embeddings [N, D]: the rows of all spans, one behind the other.

        What runs together shares the reading of the weights, whatever its kind and length. Keys and values go into the cache.
        """
        if self.run_one is not None and len(spans) == 1 and spans[0].entries.shape[1] == 1 and x.dtype != torch.float16:
            return self.model.norm(self._step_one(self.run_one, x, spans[0], cache))
        places = []
        for span in spans:
            mask = entry_mask(span.entries, span.upto, x.dtype)
            places.append(Place(self._turn(span.positions, x.dtype), mask, span))
        layout = Packed(tuple((span.entries.shape[0], span.entries.shape[1]) for span in spans))
        return self.model.norm(self._run_blocks(x, Positions(places, layout, cache)))

    def _step_one(self, run_one: RunOne, x: Tensor, span: Span, cache: KeyValueCache) -> Tensor:
        turn = self._turn(span.positions, x.dtype)
        held = cache.keys[:, span.lanes], cache.values[:, span.lanes]
        return run_one(x, turn.cosine[:, 0, 0], turn.sine[:, 0, 0], span.entries[:, 0], *held, span.upto)

    def run_documents(
        self, x: Tensor, documents: Documents, masks: Sequence[Tensor | None], start: int = 0, stop: int | None = None
    ) -> Tensor:
        """Packed rows x [R, T, D] after blocks start to stop (None: the last), before the final norm.

        masks: what the tokens of each group of documents may look at, bool [P, 1, L, L]; None is causal.
        """
        # Turned as they stand in the rows, in one go, which can be compiled whatever the groups are.
        turn = self._turn(documents.positions, x.dtype)
        return self._run_blocks(x, Positions([Place(None, mask) for mask in masks], documents, turn=turn), start, stop)

    def _turn(self, positions: Tensor, dtype: torch.dtype) -> Turn:
        return Turn(*rotary(positions, self.config.head_size, self.config.rope_theta, dtype))

    def _run_blocks(self, x: Tensor, at: Positions, start: int = 0, stop: int | None = None) -> Tensor:
        for block in self.model.layers[start:stop]:
            x = block(x, at)
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
