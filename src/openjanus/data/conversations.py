"""A record as a sample, and back. What it teaches follows from where its images are.

With the user: understanding. With the assistant: generation. With both: editing. Nowhere: text.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from openjanus.data.addresses import located
from openjanus.data.forms import IMAGES, fields, one_form
from openjanus.data.samples import Kind, Sample
from openjanus.errors import DataError
from openjanus.processing.tokenizer import IMAGE
from openjanus.types import ImageSource, Message, Role

ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_SPLIT = "split it into one record a picture, with all that the picture needs in its user message"


def to_sample(record: Any, folder: Path, seed: int, kind: Kind | None = None) -> Sample:
    """The sample of a record, in any of the forms of data/forms.py, whose image paths are relative to a folder.

    kind: what it is wanted for, where that is not plain (`one_form`); the sample may still be of another. A record of generation
    may have a "rival": a text much like its own that does not describe the image. DataError says what is wrong with a record.
    """
    record = one_form(record, kind)
    if "messages" not in record:
        return Sample("text", (Message("assistant", _writable(record["text"])),), seed)
    messages = [_message(message, folder) for message in record["messages"]]
    painted, shown = (any(m.images for m in messages if (m.role == "assistant") is side) for side in (True, False))
    if painted and shown:
        return _edited(messages, seed)
    if painted:
        return _painted(messages, record.get("rival") or "", seed)
    if messages[-1].role != "assistant":
        raise DataError(f"the last message is the {messages[-1].role}'s; what is learned is the assistant's answers")
    return Sample("understanding" if shown else "text", tuple(messages), seed)


def _painted(messages: Sequence[Message], rival: Any, seed: int) -> Sample:
    user, *rest = messages
    if not user.text.strip():
        raise DataError("the text of the picture is empty")
    pictures = [message.images for message in rest]
    if user.role != "user" or [len(images) for images in pictures] != [1]:
        raise DataError(f"a record of generation is one text of the user and one image of the assistant; {_SPLIT}")
    if not isinstance(rival, str):
        raise DataError(f"rival is {rival!r}; it must be a text that does not describe the image")
    return Sample("generation", (user,), seed, pictures[0][0], rival, _said(rest[0]))


def _edited(messages: Sequence[Message], seed: int) -> Sample:
    if [message.role for message in messages] != ["user", "assistant"] or len(messages[1].images) != 1:
        raise DataError(
            f"a record of editing is one turn of the user, with images and a text, and one image of the assistant; {_SPLIT}"
        )
    user, answer = messages
    # Images stand before the text (training_spec 6.3).
    text = user.text.replace(IMAGE, "").strip()
    if not text:
        raise DataError("the text that says what to do with the image is empty")
    return Sample("editing", (replace(user, text=text),), seed, answer.images[0], said=_said(answer))


def _said(answer: Message) -> str:
    """What the assistant says beside a picture."""
    return answer.text.replace(IMAGE, "").strip()


def _message(message: Any, folder: Path) -> Message:
    if not isinstance(message, Mapping) or message.get("role") not in ROLES:
        raise DataError(f"each message needs a role ({', '.join(ROLES)}) and a content")
    content = message.get("content")
    if isinstance(content, str):
        return Message(message["role"], _writable(content))
    if not isinstance(content, list):
        raise DataError("a message's content is a text or a list of parts")
    words = [_words(part) for part in content]
    images = [_image(part[part["type"]], folder) for part, text in zip(content, words, strict=True) if text is None]
    # Images stand before all text where nothing says otherwise; only behind a text do they need to be placed in it.
    spoken = [number for number, text in enumerate(words) if text is not None]
    placed = bool(spoken) and None in words[spoken[0] :]
    text = "\n".join(IMAGE if text is None else text for text in words if text is not None or placed)
    if text.count(IMAGE) not in (0, len(images)):
        raise DataError(f"a message has {text.count(IMAGE)} {IMAGE} for {len(images)} images; write one for each, or none")
    return Message(message["role"], text, tuple(images))


def _words(part: Any) -> str | None:
    """The text of a part of a message, None for an image."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("image", "image_url") and part.get(kind):
        return None
    if kind == "text" and isinstance(part.get("text"), str):
        return _writable(part["text"])
    if kind in ("image", "image_url"):
        raise DataError("an image is a path relative to the file, or a data: URL")
    raise DataError('a part of a content is {"type": "text", "text": ...} or {"type": "image", "image": PATH}')


def _writable(text: str) -> str:
    """The text, unless it holds half of a character, as a JSON of broken characters may."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"a text holds half a character ({error.object[error.start]!r}), which no tokenizer reads") from error
    return text


def _image(value: Any, folder: Path) -> ImageSource:
    """Bytes as they are, a path from its folder."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("url") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str | Path) or not str(value):
        raise DataError("an image is a path relative to the file, or a data: URL")
    return located(value, folder)


def to_question(record: Any, folder: Path) -> tuple[tuple[Message, ...], str]:
    """What a record asks, and its own answer: the last message of the assistant, "" if the record ends with the user's.

    Beside the forms of data/forms.py there is {"question": ..., "images": [...]}. DataError says what is wrong with it.
    """
    record = fields(record)
    if isinstance(record.get("question"), str):
        images: Any = next((record[name] for name in IMAGES if record.get(name)), [])
        shown = tuple(_image(image, folder) for image in (images if isinstance(images, list) else [images]))
        own = record.get("answer")
        return (Message("user", _writable(record["question"]), shown),), own if isinstance(own, str) else ""
    record = one_form(record, "understanding")
    if "messages" not in record:
        return (Message("user", _writable(record["text"])),), ""
    messages = tuple(_message(message, folder) for message in record["messages"])
    if messages[-1].role == "assistant":
        return messages[:-1], messages[-1].text
    return messages, ""


def to_record(sample: Sample, address: Callable[[ImageSource], str]) -> dict[str, Any]:
    """The record of which `to_sample` makes this sample again. address: what to write for an image."""
    if sample.picture is not None:
        answer = Message("assistant", sample.said, (sample.picture,))
        rival = {"rival": sample.rival} if sample.rival else {}
        return {"messages": [_written(message, address) for message in (*sample.messages, answer)], **rival}
    if [message.role for message in sample.messages] == ["assistant"]:
        return {"text": sample.messages[0].text}
    return {"messages": [_written(message, address) for message in sample.messages]}


def _written(message: Message, address: Callable[[ImageSource], str]) -> dict[str, Any]:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts = [{"type": "image", "image": address(image)} for image in message.images]
    # Images that stand in the text have their places written there.
    text = [{"type": "text", "text": message.text}] if message.text else []
    return {"role": message.role, "content": [*parts, *text]}
