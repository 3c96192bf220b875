"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """A PostgreSQL server, for whoever needs one."""
    if postgres.binaries() is None:
        pytest.skip(postgres.MISSING)
    with postgres.serving() as running:
        yield running


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """The command sets it for its own process, which in tests is that of all of them."""
    before = os.umask(0o022)
    yield
    os.umask(before)
