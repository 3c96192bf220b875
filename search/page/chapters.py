"""The chapters of a report that make the decision: what was chosen, how sure, what next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from search.page import charts
from search.page.article import (
    SIGNIFICANT,
    UNKNOWN,
    Block,
    Bullets,
    Cell,
    Chapter,
    Charts,
    ReportContent,
    Row,
    Table,
    Text,
    Tiles,
    chance,
    change,
    change_span,
    columns,
    counted,
    listed,
    milliseconds,
    name_of,
    rounded,
    row,
    share,
    span,
    times,
)
from search.records import (
    Candidate,
    ConstraintsUnmet,
    Contest,
    Criteria,
    Reasoned,
    Recommendation,
    Verdict,
)
from search.selection import SEPARATED, called, loosened, percent, points
from search.settings import FINALISTS

RIVALS = {"champion": "the champion's configuration, trained again"}
"""In validation runs; on the test images it is the champion's own model."""
NO_VERDICT = (
    "No verdict: this study searched only; nothing was confirmed and the test split stayed locked."
)
UNMET = "No recommendation: none of the confirmed candidates meets the limits that were set."
UNJUDGED = "No verdict: candidates were confirmed, but the test split was not opened."
MEASURED = (
    "Means, standard errors and gaps are of validation accuracy over the repeated runs. Those "
    "errors are corrected for resampled splits, which overlap (Nadeau and Bengio 2003). Latency "
    'is the median for one image. A hyphen under "in the search": it was not trained to its end '
    "there."
)
MARGIN = (
    "The standard error that the decisions name is another one: it leaves out what a candidate "
    "shares with the best on each seed, the column does not."
)


def front(content: ReportContent) -> Iterator[Block]:
    """The first screen: the verdict, how sure it is, the key figures, what to do next."""
    recommendation, verdict = content.recommendation, content.verdict
    if verdict is not None:
        yield Text(verdict.headline, tone="verdict")
    elif content.refusal is not None:
        yield Text(UNMET, tone="verdict")
    else:
        yield Text(NO_VERDICT if recommendation is None else UNJUDGED, tone="verdict")
    if recommendation is not None:
        yield Text(" ".join(_how_sure(recommendation, verdict)), tone="lead")
    elif content.refusal is not None:
        again = " again" if content.own_openings else ""
        yield Text(
            f"{_constraints(content.refusal.criteria)} Each candidate and what it does not meet "
            f"is in the table below. The test images were not looked at{again}.",
            tone="lead",
        )
    else:
        yield Text(_best_so_far(content), tone="lead")
    if content.champion_note:
        yield Text(f"It was not compared with the champion: {content.champion_note}.", tone="note")
    tiles = list(_tiles(content))
    if tiles:
        yield Tiles(tiles)
    yield from _next_step(content)
    if content.trouble:
        yield Text(content.trouble, tone="note")


def _how_sure(recommendation: Recommendation, verdict: Verdict | None) -> Iterator[str]:
    yield _separation(recommendation)
    if recommendation.left_out:
        left = counted(len(recommendation.left_out), "configuration")
        yield f"{left} could not be compared, for a training run failed (see The decision)."
    yield from _against_baseline(recommendation)
    contests = verdict.contests if verdict else ()
    unclear = [c for c in contests if not c.adjusted_p < SIGNIFICANT]
    if unclear:
        rivals = listed([f"the {c.rival} ({_margin(c)})" for c in unclear])
        yield f"The test images do not settle whether it is better than {rivals}."
    for side, sign in (("more", 1), ("less", -1)):
        clear = [c for c in contests if c not in unclear and sign * c.difference.value > 0]
        if clear:
            rivals = listed([f"the {c.rival} ({_margin(c)})" for c in clear])
            yield f"On the test images it is {side} accurate than {rivals}, beyond chance."


