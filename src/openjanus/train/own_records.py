"""Records on disk for the parts that a Janus begins with: endless, and some of them never learned from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from openjanus.data.formats.opening import ALLOWED
from openjanus.data.records import Records
from openjanus.data.samples import Kind, Sample
from openjanus.errors import ConfigError, DataError
from openjanus.train.pictures import UNSEEN
from openjanus.train.text_tokenizer import text_tokenizer

_HELD_OUT = 128


@dataclass(frozen=True)
class RecordFiles:
    """Where records lie, and how their texts become tokens: settings beside those of a task."""

    data: tuple[str, ...] = ()
    """Files and folders of records, of any format in data/formats."""
    tokenizer: str = ""
    """A tokenizer.json, or a folder with one."""
    vocabulary: int = 32_000
    """Entries of the tokenizer that is trained without one."""
    tokenizer_records: int = 200_000
    """How many records it is trained on."""

    def tokenizer_of(self, records: "OwnRecords") -> tokenizers.Tokenizer:
        """The tokenizer that is given, or one that is trained on the records' texts."""
        return text_tokenizer(self.tokenizer, records.texts(self.tokenizer_records), self.vocabulary)


class OwnRecords:
    """The samples of one kind in some files and folders, each pass through them in an order of its own.

    A tenth of them, up to 128, is never learned from: those stand from UNSEEN on. ConfigError if no file is named, DataError for
    fewer than ten records, and on reading as `Records`.
    """

    def __init__(self, kind: Kind, paths: Sequence[str | Path], seed: int = 0) -> None:
        if not paths:
            raise ConfigError(f"settings.data names no files; {ALLOWED}")
        self._records = Records(kind, paths, seed, held_out=_HELD_OUT)
        self._unseen = self._records.held_out
        if not self._unseen:
            raise DataError(f"{', '.join(map(str, paths))}: there are {len(self._records)} records; 10 or more are needed")

    def __getitem__(self, k: int) -> Sample:
        return self._records[k] if k < UNSEEN else self._unseen[(k - UNSEEN) % len(self._unseen)]

    def texts(self, records: int) -> Iterator[str]:
        """What is said in so many of the records that are learned from, or in all if there are fewer."""
        for k in range(min(records, len(self._records))):
            yield from (message.text for message in self._records[k].messages)
