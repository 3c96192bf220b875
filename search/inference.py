"""Statistics of paired runs and of proportions: intervals, tests, probabilities. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.stats import binomtest, norm, t

from search.records import Interval

CONFIDENCE = 0.95
SAME = 1e-12
"""What differs by less differs only in rounding."""


def corrected_standard_error(accuracies: Sequence[float], test_fraction: float) -> float:
    """Standard error of a mean over resampled splits, which overlap and so are not independent.

    Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003):
    the variance of n runs is multiplied by 1/n + test_fraction / (1 - test_fraction).

    Args:
        accuracies: at least 2, one per run.
        test_fraction: of each split, the part that measures: in (0, 1).
    """
    spread = 1 / len(accuracies) + test_fraction / (1 - test_fraction)
    return math.sqrt(_variance(accuracies) * spread)


def _variance(values: Sequence[float]) -> float:
    """As `statistics.variance`, which goes by way of fractions and takes 50 times as long."""
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def paired_standard_error(first: Sequence[float], second: Sequence[float]) -> float:
    """Standard error of one of two means, without what the two share on a seed.

    A hard split lowers both alike and says nothing of their order. Half the variance of their
    difference is the own variance of each (Morey, "Confidence Intervals from Normalized Data",
    Tutorials in Quantitative Methods for Psychology 4, 2008, for two conditions).

    Raises:
        ValueError: they are not equally many.
    """
    differences = _differences(first, second)
    return math.sqrt(_variance(differences) / 2 / len(differences))


def paired_difference(
    first: Sequence[float], second: Sequence[float], test_fraction: float
) -> Interval:
    """Mean of `first` - `second` over paired runs, with its 95% interval.

    Student's t with the standard error of Nadeau and Bengio (2003).

    Raises:
        ValueError: they are not equally many.
    """
    differences = _differences(first, second)
    mean = math.fsum(differences) / len(differences)
    error = corrected_standard_error(differences, test_fraction)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * error
    return Interval(mean, mean - reach, mean + reach)


def probability_better(
    first: Sequence[float], second: Sequence[float], test_fraction: float
) -> float:
    """P(mean of `first` > mean of `second`) given paired runs.

    From the corrected paired t statistic (Nadeau and Bengio 2003) as a posterior under a flat
    prior (Corani and Benavoli, Machine Learning 100, 2015). Runs that never differ give 0.5.

    Raises:
        ValueError: they are not equally many.
    """
    differences = _differences(first, second)
    mean = math.fsum(differences) / len(differences)
    error = corrected_standard_error(differences, test_fraction)
    if error == 0.0:
        return 0.5 if mean == 0 else float(mean > 0)
    return float(t.cdf(mean / error, len(differences) - 1))


def _differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def runs_to_separate(
    first: Sequence[float], second: Sequence[float], test_fraction: float, most: int = 200
) -> int | None:
    """How many paired runs would separate two means that go on to differ as they do now.

    None where even `most`, or as many as there are, would not: what the overlap of the splits
    leaves does not shrink.
    """
    differences = _differences(first, second)
    mean = abs(math.fsum(differences) / len(differences))
    variance = _variance(differences)
    for runs in range(len(differences), max(most, len(differences)) + 1):
        spread = 1 / runs + test_fraction / (1 - test_fraction)
        error = math.sqrt(variance * spread)
        if mean >= float(t.ppf(CONFIDENCE, runs - 1)) * error and mean > 0:
            return runs
    return None


def wilson_interval(hits: int, count: int) -> Interval:
    """Proportion with its 95% score interval (Wilson, JASA 22, 1927); NaN where `count` is 0."""
    if not count:
        return Interval(math.nan, math.nan, math.nan)
    bounds = binomtest(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(hits / count, float(bounds.low), float(bounds.high))


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar test that two classifiers are equally often right.

    Args:
        only_first: images that only the first classifies right.
        only_second: images that only the second classifies right.
    """
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def paired_proportions(
    only_first: int, only_second: int, count: int, confidence: float = CONFIDENCE
) -> Interval:
    """Difference of two accuracies on the same images, with its two-sided interval.

    The adjusted Wald interval of Bonett and Price, "Adjusted Wald Confidence Interval for a
    Difference of Binomial Proportions Based on Paired Data", J. Educ. Behav. Stat. 37 (2012).

    Args:
        only_first: images that only the first classifies right.
        only_second: images that only the second classifies right.
        count: of all images.
        confidence: in (0, 1); the lower end of a 90% interval is that of a one-sided 95% one.
    """
    first, second = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    error = math.sqrt((first + second - (first - second) ** 2) / (count + 2))
    reach = float(norm.ppf((1 + confidence) / 2)) * error
    middle = first - second
    value = (only_first - only_second) / count
    return Interval(value, max(-1.0, middle - reach), min(1.0, middle + reach))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that all of them can be read together (Holm 1979)."""
    # Not statsmodels' multipletests, which collects garbage each time: 0.1 s in a large process.
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