def _against_baseline(recommendation: Recommendation) -> Iterator[str]:
    """What the repeated runs say of it and the baseline, whatever the test images can tell."""
    found = next((c for c in recommendation.comparisons if c.rival == "baseline"), None)
    if found is not None:
        difference = found.difference
        yield (
            "By these runs, the probability that it is better than the baseline, the plain network "
            f"that all is measured against, is {percent(found.better)} "
            f"({rounded(difference.value)} points, 95% interval {rounded(difference.low)} to "
            f"{rounded(difference.high)})."
        )


def _margin(contest: Contest) -> str:
    found = contest.difference
    interval = f"95% interval {rounded(found.low)} to {rounded(found.high)}"
    allowed = ""
    if _is_at_odds(contest):
        by_both = contest.p_value < SIGNIFICANT
        allowed = ", of one comparison alone" if by_both else "; the exact test is more cautious"
    return f"{rounded(found.value)} points, {interval}{allowed}"


def _is_at_odds(contest: Contest) -> bool:
    """Whether its interval excludes that there is no difference, and the verdict does not.

    For the verdict counts both comparisons, and the exact test is more cautious at the edge.
    """
    found = contest.difference
    return contest.adjusted_p >= SIGNIFICANT and not found.low <= 0 <= found.high


def _by_chance(contest: Contest) -> str:
    allowed = ""
    if _is_at_odds(contest):
        by_both = contest.p_value < SIGNIFICANT
        allowed = " where two comparisons are made" if by_both else " by the exact test"
    return f"chance could explain it{allowed}"


def _separation(recommendation: Recommendation) -> str:
    """Whether the evidence tells the chosen candidate from the others."""
    winner, others = recommendation.winner, _unseparated(recommendation)
    allowed = [r.candidate for r in recommendation.ranked if r.allowed]
    limits = "" if len(allowed) == len(recommendation.ranked) else " that the limits allow"
    runs = counted(len(winner.accuracies), "repeated training run")
    surely = recommendation.surely_better
    if others:
        gave_up = ""
        if surely:
            named = listed([called(candidate) for candidate in surely])
            below = points(surely[0].mean - winner.mean)
            gave_up = f" It accepts less than {named}, up to {below} more accurate beyond doubt."
        return (
            f"The evidence does not separate the recommended one from {listed(others)}: {runs} "
            "each do not settle which is more accurate on validation images; the rule "
            f"{recommendation.policy} decided between them.{gave_up}"
        )
    if len(allowed) == 1:
        return (
            f"Nothing else{limits} was confirmed than {called(winner)}: there was nothing to "
            "choose from."
        )
    if allowed[0] is winner:
        return (
            f"In {runs} each, {called(winner)} was more accurate than every other candidate"
            f"{limits}, over each with a probability of at least {percent(SEPARATED)} (one-sided; "
            "intervals here are two-sided, and wider)."
        )
    return (
        f"In {runs} each, {called(winner)} was {points(allowed[0].mean - winner.mean)} less "
        f"accurate than {called(allowed[0])}, with a probability of at least "
        f"{percent(SEPARATED)}; the rule {recommendation.policy} accepts it."
    )


def _unseparated(recommendation: Recommendation) -> list[str]:
    """Whom the evidence does not tell from the chosen one; who has a name by that name."""
    near = [
        r.candidate
        for r in recommendation.ranked
        if r.candidate.config.config_id in recommendation.unseparated
    ]
    known = [called(c) for c in near if c.is_baseline or c.is_champion]
    others = len(near) - len(known)
    return [*([counted(others, "other candidate")] if others else []), *known]


def _best_so_far(content: ReportContent) -> str:
    ranked = content.ranked
    if not ranked:
        failed = [t.reason for t in content.searched if t.reason]
        return f"No trial reached a result. {failed[0] if failed else ''}".strip()
    best = ranked[0]
    return (
        f"The best of {counted(len(ranked), 'trial')} is trial {best.number} with "
        f"{share(best.val_accuracy)} validation accuracy: {best.config.summary}. The best of many "
        "single scores is partly luck; a confirmation would say how much."
    )


