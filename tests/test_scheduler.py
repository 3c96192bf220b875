from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.scheduler import (
    Decision,
    MedianStopping,
    Patient,
    Scheduler,
    SuccessiveHalving,
    make_scheduler,
)
from search.settings import SCHEDULERS, StudySettings
from tests.builders import quick


def asha(
    first: int = 1, last: int = 27, reduction: int = 3, brackets: int = 1
) -> SuccessiveHalving:
    return SuccessiveHalving(first, last, reduction, brackets)


def decisions(scheduler: Scheduler, values: list[float], epoch: int = 1) -> list[bool]:
    """What becomes of trials 0, 1, 2, ... that reach the same rung in that order."""
    return [scheduler.decide(number, epoch, value).go_on for number, value in enumerate(values)]


# Rungs


@pytest.mark.parametrize(
    ("first", "last", "reduction", "rungs"),
    [
        (1, 27, 3, (1, 3, 9)),
        (1, 28, 3, (1, 3, 9, 27)),
        (2, 18, 3, (2, 6)),
        (2, 19, 3, (2, 6, 18)),
        (1, 2, 2, (1,)),
        (1, 9, 2, (1, 2, 4, 8)),
        (4, 4, 3, ()),
        (5, 4, 3, ()),
        (1, 1, 2, ()),
    ],
)
def test_asha_rungs_are_powers_of_the_reduction_below_the_last_epoch(
    first: int, last: int, reduction: int, rungs: tuple[int, ...]
) -> None:
    assert asha(first, last, reduction).rungs(0) == rungs
    assert asha(first, last, reduction).rungs(17) == rungs


@quick
@given(
    st.sampled_from(SCHEDULERS),
    st.integers(1, 40),
    st.integers(0, 300),
    st.integers(2, 8),
    st.integers(0, 100),
)
def test_rungs_are_ascending_from_the_first_rung_and_strictly_below_the_last_epoch(
    name: str, first: int, more: int, reduction: int, number: int
) -> None:
    settings = StudySettings.model_validate(
        {
            "scheduler": name,
            "first_rung": first,
            "max_epochs": first + more,
            "reduction": reduction,
        }
    )
    rungs = make_scheduler(settings).rungs(number)
    assert list(rungs) == sorted(set(rungs))
    assert all(first <= rung < first + more for rung in rungs)
    if name in ("asha", "median") and more:
        assert rungs[0] == first


# Asynchronous successive halving


def test_asha_decides_a_sequence_worked_out_by_hand() -> None:
    steps = [
        (0.50, True),  # 1 of 1: the best always goes on
        (0.40, False),  # rank 2, 1 place
        (0.60, True),  # rank 1
        (0.30, False),  # rank 4, 1 place
        (0.55, False),  # rank 2, 1 place of 5
        (0.58, True),  # rank 2, 2 places of 6
        (0.57, False),  # rank 3, 2 places of 7
        (0.59, True),  # rank 2, 2 places of 8
        (0.56, False),  # rank 5, 3 places of 9
        (0.585, True),  # rank 3, 3 places of 10
    ]
    assert decisions(asha(), [value for value, _ in steps]) == [go_on for _, go_on in steps]


def test_asha_halving_decides_a_sequence_worked_out_by_hand() -> None:
    values = [0.1, 0.2, 0.15, 0.05, 0.3, 0.18, 0.17]
    expected = [True, True, False, False, True, True, False]
    assert decisions(asha(reduction=2), values) == expected


def test_asha_lets_every_trial_go_on_that_is_better_than_all_before() -> None:
    assert decisions(asha(), [0.1, 0.2, 0.3, 0.4, 0.5]) == [True] * 5


def test_asha_lets_only_the_first_go_on_when_each_is_worse_than_all_before() -> None:
    assert decisions(asha(), [0.5, 0.4, 0.3, 0.2, 0.1]) == [True, False, False, False, False]


def test_asha_does_not_stop_one_of_two_trials_that_tie() -> None:
    assert decisions(asha(), [0.5, 0.5, 0.4, 0.5]) == [True, True, False, True]


def test_asha_stops_a_tie_below_the_last_place() -> None:
    assert decisions(asha(), [0.5, 0.4, 0.4]) == [True, False, False]


