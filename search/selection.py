"""Which confirmed candidate to recommend, and why. Pure: no I/O, no clock, no test data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.stats import t

from search.inference import (
    CONFIDENCE,
    SAME,
    corrected_standard_error,
    holm,
    paired_difference,
    paired_standard_error,
    probability_better,
)
from search.records import (
    Candidate,
    Comparison,
    ConfigError,
    ConstraintsUnmet,
    Costs,
    Criteria,
    Measures,
    Phase,
    Reasoned,
    Recommendation,
    State,
    StudyFailed,
    TrialRecord,
)
from search.settings import CORRECTIONS, POLICIES, nearest

LATENCY_STEP = 1.25
"""Latencies are compared in steps of this ratio in pareto: they are measured with noise."""
SEPARATED = 0.95
"""The probability from which one candidate counts as better than another."""


def confirmed_candidates(
    trials: Sequence[TrialRecord],
    baseline_id: str,
    champion_id: str = "",
    costs: Mapping[str, Costs] | None = None,
) -> list[Candidate]:
    """The configurations that were confirmed on all the seeds of the study.

    One of which a run failed or is missing is left out: its mean could not be compared.

    Args:
        trials: all of a study.
        baseline_id: the `config_id` of the space's default configuration.
        champion_id: that of the champion's configuration, if it was confirmed too.
        costs: of using a model of each `config_id`, as far as they were measured.

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
        elif trial.totals is not None and trial.state is State.COMPLETED:
            accuracy = trial.totals.val_accuracy
            searched[config_id] = max(accuracy, searched.get(config_id, accuracy))
    if not runs:
        raise StudyFailed("Nothing was confirmed.")
    confirming = [t for group in runs.values() for t in group]
    seeds = list(dict.fromkeys(_seeds(t) for t in sorted(confirming, key=lambda t: t.number)))
    candidates = []
    for config_id, group in runs.items():
        done = {_seeds(t): t for t in group if t.state is State.COMPLETED and t.totals}
        if len(done) < max(2, len(seeds)):
            if config_id == baseline_id:
                reason = next((t.reason for t in group if t.reason), "unfinished")
                raise StudyFailed(f"The baseline failed in confirmation: {reason}")
            continue
        candidate = _candidate([done[key] for key in seeds])
        candidates.append(
            replace(
                candidate,
                is_baseline=config_id == baseline_id,
                is_champion=config_id == champion_id,
                search_accuracy=None if config_id == baseline_id else searched.get(config_id),
                costs=(costs or {}).get(config_id),
            )
        )
    if not any(c.is_baseline for c in candidates):
        raise StudyFailed("The baseline was not confirmed: there is no baseline to compare with.")
    return candidates


def left_out(trials: Sequence[TrialRecord]) -> tuple[str, ...]:
    """A sentence for each configuration that `confirmed_candidates` leaves out of all of a study.

    Args:
        trials: all of the study.
    """
    confirming = [trial for trial in trials if trial.phase is Phase.CONFIRM]
    seeds, sentences = set(map(_seeds, confirming)), []
    for config in dict.fromkeys(trial.config for trial in confirming):
        own = [trial for trial in confirming if trial.config == config]
        done = {_seeds(r) for r in own if r.state is State.COMPLETED and r.totals}
        if done == seeds:
            continue
        failed = next((r for r in own if r.state is State.FAILED and _seeds(r) not in done), None)
        why = f"only {len(done)} of {len(seeds)} runs were completed"
        if failed is not None:
            why = f"trial {failed.number}, seed {failed.seed}, failed: {failed.reason}"
        sentences.append(f"{config.config_id} ({config.summary}): left out: {why.rstrip('.')}.")
    return tuple(sentences)


def _seeds(trial: TrialRecord) -> tuple[int, int]:
    return trial.seed, trial.split_seed


