from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.records import (
    Candidate,
    ConfigError,
    Phase,
    State,
    StudyFailed,
    TrialRecord,
)
from search.selection import (
    RULES,
    confirmed_candidates,
    corrected_standard_error,
    mcnemar_p_value,
    percent,
    points,
    probability_better,
    recommend,
    wilson_interval,
)
from search.settings import POLICIES
from spaces.config import TrialConfig
from tests.builders import make_candidate, make_config, make_trial, quick

FRACTION = 0.2

# Statistics


def test_standard_error_of_nadeau_and_bengio_worked_out_by_hand() -> None:
    # variance 0.0004; 1/3 + 0.2/0.8 = 7/12
    expected = math.sqrt(0.0004 * 7 / 12)
    assert corrected_standard_error([0.90, 0.92, 0.94], 0.2) == pytest.approx(expected)
    assert expected == pytest.approx(0.015275, abs=1e-6)


def test_standard_error_of_two_runs_worked_out_by_hand() -> None:
    # variance 0.0002; 1/2 + 0.5/0.5 = 3/2
    assert corrected_standard_error([0.5, 0.52], 0.5) == pytest.approx(math.sqrt(0.0003))


def test_standard_error_of_runs_that_agree_is_zero() -> None:
    assert corrected_standard_error([0.75, 0.75, 0.75], 0.2) == 0.0


accuracy = st.floats(0.0, 1.0).map(lambda value: round(value, 4))
accuracies = st.lists(accuracy, min_size=2, max_size=8)


@quick
@given(accuracies, st.floats(0.01, 0.9))
def test_overlapping_splits_are_never_surer_than_independent_ones(
    values: list[float], fraction: float
) -> None:
    naive = statistics.stdev(values) / math.sqrt(len(values))
    assert corrected_standard_error(values, fraction) >= naive


def wilson_by_hand(hits: int, count: int) -> tuple[float, float]:
    z = statistics.NormalDist().inv_cdf(0.975)
    share = hits / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)


@quick
@given(st.integers(1, 20_000), st.floats(0, 1))
def test_wilson_interval_is_the_formula_of_wilson(count: int, share: float) -> None:
    hits = round(count * share)
    interval = wilson_interval(hits, count)
    low, high = wilson_by_hand(hits, count)
    assert interval.value == hits / count
    assert interval.low == pytest.approx(low, abs=1e-9)
    assert interval.high == pytest.approx(high, abs=1e-9)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


def test_wilson_interval_agrees_with_scipy_and_with_a_published_value() -> None:
    interval = wilson_interval(81, 263)
    bounds = stats.binomtest(81, 263).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == (bounds.low, bounds.high)
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (1, 9, 22 / 1024),
        (9, 1, 22 / 1024),
        (0, 6, 2 / 64),
        (0, 5, 2 / 32),
        (3, 4, 1.0),
    ],
)
def test_mcnemar_p_value_worked_out_by_hand(first: int, second: int, p_value: float) -> None:
    assert mcnemar_p_value(first, second) == pytest.approx(p_value)


@quick
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_p_value_is_twice_the_smaller_tail_and_symmetric(first: int, second: int) -> None:
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n
    assert mcnemar_p_value(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)
    assert mcnemar_p_value(first, second) == mcnemar_p_value(second, first)


def test_mcnemar_agrees_with_scipy_on_many_images() -> None:
    assert mcnemar_p_value(130, 95) == pytest.approx(stats.binomtest(130, 225, 0.5).pvalue)


# The probability that one is better


def test_probability_better_is_the_corrected_t_posterior() -> None:
    first, second = make_candidate([0.93, 0.95, 0.94]), make_candidate([0.92, 0.91, 0.93])
    differences = [0.01, 0.04, 0.01]
    error = math.sqrt(statistics.variance(differences) * (1 / 3 + 0.25))
    expected = stats.t.cdf(statistics.fmean(differences) / error, df=2)
    assert probability_better(first, second, FRACTION) == pytest.approx(expected)
    assert 0.5 < expected < 1.0


