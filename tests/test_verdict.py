from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from search.inference import mcnemar_p_value, paired_proportions, wilson_interval
from search.metrics import measure
from search.records import Candidate, Interval, Recommendation, Verdict
from search.verdict import examined, judge, with_interval
from tests.builders import make_candidate, make_recommendation

CLASSES = 3
BASELINE = make_candidate([0.80, 0.81, 0.82], 1_234, is_baseline=True)
WINNER = make_candidate([0.90, 0.91, 0.92], 56_789)
NAME = f"configuration {WINNER.config.config_id}"
NAMES = {"baseline": BASELINE.config.config_id, "champion": "models:/podium-digits/3"}


def answers(labels: NDArray[np.int32], wrong: set[int]) -> NDArray[np.float32]:
    """Probabilities of a model that is right on all images but these."""
    probabilities = np.full((len(labels), CLASSES), 0.1, np.float32)
    for index, label in enumerate(labels.tolist()):
        probabilities[index, (label + (index in wrong)) % CLASSES] = 0.8
    return probabilities


LABELS = (np.arange(40) % CLASSES).astype(np.int32)


def judged(
    winner_wrong: set[int],
    baseline_wrong: set[int] | None = None,
    recommendation: Recommendation | None = None,
    openings: int = 1,
    champion_wrong: set[int] | None = None,
    champion_note: str = "",
) -> Verdict:
    """On 40 images; rivals that are None take no part."""
    wrong = {"baseline": baseline_wrong, "champion": champion_wrong}
    rivals = {name: images for name, images in wrong.items() if images is not None}
    return judge(
        recommendation or make_recommendation(WINNER, BASELINE),
        {
            "recommended": answers(LABELS, winner_wrong),
            **{name: answers(LABELS, images) for name, images in rivals.items()},
        },
        LABELS,
        openings=openings,
        data="digits",
        rivals={name: NAMES[name] for name in rivals},
        champion_note=champion_note,
    )


def test_the_verdict_counts_the_images_on_which_the_models_differ() -> None:
    verdict = judged({0, 1}, {1, 2, 3, 4, 5, 6, 7, 8})
    [contest] = verdict.contests
    assert contest.only_recommended_right == 7
    assert contest.only_rival_right == 1
    assert verdict.tested.accuracy == wilson_interval(38, 40)
    assert contest.tested.accuracy == wilson_interval(32, 40)
    assert contest.p_value == pytest.approx(18 / 256)
    assert contest.p_value == mcnemar_p_value(7, 1)
    assert contest.adjusted_p == contest.p_value
    assert contest.difference == paired_proportions(7, 1, 40)
    assert contest.difference.value == 0.15
    assert (contest.rival, contest.name) == ("baseline", BASELINE.config.config_id)
    assert verdict.images == 40


def test_the_verdict_counts_openings_as_it_is_told() -> None:
    assert judged({0}, {1}, openings=3).openings == 3


def test_the_f1_of_the_verdict_is_that_of_the_recommended_model() -> None:
    wrong = {0, 1, 5}
    predicted = answers(LABELS, wrong).argmax(axis=1)
    expected = f1_score(LABELS, predicted, average="macro")
    tested = judged(wrong, set(range(20))).tested
    assert tested.measures.f1_macro == pytest.approx(expected)


# What one model does


def test_measures_with_calibration_and_confusion_pass_through_for_every_model() -> None:
    verdict = judged({0, 1, 5}, {2, 3}, champion_wrong={7})
    everyone = [(verdict.tested, {0, 1, 5})]
    everyone += [
        (contest.tested, wrong)
        for contest, wrong in zip(verdict.contests, ({2, 3}, {7}), strict=True)
    ]
    for tested, wrong in everyone:
        assert tested.measures == measure(LABELS, answers(LABELS, wrong))
    # 37 of 40 right, all with the same confidence of 0.8.
    assert verdict.tested.measures.calibration_error == pytest.approx(37 / 40 - 0.8, abs=1e-6)
    # Images 0, 1, 5 are of the classes 0, 1, 2 and taken for the next one.
    assert verdict.tested.measures.confusion == ((13, 1, 0), (0, 12, 1), (1, 0, 12))


