"""The text tokenizer: a byte-level BPE with the published special tokens, trained with the `tokenizers` library."""

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from openjanus.errors import ConfigError
from openjanus.processing.tokenizer import SPECIAL_TOKENS, read_tokenizer


def train_text_tokenizer(texts: Iterable[str], vocabulary: int) -> tokenizers.Tokenizer:
    """A byte-level BPE of `vocabulary` entries, the special tokens last; every text can be written with it.

    ConfigError if the vocabulary has no room for the 256 bytes and the special tokens.
    """
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    merged = vocabulary - len(SPECIAL_TOKENS)
    if merged < len(alphabet):
        raise ConfigError(f"a vocabulary of {vocabulary} is too small; bytes and special tokens alone take {len(alphabet) + 9}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=merged, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    return backend


def text_tokenizer(given: str, texts: Iterable[str], vocabulary: int) -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json, given as the file or its folder; of "", one that is trained on the texts."""
    if not given:
        return train_text_tokenizer(texts, vocabulary)
    path = Path(given).expanduser()
    return read_tokenizer(path.parent if path.suffix == ".json" else path)[0]
