"""Parquet: a record a row, as data sets on the Hugging Face hub have it. Needs pyarrow."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from openjanus.data.forms import COLUMNS
from openjanus.errors import DataError


class Parquet:
    """A .parquet file, by its groups of rows. The group that was read last stays in memory: rows cannot be read alone.

    So rows in order are cheap, and rows in a shuffled order cost a group each: `openjanus data convert` helps there.
    DataError without pyarrow, for a file that is no parquet, and for one without columns that mean something here.
    """

    def __init__(self, path: Path) -> None:
        if find_spec("pyarrow") is None:
            raise DataError(f"{path} is read by pyarrow, which is not installed; run: pip install 'openjanus[data]'")
        self.path, self.folder = path, path.parent
        with path.open("rb") as file:
            if file.read(4) != b"PAR1":
                raise DataError(f"{path} is no parquet file, whatever its name says; write or fetch it again")
        with self._whole():
            file = self._open()
        metadata = file.metadata
        self._columns = [name for name in file.schema_arrow.names if name in COLUMNS]
        if not self._columns:
            names = ", ".join(file.schema_arrow.names)
            raise DataError(f"{path} has the columns {names}; it needs some of {', '.join(COLUMNS)}: rename them")
        self._ends = np.cumsum([metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)])
        self._group: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def origin(self, number: int) -> str:
        return f"{self.path}, row {number + 1}"

    def read(self, number: int) -> Any:
        group = int(np.searchsorted(self._ends, number, side="right"))
        first = int(self._ends[group - 1]) if group else 0
        if self._group is None or self._group[0] != group:
            with self._whole():
                self._group = group, self._open().read_row_group(group, columns=self._columns, use_threads=False)
        (row,) = self._group[1].slice(number - first, 1).to_pylist()
        return row

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What pyarrow says of a damaged file is of many kinds."""
        from pyarrow import ArrowException

        try:
            yield
        except (ArrowException, OSError, ValueError) as error:
            raise DataError(f"{self.path} is a damaged parquet file ({error}); write or fetch it again") from error

    def _open(self) -> Any:
        from pyarrow.parquet import ParquetFile

        # No threads, which would not live on in the processes that are forked to prepare batches.
        return ParquetFile(self.path, pre_buffer=False)
