"""Which confirmed candidate to recommend, and why. Pure: no I/O, no clock, no test data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from scipy.stats import binomtest, t

from search.records import (
    Candidate,
    ConfigError,
    Interval,
    Phase,
    Reasoned,
    Recommendation,
    State,
    StudyFailed,
    TrialRecord,
)
from search.settings import POLICIES, nearest

CONFIDENCE = 0.95


def corrected_standard_error(accuracies: Sequence[float], test_fraction: float) -> float:
    """Standard error of a mean over resampled splits, which overlap and so are not independent.

    Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52 (2003):
    the variance of n runs is multiplied by 1/n + test_fraction / (1 - test_fraction).

    Args:
        accuracies: at least 2, one per run.
        test_fraction: of each split, the part that measures: in (0, 1).
    """
    spread = 1 / len(accuracies) + test_fraction / (1 - test_fraction)
    return math.sqrt(statistics.variance(accuracies) * spread)


def wilson_interval(hits: int, count: int) -> Interval:
    """Proportion with its 95% score interval (Wilson, JASA 22, 1927)."""
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


def confirmed_candidates(trials: Sequence[TrialRecord], baseline_id: str) -> list[Candidate]:
    """The configurations that were confirmed on all the seeds of the study.

    One of which a run failed or is missing is left out: its mean could not be compared.

    Args:
        trials: all of a study.
        baseline_id: the `config_id` of the space's default configuration.

    Raises:
        StudyFailed: the baseline is not confirmed on all the seeds, at least two, so that there is
            nothing to compare with.
    """
    searched: dict[str, float] = {}
    runs: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        config_id = trial.config.config_id
        if trial.phase is Phase.CONFIRM:
            runs.setdefault(config_id, []).append(trial)
        elif trial.totals is not None:
            accuracy = trial.totals.val_accuracy
            searched[config_id] = max(accuracy, searched.get(config_id, accuracy))
    if not runs:
        raise StudyFailed("Nothing was confirmed.")
    confirming = [t for group in runs.values() for t in group]
    seeds = list(dict.fromkeys(_seeds(t) for t in sorted(confirming, key=lambda t: t.number)))
    candidates = []
    for config_id, group in runs.items():
        is_baseline = config_id == baseline_id
        done = {_seeds(t): t for t in group if t.state is State.COMPLETED and t.totals}
        if len(done) < max(2, len(seeds)):
            if is_baseline:
                reason = next((t.reason for t in group if t.reason), "unfinished")
                raise StudyFailed(f"The baseline failed in confirmation: {reason}")
            continue
        completed = [done[key] for key in seeds]
        totals = [t.totals for t in completed if t.totals]
        candidates.append(
            Candidate(
                config=group[0].config,
                accuracies=tuple(t.val_accuracy for t in totals),
                trials=tuple(t.number for t in completed),
                parameters=totals[0].parameters,
                search_accuracy=None if is_baseline else searched.get(config_id),
                is_baseline=is_baseline,
            )
        )
    if not any(c.is_baseline for c in candidates):
        raise StudyFailed("The baseline was not confirmed: there is no baseline to compare with.")
    return candidates


def _seeds(trial: TrialRecord) -> tuple[int, int]:
    return trial.seed, trial.split_seed


def recommend(
    candidates: Sequence[Candidate], policy: str, validation_fraction: float
) -> Recommendation:
    """Chooses among confirmed candidates; their order does not matter.

    Args:
        candidates: at least one; exactly one of them the baseline.
        policy: a key of `POLICIES`.
        validation_fraction: part of the pool that each run was validated on.

    Raises:
        ConfigError: no such policy.
    """
    if policy not in RULES:
        raise ConfigError(f"Unknown policy {policy!r}.{nearest(policy, POLICIES)}")
    ordered = sorted(candidates, key=lambda c: (-c.mean, c.parameters, c.config.config_id))
    errors = [corrected_standard_error(c.accuracies, validation_fraction) for c in ordered]
    chosen, reasons = RULES[policy](ordered, errors)
    ranked = tuple(Reasoned(*row) for row in zip(ordered, errors, reasons, strict=True))
    return Recommendation(policy, ranked, chosen, _summary(ranked, chosen))


Ruling = tuple[int, list[str]]


def _one_standard_error(ordered: Sequence[Candidate], errors: Sequence[float]) -> Ruling:
    """The smallest within one standard error of the best (Breiman et al., CART, 1984, 3.4.3)."""
    best, margin = ordered[0], errors[0]
    near = [i for i, c in enumerate(ordered) if best.mean - c.mean <= margin]
    chosen = min(near, key=lambda i: (ordered[i].parameters, i))

    def reason(i: int) -> str:
        below = points(best.mean - ordered[i].mean)
        limit = points(margin)
        if i not in near:
            return f"Not chosen: {below} below the best, more than one standard error ({limit})."
        standing = "the best mean" if i == 0 else f"{below} below the best, within {limit}"
        if i != chosen:
            return f"Not chosen: {standing}, but {_size(ordered[i], ordered[chosen])}."
        if len(near) == 1:
            return f"Chosen: {standing}, and nothing else within one standard error ({limit})."
        return f"Chosen: {standing}, and the smallest of the {len(near)} within that margin."

    return chosen, [reason(i) for i in range(len(ordered))]


def _best_mean(ordered: Sequence[Candidate], _: Sequence[float]) -> Ruling:
    """The highest mean, whatever its size."""
    best = ordered[0].mean
    others = [f"Not chosen: {points(best - c.mean)} below the best mean." for c in ordered[1:]]
    return 0, ["Chosen: the best mean.", *others]


def _lower_bound(ordered: Sequence[Candidate], errors: Sequence[float]) -> Ruling:
    """The highest one-sided 95% lower confidence bound of the mean (Student's t)."""
    bounds = [
        c.mean - t.ppf(CONFIDENCE, len(c.accuracies) - 1) * error
        for c, error in zip(ordered, errors, strict=True)
    ]
    chosen = max(range(len(bounds)), key=lambda i: (bounds[i], -ordered[i].parameters))
    return chosen, [
        f"{'Chosen: the highest' if i == chosen else 'Not chosen: the'} lower bound is "
        f"{percent(bound)}."
        for i, bound in enumerate(bounds)
    ]


RULES: dict[str, Callable[[Sequence[Candidate], Sequence[float]], Ruling]] = {
    "one-standard-error": _one_standard_error,
    "best-mean": _best_mean,
    "lower-bound": _lower_bound,
}


def probability_better(first: Candidate, second: Candidate, validation_fraction: float) -> float:
    """P(mean of `first` > mean of `second`) given their paired runs.

    From the corrected paired t statistic (Nadeau and Bengio 2003) as a posterior under a flat
    prior (Corani and Benavoli 2015). Runs that never differ give 0.5.
    """
    differences = [a - b for a, b in zip(first.accuracies, second.accuracies, strict=True)]
    mean = math.fsum(differences) / len(differences)
    error = corrected_standard_error(differences, validation_fraction)
    if error == 0.0:
        return 0.5 if mean == 0 else float(mean > 0)
    return float(t.cdf(mean / error, len(differences) - 1))


def _summary(ranked: Sequence[Reasoned], chosen: int) -> str:
    winner = ranked[chosen].candidate
    runs = len(winner.accuracies)
    name = "the baseline" if winner.is_baseline else f"configuration {winner.config.config_id}"
    return (
        f"Recommended: {name}, {winner.parameters:,} parameters, validation accuracy "
        f"{percent(winner.mean)} (standard error {points(ranked[chosen].standard_error)}) "
        f"over {runs} fresh seeds."
    )


def _size(candidate: Candidate, chosen: Candidate) -> str:
    ratio = candidate.parameters / chosen.parameters
    if ratio > 1.05:
        return f"{ratio:.1f} times as large"
    return "slightly larger" if candidate.parameters > chosen.parameters else "no smaller"


def percent(fraction: float) -> str:
    """A fraction as people read it: 97.53%."""
    return f"{100 * fraction:.2f}%"


def points(fraction: float) -> str:
    """A difference of fractions as people read it: 0.312 points."""
    return f"{100 * fraction:.3f} points"