def baseline_of(recommendation: Recommendation) -> Candidate | None:
    """The baseline, if it was confirmed."""
    return next((r.candidate for r in recommendation.ranked if r.candidate.is_baseline), None)


def _tiles(content: ReportContent) -> Iterator[tuple[str, str, str]]:
    recommendation, verdict = content.recommendation, content.verdict
    if verdict is not None:
        accuracy = verdict.tested.accuracy
        said = f"95% interval {span(accuracy)}, on {verdict.images:,} images kept aside"
        if verdict.openings > 1:
            said += f", looked at {verdict.openings} times by now"
        yield "Right on test images", percent(accuracy.value), said
        for contest in verdict.contests:
            unclear = "" if contest.adjusted_p < SIGNIFICANT else f"; {_by_chance(contest)}"
            low, high = rounded(contest.difference.low), rounded(contest.difference.high)
            said = f"points, 95% interval {low} to {high}{unclear}"
            yield f"Against the {contest.rival}", rounded(contest.difference.value), said
    if recommendation is None:
        if content.ranked:
            best = content.ranked[0]
            yield "Best validation accuracy", share(best.val_accuracy), f"trial {best.number}"
            parameters = best.totals.parameters if best.totals else 0
            yield "Its size", f"{parameters:,}", "parameters"
        return
    winner, baseline = recommendation.winner, baseline_of(recommendation)
    rival = baseline if baseline is not None and baseline is not winner else None
    said = "parameters"
    if rival:
        said += (
            f", {times(winner.parameters, rival.parameters)} the baseline's {rival.parameters:,}"
        )
    yield "Size", f"{winner.parameters:,}", said
    if winner.costs:
        said = "median for one image"
        if rival and rival.costs:
            said += f"; baseline {milliseconds(rival.latency_ms)}"
        yield "Time per image", milliseconds(winner.latency_ms), said


def _next_step(content: ReportContent) -> Iterator[Block]:
    study = shlex.quote(content.study)
    if content.refusal is not None:
        yield Text(
            "Next: with these limits, which the most accurate one meets as far as it was measured, "
            "the study goes on to its verdict, and trains only what they newly let in:",
            f"podium resume {study} {loosened(content.refusal)}".rstrip(),
            "lead",
        )
    elif content.recommendation is None:
        yield Text(
            "Next: confirm its best trials on fresh seeds, beside the baseline, and judge the "
            "chosen one on the test images:",
            f"podium resume {study} --finalists {FINALISTS}",
            "lead",
        )
    if content.verdict is None:
        return
    command = f"podium promote {study}"
    if content.model is None:
        command = f"podium sync {study}\n{command}"
        yield Text(
            "Next: when this page was made, MLflow did not have the model. Once it answers, give "
            "it what it lacks, and make the model the champion:",
            command,
            "lead",
        )
    elif content.refusing:
        yield Text(
            f"It would not be promoted as it is: {' '.join(content.refusing)} To promote it all "
            "the same, on record:",
            f'{command} --override "reason"',
            "lead",
        )
    else:
        favoured = content.verdict.speaks_for_it
        todo = "Next: make it the champion" if favoured else "To promote it all the same"
        yield Text(
            f"{todo}; the conditions for that (in mlflow.yaml) held when this page was made:",
            command,
            "lead",
        )


# The decision