def test_probability_better_of_runs_that_never_differ_is_one_half() -> None:
    candidate = make_candidate([0.9, 0.8, 0.7])
    assert probability_better(candidate, candidate, FRACTION) == 0.5


def test_probability_better_of_a_constant_advantage_is_certain() -> None:
    first, second = make_candidate([0.75, 0.5]), make_candidate([0.5, 0.25])
    assert probability_better(first, second, FRACTION) == 1.0
    assert probability_better(second, first, FRACTION) == 0.0


def test_probability_better_looks_at_pairs_and_not_only_at_means() -> None:
    paired = probability_better(
        make_candidate([0.91, 0.82, 0.73]), make_candidate([0.90, 0.80, 0.72]), FRACTION
    )
    crossed = probability_better(
        make_candidate([0.91, 0.82, 0.73]), make_candidate([0.72, 0.80, 0.90]), FRACTION
    )
    assert paired > 0.9
    assert crossed < 0.6


def test_probability_better_refuses_runs_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        probability_better(make_candidate([0.9, 0.8, 0.7]), make_candidate([0.9, 0.8]), FRACTION)


@quick
@given(st.lists(st.tuples(accuracy, accuracy), min_size=2, max_size=6))
def test_probability_better_and_worse_add_up_to_one(pairs: list[tuple[float, float]]) -> None:
    first = make_candidate([a for a, _ in pairs])
    second = make_candidate([b for _, b in pairs])
    better = probability_better(first, second, FRACTION)
    assert 0.0 <= better <= 1.0
    assert better + probability_better(second, first, FRACTION) == pytest.approx(1.0)
    gap = first.mean - second.mean
    if abs(gap) > 1e-9:
        assert (better > 0.5) == (gap > 0)


# Policies


def chosen(policy: str, *candidates: Candidate) -> Candidate:
    return recommend(candidates, policy, FRACTION).winner


# Mean 0.94, standard error 0.015275: whatever reaches 0.924725 is near.
BEST = make_candidate([0.92, 0.94, 0.96], 9_000)


def test_one_standard_error_takes_the_smallest_within_the_margin() -> None:
    near = make_candidate([0.925] * 3, 500)
    far = make_candidate([0.924] * 3, 100)
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    assert chosen("one-standard-error", BEST, near, far, baseline) is near


def test_one_standard_error_takes_the_best_where_nothing_else_is_near() -> None:
    baseline = make_candidate([0.924] * 3, 200, is_baseline=True)
    recommendation = recommend([baseline, BEST], "one-standard-error", FRACTION)
    assert recommendation.winner is BEST
    assert recommendation.ranked[0].reason == (
        "Chosen: the best mean, and nothing else within one standard error (1.528 points)."
    )
    assert recommendation.ranked[1].reason == (
        "Not chosen: 1.600 points below the best, more than one standard error (1.528 points)."
    )


def test_one_standard_error_takes_the_best_where_it_is_the_smallest() -> None:
    small = make_candidate([0.92, 0.94, 0.96], 100)
    baseline = make_candidate([0.93] * 3, 200, is_baseline=True)
    assert chosen("one-standard-error", small, baseline) is small


def test_one_standard_error_uses_the_error_of_the_best_and_not_of_the_others() -> None:
    best = make_candidate([0.94, 0.94, 0.94], 9_000)
    shaky = make_candidate([0.80, 0.93, 0.99], 100)
    baseline = make_candidate([0.9] * 3, 200, is_baseline=True)
    assert chosen("one-standard-error", best, shaky, baseline) is best


def test_one_standard_error_takes_the_better_of_two_of_the_same_size() -> None:
    better = make_candidate([0.935] * 3, 500, units=1)
    worse = make_candidate([0.930] * 3, 500, units=2)
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    assert chosen("one-standard-error", worse, BEST, better, baseline) is better


def test_one_standard_error_says_how_much_larger_the_others_are() -> None:
    near = make_candidate([0.93] * 3, 500, is_baseline=True)
    recommendation = recommend([BEST, near], "one-standard-error", FRACTION)
    assert recommendation.ranked[0].reason == (
        "Not chosen: the best mean, but 18.0 times as large."
    )
    assert recommendation.ranked[1].reason == (
        "Chosen: 1.000 points below the best, within 1.528 points, "
        "and the smallest of the 2 within that margin."
    )
    assert recommendation.summary.startswith("Recommended: the baseline, 500 parameters")


