"""Which format a path is of."""

from collections.abc import Callable
from pathlib import Path

from openjanus.data.formats.folder import Folder
from openjanus.data.formats.json_lines import JsonLines
from openjanus.data.formats.json_list import JsonList
from openjanus.data.formats.parquet import Parquet
from openjanus.data.formats.record_file import RecordFile
from openjanus.data.formats.table import Table
from openjanus.data.formats.tar import Tar
from openjanus.errors import DataError

READERS: dict[str, Callable[[Path], RecordFile]] = {
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".json": JsonList,
    ".tar": Tar,
    ".parquet": Parquet,
    ".csv": Table,
    ".tsv": Table,
}
ALLOWED = f"give {', '.join(READERS)} or a folder of images with captions"


def open_records(path: Path) -> RecordFile:
    """The records of a file or folder, by its suffix. DataError if it is not there, of no known format, or broken as a whole."""
    try:
        if path.is_dir():
            return Folder(path)
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            path.stat()
            raise DataError(f"{path} is of no format that records are read from; {ALLOWED}, or convert it to one of these")
        return reader(path)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; {ALLOWED}") from error
