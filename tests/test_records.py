"""What every module may say to people."""

from __future__ import annotations

import pytest

from search.records import one_line


def test_an_exception_becomes_one_short_line() -> None:
    assert one_line(ValueError("two\n  lines")) == "ValueError: two lines"
    assert len(one_line(ValueError("x" * 1000))) < 330


@pytest.mark.parametrize(
    "secret", ["secret", "se:cret", "se@cret", "se/cret", "s%40cret", "se]cret"]
)
@pytest.mark.parametrize("before", ["http://me", "postgresql+psycopg2://me", "https://"])
def test_a_password_is_masked_wherever_an_address_is(before: str, secret: str) -> None:
    said = one_line(OSError(f"Retries exceeded ('{before}:{secret}@host:5000/api?a=b'); {before}"))
    assert said == f"OSError: Retries exceeded ('{before}:***@host:5000/api?a=b'); {before}"


def test_a_password_that_is_cut_off_is_masked_all_the_same() -> None:
    said = one_line(OSError("x" * 285 + " http://me:secret@host"))
    assert "sec" not in said


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/api/models:/name@champion",
        "http://host:5000 and me@host",
        "models:/name@champion",
        "http://me@host:5000/x",
        "sqlite:///runs/mlflow.db",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert one_line(OSError(text)) == f"OSError: {text}"
