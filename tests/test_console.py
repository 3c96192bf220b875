"""What a running study shows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from search.console import ProgressView, clock
from search.director import Progress
from search.records import State


def _progress() -> Progress:
    progress = Progress(24, 12, phase="search", running=2, rungs={2: 9, 6: 3})
    progress.search_ended = {State.COMPLETED: 3, State.STOPPED: 6, State.FAILED: 1}
    progress.see(4, 0.9)
    progress.see(7, 0.95)
    progress.see(8, 0.95)
    return progress


def _shown(terminal: bool) -> str:
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=100)
    progress = _progress()
    with ProgressView(console, progress, "my-study"):
        progress.search_ended[State.COMPLETED] = 4
    return buffer.getvalue()


def test_a_terminal_shows_states_rungs_best_pace_and_time_left() -> None:
    shown = _shown(terminal=True)
    for part in (
        *("my-study", "11 of 24 ended", "2 running", "4 completed", "6 stopped", "1 failed"),
        *("epoch 2: 9", "epoch 6: 3", "0 of 12 runs", "95.00%", "trial 7"),
        *("trials a minute", "left"),
    ):
        assert part in shown


def test_without_a_terminal_there_are_plain_lines() -> None:
    shown = _shown(terminal=False)
    assert "\x1b" not in shown
    assert "trials 11/24 ended, 6 stopped early, 2 running, rungs 9 at 2 3 at 6, 1 failed" in shown
    assert "best 95.00% (trial 7)" in shown


def test_the_pace_is_that_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier one did took none of its time."""
    seconds = iter([0.0, 60.0, 120.0])
    monkeypatch.setattr("search.console.time.monotonic", lambda: next(seconds))
    progress = _progress()
    view = ProgressView(Console(file=io.StringIO()), progress, "my-study")
    assert view._pace() == "1:00"
    progress.search_ended[State.COMPLETED] += 4
    assert view._pace() == "2:00, 2.0 trials a minute, about 11:00 left"


def test_times_read_as_clocks_do() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
