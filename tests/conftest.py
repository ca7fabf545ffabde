"""Fixtures that run a test on both variants."""

import signal
from pathlib import Path

import pytest
import torch

import tiny
from openjanus.checkpoints.save import save_checkpoint
from openjanus.janus import Janus


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share two cores between workers; one thread each, and results that do not depend on the split."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that runs the tests in the background has them ignore Ctrl-C, and all processes that they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=tiny.VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """The name of each variant in turn."""
    name: str = request.param
    return name


@pytest.fixture
def janus(variant: str) -> Janus:
    """A small random model of each variant in turn."""
    return tiny.tiny_janus(variant)


@pytest.fixture(scope="session", params=tiny.VARIANTS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small random checkpoint of each variant in turn, in the published layout. Copy it before changing it."""
    variant: str = request.param
    folder = tmp_path_factory.mktemp("checkpoints") / variant
    save_checkpoint(tiny.tiny_model(variant), tiny.tiny_processor(variant), folder)
    return folder
