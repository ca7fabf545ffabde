"""How many threads a CPU works with."""

from pathlib import Path

import pytest
import torch

from openjanus.bench.models import random_janus
from openjanus.engine import threads
from openjanus.environment import THREADS
from openjanus.janus import load

CPU = torch.device("cpu")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine of 16 processors, all allowed, whose control groups are in a folder; torch has taken 16 threads."""
    monkeypatch.setattr(threads, "CONTROL", tmp_path)
    monkeypatch.setattr(threads, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    taken = [16]
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken[-1])
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    (tmp_path / "membership").write_text("0::/\n", encoding="utf-8")
    return tmp_path


def settled() -> int:
    threads.settle_threads(CPU)
    return torch.get_num_threads()


def test_without_a_limit_all_threads_stay(machine: Path):
    assert settled() == 16
    (machine / "cpu.max").write_text("max 100000\n", encoding="ascii")
    assert settled() == 16
    (machine / "membership").unlink()
    assert settled() == 16


@pytest.mark.parametrize(
    ("quota", "count"), [("400000 100000", 4), ("150000 100000", 2), ("5000 100000", 1), ("3200000 100000", 16)]
)
def test_a_quota_of_time_bounds_them(machine: Path, quota: str, count: int):
    (machine / "cpu.max").write_text(quota + "\n", encoding="ascii")
    assert settled() == count


def test_the_quota_of_any_group_around_counts(machine: Path):
    (machine / "membership").write_text("0::/system/service/worker\n", encoding="utf-8")
    (machine / "system/service/worker").mkdir(parents=True)
    (machine / "system/service/worker/cpu.max").write_text("max 100000\n", encoding="ascii")
    (machine / "system/cpu.max").write_text("300000 100000\n", encoding="ascii")
    assert settled() == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_older_control_groups_count_too(machine: Path, folder: str):
    (machine / "membership").write_text("4:memory:/a\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n", encoding="utf-8")
    # In the container its group is the root.
    (machine / folder).mkdir()
    (machine / folder / "cpu.cfs_quota_us").write_text("-1\n", encoding="ascii")
    (machine / folder / "cpu.cfs_period_us").write_text("100000\n", encoding="ascii")
    assert settled() == 16
    (machine / folder / "cpu.cfs_quota_us").write_text("200000\n", encoding="ascii")
    assert settled() == 2


def test_processors_that_are_not_allowed_do_not_count(machine: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 4, 9}, raising=False)
    assert settled() == 3


def test_what_somebody_chose_stands(machine: Path, monkeypatch: pytest.MonkeyPatch):
    (machine / "cpu.max").write_text("400000 100000\n", encoding="ascii")
    torch.set_num_threads(2)
    assert settled() == 2, "fewer were asked for"
    torch.set_num_threads(8)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert settled() == 8


def test_it_is_done_where_a_model_is_put_on_a_cpu(machine: Path, monkeypatch: pytest.MonkeyPatch):
    (machine / "cpu.max").write_text("400000 100000\n", encoding="ascii")
    load("janus-tiny", "cpu")
    assert torch.get_num_threads() == 4
    torch.set_num_threads(16)
    monkeypatch.setattr("openjanus.bench.models.fill", lambda *_: None)
    random_janus("janus-pro-1b", CPU, torch.bfloat16)
    assert torch.get_num_threads() == 4
    torch.set_num_threads(16)
    threads.settle_threads(torch.device("cuda"))
    assert torch.get_num_threads() == 16
