"""How long trials and their study may take: clocks that nobody can set back, and no dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.records import EpochReport, TrialRecord
from search.settings import StudySettings

PATIENCE_SECONDS = 10.0
"""So long after its time a worker may take for its next report, before it is replaced."""
CLOSING_SECONDS = 10.0
"""Of a time budget: for latency, the test split and what is drawn of the model."""


class Limits:
    """Counts the seconds of a study and of each trial of it.

    A trial's are those that it was with a worker, all attempts together; those before `restore`
    are the ones that its epochs took. The study's are those of this process, and before `restore`
    those of its trials, shared among the workers.
    """

    def __init__(
        self, settings: StudySettings, concurrent: int, clock: Callable[[], float]
    ) -> None:
        """Begins to count.

        Args:
            settings: `trial_timeout` and `time_budget`, in seconds; None: no limit.
            concurrent: how many trials run at once, >= 1.
            clock: seconds that only grow, from anywhere.
        """
        self._timeout, self._budget = settings.trial_timeout, settings.time_budget
        self._concurrent, self._clock = concurrent, clock
        self._began, self._before = clock(), 0.0
        self._since: dict[int, float] = {}
        self._spent: dict[int, float] = {}

    def restore(self, trial: TrialRecord, epochs: Sequence[EpochReport]) -> None:
        """Counts what a trial took in earlier processes."""
        seconds = sum(item.epoch_seconds for item in epochs)
        self._spent[trial.number] = seconds
        if trial.totals is not None:
            seconds = max(seconds, trial.totals.wall_seconds)
        self._before += seconds / self._concurrent

    def start(self, number: int) -> None:
        """A worker has taken the trial up."""
        self._since[number] = self._clock()

    def pause(self, number: int) -> None:
        """The trial is without a worker, until it is started again or has ended."""
        self._spent[number] = self.seconds(number)
        self._since.pop(number, None)

    def seconds(self, number: int) -> float:
        """How long the trial was with a worker."""
        since = self._since.get(number)
        running = self._clock() - since if since is not None else 0.0
        return self._spent.get(number, 0.0) + running

    def is_over_time(self, number: int, patience: float = 0.0) -> bool:
        """Whether the trial has taken longer than a trial may, by more than `patience` seconds."""
        return self._timeout is not None and self.seconds(number) >= self._timeout + patience

    def is_used_up(self, reserve: float) -> bool:
        """Whether only `reserve` seconds, or fewer, are left of the study's budget."""
        spent = self._before + self._clock() - self._began
        return self._budget is not None and spent + reserve >= self._budget
