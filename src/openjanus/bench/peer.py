"""The peer: the published token-by-token loop, eager, on transformers' Llama, in the dtype that people run it in.

Written from the description of the published code (reference/SPEC.md sections 4 and 6). Dims: B images, R = 2B rows, T tokens of
a prompt.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from openjanus.bench.models import fill
from openjanus.bench.timing import Times, now
from openjanus.checkpoints.language_schema import language_json
from openjanus.checkpoints.load import build_empty
from openjanus.config import JanusConfig
from openjanus.errors import ConfigError
from openjanus.models.flow_generation import FlowGeneration
from openjanus.models.janus import JanusModel
from openjanus.models.token_generation import TokenGeneration


def require_transformers() -> None:
    """ConfigError if there is no transformers to be a peer."""
    if find_spec("transformers") is None:
        raise ConfigError("the peer needs transformers, which is not installed; pip install 'openjanus[evaluate]'")


class Peer:
    """A model of the same sizes, around transformers' Llama."""

    def __init__(self, config: JanusConfig, device: torch.device, dtype: torch.dtype) -> None:
        require_transformers()
        from transformers import LlamaConfig, LlamaModel
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        sizes = LlamaConfig(**language_json(config.language, None, None))
        with torch.device("meta"):
            self.llama = LlamaModel(sizes).eval().requires_grad_(False)
        model = build_empty(config).eval().requires_grad_(False)
        # Its language model is ours no more: only the embedding and the heads are used.
        model.language.model.layers = nn.ModuleList()
        fill(model, device, dtype)
        fill(self.llama, device, dtype)
        self.llama.rotary_emb = LlamaRotaryEmbedding(sizes).to(device)
        self.model: JanusModel = model
        self.device = device

    def prompt(self, ids: Tensor) -> Tensor:
        """Embeddings [R, T, D] of ids [R, T]."""
        return self.model.language.embed(ids.to(self.device))


class _Loop:
    """A loop over positions with the peer's own cache: `follow` turns the last hidden state into the next input."""

    def __init__(self, peer: Peer, ids: Tensor, steps: int) -> None:
        self._peer, self._ids, self._steps = peer, ids, steps

    def _loop(self, follow: Callable[[Tensor], Tensor], end: Callable[[], None] | None) -> Times:
        times, device = Times(), self._peer.device
        start = now(device)
        x = self._peer.prompt(self._ids)
        out = self._peer.llama(inputs_embeds=x, use_cache=True)
        # The step that follows the prompt's last hidden state belongs to the first position.
        times.prompt.append(now(device) - start)
        for number in range(self._steps):
            start = now(device)
            x = follow(out.last_hidden_state[:, -1])
            if end is None or number < self._steps - 1:
                out = self._peer.llama(inputs_embeds=x, use_cache=True, past_key_values=out.past_key_values)
            times.steps.append(now(device) - start)
        if end is not None:
            start = now(device)
            end()
            times.end.append(now(device) - start)
        return times


class EagerText(_Loop):
    """A greedy answer."""

    @torch.inference_mode()
    def run(self) -> Times:
        """Once."""
        model = self._peer.model
        return self._loop(lambda hidden: model.language.embed(model.language.logits(hidden).argmax(-1)[:, None]), None)


class EagerCodes(_Loop):
    """Images by codes; ids: conditional rows, then blank ones."""

    @torch.inference_mode()
    def run(self) -> Times:
        """Once."""
        generation = self._peer.model.generation
        assert isinstance(generation, TokenGeneration)
        codes: list[Tensor] = []

        def follow(hidden: Tensor) -> Tensor:
            conditional, blank = generation.logits(hidden).chunk(2)
            probabilities = (blank + 5.0 * (conditional - blank)).softmax(-1)
            codes.append(torch.multinomial(probabilities, 1)[:, 0])
            return generation.embed_codes(torch.cat((codes[-1], codes[-1])))[:, None]

        def end() -> None:
            generation.decode(torch.stack(codes, dim=1))

        return self._loop(follow, end if self._steps == generation.config.positions else None)


class EagerFlow:
    """Images by a flow; every step runs the prompt again."""

    def __init__(self, peer: Peer, ids: Tensor, steps: int) -> None:
        """ids: conditional rows, then blank ones; steps: Euler steps of an image."""
        self._peer, self._ids, self._steps = peer, ids, steps

    @torch.inference_mode()
    def run(self) -> Times:
        """Once."""
        generation, peer = self._peer.model.generation, self._peer
        assert isinstance(generation, FlowGeneration)
        times, images, device = Times(), len(self._ids) // 2, peer.device
        latent = torch.randn(images, 4, *generation.config.latent_size, device=device, dtype=peer.model.dtype)
        before = self._ids.shape[1] - 1
        attended = torch.ones(2 * images, before + generation.config.positions, dtype=torch.int64, device=device)
        attended[images:, 1:before] = 0
        start = now(device)
        words = peer.prompt(self._ids)[:, :-1]
        times.prompt.append(now(device) - start)
        for step in range(self._steps):
            start = now(device)
            time = torch.full((2 * images,), step / self._steps, device=device)
            x, skip, embedded = generation.encode(torch.cat((latent, latent)), time)
            out = peer.llama(inputs_embeds=torch.cat((words, x), dim=1), attention_mask=attended, use_cache=True)
            velocity = generation.velocity(out.last_hidden_state[:, words.shape[1] :], skip, embedded)
            conditional, blank = velocity.chunk(2)
            latent = latent + (blank + 2.0 * (conditional - blank)) / self._steps
            times.steps.append(now(device) - start)
        start = now(device)
        generation.decode(latent)
        times.end.append(now(device) - start)
        return times
