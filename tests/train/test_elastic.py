"""A node that leaves an elastic run of torchrun for good: those that are left go on without it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .running import HERE, curve, start

# As the toy, but the second node dies in the middle of its seventh step: agent and worker, as when its power is cut.
LEAVING = f"""
import os
import signal
import sys

sys.path.insert(0, {str(HERE.parent)!r})
from train.toy import RECIPE, Toy

losses = Toy.losses


def leave(self, content):
    if os.environ.get("NODE") == "second" and self.module.seen == 6:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return losses(self, content)


Toy.losses = leave
"""


def node(name: str, port: int, recipe: Path, folder: Path) -> "subprocess.Popen[str]":
    """One node of a run of one or two, a process on each."""
    # What they meet by is the first one's.
    settings = f"is_host={int(name == 'first')},last_call_timeout=5"
    rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=run", f"--rdzv-conf={settings}"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
    command += [*rendezvous, str(HERE / "start.py"), str(recipe), "-o", str(folder), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src"), "NODE": name}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.multiproc
@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(1200)
def test_a_run_goes_on_without_a_node_that_has_left(tmp_path: Path):
    recipe = tmp_path / "leaving.py"
    recipe.write_text(LEAVING, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    first = node("first", port, recipe, tmp_path / "run")
    second = node("second", port, recipe, tmp_path / "run")
    try:
        _, told = first.communicate(timeout=900)
        second.communicate(timeout=60)
    finally:
        for process in (first, second):
            process.kill()
    assert first.returncode == 0, told
    assert second.returncode == -9
    assert "going on from step 4, in stage adapt" in told, told
    straight = start(tmp_path / "straight", [])
    _, told = straight.communicate(timeout=900)
    assert straight.returncode == 0, told
    lines, wanted = curve(tmp_path / "run"), curve(tmp_path / "straight")
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in wanted], rel=1e-4)
