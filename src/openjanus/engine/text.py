"""Text requests: prompts in, pieces of text out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from openjanus.engine.loop import decode
from openjanus.engine.randomness import fresh_seed, uniforms
from openjanus.models.decoding import TextDecoding
from openjanus.models.janus import JanusModel
from openjanus.processing.prompts import collate
from openjanus.processing.streaming import IncrementalDecoder, StopStrings
from openjanus.processing.tokenizer import Tokenizer
from openjanus.types import Prompt, TextOptions


def answer(model: JanusModel, tokenizer: Tokenizer, prompts: Sequence[Prompt], options: TextOptions) -> Iterator[list[str]]:
    """Yield the new text of every prompt after every step ("" where there is none); joined, they are the answers.

    Every prompt draws from the same seed, so an answer does not depend on its place in the batch. An answer that would
    leave the model's context ends there.
    """
    rows = collate(prompts, tokenizer.pad).to(model.device)
    room = model.config.language.max_position_embeddings - rows.ids.shape[1] + 1
    options = replace(options, max_tokens=max(1, min(options.max_tokens, room)))
    seed = fresh_seed() if options.seed is None else options.seed
    draws = uniforms([seed] * len(prompts), options.max_tokens if options.temperature > 0 else 1)
    draws = draws.expand(-1, options.max_tokens).to(model.device)
    last = rows.ids[:, -1]
    streams = [_Stream(tokenizer, options.stop) for _ in prompts]
    for decoding in decode(model, rows, lambda _: TextDecoding(model.language, last, options, draws, tokenizer.eos)):
        pieces = []
        for row, (stream, token) in enumerate(zip(streams, decoding.newest, strict=True)):
            pieces.append("" if token is None else stream.push(token))
            if stream.stopped:
                decoding.finish(row)
        if any(pieces):
            yield pieces
    yield [stream.flush() for stream in streams]


class _Stream:
    """One answer on its way from ids to text, up to a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._decoder, self._stops = IncrementalDecoder(tokenizer), StopStrings(stop)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._stops.stopped

    def push(self, token: int) -> str:
        """The text that is safe to show after one more token."""
        return self._stops.push(self._decoder.push(token))

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        return self._stops.push(self._decoder.flush()) + self._stops.flush()
