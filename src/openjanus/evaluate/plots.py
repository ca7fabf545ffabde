"""Plots of scores as SVG, so that a page needs nothing else: a dot and its interval, with the papers' numbers beside it."""

from collections.abc import Mapping, Sequence
from html import escape

from openjanus.evaluate.scoring import Score, shown

ROW, LABEL, WIDTH, RIGHT = 26, 210, 420, 110  # pixels
COARSEST = 6  # times the smallest number that shares a plot
_MARKS = ("#1e88e5", "#43a047", "#fb8c00", "#8e24aa", "#6d4c41", "#546e7a", "#c0ca33")
INK, GRID = "#212121", "#e0e0e0"


def plots(scores: Sequence[Score], published: Sequence[Mapping[str, float]]) -> str:
    """As few plots as show every score on a scale that suits it: a sum of 2,000 would hide tasks of 200 each."""
    rows = sorted(zip(scores, published, strict=True), key=lambda row: -_most(*row))
    drawn = []
    while rows:
        scale = _most(*rows[0]) / COARSEST
        shown_here = [row for row in rows if _most(*row) > scale or not _most(*row)]
        rows = [row for row in rows if row not in shown_here]
        # In the order of the table.
        shown_here.sort(key=lambda row: scores.index(row[0]))
        drawn.append(plot([score for score, _ in shown_here], [numbers for _, numbers in shown_here]))
    return "<br>".join(drawn)


def _most(score: Score, numbers: Mapping[str, float]) -> float:
    """The largest number that a row shows."""
    return max([score.high or score.value, *numbers.values()])


def plot(scores: Sequence[Score], published: Sequence[Mapping[str, float]]) -> str:
    """One row a score, all on one scale from 0: ours in black with its interval, the papers' as coloured ticks with a key."""
    most = max(_most(score, numbers) for score, numbers in zip(scores, published, strict=True))
    most = most or 1.0
    models = list(dict.fromkeys(model for numbers in published for model in numbers))[: len(_MARKS)]
    height = ROW * (len(scores) + 1) + (ROW if models else 0)
    parts = [
        f'<svg role="img" viewBox="0 0 {LABEL + WIDTH + RIGHT} {height}" width="{LABEL + WIDTH + RIGHT}" height="{height}">',
        "<style>text { font: 12px system-ui, sans-serif; fill: #212121 }</style>",
    ]

    def x(value: float) -> float:
        return round(LABEL + WIDTH * min(max(value / most, 0), 1), 1)

    for quarter in range(5):
        at = LABEL + WIDTH * quarter / 4
        parts.append(f'<line x1="{at}" y1="4" x2="{at}" y2="{ROW * len(scores)}" stroke="{GRID}"/>')
        parts.append(f'<text x="{at}" y="{ROW * len(scores) + 16}" text-anchor="middle">{shown(most * quarter / 4)}</text>')
    for row, (score, numbers) in enumerate(zip(scores, published, strict=True)):
        y = ROW * row + ROW / 2
        parts.append(f'<text x="{LABEL - 8}" y="{y + 4}" text-anchor="end">{escape(score.name[:34])}</text>')
        for place, model in enumerate(models):
            if model in numbers:
                at = x(numbers[model])
                parts.append(
                    f'<line x1="{at}" y1="{y - 8}" x2="{at}" y2="{y + 8}" stroke="{_MARKS[place]}" stroke-width="3">'
                    f"<title>{escape(model)}: {numbers[model]}</title></line>"
                )
        if score.low is not None and score.high is not None:
            parts.append(f'<line x1="{x(score.low)}" y1="{y}" x2="{x(score.high)}" y2="{y}" stroke="{INK}" stroke-width="2"/>')
        parts.append(f'<circle cx="{x(score.value)}" cy="{y}" r="4" fill="{INK}"><title>{shown(score.value)}</title></circle>')
        parts.append(f'<text x="{LABEL + WIDTH + 8}" y="{y + 4}">{shown(score.value)}</text>')
    for place, model in enumerate(models):
        at = 8 + place * (LABEL + WIDTH) / max(len(models), 1)
        y = ROW * (len(scores) + 1) + ROW / 2
        parts.append(f'<rect x="{at}" y="{y - 6}" width="4" height="12" fill="{_MARKS[place]}"/>')
        parts.append(f'<text x="{at + 8}" y="{y + 4}">{escape(model)}</text>')
    return "".join([*parts, "</svg>"])
