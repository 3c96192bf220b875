"""Statistics against values worked out by hand, SciPy, statsmodels and what must always hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from search.inference import (
    corrected_standard_error,
    holm,
    mcnemar_p_value,
    paired_difference,
    paired_proportions,
    paired_standard_error,
    probability_better,
    runs_to_separate,
    wilson_interval,
)
from tests.builders import quick

FRACTION = 0.2

accuracy = st.floats(0.0, 1.0).map(lambda value: round(value, 4))
accuracies = st.lists(accuracy, min_size=2, max_size=8)
pairs = st.lists(st.tuples(accuracy, accuracy), min_size=2, max_size=6)


def columns(rows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in rows], [b for _, b in rows]


# The standard error of a mean


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


@quick
@given(accuracies, st.floats(0.01, 0.9))
def test_overlapping_splits_are_never_surer_than_independent_ones(
    values: list[float], fraction: float
) -> None:
    naive = statistics.stdev(values) / math.sqrt(len(values))
    assert corrected_standard_error(values, fraction) >= naive


@quick
@given(accuracies)
def test_without_overlap_the_standard_error_is_the_usual_one_of_scipy(values: list[float]) -> None:
    assert corrected_standard_error(values, 0.0) == pytest.approx(stats.sem(values), abs=1e-12)


@quick
@given(accuracies, st.randoms(use_true_random=False))
def test_the_standard_error_does_not_depend_on_the_order_of_the_runs(
    values: list[float], random: object
) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert corrected_standard_error(shuffled, 0.2) == corrected_standard_error(values, 0.2)


# The same without what two share on a seed


def test_paired_standard_error_worked_out_by_hand() -> None:
    # Differences 0, 0.02, 0.04: variance 0.0004, of which half is the own one of each; over 3 runs.
    expected = math.sqrt(0.0004 / 2 / 3)
    assert expected == pytest.approx(0.008165, abs=1e-6)
    first, second = [0.90, 0.92, 0.94], [0.90, 0.90, 0.90]
    assert paired_standard_error(first, second) == pytest.approx(expected)
    assert paired_standard_error(second, first) == pytest.approx(expected)


def test_paired_standard_errors_of_three_pairs_worked_out_by_hand() -> None:
    # Differences -0.02, 0.02, 0 and 0.02, 0.01, 0.06 and 0.04, -0.01, 0.06: variances 0.0004,
    # 0.0007 and 0.0013, of which half counts, over 3 runs.
    one, two, three = [0.90, 0.92, 0.94], [0.92, 0.90, 0.94], [0.88, 0.91, 0.88]
    found = [paired_standard_error(*pair) for pair in ((one, two), (one, three), (two, three))]
    assert found == pytest.approx([math.sqrt(v / 6) for v in (0.0004, 0.0007, 0.0013)])


def test_paired_standard_error_of_two_runs_worked_out_by_hand() -> None:
    # Differences 0.25 and 0.5: variance 1/32, of which half counts, over 2 runs.
    assert paired_standard_error([0.5, 0.75], [0.25, 0.25]) == pytest.approx(math.sqrt(1 / 128))


@quick
@given(pairs)
def test_the_paired_standard_error_is_scipys_of_the_difference_over_the_root_of_two(
    rows: list[tuple[float, float]],
) -> None:
    # Both vary alike, so that the difference has twice the variance of either.
    error = stats.sem([a - b for a, b in rows]) / math.sqrt(2)
    assert paired_standard_error(*columns(rows)) == pytest.approx(error, abs=1e-12)


@quick
@given(pairs)
def test_the_paired_standard_error_is_cousineaus_with_moreys_correction_for_two(
    rows: list[tuple[float, float]],
) -> None:
    on_seeds = [statistics.fmean(seed) for seed in rows]
    for values in columns(rows):
        residual = [a - middle for a, middle in zip(values, on_seeds, strict=True)]
        expected = statistics.stdev(residual) * math.sqrt(2 / 1) / math.sqrt(len(rows))
        assert paired_standard_error(*columns(rows)) == pytest.approx(expected, abs=1e-12)


@quick
@given(pairs)
def test_the_square_of_the_paired_standard_error_is_what_a_two_way_layout_leaves(
    rows: list[tuple[float, float]],
) -> None:
    # The residual mean square of a two-way layout without repetition, over the number of seeds:
    # what Morey's correction is for.
    runs, seeds = columns(rows), len(rows)
    middle = statistics.fmean(a for row in rows for a in row)
    means = [statistics.fmean(values) for values in runs]
    on_seeds = [statistics.fmean(seed) for seed in rows]
    squares = sum(
        (runs[i][k] - means[i] - on_seeds[k] + middle) ** 2 for i in range(2) for k in range(seeds)
    )
    expected = squares / (seeds - 1) / seeds
    assert paired_standard_error(*runs) ** 2 == pytest.approx(expected, abs=1e-12)


@quick
@given(accuracies, accuracy)
def test_beside_one_that_never_varies_half_of_the_variance_counts(
    values: list[float], steady: float
) -> None:
    expected = stats.sem(values) / math.sqrt(2)
    found = paired_standard_error(values, [steady] * len(values))
    assert found == pytest.approx(expected, abs=1e-12)


@quick
@given(accuracies)
def test_beside_itself_nothing_has_a_paired_error(values: list[float]) -> None:
    assert paired_standard_error(values, values) == 0.0


@quick
@given(pairs, st.data())
def test_what_both_share_on_a_seed_does_not_count(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    luck = data.draw(st.lists(accuracy, min_size=len(rows), max_size=len(rows)))
    shifted = [(a + shift, b + shift) for (a, b), shift in zip(rows, luck, strict=True)]
    assert paired_standard_error(*columns(shifted)) == pytest.approx(
        paired_standard_error(*columns(rows)), abs=1e-12
    )


def test_two_that_differ_alike_on_every_seed_have_no_paired_error() -> None:
    first, second = [0.5, 0.75, 0.625], [0.25, 0.5, 0.375]
    assert paired_standard_error(first, second) == 0.0
    assert corrected_standard_error(first, 0.2) > 0.05


@quick
@given(pairs, st.data())
def test_neither_the_order_of_the_two_nor_that_of_the_seeds_matters(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    first, second = columns(rows)
    found = paired_standard_error(first, second)
    assert paired_standard_error(second, first) == found
    shuffled = data.draw(st.permutations(rows))
    assert paired_standard_error(*columns(shuffled)) == found


@pytest.mark.parametrize("shorter_first", [True, False])
def test_a_paired_standard_error_refuses_runs_that_are_not_paired(shorter_first: bool) -> None:
    runs = [0.9, 0.8], [0.9, 0.8, 0.7]
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paired_standard_error(*(runs if shorter_first else runs[::-1]))


# The difference of two means over paired runs


def test_a_paired_difference_worked_out_by_hand() -> None:
    # Differences 0, 0.02, 0.04: mean 0.02, deviation 0.02, error 0.02 * sqrt(7/12);
    # Student's t of 2 degrees of freedom is 4.302653 at 0.975.
    found = paired_difference([0.90, 0.92, 0.94], [0.90, 0.90, 0.90], 0.2)
    reach = 4.302653 * 0.02 * math.sqrt(7 / 12)
    assert reach == pytest.approx(0.065724, abs=1e-6)
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach), abs=1e-7)


@quick
@given(pairs)
def test_without_overlap_a_paired_difference_is_the_paired_t_test_of_scipy(
    rows: list[tuple[float, float]],
) -> None:
    first, second = columns(rows)
    assume(statistics.pstdev(a - b for a, b in rows) > 1e-6)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = paired_difference(first, second, 0.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    greater = stats.ttest_rel(first, second, alternative="greater").pvalue
    assert probability_better(first, second, 0.0) == pytest.approx(1 - greater, abs=1e-9)


@quick
@given(pairs)
def test_a_paired_difference_contains_its_value_and_mirrors_when_swapped(
    rows: list[tuple[float, float]],
) -> None:
    first, second = columns(rows)
    found, mirrored = (
        paired_difference(first, second, FRACTION),
        paired_difference(second, first, FRACTION),
    )
    assert found.low <= found.value <= found.high
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx(
        (-found.value, -found.high, -found.low), abs=1e-12
    )


@quick
@given(pairs)
def test_the_interval_leaves_out_zero_exactly_where_the_probability_says_so(
    rows: list[tuple[float, float]],
) -> None:
    first, second = columns(rows)
    better = probability_better(first, second, FRACTION)
    assume(abs(better - 0.975) > 1e-6)
    assert (paired_difference(first, second, FRACTION).low > 0) == (better > 0.975)


def test_a_difference_of_runs_that_always_differ_equally_is_certain() -> None:
    found = paired_difference([0.75, 0.5], [0.5, 0.25], FRACTION)
    assert (found.value, found.low, found.high) == (0.25, 0.25, 0.25)


def test_a_paired_difference_refuses_runs_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.9, 0.8, 0.7], [0.9, 0.8], FRACTION)


# The probability that one is better


def test_probability_better_is_the_corrected_t_posterior() -> None:
    first, second = [0.93, 0.95, 0.94], [0.92, 0.91, 0.93]
    differences = [0.01, 0.04, 0.01]
    error = math.sqrt(statistics.variance(differences) * (1 / 3 + 0.25))
    expected = stats.t.cdf(statistics.fmean(differences) / error, df=2)
    assert probability_better(first, second, FRACTION) == pytest.approx(expected)
    assert 0.5 < expected < 1.0


def test_probability_better_of_two_runs_worked_out_by_hand() -> None:
    # Differences 0.01 and 0.03: t = 0.02 / (sqrt(0.0002) * sqrt(1/2 + 1/4)) = 1.632993;
    # with one degree of freedom Student's t is Cauchy's: 1/2 + atan(t) / pi.
    found = probability_better([0.91, 0.93], [0.90, 0.90], 0.2)
    assert found == pytest.approx(0.5 + math.atan(1.632993) / math.pi, abs=1e-6)
    assert found == pytest.approx(0.8251, abs=1e-4)


def test_probability_better_of_runs_that_never_differ_is_one_half() -> None:
    assert probability_better([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], FRACTION) == 0.5


def test_probability_better_of_a_constant_advantage_is_certain() -> None:
    first, second = [0.75, 0.5], [0.5, 0.25]
    assert probability_better(first, second, FRACTION) == 1.0
    assert probability_better(second, first, FRACTION) == 0.0


def test_probability_better_looks_at_pairs_and_not_only_at_means() -> None:
    paired = probability_better([0.91, 0.82, 0.73], [0.90, 0.80, 0.72], FRACTION)
    crossed = probability_better([0.91, 0.82, 0.73], [0.72, 0.80, 0.90], FRACTION)
    assert paired > 0.9
    assert crossed < 0.6


def test_probability_better_refuses_runs_that_are_not_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        probability_better([0.9, 0.8, 0.7], [0.9, 0.8], FRACTION)


@quick
@given(pairs)
def test_probability_better_and_worse_add_up_to_one(rows: list[tuple[float, float]]) -> None:
    first, second = columns(rows)
    better = probability_better(first, second, FRACTION)
    assert 0.0 <= better <= 1.0
    assert better + probability_better(second, first, FRACTION) == pytest.approx(1.0)
    gap = statistics.fmean(first) - statistics.fmean(second)
    if abs(gap) > 1e-9:
        assert (better > 0.5) == (gap > 0)


# How many runs would separate two


def separates(differences: Sequence[float], runs: int, fraction: float) -> bool:
    """Whether a mean and a deviation like these, over so many runs, give 95% one-sided."""
    spread = statistics.stdev(differences) * math.sqrt(1 / runs + fraction / (1 - fraction))
    reached = abs(statistics.fmean(differences)) / spread
    return bool(stats.t.cdf(reached, df=runs - 1) >= 0.95)


def test_runs_to_separate_worked_out_by_hand() -> None:
    # Differences 0, 0.02, 0.04: mean and deviation are both 0.02, so that n runs are enough where
    # t(0.95, n - 1) * sqrt(1/n + 1/4) <= 1: 1.770933 * 0.566947 = 1.0040 for 14 and
    # 1.761310 * 0.562731 = 0.9911 for 15.
    assert runs_to_separate([0.90, 0.92, 0.94], [0.90, 0.90, 0.90], 0.2) == 15
    assert not separates([0.0, 0.02, 0.04], 14, 0.2)
    assert separates([0.0, 0.02, 0.04], 15, 0.2)


def test_runs_to_separate_is_the_same_whichever_is_better() -> None:
    assert runs_to_separate([0.90, 0.90, 0.90], [0.90, 0.92, 0.94], 0.2) == 15


def test_what_most_allows_is_the_last_number_that_is_tried() -> None:
    assert runs_to_separate([0.90, 0.92, 0.94], [0.90, 0.90, 0.90], 0.2, most=15) == 15
    assert runs_to_separate([0.90, 0.92, 0.94], [0.90, 0.90, 0.90], 0.2, most=14) is None


def test_runs_that_separate_already_need_no_more() -> None:
    # Differences 0.10, 0.11, 0.12 and a difference that is the same each time.
    assert runs_to_separate([1.00, 1.01, 1.02], [0.90, 0.90, 0.90], 0.2) == 3
    assert runs_to_separate([0.75, 0.5], [0.5, 0.25], 0.2) == 2


def test_no_number_of_runs_separates_what_ties() -> None:
    assert runs_to_separate([0.9, 0.8, 0.7], [0.9, 0.8, 0.7], 0.2) is None
    assert runs_to_separate([0.9, 0.8, 0.7], [0.7, 0.8, 0.9], 0.2) is None


def test_what_overlapping_splits_leave_does_not_shrink_with_more_runs() -> None:
    # Mean 0.01 and deviation 0.02: even without end the error stays 0.02 * sqrt(1/4) = 0.01,
    # which times 1.645 is more than the mean; with independent runs it would shrink.
    first, second = [0.89, 0.91, 0.93], [0.90, 0.90, 0.90]
    assert runs_to_separate(first, second, 0.2, most=5_000) is None
    assert runs_to_separate(first, second, 0.0, most=5_000) == 13


@quick
@given(pairs, st.sampled_from([0.1, 0.2, 0.3]))
def test_runs_to_separate_is_the_smallest_number_that_does(
    rows: list[tuple[float, float]], fraction: float
) -> None:
    differences = [a - b for a, b in rows]
    assume(statistics.pstdev(differences) > 1e-6)
    assume(abs(statistics.fmean(differences)) > 1e-9)
    found = runs_to_separate(*columns(rows), fraction, most=60)
    enough = [n for n in range(len(rows), 61) if separates(differences, n, fraction)]
    assert found == (enough[0] if enough else None)


# A proportion


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


@quick
@given(st.integers(1, 20_000), st.floats(0, 1))
def test_wilson_interval_is_that_of_statsmodels(count: int, share: float) -> None:
    hits = round(count * share)
    interval = wilson_interval(hits, count)
    assert (interval.low, interval.high) == pytest.approx(
        proportion_confint(hits, count, alpha=0.05, method="wilson"), abs=1e-9
    )


def test_wilson_interval_agrees_with_scipy_and_with_a_published_value() -> None:
    interval = wilson_interval(81, 263)
    bounds = stats.binomtest(81, 263).proportion_ci(0.95, method="wilson")
    assert (interval.low, interval.high) == (bounds.low, bounds.high)
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.2553, 0.3662)


def test_a_proportion_of_nothing_is_not_known() -> None:
    interval = wilson_interval(0, 0)
    assert all(map(math.isnan, (interval.value, interval.low, interval.high)))


# Two classifiers on the same images


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


@quick
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_p_value_is_that_of_statsmodels(first: int, second: int) -> None:
    assume(first + second > 0)
    expected = mcnemar([[500, first], [second, 17]], exact=True).pvalue
    assert mcnemar_p_value(first, second) == pytest.approx(expected, rel=1e-9)


def test_paired_proportions_worked_out_by_hand() -> None:
    # (7 + 1) / 42 - (1 + 1) / 42 = 6/42; error sqrt((10/42 - (6/42)^2) / 42) = 0.071993;
    # times 1.959964.
    found = paired_proportions(7, 1, 40)
    assert found.value == 0.15
    reach = 1.959964 * math.sqrt((10 / 42 - (6 / 42) ** 2) / 42)
    assert reach == pytest.approx(0.141104, abs=1e-6)
    assert (found.low, found.high) == pytest.approx((6 / 42 - reach, 6 / 42 + reach), abs=1e-6)


def test_less_confidence_makes_a_narrower_interval() -> None:
    # 1.644854 in place of 1.959964
    found = paired_proportions(7, 1, 40, confidence=0.90)
    reach = 1.644854 * math.sqrt((10 / 42 - (6 / 42) ** 2) / 42)
    assert (found.low, found.high) == pytest.approx((6 / 42 - reach, 6 / 42 + reach), abs=1e-6)


def test_classifiers_that_agree_everywhere_still_have_an_interval() -> None:
    # 0 +- 1.959964 * sqrt(2/102 / 102)
    found = paired_proportions(0, 0, 100)
    reach = 1.959964 * math.sqrt(2) / 102
    assert found.value == 0.0
    assert (found.low, found.high) == pytest.approx((-reach, reach), abs=1e-8)


counts = st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 5_000)).filter(any)


@quick
@given(counts, st.sampled_from([0.9, 0.95]))
def test_paired_proportions_contain_their_value_and_mirror_when_swapped(
    disagreeing: tuple[int, int, int], confidence: float
) -> None:
    only_first, only_second, agreeing = disagreeing
    count = only_first + only_second + agreeing
    found = paired_proportions(only_first, only_second, count, confidence)
    assert -1.0 <= found.low <= found.value <= found.high <= 1.0
    assert found.value == pytest.approx(only_first / count - only_second / count)
    mirrored = paired_proportions(only_second, only_first, count, confidence)
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx(
        (-found.value, -found.high, -found.low)
    )


def test_intervals_of_differences_cover_the_truth_about_as_often_as_they_say() -> None:
    # Every outcome of 30 images with its exact probability: the first alone right on 20%, the
    # second alone on 10%.
    covered = 0.0
    for only_first in range(31):
        for only_second in range(31 - only_first):
            found = paired_proportions(only_first, only_second, 30)
            if found.low <= 0.1 <= found.high:
                chances = [0.2, 0.1, 0.7]
                outcome = [only_first, only_second, 30 - only_first - only_second]
                covered += float(stats.multinomial.pmf(outcome, 30, chances))
    assert 0.94 <= covered <= 0.98


# Several tests at once


def test_holm_worked_out_by_hand() -> None:
    # 0.01 * 3; then 0.02 * 2 = 0.04; then 0.03 * 1, but never less than the one before.
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])


def test_holm_never_exceeds_one() -> None:
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_holm_of_one_test_or_none_changes_nothing() -> None:
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@pytest.mark.parametrize(
    "p_values", [[0.5], [0.04, 0.01], [0.01, 0.04], [0.3, 0.01, 0.02, 0.02], [0.0, 1.0, 0.5, 0.0]]
)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


@quick
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for raw, corrected in zip(p_values, adjusted, strict=True):
        assert raw <= corrected <= 1.0
    by_raw = [after for _, after in sorted(zip(p_values, adjusted, strict=True))]
    assert by_raw == sorted(by_raw)
