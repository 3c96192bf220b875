"""The verdict: what the test split says of the recommended model, the baseline and the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from search.inference import (
    holm,
    mcnemar_p_value,
    paired_proportions,
    wilson_interval,
)
from search.metrics import measure
from search.records import Contest, Interval, Recommendation, Tested, Verdict
from search.selection import called, percent, points

SIGNIFICANT = 0.05


def judge(
    recommendation: Recommendation,
    probabilities: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int32],
    *,
    openings: int,
    data: str,
    rivals: Mapping[str, str],
    champion_note: str = "",
) -> Verdict:
    """Compares the recommended model with its rivals on the same test images.

    Args:
        recommendation: made without these images.
        probabilities: float32 (n, classes) by name: of "recommended" and of each rival.
        labels: int32 (n,).
        openings: of this test split so far, this one included.
        data: name of the data set.
        rivals: "baseline" and "champion", as far as they are compared, each with its name for
            people.
        champion_note: why a champion that there is, or may be, is not compared; "" if not so.
    """
    first = probabilities["recommended"]
    right = first.argmax(axis=1) == labels
    contests = []
    for rival in (name for name in ("baseline", "champion") if name in rivals):
        rival_right = probabilities[rival].argmax(axis=1) == labels
        only_first = int((right & ~rival_right).sum())
        only_rival = int((~right & rival_right).sum())
        contests.append((rival, only_first, only_rival, mcnemar_p_value(only_first, only_rival)))
    adjusted = holm([p for *_, p in contests])
    tested = examined(first, labels)
    held = tuple(
        Contest(
            rival=rival,
            name=rivals[rival],
            tested=examined(probabilities[rival], labels),
            difference=paired_proportions(only_first, only_rival, len(labels)),
            only_recommended_right=only_first,
            only_rival_right=only_rival,
            p_value=p_value,
            adjusted_p=adjusted_p,
        )
        for (rival, only_first, only_rival, p_value), adjusted_p in zip(
            contests, adjusted, strict=True
        )
    )
    return Verdict(
        tested=tested,
        contests=held,
        images=len(labels),
        openings=openings,
        speaks_for_it=not (
            champion_note or _surely_better(held) or _keeps_champion(recommendation, held)
        ),
        headline=_headline(recommendation, tested, held, champion_note),
        sentence=_sentence(recommendation, tested.accuracy, held, data, champion_note),
    )


def examined(probabilities: NDArray[np.float32], labels: NDArray[np.int32]) -> Tested:
    """What one model does on labelled images, with intervals."""
    measures = measure(labels, probabilities)
    counts = [sum(row) for row in measures.confusion]
    return Tested(
        accuracy=wilson_interval(
            sum(row[i] for i, row in enumerate(measures.confusion)), len(labels)
        ),
        measures=measures,
        recalls=tuple(
            wilson_interval(row[i], count)
            for i, (row, count) in enumerate(zip(measures.confusion, counts, strict=True))
        ),
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
    contests: tuple[Contest, ...],
    data: str,
    champion_note: str,
) -> str:
    winner = recommendation.winner
    measured = f"{with_interval(accuracy)} of the locked {data} test images right"
    against = "; ".join(map(_against, contests))
    size = ""
    if not winner.is_baseline:
        others = recommendation.baseline.parameters
        size = f", with {winner.parameters:,} parameters against {others:,} of the baseline"
    opening = _opening(recommendation, contests, champion_note)
    return f"{opening} gets {measured}{': ' if against else ''}{against}{size}."


def _headline(
    recommendation: Recommendation,
    tested: Tested,
    contests: tuple[Contest, ...],
    champion_note: str,
) -> str:
    """What to do, for whoever reads one sentence only."""
    ours = percent(tested.accuracy.value)
    better, decisive = _surely_better(contests), contests[-1] if contests else None
    if better is not None:
        advice = (
            "Keep the champion"
            if better.rival == "champion"
            else "Look again before you ship, for the baseline is better"
        )
        theirs = percent(better.tested.accuracy.value)
        return (
            f"{advice}: it gets {theirs} of the test images right, {_subject(recommendation)} "
            f"{ours}."
        )
    right = f"{ours} of the test images right"
    aside = ", and was not compared with the champion" if champion_note else ""
    if _keeps_champion(recommendation, contests):
        said = f"Keep the champion: {_why_kept(recommendation, 'its configuration')}"
        if decisive is not None and decisive.rival == "champion":
            theirs = percent(decisive.tested.accuracy.value)
            return f"{said}. Trained again, that gets {right}, against {theirs} of the champion."
        return f"{said}. Its own model was not compared on these images."
    if decisive is None:
        why = _why_kept(recommendation)
        if champion_note:
            why = _why_kept(recommendation, "the baseline")
            return f"No new model is recommended: {why}. That gets {right}{aside}."
        return f"Keep the baseline: {why}. It gets {right}."
    theirs = f"{percent(decisive.tested.accuracy.value)} of the {decisive.rival}"
    if not _surely(decisive):
        images = sum(map(sum, tested.measures.confusion))
        return (
            f"{_subject(recommendation).capitalize()} is recommended"
            f"{_why_less_accurate(recommendation, decisive.rival)}, but {images:,} test images "
            f"do not tell it from the {decisive.rival}: it gets {ours} of them right, against "
            f"{theirs}{aside}."
        )
    if champion_note:
        subject = _subject(recommendation).capitalize()
        return (
            f"{subject} is better than the {decisive.rival}: it gets {right}, against "
            f"{theirs}{aside}."
        )
    return f"Ship {_subject(recommendation)}: it gets {right}, against {theirs}."


def _why_less_accurate(recommendation: Recommendation, rival: str) -> str:
    """What speaks for it, where it was less accurate than its rival in the repeated runs."""
    winner = recommendation.winner
    known = (r.candidate for r in recommendation.ranked)
    other = next(
        (c for c in known if (c.is_champion if rival == "champion" else c.is_baseline)), None
    )
    if other is None or other.mean <= winner.mean:
        return ""
    if winner.parameters < other.parameters:
        return " because it is smaller"
    return f" by the rule {recommendation.policy}"


def _subject(recommendation: Recommendation) -> str:
    """The recommended model, in a headline."""
    winner = recommendation.winner
    if winner.is_champion:
        return "the champion, trained again"
    return "the baseline" if winner.is_baseline else "the new model"


def _why_kept(recommendation: Recommendation, what: str = "") -> str:
    """Why nothing else than what there was already, called so, is recommended."""
    winner, than = recommendation.winner, f" than {what}" if what else ""
    above = [r for r in recommendation.ranked if r.candidate.mean > winner.mean]
    allowed = [r for r in above if r.allowed]
    if not above:
        return f"nothing better{than} was found"
    if not allowed:
        return f"nothing better{than} is within the limits"
    if not recommendation.surely_better:
        place = "was found" if len(allowed) == len(above) else "is within the limits"
        return f"nothing surely better{than} {place}"
    return f"the rule {recommendation.policy} prefers {what or 'it'} to what is more accurate"


def _keeps_champion(recommendation: Recommendation, contests: tuple[Contest, ...]) -> bool:
    """Whether its own configuration was chosen, and trained again is not surely better."""
    beats = any(c.rival == "champion" and _surely(c) and c.difference.value > 0 for c in contests)
    return recommendation.winner.is_champion and not beats


def _surely_better(contests: tuple[Contest, ...]) -> Contest | None:
    """Who beats the recommended model beyond chance; the champion before the baseline."""
    return next((c for c in reversed(contests) if _surely(c) and c.difference.value < 0), None)


def _opening(
    recommendation: Recommendation, contests: tuple[Contest, ...], champion_note: str
) -> str:
    """Yes, no, or that it cannot be told; the champion, where there is one, decides."""
    winner, decisive = recommendation.winner, contests[-1] if contests else None
    name = called(winner)
    better = _surely_better(contests)
    if better is not None and better.rival == "champion":
        return f"Keep the champion: it is better on the test split than {name}, which"
    if better is not None:
        return (
            f"Look again before you ship {name}: the baseline is better on the test split. "
            "The chosen model"
        )
    if _keeps_champion(recommendation, contests):
        why = _why_kept(recommendation)
        return f"Keep the champion's configuration: {why}. It"
    if winner.is_baseline and decisive is None:
        return f"Keep the baseline: {_why_kept(recommendation)}. It"
    if decisive is not None and not _surely(decisive):
        return (
            f"Recommended: {name}; the test split does not tell it from the {decisive.rival}. "
            "The recommended model"
        )
    if champion_note:
        return f"Recommended: {name}, which was not compared with the champion. It"
    return f"Ship {name}: it"


def _surely(contest: Contest) -> bool:
    return contest.adjusted_p < SIGNIFICANT


def _against(contest: Contest) -> str:
    difference = contest.difference.value
    if math.isclose(difference, 0, abs_tol=1e-12):
        return f"as many as the {contest.rival}"
    side = "more" if difference > 0 else "fewer"
    sure = "more than chance explains" if _surely(contest) else "which chance alone could explain"
    return (
        f"{points(abs(difference))} {side} than the {contest.rival} "
        f"({percent(contest.tested.accuracy.value)}), {sure}"
    )
