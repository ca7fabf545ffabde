"""Records on disk as samples, from files of any format (data/formats) and records of any form (data/forms.py)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.data.conversations import to_sample
from openjanus.data.formats.opening import open_records
from openjanus.data.formats.record_file import RecordFile
from openjanus.data.order import shuffled
from openjanus.data.samples import Kind, Sample, generator
from openjanus.errors import DataError

# A purpose of a sample's chance, as those in data/documents.py.
SENTENCE = 3
_ENDS = (". ", "! ", "? ", ".\n", "!\n", "?\n")


class RecordFiles:
    """The records of some files and folders, by number: first those of the first.

    kind: what they are wanted for; None takes what comes. DataError for a path that holds none or cannot be read as a whole.
    """

    def __init__(self, paths: Sequence[str | Path], kind: Kind | None = None) -> None:
        self.kind = kind
        self._files = [open_records(Path(path)) for path in paths]
        self._ends = np.cumsum([len(file) for file in self._files])
        if not len(self):
            wanted = f"the {kind} data needs some" if kind else "give a file that has some"
            raise DataError(f"there is no record in {', '.join(map(str, paths)) or 'no file'}; {wanted}")

    def __len__(self) -> int:
        """Records in all files."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def origin(self, number: int) -> str:
        """Where a record stands, for people."""
        file, within = self._find(number)
        return file.origin(within)

    def _find(self, number: int) -> tuple[RecordFile, int]:
        which = int(np.searchsorted(self._ends, number, side="right"))
        return self._files[which], number - (int(self._ends[which - 1]) if which else 0)

    def sample(self, number: int, seed: int = 0) -> Sample:
        """The sample of a record; DataError, which says where it stands, if it is broken or not of the kind that is wanted."""
        file, within = self._find(number)
        origin = file.origin(within)
        try:
            sample = to_sample(file.read(within), file.folder, seed, self.kind)
            if self.kind not in (None, sample.kind):
                raise DataError(
                    f"it is a record of {sample.kind}, and this is the data for {self.kind}; if all are, name the file where "
                    f"{sample.kind} is wanted"
                )
        except (DataError, ValueError, OSError, RecursionError) as error:
            raise unusable(origin, error) from error
        return replace(sample, origin=origin)


class Records:
    """The samples of one kind in some files and folders: endless, each pass through them in an order of its own.

    first_sentence: share of the captions of pictures that are cut after their first sentence (Janus, section 4.2: 0.25).
    held_out: how many records are never among the samples, but at most a tenth of all; they stand evenly over the files.
    every: how many there are, with those.
    DataError for no records, and on reading for a record that is broken or of another kind.
    """

    def __init__(
        self, kind: Kind, paths: Sequence[str | Path], seed: int = 0, first_sentence: float = 0.0, held_out: int = 0
    ) -> None:
        self.kind, self.seed, self.first_sentence = kind, seed, first_sentence
        self._files = RecordFiles(paths, kind)
        self.every, held = len(self._files), min(held_out, len(self._files) // 10)
        self._held = [number * self.every // held for number in range(held)]

    @property
    def held_out(self) -> Sequence[Sample]:
        """The records that are never learned from, as samples that are the same every time."""
        return HeldOut(self._files, tuple(self._held))

    def __len__(self) -> int:
        """Records in all files that are learned from."""
        return len(self._files) - len(self._held)

    def __getitem__(self, k: int) -> Sample:
        return self.instead(k, 0)

    def choices(self, k: int) -> int:
        """How many records may stand in the place of sample k."""
        return len(self)

    def instead(self, k: int, turns: int) -> Sample:
        """Sample k, or in its place the record that comes so many turns behind it in the order of the pass."""
        times, place = divmod(k, len(self))
        learned = shuffled((place + turns) % len(self), len(self), (self.seed, times))
        # Before each record that is held out stand as many of the others as its number less those held out before it.
        number = learned + bisect_right(self._before, learned)
        return self.record(number, (self.seed << 40) + k)

    @cached_property
    def _before(self) -> list[int]:
        return [number - place for place, number in enumerate(self._held)]

    def record(self, number: int, seed: int = 0) -> Sample:
        """Record `number`, in the order of the files."""
        return self._cut(self._files.sample(number, seed))

    def _cut(self, sample: Sample) -> Sample:
        if self.kind != "generation" or generator(sample.seed, SENTENCE).random() >= self.first_sentence:
            return sample
        (message,) = sample.messages
        cut = replace(message, text=first_sentence(message.text))
        return replace(sample, messages=(cut,), rival=first_sentence(sample.rival))


@dataclass(frozen=True)
class HeldOut(Sequence[Sample]):
    """Some records of files as samples; each draws its chance from its own number."""

    files: RecordFiles
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.files.sample(self.numbers[place], seed=self.numbers[place])


@dataclass(frozen=True)
class RecordsInTurn:
    """Records of several kinds as one source, one of each kind in turn."""

    sources: Sequence[Records]

    def __getitem__(self, k: int) -> Sample:
        return self.instead(k, 0)

    def choices(self, k: int) -> int:
        """How many records of its kind may stand in the place of sample k."""
        rounds, which = divmod(k, len(self.sources))
        return self.sources[which].choices(rounds)

    def instead(self, k: int, turns: int) -> Sample:
        """Sample k, or in its place one of the same kind (`Records.instead`)."""
        rounds, which = divmod(k, len(self.sources))
        return self.sources[which].instead(rounds, turns)


def unusable(origin: str, error: Exception) -> DataError:
    """What is said of a record that nothing can be learned from."""
    return DataError(f"{origin}: {error}; mend it or take it out")


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence."""
    ends = [place + 1 for end in _ENDS if (place := text.find(end)) >= 0]
    return text[: min(ends, default=len(text))].strip()
