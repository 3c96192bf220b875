"""What would change a decision: other policies, other constraints, more runs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search.inference import runs_to_separate
from search.records import Candidate, Criteria, Recommendation, StudyFailed
from search.selection import as_typed, called, one_standard_error, percent, points, recommend
from search.settings import POLICIES

MOST_RUNS = 200
LIMITS = ("max_params", "max_latency_ms", "max_gap", "min_class_recall")


def explained(
    candidates: Sequence[Candidate], criteria: Criteria, validation_fraction: float
) -> Recommendation:
    """A recommendation that also says what would change it.

    Raises:
        ConfigError: no such policy.
        StudyFailed: no candidate can be recommended.
    """
    made = recommend(candidates, criteria, validation_fraction)
    changes = [
        *_other_policies(made),
        *_without_limits(made, candidates, validation_fraction),
        *_more_runs(made, validation_fraction),
        *_drift(made),
    ]
    return replace(made, changes=tuple(changes))


def _other_policies(made: Recommendation) -> list[str]:
    """One sentence for each candidate that another policy would choose."""
    by_choice: dict[str, list[str]] = {}
    for policy, config_id in made.alternatives.items():
        if config_id != made.winner.config.config_id:
            by_choice.setdefault(config_id, []).append(policy)
    known = {r.candidate.config.config_id: r.candidate for r in made.ranked}
    sentences = [
        f"Under {' or '.join(policies)} it would be {called(known[config_id])}: "
        f"{_beside(known[config_id], made.winner)}."
        for config_id, policies in by_choice.items()
    ]
    if not by_choice and len(made.alternatives) > 1:
        which = "" if len(made.alternatives) == len(POLICIES) else " that can be applied"
        sentences = [f"Every policy{which} would choose the same."]
    return sentences


def _beside(other: Candidate, winner: Candidate) -> str:
    difference = other.mean - winner.mean
    accuracy = f"{points(abs(difference))} {'more' if difference >= 0 else 'less'} accurate"
    return f"{accuracy}, {other.parameters / winner.parameters:.2f} times the parameters"


def _without_limits(
    made: Recommendation, candidates: Sequence[Candidate], validation_fraction: float
) -> list[str]:
    sentences = []
    for limit in LIMITS:
        value = getattr(made.criteria, limit)
        if value is None:
            continue
        without: dict[str, Any] = {limit: None}
        try:
            other = recommend(
                candidates, replace(made.criteria, **without), validation_fraction
            ).winner
        except StudyFailed:
            continue
        if other.config != made.winner.config:
            flag = f"--{limit.replace('_', '-')} {as_typed(value)}"
            sentences.append(
                f"Without {flag} it would be {called(other)}: {_beside(other, made.winner)}."
            )
    return sentences


def _more_runs(made: Recommendation, validation_fraction: float) -> list[str]:
    """How many seeds would tell the recommended one from the nearest rival, if any."""
    rivals = [c for c in made.comparisons if c.config_id in made.unseparated]
    known = {r.candidate.config.config_id: r.candidate for r in made.ranked}
    sentences = []
    for config_id in dict.fromkeys(c.config_id for c in rivals):
        rival, winner = known[config_id], made.winner
        difference, seeds = winner.mean - rival.mean, len(winner.accuracies)
        needed = runs_to_separate(
            winner.accuracies, rival.accuracies, validation_fraction, MOST_RUNS
        )
        seen = f"the difference from {called(rival)} ({points(abs(difference))})"
        if difference == 0:
            sentences.append(f"More seeds may tell it from {called(rival)}: so far they tie.")
        elif needed is None:
            sentences.append(
                f"If {seen} is real, even {max(MOST_RUNS, seeds)} seeds would not show it with "
                f"{percent(0.95)} certainty: the runs share their images. More data would."
            )
        else:
            sentences.append(
                f"If {seen} is real, about {needed} seeds instead of {seeds} "
                f"would show it (`podium resume` with `--confirm-seeds {needed}` trains them; "
                "another model that comes of it is another look at the test split)."
            )
    return sentences


def _drift(made: Recommendation) -> list[str]:
    """What the recommended one gives up for its size."""
    best = next(r for r in made.ranked if r.allowed)
    is_smaller = made.winner.parameters < best.candidate.parameters
    if made.policy != "one-standard-error" or not is_smaller:
        return []
    below = best.candidate.mean - made.winner.mean
    return [
        f"It is chosen for its size. Were accuracy worth more than size, {called(best.candidate)} "
        f"would be it: {points(below)} more accurate, where one standard error is "
        f"{points(one_standard_error(made))}."
    ]
