"""How long records are for a model, and how large their images."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from openjanus.data.documents import Writer
from openjanus.data.packing import written
from openjanus.data.records import RecordFiles
from openjanus.errors import DataError
from openjanus.processing.images import open_image
from openjanus.types import IGNORE


@dataclass(frozen=True)
class Spread:
    """Where some numbers lie: each of these is one of them. 0 where there are none."""

    least: int
    median: int
    p90: int
    most: int

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Spread":
        if not numbers:
            return cls(0, 0, 0, 0)
        return cls(*(int(value) for value in np.quantile(numbers, (0, 0.5, 0.9, 1), method="inverted_cdf")))

    def __str__(self) -> str:
        return f"{self.least:>9,} {self.median:>9,} {self.p90:>9,} {self.most:>9,}"


@dataclass(frozen=True)
class KindStatistics:
    """Of the records of one kind: tokens of each, positions that are supervised (words and codes or latents), image sizes.

    too_long: records that fit no row. rows: the fewest rows that all others fill.
    """

    records: int
    tokens: Spread
    supervised: Spread
    all_tokens: int
    all_supervised: int
    too_long: int
    rows: int
    widths: Spread
    heights: Spread


@dataclass(frozen=True)
class Statistics:
    """Records by kind. broken: those that are left out, broken or of no use to the model, with the reason."""

    context: int
    kinds: dict[str, KindStatistics]
    broken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """The same for people, a block a kind."""
        lines = []
        for kind, found in self.kinds.items():
            lines += [
                f"{kind}: {_counted(found.records, 'record')}, {found.all_tokens:,} tokens, {found.all_supervised:,} supervised",
                f"  {'':22} {'least':>9} {'median':>9} {'90 %':>9} {'most':>9}",
                f"  {'tokens':22} {found.tokens}",
                f"  {'supervised':22} {found.supervised}",
            ]
            if found.widths.most:
                lines += [f"  {'width of images':22} {found.widths}", f"  {'height of images':22} {found.heights}"]
            lines.append(
                f"  {found.records - found.too_long:,} fit rows of {self.context:,} tokens and fill {found.rows:,} or more; "
                f"{found.too_long:,} are too long"
            )
        if self.broken:
            others = " (--json lists all), the first" if len(self.broken) > 1 else ""
            lines.append(f"left out: {_counted(len(self.broken), 'record')}{others}: {' '.join(self.broken[0].split())}")
        return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


@dataclass
class _Lengths:
    tokens: list[int] = field(default_factory=list)
    supervised: list[int] = field(default_factory=list)
    longest: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def told(self, context: int) -> KindStatistics:
        fitting = [tokens for tokens, longest in zip(self.tokens, self.longest, strict=True) if longest <= context]
        return KindStatistics(
            records=len(self.tokens),
            tokens=Spread.of(self.tokens),
            supervised=Spread.of(self.supervised),
            all_tokens=sum(self.tokens),
            all_supervised=sum(self.supervised),
            too_long=len(self.tokens) - len(fitting),
            rows=-(-sum(fitting) // context),
            widths=Spread.of([width for width, _ in self.sizes]),
            heights=Spread.of([height for _, height in self.sizes]),
        )


def measure(
    files: RecordFiles, numbers: Iterable[int], writer: Writer, context: int, progress: Callable[[int], None]
) -> Statistics:
    """The lengths of some records as `writer` writes them; broken ones are left out and listed."""
    found: dict[str, _Lengths] = {}
    broken: list[str] = []
    for done, number in enumerate(numbers, 1):
        try:
            sample = files.sample(number)
            documents = written(writer, sample)
        except DataError as error:
            broken.append(str(error))
        else:
            lengths = found.setdefault(sample.kind, _Lengths())
            lengths.tokens.append(sum(map(len, documents)))
            lengths.supervised.append(sum(int((one.labels != IGNORE).sum() + one.outputs.sum()) for one in documents))
            lengths.longest.append(max(map(len, documents)))
            lengths.sizes += [open_image(image).size for image in sample.images]
        progress(done)
    return Statistics(context, {kind: lengths.told(context) for kind, lengths in found.items()}, tuple(broken))
