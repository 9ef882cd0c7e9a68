"""The genuine client and the engine that records what it sends; without the client the tests are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.conformance.oracle import NoClient, Oracle, client


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    try:
        client()
    except NoClient as error:
        if os.environ.get("SWARMKIT_REQUIRE_E2E"):
            raise
        pytest.skip(f"there is no genuine docker client to compare with: {error}")
    with Oracle() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def _home() -> Iterator[None]:
    """Both sides have one home, which `~` stands for."""
    from tests.conformance.run import ENVIRONMENT

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", ENVIRONMENT["HOME"])
        yield