def decision(content: ReportContent) -> Iterator[Chapter]:
    """The candidates, the rule, the comparisons, and what other rules would have chosen."""
    recommendation = content.recommendation
    if recommendation is None:
        if content.refusal is not None:
            yield Chapter("decision", "The decision", _ruled_out(content.refusal))
        return
    blocks: list[Block] = [
        *([Text(content.verdict.sentence)] if content.verdict else []),
        Text(recommendation.summary),
        Text(f"Policy {recommendation.policy}: {explained(recommendation)}."),
        Text(_constraints(recommendation.criteria)),
        _candidate_table(recommendation.ranked, recommendation.chosen),
        Text(_measured(recommendation.criteria), tone="fine"),
    ]
    if len(recommendation.ranked) > 1:
        blocks.append(Charts([charts.candidates(recommendation.ranked, recommendation.chosen)]))
    blocks += _left_out(recommendation.left_out)
    blocks.append(_run_table(content, recommendation))
    blocks += _comparisons(recommendation)
    blocks += _alternatives(recommendation)
    blocks += _optimism(recommendation)
    yield Chapter("decision", "The decision", blocks)


def _ruled_out(refusal: ConstraintsUnmet) -> list[Block]:
    table = _candidate_table(refusal.ranked, chosen=None)
    measured = Text(_measured(refusal.criteria), tone="fine")
    left = _left_out(refusal.left_out)
    return [Text(_constraints(refusal.criteria)), table, measured, *left]


def _left_out(sentences: Sequence[str]) -> list[Block]:
    if not sentences:
        return []
    told = "Not compared, because not every run of theirs was completed:"
    return [Text(told), Bullets(sentences)]


def _measured(criteria: Criteria) -> str:
    own = (criteria.policy, criteria.correction) == ("one-standard-error", "paired")
    return f"{MEASURED} {MARGIN}" if own else MEASURED


def explained(recommendation: Recommendation) -> str:
    """The policy in one sentence without its full stop."""
    criteria = recommendation.criteria
    given_up = points(criteria.tolerance)
    baseline = next((r for r in recommendation.ranked if r.candidate.is_baseline), None)
    floor = " and not below the baseline's" if baseline and baseline.allowed else ""
    cost = "lowest latency" if criteria.cost == "latency" else "fewest parameters"
    known = {
        "one-standard-error": "the cheapest candidate (fewest parameters, then lowest latency) "
        "whose mean validation accuracy is within one standard error of the best mean (Breiman et "
        f"al. 1984){floor}, the error {_corrected(criteria)}",
        "best-mean": "the highest mean validation accuracy, whatever it costs",
        "lower-bound": "the highest lower bound of the mean validation accuracy (one-sided, 95%)",
        "smallest-gap": "the smallest gap between training and validation accuracy, among the "
        f"candidates at most {given_up} below the best mean{floor}",
        "cheapest-within": f"the {cost} among the candidates at most {given_up} below the best "
        "mean",
        "pareto": "the knee of the front over accuracy, parameters and, where it is known, "
        "latency: of the candidates that no other one equals in all of them and beats in one, the "
        "nearest to the best of each (Marler and Arora 2004)",
    }
    return known.get(criteria.policy, "a rule of its own")


def _corrected(criteria: Criteria) -> str:
    if criteria.correction == "nadeau-bengio":
        return "corrected for resampled splits, which overlap (Nadeau and Bengio 2003)"
    return "taken without what a candidate shares with the best on a seed (Morey 2008)"


def _constraints(criteria: Criteria) -> str:
    limits = []
    if criteria.max_params is not None:
        limits.append(f"at most {criteria.max_params:,} parameters")
    if criteria.max_latency_ms is not None:
        limits.append(f"at most {criteria.max_latency_ms:g} ms for one image")
    if criteria.max_gap is not None:
        limits.append(f"a gap of at most {points(criteria.max_gap)}")
    if criteria.min_class_recall is not None:
        limits.append(f"a recall of at least {percent(criteria.min_class_recall)} in every class")
    if not limits:
        return "Hard constraints: none were set."
    return f"Hard constraints, before any policy: {listed(limits)}."


def _candidate_table(ranked: Sequence[Reasoned], chosen: int | None) -> Table:
    names = ("candidate", "mean", "standard error", "parameters", "latency", "gap", "in the search")
    return Table(
        "Candidates, by mean validation accuracy",
        columns(*names, "decision", wide=(0, 7)),
        [_candidate_row(reasoned, index == chosen) for index, reasoned in enumerate(ranked)],
    )


