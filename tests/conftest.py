"""Fixtures that run a test on both variants."""

import pytest
import torch

import tiny
from openjanus.janus import Janus


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests share two cores between workers; one thread each, and results that do not depend on the split."""
    torch.set_num_threads(1)


@pytest.fixture(params=tiny.VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """The name of each variant in turn."""
    name: str = request.param
    return name


@pytest.fixture
def janus(variant: str) -> Janus:
    """A small random model of each variant in turn."""
    return tiny.tiny_janus(variant)
