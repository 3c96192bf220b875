"""MLflow that fails, and processes that die while they tell it: nothing is lost or told twice."""

from __future__ import annotations

import http.client
import http.server
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.commits import COMMITS
from tests.faults.servers import KINDS, Proxy
from tests.faults.tracking import TRACKING, Stretch, slowed
from tests.running import serving

SEED = 1
WRITES = {
    "sync-killed": 21,
    "verdict-killed": 8,
    "take-up-killed": 21,
    "promote-killed": 11,
    "rollback-killed": 12,
}
"""So many there are at least."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", TRACKING)
def test_nothing_is_lost_or_told_twice_when_mlflow_fails(fault: str, tmp_path: Path) -> None:
    for outcome in TRACKING[fault](tmp_path, 1, SEED):
        print(outcome)
        assert outcome.losses == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", COMMITS)
def test_whoever_is_killed_between_two_writes_is_finished_by_the_next(
    fault: str, tmp_path: Path
) -> None:
    outcomes = list(COMMITS[fault](tmp_path, 1000, SEED))
    assert len(outcomes) >= WRITES[fault]
    assert [loss for outcome in outcomes for loss in outcome.losses] == []


def stretches(driver_seconds: float = 6.0) -> list[Stretch]:
    """A minute each; in the second one the driver takes so much CPU, else 6 s."""
    return [Stretch(0, 60, 6.0), Stretch(60, 120, driver_seconds), Stretch(120, 180, 6.0)]


def epochs(seconds: float, pause: float) -> list[tuple[float, float]]:
    """Of one process: a second each and a tenth between them, other ones in the second minute."""
    found, at = [], 0.0
    while at < 180:
        took, waited = (seconds, pause) if 60 <= at < 120 else (1.0, 0.1)
        at += took
        found.append((at, took))
        at += waited
    return found


def test_a_machine_that_is_slower_during_an_outage_is_no_loss() -> None:
    assert list(slowed(*stretches(), epochs(2.0, 0.2))) == []


def test_trials_that_wait_for_mlflow_are_a_loss() -> None:
    [loss] = slowed(*stretches(), epochs(1.0, 0.2))
    assert loss == "processes trained 0.92 of the usual time during the outage"


def test_a_driver_that_is_busy_with_an_outage_is_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    [loss] = slowed(*stretches(driver_seconds=13.0), epochs(1.0, 0.1))
    assert loss == "the driver took 0.12 CPUs more than usual during the outage"


class _Counting(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[bytes]

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "8")
        self.end_headers()
        self.wfile.write(b"answered")


@pytest.fixture
def seen() -> Iterator[tuple[int, list[bytes]]]:
    class Handler(_Counting):
        seen: list[bytes] = []  # noqa: RUF012 - of this test

    with serving(Handler) as port:
        yield port, Handler.seen


def _post(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
    try:
        connection.request("POST", "/", b"asked")
        answer = connection.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_disturbs_as_it_says(
    kind: str, seen: tuple[int, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, bodies = seen
    proxy = Proxy(port, 1.0, SEED, 0.8)
    monkeypatch.setattr(proxy._random, "choice", lambda _: kind)
    with proxy.serving() as uri:
        said = _post(int(uri.rpartition(":")[2]))
        if kind == "late":
            assert bodies == []
    assert said == "500 disturbed" if kind.startswith("500") else said not in ("", "200 answered")
    carried_out = kind in ("500 after", "cut after", "half", "hang after", "late")
    deadline = time.monotonic() + 10
    while carried_out and not bodies and time.monotonic() < deadline:
        time.sleep(0.01)  # What is late is carried out by a thread of its own.
    assert bodies == [b"asked"] * carried_out


def test_a_proxy_lets_the_rest_through(seen: tuple[int, list[bytes]]) -> None:
    port, bodies = seen
    with Proxy(port, 0.0, SEED, 1.0).serving() as uri:
        assert _post(int(uri.rpartition(":")[2])) == "200 answered"
    assert bodies == [b"asked"]
