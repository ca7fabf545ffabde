"""Losses of runs over samples, as a picture.

    pip install matplotlib
    python benchmarks/curves.py runs/ablation_decoupled runs/ablation_shared runs/ablation_single --out docs/pictures/ablation.svg

One plot a loss, one line a run, each point the mean of `--mean` steps. Reads the metrics.jsonl of each run's folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def steps_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; of a step that was done twice, after a kill, the last."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return list({line["step"]: line for line in lines}.values())


def curve(steps: Sequence[dict[str, Any]], loss: str, mean: int) -> tuple[list[float], list[float]]:
    """Samples seen at the end of every `mean` steps, and the mean of a loss over those of them that have it."""
    samples, values = [], []
    for first in range(0, len(steps), mean):
        among = [step for step in steps[first : first + mean] if loss in step["losses"]]
        if among:
            samples.append(among[-1]["samples"])
            values.append(float(np.mean([step["losses"][loss] for step in among])))
    return samples, values


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--loss", nargs="+", default=["text", "image"], help="which losses (default: text image)")
    parser.add_argument("--mean", type=int, default=50, help="steps of a point (default: 50)")
    parser.add_argument("--out", type=Path, required=True, help="an .svg or .png")
    chosen = parser.parse_args()
    missing = [str(run) for run in chosen.runs if not (run / "metrics.jsonl").is_file()]
    if missing:
        parser.error(f"{', '.join(missing)} has no metrics.jsonl; give the folder of a run of openjanus train")

    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "openjanus"  # the same picture is the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(chosen.loss), figsize=(4.5 * len(chosen.loss), 3.2), squeeze=False, layout="constrained")
    for axis, loss in zip(axes[0], chosen.loss, strict=True):
        for run in chosen.runs:
            axis.plot(*curve(steps_of(run), loss, chosen.mean), label=run.name)
        axis.set(title=loss, xlabel="samples", yscale="log")
        axis.grid(alpha=0.3)
    axes[0][0].legend(frameon=False)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    # Without a date it says nothing of when it was drawn, and does not change when it is drawn again.
    figure.savefig(chosen.out, metadata={"Date": None} if chosen.out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