def test_the_recall_of_each_class_has_the_interval_of_statsmodels() -> None:
    recalls = judged({0, 1, 5, 8}, {2}).tested.recalls
    for interval, (found, count) in zip(recalls, [(13, 14), (12, 13), (11, 13)], strict=True):
        assert interval.value == found / count
        expected = proportion_confint(found, count, alpha=0.05, method="wilson")
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-9)


def test_a_class_that_is_missing_from_the_test_split_has_no_recall() -> None:
    labels = np.array([0, 1, 0, 1, 0], np.int32)
    tested = examined(answers(labels, {4}), labels)
    assert tested.accuracy == wilson_interval(4, 5)
    assert tested.recalls[:2] == (wilson_interval(2, 3), wilson_interval(2, 2))
    missing = tested.recalls[2]
    assert all(map(math.isnan, (missing.value, missing.low, missing.high)))
    assert math.isnan(tested.measures.roc_auc_ovo)
    verdict = judge(
        make_recommendation(WINNER, BASELINE),
        {"recommended": answers(labels, {4}), "baseline": answers(labels, set())},
        labels,
        openings=1,
        data="digits",
        rivals={"baseline": NAMES["baseline"]},
    )
    assert "nan" not in verdict.sentence


def test_an_image_of_which_two_classes_are_equally_likely_counts_the_same_everywhere() -> None:
    labels = np.array([0, 1], np.int32)
    tested = examined(np.full((2, 2), 0.5, np.float32), labels)
    assert tested.accuracy.value == tested.measures.accuracy == 0.5


# Contests


def test_champion_and_baseline_are_contests_of_their_own() -> None:
    verdict = judged({0}, {0, 1, 2, 3}, champion_wrong={0, 5})
    assert [c.rival for c in verdict.contests] == ["baseline", "champion"]
    baseline, champion = verdict.against("baseline"), verdict.against("champion")
    assert baseline is not None
    assert champion is not None
    assert (baseline.only_recommended_right, baseline.only_rival_right) == (3, 0)
    assert (champion.only_recommended_right, champion.only_rival_right) == (1, 0)
    assert champion.name == "models:/podium-digits/3"
    assert champion.tested.accuracy == wilson_interval(38, 40)


def test_p_values_are_corrected_over_the_contests_of_a_verdict() -> None:
    verdict = judged(set(), set(range(7)), champion_wrong=set(range(6)))
    raw = [2 / 128, 2 / 64]
    assert [c.p_value for c in verdict.contests] == pytest.approx(raw)
    # The smaller one twice, and the larger one at least as much.
    assert [c.adjusted_p for c in verdict.contests] == pytest.approx([2 / 64, 2 / 64])
    adjusted = multipletests(raw, method="holm")[1]
    assert [c.adjusted_p for c in verdict.contests] == pytest.approx(adjusted.tolist())


def test_the_correction_decides_what_is_called_chance() -> None:
    alone = judged(set(), set(range(6)))
    assert "more than chance explains" in alone.sentence
    both = judged(set(), set(range(6)), champion_wrong=set(range(5)))
    assert both.contests[0].p_value == alone.contests[0].p_value
    assert both.contests[0].adjusted_p == pytest.approx(4 / 64)
    assert "more than chance explains" not in both.sentence


def test_without_a_rival_there_is_no_contest() -> None:
    verdict = judged({0})
    assert verdict.contests == ()
    assert verdict.against("baseline") is None
    assert verdict.against("champion") is None


@pytest.mark.parametrize("missing", ["recommended", "baseline", "champion"])
def test_a_model_that_was_not_examined_is_no_verdict(missing: str) -> None:
    probabilities: Mapping[str, NDArray[np.float32]] = {
        name: answers(LABELS, set())
        for name in ("recommended", "baseline", "champion")
        if name != missing
    }
    with pytest.raises(KeyError, match=missing):
        judge(
            make_recommendation(WINNER, BASELINE),
            probabilities,
            LABELS,
            openings=1,
            data="digits",
            rivals=NAMES,
        )


# The sentence, against the baseline alone