def test_one_standard_error_does_not_call_the_best_no_better_where_it_is_hardly_larger() -> None:
    best = make_candidate([0.905, 0.915, 0.925], 103)
    baseline = make_candidate([0.90, 0.91, 0.92], 100, is_baseline=True)
    recommendation = recommend([baseline, best], "one-standard-error", FRACTION)
    assert recommendation.winner is baseline
    assert recommendation.ranked[0].reason == "Not chosen: the best mean, but slightly larger."


def test_best_mean_takes_the_highest_whatever_its_size() -> None:
    near = make_candidate([0.9399] * 3, 1, is_baseline=True)
    recommendation = recommend([near, BEST], "best-mean", FRACTION)
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
    recommendation = recommend([shaky, steady], "lower-bound", FRACTION)
    assert shaky.mean > steady.mean
    assert recommendation.winner is steady
    assert "Chosen: the highest lower bound is" in recommendation.ranked[1].reason
    assert recommendation.ranked[0].reason.startswith("Not chosen: the lower bound is")


@quick
@given(st.lists(accuracies.filter(lambda v: len(v) >= 3), min_size=2, max_size=5))
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
    recommendation = recommend(candidates, "lower-bound", FRACTION)
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
        recommend([BEST], "best-meen", FRACTION)
    assert "'best-meen'" in str(caught.value)
    assert "Did you mean 'best-mean'?" in str(caught.value)
    assert all(policy in str(caught.value) for policy in POLICIES)


def test_every_policy_of_the_settings_has_its_rule() -> None:
    assert set(RULES) == set(POLICIES)


candidate_lists = st.lists(
    st.tuples(
        st.lists(st.sampled_from([0.9, 0.91, 0.92, 0.95]), min_size=3, max_size=3),
        st.sampled_from([100, 101, 500, 5_000]),
    ),
    min_size=1,
    max_size=6,
).map(
    lambda rows: [
        make_candidate(values, size, is_baseline=index == 0, units=index + 1)
        for index, (values, size) in enumerate(rows)
    ]
)


@quick
@given(candidate_lists, st.sampled_from(POLICIES), st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    candidates: list[Candidate], policy: str, random: Any
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert recommend(shuffled, policy, FRACTION) == recommend(candidates, policy, FRACTION)


@quick
@given(candidate_lists, st.sampled_from(POLICIES))
def test_every_candidate_gets_exactly_one_sentence_and_one_is_chosen(
    candidates: list[Candidate], policy: str
) -> None:
    recommendation = recommend(candidates, policy, FRACTION)
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
    recommendation = recommend(candidates, "one-standard-error", FRACTION)
    best, winner = recommendation.ranked[0], recommendation.winner
    assert best.candidate.mean - winner.mean <= best.standard_error
    assert winner.parameters <= best.candidate.parameters


def test_the_summary_says_who_how_large_how_good_and_how_sure() -> None:
    baseline = make_candidate([0.90] * 3, 200, is_baseline=True)
    summary = recommend([baseline, BEST], "best-mean", FRACTION).summary
    assert summary == (
        f"Recommended: configuration {BEST.config.config_id}, 9,000 parameters, validation "
        "accuracy 94.00% (standard error 1.528 points) over 3 fresh seeds."
    )


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
    assert found == [
        Candidate(BASELINE, (0.90, 0.91, 0.92), (1, 2, 3), 700, None, True),
        Candidate(OTHER, (0.93, 0.94, 0.95), (4, 5, 6), 300, 0.97, False),
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
    assert recommend(found, "one-standard-error", FRACTION).winner.is_baseline


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


# For people


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.97531, "97.53%"), (1.0, "100.00%"), (0.0, "0.00%")]
)
def test_a_fraction_is_read_as_percent(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_a_difference_is_read_as_points() -> None:
    assert points(0.003121) == "0.312 points"
