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
from openjanus.janus import Janus

# Which of the inputs a result is of; a digest of it, of inputs that have one each; the last line of several says so.
NUMBER, ASKED, LAST = "number", "asked", "last"


@dataclass(frozen=True)
class Inputs:
    """What a job works through: what they are called ("prompts"), and what tells others apart, a count or a digest."""

    name: str
    identity: int | str


class Results:
    """The results of this process. `done`: the numbers of all inputs that some process has finished with, and their digests, ""
    where none was written down."""

    def __init__(self, path: Path, share: Share, inputs: Inputs, janus: Janus, options: object) -> None:
        """path: the file of one process; with several each has one of its own beside it (`out-0.jsonl`, `out-1.jsonl`).

        ConfigError if the results that are there are another model's, or came of other options or other inputs.
        """
        self.path = path if share.size == 1 else path.with_name(f"{path.stem}-{share.rank}{path.suffix}")
        self._inputs = inputs
        settings = {"model": janus.name, "fingerprint": janus.fingerprint, "options": vars(options)}
        self._settle(path.with_name(f".{path.stem}.json"), json.loads(json.dumps({inputs.name: inputs.identity, **settings})))
        self.done: dict[int, str] = {}
        for file in (path, *path.parent.glob(f"{path.stem}-*{path.suffix}")):
            self.done |= _finished(file)

    def _settle(self, note: Path, now: Mapping[str, Any]) -> None:
        if note.exists():
            # Earlier versions wrote no fingerprint; their jobs go on.
            before = {"fingerprint": now["fingerprint"], **json.loads(note.read_text(encoding="utf-8"))}
            changed = next((key for key in {**now, **before} if before.get(key) != now.get(key)), None)
            if changed == self._inputs.name:
                raise self._of_others("their file has changed since, or is another")
            if changed == "fingerprint":
                raise ConfigError(
                    f"{self.path.parent} holds the results of another model: it was {before['model']} and is {now['model']}, but "
                    "weights, adapter, precision or quantisation differ; give it as it was to go on, or another place with -o"
                )
            if changed is not None:
                raise ConfigError(
                    f"{self.path.parent} holds the results of another job: {changed} was {before.get(changed)!r} and is "
                    f"{now.get(changed)!r}; give the same to go on, or another place with -o"
                )
        # Every process writes the same; the one that is last to rename changes nothing.
        write_json(note, now)

    def check(self, number: int, asked: str) -> None:
        """ConfigError if the digest of an input that is done was another."""
        if self.done[number] != asked:
            raise self._of_others(f"number {number + 1}, or an image of it, has changed since")

    def _of_others(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.path.parent} holds the results of other {self._inputs.name}: {reason}; "
            "give it as it was to go on, or another place with -o"
        )

    def add(self, number: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write down what an input has come to, so that it outlives the machine; DataError if the disk refuses."""
        append_lines(self.path, [{NUMBER: number, **line, LAST: place + 1 == len(lines)} for place, line in enumerate(lines)])


def _finished(path: Path) -> dict[int, str]:
    """The inputs in a file whose last line is there, by number."""
    return {int(line[NUMBER]): line.get(ASKED, "") for line in read_lines(path) if line.get(LAST)}