def test_a_clear_advantage_is_said_to_be_more_than_chance() -> None:
    verdict = judged(set(), {0, 1, 2, 3, 4, 5})
    assert verdict.contests[0].p_value == pytest.approx(2 / 64)
    assert verdict.sentence == (
        f"Ship {NAME}: it gets 100.00% (95% interval 91.24% to 100.00%) of the locked digits test "
        "images right: 15.000 points more than the baseline (85.00%), more than chance explains, "
        "with 56,789 parameters against 1,234 of the baseline."
    )


def test_an_advantage_that_could_be_chance_is_said_to_be_so() -> None:
    verdict = judged(set(), {0, 1, 2, 3, 4})
    assert verdict.contests[0].p_value == pytest.approx(2 / 32)
    assert verdict.sentence == (
        f"Recommended: {NAME}; the test split does not tell it from the baseline. "
        "The recommended model gets 100.00% "
        "(95% interval 91.24% to 100.00%) of the locked digits test images right: 12.500 points "
        "more than the baseline (87.50%), which chance alone could explain, with 56,789 "
        "parameters against 1,234 of the baseline."
    )
    assert "more than chance explains" not in verdict.sentence


def test_a_disadvantage_on_the_test_split_is_not_hidden() -> None:
    verdict = judged({0, 1, 2}, {3})
    assert "5.000 points fewer than the baseline (97.50%)" in verdict.sentence
    [contest] = verdict.contests
    assert (contest.only_recommended_right, contest.only_rival_right) == (1, 3)
    assert contest.difference.value == pytest.approx(-0.05)


def test_models_that_agree_on_every_image_do_not_differ() -> None:
    verdict = judged({0, 1}, {0, 1})
    [contest] = verdict.contests
    assert (contest.p_value, contest.adjusted_p) == (1.0, 1.0)
    assert (contest.only_recommended_right, contest.only_rival_right) == (0, 0)
    assert contest.difference.value == 0.0
    assert verdict.sentence == (
        f"Recommended: {NAME}; the test split does not tell it from the baseline. "
        "The recommended model gets 95.00% "
        "(95% interval 83.50% to 98.62%) of the locked digits test images right: as many as the "
        "baseline, with 56,789 parameters against 1,234 of the baseline."
    )


def test_models_that_are_right_equally_often_on_other_images_get_as_many() -> None:
    assert ": as many as the baseline, with" in judged({0, 1, 2}, {3, 4, 5}).sentence


BETTER_BASELINE = make_candidate([0.95, 0.96, 0.97], BASELINE.parameters, is_baseline=True)
KEPT = make_recommendation(BETTER_BASELINE, WINNER, policy="best-mean")


def test_a_recommended_baseline_is_kept_and_not_shipped() -> None:
    assert KEPT.winner is BETTER_BASELINE
    verdict = judged({0, 1}, recommendation=KEPT)
    assert verdict.sentence == (
        "Keep the baseline: nothing better was found. It gets 95.00% (95% interval 83.50% to "
        "98.62%) of the locked digits test images right."
    )
    assert "Ship" not in verdict.sentence
    assert verdict.contests == ()


def test_a_proportion_is_read_with_its_interval() -> None:
    text = with_interval(Interval(0.97531, 0.97214, 0.97816))
    assert text == "97.53% (95% interval 97.21% to 97.82%)"


def test_a_model_that_is_surely_worse_than_the_baseline_is_not_called_to_be_shipped() -> None:
    sentence = judged(set(range(10)), set()).sentence
    assert sentence.startswith(
        f"Look again before you ship {NAME}: the baseline is better on the test split. "
        "The chosen model gets "
    )
    assert "25.000 points fewer than the baseline (100.00%), more than chance explains" in sentence
    assert WINNER.config.config_id in sentence


# The sentence, where there is a champion

MANY, FEW = set(range(10)), {0}


def test_what_surely_beats_the_champion_is_shipped() -> None:
    verdict = judged(set(), MANY, champion_wrong=set(range(8)))
    assert verdict.sentence == (
        f"Ship {NAME}: it gets 100.00% (95% interval 91.24% to 100.00%) of the locked digits test "
        "images right: 25.000 points more than the baseline (75.00%), more than chance explains; "
        "20.000 points more than the champion (80.00%), more than chance explains, with 56,789 "
        "parameters against 1,234 of the baseline."
    )


