from __future__ import annotations

import math
import re
import statistics
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from search.inference import (
    corrected_standard_error,
    paired_standard_error,
    probability_better,
)
from search.records import (
    Candidate,
    ConfigError,
    ConstraintsUnmet,
    Criteria,
    Phase,
    Recommendation,
    State,
    StudyFailed,
    TrialRecord,
)
from search.selection import (
    RULES,
    as_typed,
    called,
    confirmed_candidates,
    loosened,
    one_standard_error,
    percent,
    points,
    recommend,
    violations,
)
from search.settings import CORRECTIONS, POLICIES
from spaces.config import TrialConfig
from tests.builders import (
    make_candidate,
    make_config,
    make_costs,
    make_measures,
    make_totals,
    make_trial,
    quick,
)

FRACTION = 0.2

accuracy = st.floats(0.0, 1.0).map(lambda value: round(value, 4))

# Policies


CLASSICAL = Criteria(correction="nadeau-bengio")
"""One standard error, of the best alone: whatever else happened on its seeds."""


def chosen(criteria: Criteria | str, *candidates: Candidate) -> Candidate:
    criteria = Criteria(criteria) if isinstance(criteria, str) else criteria
    return recommend(candidates, criteria, FRACTION).winner


# Mean 0.94, classical standard error 0.015275: whatever reaches 0.924725 is near.
BEST = make_candidate([0.92, 0.94, 0.96], 9_000)


def test_one_standard_error_takes_the_smallest_within_the_margin() -> None:
    near = make_candidate([0.925] * 3, 500)
    far = make_candidate([0.924] * 3, 100)
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    assert chosen(CLASSICAL, BEST, near, far, baseline) is near


def test_one_standard_error_takes_the_best_where_nothing_else_is_near() -> None:
    baseline = make_candidate([0.924] * 3, 200, is_baseline=True)
    recommendation = recommend([baseline, BEST], CLASSICAL, FRACTION)
    assert recommendation.winner is BEST
    assert recommendation.ranked[0].reason == (
        "Chosen: the best mean, and nothing else within one standard error."
    )
    assert recommendation.ranked[1].reason == (
        "Not chosen: 1.600 points below the best, more than one standard error (1.528 points)."
    )


def test_one_standard_error_takes_the_best_where_it_is_the_smallest() -> None:
    small = make_candidate([0.92, 0.94, 0.96], 100)
    baseline = make_candidate([0.93] * 3, 200, is_baseline=True)
    assert chosen("one-standard-error", small, baseline) is small


def test_one_standard_error_uses_the_error_of_the_best_and_not_of_the_others() -> None:
    # The shaky one is 0.04 below. Its own error would do: deviation 0.0889, over the root of 3
    # 0.0513, more by Nadeau and Bengio. The best has none; by default half the variance counts, for
    # the two differ as the shaky one varies: 0.0889 over the root of 6 is 0.0363.
    best = make_candidate([0.94, 0.94, 0.94], 9_000)
    shaky = make_candidate([0.80, 0.93, 0.97], 100)
    baseline = make_candidate([0.85] * 3, 200, is_baseline=True)
    below = best.mean - shaky.mean
    assert below == pytest.approx(0.04)
    assert below < stats.sem(shaky.accuracies) < corrected_standard_error(shaky.accuracies, 0.2)
    assert chosen(CLASSICAL, best, shaky, baseline) is best
    assert chosen("one-standard-error", best, shaky, baseline) is best


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_standard_error_takes_the_better_of_two_of_the_same_size(correction: str) -> None:
    # Only the best varies, so that by default half of its variance counts against each: the root of
    # 0.0004 / 2 / 3, 0.816 points; both are nearer.
    better = make_candidate([0.935] * 3, 500, units=1)
    worse = make_candidate([0.932] * 3, 500, units=2)
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    assert chosen(Criteria(correction=correction), worse, BEST, better, baseline) is better


def test_one_standard_error_says_how_much_larger_the_others_are() -> None:
    near = make_candidate([0.93] * 3, 500, is_baseline=True)
    recommendation = recommend([BEST, near], CLASSICAL, FRACTION)
    assert recommendation.ranked[0].reason == (
        "Not chosen: the best mean, but 18.0 times as large."
    )
    assert recommendation.ranked[1].reason == (
        "Chosen: 1.000 points below the best, within 1.528 points, "
        "and the smallest of the 2 within one standard error."
    )
    assert recommendation.summary.startswith("Recommended: the baseline, 500 parameters")


def test_one_standard_error_does_not_call_the_best_no_better_where_it_is_hardly_larger() -> None:
    # Differences 0.015, 0.015, -0.015: mean 0.005, deviation 0.0173; over the root of 6 that is
    # a margin of 0.0071.
    best = make_candidate([0.915, 0.925, 0.905], 103)
    baseline = make_candidate([0.90, 0.91, 0.92], 100, is_baseline=True)
    recommendation = recommend([baseline, best], Criteria("one-standard-error"), FRACTION)
    assert recommendation.winner is baseline
    assert recommendation.ranked[0].reason == "Not chosen: the best mean, but slightly larger."


def test_best_mean_takes_the_highest_whatever_its_size() -> None:
    near = make_candidate([0.9399] * 3, 1, is_baseline=True)
    recommendation = recommend([near, BEST], Criteria("best-mean"), FRACTION)
    assert recommendation.winner is BEST
    assert [row.reason for row in recommendation.ranked] == [
        "Chosen: the best mean.",
        "Not chosen: 0.010 points below the best mean.",
    ]


def test_best_mean_takes_the_smaller_of_two_that_tie() -> None:
    small = make_candidate([0.5, 0.75], 100, is_baseline=True)
    large = make_candidate([0.75, 0.5], 900)
    assert chosen("best-mean", large, small) is small


def test_lower_bound_prefers_a_steady_candidate_to_a_better_but_shaky_one() -> None:
    shaky = make_candidate([0.85, 0.95, 0.99], 500)
    steady = make_candidate([0.92, 0.925, 0.93], 600, is_baseline=True)
    recommendation = recommend([shaky, steady], Criteria("lower-bound"), FRACTION)
    assert shaky.mean > steady.mean
    assert recommendation.winner is steady
    assert "Chosen: the highest lower bound is" in recommendation.ranked[1].reason
    assert recommendation.ranked[0].reason.startswith("Not chosen: the lower bound is")


@quick
@given(
    st.integers(3, 8).flatmap(
        lambda count: st.lists(
            st.lists(accuracy, min_size=count, max_size=count), min_size=2, max_size=5
        )
    )
)
def test_lower_bound_is_students_t_bound_of_scipy(runs: list[list[float]]) -> None:
    candidates = [
        make_candidate(values, 100 + index, is_baseline=index == 0)
        for index, values in enumerate(runs)
    ]
    bounds = {
        c.config.config_id: c.mean
        - stats.t.ppf(0.95, df=len(c.accuracies) - 1)
        * math.sqrt(
            statistics.variance(c.accuracies) * (1 / len(c.accuracies) + FRACTION / (1 - FRACTION))
        )
        for c in candidates
    }
    recommendation = recommend(candidates, Criteria("lower-bound"), FRACTION)
    winner = recommendation.winner.config.config_id
    assert bounds[winner] == pytest.approx(max(bounds.values()), abs=1e-12)
    for row in recommendation.ranked:
        assert percent(bounds[row.candidate.config.config_id]) in row.reason


