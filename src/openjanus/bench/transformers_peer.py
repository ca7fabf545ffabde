"""The peer: transformers' own port of Janus, as its users call it: `JanusForConditionalGeneration.generate`, eager."""

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from openjanus.bench.models import fill
from openjanus.bench.peer import require_transformers
from openjanus.bench.timing import Times, now
from openjanus.checkpoints.processors import token_ids
from openjanus.checkpoints.transformers_schema import to_transformers
from openjanus.config import JanusConfig
from openjanus.processing.prompts import Processor


class TransformersPeer:
    """A model of the same sizes, and prompts to run: ids [R, T] of answers, or of images (conditional prompts alone)."""

    def __init__(
        self,
        config: JanusConfig,
        processor: Processor,
        ids: Tensor,
        steps: int,
        images: bool,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """ConfigError if transformers is not installed, or has no such model (JanusFlow)."""
        require_transformers()
        from transformers import JanusConfig as TheirConfig
        from transformers import JanusForConditionalGeneration
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        sizes = TheirConfig(**to_transformers(config, token_ids(processor)))
        with torch.device("meta"):
            self._model: Any = JanusForConditionalGeneration(sizes).eval().requires_grad_(False)
        fill(self._model, device, dtype)
        self._model.model.language_model.rotary_emb = LlamaRotaryEmbedding(sizes.text_config).to(device)
        tower = self._model.model.vision_model.embeddings
        tower.position_ids = torch.arange(tower.num_positions, device=device)[None]
        self._model.generation_config.generation_kwargs = {"boi_token_id": processor.tokenizer.image_start}
        # transformers 5.17 forgets to pass this argument when it makes images.
        self._model._prepare_static_cache = partial(self._model._prepare_static_cache, prefill_chunk_size=None)
        self._ids, self._steps, self._images, self._device = ids.to(device), steps, images, device

    @torch.inference_mode()
    def run(self) -> Times:
        """Once, up to so many steps."""
        times = Times()
        count = self._steps + 1
        asked: dict[str, Any] = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        if self._images:
            asked = {"generation_mode": "image", "do_sample": True}
        marks = [now(self._device)]

        def mark(*_: object) -> None:
            marks.append(now(self._device))
            if len(marks) - 2 == self._steps and not self._whole:
                raise _Enough

        # The end of each pass of the language model: the only place that both of their loops let one look.
        hook = self._model.model.language_model.register_forward_hook(mark)
        try:
            self._model.generate(input_ids=self._ids, attention_mask=torch.ones_like(self._ids), **asked)
        except _Enough:
            pass
        else:
            times.end.append(now(self._device) - marks[-1])
        finally:
            hook.remove()
        times.prompt.append(marks[1] - marks[0])
        times.steps += [after - before for before, after in pairwise(marks[1:])]
        return times

    @property
    def _whole(self) -> bool:
        return self._images and self._steps == self._model.model.vision_model.config.num_image_tokens


class _Enough(Exception):
    """Ends a run after the steps that are wanted."""