def test_the_champion_decides_and_not_the_baseline() -> None:
    sentence = judged(set(), MANY, champion_wrong=FEW).sentence
    assert sentence.startswith(
        f"Recommended: {NAME}; the test split does not tell it from the champion. "
        "The recommended model gets "
    )
    assert "more than the baseline (75.00%), more than chance explains; " in sentence
    assert "more than the champion (97.50%), which chance alone could explain, with" in sentence
    assert judged(set(), FEW, champion_wrong=MANY).sentence.startswith(f"Ship {NAME}: it gets ")


def test_a_champion_that_is_surely_better_is_kept() -> None:
    for baseline_wrong in (FEW, MANY, set(range(20))):
        sentence = judged(MANY, baseline_wrong, champion_wrong=set()).sentence
        assert sentence.startswith(
            f"Keep the champion: it is better on the test split than {NAME}, which gets 75.00%"
        )
        assert "25.000 points fewer than the champion (100.00%), more than chance" in sentence


def test_a_baseline_that_is_surely_better_is_told_though_the_champion_is_beaten() -> None:
    for champion_wrong in (MANY, set(range(25))):
        sentence = judged(MANY, set(), champion_wrong=champion_wrong).sentence
        assert sentence.startswith(f"Look again before you ship {NAME}: the baseline is better")


def test_where_both_are_surely_better_the_champion_is_kept() -> None:
    assert judged(MANY, set(), champion_wrong=set()).sentence.startswith("Keep the champion: ")


@pytest.mark.parametrize(
    ("recommended", "baseline", "champion"),
    [(set(), MANY, FEW), (MANY, set(), set()), (set(), FEW, MANY)],
)
def test_the_order_in_which_rivals_are_named_does_not_decide(
    recommended: set[int], baseline: set[int], champion: set[int]
) -> None:
    expected = judged(recommended, baseline, champion_wrong=champion).sentence
    found = judge(
        make_recommendation(WINNER, BASELINE),
        {
            "recommended": answers(LABELS, recommended),
            "baseline": answers(LABELS, baseline),
            "champion": answers(LABELS, champion),
        },
        LABELS,
        openings=1,
        data="digits",
        rivals={"champion": NAMES["champion"], "baseline": NAMES["baseline"]},
    ).sentence
    assert found.split(" gets ")[0] == expected.split(" gets ")[0]


CHAMPION = make_candidate([0.95, 0.96, 0.97], 4_321, is_champion=True)
SAME_AGAIN = make_recommendation(CHAMPION, WINNER, BASELINE)


def test_the_champions_configuration_is_kept_where_it_is_recommended() -> None:
    assert SAME_AGAIN.winner is CHAMPION
    sentence = judged({0, 1}, MANY, SAME_AGAIN).sentence
    assert sentence == (
        "Keep the champion's configuration: nothing better was found. It gets 95.00% "
        "(95% interval 83.50% to 98.62%) of the locked digits test images right: 20.000 points "
        "more than the baseline (75.00%), more than chance explains, with 4,321 parameters "
        "against 1,234 of the baseline."
    )
    again = judged({0, 1}, MANY, SAME_AGAIN, champion_wrong=FEW).sentence
    assert again.startswith("Keep the champion's configuration: ")
    better = judged({0, 1}, MANY, SAME_AGAIN, champion_wrong=MANY).sentence
    assert better.startswith("Ship the champion's configuration: it gets 95.00%")


def test_the_champions_configuration_trained_again_may_be_surely_worse() -> None:
    sentence = judged(MANY, MANY, SAME_AGAIN, champion_wrong=set()).sentence
    assert sentence.startswith(
        "Keep the champion: it is better on the test split than the champion's configuration, which"
    )


@pytest.mark.parametrize(
    ("champion_wrong", "opening"),
    [
        (MANY, "Ship the baseline: it gets 100.00%"),
        (
            FEW,
            "Recommended: the baseline; the test split does not tell it from the champion. "
            "The recommended model",
        ),
    ],
)
def test_a_recommended_baseline_is_held_against_the_champion(
    champion_wrong: set[int], opening: str
) -> None:
    verdict = judged(set(), recommendation=KEPT, champion_wrong=champion_wrong)
    assert verdict.sentence.startswith(opening)
    assert "of the baseline" not in verdict.sentence
    assert [c.rival for c in verdict.contests] == ["champion"]


def test_a_recommended_baseline_that_is_surely_worse_than_the_champion_is_not_shipped() -> None:
    sentence = judged(MANY, recommendation=KEPT, champion_wrong=set()).sentence
    assert sentence.startswith(
        "Keep the champion: it is better on the test split than the baseline, which gets 75.00%"
    )


def test_a_baseline_that_is_the_champions_configuration_is_kept_as_the_champions() -> None:
    both = make_candidate([0.95, 0.96, 0.97], is_baseline=True, is_champion=True)
    sentence = judged({0}, recommendation=make_recommendation(both, WINNER)).sentence
    assert sentence.startswith("Keep the champion's configuration: ")
    assert sentence.endswith("test images right.")


# The headline


@pytest.mark.parametrize(
    ("winner", "baseline", "champion", "headline"),
    [
        (
            set(),
            MANY,
            None,
            "Ship the new model: it gets 100.00% of the test images right, against 75.00% of the "
            "baseline.",
        ),
        (
            set(),
            FEW,
            None,
            "The new model is recommended, but 40 test images do not tell it from the baseline: it "
            "gets 100.00% of them right, against 97.50% of the baseline.",
        ),
        (
            MANY,
            set(),
            None,
            "Look again before you ship, for the baseline is better: it gets 100.00% of the test "
            "images right, the new model 75.00%.",
        ),
        (
            MANY,
            MANY,
            set(),
            "Keep the champion: it gets 100.00% of the test images right, the new model 75.00%.",
        ),
        (
            set(),
            MANY,
            MANY,
            "Ship the new model: it gets 100.00% of the test images right, against 75.00% of the "
            "champion.",
        ),
    ],
)
def test_the_headline_says_what_to_do(
    winner: set[int], baseline: set[int], champion: set[int] | None, headline: str
) -> None:
    assert judged(winner, baseline, champion_wrong=champion).headline.startswith(headline)


def test_the_headline_does_not_ship_what_was_not_compared_with_the_champion() -> None:
    verdict = judged(set(), MANY, champion_note="it could not be read")
    assert verdict.headline == (
        "The new model is better than the baseline: it gets 100.00% of the test images right, "
        "against 75.00% of the baseline, and was not compared with the champion."
    )
    assert "Ship" not in verdict.sentence
    assert "not compared with the champion" in verdict.sentence
    unsure = judged(set(), FEW, champion_note="it could not be read").headline
    assert "do not tell it from the baseline" in unsure
    assert unsure.endswith("and was not compared with the champion.")
    assert not verdict.speaks_for_it  # no promotion passes its gate


def test_a_champion_that_was_trained_again_and_is_surely_better_is_shipped() -> None:
    champion = replace(WINNER, is_champion=True)
    recommendation = make_recommendation(champion, BASELINE)
    verdict = judged(set(), MANY, recommendation, champion_wrong=MANY)
    assert verdict.headline == (
        "Ship the champion, trained again: it gets 100.00% of the test images right, against "
        "75.00% of the champion."
    )
    assert "nothing better" not in verdict.sentence


def test_a_verdict_speaks_for_a_model_unless_a_rival_is_surely_better() -> None:
    assert judged(set(), MANY).speaks_for_it
    assert judged(set(), FEW).speaks_for_it
    assert not judged(MANY, set()).speaks_for_it
    assert not judged(MANY, MANY, champion_wrong=set()).speaks_for_it


def test_the_champions_configuration_trained_again_is_promoted_only_where_surely_better() -> None:
    kept = judged({0, 1}, MANY, SAME_AGAIN, champion_wrong=FEW)
    assert not kept.speaks_for_it
    assert kept.headline == (
        "Keep the champion: nothing better than its configuration was found. Trained again, "
        "that gets 95.00% of the test images right, against 97.50% of the champion."
    )
    assert judged({0, 1}, MANY, SAME_AGAIN, champion_wrong=MANY).speaks_for_it


