"""Contact sheets: pictures in a row for each caption, framed green where they are right and red where they are not."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

FRAMES = {True: (40, 160, 60), False: (220, 40, 40)}
INK, PAPER = (20, 20, 20), (250, 250, 250)
LINE = 14  # pixels of a line of text
BORDER = 3
GAP = 4
LEAST_WIDTH = 220  # of a row, so that its caption has room


@dataclass(frozen=True)
class SheetRow:
    """Pictures under one caption, each with whether it is right."""

    caption: str
    pictures: Sequence[tuple[Image.Image, bool]]


def sheet(rows: Sequence[SheetRow], across: int = 2, side: int = 96) -> Image.Image:
    """All rows as one picture, `across` beside each other; small pictures are enlarged without smoothing."""
    font = ImageFont.load_default(size=11)
    cell = side + 2 * BORDER
    width = max(max(len(row.pictures) for row in rows) * (cell + GAP), LEAST_WIDTH) + 2 * GAP
    wrapped = [_wrap(row.caption, font, width - 4 * GAP) for row in rows]
    lines = [max(map(len, wrapped[start : start + across])) for start in range(0, len(rows), across)]
    heights = [count * LINE + cell + 3 * GAP for count in lines]
    image = Image.new("RGB", (width * min(across, len(rows)), sum(heights)), PAPER)
    pen = ImageDraw.Draw(image)
    for place, (row, text) in enumerate(zip(rows, wrapped, strict=True)):
        left, top = place % across * width + 2 * GAP, sum(heights[: place // across]) + GAP
        for number, line in enumerate(text):
            pen.text((left, top + number * LINE), line, INK, font)
        top += lines[place // across] * LINE + GAP
        for number, (picture, right) in enumerate(row.pictures):
            corner = left + number * (cell + GAP), top
            pen.rectangle((*corner, corner[0] + cell - 1, top + cell - 1), FRAMES[right])
            smoothing = Image.Resampling.BOX if max(picture.size) > side else Image.Resampling.NEAREST
            image.paste(picture.convert("RGB").resize((side, side), smoothing), (corner[0] + BORDER, top + BORDER))
    return image


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines no wider than `width` pixels, where its words allow it."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines
