"""The figures of both bundled models, beside the aims, in every page that shows them.

    python benchmarks/cards.py                 # from the newest results of each model in benchmarks/results
    python benchmarks/cards.py --run           # measure both first: openjanus evaluate shapes, minutes a model
    python benchmarks/cards.py --run --model janus-tiny --machine "2 cores of an Intel Xeon with AMX"

Writes model cards, README.md and docs/evaluation.md, each between two comments, and nothing else of them; in a card without the
comments it takes the place of the table that begins with the command. With --run, samples are kept in runs/cards, one folder for
each state of the weights, so that after a kill the same command goes on; the results name the weights that they are of.
"""

import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("janus-tiny", "janusflow-tiny")
AIMS = {"painting": 0.85, "withheld": 0.70, "questions": 0.95}
BEGIN, END = "<!-- figures: written by benchmarks/cards.py -->", "<!-- end of figures -->"
# A table that benchmarks/cards.py has not written yet: the line with the command, and the rows below.
OLD_TABLE = re.compile(r"^`openjanus evaluate shapes --model [^\n]*\n\n(?:\|[^\n]*\n)+", flags=re.MULTILINE)


class PageError(Exception):
    """Something that people must mend before pages can be written."""


# -- measuring -----------------------------------------------------------------------------


def weights(name: str) -> str:
    """Sixteen hex digits of the hash of a bundled model's weights, its VAE included."""
    digest = hashlib.sha256()
    files = sorted((ROOT / "src" / "openjanus" / "assets" / name).rglob("*.safetensors"))
    if not files:
        raise PageError(f"there are no weights of {name} in src/openjanus/assets")
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def this_machine() -> str:
    """The processor in words, as far as it says; --machine knows better."""
    kind = torch.backends.cpu.get_cpu_capability()
    units = "with AMX" if torch.cpu._is_amx_tile_supported() else "without AMX"
    return f"CPU with {kind}, {units}, one thread, {os.cpu_count()} cores"  # one is what evaluation takes by default


def measure(name: str, machine: str, date: str) -> Path:
    """Run the benchmark on a bundled model and write its results; the file."""
    state = weights(name)
    folder = ROOT / "runs" / "cards" / f"{name}-{state}"
    arguments = ["evaluate", "shapes", "--model", name, "--json"]
    run = [sys.executable, "-m", "openjanus", *arguments, "-o", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    begun_before = folder.exists()
    done = subprocess.run(run, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise PageError(f"{' '.join(run)} ended with {done.returncode}; start again, and it goes on")
    model = json.loads((folder / "shapes" / "result.json").read_text(encoding="utf-8"))["model"]
    told = json.loads(done.stdout)
    if begun_before:
        del told["seconds"]  # they are of the rest alone
    typed = " ".join(["openjanus", *arguments])
    head = {"command": typed, "machine": f"{machine}, {model['dtype']}", "date": date, "weights": state}
    path = ROOT / "benchmarks" / "results" / f"{date}-shapes-{name}.json"
    path.write_text(json.dumps(head | told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def newest(name: str) -> dict[str, Any]:
    """The newest results of a model."""
    found = sorted((ROOT / "benchmarks" / "results").glob(f"*-shapes-{name}.json"))
    if not found:
        raise PageError(f"benchmarks/results has no *-shapes-{name}.json; measure with --run")
    return json.loads(found[-1].read_text(encoding="utf-8"))


# -- tables --------------------------------------------------------------------------------


def command(results: Mapping[str, Any]) -> str:
    """The command that gave results, as people type it."""
    return results["command"].removesuffix(" --json")


def row(name: str, score: Mapping[str, Any], aim: float | None = None) -> str:
    """A score, its interval and its aim."""
    return f"| {name} | {score['mean']:.3f} | {score['low']:.3f} to {score['high']:.3f} | {'' if aim is None else f'{aim:.2f}'} |"


def card_figures(results: Mapping[str, Any]) -> str:
    """Every score of a model, for its card."""
    withheld = results["withheld"]
    dtype = results["machine"].rsplit(", ", 1)[-1]
    rows = [
        row("painting, mean of the six tasks", results["overall"], AIMS["painting"]),
        *(row(name, score) for name, score in results["tasks"].items()),
        row("questions", results["questions"], AIMS["questions"]),
        *(row(name, score) for name, score in results["kinds"].items()),
        row("withheld pairs, prompts", withheld["prompts"], AIMS["withheld"]),
        row("withheld pairs, questions", withheld["questions"]),
    ]
    lead = f"`{command(results)}`, default settings, {dtype}, {results['date']}:"
    return "\n".join([lead, "", "| | score | 95 % interval | aim |", "|---|---|---|---|", *rows])


def summary(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """The three scores that have aims, of each model, for the README."""
    lines = ["| `openjanus evaluate shapes` | painting | painting withheld pairs | questions |", "|---|---|---|---|"]
    for name, results in measured.items():
        scores = (results["overall"], results["withheld"]["prompts"], results["questions"])
        cells = [f"{one['mean']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in scores]
        lines.append(f"| `--model {name}`, {results['date']} | {' | '.join(cells)} |")
    aims = [f"{AIMS[one]:.2f}" for one in ("painting", "withheld", "questions")]
    return "\n".join([*lines, f"| aim | {' | '.join(aims)} |"])


def page_figures(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """All scores of all models side by side, with machine and time, for the benchmark's page."""

    def rows_of(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
        return {
            "painting": results["overall"],
            **{f"painting: {name}" if name == "position" else name: score for name, score in results["tasks"].items()},
            "withheld pairs, painted": results["withheld"]["prompts"],
            "questions": results["questions"],
            **{f"questions: {name}" if name == "position" else name: score for name, score in results["kinds"].items()},
            "withheld pairs, asked about": results["withheld"]["questions"],
        }

    aims = {"painting": "painting", "withheld pairs, painted": "withheld", "questions": "questions"}
    scores = {name: rows_of(results) for name, results in measured.items()}
    lines = [f"| | aim | {' | '.join(measured)} |", "|---|---|" + "---|" * len(measured)]
    for title in next(iter(scores.values())):
        aim = f"{AIMS[aims[title]]:.2f}" if title in aims else ""
        cells = [f"{one[title]['mean']:.3f} ({one[title]['low']:.3f} to {one[title]['high']:.3f})" for one in scores.values()]
        lines.append(f"| {title} | {aim} | {' | '.join(cells)} |")
    for one in measured.values():
        seconds = f", {one['seconds']:.0f} s" if "seconds" in one else ""
        lines += ["", f"`{command(one)}`: {one['machine']}{seconds}, {one['date']}."]
    return "\n".join(lines)


# -- pages ---------------------------------------------------------------------------------


def placed(text: str, figures: str, where: str) -> str:
    """A page with these figures between its two comments; PageError if it has no place for them."""
    block = f"{BEGIN}\n\n{figures}\n\n{END}\n"
    if text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END):
        return text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :].removeprefix("\n")
    if BEGIN in text or END in text:
        raise PageError(f"{where} has one of the comments {BEGIN} and {END} without the other, or twice; mend it by hand")
    if old := OLD_TABLE.search(text):
        return text[: old.start()] + block + text[old.end() :]
    raise PageError(f"{where} has no place for the figures; write these two lines where they belong: {BEGIN} and {END}")


def pages() -> dict[Path, str]:
    """Every page that shows figures, as it should read."""
    measured = {name: newest(name) for name in MODELS}
    figures = {f"src/openjanus/assets/{name}/README.md": card_figures(measured[name]) for name in MODELS}
    figures |= {"README.md": summary(measured), "docs/evaluation.md": page_figures(measured)}
    return {ROOT / where: placed((ROOT / where).read_text(encoding="utf-8"), new, where) for where, new in figures.items()}


def main() -> None:
    """Measure if asked to, and write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="measure first")
    parser.add_argument("--model", choices=MODELS, action="append", help="what to measure; else both")
    parser.add_argument("--machine", default=None, help="this machine in words")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    asked = parser.parse_args()
    for name in (asked.model or MODELS) if asked.run else ():
        print(measure(name, asked.machine or this_machine(), asked.date).relative_to(ROOT))
    for name in MODELS:
        if newest(name).get("weights") not in (None, weights(name)):
            print(f"the results of {name} are of other weights than the bundled ones; measure them with --run", file=sys.stderr)
    for path, text in pages().items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    try:
        main()
    except PageError as error:
        sys.exit(str(error))
