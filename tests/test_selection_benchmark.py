"""The benchmark of the selection: what it simulates and what it counts."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.selection import (
    BELOW_GOAL,
    COLUMNS,
    DATA_SETS,
    GOAL_NOISES,
    HALF,
    MAIN,
    MAIN_TASKS,
    OTHER_LUCK,
    RATIO_GOAL,
    SIZES,
    all_jobs,
    all_plans,
    fresh_jobs,
    least_training,
    meets,
    page,
    record,
    table,
)
from benchmarks.simulation import (
    BEST_FINALIST,
    CONFIGURATIONS,
    SINGLE,
    DataSet,
    Landscape,
    Luck,
    Outcome,
    Plan,
    Study,
    alone,
    candidates,
    choices,
    hopefuls,
    parameter_count,
    play,
    policy_picks,
    random_settings,
    simulate,
    single_scores,
    survey,
    task_codes,
    widths,
)
from search.records import Criteria
from search.selection import recommend
from search.settings import CORRECTIONS, POLICIES, StudySettings
from tests.running import ROOT

FOLDER = ROOT.parent / "shared" / "data" / "lcbench"
DATA = DataSet("1", "hand-made", features=4, classes=2)
QUIET = Luck(own=0.0, shared=0.0)


@pytest.fixture(scope="module")
def landscape() -> Landscape:
    """1,000 configurations whose truth is 0.00%, 0.09%, ... 89.91%."""
    settings = random_settings(np.random.default_rng(1), 1_000)
    return Landscape.of(settings, np.linspace(0.0, 89.91, 1_000), DATA)


def by_hand() -> Study:
    """Three searched configurations and a baseline; the luckiest is not the best."""
    return Study(
        chosen=np.arange(4),
        truth=np.array([80.0, 82.0, 81.0, 81.5]),
        parameters=np.array([100, 200, 400, 300]),
        scores=np.array([80.5, 81.0, 83.0]),
        ranking=np.array([2, 1, 0]),
        runs=np.array([[81.0, 81.2], [82.1, 82.0], [81.4, 81.6]]),
        gaps=np.array([1.0, 2.0, 3.0, 4.0]),
    )


def test_the_best_single_score_is_the_highest_whatever_the_truth() -> None:
    assert by_hand().best_single == 2


def test_finalists_are_the_best_by_score_and_then_the_baseline() -> None:
    assert by_hand().finalists == [2, 1, 3]
    assert by_hand().best_finalist == 1


def test_an_outcome_is_points_below_the_truly_best_worse_than_the_baseline_and_size() -> None:
    found = [Outcome.of(by_hand(), pick) for pick in (2, 1, 3)]
    assert [outcome.below for outcome in found] == [1.0, 0.0, 0.5]
    assert [outcome.is_worse for outcome in found] == [True, False, False]
    sizes = [math.exp(outcome.log_size) for outcome in found]
    assert sizes == pytest.approx([1.0, 0.5, 0.75])


def test_a_baseline_better_than_all_that_was_searched_counts_as_the_best() -> None:
    study = by_hand()
    study.truth[3] = 85.0
    assert Outcome.of(study, 1)[:2] == (3.0, True)


def test_a_record_sums_up_outcomes_beside_the_best_single_score() -> None:
    own = [Outcome(1.0, True, 0.0), Outcome(0.0, False, math.log(0.5)), Outcome(0.5, False, 0.0)]
    single = [Outcome(1.0, True, 0.0), Outcome(1.0, True, 0.0), Outcome(0.0, False, 0.0)]
    found = record({(HALF, "a", SINGLE): single, (HALF, "a", "x"): own}, HALF, "x", ["a"])
    assert found.below == 0.5
    assert found.error == pytest.approx(0.5 / math.sqrt(3))
    assert found.high == pytest.approx(np.percentile([1.0, 0.0, 0.5], 95))
    assert found.worse == pytest.approx(1 / 3)
    assert found.ratio == pytest.approx(0.5)
    assert found.size == pytest.approx(0.5 ** (1 / 3))


def test_a_record_takes_data_sets_together() -> None:
    outcomes = {
        (HALF, task, SINGLE): [Outcome(below, worse, 0.0)] * 2
        for task, below, worse in (("a", 1.0, True), ("b", 3.0, False))
    }
    found = record(outcomes, HALF, SINGLE, ["a", "b"])
    assert (found.below, found.worse, found.ratio) == (2.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("below", "worse", "expected"),
    [(0.05, 1, (True, True)), (0.06, 1, (False, True)), (0.05, 2, (True, False))],
)
def test_goals_are_judged_against_the_best_single_score(
    below: float, worse: int, expected: tuple[bool, bool]
) -> None:
    single = [Outcome(0.1, i < 4, 0.0) for i in range(8)]
    own = [Outcome(below, i < worse, 0.0) for i in range(8)]
    found = record({(HALF, "a", SINGLE): single, (HALF, "a", "x"): own}, HALF, "x", ["a"])
    assert (found.is_near, found.is_safe) == expected


def test_goals_are_those_of_the_issue() -> None:
    assert (BELOW_GOAL, RATIO_GOAL, GOAL_NOISES) == (0.05, 0.25, (0.2, 0.5))
    assert CONFIGURATIONS == 100
    assert len(DATA_SETS) == 3
    assert list(MAIN) == [0.2, 0.5, 1.0]


def test_the_defaults_are_those_of_a_study_and_are_among_what_is_compared() -> None:
    settings = StudySettings()
    assert Plan(Luck(0.5), settings.finalists, settings.confirm_seeds, settings.correction) == HALF
    assert HALF.trainings == (settings.finalists + 1) * settings.confirm_seeds
    assert set(SIZES) >= {*itertools.product((3, 4, 5, 8), (3, 5, 8))}
    assert len(set(all_plans())) == len(all_plans())
    for size, correction in itertools.product(SIZES, CORRECTIONS):
        assert Plan(Luck(0.5), *size, correction) in all_plans()


def test_fresh_studies_are_none_of_the_others() -> None:
    if not (FOLDER / "config_space.json").is_file():
        pytest.skip("the surrogate is not beside the project")
    numbers = {(data.task, number) for data, _, part, _ in all_jobs(FOLDER, 5) for number in part}
    fresh = {(data.task, number) for data, _, part, _ in fresh_jobs(FOLDER, 5) for number in part}
    assert fresh == {(task, number) for task in MAIN_TASKS for number in range(5, 10)}
    assert not fresh & numbers
    assert {(task, number) for task in MAIN_TASKS for number in range(5)} <= numbers


def good_outcomes(plans: list[Plan]) -> dict[tuple[Plan, str, str], list[Outcome]]:
    """The best single score is always worse than the baseline, every other choice perfect."""
    ways = (SINGLE, BEST_FINALIST, *POLICIES, *map(alone, POLICIES))
    return {
        (plan, task, way): [Outcome(float(way == SINGLE), way == SINGLE, 0.0)] * 4
        for plan in plans
        for task in (*MAIN_TASKS, "other")
        for way in ways
    }


def test_a_size_meets_the_goals_only_if_it_does_at_every_noise() -> None:
    outcomes = good_outcomes(all_plans())
    size = SIZES[0]
    assert meets(outcomes, size, "best-mean", "paired")
    for task in MAIN_TASKS:
        outcomes[Plan(Luck(0.2), *size, "paired"), task, "best-mean"] = [Outcome(1, False, 0)] * 4
    assert not meets(outcomes, size, "best-mean", "paired")
    assert meets(outcomes, size, "one-standard-error", "paired")
    finalists, seeds = SIZES[1]
    said = f"{finalists} on {seeds}, {(finalists + 1) * seeds} trainings"
    assert dict(zip(COLUMNS, least_training(outcomes, 2), strict=True))[COLUMNS[-1]] == said


def test_errors_to_spare_count_towards_the_goal() -> None:
    outcomes = good_outcomes(all_plans())
    size = SIZES[0]
    for task in MAIN_TASKS:
        near = [Outcome(below, False, 0.0) for below in (0.0, 0.09, 0.0, 0.09)]
        outcomes[Plan(Luck(0.5), *size, "paired"), task, "best-mean"] = near
    assert meets(outcomes, size, "best-mean", "paired")
    assert not meets(outcomes, size, "best-mean", "paired", spare=2)


def test_what_never_meets_the_goals_is_said_to() -> None:
    outcomes = good_outcomes(all_plans())
    for key in outcomes:
        if key[2] == "best-mean":
            outcomes[key] = [Outcome(1.0, True, 0.0)] * 4
    assert least_training(outcomes, 0)[-1] == "none of these"


def test_a_page_says_what_was_missed_and_which_defaults_it_is_about() -> None:
    outcomes = good_outcomes(all_plans())
    settings = StudySettings()
    text = page(outcomes, outcomes, studies=4)
    assert "(missed)" not in text
    assert f"{settings.finalists} finalists and the baseline on {settings.confirm_seeds}" in text
    assert all(title in text for title in (*OTHER_LUCK, *(title for title, *_ in COLUMNS)))
    for task in MAIN_TASKS:
        outcomes[MAIN[0.2], task, settings.policy] = [Outcome(0.5, True, 0.0)] * 4
    assert "0.500 ± 0.000 (missed)" in page(outcomes, outcomes, studies=4)


def test_a_table_is_markdown() -> None:
    assert table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_the_written_page_is_of_the_defaults_that_studies_have() -> None:
    settings = StudySettings()
    text = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")
    assert (
        f'{settings.policy} ("{settings.correction}"), {settings.finalists} finalists and the '
        f"baseline on {settings.confirm_seeds} seeds: {HALF.trainings} trainings"
    ) in text


def test_candidates_hold_what_the_study_simulated(landscape: Landscape) -> None:
    study = by_hand()
    found = candidates(study, landscape, study.finalists, study.runs)
    expected = [(0.81, 0.812), (0.821, 0.82), (0.814, 0.816)]
    assert [c.accuracies for c in found] == [pytest.approx(pair) for pair in expected]
    assert [c.parameters for c in found] == [400, 200, 300]
    assert [c.gap for c in found] == pytest.approx([0.03, 0.02, 0.04])
    assert [c.search_accuracy for c in found] == [0.83, 0.81, None]
    assert [c.is_baseline for c in found] == [False, False, True]


def test_without_noise_every_run_is_the_truth_and_the_best_is_found(landscape: Landscape) -> None:
    study = simulate(landscape, QUIET, [0], finalists=3, seeds=2)
    rows = study.finalists
    assert np.array_equal(study.runs, np.repeat(study.truth[rows][:, None], 2, axis=1))
    assert np.array_equal(study.scores, study.truth[:-1])
    picks = policy_picks(study, landscape, rows, study.runs, Criteria())
    assert picks["best-mean"] == picks["one-standard-error"] == study.best_finalist


def test_a_study_has_distinct_configurations_and_a_strong_baseline(landscape: Landscape) -> None:
    for number in range(20):
        study = simulate(landscape, QUIET, [number], finalists=3, seeds=2)
        assert len(set(study.chosen.tolist())) == CONFIGURATIONS + 1
        share = np.mean(landscape.truth < study.truth[study.baseline])
        assert 0.964 <= share <= 0.976


def test_what_is_shared_cancels_in_differences_and_what_is_own_does_not(
    landscape: Landscape,
) -> None:
    shared = [simulate(landscape, Luck(0.0001, 0.999), [n], 5, 5).runs for n in range(50)]
    apart = np.concatenate([np.std(runs - runs[-1], axis=1)[:-1] for runs in shared])
    together = np.concatenate([np.std(runs, axis=1) for runs in shared])
    assert apart.max() < 0.001 < np.median(together)


def test_noise_has_the_stated_size_and_shared_part(landscape: Landscape) -> None:
    studies = [simulate(landscape, Luck(0.5, 0.4), [n], 8, 8) for n in range(400)]
    wrong = [s.scores - s.truth[:-1] for s in studies]
    assert np.std(wrong) == pytest.approx(0.5, rel=0.03)
    total = np.mean([s.runs.var(axis=1, ddof=1).mean() for s in studies])
    assert total == pytest.approx(0.25 / 0.6, rel=0.1)
    apart = np.mean([(s.runs[:-1] - s.runs[-1]).var(axis=1, ddof=1).mean() for s in studies])
    assert apart == pytest.approx(2 * 0.25, rel=0.1)


def test_the_pool_part_of_noise_stays_in_every_run_and_in_the_search(landscape: Landscape) -> None:
    study = simulate(landscape, Luck(0.5, shared=0.0, pool=1.0), [3], 5, 5)
    rows = study.finalists
    assert np.ptp(study.runs, axis=1).max() < 1e-9
    assert study.runs[:-1, 0] == pytest.approx(study.scores[rows[:-1]])
    assert np.abs(study.runs[:, 0] - study.truth[rows]).min() > 0


def test_fewer_finalists_and_seeds_are_the_same_study_cut_short(landscape: Landscape) -> None:
    large = simulate(landscape, Luck(0.5), [7], 8, 8)
    small = simulate(landscape, Luck(0.5), [7], 3, 5)
    assert np.array_equal(small.chosen, large.chosen)
    assert np.array_equal(small.scores, large.scores)
    assert small.runs == pytest.approx(large.runs[[0, 1, 2, 8], :5])


def test_sizes_are_those_of_a_funnel() -> None:
    settings = np.array([52, 16, 0.1, 0.1, 0.1, 3, 100, 0.5], np.float32)
    assert widths(settings, 10) == (100, 70, 40)
    data = DataSet("1", "x", features=5, classes=10)
    expected = 6 * 100 + 101 * 70 + 71 * 40 + 41 * 10
    assert parameter_count((100, 70, 40), data) == expected


def test_single_scores_alone_lead_to_the_best_of_them(landscape: Landscape) -> None:
    study = simulate(landscape, Luck(1.0), [5], 5, 5)
    everyone = study.ranking.tolist()
    picks = policy_picks(study, landscape, everyone, single_scores(study, everyone), Criteria())
    same = ("one-standard-error", "best-mean", "lower-bound")
    assert {picks[policy] for policy in same} == {study.best_single}
    assert study.baseline not in picks.values()
    assert study.scores[picks["cheapest-within"]] >= study.scores.max() - 0.5 - 1e-9


def test_leaving_out_who_cannot_be_chosen_changes_no_choice(landscape: Landscape) -> None:
    for number in range(5):
        study = simulate(landscape, Luck(1.0), [number], 5, 5)
        few, everyone = hopefuls(study, Criteria().tolerance), study.ranking.tolist()
        assert len(few) < CONFIGURATIONS / 2
        assert policy_picks(
            study, landscape, few, single_scores(study, few), Criteria()
        ) == policy_picks(study, landscape, everyone, single_scores(study, everyone), Criteria())


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_choices_are_what_recommend_recommends_by_each_policy(
    landscape: Landscape, correction: str
) -> None:
    study = simulate(landscape, Luck(1.0), [6], 5, 5)
    picks = choices(study, landscape, Plan(Luck(1.0), 5, 5, correction))
    assert set(picks) == {SINGLE, BEST_FINALIST, *POLICIES}
    for policy in POLICIES:
        given = candidates(study, landscape, study.finalists, study.runs)
        criteria = Criteria(policy=policy, correction=correction)
        winner = recommend(given, criteria, 0.2).winner
        assert winner.config == landscape.network(int(study.chosen[picks[policy]]))


def test_the_correction_of_a_plan_decides(landscape: Landscape) -> None:
    luck = Luck(1.0, shared=0.9)
    picks = [
        [
            choices(simulate(landscape, luck, [n], 8, 3), landscape, Plan(luck, 8, 3, correction))
            for n in range(10)
        ]
        for correction in CORRECTIONS
    ]
    assert [p["best-mean"] for p in picks[0]] == [p["best-mean"] for p in picks[1]]
    assert [p["one-standard-error"] for p in picks[0]] != [
        p["one-standard-error"] for p in picks[1]
    ]


def test_play_tells_all_ways_to_choose_and_counts_every_study(landscape: Landscape) -> None:
    found = play(DATA, landscape, HALF, range(4))
    ways = {name for _, _, name in found}
    assert ways == {SINGLE, BEST_FINALIST, *POLICIES, *map(alone, POLICIES)}
    assert {len(outcomes) for outcomes in found.values()} == {4}
    assert found[HALF, "1", SINGLE] == found[HALF, "1", alone("best-mean")]
    assert min(outcome.below for outcomes in found.values() for outcome in outcomes) >= 0.0


@pytest.mark.skipif(
    not (FOLDER / "model.onnx").is_file(), reason="the surrogate is not beside the project"
)
@pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)
def test_the_surrogate_is_read_and_confirmation_beats_the_single_score() -> None:
    data = DATA_SETS[0]
    assert {*MAIN_TASKS} <= set(task_codes(Path(FOLDER)))
    landscape = survey(data, FOLDER, 2_000)
    assert 80.0 < np.median(landscape.truth) < 83.0
    assert landscape.truth.max() < 93.0
    found = play(data, landscape, HALF, range(20))
    finalist, confirmed, single = (
        record(found, HALF, way, [data.task]).below for way in (BEST_FINALIST, "best-mean", SINGLE)
    )
    assert finalist <= confirmed < single
