"""Records on disk as samples: JSON lines, each a conversation in the usual content-part form.

    {"messages": [{"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": "A cat."}]}

What a record teaches follows from where its images are: with the user, understanding; with the assistant, generation; nowhere,
text. Paths of images are relative to the file. {"text": "..."} is plain text. A record of generation may have a "rival": a text
much like its own that does not describe the image.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openjanus.data.order import shuffled
from openjanus.data.samples import Kind, Sample, generator
from openjanus.errors import DataError
from openjanus.processing.tokenizer import IMAGE
from openjanus.types import ImageSource, Message, Role

# A purpose of a sample's chance, as those in data/documents.py.
SENTENCE = 3
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_ENDS = (". ", "! ", "? ", ".\n", "!\n", "?\n")


@dataclass(frozen=True)
class _Lines:
    """A file of JSON lines, and where each that is not empty begins."""

    path: Path
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, path: Path) -> "_Lines":
        try:
            with path.open("rb") as file:
                place, starts = 0, []
                for line in file:
                    if line.strip():
                        starts.append(place)
                    place += len(line)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}; give a .jsonl file of records") from error
        return cls(path, np.array(starts, dtype=np.int64))

    def read(self, number: int) -> str:
        with self.path.open("rb") as file:
            file.seek(int(self.starts[number]))
            return file.readline().decode("utf-8", errors="strict")


class Records:
    """The samples of one kind in some files of JSON lines: endless, each pass through them in an order of its own.

    first_sentence: share of the captions of pictures that are cut after their first sentence (Janus, section 4.2: 0.25).
    DataError for a file without records, and on reading for a record that is broken or of another kind.
    """

    def __init__(self, kind: Kind, paths: Sequence[str | Path], seed: int = 0, first_sentence: float = 0.0) -> None:
        self.kind, self.seed, self.first_sentence = kind, seed, first_sentence
        self._files = [_Lines.of(Path(path)) for path in paths]
        self._ends = np.cumsum([len(file.starts) for file in self._files])
        if not len(self):
            raise DataError(f"there is no record in {', '.join(map(str, paths)) or 'no file'}; the {kind} data needs some")

    def __len__(self) -> int:
        """Records in all files."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, k: int) -> Sample:
        times, place = divmod(k, len(self))
        return self.record(shuffled(place, len(self), (self.seed, times)), (self.seed << 40) + k)

    def record(self, number: int, seed: int = 0) -> Sample:
        """Record `number`, in the order of the files."""
        file = int(np.searchsorted(self._ends, number, side="right"))
        lines = self._files[file]
        within = number - (int(self._ends[file - 1]) if file else 0)
        origin = f"{lines.path}, record {within + 1}"
        try:
            sample = to_sample(json.loads(lines.read(within)), lines.path.parent, seed)
            if sample.kind != self.kind:
                raise DataError(f"it is a record of {sample.kind}, and this is the data for {self.kind}")
        except (DataError, ValueError) as error:
            raise unusable(origin, error) from error
        return self._cut(replace(sample, origin=origin))

    def _cut(self, sample: Sample) -> Sample:
        if self.kind != "generation" or generator(sample.seed, SENTENCE).random() >= self.first_sentence:
            return sample
        (message,) = sample.messages
        cut = replace(message, text=first_sentence(message.text))
        return replace(sample, messages=(cut,), rival=first_sentence(sample.rival))


def unusable(origin: str, error: Exception) -> DataError:
    """What is said of a record that nothing can be learned from."""
    return DataError(f"{origin}: {error}; mend it or take it out")


def first_sentence(text: str) -> str:
    """A text up to the end of its first sentence."""
    ends = [place + 1 for end in _ENDS if (place := text.find(end)) >= 0]
    return text[: min(ends, default=len(text))].strip()


def to_sample(record: Any, folder: Path, seed: int) -> Sample:
    """The sample of a record whose image paths are relative to a folder. DataError says what is wrong with it."""
    if isinstance(record, Mapping) and isinstance(record.get("text"), str):
        return Sample("text", (Message("assistant", record["text"]),), seed)
    if not isinstance(record, Mapping) or not isinstance(record.get("messages"), list) or not record["messages"]:
        raise DataError('a record is {"messages": [{"role": ..., "content": ...}, ...]} or {"text": ...}')
    messages = [_message(message, folder) for message in record["messages"]]
    if any(message.images for message in messages if message.role == "assistant"):
        return _painted(messages, record.get("rival", ""), seed)
    kind: Kind = "understanding" if any(message.images for message in messages) else "text"
    return Sample(kind, tuple(messages), seed)


def _painted(messages: Sequence[Message], rival: Any, seed: int) -> Sample:
    user, *rest = messages
    pictures = [message.images for message in rest]
    if user.role != "user" or user.images or [len(images) for images in pictures] != [1]:
        raise DataError("a record of generation is one text of the user and one image of the assistant")
    if not isinstance(rival, str):
        raise DataError(f"rival is {rival!r}; it must be a text that does not describe the image")
    return Sample("generation", (user,), seed, pictures[0][0], rival)


def _message(message: Any, folder: Path) -> Message:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise DataError(f"each message needs a role ({', '.join(ROLES)}) and a content")
    content = message.get("content")
    if isinstance(content, str):
        return Message(message["role"], content)
    if not isinstance(content, list):
        raise DataError("a message's content is a text or a list of parts")
    words = [_words(part) for part in content]
    images = [_image(part, folder) for part, text in zip(content, words, strict=True) if text is None]
    # Images stand before all text where nothing says otherwise; only behind a text do they need to be placed in it.
    spoken = [number for number, text in enumerate(words) if text is not None]
    placed = bool(spoken) and None in words[spoken[0] :]
    lines = [IMAGE if text is None else text for text in words if text is not None or placed]
    return Message(message["role"], "\n".join(lines), tuple(images))


def _words(part: Any) -> str | None:
    """The text of a part of a message, None for an image."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url"):
        return None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise DataError('a part of a content is {"type": "text", "text": ...} or {"type": "image", "image": PATH}')


def _image(part: Mapping[str, Any], folder: Path) -> ImageSource:
    value = part.get(part["type"])
    address = value.get("url") if isinstance(value, Mapping) else value
    if not isinstance(address, str) or not address:
        raise DataError("an image is a path relative to the file, or a data: URL")
    return address if address.startswith("data:") else folder / address