def test_asha_compares_each_rung_by_itself() -> None:
    scheduler = asha()
    assert decisions(scheduler, [0.9, 0.8], epoch=1) == [True, False]
    assert decisions(scheduler, [0.5, 0.6, 0.4], epoch=3) == [True, True, False]
    assert scheduler.counts() == {1: 2, 3: 3}


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_not_a_number_stops_even_the_first_trial_and_counts_for_nobody(name: str) -> None:
    settings = StudySettings.model_validate({"scheduler": name})
    scheduler, undisturbed = make_scheduler(settings), make_scheduler(settings)
    rung = scheduler.rungs(0)[0]
    for value in (0.5, 0.4, 0.6, 0.55, 0.45, 0.52, 0.58, 0.1):
        stopped = scheduler.decide(0, rung, math.nan)
        assert not stopped.go_on
        assert "not a number" in stopped.reason
        assert scheduler.decide(0, rung, value) == undisturbed.decide(0, rung, value)
    assert scheduler.counts() == undisturbed.counts() == {rung: 8}


def test_asha_says_in_its_reason_what_it_compared() -> None:
    scheduler = asha()
    assert scheduler.decide(0, 3, 0.9) == Decision(
        True, "0.9000 is among the best 1 of 1 at rung 3 (rank 1)"
    )
    assert scheduler.decide(1, 3, 0.8) == Decision(
        False, "0.8000 is not among the best 1 of 2 at rung 3 (rank 2)"
    )


values = st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]) | st.floats(0, 1))


