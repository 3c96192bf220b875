"""What is said of published figures and of ours, to the border of every word."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from search.comparison import Agreement, Judgement, Repetition, Row, agree, compare, judge_notebook
from search.records import Phase, State, TestResult
from spaces.notebooks import NOTEBOOKS, Experiment, Figure, Notebook
from tests.builders import (
    make_config,
    make_epoch,
    make_experiment,
    make_figure,
    make_measures,
    make_notebook,
    make_repetition,
    make_totals,
)

ACCURACY = make_figure("test_accuracy", 0.97)


def _words(figure: Figure, *ours: float) -> str:
    return agree(figure, ours).words


# One figure


@pytest.mark.parametrize(
    ("ours", "words"),
    [
        (0.97, "reproduced"),
        (0.97399, "reproduced"),
        (0.96601, "reproduced"),
        # To Python, 0.974 - 0.97 is 0.0040000000000000036.
        (0.974, "reproduced"),
        (0.966, "reproduced"),
        (0.97401, "differs"),
        (0.96599, "differs"),
    ],
)
def test_an_accuracy_within_four_tenths_of_a_point_is_reproduced_and_no_further_one(
    ours: float, words: str
) -> None:
    assert _words(ACCURACY, ours) == words


@pytest.mark.parametrize("metric", ["train_accuracy", "val_f1_micro", "test_roc_auc_ovo"])
def test_areas_and_f1_are_held_to_the_same_border_as_accuracies(metric: str) -> None:
    assert _words(make_figure(metric, 0.97), 0.9739) == "reproduced"
    assert _words(make_figure(metric, 0.97), 0.9741) == "differs"


@pytest.mark.parametrize("metric", ["test_loss", "val_loss"])
@pytest.mark.parametrize(
    ("published", "ours", "words"),
    [
        (0.3125, 0.328125, "reproduced"),  # off by exactly 5% of the published one
        (0.3125, 0.296875, "reproduced"),
        (0.3125, 0.32813, "differs"),
        (0.3125, 0.29687, "differs"),
        (1.25, 1.3125, "reproduced"),  # the same fraction of a larger loss
        (1.25, 1.32, "differs"),
        (0.01, 0.0110, "differs"),  # though less than 0.004 away
    ],
)
def test_a_loss_within_five_percent_of_the_published_one_is_reproduced_and_no_further_one(
    metric: str, published: float, ours: float, words: str
) -> None:
    assert _words(make_figure(metric, published), ours) == words


SPREAD = (0.734375, 0.75, 0.765625)
"""Mean 0.75, standard deviation 1/64: exact in binary, so that borders are borders."""


@pytest.mark.parametrize(
    ("published", "words"),
    [
        (0.75 - 3 / 64, "within noise"),
        (0.75 + 3 / 64, "within noise"),
        (0.75 - 3 / 64 - 1e-6, "differs"),
        (0.75 + 3 / 64 + 1e-6, "differs"),
        (0.75 - 0.0039, "reproduced"),
        (0.75 - 0.0041, "within noise"),
    ],
)
def test_up_to_three_deviations_over_seeds_are_noise_and_no_more(
    published: float, words: str
) -> None:
    assert _words(make_figure("test_accuracy", published), *SPREAD) == words


def test_a_wide_spread_does_not_turn_what_is_reproduced_into_noise() -> None:
    assert _words(make_figure("test_accuracy", 0.5), 0.3, 0.7) == "reproduced"


def test_noise_in_a_loss_is_measured_by_its_own_deviation() -> None:
    assert _words(make_figure("test_loss", 1.0), 1.1, 1.2, 1.3) == "within noise"
    assert _words(make_figure("test_loss", 1.0), 1.19, 1.2, 1.21) == "differs"


def test_standard_errors_are_of_a_difference_of_two_means() -> None:
    agreement = agree(make_figure("test_accuracy", 0.88, 0.9), (0.9, 0.92, 0.94))
    assert agreement.mean == pytest.approx(0.92)
    assert agreement.difference == pytest.approx(0.03)
    assert agreement.deviation == pytest.approx(0.02)
    # 0.03 / (0.02 * sqrt(1/3 + 1/2))
    assert agreement.standard_errors == pytest.approx(1.6431676725)


def test_the_sign_of_a_difference_says_which_is_higher() -> None:
    lower = agree(make_figure("test_accuracy", 0.95), (0.9, 0.92, 0.94))
    assert lower.difference == pytest.approx(-0.03)
    # -0.03 / (0.02 * sqrt(1/3 + 1))
    assert lower.standard_errors == pytest.approx(-1.2990381057)


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ((0.9701, 0.9739), "reproduced"),
        ((0.96, 0.9721), "differs"),
        ((0.9721, 0.96), "differs"),
        ((0.96, 0.984), "differs"),  # though their mean is exactly ours
    ],
)
def test_of_several_published_runs_the_one_furthest_off_decides(
    published: tuple[float, ...], words: str
) -> None:
    assert _words(make_figure("test_accuracy", *published), 0.972) == words


def test_the_run_furthest_off_decides_what_is_noise_and_how_far_a_loss_may_be_off() -> None:
    assert _words(make_figure("test_accuracy", 0.75, 0.75 - 3 / 64), *SPREAD) == "within noise"
    assert _words(make_figure("test_accuracy", 0.75, 0.75 - 4 / 64), *SPREAD) == "differs"
    assert _words(make_figure("test_loss", 1.0, 1.04), 1.0) == "reproduced"
    assert _words(make_figure("test_loss", 1.0, 1.06), 1.0) == "differs"


def test_a_single_seed_has_no_deviation_and_is_never_within_noise() -> None:
    agreement = agree(ACCURACY, (0.9,))
    assert agreement == Agreement(ACCURACY, (0.9,), None, agreement.difference, None, "differs")
    assert agreement.difference == pytest.approx(-0.07)


def test_seeds_that_agree_to_the_bit_make_no_infinite_standard_errors() -> None:
    agreement = agree(ACCURACY, (0.9, 0.9, 0.9))
    assert (agreement.deviation, agreement.standard_errors) == (0.0, None)
    assert agreement.words == "differs"
    assert agree(ACCURACY, (0.97, 0.97)).words == "reproduced"


def test_what_failed_is_told_from_what_was_not_run() -> None:
    assert agree(ACCURACY, (), failed=1) == Agreement(ACCURACY, (), None, None, None, "failed")
    assert agree(ACCURACY, (0.97,), failed=1).words == "reproduced"


def test_what_was_not_run_has_no_difference() -> None:
    assert agree(ACCURACY, ()) == Agreement(ACCURACY, (), None, None, None, "not run")
    assert agree(ACCURACY, ()).mean is None
    assert agree(ACCURACY, (), shortened=True).words == "not run"


@pytest.mark.parametrize("ours", [(0.97,), (0.5,), (0.5, 0.97, 0.6)])
def test_what_was_trained_for_less_is_compared_with_nothing(ours: tuple[float, ...]) -> None:
    agreement = agree(ACCURACY, ours, shortened=True)
    assert agreement.words == "trained for less: not comparable"
    assert agreement.ours == ours


# A row


def _row(experiment: Experiment, repetitions: Sequence[Repetition]) -> Row:
    [row] = compare(make_notebook(experiment), repetitions)
    return row


def _ours(experiment: Experiment, *repetitions: Repetition) -> list[tuple[float, ...]]:
    return [agreement.ours for agreement in _row(experiment, repetitions).agreements]


def test_every_experiment_has_a_row_in_the_order_of_the_notebook() -> None:
    experiments = [make_experiment("b", 8), make_experiment("a", 9), make_experiment("c", 7)]
    rows = compare(make_notebook(*experiments), [make_repetition(experiments[1])])
    assert [row.experiment for row in rows] == experiments
    assert [len(row.repetitions) for row in rows] == [0, 1, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"phase": Phase.SEARCH},
        {"phase": Phase.CONFIRM},
        {"state": State.RUNNING},
        {"state": State.STOPPED},
        {"folds": 5},
        {"tail": True},
        {"validation_fraction": 0.3},
        {"config": make_config(129)},
    ],
    ids=str,
)
def test_a_trial_that_does_not_repeat_the_experiment_is_ignored(
    fields: dict[str, object],
) -> None:
    experiment = make_experiment(published=(ACCURACY,))
    own, other = make_repetition(experiment, 0), make_repetition(experiment, 1, **fields)
    row = _row(experiment, [other, own, other])
    assert row.repetitions == (own,)
    assert row.agreements[0].ours == (0.8,)
    assert _row(experiment, [other]).agreements[0].words == "not run"


def test_failed_trials_are_counted_and_give_no_values() -> None:
    experiment = make_experiment(published=(ACCURACY,))
    failed = [make_repetition(experiment, i, state=State.FAILED) for i in (1, 2)]
    row = _row(experiment, failed)
    assert (row.failed, row.repetitions, row.figures) == (2, (), {})
    assert row.agreements[0].words == "failed"
    row = _row(experiment, [*failed, make_repetition(experiment, 0)])
    assert (row.failed, len(row.repetitions)) == (2, 1)
    assert row.agreements[0].ours == (0.8,)


def test_an_experiment_with_folds_ignores_trials_of_one_split_and_of_other_folds() -> None:
    experiment = make_experiment(folds=5, published=(make_figure("val_accuracy", 0.8),))
    own = make_repetition(experiment)
    others = [make_repetition(experiment, i, folds=folds) for i, folds in ((1, 0), (2, 10))]
    assert _row(experiment, [*others, own]).repetitions == (own,)


def test_an_experiment_on_the_last_images_ignores_trials_on_others() -> None:
    experiment = make_experiment(tail=True, published=(ACCURACY,))
    drawn = make_repetition(experiment, 0, tail=False)
    assert _row(experiment, [drawn]).repetitions == ()
    assert len(_row(experiment, [make_repetition(experiment, 1)]).repetitions) == 1


def test_equal_experiments_share_their_trials_whatever_those_are_called() -> None:
    first, second = make_experiment("a"), make_experiment("c", published=(ACCURACY,))
    third = make_experiment("d", 64)
    trials = [make_repetition(first, i) for i in range(2)]
    rows = compare(make_notebook(first, second, third), trials)
    assert [len(row.repetitions) for row in rows] == [2, 2, 0]
    assert rows[1].agreements[0].ours == (0.8, 0.8)


def test_a_figure_after_an_epoch_is_compared_with_ours_after_that_epoch() -> None:
    experiment = make_experiment(
        published=(
            make_figure("train_accuracy", 0.5, epoch=2),
            make_figure("train_accuracy", 0.5),
            make_figure("test_accuracy", 0.5, epoch=3),
            make_figure("test_loss", 0.5, epoch=3),
            make_figure("test_accuracy", 0.5),
        )
    )
    epochs = [make_epoch(n, train_accuracy=n / 10) for n in range(1, 7)]
    tests = (
        TestResult(3, make_measures(accuracy=0.33, loss=0.3)),
        TestResult(6, make_measures(accuracy=0.66, loss=0.6)),
    )
    repetition = make_repetition(experiment, epochs=epochs, tests=tests)
    assert _ours(experiment, repetition) == [(0.2,), (0.6,), (0.33,), (0.3,), (0.66,)]


def test_the_last_epoch_is_the_one_where_patience_ended_it() -> None:
    experiment = make_experiment(
        published=(make_figure("train_accuracy", 0.5), make_figure("test_accuracy", 0.5)),
        patience=2,
    )
    epochs = [make_epoch(n, train_accuracy=n / 10) for n in range(1, 5)]
    row = _row(experiment, [make_repetition(experiment, epochs=epochs, test_accuracy=0.44)])
    assert [agreement.ours for agreement in row.agreements] == [(0.4,), (0.44,)]
    assert row.epochs == (4,)
    assert not row.shortened


def test_a_trial_that_ended_before_the_epoch_gives_no_value_for_it() -> None:
    figure = make_figure("train_accuracy", 0.5, epoch=5)
    experiment = make_experiment(published=(figure,))
    long = make_repetition(experiment, 0)
    short = make_repetition(experiment, 1, epochs=[make_epoch(1)])
    assert _ours(experiment, short, long) == [(0.85,)]


def test_a_trial_whose_test_split_was_never_opened_gives_no_test_value() -> None:
    experiment = make_experiment(published=(ACCURACY,))
    row = _row(experiment, [make_repetition(experiment, tests=())])
    assert row.agreements[0].words == "not run"
    assert "test_accuracy" not in row.figures
    assert row.figures["val_accuracy"] == (0.8,)


def test_a_mean_over_folds_is_compared_with_ours_and_with_no_test_figure() -> None:
    names = ("accuracy", "loss", "f1_micro", "roc_auc_ovo")
    experiment = make_experiment(
        folds=3, published=tuple(make_figure(f"val_{name}", 0.5) for name in names)
    )
    measures = make_measures(accuracy=0.1, loss=0.2, f1_micro=0.3, roc_auc_ovo=0.4)
    totals = make_totals(val_accuracy=0.7, val_loss=0.9, measures=measures)
    repetition = make_repetition(experiment, totals=totals)
    row = _row(experiment, [repetition])
    assert [agreement.ours for agreement in row.agreements] == [(0.7,), (0.2,), (0.3,), (0.4,)]
    assert set(row.figures) == {"train_accuracy", *(f"val_{name}" for name in names)}


def test_values_are_in_the_order_of_the_trials() -> None:
    experiment = make_experiment(published=(ACCURACY,))
    trials = [make_repetition(experiment, i, test_accuracy=i / 10) for i in range(4)]
    assert _ours(experiment, *trials) == [(0.0, 0.1, 0.2, 0.3)]


def test_figures_that_were_never_published_are_there_as_well() -> None:
    experiment = make_experiment()
    row = _row(experiment, [make_repetition(experiment, parameters=77)])
    assert row.agreements == ()
    assert row.figures == {
        "train_accuracy": (0.85,),
        "val_accuracy": (0.8,),
        "test_accuracy": (0.8,),
        "test_loss": (0.6,),
        "test_f1_macro": (0.79,),
        "test_roc_auc_ovo": (0.95,),
    }
    assert (row.parameters, row.seconds) == (77, (3.5,))


def test_a_row_that_was_not_run_is_empty() -> None:
    row = _row(make_experiment(published=(ACCURACY,)), [])
    assert (row.figures, row.epochs, row.seconds, row.parameters) == ({}, (), (), None)
    assert not row.shortened
    assert row.agreements[0].words == "not run"


@pytest.mark.parametrize(("max_epochs", "shortened"), [(5, True), (6, False), (7, False)])
def test_a_row_is_shortened_where_trials_were_given_fewer_epochs(
    max_epochs: int, shortened: bool
) -> None:
    experiment = make_experiment(published=(make_figure("test_accuracy", 0.8),))
    full = make_repetition(experiment, 0)
    row = _row(experiment, [full, make_repetition(experiment, 1, max_epochs=max_epochs)])
    assert row.shortened is shortened
    words = "trained for less: not comparable" if shortened else "reproduced"
    assert row.agreements[0].words == words


# A notebook

SMALL, MIDDLE, LARGE = make_experiment("s", 8), make_experiment("m", 16), make_experiment("l", 32)


def _trials(
    experiment: Experiment, *accuracies: float, first: int = 0, **values: object
) -> list[Repetition]:
    parameters = experiment.config.hidden[0] * 100
    return [
        make_repetition(experiment, i, val_accuracy=a, parameters=parameters, **values)
        for i, a in enumerate(accuracies, first)
    ]


def _judge(
    notebook: Notebook, repetitions: Sequence[Repetition], policy: str = "best-mean"
) -> Judgement:
    return judge_notebook(notebook, compare(notebook, repetitions), policy)


def _winner(judgement: Judgement) -> int:
    assert judgement.recommendation is not None
    return judgement.recommendation.winner.config.hidden[0]


THREE = [
    *_trials(SMALL, 0.80, 0.81, 0.82),
    *_trials(MIDDLE, 0.90, 0.91, 0.92),
    *_trials(LARGE, 0.905, 0.915, 0.925),
]
COMPARED = make_notebook(SMALL, MIDDLE, LARGE, recommended="s", because="it is small")


def _reworded(trials: Sequence[Repetition], test_accuracy: float) -> list[Repetition]:
    """The same trials with another test figure, and other figures of training."""
    measures = make_measures(accuracy=test_accuracy, f1_macro=test_accuracy, loss=9.0)
    return [
        Repetition(
            replace(r.trial, tests=(TestResult(6, measures),)),
            [make_epoch(n, train_accuracy=test_accuracy) for n in range(1, 7)],
        )
        for r in trials
    ]


def test_a_recommendation_is_by_validation_alone() -> None:
    before = _judge(COMPARED, THREE)
    best_on_test = [*_reworded(THREE[:3], 1.0), *_reworded(THREE[3:], 0.0)]
    assert _judge(COMPARED, best_on_test) == before
    assert _judge(COMPARED, [*_reworded(THREE[:3], 0.0), *_reworded(THREE[3:], 1.0)]) == before
    better = [replace(r.trial, totals=make_totals(val_accuracy=0.99)) for r in THREE[:3]]
    swapped = [*(Repetition(t, r.epochs) for t, r in zip(better, THREE, strict=False)), *THREE[3:]]
    assert (_winner(before), _winner(_judge(COMPARED, swapped))) == (32, 8)


def test_the_policy_is_the_one_that_was_asked_for() -> None:
    # m and l are 91% and 91.5%; what one gains on a seed the other loses, so that they differ by
    # 0.065, 0.005, -0.055: deviation 0.06, over the root of 6 a margin of 2.4 points. s is 10.5
    # points below, its differences 0.135, 0.105, 0.075 make a margin of 1.2 points.
    trials = [
        *_trials(SMALL, 0.81, 0.81, 0.81),
        *_trials(MIDDLE, 0.88, 0.91, 0.94),
        *_trials(LARGE, 0.945, 0.915, 0.885),
    ]
    assert _winner(_judge(COMPARED, trials, "best-mean")) == 32
    assert _winner(_judge(COMPARED, trials, "one-standard-error")) == 16
    # They differ alike on every seed: m is surely worse.
    assert _winner(_judge(COMPARED, THREE, "one-standard-error")) == 32


# Differences of l from m: 0.035, 0.005, -0.025, so that m is near with 0.5 points and a margin of
# 0.03 over the root of 6, 1.2 points; of l from s 0.04, 0.01, -0.02 likewise, with 1 point.
NEAR_EACH_OTHER = [
    *_trials(SMALL, 0.89, 0.905, 0.92),
    *_trials(MIDDLE, 0.895, 0.91, 0.925),
    *_trials(LARGE, 0.93, 0.915, 0.90),
]


@pytest.mark.parametrize(
    "policy", ["one-standard-error", "best-mean", "lower-bound", "cheapest-within", "pareto"]
)
@pytest.mark.parametrize("trials", [THREE, NEAR_EACH_OTHER], ids=["apart", "near each other"])
@pytest.mark.parametrize("recommended", ["s", "m", "l"])
def test_what_podium_recommends_does_not_depend_on_what_the_notebook_recommended(
    policy: str, trials: list[Repetition], recommended: str
) -> None:
    silent = _judge(make_notebook(SMALL, MIDDLE, LARGE), trials, policy)
    notebook = replace(COMPARED, recommended=recommended, because="of its accuracy on test")
    judgement = _judge(notebook, trials, policy)
    assert judgement.recommendation is not None
    assert judgement.recommendation == silent.recommendation
    assert judgement.sentences[1] == silent.sentences[1]


@pytest.mark.parametrize("recommended", ["", "s", "m", "l"])
def test_the_notebooks_choice_is_not_kept_to_where_something_smaller_is_as_good(
    recommended: str,
) -> None:
    # As the baseline of a study, m or l would keep s from being chosen.
    notebook = replace(COMPARED, recommended=recommended)
    judgement = _judge(notebook, NEAR_EACH_OTHER, "one-standard-error")
    assert _winner(judgement) == 8
    assert judgement.sentences[1].endswith(
        "Chosen: 1.000 points below the best, within 1.225 points, and the smallest of the 3 "
        "within one standard error."
    )


def test_what_was_recommended_there_and_here_is_said() -> None:
    first, second, *_ = _judge(COMPARED, THREE).sentences
    assert first == "The notebook recommended s: it is small."
    assert second.startswith("Podium recommends l by validation accuracy alone: 91.50% (")
    assert "over 3 seeds" in second


@pytest.mark.parametrize(
    "trials",
    [
        [],
        _trials(SMALL, 0.8, 0.9),
        [*_trials(SMALL, 0.8, 0.9), *_trials(LARGE, 0.9)],
        [*_trials(SMALL, 0.8), *_trials(LARGE, 0.9)],
        [*_trials(SMALL, 0.8, 0.9), *_trials(LARGE, 0.9, 0.9, first=1)],
    ],
    ids=["nothing", "one model", "one seed of one", "one seed each", "one seed shared"],
)
def test_less_than_two_models_on_two_shared_seeds_make_no_recommendation(
    trials: list[Repetition],
) -> None:
    judgement = _judge(COMPARED, trials)
    assert judgement.recommendation is None
    assert judgement.sentences[0].startswith("The notebook recommended s")
    assert "recommends nothing" in judgement.sentences[1]


def test_only_seeds_that_all_models_share_count() -> None:
    lucky = [*_trials(SMALL, 0.8, 0.8, 1.0, 1.0), *_trials(LARGE, 0.9, 0.9)]
    recommendation = _judge(COMPARED, lucky).recommendation
    assert recommendation is not None
    assert recommendation.winner.config == LARGE.config
    assert [r.candidate.accuracies for r in recommendation.ranked] == [(0.9, 0.9), (0.8, 0.8)]


def test_runs_are_paired_by_seed_and_not_by_the_order_in_which_they_ended() -> None:
    large = [make_repetition(LARGE, i, number=9 - i, val_accuracy=0.9 + i / 100) for i in (2, 0, 1)]
    recommendation = _judge(COMPARED, [*_trials(SMALL, 0.80, 0.81, 0.82), *large]).recommendation
    assert recommendation is not None
    assert recommendation.winner.accuracies == (0.90, 0.91, 0.92)
    assert recommendation.winner.trials == (9, 8, 7)


def test_a_seed_with_another_split_is_another_seed() -> None:
    other = _trials(LARGE, 0.9, 0.9, split_seed=7)
    assert _judge(COMPARED, [*_trials(SMALL, 0.8, 0.8), *other]).recommendation is None


@pytest.mark.parametrize(
    "left_out",
    [
        (LARGE, _trials(LARGE, 0.99, 0.99, max_epochs=5)),
        (folded := replace(LARGE, folds=5), _trials(folded, 0.99, 0.99)),
        (other := replace(LARGE, validation_fraction=0.3), _trials(other, 0.99, 0.99)),
        (LARGE, _trials(LARGE, 0.99)),
    ],
    ids=["shortened", "folded", "another fraction", "one seed"],
)
def test_a_row_that_cannot_be_compared_fairly_is_no_candidate(
    left_out: tuple[Experiment, list[Repetition]],
) -> None:
    experiment, trials = left_out
    notebook = make_notebook(SMALL, MIDDLE, experiment)
    both = [*_trials(SMALL, 0.8, 0.8), *_trials(MIDDLE, 0.9, 0.9)]
    recommendation = _judge(notebook, [*both, *trials]).recommendation
    assert recommendation is not None
    assert {r.candidate.config for r in recommendation.ranked} == {SMALL.config, MIDDLE.config}


def test_a_row_that_is_left_out_does_not_take_seeds_from_the_others() -> None:
    short = _trials(LARGE, 0.99, 0.99, first=50, max_epochs=5)
    recommendation = _judge(
        COMPARED, [*_trials(SMALL, 0.8, 0.8), *_trials(MIDDLE, 0.9, 0.9), *short]
    ).recommendation
    assert recommendation is not None


def test_equal_experiments_are_one_candidate_under_both_names() -> None:
    twin = make_experiment("t", 32)
    notebook = make_notebook(SMALL, LARGE, twin, recommended="t", because="who knows")
    judgement = _judge(notebook, [*_trials(SMALL, 0.8, 0.81), *_trials(LARGE, 0.9, 0.91)])
    assert judgement.recommendation is not None
    assert len(judgement.recommendation.ranked) == 2
    assert judgement.recommendation.winner.config == twin.config
    assert "Podium recommends l = t by" in judgement.sentences[1]
    assert not any("the notebook's choice" in sentence for sentence in judgement.sentences)


def test_models_that_the_evidence_does_not_separate_from_the_best_are_named() -> None:
    close = [
        *_trials(SMALL, 0.80, 0.81, 0.82),
        *_trials(MIDDLE, 0.90, 0.92, 0.91),
        *_trials(LARGE, 0.905, 0.915, 0.925),
    ]
    said = _judge(COMPARED, close).sentences
    [sentence] = [s for s in said if "does not separate" in s]
    assert "does not separate m from the one with the best mean, l:" in sentence
    assert "95.00%" in sentence


def test_models_that_differ_alike_on_every_seed_are_separated() -> None:
    # m is 0.5 points below l on each of three seeds: less than l itself varies, yet surely worse.
    assert not any("does not separate" in s for s in _judge(COMPARED, THREE).sentences)


def test_evidence_for_another_choice_than_the_notebooks_is_said_to_separate_them() -> None:
    last = _judge(COMPARED, THREE).sentences[-1]
    assert last == (
        "The probability that l is better than s, the notebook's choice, is 100.00%: the evidence "
        "separates them."
    )


def test_weak_evidence_against_the_notebooks_choice_is_said_not_to_separate_them() -> None:
    trials = [*_trials(SMALL, 0.90, 0.95, 0.85), *_trials(LARGE, 0.95, 0.90, 0.88)]
    last = _judge(COMPARED, trials).sentences[-1]
    assert "the probability that l is better than s" in last.lower()
    assert last.endswith("the evidence does not separate them.")


def test_a_smaller_choice_that_is_surely_worse_is_separated_as_well() -> None:
    # Within the half point that the policy may give up, yet below the best on every seed.
    spread = [0.80, 0.90, 1.0]
    trials = [*_trials(SMALL, *(a - 0.004 for a in spread)), *_trials(LARGE, *spread)]
    notebook = make_notebook(SMALL, LARGE, recommended="l", because="best on test")
    judgement = _judge(notebook, trials, "cheapest-within")
    assert _winner(judgement) == 8
    assert "that s is better than l, the notebook's choice, is 0.00%" in judgement.sentences[-1]
    assert judgement.sentences[-1].endswith("the evidence separates them.")


def test_where_podium_agrees_nothing_is_said_against_the_notebook() -> None:
    agreeing = replace(COMPARED, recommended="l")
    sentences = _judge(agreeing, THREE).sentences
    assert not any("the notebook's choice" in s or "nothing can be said" in s for s in sentences)


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([], "Experiment s was not run, so that"),
        (_trials(SMALL, 0.8), "Experiment s was trained on 1 seed here, so that"),
        (
            _trials(SMALL, 0.8, max_epochs=2, epochs=[make_epoch(1), make_epoch(2)]),
            "Experiment s was trained on 1 seed here, for 2 of 6 epochs, so that",
        ),
        (
            _trials(SMALL, 0.8, 0.8, max_epochs=2, epochs=[make_epoch(1), make_epoch(2)]),
            "Experiment s was trained on 2 seeds here, for 2 of 6 epochs, so that",
        ),
    ],
    ids=["not run", "one seed", "one shortened seed", "shortened"],
)
def test_a_choice_that_was_not_repeated_in_full_is_judged_neither_better_nor_worse(
    trials: list[Repetition], said: str
) -> None:
    last = _judge(COMPARED, [*THREE[3:], *trials]).sentences[-1]
    assert last.startswith(said)
    assert "nothing can be said" in last


def test_a_notebook_that_recommended_nothing_is_not_contradicted() -> None:
    silent = make_notebook(SMALL, MIDDLE, LARGE)
    judgement = _judge(silent, THREE)
    assert _winner(judgement) == 32
    assert judgement.sentences[0] == "The notebook compared nothing and recommended nothing."
    assert not any("notebook's choice" in sentence for sentence in judgement.sentences)
    assert "recommends nothing" in _judge(silent, []).sentences[1]


def test_seeds_that_share_their_validation_images_are_said_to() -> None:
    def said(tail: bool) -> str:
        small, large = (replace(experiment, tail=tail) for experiment in (SMALL, LARGE))
        trials = [*_trials(small, 0.8, 0.81), *_trials(large, 0.9, 0.91)]
        return " ".join(_judge(make_notebook(small, large), trials).sentences)

    assert "own validation images" in said(True)
    assert "own validation images" not in said(False)


def _falling(lowest: int, epochs: int = 6) -> list[object]:
    return [make_epoch(n, val_loss=1 + abs(n - lowest)) for n in range(1, epochs + 1)]


def test_epochs_after_the_lowest_validation_loss_are_called_wasted() -> None:
    notebook = make_notebook(LARGE)
    trials = [make_repetition(LARGE, i, epochs=_falling(lowest)) for i, lowest in enumerate((2, 3))]
    said = " ".join(_judge(notebook, trials).sentences)
    assert re.search(r"validation loss of experiment l was lowest after epoch 2, 3 of 6\b", said)


def test_epochs_that_patience_allowed_are_not_called_wasted() -> None:
    patient = make_experiment("p", patience=4)
    trials = [make_repetition(patient, i, epochs=_falling(2)) for i in range(2)]
    sentences = _judge(make_notebook(patient), trials).sentences
    assert not any("lowest after epoch" in sentence for sentence in sentences)


def test_no_epochs_are_called_wasted_where_the_loss_falls_to_the_end() -> None:
    trials = [make_repetition(LARGE, i, epochs=_falling(lowest)) for i, lowest in enumerate((2, 6))]
    for found in (trials, []):
        sentences = _judge(make_notebook(LARGE), found).sentences
        assert not any("lowest after epoch" in sentence for sentence in sentences)


@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
def test_every_published_notebook_can_be_judged_run_or_not(notebook: Notebook) -> None:
    assert _judge(notebook, []).recommendation is None
    trials = [
        make_repetition(experiment, i, number=100 * n + i, val_accuracy=0.9 + n / 1000 + i / 10_000)
        for n, experiment in enumerate(notebook.experiments)
        for i in range(3)
    ]
    judgement = _judge(notebook, trials, "one-standard-error")
    models = {
        e.config.config_id
        for e in notebook.experiments
        if not e.folds and (notebook.id, e.id) != ("bottleneck", "base")
    }
    if len(models) < 2:
        assert judgement.recommendation is None
        return
    assert judgement.recommendation is not None
    ranked = judgement.recommendation.ranked
    assert {r.candidate.config.config_id for r in ranked} == models
    assert not any(r.candidate.is_baseline for r in ranked)
    assert all(math.isfinite(r.standard_error) for r in ranked)
