"""Early stopping: at each rung, does a trial go on? Pure, and rebuilt by replaying the reports."""

from __future__ import annotations

import bisect
import statistics
from dataclasses import dataclass
from typing import Protocol

from search.settings import StudySettings

MEDIAN_RUNGS = 8
MEDIAN_STARTUP_TRIALS = 4


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the trial goes on, and why, in words that name the comparison."""

    go_on: bool
    reason: str


class Scheduler(Protocol):
    """A rule that compares trials at rungs."""

    def rungs(self, number: int) -> tuple[int, ...]:
        """The ascending epochs at which trial `number` is compared, all below `max_epochs`."""
        ...

    def decide(self, number: int, epoch: int, value: float) -> Decision:
        """Records that trial `number` has `value` (higher is better) at this rung and decides.

        Deterministic in the sequence of calls: the same calls in the same order give the same
        decisions. NaN always stops.
        """
        ...

    def counts(self) -> dict[int, int]:
        """How many trials have reached each rung so far."""
        ...


class Patient:
    """Stops nothing."""

    def rungs(self, number: int) -> tuple[int, ...]:
        """None."""
        return ()

    def decide(self, number: int, epoch: int, value: float) -> Decision:
        """Always goes on."""
        return Decision(True, "no early stopping")

    def counts(self) -> dict[int, int]:
        """Nothing."""
        return {}


class SuccessiveHalving:
    """Asynchronous successive halving with one or more brackets (Li et al., MLSys 2020).

    At each rung a trial goes on if it is among the best 1/reduction of the trials of its bracket
    that have reached the rung so far, itself included; the best one always does. Hyperband
    (Li et al., JMLR 2018) is the same with several brackets, of which each next one begins one
    rung later; trials are dealt to brackets in turn, in proportion to the number of rungs.
    """

    def __init__(self, first_rung: int, max_epochs: int, reduction: int, brackets: int) -> None:
        """Places rungs at first_rung * reduction**k below `max_epochs`.

        Args:
            first_rung: epochs, >= 1.
            max_epochs: a trial's last epoch: not a rung, there is nothing left to stop.
            reduction: >= 2: one in how many goes on.
            brackets: >= 1; more than there are rungs count as that many.
        """
        epochs: list[int] = []
        epoch = first_rung
        while epoch < max_epochs:
            epochs.append(epoch)
            epoch *= reduction
        self._reduction = reduction
        self._brackets = [
            tuple(epochs[skip:]) for skip in range(max(1, min(brackets, len(epochs))))
        ]
        self._deal = [
            index for index, rungs in enumerate(self._brackets) for _ in range(max(1, len(rungs)))
        ]
        self._values: dict[tuple[int, int], list[float]] = {}

    def _bracket(self, number: int) -> int:
        return self._deal[number % len(self._deal)]

    def rungs(self, number: int) -> tuple[int, ...]:
        """The rungs of the trial's bracket."""
        return self._brackets[self._bracket(number)]

    def decide(self, number: int, epoch: int, value: float) -> Decision:
        """Goes on when the value is among the best 1/reduction at this rung."""
        if value != value:
            return Decision(False, f"not a number at rung {epoch}")
        seen = self._values.setdefault((self._bracket(number), epoch), [])
        bisect.insort(seen, value)
        places = max(1, len(seen) // self._reduction)
        rank = len(seen) - bisect.bisect_right(seen, value) + 1
        verb = "is" if rank <= places else "is not"
        reason = (
            f"{value:.4f} {verb} among the best {places} of {len(seen)} at rung {epoch} "
            f"(rank {rank})"
        )
        return Decision(rank <= places, reason)

    def counts(self) -> dict[int, int]:
        """Trials per rung, over all brackets."""
        totals: dict[int, int] = {}
        for (_, epoch), values in sorted(self._values.items(), key=lambda item: item[0][1]):
            totals[epoch] = totals.get(epoch, 0) + len(values)
        return totals


class MedianStopping:
    """Stops a trial whose value is below the median of those that were at the same rung before.

    A form of the rule of Vizier (Golovin et al., KDD 2017), which compares running averages; it
    begins once four trials have reached the rung.
    """

    def __init__(self, first_rung: int, max_epochs: int) -> None:
        """Places up to eight evenly spaced rungs from `first_rung` to below `max_epochs`."""
        step = max(1, -(-(max_epochs - first_rung) // MEDIAN_RUNGS))
        self._rungs = tuple(range(first_rung, max_epochs, step))
        self._values: dict[int, list[float]] = {}

    def rungs(self, number: int) -> tuple[int, ...]:
        """The same for every trial."""
        return self._rungs

    def decide(self, number: int, epoch: int, value: float) -> Decision:
        """Goes on when the value is at least the median of those before."""
        if value != value:
            return Decision(False, f"not a number at rung {epoch}")
        before = self._values.setdefault(epoch, [])
        if len(before) < MEDIAN_STARTUP_TRIALS:
            before.append(value)
            return Decision(True, f"one of the first {MEDIAN_STARTUP_TRIALS} at rung {epoch}")
        median = statistics.median(before)
        before.append(value)
        verb = "at least" if value >= median else "below"
        return Decision(
            value >= median, f"{value:.4f} is {verb} the median {median:.4f} at rung {epoch}"
        )

    def counts(self) -> dict[int, int]:
        """Trials per rung."""
        return {epoch: len(values) for epoch, values in sorted(self._values.items())}


def make_scheduler(settings: StudySettings) -> Scheduler:
    """The scheduler that the settings name."""
    first, last, reduction = settings.first_rung, settings.max_epochs, settings.reduction
    if settings.scheduler == "none":
        return Patient()
    if settings.scheduler == "median":
        return MedianStopping(first, last)
    brackets = 3 if settings.scheduler == "hyperband" else 1
    return SuccessiveHalving(first, last, reduction, brackets)
