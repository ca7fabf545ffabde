"""Checkpoints that tests read, write and spoil."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.config import TokenGenerationConfig
from openjanus.models.janus import JanusModel

Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test here touches the network or a cache of the machine."""

    def refuse(*args: object, **settings: object) -> str:
        raise ConnectionError("tests run without a network")

    monkeypatch.setattr("openjanus.checkpoints.locate.snapshot_download", refuse)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes the tiny checkpoint of a variant into a folder of its own: save("janus", max_shard_size=...)."""

    def write(variant: str = "janus", name: str = "checkpoint", dtype: torch.dtype = torch.float32, **options: object) -> Path:
        folder = tmp_path / name
        save_checkpoint(tiny.tiny_model(variant, dtype), tiny.tiny_processor(variant), folder, **options)  # type: ignore[arg-type]
        return folder

    return write


@pytest.fixture
def saved(save: Save, variant: str) -> Path:
    """The tiny checkpoint of each variant in turn, saved."""
    return save(variant)


def convertible_model(dtype: torch.dtype = torch.float32) -> JanusModel:
    """A tiny Janus of sizes that transformers can hold, with nothing left at a default that would hide a lost tensor."""
    config = tiny.CONFIGS["janus"]
    assert isinstance(config.generation, TokenGenerationConfig)
    config = replace(config, generation=replace(config.generation, head_dim=config.language.hidden_size, grid=(4, 4)))
    torch.manual_seed(1)
    model = JanusModel(config).eval().requires_grad_(False)
    for tensor in model.state_dict().values():
        tensor.normal_()
    return model.to(dtype)


def assert_same_tensors(came: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Equal names, dtypes and bits."""
    assert came.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert came[name].dtype == tensor.dtype, name
        assert torch.equal(came[name], tensor), name