def preferred(
    kept: Candidate, better: Candidate, policy: str, *others: Candidate, **limits: float
) -> Recommendation:
    """One that a policy or a limit prefers to candidates that are more accurate."""
    found = make_recommendation(kept, better, *others, policy=policy, **limits)
    assert found.winner is kept
    return found


SMALL_BASELINE = make_candidate([0.90, 0.91, 0.92], 10, is_baseline=True)
LARGE = make_candidate([0.91, 0.92, 0.93], 50_000)


@pytest.mark.parametrize(
    ("recommendation", "why"),
    [
        (
            preferred(SMALL_BASELINE, LARGE, "cheapest-within", tolerance=0.02),
            "the rule cheapest-within prefers it to what is more accurate",
        ),
        (
            preferred(SMALL_BASELINE, LARGE, "best-mean", max_params=100),
            "nothing better is within the limits",
        ),
        (
            preferred(
                make_candidate([0.90, 0.95, 0.91], 10, is_baseline=True),
                make_candidate([0.93, 0.90, 0.94], 50_000),
                "cheapest-within",
                tolerance=0.02,
            ),
            "nothing surely better was found",
        ),
        (
            preferred(
                make_candidate([0.90, 0.95, 0.91], 10, is_baseline=True),
                make_candidate([0.93, 0.90, 0.94], 50_000),
                "cheapest-within",
                make_candidate([0.99, 0.991, 0.992], 61_000),
                tolerance=0.02,
                max_params=60_000,
            ),
            "nothing surely better is within the limits",
        ),
    ],
)
def test_a_baseline_that_is_not_the_most_accurate_is_not_called_that(
    recommendation: Recommendation, why: str
) -> None:
    verdict = judged({0, 1}, recommendation=recommendation)
    assert verdict.headline == (
        f"Keep the baseline: {why}. It gets 95.00% of the test images right."
    )
    assert f"Keep the baseline: {why}. It gets" in verdict.sentence


def test_a_champion_that_is_the_choice_but_was_not_compared_is_kept_in_whole_sentences() -> None:
    verdict = judged({0, 1}, recommendation=SAME_AGAIN, champion_note="it could not be read")
    assert verdict.headline == (
        "Keep the champion: nothing better than its configuration was found. Its own model was not "
        "compared on these images."
    )


def test_a_baseline_is_not_kept_in_place_of_a_champion_that_was_not_compared() -> None:
    verdict = judged({0, 1}, recommendation=KEPT, champion_note="it could not be read")
    assert verdict.headline == (
        "No new model is recommended: nothing better than the baseline was found. That gets 95.00% "
        "of the test images right, and was not compared with the champion."
    )
    assert not verdict.speaks_for_it


def test_a_recommended_baseline_is_not_called_a_new_model() -> None:
    verdict = judged({0, 1}, recommendation=KEPT, champion_wrong=FEW)
    assert verdict.headline == (
        "The baseline is recommended, but 40 test images do not tell it from the champion: it gets "
        "95.00% of them right, against 97.50% of the champion."
    )


@pytest.mark.parametrize(
    ("policy", "champion_size", "why"),
    [
        ("one-standard-error", 9_000, " because it is smaller"),
        ("smallest-gap", 10, " by the rule smallest-gap"),
    ],
)
def test_what_was_less_accurate_than_the_champion_is_recommended_with_the_reason(
    policy: str, champion_size: int, why: str
) -> None:
    champion = make_candidate([0.951, 0.96, 0.971], champion_size, gaps=0.04, is_champion=True)
    winner = make_candidate([0.95, 0.96, 0.97], 700, units=9, gaps=0.01)
    plain = make_candidate([0.90, 0.91, 0.92], 600, gaps=0.05, is_baseline=True)
    made = make_recommendation(champion, winner, plain, policy=policy, correction="nadeau-bengio")
    assert made.winner is winner
    headline = judged({0, 1}, recommendation=made, champion_wrong=FEW).headline
    assert headline.startswith(f"The new model is recommended{why}, but 40 test images do not tell")
