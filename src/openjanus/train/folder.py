"""The folder of a run: recipe.json, metrics.jsonl, state/, previews/, final/, perhaps records.json and skipped.txt.

Things appear there whole or not at all.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from openjanus.checkpoints.writing import write_file
from openjanus.errors import ConfigError, TrainingError
from openjanus.files import locked as locked_file
from openjanus.files import writing as writing_file
from openjanus.train.recipe import Recipe, flat

# What makes the model and the data. A stage may change between two halves of a run; these may not.
_FIXED = ("name", "seed", "settings")
# Of the settings, what says how a run ends: one that a broken record has stopped may go on without it.
_FREE = ("settings.on_error",)
_GO_ON = "Make room and start the same command again: the run goes on from its newest state"


def writing(path: Path) -> AbstractContextManager[None]:
    """A disk that refuses becomes a TrainingError, which says that nothing is lost."""
    return writing_file(path, TrainingError, _GO_ON)


def locked(folder: Path) -> AbstractContextManager[None]:
    """No other process trains in the folder meanwhile; TrainingError if one does."""
    place = folder.resolve()
    busy = TrainingError(f"another process is training in {folder}; wait for it, or choose another folder with -o")
    return locked_file(place.with_name(f".{place.name}.lock"), busy, _GO_ON)


def partial_of(path: Path) -> Path:
    """Where a file or folder is while it is being written."""
    return path.with_name(f"{path.name}.partial")


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """An empty folder to write into, which takes the place of `folder` when the block ends well and vanishes when it does not."""
    partial, old = partial_of(folder), folder.with_name(f"{folder.name}.old")
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def settle(folder: Path, recipe: Recipe) -> list[str]:
    """Write the resolved recipe into a run's folder, and tell what has changed since the run was last there.

    ConfigError if the folder holds something else: another run that can go on, or no run at all.
    """
    path, values = folder / "recipe.json", recipe.to_json()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder with -o")
    changes = []
    if path.is_file():
        changes = _changes(json.loads(path.read_text(encoding="utf-8")), values, folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no run; choose another folder with -o")
    _write(path, values)
    return changes


def keep_records(folder: Path, records: Mapping[str, int]) -> None:
    """Write down of how many records of each kind the newest state has learned."""
    if records and records != _records(folder):
        _write(folder / "records.json", dict(records))


def other_records(folder: Path, records: Mapping[str, int]) -> list[str]:
    """Of which kinds there are more or fewer records than when the newest state was saved.

    In which order they come, and which are held out, follows from their number.
    """
    before = _records(folder) if states(folder / "state") else {}
    return [
        f"there are {number:,} records of {kind}, and there were {before[kind]:,}; from here on they come in another order, and "
        "some that were held out may be learned from: give the data as it was to go on exactly"
        for kind, number in records.items()
        if before.get(kind, number) != number
    ]


def _records(folder: Path) -> dict[str, int]:
    path = folder / "records.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(partial_of(path), (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
        partial_of(path).replace(path)


def _changes(old: dict[str, object], new: dict[str, object], folder: Path) -> list[str]:
    """Differences in what both recipes say; ConfigError if they concern what a run is."""
    before, after = flat(old), flat(new)
    changed = [key for key in before if key in after and before[key] != after[key]]
    fixed = [key for key in changed if key.split(".")[0] in _FIXED and key not in _FREE]
    # Without a state there is no run to go on: a mistake in the settings of the first try must not cost the folder.
    if fixed and states(folder / "state"):
        key = fixed[0]
        raise ConfigError(
            f"{folder} holds another run: {key} is {before[key]!r} there and {after[key]!r} here; "
            "choose another folder with -o, or give the same settings"
        )
    return [f"{key} {before[key]} -> {after[key]}" for key in changed]


def states(folder: Path) -> list[Path]:
    """The whole states in a folder, newest first."""
    return sorted((path for path in folder.glob("*") if path.name.isdecimal()), reverse=True)