@quick
@given(values, st.integers(2, 5))
def test_asha_agrees_with_its_definition(sequence: list[float], reduction: int) -> None:
    found = decisions(asha(reduction=reduction), sequence)
    for index, value in enumerate(sequence):
        reached = sequence[: index + 1]
        better = sum(other > value for other in reached)
        assert found[index] == (better < max(1, len(reached) // reduction))


# Hyperband


def test_hyperband_brackets_each_begin_one_rung_later() -> None:
    scheduler = asha(brackets=3)
    rungs = [scheduler.rungs(number) for number in range(6)]
    assert rungs == [(1, 3, 9)] * 3 + [(3, 9)] * 2 + [(9,)]


def test_hyperband_deals_trials_to_brackets_in_turn() -> None:
    scheduler = asha(brackets=3)
    assert [scheduler.rungs(n) for n in range(6)] == [scheduler.rungs(n + 6) for n in range(6)]


def test_hyperband_compares_only_within_a_bracket() -> None:
    scheduler = asha(brackets=3)
    assert scheduler.decide(0, 3, 0.9).go_on
    assert not scheduler.decide(1, 3, 0.5).go_on
    assert scheduler.decide(3, 3, 0.1).go_on
    assert not scheduler.decide(4, 3, 0.05).go_on
    assert scheduler.decide(6, 3, 0.95).go_on
    assert scheduler.counts() == {3: 5}


def test_hyperband_with_fewer_rungs_than_brackets_has_as_many_brackets_as_rungs() -> None:
    scheduler = SuccessiveHalving(2, 18, 3, 5)
    assert {scheduler.rungs(number) for number in range(30)} == {(2, 6), (6,)}


def test_hyperband_without_any_rung_stops_nothing() -> None:
    scheduler = SuccessiveHalving(4, 4, 3, 3)
    assert {scheduler.rungs(number) for number in range(10)} == {()}


def test_counts_of_all_brackets_are_added_up_in_the_order_of_rungs() -> None:
    scheduler = asha(brackets=3)
    for number, epoch in ((5, 9), (3, 3), (0, 3), (0, 1), (1, 1)):
        scheduler.decide(number, epoch, 0.5)
    assert list(scheduler.counts().items()) == [(1, 2), (3, 2), (9, 1)]


# Median


def test_median_decides_a_sequence_worked_out_by_hand() -> None:
    steps = [
        (0.1, True),  # the first four go on unseen
        (0.2, True),
        (0.3, True),
        (0.4, True),
        (0.25, True),  # the median of 0.1 0.2 0.3 0.4, reached
        (0.24, False),  # below 0.25
        (0.245, True),  # the median of 0.1 0.2 0.24 0.25 0.3 0.4, reached
        (0.2, False),  # below 0.245
    ]
    scheduler = MedianStopping(2, 18)
    assert decisions(scheduler, [v for v, _ in steps], epoch=2) == [go_on for _, go_on in steps]
    assert scheduler.counts() == {2: 8}


def test_median_starts_afresh_at_each_rung() -> None:
    scheduler = MedianStopping(2, 18)
    assert decisions(scheduler, [0.9] * 4 + [0.5], epoch=2)[-1] is False
    assert decisions(scheduler, [0.9] * 3 + [0.5], epoch=4)[-1] is True


def test_median_says_in_its_reason_what_it_compared() -> None:
    scheduler = MedianStopping(2, 18)
    decisions(scheduler, [0.1, 0.2, 0.3, 0.4], epoch=2)
    assert scheduler.decide(4, 2, 0.2).reason == "0.2000 is below the median 0.2500 at rung 2"
    assert scheduler.decide(5, 2, 0.9).reason == "0.9000 is at least the median 0.2000 at rung 2"


def test_median_rungs_are_evenly_spaced() -> None:
    assert MedianStopping(2, 18).rungs(0) == (2, 4, 6, 8, 10, 12, 14, 16)
    assert MedianStopping(2, 18).rungs(5) == MedianStopping(2, 18).rungs(0)
    assert MedianStopping(1, 5).rungs(0) == (1, 2, 3, 4)
    assert MedianStopping(3, 3).rungs(0) == ()


@pytest.mark.parametrize("last", [17, 19, 25])
def test_median_has_no_more_than_eight_rungs_where_they_do_not_divide_evenly(last: int) -> None:
    rungs = MedianStopping(2, last).rungs(0)
    assert rungs[0] == 2
    assert len(rungs) <= 8


# None


def test_no_scheduler_stops_nothing_not_even_what_is_hopeless() -> None:
    scheduler = Patient()
    assert scheduler.rungs(0) == ()
    assert decisions(scheduler, [0.9, 0.1, 0.0]) == [True] * 3
    assert scheduler.counts() == {}


# All of them


def test_every_scheduler_of_the_settings_is_the_one_that_its_name_says() -> None:
    made = {
        name: make_scheduler(
            StudySettings.model_validate({"scheduler": name, "first_rung": 1, "max_epochs": 27})
        )
        for name in SCHEDULERS
    }
    assert isinstance(made["none"], Patient)
    assert isinstance(made["median"], MedianStopping)
    assert {made["asha"].rungs(number) for number in range(12)} == {(1, 3, 9)}
    assert {made["hyperband"].rungs(number) for number in range(12)} == {(1, 3, 9), (3, 9), (9,)}


def test_the_reduction_of_the_settings_reaches_the_scheduler() -> None:
    settings = StudySettings(scheduler="asha", first_rung=1, max_epochs=27, reduction=5)
    assert make_scheduler(settings).rungs(0) == (1, 5, 25)


calls = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.integers(0, 2),
        st.sampled_from([math.nan, math.inf, -math.inf, 0.5]) | st.floats(0, 1),
    ),
    max_size=40,
)


@quick
@given(st.sampled_from(SCHEDULERS), calls, st.integers(0, 40))
def test_replaying_the_reports_rebuilds_the_scheduler(
    name: str, sequence: list[tuple[int, int, float]], cut: int
) -> None:
    settings = StudySettings.model_validate({"scheduler": name})

    def play(scheduler: Scheduler, part: list[tuple[int, int, float]]) -> list[Decision]:
        rungs = scheduler.rungs
        return [
            scheduler.decide(number, (rungs(number) or (1,))[min(rung, len(rungs(number)) - 1)], v)
            for number, rung, v in part
        ]

    original, rebuilt = make_scheduler(settings), make_scheduler(settings)
    before, after = sequence[:cut], sequence[cut:]
    first = play(original, before)
    assert play(rebuilt, before) == first
    assert play(rebuilt, after) == play(original, after)
    assert rebuilt.counts() == original.counts()
    assert all(decision.reason for decision in first)
