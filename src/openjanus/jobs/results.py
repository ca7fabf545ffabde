"""What a job has come to so far: a line of JSON a result, appended as it is done, so that a job that was killed goes on.

Each process of a job has a file of its own, and counts as done what stands in any of them: a job may go on with other processes
than it began with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openjanus.environment import Share
from openjanus.errors import ConfigError
from openjanus.files import append_lines, read_lines, write_json

# Which of the inputs a result is of; its last line of several says so.
NUMBER, LAST = "number", "last"


@dataclass(frozen=True)
class Inputs:
    """What a job works through: what they are called ("prompts"), and what tells others apart, a count or a digest."""

    name: str
    identity: int | str


class Results:
    """The results of this process. `done`: the numbers of all inputs that some process has finished with."""

    def __init__(self, path: Path, share: Share, inputs: Inputs, settings: Mapping[str, Any]) -> None:
        """path: the file of one process; with several each has one of its own beside it (`out-0.jsonl`, `out-1.jsonl`).

        settings: what the results depend on besides; ConfigError if those that are there came of others, or of other inputs.
        """
        self.path = path if share.size == 1 else path.with_name(f"{path.stem}-{share.rank}{path.suffix}")
        self._settle(path.with_name(f".{path.stem}.json"), inputs, settings)
        self.done = {number for file in (path, *path.parent.glob(f"{path.stem}-*{path.suffix}")) for number in _finished(file)}

    def _settle(self, note: Path, inputs: Inputs, settings: Mapping[str, Any]) -> None:
        plain = json.loads(json.dumps({inputs.name: inputs.identity, **settings}))
        if note.exists() and (before := json.loads(note.read_text(encoding="utf-8"))) != plain:
            changed = [key for key in {**plain, **before} if before.get(key) != plain.get(key)]
            if changed[0] == inputs.name:
                raise ConfigError(
                    f"{self.path.parent} holds the results of other {inputs.name}: their file has changed since, or is another; "
                    "give it as it was to go on, or another place with -o"
                )
            raise ConfigError(
                f"{self.path.parent} holds the results of another job: {changed[0]} was {before.get(changed[0])!r} and is "
                f"{plain.get(changed[0])!r}; give the same to go on, or another place with -o"
            )
        # Every process writes the same; the one that is last to rename changes nothing.
        write_json(note, plain)

    def add(self, number: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write down what an input has come to, so that it outlives the machine; DataError if the disk refuses."""
        append_lines(self.path, [{NUMBER: number, **line, LAST: place + 1 == len(lines)} for place, line in enumerate(lines)])


def _finished(path: Path) -> set[int]:
    """The numbers in a file whose last line is there."""
    return {int(line[NUMBER]) for line in read_lines(path) if line.get(LAST)}
