"""Records from files, answered: a line each, as a record that a run can learn from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from openjanus.data.addresses import called, file_name, images_of
from openjanus.data.conversations import to_question, to_record
from openjanus.data.formats.opening import open_records
from openjanus.data.formats.record_file import RecordFile
from openjanus.data.samples import Sample
from openjanus.engine.request import TextRequest
from openjanus.environment import Share
from openjanus.errors import DataError, JanusError
from openjanus.files import replace_file
from openjanus.janus import Janus
from openjanus.jobs.results import ASKED, Inputs, Results
from openjanus.jobs.running import results
from openjanus.types import ImageSource, Message, TextOptions

# About how many of the records that are done are looked at when a job goes on: a job of a million begins in seconds.
_CHECKED = 256


@dataclass(frozen=True)
class Questions:
    """The records of some files by number, as questions; images of records are opened when they are asked."""

    files: Sequence[RecordFile]

    @classmethod
    def found(cls, paths: Sequence[str]) -> "Questions":
        """Of files of any format that records are read from (data/formats). DataError if one is none, or there is no record."""
        made = cls([open_records(Path(path)) for path in paths])
        if not len(made):
            raise DataError(f"there is no record in {', '.join(paths)}; give a file with one a line")
        return made

    def __len__(self) -> int:
        """Records in all files."""
        return sum(map(len, self.files))

    def __getitem__(self, number: int) -> tuple[tuple[Message, ...], str]:
        """What is asked, and the answer that stands there ("" if none does); DataError, with its place, if it is broken."""
        for file in self.files:
            if number < len(file):
                try:
                    return to_question(file.read(number), file.folder)
                except (DataError, ValueError, OSError, RecursionError) as error:
                    raise DataError(f"{file.origin(number)}: {error}") from error
            number -= len(file)
        raise IndexError(number)


def answer(
    janus: Janus,
    questions: Questions,
    output: Path,
    options: TextOptions,
    share: Share,
    batch: int,
    progress: Callable[[int, int], None],
    complain: Callable[[str], None],
) -> tuple[int, int]:
    """Answer this process's share of records into a .jsonl, `batch` at a time; how many are done and how many cannot be.

    A line holds the conversation with the model's answer, and "reference", the answer that the record has. Images that were
    embedded go into the folder NAME_images beside it. What is done already is not done again.
    """
    kept = Results(output, share, Inputs("records", len(questions)), janus, options)
    every = range(share.rank, len(questions), share.size)
    own = [number for number in every if number not in kept.done]
    _check(questions, [number for number in every if kept.done.get(number)], kept, output.parent)
    asked: dict[int, tuple[tuple[Message, ...], str]] = {}
    failed = 0

    def request(number: int) -> TextRequest:
        asked[number] = questions[number]
        return TextRequest(janus.processor.understanding_prompt(asked[number][0]), options)

    for place, (number, result) in enumerate(results(janus.engine, own, request, batch)):
        messages, reference = asked.pop(number, ((), ""))
        if isinstance(result, JanusError):
            failed += 1
            complain(f"record {number + 1} is left out: {result}")
        else:
            line = _line(messages, result.text, reference, _Images(output, number))
            kept.add(number, [{ASKED: _digest(messages, reference, output.parent), **line}])
        progress(len(every) - len(own) + place + 1, len(every))
    return len(every) - failed, failed


def _check(questions: Questions, done: Sequence[int], kept: Results, folder: Path) -> None:
    """ConfigError if records are not those that were answered: some of those that are done are looked at, evenly over them.

    What was left out may have been mended.
    """
    for number in done[:: len(done) // _CHECKED + 1]:
        try:
            asked = _digest(*questions[number], folder)
        except JanusError:
            continue  # it is answered, and need not be read again
        kept.check(number, asked)


def _line(messages: Sequence[Message], text: str, reference: str, images: "_Images") -> Mapping[str, Any]:
    """The record of an answer, whose embedded images are written first."""
    record = to_record(Sample("text", (*messages, Message("assistant", text)), 0), images.address)
    return {**record, "answer": text, **({"reference": reference} if reference else {})}


def _digest(messages: Sequence[Message], reference: str, folder: Path) -> str:
    """What tells a question and its own answer from others; paths of images count from a folder."""
    turns = [(turn.role, turn.text, [_told_apart(image, folder) for image in turn.images]) for turn in messages]
    return blake2b(repr((turns, reference)).encode(), digest_size=8).hexdigest()


def _told_apart(image: ImageSource, folder: Path) -> object:
    """What tells an image of a record from others, without decoding it."""
    if isinstance(image, bytes):
        return blake2b(image).hexdigest()
    try:
        # Not its time: copies of the same file have others.
        return called(image, folder), Path(image).stat().st_size
    except (OSError, ValueError):
        return str(image)  # an address, or what is not there


class _Images:
    """What the record of an answer calls its images.

    Embedded ones are named by the number of their record: so they are the same on any number of processes and after a kill.
    """

    def __init__(self, output: Path, number: int) -> None:
        self._output, self._number, self._count = output, number, 0

    def address(self, source: ImageSource) -> str:
        """Where an image is; an embedded one is written down, byte for byte as it was."""
        if isinstance(source, bytes):
            path = images_of(self._output) / file_name(f"{self._number:08d}_{self._count}", source)
            replace_file(path, source)
            self._count += 1
            return called(path, self._output.parent)
        return called(source, self._output.parent)
