"""What every format is to those who read records from it."""

from pathlib import Path
from typing import Any, Protocol


class RecordFile(Protocol):
    """Records by number, in an order that stays. Any process may read any of them."""

    @property
    def folder(self) -> Path:
        """What the paths of images in records are relative to."""

    def __len__(self) -> int:
        """Records that there are, broken ones among them."""

    def origin(self, number: int) -> str:
        """Where a record stands, for people: "faces.jsonl, line 7"."""

    def read(self, number: int) -> Any:
        """A record as it stands there, in whatever form (data/forms.py); embedded images are bytes.

        DataError, ValueError or OSError if it is broken.
        """
