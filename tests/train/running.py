"""Runs of the toy recipe, in this process and in others."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from openjanus.train.metrics import Line
from openjanus.train.overrides import override
from openjanus.train.parallel import World
from openjanus.train.recipe import Recipe
from openjanus.train.recipe_files import load_recipe
from openjanus.train.trainer import Result, train

HERE = Path(__file__).parent
TOY = HERE / "toy.py"
ALONE = World(0, 1, torch.device("cpu"))


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[Line] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, line: Line, steps: int) -> None:
        self.lines.append(line)


def toy(*assignments: str) -> Recipe:
    """The toy recipe with changes."""
    return override(load_recipe(str(TOY)), assignments)


def run(
    folder: Path,
    *assignments: str,
    recipe: Recipe | None = None,
    notes: Notes | None = None,
    workers: int = 0,
    background: bool = False,
) -> Result:
    """Train the toy, or another recipe, in this process."""
    return train(recipe or toy(*assignments), folder, ALONE, notes or Notes(), workers, background)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run, without what the clock says."""
    clock = ("samples_per_second", "tokens_per_second", "memory_mib")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a finished run exported."""
    tensors: dict[str, torch.Tensor] = torch.load(folder / "final" / "weights.pt", weights_only=True)
    return tensors


def start(
    folder: Path, assignments: Sequence[str], processes: int = 1, recipe: Path = TOY, restarts: int = 0
) -> "subprocess.Popen[str]":
    """The toy recipe, or another file's, in a process of its own, or in several by torchrun, which starts them again so often."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
    command += [str(HERE / "start.py"), str(recipe), *assignments, "-o", str(folder), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", folder: Path, lines: int) -> None:
    """Until a run in a process of its own has written so many lines."""
    path = folder / "metrics.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        if path.exists() and path.read_text(encoding="utf-8").count("\n") >= lines:
            return
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"{path} did not reach {lines} lines: {process.communicate()[1]}")
