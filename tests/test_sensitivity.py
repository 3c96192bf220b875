"""What would change a decision: each sentence is there when it is true, and only then."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.inference import runs_to_separate
from search.records import Candidate, ConfigError, Criteria, Recommendation, StudyFailed
from search.selection import called, recommend
from search.sensitivity import explained
from search.settings import CORRECTIONS, POLICIES
from tests.builders import make_candidate, quick

FRACTION = 0.2
CLASSICAL = Criteria(correction="nadeau-bengio")
"""One standard error, of the best alone: candidates that go up and down together may be near."""


def changes(*candidates: Candidate, criteria: Criteria | None = None) -> tuple[str, ...]:
    return explained(candidates, criteria or Criteria("best-mean"), FRACTION).changes


def beginning(start: str, sentences: tuple[str, ...]) -> list[str]:
    return [sentence for sentence in sentences if sentence.startswith(start)]


# Always 4 points apart, so that no seeds are needed to tell them apart.
BEST = make_candidate([0.92, 0.94, 0.96], 9_000, gaps=0.05, costs=2.0)
SMALL = make_candidate([0.88, 0.90, 0.92], 900, is_baseline=True, gaps=0.01, costs=1.0)
SMALL_BUT_BAD = make_candidate([0.60, 0.62, 0.64], 9_500, gaps=0.06, costs=3.0)


def test_what_is_recommended_is_what_selection_recommends() -> None:
    found = explained([BEST, SMALL], Criteria("pareto"), FRACTION)
    plainly = recommend([BEST, SMALL], Criteria("pareto"), FRACTION)
    assert plainly.changes == ()
    for name in ("ranked", "chosen", "summary", "criteria", "comparisons", "alternatives"):
        assert getattr(found, name) == getattr(plainly, name)


def test_what_selection_refuses_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown policy"):
        explained([BEST], Criteria("best-meen"), FRACTION)
    with pytest.raises(ConfigError, match=r"Unknown correction 'pared'\. Did you mean 'paired'\?"):
        explained([BEST], Criteria(correction="pared"), FRACTION)
    with pytest.raises(StudyFailed, match="max-params"):
        explained([BEST], Criteria(max_params=1), FRACTION)


# Other policies


def test_what_other_policies_would_choose_is_one_sentence_for_each_choice() -> None:
    # 94%, 93.6% and 93.2%, each always the same distance from the others.
    best = make_candidate([0.92, 0.94, 0.96], 9_000, gaps=0.05)
    near = make_candidate([0.916, 0.936, 0.956], 4_500, gaps=0.01)
    small = make_candidate([0.912, 0.932, 0.952], 900, gaps=0.02)
    criteria = replace(CLASSICAL, policy="best-mean", tolerance=0.005)
    found = changes(best, near, small, criteria=criteria)
    assert beginning("Under", found) == [
        f"Under one-standard-error it would be {called(small)}: "
        "0.800 points less accurate, 0.10 times the parameters.",
        f"Under smallest-gap or cheapest-within or pareto it would be {called(near)}: "
        "0.400 points less accurate, 0.50 times the parameters.",
    ]
    assert beginning("Every policy", found) == []


def test_what_another_policy_would_choose_may_be_better_and_larger() -> None:
    best = make_candidate([0.92, 0.94, 0.96], 9_000)
    # Differences -0.032, 0.008, 0.048: deviation 0.04, over the root of 6 a margin of 0.0163.
    small = make_candidate([0.952, 0.932, 0.912], 900, is_baseline=True)
    assert beginning("Under", changes(best, small, criteria=Criteria())) == [
        f"Under best-mean or lower-bound or cheapest-within or pareto it would be {called(best)}: "
        "0.800 points more accurate, 10.00 times the parameters."
    ]


def test_where_every_policy_would_choose_the_same_it_is_said() -> None:
    assert changes(BEST, SMALL_BUT_BAD) == ("Every policy would choose the same.",)


def test_policies_that_cannot_choose_are_not_said_to_choose_the_same() -> None:
    best = make_candidate([0.92, 0.94, 0.96], 100)
    worse = make_candidate([0.60, 0.62, 0.64], 9_000)
    found = explained([best, worse], Criteria("best-mean"), FRACTION)
    assert "smallest-gap" not in found.alternatives
    assert found.changes == ("Every policy that can be applied would choose the same.",)


# Lifted limits


@pytest.mark.parametrize(
    ("criteria", "limit"),
    [
        (Criteria("best-mean", max_params=8_999), "--max-params 8999"),
        (Criteria("best-mean", max_latency_ms=1.5), "--max-latency-ms 1.5"),
        (Criteria("best-mean", max_gap=0.02), "--max-gap 0.02"),
    ],
)
def test_a_limit_that_decided_is_told_with_what_it_would_be_without(
    criteria: Criteria, limit: str
) -> None:
    assert beginning("Without", changes(BEST, SMALL, criteria=criteria)) == [
        f"Without {limit} it would be {called(BEST)}: "
        "4.000 points more accurate, 10.00 times the parameters."
    ]


def test_a_recall_that_decided_is_told_with_what_it_would_be_without() -> None:
    blind = make_candidate([0.92, 0.94, 0.96], 9_000, recalls=(0.2, 1.0))
    fair = make_candidate([0.88, 0.90, 0.92], 900, recalls=(0.8, 0.9))
    found = changes(blind, fair, criteria=Criteria("best-mean", min_class_recall=0.5))
    assert beginning("Without", found) == [
        f"Without --min-class-recall 0.5 it would be {called(blind)}: "
        "4.000 points more accurate, 10.00 times the parameters."
    ]


@pytest.mark.parametrize(
    "criteria", [Criteria("best-mean"), Criteria("best-mean", max_params=9_000)]
)
def test_a_limit_that_did_not_decide_is_not_told(criteria: Criteria) -> None:
    assert beginning("Without", changes(BEST, SMALL, criteria=criteria)) == []


def test_of_two_limits_that_rule_out_the_same_neither_alone_would_change_anything() -> None:
    criteria = Criteria("best-mean", max_params=8_000, max_gap=0.02)
    assert beginning("Without", changes(BEST, SMALL, criteria=criteria)) == []


def test_a_large_limit_is_told_as_it_was_typed() -> None:
    large = make_candidate([0.92, 0.94, 0.96], 12_345_678, units=1)
    criteria = Criteria("best-mean", max_params=12_345_677)
    [sentence] = beginning("Without", changes(large, SMALL, criteria=criteria))
    assert sentence.startswith("Without --max-params 12345677 it would be ")


# More runs


def test_how_many_seeds_would_tell_two_apart_is_told() -> None:
    # Differences 0, 0.02, 0.04: 15 runs, as worked out in the tests of inference.
    first = make_candidate([0.90, 0.92, 0.94], 500)
    second = make_candidate([0.90, 0.90, 0.90], 600, is_baseline=True)
    found = changes(first, second)
    assert beginning("If", found) == [
        "If the difference from the baseline (2.000 points) is real, about 15 seeds instead of 3 "
        "would show it (`podium resume` with `--confirm-seeds 15` trains them; another model that "
        "comes of it is another look at the test split)."
    ]


def test_a_rival_in_two_roles_is_told_once() -> None:
    first = make_candidate([0.90, 0.92, 0.94], 500)
    second = make_candidate([0.90, 0.90, 0.90], 600, is_baseline=True, is_champion=True)
    assert len(beginning("If", changes(first, second))) == 1


def test_a_recommended_one_with_the_lower_mean_is_told_apart_by_more_seeds_as_well() -> None:
    best = make_candidate([0.90, 0.92, 0.94], 500)
    steady = make_candidate([0.911, 0.911, 0.911], 600, is_baseline=True)
    found = explained([best, steady], Criteria("lower-bound"), FRACTION)
    assert found.winner is steady
    needed = runs_to_separate(steady.accuracies, best.accuracies, FRACTION)
    [sentence] = beginning("If the difference", found.changes)
    assert needed is None
    assert f"from {called(best)} (0.900 points)" in sentence


def test_runs_that_share_too_many_images_need_more_data_and_not_more_seeds() -> None:
    # Differences -0.01, 0.01, 0.03: mean 0.01, deviation 0.02, of which half stays for ever.
    first = make_candidate([0.89, 0.91, 0.93], 500)
    second = make_candidate([0.90, 0.90, 0.90], 600, is_baseline=True)
    [sentence] = beginning("If", changes(first, second))
    assert sentence == (
        "If the difference from the baseline (1.000 points) is real, even 200 seeds would not show "
        "it with 95.00% certainty: the runs share their images. More data would."
    )
    assert "confirm-seeds" not in sentence


def test_what_ties_is_said_to_tie() -> None:
    first = make_candidate([0.89, 0.91, 0.93], 500)
    second = make_candidate([0.93, 0.91, 0.89], 600, is_baseline=True)
    found = changes(first, second)
    assert "More seeds may tell it from the baseline: so far they tie." in found
    assert beginning("If", found) == []


def test_as_many_right_images_tie_whatever_the_last_digit_of_their_mean() -> None:
    first = make_candidate([right / 360 for right in (330, 330, 337)], 500)
    second = make_candidate([right / 360 for right in (332, 332, 333)], 600, is_baseline=True)
    found = changes(first, second)
    assert beginning("More seeds may tell it from ", found) != []
    assert not any("(0.000 points)" in sentence for sentence in found)


def test_what_is_told_apart_already_needs_no_seeds() -> None:
    assert not any("seeds" in sentence for sentence in changes(BEST, SMALL))


# Chosen for its size


def test_what_was_chosen_for_its_size_is_told_with_what_that_costs() -> None:
    best = make_candidate([0.92, 0.94, 0.96], 9_000)
    small = make_candidate([0.91, 0.93, 0.95], 900, is_baseline=True)
    assert beginning("It is chosen", changes(best, small, criteria=CLASSICAL)) == [
        f"It is chosen for its size. Were accuracy worth more than size, {called(best)} would be "
        "it: 1.000 points more accurate, where one standard error is 1.528 points."
    ]


@pytest.mark.parametrize(
    "best", [[0.94, 0.94, 0.94], [0.92, 0.94, 0.96]], ids=["steady", "varying"]
)
def test_the_standard_error_within_which_it_was_chosen_is_the_one_that_is_told(
    best: list[float],
) -> None:
    # Differences -0.03, 0.01, 0.05: deviation 0.04, over the root of 6 a margin of 0.0163, however
    # much the best varies by itself.
    accurate = make_candidate(best, 9_000)
    gains = zip(best, (-0.03, 0.01, 0.05), strict=True)
    small = make_candidate([a - gain for a, gain in gains], 900, is_baseline=True)
    found = explained([accurate, small], Criteria(), FRACTION)
    [sentence] = beginning("It is chosen", found.changes)
    assert sentence.endswith(
        "1.000 points more accurate, where one standard error is 1.633 points."
    )
    assert "within 1.633 points" in found.ranked[found.chosen].reason


def test_the_standard_error_that_is_told_is_that_of_the_chosen_one_whatever_others_do() -> None:
    # Differences from the best -0.03, 0.01, 0.05 of the small one, as above; 0.004, 0.005, 0.006 of
    # another that is nearer, yet surely worse; and one that diverged on two seeds.
    accurate = make_candidate([0.92, 0.94, 0.96], 9_000)
    small = make_candidate([0.95, 0.93, 0.91], 900, is_baseline=True)
    nearer = make_candidate([0.916, 0.935, 0.954], 2_000)
    diverged = make_candidate([0.94, 0.1, 0.1], 100)
    found = explained([diverged, nearer, small, accurate], Criteria(), FRACTION)
    assert found.winner is small
    [sentence] = beginning("It is chosen", found.changes)
    assert sentence.endswith(
        "1.000 points more accurate, where one standard error is 1.633 points."
    )


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "one-standard-error"])
def test_no_other_policy_is_said_to_choose_by_one_standard_error(policy: str) -> None:
    best = make_candidate([0.92, 0.94, 0.96], 9_000, gaps=0.05)
    small = make_candidate([0.918, 0.938, 0.958], 900, gaps=0.01)
    assert beginning("It is chosen", changes(best, small, criteria=Criteria(policy))) == []


def test_the_best_is_not_said_to_be_chosen_for_its_size() -> None:
    assert beginning("It is chosen", changes(BEST, SMALL, criteria=Criteria())) == []


def test_what_was_chosen_for_its_size_is_compared_with_the_best_that_is_allowed() -> None:
    ruled_out = make_candidate([0.94, 0.96, 0.98], 9_000)
    best = make_candidate([0.92, 0.94, 0.96], 7_000)
    small = make_candidate([0.91, 0.93, 0.95], 700, is_baseline=True)
    criteria = replace(CLASSICAL, max_params=8_000)
    assert beginning("It is chosen", changes(ruled_out, best, small, criteria=criteria)) == [
        f"It is chosen for its size. Were accuracy worth more than size, {called(best)} would be "
        "it: 1.000 points more accurate, where one standard error is 1.528 points."
    ]


def test_what_was_chosen_for_its_speed_is_not_said_to_be_chosen_for_its_size() -> None:
    slow = make_candidate([0.92, 0.94, 0.96], 900, units=1, costs=2.0)
    # Differences -0.03, 0.01, 0.05: deviation 0.04, over the root of 6 a margin of 0.0163.
    fast = make_candidate([0.95, 0.93, 0.91], 900, units=2, costs=1.0)
    found = explained([slow, fast], Criteria(), FRACTION)
    assert found.winner is fast
    assert beginning("It is chosen", found.changes) == []


# All of them at once

rows = st.tuples(
    st.lists(st.sampled_from([0.9, 0.91, 0.92, 0.95]), min_size=3, max_size=3),
    st.sampled_from([100, 101, 500, 5_000]),
    st.sampled_from([0.0, 0.02, 0.05]),
    st.sampled_from([0.5, 2.0]),
)
candidate_lists = st.lists(rows, min_size=1, max_size=5).map(
    lambda found: [
        make_candidate(
            values, size, gaps=gap, costs=latency, is_baseline=index == 0, units=index + 1
        )
        for index, (values, size, gap, latency) in enumerate(found)
    ]
)
some_criteria = st.builds(
    Criteria,
    policy=st.sampled_from(POLICIES),
    correction=st.sampled_from(CORRECTIONS),
    max_params=st.none() | st.sampled_from([100, 500]),
    max_latency_ms=st.none() | st.just(1.0),
)


def attempt(candidates: list[Candidate], criteria: Criteria) -> Recommendation | None:
    try:
        return explained(candidates, criteria, FRACTION)
    except StudyFailed:
        return None


@quick
@given(candidate_lists, some_criteria)
def test_every_sentence_is_there_exactly_when_it_is_true(
    candidates: list[Candidate], criteria: Criteria
) -> None:
    found = attempt(candidates, criteria)
    if found is None:
        return
    winner = found.winner.config.config_id
    by_name = {called(c): c.config.config_id for c in candidates}
    told = {
        policy: by_name[match[2]]
        for sentence in beginning("Under", found.changes)
        if (match := re.match(r"Under (.*) it would be (.*): ", sentence))
        for policy in match[1].split(" or ")
    }
    assert told == {p: c for p, c in found.alternatives.items() if c != winner}
    assert ("Every policy would choose the same." in found.changes) == (not told)
    lifted = {
        "max_params": replace(criteria, max_params=None),
        "max_latency_ms": replace(criteria, max_latency_ms=None),
    }
    for limit, without in lifted.items():
        other = attempt(candidates, without)
        changed = (
            getattr(criteria, limit) is not None
            and other is not None
            and other.winner.config.config_id != winner
        )
        flag = f"Without --{limit.replace('_', '-')}"
        assert bool(beginning(flag, found.changes)) == changed
    rivals = {c.config_id for c in found.comparisons} & set(found.unseparated)
    seeds = [s for s in found.changes if s.startswith(("If the difference", "More seeds may"))]
    assert len(seeds) == len(rivals)
    best = next(row.candidate for row in found.ranked if row.allowed)
    smaller = criteria.policy == "one-standard-error" and found.winner.parameters < best.parameters
    assert bool(beginning("It is chosen for its size", found.changes)) == smaller


@quick
@given(candidate_lists, some_criteria, st.randoms(use_true_random=False))
def test_neither_the_order_of_the_candidates_nor_repeating_one_changes_a_sentence(
    candidates: list[Candidate], criteria: Criteria, random: Any
) -> None:
    shuffled = [*candidates, candidates[0]]
    random.shuffle(shuffled)
    assert attempt(shuffled, criteria) == attempt(candidates, criteria)
