"""What a running study shows: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.director import Progress
from search.records import State
from search.selection import percent

LINE_SECONDS = 5.0
HEARTBEAT_SECONDS = 60.0


class ProgressView:
    """Shows a study's progress while it is entered as a context."""

    def __init__(self, console: Console, progress: Progress, study: str) -> None:
        """Prepares to show `progress`, which another thread keeps changing."""
        self._console, self._progress, self._study = console, progress, study
        self._began = time.monotonic()
        self._before = self._done()
        self._stop = threading.Event()
        self._live: Live | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ProgressView:
        """Starts to show."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._table, refresh_per_second=2
            )
            self._live.start()
        else:
            self._thread = threading.Thread(target=self._lines, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shows the last state and stops."""
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        if self._thread is not None:
            self._thread.join()

    def _lines(self) -> None:
        last, last_shown = "", -HEARTBEAT_SECONDS
        while True:
            ending = self._stop.wait(LINE_SECONDS)
            line, elapsed = self._line(), time.monotonic() - self._began
            if line != last or elapsed - last_shown >= HEARTBEAT_SECONDS:
                self._console.print(
                    f"[{self._pace()}] {line}", markup=False, highlight=False, soft_wrap=True
                )
                last, last_shown = line, elapsed
            if ending:
                return

    def _line(self) -> str:
        progress = self._progress
        ended = dict(progress.search_ended)
        parts = [
            progress.phase,
            f"trials {sum(ended.values())}/{progress.search_total} ended",
            f"{ended.get(State.STOPPED, 0)} stopped early",
            f"{progress.running} running",
        ]
        if progress.rungs:
            rungs = [f"{count} at {epoch}" for epoch, count in list(progress.rungs.items())]
            parts.append(f"rungs {' '.join(rungs)}")
        if ended.get(State.FAILED):
            parts.append(f"{ended[State.FAILED]} failed")
        if progress.confirm_total:
            parts.append(f"confirmed {progress.confirm_ended}/{progress.confirm_total}")
        if progress.best is not None:
            parts.append(f"best {percent(progress.best)} (trial {progress.best_trial})")
        return ", ".join(parts)

    def _table(self) -> Group:
        progress = self._progress
        ended = dict(progress.search_ended)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column()
        table.add_row("phase", progress.phase)
        states = [f"{progress.running} running"] + [
            f"{ended.get(state, 0)} {state.value}"
            for state in (State.COMPLETED, State.STOPPED, State.FAILED)
        ]
        table.add_row("trials", f"{sum(ended.values())} of {progress.search_total} ended")
        table.add_row("states", ", ".join(states))
        if progress.rungs:
            rungs = ", ".join(f"epoch {epoch}: {n}" for epoch, n in list(progress.rungs.items()))
            table.add_row("reached rung", rungs)
        if progress.confirm_total:
            table.add_row("confirmed", f"{progress.confirm_ended} of {progress.confirm_total} runs")
        if progress.best is not None:
            best = f"{percent(progress.best)} validation accuracy, trial {progress.best_trial}"
            table.add_row("best so far", best)
        table.add_row("time", self._pace())
        return Group(Text(self._study, style="bold"), table)

    def _pace(self) -> str:
        progress = self._progress
        elapsed = time.monotonic() - self._began
        left = progress.search_total + progress.confirm_total - self._done()
        done = self._done() - self._before
        if done <= 0 or not elapsed or left <= 0:
            return clock(elapsed)
        rate = done / elapsed
        return f"{clock(elapsed)}, {60 * rate:.1f} trials a minute, about {clock(left / rate)} left"

    def _done(self) -> int:
        progress = self._progress
        return sum(dict(progress.search_ended).values()) + progress.confirm_ended


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
