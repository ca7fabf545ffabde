"""Whether records can be learned from: each is read, and each of its images is opened."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from openjanus.data.records import RecordFiles, unusable
from openjanus.data.samples import Sample
from openjanus.errors import DataError, ImageError
from openjanus.processing.images import open_image

# Of a long list people read the beginning.
SHOWN = 20


@dataclass(frozen=True)
class Check:
    """What a look at all records has found.

    kinds: whole records by what they teach. broken: what is wrong with each of the others, beginning with its place.
    duplicates: the places of records with the texts and pixels of one before, and the place of that one.
    silent: the places of whole records that have an empty answer or text. spoken: of those that have a text beside the painted
    image.
    """

    records: int
    images: int
    kinds: dict[str, int]
    broken: tuple[str, ...]
    duplicates: tuple[tuple[str, str], ...]
    silent: tuple[str, ...]
    spoken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def to_text(self, everything: bool = False) -> str:
        """The same for people; of long lists the beginning, unless everything is wanted."""
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items())) or "none whole"
        lines = [f"{self.records:,} records: {kinds}; {self.images:,} images"]
        lines += _listed("broken", self.broken, everything)
        lines += _listed("duplicates", [f"{one} is the same as {other}" for one, other in self.duplicates], everything)
        lines += _listed("empty answers, which teach silence", self.silent, everything)
        lines += _listed("texts beside painted images, which are not learned", self.spoken, everything)
        return "\n".join(lines)


def _listed(title: str, found: "tuple[str, ...] | list[str]", everything: bool) -> list[str]:
    shown = found if everything else found[:SHOWN]
    more = [f"  and {len(found) - len(shown):,} more; --list shows all"] if len(shown) < len(found) else []
    return [f"{title}: {len(found):,}", *(f"  {' '.join(line.split())}" for line in shown), *more]


def check(files: RecordFiles, progress: Callable[[int, int], None]) -> Check:
    """Read every record and open every image. Nothing but what is wrong with them, and 16 bytes a record, stays in memory."""
    kinds: Counter[str] = Counter()
    images = 0
    broken: list[str] = []
    duplicates: list[tuple[str, str]] = []
    silent: list[str] = []
    spoken: list[str] = []
    seen: dict[bytes, int] = {}
    for number in range(len(files)):
        try:
            sample = files.sample(number)
            content = _content(sample)
        except DataError as error:
            broken.append(str(error))
        else:
            kinds[sample.kind] += 1
            images += len(sample.images)
            before = seen.setdefault(content, number)
            if before != number:
                duplicates.append((sample.origin, files.origin(before)))
            if any(message.role == "assistant" and not message.text.strip() for message in sample.messages):
                silent.append(sample.origin)
            if sample.said:
                spoken.append(sample.origin)
        progress(number + 1, len(files))
    return Check(len(files), images, dict(kinds), tuple(broken), tuple(duplicates), tuple(silent), tuple(spoken))


def _content(sample: Sample) -> bytes:
    """A digest of texts and pixels; DataError if an image cannot be opened."""
    words = [(message.role, message.text, len(message.images)) for message in sample.messages]
    digest = blake2b(json.dumps([sample.kind, words, sample.rival]).encode(), digest_size=16)
    for source in sample.images:
        try:
            image = open_image(source)
        except ImageError as error:
            raise unusable(sample.origin, error) from error
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.digest()
