"""What all tests share."""

from __future__ import annotations

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
