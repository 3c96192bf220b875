"""How long a study may take: its search ends in time for confirmation and verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search.records import Assignment, EpochReport, State, TrialRecord, TrialTotals
from search.settings import StudySettings

CLOSING_SECONDS = 10.0
"""Kept back for latency, the test split and what is drawn of the model."""


class Budget:
    """Counts the seconds of a study, and tells when only as many are left as its end needs.

    Its seconds are those of this process, and before `restore` those of its trials, shared among
    the workers.
    """

    def __init__(
        self, settings: StudySettings, concurrent: int, clock: Callable[[], float]
    ) -> None:
        """Begins to count.

        Args:
            settings: `time_budget`, in seconds; None: no limit.
            concurrent: how many trials run at once, >= 1.
            clock: seconds that only grow, from anywhere.
        """
        self._seconds, self._trials = settings.time_budget, settings.trials
        self._concurrent, self._clock = concurrent, clock
        self._began, self._before = clock(), 0.0
        self._reserve = 0.0
        self._latest: dict[int, EpochReport] = {}
        self._cut_at: float | None = None

    def restore(self, trial: TrialRecord, epochs: Sequence[EpochReport]) -> None:
        """Counts what a trial took in earlier processes."""
        seconds = sum(item.epoch_seconds for item in epochs)
        if trial.totals is not None:
            seconds = max(seconds, trial.totals.wall_seconds)
        self._before += seconds / self._concurrent
        self.note(trial.number, epochs)

    def note(self, number: int, epochs: Sequence[EpochReport]) -> None:
        """Takes note of how far a trial is, and of its pace."""
        if epochs:
            self._latest[number] = epochs[-1]

    # What the end of the study needs

    @property
    def is_limited(self) -> bool:
        """Whether there is a budget at all."""
        return self._seconds is not None

    def whole_run(self, job: Assignment, state: State, totals: TrialTotals | None) -> float:
        """About how many seconds one network of this trial takes to its last epoch.

        What it took so far, and unless it completed the epochs that are missing, at the pace of
        the last one.
        """
        seconds, latest = totals.wall_seconds if totals else 0.0, self._latest.get(job.number)
        if latest is not None and state is not State.COMPLETED:
            seconds += (job.max_epochs - latest.epoch) * latest.epoch_seconds
        return seconds / max(1, job.folds)

    def keep_back(self, runs: Sequence[float], left: int) -> None:
        """Keeps back what confirmation and verdict need; nothing while nothing is known.

        Args:
            runs: seconds of whole runs like those to come.
            left: how many runs are to come.
        """
        if runs:
            self._reserve = statistics.fmean(runs) * left / self._concurrent + CLOSING_SECONDS
        else:
            self._reserve = 0.0

    # The cut

    def is_used_up(self) -> bool:
        """Whether only what is kept back, or less, is left."""
        spent = self._before + self._clock() - self._began
        return self._seconds is not None and spent + self._reserve >= self._seconds

    def restore_cut(self, told: Mapping[str, Any], reasons: Sequence[str | None]) -> None:
        """Leaves nothing where an earlier process cut the search at this budget, or a larger one.

        What was decided on it stands, whatever time is counted now.

        Args:
            told: of the outcome in the ledger, as by `told`.
            reasons: why trials of the search ended.
        """
        if self._seconds is None:
            return
        # An older Podium recorded no budget, only the trials that it stopped.
        by_trials = "cut_at_budget" not in told and self.reason in reasons
        if by_trials or (told.get("cut_at_budget") or 0.0) >= self._seconds:
            self._reserve = math.inf

    def cut(self) -> None:
        """Takes note that the search ends now."""
        self._cut_at = self._clock()

    def is_cut(self, patience: float = 0.0) -> bool:
        """Whether it has ended the search, more than `patience` seconds ago."""
        return self._cut_at is not None and self._clock() - self._cut_at >= patience

    @property
    def reason(self) -> str:
        """Why a trial was stopped by it."""
        return f"--time-budget {self._seconds or 0:g} s was used up"

    def told(self, begun: int, reasons: Sequence[str | None]) -> dict[str, Any]:
        """What the ledger keeps of it, as JSON values; arguments as of `said`."""
        budget = self._seconds if self.is_cut() else None
        return {"cut": self.said(begun, reasons), "cut_at_budget": budget}

    def said(self, begun: int, reasons: Sequence[str | None]) -> str:
        """What it did to the search, in a sentence; "" where it did nothing.

        Args:
            begun: trials of the search.
            reasons: why those that have ended did.
        """
        if not self.is_cut():
            return ""
        stopped = reasons.count(self.reason)
        short = f", {stopped} of them stopped before their end" if stopped else ""
        return (
            f"The time budget of {self._seconds or 0:g} s ended the search early: "
            f"{begun} of {self._trials} trials were begun{short}."
        )
