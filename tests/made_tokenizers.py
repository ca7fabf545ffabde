"""Tokenizers of the two kinds there are, trained or written in a blink."""

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from openjanus.processing.tokenizer import BOS, EOS, IMAGE, IMAGE_END, IMAGE_START, PAD

ALL = [BOS, EOS, PAD, IMAGE, IMAGE_START, IMAGE_END]


def byte_level(specials: list[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE trained on two lines, as the published ones are on the web."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[], show_progress=False
    )
    backend.train_from_iterator(["how many circles are red?", "the circles are red and three"], trainer)
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return backend


def llama_kind() -> tokenizers.Tokenizer:
    """A tiny sentencepiece-like BPE: words start with U+2581, unknown characters fall back to bytes."""
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "a", "b", "▁a", "▁b"]
    vocab = {piece: id for id, piece in enumerate(["<unk>", *pieces])}
    model = models.BPE(vocab=vocab, merges=[("▁", "a"), ("▁", "b")], unk_token="<unk>", byte_fallback=True)
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ALL])
    return backend