def _candidate_row(reasoned: Reasoned, chosen: bool) -> Row:
    candidate = reasoned.candidate
    return row(
        Cell(f"{name_of(candidate)}{' (chosen)' if chosen else ''}", candidate.config.summary),
        share(candidate.mean),
        points(reasoned.standard_error),
        f"{candidate.parameters:,}",
        milliseconds(candidate.latency_ms),
        change(candidate.gap),
        share(candidate.search_accuracy),
        Cell(reasoned.reason, "" if reasoned.allowed else "ruled out by a hard constraint"),
        marked=chosen,
    )


def _run_table(content: ReportContent, recommendation: Recommendation) -> Table:
    """Every confirmation run with its seeds."""
    trials = {t.number: t for t in content.trials}
    rows = []
    for reasoned in recommendation.ranked:
        candidate = reasoned.candidate
        gaps = candidate.gaps or [None] * len(candidate.trials)
        for number, accuracy, gap in zip(candidate.trials, candidate.accuracies, gaps, strict=True):
            trial = trials.get(number)
            seeds = (str(trial.seed), str(trial.split_seed)) if trial else (UNKNOWN, UNKNOWN)
            cells = (name_of(candidate), str(number), *seeds, share(accuracy), change(gap))
            rows.append(row(*cells))
    names = ("candidate", "trial", "seed", "split seed", "validation accuracy", "gap")
    return Table("Single runs and their seeds", columns(*names), rows, folded=True)


def _comparisons(recommendation: Recommendation) -> Iterator[Block]:
    if not recommendation.comparisons:
        return
    names = ("against", "difference", "95% interval", "probability that it is better")
    yield Table(
        f"{called(recommendation.winner).capitalize()} against others, on paired validation runs",
        columns(*names, "p", "p, Holm-adjusted"),
        [
            row(
                Cell(RIVALS.get(c.rival, c.rival), c.config_id),
                change(c.difference.value),
                change_span(c.difference),
                share(c.better),
                chance(c.p_value),
                chance(c.adjusted_p),
            )
            for c in recommendation.comparisons
        ],
    )
    yield Text(
        "The probability looks at one side, interval and p at both: with one of 95% to 97.5% the "
        "interval still includes no difference.",
        tone="fine",
    )


def _alternatives(recommendation: Recommendation) -> Iterator[Block]:
    if not recommendation.alternatives:
        return
    known = {r.candidate.config.config_id: r.candidate for r in recommendation.ranked}
    rows = []
    for policy, config_id in recommendation.alternatives.items():
        candidate = known.get(config_id)
        used = policy == recommendation.policy
        rows.append(
            row(
                f"{policy}{' (used)' if used else ''}",
                name_of(candidate) if candidate else config_id,
                share(candidate.mean) if candidate else UNKNOWN,
                f"{candidate.parameters:,}" if candidate else UNKNOWN,
                marked=used,
            )
        )
    names = ("policy", "would choose", "mean", "parameters")
    yield Table("What each policy would choose", columns(*names, text=(0, 1)), rows)


def _optimism(recommendation: Recommendation) -> Iterator[Block]:
    optimism, winner = recommendation.optimism, recommendation.winner
    if optimism is None:
        return
    verb = "took away" if optimism >= 0 else "added"
    yield Text(
        f"Optimism: {called(winner)} scored {share(winner.search_accuracy)} in the search, and "
        f"{share(winner.mean)} on average when confirmed on fresh seeds: the confirmation {verb} "
        f"{points(abs(optimism))}."
    )


def changes(content: ReportContent) -> Iterator[Chapter]:
    """What would have to be different for another choice."""
    recommendation = content.recommendation
    if recommendation is not None and recommendation.changes:
        blocks = [Bullets(recommendation.changes)]
        yield Chapter("changes", "What would change the decision", blocks)
