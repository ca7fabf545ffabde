"""The views of records as one page of HTML that needs nothing else: no network, no script, no file beside it."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

from openjanus.data.preview import ROLES, View, tally

_COLOURS = {
    "prompt": "#eceff1",
    "learned": "#a5d6a7",
    "slot": "#90caf9",
    "picture": "#ffcc80",
    "pad": "#d7ccc8",
    "unseen": "#ef9a9a",
}
_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #212121; background: #fff }
h2 { font-size: 1em; margin: 2.5em 0 .5em; overflow-wrap: anywhere }
p { margin: .4em 0 }
.tokens { font-family: ui-monospace, monospace; line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere }
.tokens span, .key span { border-radius: 3px; padding: 1px 2px; margin: 0 1px }
figure { display: inline-block; margin: .5em 1em .5em 0 }
img { image-rendering: pixelated; max-width: 100% }
figcaption { font-size: .8em }
.error { background: #ffebee; padding: .5em }
"""


def page(views: Sequence[View], title: str) -> str:
    """The page. Everything that comes from records is escaped; images are PNG in data: URLs."""
    colours = "".join(f".{role} {{ background: {colour} }}\n" for role, colour in _COLOURS.items())
    keys = " ".join(f'<span class="{role}">{escape(meaning)}</span>' for role, meaning in ROLES.items())
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(tally(views).items()))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}{colours}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n<p>{escape(counts)}</p>\n"
        f'<p class="key">{keys}</p>\n{"".join(map(_record, views))}</body></html>\n'
    )


def _record(view: View) -> str:
    head = f"<h2>{escape(view.origin)}</h2>\n"
    if view.error:
        return f'{head}<p class="error">{escape(view.error)}</p>\n'
    supervised = f"{view.words + view.codes} supervised positions ({view.words} of text, {view.codes} of a picture)"
    tokens = "".join(f'<span class="{piece.role}">{_visible(piece.text)}</span>' for piece in view.pieces)
    images = "".join(map(_figure, view.images))
    return f'{head}<p>{escape(view.kind)}: {view.tokens} tokens, {supervised}</p>\n{images}\n<p class="tokens">{tokens}</p>\n'


def _visible(text: str) -> str:
    return escape(text).replace("\n", "\u21b5\n")


def _figure(image: tuple[str, Image.Image]) -> str:
    caption, pixels = image
    buffer = BytesIO()
    pixels.save(buffer, format="PNG")
    url = f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
    return f'<figure><img src="{url}" alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
