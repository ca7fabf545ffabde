"""The vocabulary of a Janus built on a language model: its own tokenizer with the special tokens added, and rows for them.

The language model's begin of sentence stays: it has never read a text without. The end of sentence becomes the published one,
which is what chat templates write behind an answer; its rows begin as those of the language model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from openjanus.errors import CheckpointError
from openjanus.processing.tokenizer import BOS, EOS, PAD, SPECIAL_TOKENS, TOKENIZER_FILE, Tokenizer, named_token, read_tokenizer

# Tables whose rows are no multiple of this are slower to multiply with on a GPU.
_MULTIPLE = 64


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, and what becomes of the tables that go with it.

    rows: of these tables. added: ids of tokens that had no row. ended: the language model's own end of sentence, whose rows the
    published one begins as; None if it is the published one, or there is none.
    """

    tokenizer: Tokenizer
    rows: int
    added: tuple[int, ...]
    ended: int | None

    def embeddings(self, table: Tensor) -> Tensor:
        """The table of embeddings [rows, D] of the language model's own. New tokens are drawn around the mean of all, with the
        deviation of each column: as long as the language model is frozen, that is all that tells them apart."""
        deviation = table.float().std(dim=0)
        noise = torch.randn(len(self.added), table.shape[1], generator=torch.Generator().manual_seed(0))
        return self._grown(table, deviation * noise)

    def head(self, table: Tensor) -> Tensor:
        """The text head [rows, D] of the language model's own. New tokens have the mean of all: none is likelier than the old."""
        return self._grown(table, torch.zeros(len(self.added), table.shape[1]))

    def _grown(self, table: Tensor, apart: Tensor) -> Tensor:
        """A table of its own memory: the language model's two may be one."""
        old = table.float()
        mean = old.mean(dim=0)
        new = mean.repeat(self.rows, 1)
        new[: len(old)] = old
        new[list(self.added)] = mean + apart
        if self.ended is not None:
            new[self.tokenizer.eos] = old[self.ended]
        return new.to(table.dtype)


def read_vocabulary(folder: Path, rows: int) -> Vocabulary:
    """The vocabulary of a Janus built on the language model in a folder, whose embeddings have so many rows.

    CheckpointError if the tokenizer cannot be read, is not this language model's, or splits a special token.
    """
    backend, settings = read_tokenizer(folder)
    source = str(folder / TOKENIZER_FILE)
    before: Mapping[str, int] = backend.get_vocab(with_added_tokens=True)
    if (entries := backend.get_vocab_size(with_added_tokens=False)) > rows:
        raise CheckpointError(
            f"{source} has {entries} entries, but the language model beside it has embeddings for {rows}; "
            "put the tokenizer there that this language model was trained with"
        )
    begun, ended = (token if (token := named_token(settings, key)) in before else None for key in ("bos_token", "eos_token"))
    tokenizer = Tokenizer(
        backend,
        # The class that reads tokenizer.json as it is, whatever the language model's own would make of it.
        settings={
            "bos_token": begun or BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        extra_tags=[token for token in SPECIAL_TOKENS if token != BOS or begun is None],
        source=source,
    )
    _check_whole(tokenizer)
    after: Mapping[str, int] = tokenizer.backend.get_vocab(with_added_tokens=True)
    needed = max(after.values()) + 1
    return Vocabulary(
        tokenizer,
        rows=rows if needed <= rows else -(-needed // _MULTIPLE) * _MULTIPLE,
        added=tuple(sorted(id for token, id in after.items() if token not in before or id >= rows)),
        ended=before[ended] if ended is not None and EOS not in before else None,
    )


def _check_whole(tokenizer: Tokenizer) -> None:
    """CheckpointError if the vocabulary has one of the tokens as a word like others, which are split or joined."""
    for tag in SPECIAL_TOKENS:
        id = tokenizer.id_of(tag)
        if id is not None and tokenizer.backend.encode(f"a{tag}a", add_special_tokens=False).ids.count(id) != 1:
            raise CheckpointError(
                f"{tokenizer.source} has {tag} as an ordinary word, which it does not keep whole; "
                "make it a special token there (tokenizers' add_special_tokens), or choose another language model"
            )