def test_lower_bound_takes_the_smaller_of_two_that_tie() -> None:
    small = make_candidate([0.5, 0.75], 100, is_baseline=True)
    large = make_candidate([0.75, 0.5], 900)
    assert chosen("lower-bound", large, small) is small


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        recommend([BEST], Criteria("best-meen"), FRACTION)
    assert "'best-meen'" in str(caught.value)
    assert "Did you mean 'best-mean'?" in str(caught.value)
    assert all(policy in str(caught.value) for policy in POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("correction", "meant"), [("nadeau-bengo", "nadeau-bengio"), ("pared", "paired")]
)
def test_an_unknown_correction_names_the_nearest_under_any_policy(
    policy: str, correction: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        recommend([TOP, EDGE], Criteria(policy, correction=correction), FRACTION)
    assert str(caught.value) == (
        f"Unknown correction {correction!r}. Did you mean {meant!r}? Known: nadeau-bengio, paired."
    )


def test_an_unknown_correction_that_is_near_to_nothing_lists_what_is_known() -> None:
    with pytest.raises(ConfigError) as caught:
        recommend([BEST], Criteria(correction=""), FRACTION)
    assert str(caught.value) == "Unknown correction ''. Known: nadeau-bengio, paired."


def test_every_policy_of_the_settings_has_its_rule() -> None:
    assert set(RULES) == set(POLICIES)


def built(rows: list[tuple[Any, ...]]) -> list[Candidate]:
    """The first is the baseline, the last the champion's configuration; all are distinct."""
    return [
        make_candidate(
            values,
            size,
            gaps=gap,
            costs=latency,
            recalls=recalls,
            is_baseline=index == 0,
            is_champion=index == len(rows) - 1,
            units=index + 1,
        )
        for index, (values, size, gap, latency, recalls) in enumerate(rows)
    ]


run_lists = st.lists(st.sampled_from([0.9, 0.91, 0.92, 0.95]), min_size=3, max_size=3)
sizes = st.sampled_from([100, 101, 500, 5_000])
some_gaps = st.sampled_from([-0.01, 0.0, 0.02, 0.05])
latencies = st.sampled_from([0.5, 1.0, 1.5, 4.0])
some_recalls = st.sampled_from([(0.5, 0.9), (0.8, 0.8), (0.95, math.nan)])


def lists_of(gap: Any, latency: Any, recalls: Any = some_recalls) -> Any:
    rows = st.tuples(run_lists, sizes, gap, latency, recalls)
    return st.lists(rows, min_size=1, max_size=6).map(built)


candidate_lists = lists_of(some_gaps, latencies) | lists_of(some_gaps, st.none())
"""Everything is known, but for latency, which is measured for all or for none."""
patchy_lists = lists_of(some_gaps | st.just(()), latencies | st.none(), some_recalls | st.just(()))
"""Anything may be unknown."""


some_criteria = st.builds(
    Criteria,
    policy=st.sampled_from(POLICIES),
    tolerance=st.sampled_from([0.0, 0.005, 0.02]),
    cost=st.sampled_from(["parameters", "latency"]),
    correction=st.sampled_from(CORRECTIONS),
    max_params=st.none() | st.sampled_from([100, 500]),
    max_latency_ms=st.none() | st.sampled_from([1.0, 2.0]),
    max_gap=st.none() | st.sampled_from([0.0, 0.02]),
    min_class_recall=st.none() | st.sampled_from([0.5, 0.8]),
)


def recommended_or_why_not(candidates: list[Candidate], criteria: Criteria) -> Recommendation | str:
    try:
        return recommend(candidates, criteria, FRACTION)
    except StudyFailed as error:
        return str(error)


@quick
@given(patchy_lists, some_criteria, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    candidates: list[Candidate], criteria: Criteria, random: Any
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    found = recommended_or_why_not(candidates, criteria)
    assert recommended_or_why_not(shuffled, criteria) == found


@quick
@given(patchy_lists, some_criteria, st.data())
def test_a_duplicate_candidate_changes_nothing(
    candidates: list[Candidate], criteria: Criteria, data: st.DataObject
) -> None:
    repeated = data.draw(st.lists(st.sampled_from(candidates), min_size=1))
    found = recommended_or_why_not(candidates, criteria)
    assert recommended_or_why_not([*candidates, *repeated], criteria) == found


def meets(candidate: Candidate, criteria: Criteria) -> bool:
    """Whether a candidate is known to keep to every limit."""
    pairs = [
        (criteria.max_params, candidate.parameters, -1),
        (criteria.max_latency_ms, candidate.latency_ms, -1),
        (criteria.max_gap, candidate.gap, -1),
        (criteria.min_class_recall, candidate.lowest_recall, 1),
    ]
    return all(
        limit is None or (not math.isnan(value) and (value - limit) * sign >= -1e-9)
        for limit, value, sign in pairs
    )


@quick
@given(patchy_lists, some_criteria)
def test_what_a_constraint_forbids_is_never_recommended(
    candidates: list[Candidate], criteria: Criteria
) -> None:
    found = recommended_or_why_not(candidates, criteria)
    if isinstance(found, str):
        assert found.startswith("Policy ") or not any(meets(c, criteria) for c in candidates)
        return
    assert meets(found.winner, criteria)
    for row in found.ranked:
        assert row.allowed == meets(row.candidate, criteria)
        assert row.reason.startswith("Ruled out: ") != row.allowed
    known = {c.config.config_id: c for c in candidates}
    assert all(meets(known[config_id], criteria) for config_id in found.alternatives.values())
    assert all(meets(known[config_id], criteria) for config_id in found.unseparated)


@quick
@given(candidate_lists, some_criteria)
def test_what_is_ruled_out_has_no_say_in_the_choice(
    candidates: list[Candidate], criteria: Criteria
) -> None:
    allowed = [c for c in candidates if meets(c, criteria)]
    found = recommended_or_why_not(candidates, criteria)
    if allowed and isinstance(found, Recommendation):
        alone = recommend(allowed, criteria, FRACTION)
        assert alone.winner == found.winner
        assert alone.alternatives == found.alternatives
        assert alone.unseparated == found.unseparated


@quick
@given(candidate_lists, st.sampled_from(POLICIES))
def test_every_candidate_gets_exactly_one_sentence_and_one_is_chosen(
    candidates: list[Candidate], policy: str
) -> None:
    recommendation = recommend(candidates, Criteria(policy), FRACTION)
    assert len(recommendation.ranked) == len(candidates)
    for index, row in enumerate(recommendation.ranked):
        opening = "Chosen: " if index == recommendation.chosen else "Not chosen: "
        assert row.reason.startswith(opening)
        assert row.reason.endswith(".")
        assert ". " not in row.reason
        assert row.standard_error == corrected_standard_error(row.candidate.accuracies, FRACTION)
    means = [row.candidate.mean for row in recommendation.ranked]
    assert means == sorted(means, reverse=True)
    assert recommendation.policy == policy
    assert recommendation.baseline.is_baseline


@quick
@given(candidate_lists)
def test_one_standard_error_never_recommends_what_is_larger_or_further_than_allowed(
    candidates: list[Candidate],
) -> None:
    recommendation = recommend(candidates, CLASSICAL, FRACTION)
    best, winner = recommendation.ranked[0], recommendation.winner
    assert best.candidate.mean - winner.mean <= best.standard_error
    assert winner.parameters <= best.candidate.parameters


def test_the_summary_says_who_how_large_how_good_and_how_sure() -> None:
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    summary = recommend([baseline, BEST], Criteria("best-mean"), FRACTION).summary
    assert summary == (
        f"Recommended: configuration {BEST.config.config_id}, 9,000 parameters, validation "
        "accuracy 94.00% (standard error 1.528 points) over 3 fresh seeds. The paired runs "
        "do not separate the recommended one from the baseline."
    )


# Policies worked out by hand: means 94%, 93.5% and 93.49%, tolerance half a point

TOP = make_candidate([0.94] * 3, 9_000, gaps=0.05, costs=1.0)
EDGE = make_candidate([0.935] * 3, 500, gaps=0.01, costs=2.0)
BELOW = make_candidate([0.9349] * 3, 100, gaps=0.0, costs=0.5)


def reasons(*candidates: Candidate, criteria: Criteria) -> list[str]:
    """Of each candidate, in the order in which they are given."""
    ranked = recommend(candidates, criteria, FRACTION).ranked
    by_id = {row.candidate.config.config_id: row.reason for row in ranked}
    return [by_id[c.config.config_id] for c in candidates]


def test_smallest_gap_takes_the_smallest_gap_within_the_tolerance_its_border_included() -> None:
    assert reasons(TOP, EDGE, BELOW, criteria=Criteria("smallest-gap")) == [
        "Not chosen: a gap of 5.000 points, against 1.000 points.",
        "Chosen: a gap of 1.000 points, the smallest of the 2 within the tolerance.",
        "Not chosen: 0.510 points below the best, more than --tolerance 0.005.",
    ]


def test_smallest_gap_cannot_be_won_by_underfitting() -> None:
    underfitted = make_candidate([0.60] * 3, 10, gaps=0.0)
    assert chosen("smallest-gap", TOP, underfitted) is TOP


def test_smallest_gap_without_tolerance_is_the_best_mean() -> None:
    assert recommend([TOP, EDGE], Criteria("smallest-gap", tolerance=0.0), FRACTION).winner is TOP


def test_a_gap_below_zero_counts_by_its_size() -> None:
    other_way = make_candidate([0.939] * 3, 50, gaps=-0.03)
    assert chosen("smallest-gap", EDGE, other_way, TOP) is EDGE
    assert chosen("smallest-gap", other_way, TOP) is other_way


def test_of_equal_gaps_the_better_mean_is_taken() -> None:
    better = make_candidate([0.94] * 3, 900, gaps=0.02)
    smaller = make_candidate([0.938] * 3, 100, gaps=0.02)
    assert chosen("smallest-gap", smaller, better) is better


def test_a_gap_that_is_not_known_is_not_chosen_and_said_to_be_so() -> None:
    unknown = make_candidate([0.945] * 3, 700)
    assert reasons(unknown, TOP, criteria=Criteria("smallest-gap")) == [
        "Not chosen: its gap is not known.",
        "Chosen: a gap of 5.000 points, the smallest of the 1 within the tolerance.",
    ]


NO_GAP = r"^Policy smallest-gap: no candidate within the tolerance has a gap\.$"


@pytest.mark.parametrize("gaps", [(), math.nan], ids=["none", "nan"])
def test_smallest_gap_without_any_gap_cannot_choose(gaps: Any) -> None:
    with pytest.raises(StudyFailed, match=NO_GAP):
        chosen("smallest-gap", make_candidate([0.9] * 3, gaps=gaps))


@pytest.mark.parametrize("gaps", [(), math.nan], ids=["none", "nan"])
def test_a_gap_beyond_the_tolerance_or_below_the_baseline_does_not_help_smallest_gap(
    gaps: Any,
) -> None:
    # EDGE, 0.5 points below TOP, is within the tolerance; BELOW is not.
    unknown = replace(TOP, gaps=())
    with pytest.raises(StudyFailed, match=NO_GAP):
        chosen("smallest-gap", unknown, BELOW)
    assert chosen("smallest-gap", unknown, EDGE) is EDGE
    baseline = make_candidate([0.937] * 3, 700, is_baseline=True, gaps=gaps)
    with pytest.raises(StudyFailed, match=NO_GAP):
        chosen("smallest-gap", unknown, EDGE, baseline)


def test_cheapest_within_takes_the_fewest_parameters_its_border_included() -> None:
    assert reasons(TOP, EDGE, BELOW, criteria=Criteria("cheapest-within")) == [
        "Not chosen: 9,000 parameters, against 500 parameters.",
        "Chosen: 500 parameters, the cheapest of the 2 within the tolerance.",
        "Not chosen: 0.510 points below the best, more than --tolerance 0.005.",
    ]


def test_cheapest_within_takes_the_lowest_latency_where_that_is_the_cost() -> None:
    assert reasons(TOP, EDGE, BELOW, criteria=Criteria("cheapest-within", cost="latency")) == [
        "Chosen: 1.00 ms, the cheapest of the 2 within the tolerance.",
        "Not chosen: 2.00 ms, against 1.00 ms.",
        "Not chosen: 0.510 points below the best, more than --tolerance 0.005.",
    ]


def test_of_equally_fast_ones_the_one_with_fewer_parameters_is_taken() -> None:
    large = make_candidate([0.94] * 3, 900, costs=1.0)
    small = make_candidate([0.938] * 3, 500, costs=1.0)
    criteria = Criteria("cheapest-within", cost="latency")
    assert recommend([large, small], criteria, FRACTION).winner is small


def test_a_wider_tolerance_buys_a_cheaper_one() -> None:
    criteria = Criteria("cheapest-within", tolerance=0.0051)
    assert recommend([TOP, EDGE, BELOW], criteria, FRACTION).winner is BELOW


def test_the_tolerance_counts_from_the_best_that_is_allowed() -> None:
    criteria = Criteria("cheapest-within", max_params=8_000)
    assert recommend([TOP, EDGE, BELOW], criteria, FRACTION).winner is BELOW


def test_cheapest_within_by_latency_needs_the_latency_of_all_that_are_near() -> None:
    criteria = Criteria("cheapest-within", cost="latency")
    untimed = make_candidate([0.936] * 3, 300)
    with pytest.raises(StudyFailed, match=r"^Policy cheapest-within: the latency"):
        recommend([TOP, untimed], criteria, FRACTION)
    far = make_candidate([0.90] * 3, 300)
    assert recommend([TOP, far], criteria, FRACTION).winner is TOP


def test_of_equally_many_parameters_the_faster_one_is_taken_and_then_the_better_one() -> None:
    slow = make_candidate([0.94] * 3, 500, units=1, costs=2.0)
    fast = make_candidate([0.937] * 3, 500, units=2, costs=1.0)
    better = make_candidate([0.939] * 3, 500, units=3, costs=1.0)
    untimed = make_candidate([0.9395] * 3, 500, units=4)
    for policy in ("cheapest-within", "one-standard-error"):
        shaky = make_candidate([0.92, 0.941, 0.962], 9_000)  # wide enough for all of them
        assert chosen(policy, slow, fast, untimed, shaky) is fast
        assert chosen(policy, slow, fast, better, untimed, shaky) is better


def test_one_standard_error_calls_slower_what_is_as_small_and_slower() -> None:
    slow = make_candidate([0.92, 0.94, 0.96], 500, units=1, costs=2.0)
    fast = make_candidate([0.93] * 3, 500, units=2, costs=1.0)
    assert reasons(slow, fast, criteria=CLASSICAL) == [
        "Not chosen: the best mean, but slower (2.00 ms against 1.00 ms).",
        "Chosen: 1.000 points below the best, within 1.528 points, "
        "and the smallest of the 2 within one standard error.",
    ]


@pytest.mark.parametrize(("further", "is_near"), [(0.0, True), (1e-9, False)])
def test_exactly_one_standard_error_below_the_best_is_near(further: float, is_near: bool) -> None:
    at_border = make_candidate([0.94 - math.sqrt(0.0004 * 7 / 12) - further] * 3, 100)
    assert (chosen(CLASSICAL, BEST, at_border) is at_border) == is_near


# The default margin: of each candidate its own, without what it shares with the best on a seed

# Beside one that does not vary, the best's deviations (-0.02, 0, 0.02) are those of the difference:
# variance 0.0004, of which half counts, over 3 runs.
PAIRED_MARGIN = math.sqrt(0.0004 / 2 / 3)


def own_margin(best: Candidate, other: Candidate) -> float:
    """SciPy's standard error of their difference over the root of two."""
    pairs = zip(best.accuracies, other.accuracies, strict=True)
    return float(stats.sem([a - b for a, b in pairs])) / math.sqrt(2)


@pytest.mark.parametrize(("further", "is_near"), [(0.0, True), (1e-9, False)])
def test_exactly_one_paired_standard_error_below_the_best_is_near(
    further: float, is_near: bool
) -> None:
    at_border = make_candidate([0.94 - PAIRED_MARGIN - further] * 3, 100)
    assert (chosen(Criteria(), BEST, at_border) is at_border) == is_near


def test_the_default_margin_is_told_with_the_choice() -> None:
    near = make_candidate([0.932] * 3, 500)
    assert reasons(BEST, near, criteria=Criteria()) == [
        "Not chosen: the best mean, but 18.0 times as large.",
        "Chosen: 0.800 points below the best, within 0.816 points, "
        "and the smallest of the 2 within one standard error.",
    ]
    far = make_candidate([0.931] * 3, 500)
    assert reasons(BEST, far, criteria=Criteria()) == [
        "Chosen: the best mean, and nothing else within one standard error.",
        "Not chosen: 0.900 points below the best, more than one standard error (0.816 points).",
    ]


def test_the_default_margins_of_three_worked_out_by_hand() -> None:
    # Differences from the best of the second: 0.004, 0.005, 0.006; of the third -0.02, 0.01, 0.04;
    # of the fourth 0, 0.02, 0.04: deviations 0.001, 0.03, 0.02, over the root of 6.
    best = make_candidate([0.90, 0.92, 0.94], 9_000)
    second = make_candidate([0.896, 0.915, 0.934], 100)
    third = make_candidate([0.92, 0.91, 0.90], 500)
    fourth = make_candidate([0.90, 0.90, 0.90], 200)
    assert [own_margin(best, c) for c in (second, third, fourth)] == pytest.approx(
        [d / math.sqrt(6) for d in (0.001, 0.03, 0.02)]
    )
    assert reasons(best, second, third, fourth, criteria=Criteria()) == [
        "Not chosen: the best mean, but 18.0 times as large.",
        "Not chosen: 0.500 points below the best, more than one standard error (0.041 points).",
        "Chosen: 1.000 points below the best, within 1.225 points, "
        "and the smallest of the 2 within one standard error.",
        "Not chosen: 2.000 points below the best, more than one standard error (0.816 points).",
    ]
    # Differences -0.01, 0.01, 0.03: as far below as the third, but the margin is 0.0082.
    steadier = make_candidate([0.91, 0.91, 0.91], 500)
    assert steadier.mean == third.mean
    assert chosen(Criteria(), best, second, steadier, fourth) is best


def test_the_default_margin_counts_the_spread_of_both_alike() -> None:
    # Deviations 0.02 of the one, 0 of the other; either way 0.02 over the root of 6, 0.816 points.
    steady, shaky = [0.94, 0.94, 0.94], [0.92, 0.94, 0.96]
    for best, other in ((steady, shaky), (shaky, steady)):
        larger = make_candidate(best, 9_000)
        near = make_candidate([a - 0.008 for a in other], 500)
        far = make_candidate([a - 0.009 for a in other], 500)
        assert own_margin(larger, near) == pytest.approx(PAIRED_MARGIN)
        assert chosen(Criteria(), larger, near) is near
        assert chosen(Criteria(), larger, far) is larger


def test_the_default_margin_is_not_the_ordinary_error_of_either() -> None:
    # Differences 0, 0.08, 0.01: mean 0.03, deviation 0.0436, over the root of 6 0.0178. The other
    # one's own error is 0.0252, that of the best 0.0058.
    best = make_candidate([0.93, 0.94, 0.95], 9_000)
    shaky = make_candidate([0.93, 0.86, 0.94], 100)
    assert own_margin(best, shaky) == pytest.approx(0.0178, abs=1e-4)
    assert reasons(best, shaky, criteria=Criteria()) == [
        "Chosen: the best mean, and nothing else within one standard error.",
        "Not chosen: 3.000 points below the best, more than one standard error (1.780 points).",
    ]


@pytest.mark.parametrize("third", [[0.1, 0.94, 0.1], [0.1] * 3, [0.939] * 3, [0.94, 0.92, 0.955]])
@pytest.mark.parametrize(("value", "is_near"), [(0.932, True), (0.931, False)])
def test_a_third_candidate_decides_nothing_between_two_others(
    third: list[float], value: float, is_near: bool
) -> None:
    # 0.8 and 0.9 points below the best, whose margin against what never varies is 0.816 points.
    other = make_candidate([value] * 3, 500)
    alone = chosen(Criteria(), BEST, other)
    assert alone is (other if is_near else BEST)
    assert chosen(Criteria(), BEST, other, make_candidate(third, 9_500)) is alone


@pytest.mark.parametrize("diverged", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 5, 10])
def test_what_diverged_on_some_seeds_is_not_near_for_varying_so_much(
    diverged: int, count: int
) -> None:
    # On k of n seeds it is D below: D k/n in the mean, D sqrt(k (n - k) / (2 n^2 (n - 1))) is the
    # margin, which is less for every k from 1 on.
    best = make_candidate([0.94] * count, 9_000)
    down = make_candidate([0.1] * diverged + [0.94] * (count - diverged), 100)
    margin = 0.84 * math.sqrt(diverged * (count - diverged) / (2 * count**2 * (count - 1)))
    assert own_margin(best, down) == pytest.approx(margin)
    assert chosen(Criteria(), best, down) is best


@pytest.mark.parametrize("luck", [(-0.03, 0.0, 0.03), (0.05, -0.05, 0.0)])
def test_luck_that_all_share_on_a_seed_widens_the_classical_margin_alone(
    luck: tuple[float, ...],
) -> None:
    # Without luck both margins (0.41 and 0.76 points) are below the difference of 1.5 points.
    def pair(luck: tuple[float, ...]) -> list[Candidate]:
        best = [a + shift for a, shift in zip((0.93, 0.94, 0.95), luck, strict=True)]
        small = [0.925 + shift for shift in luck]
        return [make_candidate(best, 9_000), make_candidate(small, 500)]

    plain, shifted = pair((0.0, 0.0, 0.0)), pair(luck)
    assert reasons(*shifted, criteria=Criteria()) == reasons(*plain, criteria=Criteria())
    assert chosen(Criteria(), *shifted) is shifted[0]
    assert chosen(CLASSICAL, *plain) is plain[0]
    assert chosen(CLASSICAL, *shifted) is shifted[1]


def test_what_is_near_by_default_stays_so_whatever_all_share_on_a_seed() -> None:
    luck = (-0.2, 0.01, 0.04)
    best = make_candidate([a + b for a, b in zip(BEST.accuracies, luck, strict=True)], 9_000)
    near = make_candidate([0.932 + shift for shift in luck], 500)
    assert chosen(Criteria(), best, near) is near


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_candidate_alone_is_the_best_mean_and_within_every_margin(correction: str) -> None:
    assert reasons(BEST, criteria=Criteria(correction=correction)) == [
        "Chosen: the best mean, and nothing else within one standard error."
    ]


@pytest.mark.parametrize(
    ("criteria", "margin"),
    [
        # Differences -0.025, 0.005, 0.035: deviation 0.03.
        (Criteria(), 0.03 / math.sqrt(6)),
        (CLASSICAL, math.sqrt(0.0004 * 7 / 12)),
        # Without the best that one is the best itself: it does not differ from itself.
        (Criteria(max_params=8_000), 0.0),
        # By Nadeau and Bengio it has its own error: deviation 0.01.
        (Criteria(max_latency_ms=1.0, correction="nadeau-bengio"), math.sqrt(0.0001 * 7 / 12)),
    ],
)
def test_one_standard_error_is_that_of_the_chosen_one_against_the_best_that_is_allowed(
    criteria: Criteria, margin: float
) -> None:
    best = make_candidate(BEST.accuracies, 9_000, costs=2.0)
    other = make_candidate([0.945, 0.935, 0.925], 8_000, costs=1.0)
    diverged = make_candidate([0.945, 0.1, 0.1], 7_000, costs=1.0)
    found = recommend([best, other, diverged], criteria, FRACTION)
    assert found.winner is other
    assert one_standard_error(found) == pytest.approx(margin)


# Nothing below the baseline for being small, or for its gap


GUARDED = make_candidate([0.936] * 3, 500, is_baseline=True, gaps=0.03)
JUST_BELOW = make_candidate([0.935] * 3, 100, gaps=0.0)
JUST_AS_GOOD = make_candidate([0.936] * 3, 100, gaps=0.0)


def unguarded(candidate: Candidate) -> Candidate:
    return replace(candidate, is_baseline=False)


# Of the three, only the best varies: by default both others have the margin 0.02 over the root
# of 6.
@pytest.mark.parametrize(
    ("correction", "margin"), [("paired", "0.816"), ("nadeau-bengio", "1.528")]
)
def test_one_standard_error_chooses_nothing_below_the_baseline_for_its_size(
    correction: str, margin: str
) -> None:
    criteria = Criteria(correction=correction)
    assert chosen(criteria, BEST, unguarded(GUARDED), JUST_BELOW) is JUST_BELOW
    assert reasons(BEST, GUARDED, JUST_BELOW, criteria=criteria) == [
        "Not chosen: the best mean, but 18.0 times as large.",
        f"Chosen: 0.400 points below the best, within {margin} points, and the smallest of the 2 "
        "within one standard error and not below the baseline.",
        f"Not chosen: 0.500 points below the best, within {margin} points, but below the baseline.",
    ]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_standard_error_takes_a_baseline_that_is_best_though_something_smaller_is_near(
    correction: str,
) -> None:
    best = replace(BEST, is_baseline=True)
    near = make_candidate([0.9395] * 3, 100)
    margin = {"paired": "0.816", "nadeau-bengio": "1.528"}[correction]
    assert reasons(best, near, criteria=Criteria(correction=correction)) == [
        "Chosen: the best mean, and nothing else within one standard error and not below the "
        "baseline.",
        f"Not chosen: 0.050 points below the best, within {margin} points, but below the baseline.",
    ]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_one_standard_error_may_choose_what_is_exactly_as_good_as_the_baseline(
    correction: str,
) -> None:
    criteria = Criteria(correction=correction)
    assert chosen(criteria, BEST, GUARDED, JUST_AS_GOOD) is JUST_AS_GOOD
    assert chosen(criteria, GUARDED, JUST_AS_GOOD) is JUST_AS_GOOD


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_baseline_that_is_far_from_the_best_rules_nothing_out(correction: str) -> None:
    far = make_candidate([0.90] * 3, 50, is_baseline=True)
    assert chosen(Criteria(correction=correction), BEST, far, JUST_BELOW) is JUST_BELOW


def test_smallest_gap_chooses_nothing_below_the_baseline_for_its_gap() -> None:
    criteria = Criteria("smallest-gap", tolerance=0.01)
    best = make_candidate(BEST.accuracies, 9_000, gaps=0.05)
    assert chosen(criteria, best, unguarded(GUARDED), JUST_BELOW) is JUST_BELOW
    assert reasons(best, GUARDED, JUST_BELOW, criteria=criteria) == [
        "Not chosen: a gap of 5.000 points, against 3.000 points.",
        "Chosen: a gap of 3.000 points, the smallest of the 2 within the tolerance.",
        "Not chosen: within the tolerance, but below the baseline.",
    ]


def test_smallest_gap_may_choose_what_is_exactly_as_good_as_the_baseline() -> None:
    criteria = Criteria("smallest-gap", tolerance=0.01)
    best = make_candidate(BEST.accuracies, 9_000, gaps=0.05)
    assert chosen(criteria, best, GUARDED, JUST_AS_GOOD) is JUST_AS_GOOD
    assert chosen(criteria, GUARDED, JUST_AS_GOOD) is JUST_AS_GOOD


def test_what_is_below_the_baseline_by_one_image_is_below_it_and_not_by_the_last_digit() -> None:
    # 997 right answers in both, though the means of the fractions differ in their last digit.
    baseline, same, one_less = (
        make_candidate([right / 360 for right in rights], size, gaps=gap, is_baseline=size == 900)
        for rights, size, gap in (
            ((330, 330, 337), 900, 0.03),
            ((332, 332, 333), 700, 0.02),
            ((332, 332, 332), 100, 0.01),
        )
    )
    best = make_candidate([320 / 360, 333 / 360, 346 / 360], 9_000, gaps=0.05)
    for policy in ("one-standard-error", "smallest-gap"):
        criteria = Criteria(policy, tolerance=0.02)
        assert chosen(criteria, best, unguarded(baseline), same, one_less) is one_less
        assert chosen(criteria, best, baseline, same, one_less) is same


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("policy", ["one-standard-error", "smallest-gap"])
def test_a_baseline_that_a_constraint_rules_out_guards_nothing(
    policy: str, correction: str
) -> None:
    slow = replace(GUARDED, costs=make_costs(3.0))
    best = make_candidate(BEST.accuracies, 9_000, gaps=0.05, costs=1.0)
    small = replace(JUST_BELOW, costs=make_costs(1.0))
    criteria = Criteria(policy, tolerance=0.01, correction=correction)
    assert chosen(criteria, best, slow, small) is slow
    limited = replace(criteria, max_latency_ms=2.0)
    assert chosen(limited, best, slow, small) is small


@pytest.mark.parametrize("policy", ["cheapest-within", "pareto"])
def test_policies_that_spend_accuracy_on_purpose_are_not_guarded(policy: str) -> None:
    # pareto: scaled errors 0, 0.4, 1 and logarithms 1, 0.2, 0 have the distances 1, 0.45, 1.
    baseline = make_candidate([0.94] * 3, 10_000, is_baseline=True, gaps=0.01)
    below = make_candidate([0.938] * 3, 251, gaps=0.01)
    far = make_candidate([0.935] * 3, 100, gaps=0.01)
    criteria = Criteria(policy, tolerance=0.003)
    assert chosen(criteria, baseline, below, far) is below
    found = recommend([baseline, below, far], Criteria(tolerance=0.003), FRACTION)
    assert found.alternatives[policy] == below.config.config_id
    assert found.alternatives["smallest-gap"] == baseline.config.config_id
    assert found.alternatives["one-standard-error"] == baseline.config.config_id


@quick
@given(
    patchy_lists,
    st.sampled_from(["one-standard-error", "smallest-gap"]),
    st.sampled_from(CORRECTIONS),
    st.sampled_from([0.005, 0.02, 0.1]),
)
def test_the_guarded_policies_never_choose_what_is_below_the_baseline(
    candidates: list[Candidate], policy: str, correction: str, tolerance: float
) -> None:
    criteria = Criteria(policy, tolerance, correction=correction)
    found = recommended_or_why_not(candidates, criteria)
    if isinstance(found, Recommendation):
        assert found.winner.mean >= found.baseline.mean
        for row in found.ranked:
            if row.reason.endswith("but below the baseline."):
                assert row.candidate.mean < found.baseline.mean


@quick
@given(patchy_lists)
def test_by_default_the_choice_is_never_below_the_baseline(candidates: list[Candidate]) -> None:
    found = recommend(candidates, Criteria(), FRACTION)
    assert found.winner.mean >= found.baseline.mean


def test_lower_bounds_worked_out_by_hand() -> None:
    # Student's t of 2 degrees of freedom at 0.95 is 2.919986, the root of 7/12 is 0.763763:
    # 0.92 - 2.919986 * 0.763763 * 0.02 and 0.91 - 2.919986 * 0.763763 * 0.005.
    shaky = make_candidate([0.90, 0.92, 0.94], 100)
    steady = make_candidate([0.905, 0.91, 0.915], 200)
    assert reasons(shaky, steady, criteria=Criteria("lower-bound")) == [
        "Not chosen: the lower bound is 87.54%.",
        "Chosen: the highest lower bound is 89.88%.",
    ]


def test_the_knee_of_the_front_worked_out_by_hand() -> None:
    # Scaled error 0, 0.2, 1; scaled logarithm of parameters 1, 0.5, 0.
    # Distances 1, sqrt(0.04 + 0.25) = 0.54, 1. The last one is beaten by the second.
    accurate = make_candidate([0.95] * 3, 10_000)
    knee = make_candidate([0.94] * 3, 1_000)
    small = make_candidate([0.90] * 3, 100)
    beaten = make_candidate([0.93] * 3, 2_000)
    front = "on the front of accuracy and parameters, but no nearer to the ideal"
    assert reasons(accurate, knee, small, beaten, criteria=Criteria("pareto")) == [
        f"Not chosen: {front} (1.00 against 0.54).",
        "Chosen: the knee of the 3 on the front of accuracy and parameters.",
        f"Not chosen: {front} (1.00 against 0.54).",
        f"Not chosen: {called(knee)} is at least as accurate and as small.",
    ]


def test_the_knee_of_a_front_with_latency_worked_out_by_hand() -> None:
    # Scaled logarithms of latency 1, 0.5, 0: distances sqrt(2), sqrt(0.04 + 0.25 + 0.25), 1.
    accurate = make_candidate([0.95] * 3, 10_000, costs=4.0)
    knee = make_candidate([0.94] * 3, 1_000, costs=2.0)
    small = make_candidate([0.90] * 3, 100, costs=1.0)
    beaten = make_candidate([0.93] * 3, 1_000, units=7, costs=2.0)
    front = "on the front of accuracy, parameters and latency, but no nearer to the ideal"
    assert reasons(accurate, knee, small, beaten, criteria=Criteria("pareto")) == [
        f"Not chosen: {front} (1.41 against 0.73).",
        "Chosen: the knee of the 3 on the front of accuracy, parameters and latency.",
        f"Not chosen: {front} (1.00 against 0.73).",
        f"Not chosen: {called(knee)} is at least as accurate, as small and about as fast.",
    ]


def test_speed_alone_keeps_a_candidate_on_the_front() -> None:
    slow = make_candidate([0.95] * 3, 100, costs=2.0)
    fast = make_candidate([0.90] * 3, 200, costs=1.0)
    for reason in reasons(slow, fast, criteria=Criteria("pareto")):
        assert "on the front of" in reason


def test_a_latency_that_was_not_measured_is_not_taken_for_a_low_one() -> None:
    timed = make_candidate([0.95] * 3, 100, units=1, costs=5.0)
    untimed = make_candidate([0.90] * 3, 200, units=2)
    found = recommend([timed, untimed], Criteria("pareto"), FRACTION)
    assert found.winner is timed
    assert found.ranked[1].reason == (
        f"Not chosen: {called(timed)} is at least as accurate and as small."
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_a_single_candidate_is_chosen_and_compared_with_nothing(policy: str) -> None:
    found = recommend([TOP], Criteria(policy), FRACTION)
    assert found.winner is TOP
    assert found.ranked[0].reason.startswith("Chosen: ")
    assert (found.comparisons, found.unseparated) == ((), ())
    assert found.summary.endswith("over 3 fresh seeds.")
    assert set(found.alternatives.values()) == {TOP.config.config_id}


TWIN_REASONS = {  # of one-standard-error with the classical margin
    "one-standard-error": (
        "Not chosen: 0.000 points below the best, within 1.528 points, but no smaller."
    ),
    "best-mean": "Not chosen: the same mean, but no smaller.",
    "lower-bound": "Not chosen: the lower bound is 89.54%.",
    "smallest-gap": (
        "Not chosen: a gap of 2.000 points, as that of the chosen, and no more accurate."
    ),
    "cheapest-within": "Not chosen: 700 parameters, against 700 parameters.",
    "pareto": (
        "Not chosen: on the front of accuracy, parameters and latency, but no nearer to the "
        "ideal (0.00 against 0.00)."
    ),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_of_two_that_are_equal_the_same_one_is_always_chosen(policy: str) -> None:
    twins = [
        make_candidate([0.92, 0.94, 0.96], 700, units=units, gaps=0.02, costs=1.0)
        for units in (1, 2)
    ]
    first = min(twins, key=lambda c: c.config.config_id)
    for order in (twins, twins[::-1]):
        found = recommend(order, replace(CLASSICAL, policy=policy), FRACTION)
        assert found.winner is first
        assert found.ranked[1].reason == TWIN_REASONS[policy]
        assert len(found.unseparated) == 1
        by_default = recommend(order, Criteria(policy), FRACTION)
        assert by_default.winner is first
        # All that they do, they share: nothing is left for the margin.
        expected = TWIN_REASONS[policy].replace("within 1.528 points", "within 0.000 points")
        assert by_default.ranked[1].reason == expected


# Right answers of three runs on 360 images: 997 in both, but the means of the three fractions
# differ in their last digit.
EQUAL_RUNS = [(330, 330, 337), (332, 332, 333)]


@pytest.mark.parametrize("policy", ["best-mean", "pareto"])
@pytest.mark.parametrize("small_first", [True, False])
def test_means_over_equally_many_right_images_tie(policy: str, small_first: bool) -> None:
    small_runs, large_runs = EQUAL_RUNS if small_first else EQUAL_RUNS[::-1]
    small = make_candidate([right / 360 for right in small_runs], 100)
    large = make_candidate([right / 360 for right in large_runs], 900)
    assert sum(small_runs) == sum(large_runs)
    assert chosen(policy, large, small) is small


# Policies by property


def below_best(found: Recommendation) -> dict[str, float]:
    best = max(row.candidate.mean for row in found.ranked)
    return {row.candidate.config.config_id: best - row.candidate.mean for row in found.ranked}


def margins(found: Recommendation) -> dict[str, float]:
    """One standard error of the best, against each candidate; none is ruled out."""
    best = found.ranked[0]
    return {
        row.candidate.config.config_id: (
            paired_standard_error(best.candidate.accuracies, row.candidate.accuracies)
            if found.criteria.correction == "paired"
            else best.standard_error
        )
        for row in found.ranked
    }


def near_best(found: Recommendation) -> list[Candidate]:
    """Those at most one standard error below the best mean, each by its own margin."""
    below, limits = below_best(found), margins(found)
    return [
        row.candidate
        for row in found.ranked
        if below[(key := row.candidate.config.config_id)] <= limits[key] + 1e-9
    ]


@quick
@given(candidate_lists, st.sampled_from(CORRECTIONS))
def test_one_standard_error_is_never_larger_than_the_best_mean_nor_further_than_its_error(
    candidates: list[Candidate], correction: str
) -> None:
    found = recommend(candidates, Criteria(correction=correction), FRACTION)
    best = recommend(candidates, Criteria("best-mean"), FRACTION)
    assert found.winner.parameters <= best.winner.parameters
    near = near_best(found)
    assert found.winner in near
    for candidate in near:
        if candidate.mean >= found.baseline.mean:
            assert found.winner.parameters <= candidate.parameters


@quick
@given(candidate_lists)
def test_without_a_baseline_the_smallest_that_is_near_is_chosen(
    candidates: list[Candidate],
) -> None:
    for criteria in (Criteria(), CLASSICAL):
        found = recommend([unguarded(c) for c in candidates], criteria, FRACTION)
        assert found.winner in near_best(found)
        assert found.winner.parameters == min(c.parameters for c in near_best(found))


def far_from_the_best(found: Recommendation) -> set[str]:
    """Those of which it is said that they are further below than one standard error."""
    return {
        row.candidate.config.config_id
        for row in found.ranked
        if "more than one standard error" in row.reason
    }


any_runs = st.lists(accuracy, min_size=3, max_size=3)
close_runs = st.lists(st.sampled_from([0.9, 0.91, 0.92, 0.95]), min_size=3, max_size=3)
diverged_runs = st.lists(st.sampled_from([0.0, 0.1, 0.9, 0.95]), min_size=3, max_size=3)


@quick
@given(
    st.lists(close_runs | any_runs, min_size=2, max_size=5),
    diverged_runs | close_runs | any_runs,
    sizes,
    st.sampled_from(CORRECTIONS),
    st.booleans(),
)
def test_another_candidate_never_changes_which_of_the_others_are_near_the_best(
    runs: list[list[float]], further: list[float], size: int, correction: str, guarded: bool
) -> None:
    others = [
        make_candidate(values, 1_000 + i, is_baseline=guarded and i == 0)
        for i, values in enumerate(runs)
    ]
    third = make_candidate(further, size, units=7)
    without = recommend(others, Criteria(correction=correction), FRACTION)
    beside = recommend([*others, third], Criteria(correction=correction), FRACTION)
    assume(beside.ranked[0].candidate == without.ranked[0].candidate)
    name = third.config.config_id
    assert far_from_the_best(beside) - {name} == far_from_the_best(without)
    # Nor is anything but itself chosen on its account.
    assert beside.winner in (without.winner, third)
    told = {row.candidate.config.config_id: row.reason for row in beside.ranked}
    if beside.winner == without.winner:
        for row in without.ranked:
            is_chosen = row.candidate == without.winner
            assert is_chosen or told[row.candidate.config.config_id] == row.reason


@quick
@given(st.lists(close_runs | any_runs, min_size=2, max_size=6), st.sampled_from(CORRECTIONS))
def test_each_reason_tells_that_candidates_own_margin(
    runs: list[list[float]], correction: str
) -> None:
    candidates = [make_candidate(values, 100 * 2**i) for i, values in enumerate(runs)]
    found = recommend(candidates, Criteria(correction=correction), FRACTION)
    below, limits = below_best(found), margins(found)
    near = {c.config.config_id for c in near_best(found)}
    best, *others = found.ranked
    assert re.search(r"\d points", best.reason) is None
    for row in others:
        key = row.candidate.config.config_id
        told = f"{points(below[key])} below the best"
        within = f": {told}, within {points(limits[key])},"
        beyond = f": {told}, more than one standard error ({points(limits[key])})."
        assert (within if key in near else beyond) in row.reason


@quick
@given(patchy_lists)
def test_best_mean_is_the_best_mean(candidates: list[Candidate]) -> None:
    found = recommend(candidates, Criteria("best-mean"), FRACTION)
    assert found.winner.mean == max(c.mean for c in candidates)


@quick
@given(patchy_lists, st.sampled_from([0.0, 0.005, 0.02]))
def test_smallest_gap_is_within_tolerance_and_no_gap_within_is_smaller(
    candidates: list[Candidate], tolerance: float
) -> None:
    found = recommended_or_why_not(candidates, Criteria("smallest-gap", tolerance))
    best = max(c.mean for c in candidates)
    within = [
        c
        for c in candidates
        if c.gaps and best - c.mean <= tolerance + 1e-9 and c.mean >= candidates[0].mean
    ]
    assert candidates[0].is_baseline
    if isinstance(found, str):
        assert not within
        return
    assert best - found.winner.mean <= tolerance + 1e-9
    assert abs(found.winner.gap) == min(abs(c.gap) for c in within)


@quick
@given(
    patchy_lists, st.sampled_from([0.0, 0.005, 0.02]), st.sampled_from(["parameters", "latency"])
)
def test_cheapest_within_is_within_tolerance_and_nothing_within_is_cheaper(
    candidates: list[Candidate], tolerance: float, cost: str
) -> None:
    found = recommended_or_why_not(candidates, Criteria("cheapest-within", tolerance, cost))
    best = max(c.mean for c in candidates)
    within = [c for c in candidates if best - c.mean <= tolerance + 1e-9]
    if isinstance(found, str):
        assert cost == "latency"
        assert any(c.costs is None for c in within)
        return
    prices = [c.latency_ms if cost == "latency" else c.parameters for c in within]
    winner = found.winner
    assert winner in within
    assert (winner.latency_ms if cost == "latency" else winner.parameters) == min(prices)


@quick
@given(patchy_lists)
def test_nothing_is_better_in_all_respects_than_what_pareto_picks(
    candidates: list[Candidate],
) -> None:
    winner = recommend(candidates, Criteria("pareto"), FRACTION).winner
    timed = all(c.costs for c in candidates)
    for other in candidates:
        gains = [other.mean - winner.mean, float(winner.parameters - other.parameters)]
        if timed:
            gains.append(winner.latency_ms - other.latency_ms)
        assert min(gains) < 0 or max(gains) == 0


# Hard constraints

WITHIN = {
    "max_params": (1_000_000, {"parameters": 1_000_000}),
    "max_latency_ms": (2.5, {"costs": 2.5}),
    "max_gap": (0.05, {"gaps": (0.05,) * 3}),
    "min_class_recall": (0.7, {"recalls": (0.95, 0.7, math.nan)}),
}
BEYOND = {
    "max_params": (
        {"parameters": 1_000_001},
        "1,000,001 parameters, more than --max-params 1000000",
    ),
    "max_latency_ms": ({"costs": 2.51}, "2.51 ms, more than --max-latency-ms 2.5"),
    "max_gap": ({"gaps": 0.0501}, "a gap of 5.010 points, more than --max-gap 0.05"),
    "min_class_recall": (
        {"recalls": (0.95, 0.699, math.nan)},
        "a class recall of 69.90%, less than --min-class-recall 0.7",
    ),
}
NOT_KNOWN: dict[str, dict[str, Any]] = {
    "max_latency_ms": {},
    "max_gap": {"gaps": (0.1, math.nan, 0.1)},
    "min_class_recall": {"recalls": (math.nan, math.nan)},
}
LIMITS = sorted(WITHIN)


@pytest.mark.parametrize("limit", LIMITS)
def test_a_candidate_at_the_limit_is_allowed(limit: str) -> None:
    value, fields = WITHIN[limit]
    candidate = make_candidate([0.9] * 3, units=1, **fields)
    assert violations(candidate, Criteria(**{limit: value})) == []
    assert violations(candidate, Criteria()) == []


@pytest.mark.parametrize("limit", LIMITS)
def test_a_candidate_beyond_the_limit_is_ruled_out_with_value_and_limit(limit: str) -> None:
    fields, words = BEYOND[limit]
    criteria = Criteria("best-mean", **{limit: WITHIN[limit][0]})
    beyond = make_candidate([0.99] * 3, **{"units": 1, **fields})
    within = make_candidate([0.9] * 3, **{"units": 2, **WITHIN[limit][1]})
    assert violations(beyond, criteria) == [words]
    found = recommend([beyond, within], criteria, FRACTION)
    assert found.winner is within
    assert found.ranked[0].reason == f"Ruled out: {words}."
    assert [row.allowed for row in found.ranked] == [False, True]


@pytest.mark.parametrize("limit", sorted(NOT_KNOWN))
@pytest.mark.parametrize("fields", [True, False], ids=["not a number", "not measured"])
def test_what_was_not_measured_meets_no_limit(limit: str, fields: bool) -> None:
    candidate = make_candidate([0.9] * 3, **(NOT_KNOWN[limit] if fields else {}))
    value = WITHIN[limit][0]
    flag = f"--{limit.replace('_', '-')} {value:g}"
    assert violations(candidate, Criteria(**{limit: value})) == [
        f"{flag} cannot be checked: it was not measured"
    ]


@pytest.mark.parametrize("percentage", range(1, 100))
@pytest.mark.parametrize("count", [3, 5])
def test_a_mean_of_equal_runs_at_the_limit_is_at_the_limit(percentage: int, count: int) -> None:
    limit = percentage / 100
    recall = math.fsum([limit] * count) / count
    candidate = make_candidate([0.9] * count, gaps=limit, recalls=(recall,))
    assert violations(candidate, Criteria(max_gap=limit, min_class_recall=limit)) == []


def test_every_limit_that_is_not_met_is_told() -> None:
    criteria = Criteria(max_params=10, max_latency_ms=1.0, max_gap=0.1, min_class_recall=0.5)
    candidate = make_candidate([0.9] * 3, 11, gaps=0.2, recalls=(0.4, 0.9), costs=3.0)
    assert violations(candidate, criteria) == [
        "11 parameters, more than --max-params 10",
        "3.00 ms, more than --max-latency-ms 1",
        "a gap of 20.000 points, more than --max-gap 0.1",
        "a class recall of 40.00%, less than --min-class-recall 0.5",
    ]


def test_where_all_are_ruled_out_each_is_named_with_value_and_limit() -> None:
    champion = make_candidate([0.92] * 3, 5_000, is_champion=True)
    baseline = make_candidate([0.90] * 3, 2_000, is_baseline=True, costs=1.0)
    criteria = Criteria(max_params=1_500, max_latency_ms=2.0)
    with pytest.raises(ConstraintsUnmet) as caught:
        recommend([BEST, baseline, champion], criteria, FRACTION)
    assert [r.candidate for r in caught.value.ranked] == [BEST, champion, baseline]
    assert not any(r.allowed for r in caught.value.ranked)
    assert loosened(caught.value) == "--max-params 9000", "what was not measured is no advice"
    assert caught.value.ranked[2].reason == (
        "Ruled out: 2,000 parameters, more than --max-params 1500."
    )
    unmeasured = "--max-latency-ms 2 cannot be checked: it was not measured"
    assert str(caught.value) == (
        "No confirmed candidate meets the constraints. "
        f"configuration {BEST.config.config_id}: 9,000 parameters, more than --max-params 1500; "
        f"{unmeasured}. "
        f"the champion's configuration: 5,000 parameters, more than --max-params 1500; "
        f"{unmeasured}. "
        "the baseline: 2,000 parameters, more than --max-params 1500."
    )


def test_one_standard_error_counts_from_the_best_that_is_allowed() -> None:
    # The best is ruled out; the best that is allowed has no spread, so that nothing is near it.
    steady = make_candidate([0.93] * 3, 800)
    near = make_candidate([0.929] * 3, 100)
    assert chosen(CLASSICAL, BEST, steady, near) is near
    found = recommend([BEST, steady, near], replace(CLASSICAL, max_params=8_000), FRACTION)
    assert found.winner is steady


def test_what_is_ruled_out_does_not_widen_the_default_margin_either() -> None:
    # Only the best varies: against both others its margin is 0.02 over the root of 6, 0.0082, and
    # 0.006 is near. Without it nothing varies.
    best = make_candidate([0.915, 0.935, 0.955], 9_000)
    steady = make_candidate([0.93] * 3, 800)
    near = make_candidate([0.929] * 3, 100)
    assert chosen(Criteria(), best, steady, near) is near
    found = recommend([best, steady, near], Criteria(max_params=8_000), FRACTION)
    assert found.winner is steady


@pytest.mark.parametrize(
    ("number", "text"), [(1_000_000, "1000000"), (123_456_789, "123456789"), (0.05, "0.05")]
)
def test_a_limit_is_shown_as_it_was_typed(number: float, text: str) -> None:
    assert as_typed(number) == text


# Against whom, and how sure

FIRST = make_candidate([0.95, 0.96, 0.97, 0.96], 900)
SECOND = make_candidate([0.94, 0.96, 0.96, 0.95], 800)
CHAMPION = make_candidate([0.93, 0.93, 0.95, 0.95], 700, is_champion=True)
BASE = make_candidate([0.90, 0.91, 0.93, 0.91], 600, is_baseline=True)


def test_the_winner_is_compared_with_runner_up_baseline_and_champion() -> None:
    found = recommend([BASE, CHAMPION, SECOND, FIRST], Criteria("best-mean"), FRACTION)
    assert [c.rival for c in found.comparisons] == ["runner-up", "baseline", "champion"]
    raw = []
    for comparison, rival in zip(found.comparisons, (SECOND, BASE, CHAMPION), strict=True):
        differences = [a - b for a, b in zip(FIRST.accuracies, rival.accuracies, strict=True)]
        mean = statistics.fmean(differences)
        error = statistics.stdev(differences) * math.sqrt(1 / 4 + 0.2 / 0.8)
        better = stats.t.cdf(mean / error, df=3)
        assert comparison.config_id == rival.config.config_id
        assert comparison.better == pytest.approx(better)
        assert comparison.p_value == pytest.approx(2 * stats.t.sf(abs(mean / error), df=3))
        reach = stats.t.ppf(0.975, df=3) * error
        assert comparison.difference.value == pytest.approx(mean)
        assert comparison.difference.low == pytest.approx(mean - reach)
        assert comparison.difference.high == pytest.approx(mean + reach)
        raw.append(comparison.p_value)
    adjusted = multipletests(raw, method="holm")[1]
    assert [c.adjusted_p for c in found.comparisons] == pytest.approx(adjusted.tolist())


def test_who_is_runner_up_and_baseline_at_once_is_one_test() -> None:
    found = recommend([BASE, FIRST], Criteria("best-mean"), FRACTION)
    runner_up, baseline = found.comparisons
    assert (runner_up.rival, baseline.rival) == ("runner-up", "baseline")
    assert replace(runner_up, rival="baseline") == baseline
    assert baseline.adjusted_p == baseline.p_value


def test_a_winner_is_not_compared_with_itself() -> None:
    winner = make_candidate([0.95, 0.96, 0.97, 0.96], is_baseline=True, is_champion=True)
    found = recommend([winner, SECOND], Criteria("best-mean"), FRACTION)
    assert [c.rival for c in found.comparisons] == ["runner-up"]


def test_baseline_and_champion_are_compared_though_they_are_ruled_out() -> None:
    criteria = Criteria("best-mean", max_latency_ms=1.0)
    fast = make_candidate([0.95, 0.96, 0.97, 0.96], 900, costs=1.0)
    found = recommend([fast, SECOND, CHAMPION, BASE], criteria, FRACTION)
    assert [c.rival for c in found.comparisons] == ["baseline", "champion"]


def test_the_runner_up_is_the_best_of_the_others_also_where_it_is_better() -> None:
    # Differences -0.04, 0.01, 0.06: deviation 0.05, over the root of 6 a margin of 0.0204.
    found = recommend([BEST, make_candidate([0.96, 0.93, 0.90], 500)], Criteria(), FRACTION)
    assert found.winner is not BEST
    [runner_up] = found.comparisons
    assert runner_up.config_id == BEST.config.config_id
    assert runner_up.difference.value == pytest.approx(-0.01)
    assert runner_up.better < 0.5


@quick
@given(patchy_lists, some_criteria)
def test_what_is_compared_agrees_with_itself(
    candidates: list[Candidate], criteria: Criteria
) -> None:
    found = recommended_or_why_not(candidates, criteria)
    if isinstance(found, str):
        return
    for comparison in found.comparisons:
        assert comparison.config_id != found.winner.config.config_id
        assert 0.0 <= comparison.better <= 1.0
        assert comparison.p_value <= comparison.adjusted_p <= 1.0
        assert comparison.p_value == pytest.approx(
            2 * min(comparison.better, 1 - comparison.better)
        )
        interval = comparison.difference
        assert interval.low <= interval.value <= interval.high
    allowed = [row.candidate for row in found.ranked if row.allowed]
    for candidate in allowed:
        better = probability_better(found.winner.accuracies, candidate.accuracies, FRACTION)
        is_told_apart = candidate is found.winner or max(better, 1 - better) >= 0.95
        assert (candidate.config.config_id not in found.unseparated) == is_told_apart


def test_the_search_score_that_confirmation_took_away_is_told() -> None:
    lucky = replace(FIRST, search_accuracy=0.98)
    found = recommend([lucky, BASE], Criteria("best-mean"), FRACTION)
    assert found.optimism == pytest.approx(0.98 - 0.96)
    assert recommend([BASE], Criteria(), FRACTION).optimism is None


def test_what_each_policy_would_choose_is_told() -> None:
    found = recommend([TOP, EDGE, BELOW], Criteria(), FRACTION)
    top, edge = TOP.config.config_id, EDGE.config.config_id
    # The knee: distances of (0, 1, 0.5), (0.98, 0.36, 1) and (1, 0, 0), scaled.
    assert found.alternatives == {
        "one-standard-error": top,
        "best-mean": top,
        "lower-bound": top,
        "smallest-gap": edge,
        "cheapest-within": edge,
        "pareto": BELOW.config.config_id,
    }
    assert found.alternatives[found.policy] == top


def test_a_policy_that_lacks_what_it_needs_is_no_alternative() -> None:
    found = recommend([BEST], Criteria(cost="latency"), FRACTION)
    assert set(POLICIES) - set(found.alternatives) == {"smallest-gap", "cheapest-within"}


def test_the_summary_lists_what_the_runs_do_not_separate() -> None:
    third = make_candidate([0.95, 0.95, 0.96, 0.97], 850)
    summary = recommend([FIRST, SECOND, third, BASE], Criteria("best-mean"), FRACTION).summary
    assert summary.endswith(
        f"The paired runs do not separate the recommended one from {third.config.config_id} and "
        f"{SECOND.config.config_id}."
    )


def test_the_summary_says_where_the_runs_separate_all() -> None:
    summary = recommend([FIRST, BASE], Criteria("best-mean"), FRACTION).summary
    assert summary.endswith("By the paired runs it is more accurate than every other candidate.")


def test_what_is_surely_better_than_the_chosen_one_is_told_apart_from_it_as_well() -> None:
    better = make_candidate([0.93, 0.95, 0.97], 9_000)
    chosen_for_its_size = make_candidate([0.92, 0.94, 0.96], 500)
    found = recommend([better, chosen_for_its_size], CLASSICAL, FRACTION)
    assert found.winner is chosen_for_its_size
    assert found.comparisons[0].better < 0.05
    assert found.unseparated == ()


def test_the_summary_names_who_would_surely_be_more_accurate_than_a_smaller_choice() -> None:
    better = make_candidate([0.9601, 0.9701, 0.9651, 0.9551], 9_000)
    small = make_candidate([0.9600, 0.9700, 0.9650, 0.9550], 900)
    made = recommend([better, small], CLASSICAL, FRACTION)
    assert made.winner is small
    assert made.unseparated == ()
    name = better.config.config_id
    assert made.summary.endswith(f"By the paired runs {name} would be more accurate.")


def test_the_summary_names_who_is_surely_more_accurate_beside_whom_it_cannot_separate() -> None:
    # Two are 0.01 and 0.02 points above the small one on every seed. Of the baseline's differences,
    # 0.03, 0.01, -0.01, 0.01, the mean is 0.01 and the deviation 0.0163: with the root of 1/4 + 1/4
    # t is 0.87, which separates nothing.
    better = make_candidate([0.9601, 0.9701, 0.9651, 0.9551], 9_000)
    best = make_candidate([0.9602, 0.9702, 0.9652, 0.9552], 9_500)
    small = make_candidate([0.9600, 0.9700, 0.9650, 0.9550], 900)
    baseline = make_candidate([0.9300, 0.9600, 0.9750, 0.9450], 1_000, is_baseline=True)
    made = recommend([baseline, small, best, better], CLASSICAL, FRACTION)
    assert made.winner is small
    assert made.unseparated == (baseline.config.config_id,)
    assert made.summary.endswith(
        f"over 4 fresh seeds. By the paired runs {best.config.config_id} and "
        f"{better.config.config_id} would be more accurate. The paired runs do not separate "
        "the recommended one from the baseline."
    )


def test_who_is_more_accurate_but_not_surely_so_is_named_once() -> None:
    # Differences of the baseline from the small one 0.005, -0.01, 0.01, 0: mean 0.00125 and
    # deviation 0.0085, so that t is 0.21.
    surely = make_candidate([0.9601, 0.9701, 0.9651, 0.9551], 9_000)
    perhaps = make_candidate([0.9650, 0.9600, 0.9750, 0.9550], 9_500, is_baseline=True)
    small = make_candidate([0.9600, 0.9700, 0.9650, 0.9550], 900)
    made = recommend([surely, perhaps, small], Criteria("cheapest-within"), FRACTION)
    assert made.winner is small
    assert perhaps.mean > surely.mean > small.mean
    assert made.summary.endswith(
        f"By the paired runs {surely.config.config_id} would be more accurate. The paired runs do "
        "not separate the recommended one from the baseline."
    )


def test_the_summary_does_not_call_separate_what_was_ruled_out() -> None:
    twin = make_candidate(FIRST.accuracies, 5_000)
    criteria = Criteria("best-mean", max_params=900)
    assert recommend([FIRST, twin], criteria, FRACTION).summary.endswith("over 4 fresh seeds.")
    summary = recommend([FIRST, twin, BASE], criteria, FRACTION).summary
    assert summary.endswith(
        "By the paired runs it is more accurate than every other candidate that meets the "
        "constraints."
    )


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ({"is_baseline": True}, "the baseline"),
        ({"is_champion": True}, "the champion's configuration"),
        ({"is_baseline": True, "is_champion": True}, "the baseline"),
        ({}, f"configuration {make_config(64).config_id}"),
    ],
)
def test_a_candidate_is_called_what_people_know_it_by(flags: dict[str, bool], name: str) -> None:
    assert called(make_candidate([0.9, 0.9], 64, **flags)) == name


# From the ledger's trials to candidates

BASELINE = TrialConfig()
OTHER = make_config(64)


def confirmed(
    config: TrialConfig, *values: float, start: int, parameters: int = 1_000, **fields: Any
) -> list[TrialRecord]:
    return [
        make_trial(
            start + index,
            phase=Phase.CONFIRM,
            config=config,
            seed=100 + index,
            val_accuracy=value,
            parameters=parameters,
            **fields,
        )
        for index, value in enumerate(values)
    ]


def test_confirmed_candidates_pair_the_runs_in_the_order_of_their_numbers() -> None:
    trials = [
        make_trial(0, config=OTHER, val_accuracy=0.97),
        *confirmed(BASELINE, 0.90, 0.91, 0.92, start=1, parameters=700),
        *confirmed(OTHER, 0.93, 0.94, 0.95, start=4, parameters=300),
    ]
    found = confirmed_candidates(trials[::-1], BASELINE.config_id)
    known: dict[str, Any] = {
        "gaps": (0.1, 0.1, 0.1),
        "recalls": (math.fsum([0.9] * 3) / 3, math.fsum([0.7] * 3) / 3),
    }
    assert found == [
        Candidate(BASELINE, (0.90, 0.91, 0.92), (1, 2, 3), 700, None, True, **known),
        Candidate(OTHER, (0.93, 0.94, 0.95), (4, 5, 6), 300, 0.97, False, **known),
    ]


def test_the_accuracy_in_the_search_is_the_best_one_that_made_it_a_finalist() -> None:
    trials = [
        make_trial(0, config=OTHER, val_accuracy=0.95),
        make_trial(1, config=OTHER, val_accuracy=0.90),
        *confirmed(BASELINE, 0.80, 0.80, start=2),
        *confirmed(OTHER, 0.90, 0.90, start=4),
    ]
    [_, found] = confirmed_candidates(trials, BASELINE.config_id)
    assert (found.config, found.search_accuracy) == (OTHER, 0.95)


def test_a_score_of_a_trial_that_was_stopped_early_is_not_called_optimism() -> None:
    trials = [
        make_trial(0, config=OTHER, val_accuracy=0.80, state=State.STOPPED, rung=2),
        *confirmed(BASELINE, 0.80, 0.80, start=2),
        *confirmed(OTHER, 0.97, 0.97, start=4),
    ]
    [_, found] = confirmed_candidates(trials, BASELINE.config_id)
    assert (found.config, found.search_accuracy) == (OTHER, None)


def test_a_baseline_that_the_search_came_upon_is_no_finalist_of_it() -> None:
    trials = [
        make_trial(0, config=BASELINE, val_accuracy=0.95),
        *confirmed(BASELINE, 0.80, 0.80, start=1),
    ]
    [found] = confirmed_candidates(trials, BASELINE.config_id)
    assert found.is_baseline
    assert found.search_accuracy is None


@pytest.mark.parametrize("values", [(0.93,), (0.93, 0.94)], ids=["one run", "two runs"])
def test_a_configuration_with_fewer_runs_than_the_baseline_is_left_out(
    values: tuple[float, ...],
) -> None:
    trials = [
        *confirmed(BASELINE, 0.90, 0.91, 0.92, start=0),
        *confirmed(OTHER, *values, start=3),
    ]
    found = confirmed_candidates(trials, BASELINE.config_id)
    assert [candidate.config for candidate in found] == [BASELINE]
    assert recommend(found, Criteria("one-standard-error"), FRACTION).winner.is_baseline


def test_a_configuration_of_which_a_run_failed_is_left_out() -> None:
    trials = [
        *confirmed(BASELINE, 0.90, 0.91, start=0),
        *confirmed(OTHER, 0.93, start=2),
        make_trial(
            3,
            phase=Phase.CONFIRM,
            seed=101,
            config=OTHER,
            state=State.FAILED,
            reason="loss is not finite",
            totals=None,
        ),
    ]
    found = confirmed_candidates(trials, BASELINE.config_id)
    assert [candidate.config for candidate in found] == [BASELINE]


def test_a_failed_run_does_not_count_with_the_totals_it_had_before_it_failed() -> None:
    trials = [
        *confirmed(BASELINE, 0.90, 0.91, start=0),
        *confirmed(OTHER, 0.93, start=2),
        *confirmed(OTHER, 0.99, start=3, state=State.FAILED),
    ]
    found = confirmed_candidates(trials, BASELINE.config_id)
    assert [candidate.config for candidate in found] == [BASELINE]


def test_a_configuration_of_which_a_run_is_unfinished_is_left_out() -> None:
    trials = [
        *confirmed(BASELINE, 0.90, 0.91, start=0),
        *confirmed(OTHER, 0.93, start=2),
        *confirmed(OTHER, 0.99, start=3, state=State.RUNNING),
    ]
    found = confirmed_candidates(trials, BASELINE.config_id)
    assert [candidate.config for candidate in found] == [BASELINE]


def test_a_baseline_that_failed_ends_the_study_with_its_reason() -> None:
    trials = [
        *confirmed(BASELINE, 0.90, start=0),
        *confirmed(BASELINE, 0.91, start=1, state=State.FAILED, reason="out of memory"),
        *confirmed(OTHER, 0.93, 0.94, start=2),
    ]
    with pytest.raises(StudyFailed, match=r"baseline failed .*out of memory"):
        confirmed_candidates(trials, BASELINE.config_id)


def test_a_baseline_that_is_unfinished_ends_the_study() -> None:
    trials = confirmed(BASELINE, 0.90, start=0, state=State.RUNNING)
    with pytest.raises(StudyFailed, match=r"baseline .*unfinished"):
        confirmed_candidates(trials, BASELINE.config_id)


def test_without_a_confirmed_baseline_there_is_nothing_to_compare_with() -> None:
    trials = [make_trial(0), *confirmed(OTHER, 0.93, 0.94, start=1)]
    with pytest.raises(StudyFailed, match="no baseline"):
        confirmed_candidates(trials, BASELINE.config_id)


def test_the_trials_of_the_search_are_no_confirmation() -> None:
    trials = [make_trial(number, config=BASELINE) for number in range(3)]
    with pytest.raises(StudyFailed, match="Nothing was confirmed"):
        confirmed_candidates(trials, BASELINE.config_id)


# What else is known of a candidate


def test_candidates_know_the_champion_and_their_costs() -> None:
    trials = [*confirmed(BASELINE, 0.90, 0.91, start=0), *confirmed(OTHER, 0.93, 0.94, start=2)]
    costs = make_costs(3.0)
    baseline, champion = confirmed_candidates(
        trials, BASELINE.config_id, OTHER.config_id, {OTHER.config_id: costs, "other": costs}
    )
    assert (baseline.is_champion, baseline.costs) == (False, None)
    assert (champion.is_champion, champion.costs) == (True, costs)
    assert champion.latency_ms == 3.0
    assert math.isnan(baseline.latency_ms)


def test_the_baseline_may_be_the_champions_configuration() -> None:
    trials = confirmed(BASELINE, 0.90, 0.91, start=0)
    [found] = confirmed_candidates(trials, BASELINE.config_id, BASELINE.config_id)
    assert (found.is_baseline, found.is_champion) == (True, True)


def measured(*measures: Any, gaps: tuple[float, ...] = (0.1, 0.3)) -> Candidate:
    """The baseline, confirmed in two runs with these measures."""
    totals = [make_totals(measures=m, gap=gap) for m, gap in zip(measures, gaps, strict=True)]
    trials = [
        make_trial(i, phase=Phase.CONFIRM, config=BASELINE, seed=100 + i, totals=t)
        for i, t in enumerate(totals)
    ]
    [found] = confirmed_candidates(trials, BASELINE.config_id)
    return found


def test_gaps_are_of_each_run_and_recalls_are_means_over_the_runs() -> None:
    found = measured(make_measures(recall=(0.9, 0.7)), make_measures(recall=(0.7, 0.8)))
    assert found.gaps == (0.1, 0.3)
    assert found.gap == pytest.approx(0.2)
    assert found.recalls == pytest.approx((0.8, 0.75))
    assert found.lowest_recall == pytest.approx(0.75)


def test_a_class_that_is_missing_from_validation_has_no_recall_rather_than_none_found() -> None:
    missing = make_measures(recall=(0.9, 0.0), confusion=((9, 1), (0, 0)))
    assert math.isnan(measured(missing, missing).recalls[1])
    assert measured(missing, missing).lowest_recall == pytest.approx(0.9)
    assert measured(missing, make_measures(recall=(0.7, 0.6))).recalls == pytest.approx((0.8, 0.6))


# For people


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.97531, "97.53%"), (1.0, "100.00%"), (0.0, "0.00%")]
)
def test_a_fraction_is_read_as_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_a_difference_is_read_as_points() -> None:
    assert points(0.003121) == "0.312 points"
