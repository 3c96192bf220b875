"""What a fault did, as all scenarios of this package tell it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FaultOutcome:
    """One injection, or several of one kind, and what came of it.

    Attributes:
        fault: which one, as in the table of `docs/reliability.md`.
        at: when or where it was injected, for people.
        injected: how often.
        losses: each thing that did not hold afterwards, in a sentence; empty if nothing was lost.
        seconds_repeated: training that had to be done again.
        seconds: that it took, recovery included.
    """

    fault: str
    at: str
    injected: int
    losses: list[str]
    seconds_repeated: float
    seconds: float


class NotPossibleHere(Exception):
    """This machine does not let the fault be injected; says why."""


Scenario = Callable[[Path, int, int], Iterator[FaultOutcome]]
"""Called with an empty folder, how many injections to make, and a seed."""