def _candidate(runs: Sequence[TrialRecord]) -> Candidate:
    totals = [t.totals for t in runs if t.totals]
    return Candidate(
        config=runs[0].config,
        accuracies=tuple(t.val_accuracy for t in totals),
        trials=tuple(t.number for t in runs),
        parameters=totals[0].parameters,
        search_accuracy=None,
        is_baseline=False,
        gaps=tuple(t.gap for t in totals),
        recalls=_recalls([t.measures for t in totals]),
    )


def _recalls(runs: Sequence[Measures]) -> tuple[float, ...]:
    """Of each class, the mean over the runs that were measured on some of its images."""
    found = []
    for i in range(len(runs[0].recall)):
        known = [m.recall[i] for m in runs if sum(m.confusion[i])]
        found.append(math.fsum(known) / len(known) if known else math.nan)
    return tuple(found)


@dataclass(frozen=True)
class _Contenders:
    """What a policy chooses from: candidates that are allowed, best mean first."""

    candidates: Sequence[Candidate]
    errors: Sequence[float]
    criteria: Criteria

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    def below_best(self, index: int) -> float:
        return self.best.mean - self.candidates[index].mean

    def within(self, margin: float) -> list[int]:
        """Which are at most so far below the best mean."""
        # Means of the same runs in another order may differ in the last digit.
        return [i for i in range(len(self.candidates)) if self.below_best(i) <= margin + SAME]

    def margin(self, index: int) -> float:
        """One standard error of the best mean, as it matters against this candidate."""
        if self.criteria.correction == "nadeau-bengio":
            return self.errors[0]
        return paired_standard_error(self.best.accuracies, self.candidates[index].accuracies)

    def near_best(self) -> list[int]:
        """Which are at most one standard error below the best mean."""
        indices = range(len(self.candidates))
        return [i for i in indices if self.below_best(i) <= self.margin(i) + SAME]

    def no_worse_than_baseline(self, indices: Sequence[int]) -> list[int]:
        """Those of them whose mean is not below the baseline's, where that is a contender."""
        floor = next((c.mean for c in self.candidates if c.is_baseline), -math.inf)
        return [i for i in indices if self.candidates[i].mean >= floor]


Ruling = tuple[int, list[str]]


def recommend(
    candidates: Sequence[Candidate], criteria: Criteria, validation_fraction: float
) -> Recommendation:
    """Chooses among confirmed candidates; neither their order nor repeating one matters.

    Args:
        candidates: at least one; at most one of them the baseline.
        criteria: the policy and what rules a candidate out.
        validation_fraction: part of the pool that each run was validated on.

    Raises:
        ConfigError: no such policy or correction.
        ConstraintsUnmet: no candidate meets the hard constraints.
        StudyFailed: the policy needs what is not known.
    """
    if criteria.policy not in RULES:
        raise ConfigError(
            f"Unknown policy {criteria.policy!r}.{nearest(criteria.policy, POLICIES)}"
        )
    if criteria.correction not in CORRECTIONS:
        known = nearest(criteria.correction, CORRECTIONS)
        raise ConfigError(f"Unknown correction {criteria.correction!r}.{known}")
    ordered = _ordered(candidates)
    errors = [corrected_standard_error(c.accuracies, validation_fraction) for c in ordered]
    broken = [violations(c, criteria) for c in ordered]
    allowed = [i for i, found in enumerate(broken) if not found]
    if not allowed:
        ruled_out = tuple(
            Reasoned(c, error, _ruled_out(found), allowed=False)
            for c, error, found in zip(ordered, errors, broken, strict=True)
        )
        listed = " ".join(
            f"{called(c)}: {'; '.join(found)}." for c, found in zip(ordered, broken, strict=True)
        )
        raise ConstraintsUnmet(
            f"No confirmed candidate meets the constraints. {listed}", ruled_out, criteria
        )
    contenders = _Contenders([ordered[i] for i in allowed], [errors[i] for i in allowed], criteria)
    position, sentences = RULES[criteria.policy](contenders)
    chosen = allowed[position]
    reasons = dict(zip(allowed, sentences, strict=True))
    ranked = tuple(
        Reasoned(
            candidate,
            errors[i],
            reasons.get(i) or _ruled_out(broken[i]),
            allowed=i in reasons,
        )
        for i, candidate in enumerate(ordered)
    )
    winner = ordered[chosen]
    unseparated = tuple(
        ordered[i].config.config_id
        for i in allowed
        if i != chosen and not _separates(winner, ordered[i], validation_fraction)
    )
    made = Recommendation(
        ranked=ranked,
        chosen=chosen,
        summary="",
        criteria=criteria,
        comparisons=_compared(contenders, winner, ordered, validation_fraction),
        unseparated=unseparated,
        optimism=None if winner.search_accuracy is None else winner.search_accuracy - winner.mean,
        alternatives=_alternatives(contenders),
    )
    return replace(made, summary=_summary(made))


