"""What a running study shows."""

from __future__ import annotations

import io

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
    with ProgressView(console, _progress(), "my-study"):
        pass
    return buffer.getvalue()


def test_a_terminal_shows_states_rungs_best_pace_and_time_left() -> None:
    shown = _shown(terminal=True)
    for part in (
        *("my-study", "10 of 24 ended", "2 running", "3 completed", "6 stopped", "1 failed"),
        *("epoch 2: 9", "epoch 6: 3", "0 of 12 runs", "95.00%", "trial 7"),
        *("trials a minute", "left"),
    ):
        assert part in shown


def test_without_a_terminal_there_are_plain_lines() -> None:
    shown = _shown(terminal=False)
    assert "\x1b" not in shown
    assert "trials 10/24 ended, 6 stopped early, 2 running, rungs 9 at 2 3 at 6, 1 failed" in shown
    assert "best 95.00% (trial 7)" in shown


def test_times_read_as_clocks_do() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
