"""How long trials may take: clocks that nobody can set back, and no dates."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search.records import EpochReport
from search.settings import StudySettings

PATIENCE_SECONDS = 10.0
"""So long after its time a worker may take for its next report, before it is replaced."""


class Limits:
    """Counts the seconds that each trial was with a worker, all attempts together.

    Those before `restore` are the ones that its epochs took.
    """

    def __init__(self, settings: StudySettings, clock: Callable[[], float]) -> None:
        """Begins to count.

        Args:
            settings: `trial_timeout`, in seconds; None: no limit.
            clock: seconds that only grow, from anywhere.
        """
        self._timeout, self._clock = settings.trial_timeout, clock
        self._since: dict[int, float] = {}
        self._spent: dict[int, float] = {}

    def restore(self, number: int, epochs: Sequence[EpochReport]) -> None:
        """Counts what a trial took in earlier processes."""
        self._spent[number] = sum(item.epoch_seconds for item in epochs)

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
