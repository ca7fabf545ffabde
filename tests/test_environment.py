"""What the environment says: which of several processes this is."""

import pytest
import torch

from openjanus.environment import Share, attempt
from openjanus.errors import ConfigError


def test_the_launchers_words_are_read_and_checked(monkeypatch: pytest.MonkeyPatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Share.launched() == Share(0, 1, 0) and Share.launched().leads
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert Share.launched() == Share(3, 4, 0) and not Share.launched().leads
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ConfigError, match="RANK=4 of WORLD_SIZE=4"):
        Share.launched()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ConfigError, match="RANK='first'"):
        Share.launched()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(Share(rank, 2, rank).device("auto")) for rank in range(2)] == ["cuda:0", "cuda:1"]
    assert str(Share(1, 4, 1).device("cpu")) == "cpu" and str(Share().device("auto")) == "cuda"
    assert str(Share(1, 2, 1).device("cuda:0")) == "cuda:0"


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="cuda:2 was asked for, but there are 2 GPUs"):
        Share(2, 4, 2).device("auto")


def test_starts_are_told_apart_where_one_machine_counts_them(monkeypatch: pytest.MonkeyPatch):
    for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    assert attempt() == ""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert attempt() == "2"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    assert attempt() == ""
