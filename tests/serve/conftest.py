"""Servers of the bundled models that live for a whole run."""

from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="serving needs openjanus[serve]")
pytest.importorskip("openai", reason="the tests ask with the official client")

from serve.live import BUNDLED, Live, running


@pytest.fixture(scope="session", params=BUNDLED)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """A server of each bundled model in turn."""
    with running((request.param,)) as server:
        yield server


@pytest.fixture(scope="session")
def janus_server() -> Iterator[Live]:
    """A server of one model, for what does not depend on the model."""
    with running() as server:
        yield server
