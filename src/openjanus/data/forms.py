"""The forms in which people write records, and the one form they all are brought into: chat messages with parts.

{"messages": [{"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "What is it?"}]},
              {"role": "assistant", "content": "A cat."}]}
{"messages": [{"role": "user", "content": "<image>What is it?"}, ...], "images": ["cat.png"]}
{"conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}], "image": "cat.png"}
{"caption": "a cat on a sofa", "image": "cat.png"}
{"input_prompt": "make it black", "input_image": ["cat.png"], "output_image": "black.png"}
{"text": "Plain text."}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from openjanus.data.samples import Kind
from openjanus.errors import DataError
from openjanus.processing.tokenizer import IMAGE

# What a caption's text and a record's images are called; the first that is there and not empty is taken.
TEXTS = ("caption", "prompt", "text")
IMAGES = ("image", "images", "file_name")
# What a table's row must have one of each of: in some form a text, and the image it belongs to.
ROW_TEXTS = (*TEXTS, "input_prompt", "question")
ROW_IMAGES = (*IMAGES, "output_image")
# All that any form has. What no column is called is not read from JSON either (`fields`): so formats cannot differ.
COLUMNS = ("messages", "conversations", *ROW_TEXTS, *ROW_IMAGES, "input_image", "answer", "rival")
# What a captioned image is asked when it is to be read and not painted.
DESCRIBE = "Describe the image."

_TAG = "<image>"
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_FORMS = (
    'a record is {"messages": [{"role": ..., "content": ...}, ...]}, {"text": ...}, {"image": PATH, "caption": ...} or '
    '{"conversations": [{"from": "human", "value": ...}, ...]}'
)


def one_form(record: Any, kind: Kind | None = None) -> Mapping[str, Any]:
    """The record as {"messages": ...} or {"text": ...}; DataError if it is of no known form.

    kind: what it is wanted for. An image with a caption is to be painted, unless "understanding" is wanted: then it is to be
    described.
    """
    record = fields(record)
    images = _images(record)
    if isinstance(messages := record.get("messages"), list) and messages:
        return {**record, "messages": _with_images(messages, images)} if images else record
    if isinstance(turns := record.get("conversations"), list) and turns:
        return {"messages": _placed([_turn(turn) for turn in turns], images)}
    if record.get("output_image"):
        return _asked(record)
    if images:
        return _captioned(record, images, kind)
    if isinstance(record.get("text"), str):
        return {"text": record["text"]}
    raise DataError(_FORMS)


def fields(record: Any) -> Mapping[str, Any]:
    """What of a record some form reads; DataError if it has no fields."""
    if not isinstance(record, Mapping):
        raise DataError(_FORMS)
    return {name: record[name] for name in COLUMNS if name in record}


def _images(record: Mapping[str, Any]) -> list[Any]:
    """What a record gives as images beside its texts: paths, bytes or {"bytes": ..., "path": ...}."""
    value: Any = next((record[name] for name in IMAGES if record.get(name)), [])
    return list(value) if isinstance(value, list) else [value]


def _captioned(record: Mapping[str, Any], images: Sequence[Any], kind: Kind | None) -> Mapping[str, Any]:
    texts = (record.get(name) for name in TEXTS)
    text = next((text.strip() for text in texts if isinstance(text, str) and text.strip()), None)
    if text is None:
        raise DataError(f"there is an image and no text with it ({', '.join(TEXTS)})")
    shown = [_part(image) for image in images]
    if kind == "understanding":
        return {"messages": [_message("user", [*shown, _text(DESCRIBE)]), _message("assistant", text)]}
    return {"messages": [_message("user", text), _message("assistant", shown)], "rival": record.get("rival") or ""}


def _asked(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """ShareGPT-4o-Image's form: a text, perhaps images that it speaks of, and the image that was made."""
    text, images = record.get("input_prompt"), record.get("input_image") or []
    if not isinstance(text, str) or not text.strip():
        raise DataError("there is an output_image and no input_prompt")
    shown = [_part(image) for image in (images if isinstance(images, list) else [images])]
    return {"messages": [_message("user", [*shown, _text(text)]), _message("assistant", [_part(record["output_image"])])]}


def _turn(turn: Any) -> tuple[str, str]:
    """Role and text of one of LLaVA's turns."""
    speaker, text = (turn.get("from"), turn.get("value")) if isinstance(turn, Mapping) else (None, None)
    if not isinstance(speaker, str) or speaker not in _SPEAKERS or not isinstance(text, str):
        raise DataError(f'each turn of conversations needs "from" ({", ".join(_SPEAKERS)}) and a text as "value"')
    return _SPEAKERS[speaker], text


def _with_images(messages: Sequence[Any], images: Sequence[Any]) -> Sequence[Any]:
    """Messages with the images that stand beside them: in the place of <image>, or of parts that name none."""
    plain = [message for message in messages if isinstance(message, Mapping) and isinstance(message.get("content"), str)]
    if len(plain) == len(messages):
        return _placed([(message.get("role"), message["content"]) for message in plain], images)
    parts = [part for message in messages if isinstance(message, Mapping) for part in _parts(message) if _is_image(part)]
    empty = [part for part in parts if not part.get(part["type"])]
    if parts and not empty:
        return messages  # which name their images themselves; beside them they are named once more
    if len(empty) != len(images):
        raise DataError(f"there are {len(empty)} places for {len(images)} images in the messages; give one for each")
    waiting = iter(images)

    def filled(part: Any) -> Any:
        return _part(next(waiting)) if _is_image(part) and not part.get(part["type"]) else part

    return [
        {**message, "content": [filled(part) for part in _parts(message)]}
        if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _parts(message: Mapping[str, Any]) -> Sequence[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else ()


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url")


def _placed(turns: Sequence[tuple[Any, str]], images: Sequence[Any]) -> list[dict[str, Any]]:
    """Turns whose texts have <image> where an image stands; without any, images stand before the first text of the user."""
    tags = sum(text.count(_TAG) for _, text in turns)
    if tags not in (0, len(images)):
        raise DataError(f"there are {tags} {_TAG} for {len(images)} images; write one for each, or none to put the images first")
    waiting, made, first = list(images), [], True
    for role, text in turns:
        here = len(waiting) if not tags and first and role == "user" else text.count(_TAG)
        first = first and role != "user"
        made.append(_message(role, [*map(_part, waiting[:here]), *_words(text)] if here else text))
        del waiting[:here]
    if waiting:
        raise DataError(f"there are {len(images)} images and no turn of the user that they could stand in")
    return made


def _words(text: str) -> list[dict[str, Any]]:
    """The text behind the images of its turn; where they stand between its words, it says so."""
    rest = text.lstrip()
    while rest.startswith(_TAG):
        rest = rest.removeprefix(_TAG).lstrip()
    words = text.replace(_TAG, IMAGE) if _TAG in rest else rest
    return [_text(words)] if words.strip() else []


def _message(role: Any, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def _part(image: Any) -> dict[str, Any]:
    return {"type": "image", "image": image}


def _text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}
