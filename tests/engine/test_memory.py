"""What a cache may take."""

from pathlib import Path

import pytest
import torch

import tiny
from openjanus.engine import memory
from openjanus.models.cache import KeyValueCache

CPU = torch.device("cpu")


def test_half_of_what_is_available_within_the_limit_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 4000 kB\n", encoding="ascii")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.allowance(CPU) == 2000 * 1024, "what files of checkpoints occupy is available"
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("100000\n", encoding="ascii")
    assert memory.allowance(CPU) == 2000 * 1024
    (tmp_path / "memory.max").write_text("1100000\n", encoding="ascii")
    assert memory.allowance(CPU) == 500_000
    (tmp_path / "memory.max").write_text("50000\n", encoding="ascii")
    assert memory.allowance(CPU) == 0
    stat = "anon 20000\nfile 80000\ninactive_file 50000\nactive_file 30000\n"
    (tmp_path / "memory.stat").write_text(stat, encoding="ascii")
    assert memory.allowance(CPU) == 15_000, "a checkpoint that was read can be dropped from memory"


def test_where_the_system_does_not_say_what_is_free_it_is_half_of_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    assert memory.allowance(CPU) > 1 << 28


@pytest.mark.parametrize("entries", [1, 63, 64, 200])
def test_a_lane_takes_what_is_counted_for_it(entries: int):
    config = tiny.CONFIGS["janus"].language
    cache = KeyValueCache(config, 1, entries, CPU, torch.bfloat16)
    assert cache.keys.nbytes + cache.values.nbytes == memory.lane_bytes(config, torch.bfloat16, entries)
