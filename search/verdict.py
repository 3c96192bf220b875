"""The verdict: what the test split says of the recommended model and the baseline."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search.metrics import measure
from search.records import Interval, Recommendation, Verdict
from search.selection import mcnemar_p_value, percent, points, wilson_interval

SIGNIFICANT = 0.05


def judge(
    recommendation: Recommendation,
    probabilities: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int32],
    *,
    openings: int,
    data: str,
) -> Verdict:
    """Compares both models on the same test images.

    Args:
        recommendation: made without these images.
        probabilities: float32 (n, classes) by config_id, of the recommended and the baseline.
        labels: int32 (n,).
        openings: of this test split so far, this one included.
        data: name of the data set.
    """
    winner, baseline = recommendation.winner, recommendation.baseline
    first = probabilities[winner.config.config_id]
    right = first.argmax(axis=1) == labels
    baseline_right = probabilities[baseline.config.config_id].argmax(axis=1) == labels
    only_first = int((right & ~baseline_right).sum())
    only_baseline = int((~right & baseline_right).sum())
    accuracy = wilson_interval(int(right.sum()), len(labels))
    baseline_accuracy = wilson_interval(int(baseline_right.sum()), len(labels))
    p_value = mcnemar_p_value(only_first, only_baseline)
    return Verdict(
        accuracy=accuracy,
        baseline_accuracy=baseline_accuracy,
        measures=measure(labels, first),
        only_recommended_right=only_first,
        only_baseline_right=only_baseline,
        p_value=p_value,
        images=len(labels),
        openings=openings,
        sentence=_sentence(recommendation, accuracy, baseline_accuracy, p_value, data),
    )


def with_interval(interval: Interval) -> str:
    """A proportion as people read it: 97.53% (95% interval 97.21% to 97.82%)."""
    return (
        f"{percent(interval.value)} (95% interval {percent(interval.low)} "
        f"to {percent(interval.high)})"
    )


def _sentence(
    recommendation: Recommendation,
    accuracy: Interval,
    baseline_accuracy: Interval,
    p_value: float,
    data: str,
) -> str:
    winner, baseline = recommendation.winner, recommendation.baseline
    measured = f"{with_interval(accuracy)} of the locked {data} test images right"
    if winner.is_baseline:
        return (
            "Keep the baseline: no confirmed configuration was a better choice under the policy "
            f"{recommendation.policy}. It gets {measured}."
        )
    difference = accuracy.value - baseline_accuracy.value
    side = "more" if difference >= 0 else "fewer"
    name = f"configuration {winner.config.config_id}"
    if p_value >= SIGNIFICANT:
        opening = f"Recommended: {name}; the test split does not tell it from the baseline. It"
        sure = f"which chance alone could explain (exact McNemar test, p = {p_value:.2f})"
    else:
        opening = f"Ship {name}: it" if difference > 0 else f"Look again before you ship {name}: it"
        sure = f"more than chance explains (exact McNemar test, p = {p_value:.2g})"
    return (
        f"{opening} gets {measured}, {points(abs(difference))} {side} than the baseline "
        f"({percent(baseline_accuracy.value)}), {sure}, with {winner.parameters:,} parameters "
        f"against {baseline.parameters:,}."
    )
