from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from search.records import Candidate, Interval, Recommendation, Verdict
from search.selection import mcnemar_p_value, wilson_interval
from search.verdict import judge, with_interval
from tests.builders import make_candidate, make_recommendation

CLASSES = 3
BASELINE = make_candidate([0.80, 0.81, 0.82], 1_234, is_baseline=True)
WINNER = make_candidate([0.90, 0.91, 0.92], 56_789)


def answers(labels: NDArray[np.int32], wrong: set[int]) -> NDArray[np.float32]:
    """Probabilities of a model that is right on all images but these."""
    probabilities = np.full((len(labels), CLASSES), 0.1, np.float32)
    for index, label in enumerate(labels.tolist()):
        probabilities[index, (label + (index in wrong)) % CLASSES] = 0.8
    return probabilities


LABELS = (np.arange(40) % CLASSES).astype(np.int32)


def judged(
    winner_wrong: set[int],
    baseline_wrong: set[int],
    recommendation: Recommendation | None = None,
    openings: int = 1,
) -> Verdict:
    recommendation = recommendation or make_recommendation(WINNER, BASELINE)
    return judge(
        recommendation,
        {
            WINNER.config.config_id: answers(LABELS, winner_wrong),
            BASELINE.config.config_id: answers(LABELS, baseline_wrong),
        },
        LABELS,
        openings=openings,
        data="digits",
    )


def test_the_verdict_counts_the_images_on_which_the_models_differ() -> None:
    verdict = judged({0, 1}, {1, 2, 3, 4, 5, 6, 7, 8})
    assert verdict.only_recommended_right == 7
    assert verdict.only_baseline_right == 1
    assert verdict.accuracy == wilson_interval(38, 40)
    assert verdict.baseline_accuracy == wilson_interval(32, 40)
    assert verdict.p_value == pytest.approx(18 / 256)
    assert verdict.p_value == mcnemar_p_value(7, 1)
    assert verdict.images == 40


def test_the_verdict_counts_openings_as_it_is_told() -> None:
    assert judged({0}, {1}, openings=3).openings == 3


def test_the_f1_of_the_verdict_is_that_of_the_recommended_model() -> None:
    wrong = {0, 1, 5}
    predicted = answers(LABELS, wrong).argmax(axis=1)
    expected = f1_score(LABELS, predicted, average="macro")
    assert judged(wrong, set(range(20))).measures.f1_macro == pytest.approx(expected)


def test_a_clear_advantage_is_said_to_be_more_than_chance() -> None:
    verdict = judged(set(), {0, 1, 2, 3, 4, 5})
    assert verdict.p_value == pytest.approx(2 / 64)
    assert verdict.sentence == (
        f"Ship configuration {WINNER.config.config_id}: it gets 100.00% (95% interval 91.24% to "
        "100.00%) of the locked digits test images right, 15.000 points more than the baseline "
        "(85.00%), more than chance explains (exact McNemar test, p = 0.031), with 56,789 "
        "parameters against 1,234."
    )


def test_an_advantage_that_could_be_chance_is_said_to_be_so() -> None:
    verdict = judged(set(), {0, 1, 2, 3, 4})
    assert "12.500 points more than the baseline" in verdict.sentence
    assert "which chance alone could explain (exact McNemar test, p = 0.06)" in verdict.sentence
    assert "more than chance explains" not in verdict.sentence


def test_a_disadvantage_on_the_test_split_is_not_hidden() -> None:
    verdict = judged({0, 1, 2}, {3})
    assert "5.000 points fewer than the baseline (97.50%)" in verdict.sentence
    assert (verdict.only_recommended_right, verdict.only_baseline_right) == (1, 3)


def test_models_that_agree_on_every_image_do_not_differ() -> None:
    verdict = judged({0, 1}, {0, 1})
    assert verdict.p_value == 1.0
    assert (verdict.only_recommended_right, verdict.only_baseline_right) == (0, 0)
    assert "0.000 points" in verdict.sentence


def test_a_recommended_baseline_is_kept_and_not_shipped() -> None:
    better = make_candidate([0.95, 0.96, 0.97], BASELINE.parameters, is_baseline=True)
    recommendation = make_recommendation(better, WINNER, policy="best-mean")
    assert recommendation.winner is better
    verdict = judge(
        recommendation,
        {better.config.config_id: answers(LABELS, {0, 1})},
        LABELS,
        openings=1,
        data="digits",
    )
    assert verdict.sentence.startswith("Keep the baseline: ")
    assert "best-mean" in verdict.sentence
    assert "95.00%" in verdict.sentence
    assert "Ship" not in verdict.sentence
    assert verdict.accuracy == verdict.baseline_accuracy
    assert verdict.p_value == 1.0


@pytest.mark.parametrize("missing", [WINNER, BASELINE], ids=["recommended", "baseline"])
def test_a_model_that_was_not_examined_is_no_verdict(missing: Candidate) -> None:
    probabilities = {
        c.config.config_id: answers(LABELS, set()) for c in (WINNER, BASELINE) if c is not missing
    }
    with pytest.raises(KeyError, match=missing.config.config_id):
        judge(
            make_recommendation(WINNER, BASELINE), probabilities, LABELS, openings=1, data="digits"
        )


def test_a_proportion_is_read_with_its_interval() -> None:
    text = with_interval(Interval(0.97531, 0.97214, 0.97816))
    assert text == "97.53% (95% interval 97.21% to 97.82%)"


def test_a_model_that_is_surely_worse_than_the_baseline_is_not_called_to_be_shipped() -> None:
    sentence = judged(set(range(10)), set()).sentence
    assert sentence.startswith("Look again before you ship ")
    assert WINNER.config.config_id in sentence
