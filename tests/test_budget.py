"""What is kept back of a study's time."""

from __future__ import annotations

import pytest

from search.budget import CLOSING_SECONDS, Budget
from search.records import State
from search.settings import StudySettings
from tests.builders import make_assignment, make_epoch, make_totals, make_trial


def _budget(now: list[float], seconds: float | None = 100, concurrent: int = 2) -> Budget:
    return Budget(StudySettings(time_budget=seconds), concurrent, lambda: now[0])


def test_a_trial_that_was_stopped_would_have_gone_on_at_the_pace_of_its_last_epoch() -> None:
    budget, job = _budget([0.0]), make_assignment(3, max_epochs=6)
    budget.note(3, [make_epoch(1, epoch_seconds=9.0), make_epoch(2, epoch_seconds=1.5)])
    totals = make_totals(wall_seconds=11.0)
    assert budget.whole_run(job, State.STOPPED, totals) == 11.0 + 4 * 1.5
    folded = make_assignment(3, max_epochs=6, folds=5)
    assert budget.whole_run(folded, State.STOPPED, totals) == pytest.approx((11.0 + 4 * 1.5) / 5)


def test_a_trial_that_patience_completed_lacks_no_epochs() -> None:
    budget, job = _budget([0.0]), make_assignment(3, max_epochs=100)
    budget.note(3, [make_epoch(5, epoch_seconds=2.0)])
    assert budget.whole_run(job, State.COMPLETED, make_totals(wall_seconds=11.0)) == 11.0


def test_what_is_kept_back_is_shared_among_the_workers_and_ends_with_the_verdict() -> None:
    now = [0.0]
    budget = _budget(now)
    budget.keep_back([10.0, 20.0], 4)
    now[0] = 100 - 4 * 15.0 / 2 - CLOSING_SECONDS - 0.1
    assert not budget.is_used_up()
    now[0] += 0.1
    assert budget.is_used_up()
    budget.keep_back([], 4)
    assert not budget.is_used_up()


def test_without_a_limit_nothing_is_used_up() -> None:
    budget = _budget([0.0], seconds=None)
    budget.restore_cut({"cut_at_budget": 100.0}, [])
    budget.keep_back([1e9], 9)
    assert not budget.is_used_up()
    assert budget.told(5, []) == {"cut": "", "cut_at_budget": None}


def test_what_trials_took_before_counts_by_their_totals_or_by_their_epochs() -> None:
    now = [0.0]
    budget = _budget(now)
    budget.restore(make_trial(0, totals=make_totals(wall_seconds=80.0)), [make_epoch(1)])
    budget.restore(make_trial(1, totals=None), [make_epoch(1, epoch_seconds=100.0)])
    now[0] = 9.9
    assert not budget.is_used_up()
    now[0] = 10.0
    assert budget.is_used_up()


@pytest.mark.parametrize(
    ("told", "reasons", "stands"),
    [
        ({"cut_at_budget": 100.0}, [], True),
        ({"cut_at_budget": 101.0}, [], True),
        ({"cut_at_budget": 99.0}, ["--time-budget 100 s was used up"], False),
        ({"cut_at_budget": None}, ["--time-budget 100 s was used up"], False),
        ({}, [None, "--time-budget 100 s was used up"], True),
        ({}, [None, "--time-budget 99 s was used up"], False),
    ],
)
def test_a_cut_stands_until_the_budget_is_larger_than_where_it_was_made(
    told: dict[str, float | None], reasons: list[str | None], stands: bool
) -> None:
    budget = _budget([0.0])
    budget.restore_cut(told, reasons)
    assert budget.is_used_up() is stands
