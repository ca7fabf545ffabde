"""From the words people use to devices and number formats."""

import pytest
import torch

from openjanus.device import pick_device, pick_dtype
from openjanus.errors import ConfigError


@pytest.mark.parametrize(
    ("cuda", "mps", "picked"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, False, "cuda")]
)
def test_auto_picks_cuda_then_mps_then_cpu(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, picked: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto") == torch.device(picked)


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="2 GPUs"):
        pick_device("cuda:2")
    with pytest.raises(ConfigError, match="unknown device"):
        pick_device("cuda:x")


def test_dtypes_go_by_their_usual_names():
    assert pick_dtype("bf16") == pick_dtype("bfloat16") == pick_dtype(torch.bfloat16) == torch.bfloat16
    assert pick_dtype(None) is None
    assert pick_dtype("auto") is None
    with pytest.raises(ConfigError, match="float64"):
        pick_dtype(torch.float64)