def _ruled_out(broken: Sequence[str]) -> str:
    return f"Ruled out: {'; '.join(broken)}."


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Best mean first, each configuration once."""
    found: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=lambda c: (-c.mean, c.parameters, c.config.config_id)):
        found.setdefault(candidate.config.config_id, candidate)
    return list(found.values())


def violations(candidate: Candidate, criteria: Criteria) -> list[str]:
    """Which hard constraints a candidate does not meet, with value and limit.

    What is not known meets none; a class that no run was validated on counts for nothing.
    """
    limits = criteria
    checks = (
        (
            "max-params",
            limits.max_params,
            candidate.parameters,
            f"{candidate.parameters:,} parameters",
        ),
        (
            "max-latency-ms",
            limits.max_latency_ms,
            candidate.latency_ms,
            f"{candidate.latency_ms:.2f} ms",
        ),
        ("max-gap", limits.max_gap, candidate.gap, f"a gap of {points(candidate.gap)}"),
    )
    lowest = candidate.lowest_recall
    recall = (
        "min-class-recall",
        limits.min_class_recall,
        lowest,
        f"a class recall of {percent(lowest)}",
    )
    found = []
    for flag, limit, value, words in (*checks, recall):
        if limit is None:
            continue
        is_floor = flag.startswith("min")
        # A mean of equal runs may differ from them in the last digit.
        beyond = limit - value if is_floor else value - limit
        if math.isnan(value):
            found.append(f"--{flag} {as_typed(limit)} cannot be checked: it was not measured")
        elif beyond > SAME:
            found.append(
                f"{words}, {'less' if is_floor else 'more'} than --{flag} {as_typed(limit)}"
            )
    return found


def loosened(refusal: ConstraintsUnmet) -> str:
    """The flags with which the most accurate candidate would meet what it was measured for."""
    best, limits = refusal.ranked[0].candidate, refusal.criteria
    measured = (
        ("max-params", limits.max_params, float(best.parameters)),
        ("max-latency-ms", limits.max_latency_ms, _rounded(math.ceil, best.latency_ms, 100)),
        ("max-gap", limits.max_gap, _rounded(math.ceil, best.gap, 1000)),
        (
            "min-class-recall",
            limits.min_class_recall,
            _rounded(math.floor, best.lowest_recall, 1000),
        ),
    )
    return " ".join(
        f"--{flag} {as_typed(max(limit, value) if flag.startswith('max') else min(limit, value))}"
        for flag, limit, value in measured
        if limit is not None and not math.isnan(value)
    )


def _rounded(way: Callable[[float], int], value: float, parts: int) -> float:
    return value if math.isnan(value) else way(parts * value) / parts


def _one_standard_error(field: _Contenders) -> Ruling:
    """The smallest within one standard error of the best (Breiman et al., CART, 1984, 3.4.3).

    What is less accurate than the baseline is not chosen for being small: docs/selection.md.
    """
    within = field.near_best()
    near = field.no_worse_than_baseline(within)
    chosen = min(near, key=lambda i: _cheapness(field.candidates[i], "parameters", i))

    def reason(i: int) -> str:
        below, limit = points(field.below_best(i)), points(field.margin(i))
        if i not in within:
            return f"Not chosen: {below} below the best, more than one standard error ({limit})."
        standing = "the best mean" if i == 0 else f"{below} below the best, within {limit}"
        if i not in near:
            return f"Not chosen: {standing}, but below the baseline."
        if i != chosen:
            size = _size(field.candidates[i], field.candidates[chosen])
            return f"Not chosen: {standing}, but {size}."
        kept = " and not below the baseline" if len(near) < len(within) else ""
        if len(near) == 1:
            return f"Chosen: {standing}, and nothing else within one standard error{kept}."
        return (
            f"Chosen: {standing}, and the smallest of the {len(near)} within one standard "
            f"error{kept}."
        )

    return chosen, [reason(i) for i in range(len(field.candidates))]


def one_standard_error(made: Recommendation) -> float:
    """How far below the best mean the chosen one could be, under the policy of that name."""
    allowed = [r for r in made.ranked if r.allowed]
    field = _Contenders(
        [r.candidate for r in allowed], [r.standard_error for r in allowed], made.criteria
    )
    return field.margin(field.candidates.index(made.winner))


def _best_mean(field: _Contenders) -> Ruling:
    """The highest mean, whatever its size."""

    def reason(i: int) -> str:
        if field.below_best(i) <= SAME:
            return f"Not chosen: the same mean, but {_size(field.candidates[i], field.best)}."
        return f"Not chosen: {points(field.below_best(i))} below the best mean."

    return 0, ["Chosen: the best mean.", *map(reason, range(1, len(field.candidates)))]


def _lower_bound(field: _Contenders) -> Ruling:
    """The highest one-sided 95% lower confidence bound of the mean (Student's t)."""
    bounds = [
        c.mean - float(t.ppf(CONFIDENCE, len(c.accuracies) - 1)) * error
        for c, error in zip(field.candidates, field.errors, strict=True)
    ]
    chosen = max(range(len(bounds)), key=lambda i: (bounds[i], -field.candidates[i].parameters))
    return chosen, [
        f"{'Chosen: the highest' if i == chosen else 'Not chosen: the'} lower bound is "
        f"{percent(bound)}."
        for i, bound in enumerate(bounds)
    ]


def _smallest_gap(field: _Contenders) -> Ruling:
    """The smallest train-validation gap among those nearly as good as the best.

    The rule of the notebooks that Podium replaces, made safe: underfitting, which has no gap
    either, cannot win.
    """
    tolerance = field.criteria.tolerance
    within = field.no_worse_than_baseline(field.within(tolerance))
    near = [i for i in within if not math.isnan(field.candidates[i].gap)]
    if not near:
        raise StudyFailed("Policy smallest-gap: no candidate within the tolerance has a gap.")
    chosen = min(near, key=lambda i: (abs(field.candidates[i].gap), i))

    def reason(i: int) -> str:
        gap = f"a gap of {points(field.candidates[i].gap)}"
        if i not in field.within(tolerance):
            below = points(field.below_best(i))
            return f"Not chosen: {below} below the best, more than --tolerance {tolerance:g}."
        if i not in within:
            return "Not chosen: within the tolerance, but below the baseline."
        if i not in near:
            return "Not chosen: its gap is not known."
        if i == chosen:
            return f"Chosen: {gap}, the smallest of the {len(near)} within the tolerance."
        if abs(field.candidates[i].gap) == abs(field.candidates[chosen].gap):
            return f"Not chosen: {gap}, as that of the chosen, and no more accurate."
        return f"Not chosen: {gap}, against {points(field.candidates[chosen].gap)}."

    return chosen, [reason(i) for i in range(len(field.candidates))]


def _cheapest_within(field: _Contenders) -> Ruling:
    """The cheapest whose mean is at most the tolerance below the best: an accuracy budget."""
    tolerance, cost = field.criteria.tolerance, field.criteria.cost
    near = field.within(tolerance)
    if cost == "latency" and any(math.isnan(field.candidates[i].latency_ms) for i in near):
        raise StudyFailed("Policy cheapest-within: the latency of the candidates is not known.")
    chosen = min(near, key=lambda i: _cheapness(field.candidates[i], cost, i))

    def price(i: int) -> str:
        c = field.candidates[i]
        return f"{c.latency_ms:.2f} ms" if cost == "latency" else f"{c.parameters:,} parameters"

    def reason(i: int) -> str:
        below = points(field.below_best(i))
        if i not in near:
            return f"Not chosen: {below} below the best, more than --tolerance {tolerance:g}."
        if i == chosen:
            return f"Chosen: {price(i)}, the cheapest of the {len(near)} within the tolerance."
        return f"Not chosen: {price(i)}, against {price(chosen)}."

    return chosen, [reason(i) for i in range(len(field.candidates))]


def _pareto(field: _Contenders) -> Ruling:
    """The knee of the front over accuracy, parameters and, where all were timed, latency.

    The front holds what nothing else beats in one of them without losing in another. Its knee is
    the point nearest to the ideal one, each axis scaled to the front's own range, costs by their
    logarithms (the utopia point of Marler and Arora, Struct. Multidisc. Optim. 26, 2004).
    """
    timed = not any(math.isnan(c.latency_ms) for c in field.candidates)
    rows = [_objectives(c, timed) for c in field.candidates]
    axes = "accuracy, parameters and latency" if timed else "accuracy and parameters"
    front = [
        i
        for i, row in enumerate(rows)
        if not any(_dominates(other, row) for other in rows if other is not row)
    ]
    distances = dict(zip(front, _distances([rows[i] for i in front]), strict=True))
    chosen = min(front, key=lambda i: (round(distances[i], 12), i))

    def reason(i: int) -> str:
        if i == chosen:
            return f"Chosen: the knee of the {len(front)} on the front of {axes}."
        if i in front:
            return (
                f"Not chosen: on the front of {axes}, but no nearer to the ideal "
                f"({distances[i]:.2f} against {distances[chosen]:.2f})."
            )
        better = next(j for j in front if _dominates(rows[j], rows[i]))
        other = called(field.candidates[better])
        measured = (
            "as accurate, as small and about as fast" if timed else "as accurate and as small"
        )
        return f"Not chosen: {other} is at least {measured}."

    return chosen, [reason(i) for i in range(len(field.candidates))]


def _objectives(candidate: Candidate, timed: bool) -> tuple[float, float, float]:
    """To be made least: error, and the logarithms of parameters and, if `timed`, of latency."""
    return (
        -candidate.mean,
        math.log(max(1, candidate.parameters)),
        round(math.log(candidate.latency_ms, LATENCY_STEP)) if timed else 0.0,
    )


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _distances(rows: Sequence[Sequence[float]]) -> list[float]:
    scaled = []
    for axis in zip(*rows, strict=True):
        low, span = min(axis), max(axis) - min(axis)
        scaled.append([(value - low) / span if span else 0.0 for value in axis])
    return [math.hypot(*point) for point in zip(*scaled, strict=True)]


RULES: dict[str, Callable[[_Contenders], Ruling]] = {
    "one-standard-error": _one_standard_error,
    "best-mean": _best_mean,
    "lower-bound": _lower_bound,
    "smallest-gap": _smallest_gap,
    "cheapest-within": _cheapest_within,
    "pareto": _pareto,
}


def _cheapness(candidate: Candidate, cost: str, index: int) -> tuple[float, float, int]:
    latency = math.inf if math.isnan(candidate.latency_ms) else candidate.latency_ms
    if cost == "latency":
        return latency, candidate.parameters, index
    return candidate.parameters, latency, index


def _separates(first: Candidate, second: Candidate, validation_fraction: float) -> bool:
    """Whether one of the two is better for all practical purposes."""
    better = probability_better(first.accuracies, second.accuracies, validation_fraction)
    return max(better, 1 - better) >= SEPARATED


def _compared(
    field: _Contenders,
    winner: Candidate,
    ordered: Sequence[Candidate],
    validation_fraction: float,
) -> tuple[Comparison, ...]:
    """The winner against runner-up, baseline and champion, where there are such."""
    rivals = [("runner-up", c) for c in field.candidates if c is not winner][:1]
    rivals += [("baseline", c) for c in ordered if c.is_baseline and c is not winner]
    rivals += [("champion", c) for c in ordered if c.is_champion and c is not winner]
    distinct = {c.config.config_id: c for _, c in rivals}
    better = {
        key: probability_better(winner.accuracies, c.accuracies, validation_fraction)
        for key, c in distinct.items()
    }
    p_values = {key: 2 * min(value, 1 - value) for key, value in better.items()}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return tuple(
        Comparison(
            rival=rival,
            config_id=(key := c.config.config_id),
            difference=paired_difference(winner.accuracies, c.accuracies, validation_fraction),
            better=better[key],
            p_value=p_values[key],
            adjusted_p=adjusted[key],
        )
        for rival, c in rivals
    )


def _alternatives(field: _Contenders) -> dict[str, str]:
    """What each policy would choose; a policy that lacks what it needs is left out."""
    found = {}
    for policy, rule in RULES.items():
        try:
            chosen, _ = rule(field)
        except StudyFailed:
            continue
        found[policy] = field.candidates[chosen].config.config_id
    return found


def _summary(made: Recommendation) -> str:
    ranked, winner = made.ranked, made.winner
    choice = (
        f"Recommended: {called(winner)}, {winner.parameters:,} parameters, validation accuracy "
        f"{percent(winner.mean)} (standard error {points(ranked[made.chosen].standard_error)}) "
        f"over {len(winner.accuracies)} fresh seeds."
    )
    allowed = [r for r in ranked if r.allowed]
    if len(allowed) == 1:
        return choice
    near = [r.candidate for r in allowed if r.candidate.config.config_id in made.unseparated]
    surely = made.surely_better
    if surely:
        names = _listed([_name(candidate) for candidate in surely])
        choice = f"{choice} By the paired runs {names} would be more accurate."
    if near:
        names = _listed([_name(candidate) for candidate in near])
        return f"{choice} The paired runs do not separate the recommended one from {names}."
    if surely:
        return choice
    others = "every other candidate"
    if len(allowed) < len(ranked):
        others += " that meets the constraints"
    return f"{choice} By the paired runs it is more accurate than {others}."


def _name(candidate: Candidate) -> str:
    ordinary = not (candidate.is_baseline or candidate.is_champion)
    return candidate.config.config_id if ordinary else called(candidate)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def called(candidate: Candidate) -> str:
    """A candidate by the name that people know it by."""
    if candidate.is_baseline:
        return "the baseline"
    if candidate.is_champion:
        return "the champion's configuration"
    return f"configuration {candidate.config.config_id}"


def _size(candidate: Candidate, chosen: Candidate) -> str:
    ratio = candidate.parameters / chosen.parameters
    if ratio > 1.05:
        return f"{ratio:.1f} times as large"
    if candidate.parameters == chosen.parameters and candidate.latency_ms > chosen.latency_ms:
        return f"slower ({candidate.latency_ms:.2f} ms against {chosen.latency_ms:.2f} ms)"
    return "slightly larger" if candidate.parameters > chosen.parameters else "no smaller"


def as_typed(number: float) -> str:
    """A limit as it was typed: 1000000 and 0.05, not 1e+06."""
    return f"{number:.12g}"


def percent(fraction: float) -> str:
    """A fraction as people read it: 97.53%."""
    return f"{100 * fraction:.2f}%"


def points(fraction: float) -> str:
    """A difference of fractions as people read it: 0.312 points."""
    return f"{100 * fraction:.3f} points"
