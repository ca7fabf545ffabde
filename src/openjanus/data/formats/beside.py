"""What lies beside images in a folder or a shard, as one record with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openjanus.data.forms import IMAGES
from openjanus.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def record(images: Sequence[Path | bytes], text: str | None, values: Any) -> Mapping[str, Any]:
    """The record of some images, the text of a .txt and the values of a .json; None for what there is not.

    The images stand for those the .json may name, in their order: where it was written they had other paths.
    """
    if text is None and values is None:
        raise DataError("no .txt or .json with its caption lies beside the image")
    if values is not None and not isinstance(values, Mapping):
        raise DataError('the .json beside the image is no object; write {"caption": ...} or a conversation')
    found = {name: value for name, value in (values or {}).items() if name not in IMAGES or not images}
    if isinstance(found.get("messages"), list):
        found["messages"] = [_without_paths(message) for message in found["messages"]]
    if images:
        found["images"] = list(images)
    if text is not None:
        found["caption" if images else "text"] = text
    return found


def _without_paths(message: Any) -> Any:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return message
    parts = [
        {"type": "image"} if isinstance(part, Mapping) and part.get("type") in ("image", "image_url") else part
        for part in message["content"]
    ]
    return {**message, "content": parts}
