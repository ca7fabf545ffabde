"""The report of a run's folder: report.json for machines, report.html for people, one file that opens offline."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from openjanus.evaluate.files.finding import read_json
from openjanus.evaluate.plots import plots
from openjanus.evaluate.published import published
from openjanus.evaluate.scoring import Score, shown
from openjanus.files import replace_file, write_json

LISTED = 50  # skipped samples that the page lists; report.json has all
_STYLE = """
body { font-family: system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #212121; background: #fff }
h2 { margin-top: 2.5em; border-bottom: 1px solid #bdbdbd }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #eee }
th:first-child, td:first-child { text-align: left }
.warning { background: #fff8e1; padding: .5em .8em; margin: .4em 0 }
.samples { display: flex; flex-wrap: wrap; gap: .8em }
.sample { width: 17em; border: 1px solid #ddd; border-left: 5px solid #c62828; padding: .5em; font-size: .85em }
.sample p { overflow-wrap: anywhere }
.sample.right { border-left-color: #2e7d32 }
.sample img { max-width: 100%; image-rendering: pixelated }
.sample p { margin: .3em 0; white-space: pre-wrap }
details { margin: 1em 0 }
pre { background: #f5f5f5; padding: .8em; overflow-x: auto }
"""


def results(folder: Path) -> list[dict[str, Any]]:
    """What result.json says in each benchmark's folder, in order of name."""
    return [read_json(path) for path in sorted(folder.glob("*/result.json"))]


def write_report(folder: Path) -> None:
    """Write report.json and report.html of every benchmark that the folder holds."""
    told = []
    for result in results(folder):
        scores = [{**score, "published": published(result["benchmark"], score["name"])} for score in result["scores"]]
        told.append({**result, "scores": scores})
    write_json(folder / "report.json", {"benchmarks": told})
    examples = {result["benchmark"]: _examples(folder / result["benchmark"]) for result in told}
    replace_file(folder / "report.html", page(told, examples, folder.resolve().name).encode())


def table(result: Mapping[str, Any]) -> str:
    """The scores of a benchmark as a table for terminals."""
    model, settings = result["model"], result["settings"]
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if value not in (None, ""))
    lines = [f"{result['benchmark']} of {model['name']} ({said})"]
    for score in map(_score, result["scores"]):
        papers = published(result["benchmark"], score.name)
        beside = "".join(f"  {name} {number}" for name, number in papers.items() if "Janus" in name)
        lines.append(f"  {score.name:<26}{score}{f'  | papers:{beside}' if beside else ''}")
    if not result["scores"]:
        lines.append("  no score")
    for count, what in ((len(result["skipped"]), "skipped"), (len(result["empty"]), "empty answers, which count as wrong")):
        if count:
            lines.append(f"  {count} of {result['samples']} samples {what}")
    if result["skipped"]:
        first = result["skipped"][0]
        lines.append(f"  first skipped: {first['case']}: {first['why']}")
    return "\n".join([*lines, *(f"  note: {warning}" for warning in result["warnings"])])


def page(results: Sequence[Mapping[str, Any]], examples: Mapping[str, Mapping[str, Any]], title: str) -> str:
    """The whole page. Everything that comes from models and data is escaped; pictures are data: URLs."""
    body = "".join(_section(result, examples[result["benchmark"]]) for result in results)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>Evaluation: {escape(title)}</h1>\n{body}</body></html>\n"
    )


def _section(result: Mapping[str, Any], examples: Mapping[str, Any]) -> str:
    scores = [_score(one) for one in result["scores"]]
    papers = [one["published"] for one in result["scores"]]
    model = result["model"]
    weights = f"fingerprint <code>{escape(model['fingerprint'])}</code>, {model['parameters']:,} parameters"
    parts = [
        f"<h2>{escape(result['title'])}</h2>\n<p>Model <b>{escape(model['name'])}</b>, {weights}, "
        f"{model['dtype']} on {escape(model['device'])}. Protocol {escape(result['protocol'])}. "
        f"{result['counted']} of {result['samples']} samples count.</p>\n",
        *(f'<p class="warning">{escape(warning)}</p>\n' for warning in result["warnings"]),
    ]
    if scores:
        parts += [plots(scores, papers), _scores(scores, papers)]
    else:
        parts.append('<p class="warning">There is no score: no sample counts.</p>')
    if result["empty"]:
        parts.append(f'<p class="warning">{len(result["empty"])} answers are empty and count as wrong.</p>\n')
    if result["skipped"]:
        parts.append(_skipped(result["skipped"]))
    parts.append(_details("Settings", result))
    for name, heading in (("worst", "Worst samples"), ("random", "Samples by chance")):
        if examples.get(name):
            parts.append(f'<h3>{heading}</h3>\n<div class="samples">{"".join(map(_sample, examples[name]))}</div>\n')
    return "".join(parts)


def _scores(scores: Sequence[Score], papers: Sequence[Mapping[str, float]]) -> str:
    models = list(dict.fromkeys(model for numbers in papers for model in numbers))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("score", "value", "95 % interval", "samples", "groups", *models))
    rows = []
    for score, numbers in zip(scores, papers, strict=True):
        between = "" if score.low is None or score.high is None else f"{shown(score.low)} to {shown(score.high)}"
        cells = [score.name, shown(score.value), between, str(score.count), str(score.groups)]
        cells += [str(numbers.get(model, "")) for model in models]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>\n"


def _skipped(skipped: Sequence[Mapping[str, Any]]) -> str:
    items = "".join(f"<li>{escape(str(one['case']))}: {escape(one['why'])}</li>" for one in skipped[:LISTED])
    more = f"<p>and {len(skipped) - LISTED} more, in report.json</p>" if len(skipped) > LISTED else ""
    head = f"<summary>{len(skipped)} samples were skipped and count for no score</summary>"
    return f"<details open>{head}<ul>{items}</ul>{more}</details>\n"


def _details(title: str, result: Mapping[str, Any]) -> str:
    told = {name: result[name] for name in ("settings", "protocol", "model", "judges", "data", "versions")}
    return f"<details><summary>{title}</summary><pre>{escape(json.dumps(told, indent=1, ensure_ascii=False))}</pre></details>\n"


def _sample(one: Mapping[str, Any]) -> str:
    images = "".join(f'<img src="{escape(url)}" alt="">' for url in one["images"])
    lines = [("", one["asked"]), ("answer: ", one["answer"]), ("read as: ", one["read"])]
    lines += [("expected: ", one["expected"]), ("wrong: ", one["wrong"])]
    told = "".join(f"<p>{label}{escape(text)}</p>" for label, text in lines if text)
    where = f"{one['task']} · {one['case']}" + (f" · seed {one['seed']}" if one["seed"] is not None else "")
    return f'<div class="sample{" right" * (one["value"] >= 1)}">{images}{told}<p><small>{escape(where)}</small></p></div>'


def _score(told: Mapping[str, Any]) -> Score:
    return Score(**{name: told[name] for name in ("name", "value", "low", "high", "count", "groups", "higher")})


def _examples(folder: Path) -> Mapping[str, Any]:
    path = folder / "examples.json"
    return read_json(path) if path.is_file() else {}
