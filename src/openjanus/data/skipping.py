"""What takes the place of a sample that cannot be used."""

from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

from openjanus.data.samples import Sample, Source
from openjanus.errors import DataError

T = TypeVar("T")
# So many broken records in a row are no accident: the data is of another kind, or its images lie elsewhere.
MOST = 1000


@runtime_checkable
class Replaceable(Source, Protocol):
    """A source whose samples may be broken, and which has others to take their place."""

    def choices(self, k: int) -> int:
        """How many different samples may stand in the place of sample k, itself among them."""

    def instead(self, k: int, turns: int) -> Sample:
        """Sample k, or in its place the one that comes so many turns behind it."""


def first_good(source: Replaceable, k: int, use: Callable[[Sample], T]) -> tuple[T, tuple[str, ...]]:
    """What `use` makes of sample k, or of the first behind it that can be read and used; and what is wrong with those before.

    A function of k alone: any process finds the same, at any time. DataError if there is none, or none among the next `MOST`.
    """
    wrong: list[str] = []
    while True:
        try:
            return use(source.instead(k, len(wrong))), tuple(wrong)
        except DataError as error:
            wrong.append(str(error))
            if len(wrong) >= min(source.choices(k), MOST):
                raise DataError(
                    f"{len(wrong)} records in a row cannot be used, the first {wrong[0]}. "
                    "`openjanus data check` lists what is wrong"
                ) from error
