"""The gates that a model must pass before it becomes the champion. Pure: values in, gates out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.inference import paired_proportions
from search.loading import TOLERANCE, Reload
from search.records import StudyVersion
from search.settings import GateSettings

UNKNOWN = "not known"
IDENTITY = ("name", "version", "study")


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition that must hold before the champion changes.

    Attributes:
        name: as `mlflow.yaml` calls it.
        value: what was measured; None where it is not known or there is nothing to measure.
        limit: what was asked; None where nothing was.
        holds: whether the condition is met.
        sentence: all of it for people.
    """

    name: str
    value: float | None
    limit: float | None
    holds: bool
    sentence: str


def judge_gates(
    outcome: Mapping[str, Any],
    settings: GateSettings,
    champion: StudyVersion | None,
    reload: Reload | None,
    classes: Sequence[str] = (),
) -> tuple[Gate, ...]:
    """Judges a study's model: all gates, whether they hold or not.

    What is not known, or is NaN, never holds.

    Args:
        outcome: of the study, as JSON values.
        settings: the limits.
        champion: what is champion now; None where there is nothing.
        reload: what came of loading the registered version in a new process; None if not tried.
        classes: their names.
    """
    accuracy = _number(outcome, "verdict", "tested", "accuracy", "low")
    error = _number(outcome, "verdict", "tested", "measures", "calibration_error")
    size = _number(outcome, "costs", "file_bytes")
    latency = _number(outcome, "costs", "single", "median_ms")
    return (
        _bounded(
            "min_accuracy",
            "The lower end of the test accuracy's 95% interval",
            accuracy,
            settings.min_accuracy,
            _percent,
        ),
        _non_inferiority(outcome, settings.non_inferiority_margin, champion),
        _class_recall(outcome, settings.min_class_recall, classes),
        _bounded(
            "max_calibration_error",
            "The expected calibration error on the test split",
            error,
            settings.max_calibration_error,
            _percent,
        ),
        _bounded(
            "max_size_mb",
            "The size of the model's file",
            None if size is None else size / 1e6,
            settings.max_size_mb,
            lambda mb: f"{mb:.2f} MB",
        ),
        _bounded(
            "max_latency_ms",
            "The median time for one image",
            latency,
            settings.max_latency_ms,
            lambda ms: f"{ms:.2f} ms",
        ),
        _reproducible_load(settings.reproducible_load, reload),
    )


def _bounded(
    name: str, what: str, value: float | None, limit: float | None, show: Callable[[float], str]
) -> Gate:
    """A gate whose name tells the direction: `min_...` or `max_...`."""
    if limit is None:
        return _unasked(name, value)
    least = name.startswith("min_")
    holds = value is not None and (value >= limit if least else value <= limit)
    shown = UNKNOWN if value is None else show(value)
    asked = f"at {'least' if least else 'most'} {show(limit)} is asked"
    return Gate(name, value, limit, holds, f"{what} is {shown}; {asked}.")


def _class_recall(outcome: Mapping[str, Any], limit: float | None, classes: Sequence[str]) -> Gate:
    name = "min_class_recall"
    intervals = _at(outcome, "verdict", "tested", "recalls") or ()
    recalls = [_number(interval, "value") for interval in intervals]
    if not recalls or None in recalls:
        worst = recalls.index(None) if recalls else None
        value = None
    else:
        value = min(recall for recall in recalls if recall is not None)
        worst = recalls.index(value)
    if worst is None:
        what = "The recall of the classes"
    else:
        called = classes[worst] if worst < len(classes) else str(worst)
        least = "" if value is None else ", the lowest of all,"
        what = f"The recall of class {called}{least} on the test split"
    return _bounded(name, what, value, limit, _percent)


def _non_inferiority(
    outcome: Mapping[str, Any], margin: float | None, champion: StudyVersion | None
) -> Gate:
    name = "non_inferiority_margin"
    if margin is None:
        return _unasked(name, None)
    if champion is None:
        return Gate(name, None, -margin, True, "There is no champion yet to compare with.")
    trouble = _incomparable(outcome, champion)
    contests = _at(outcome, "verdict", "contests") or ()
    contest = next((c for c in contests if _at(c, "rival") == "champion"), None)
    right = _number(contest, "only_recommended_right")
    rival_right = _number(contest, "only_rival_right")
    images = _number(outcome, "verdict", "images")
    if trouble is None and (right is None or rival_right is None or not images):
        trouble = "the verdict of the study holds no comparison with it"
    if trouble is not None or right is None or rival_right is None or not images:
        sentence = f"Not compared with the champion, version {champion.version}: {trouble}."
        return Gate(name, None, -margin, False, sentence)
    # The lower end of a two-sided 90% interval is that of a one-sided 95% one.
    low = paired_proportions(int(right), int(rival_right), int(images), 0.90).low
    asked = f"{_points(margin)} fewer are allowed" if margin else "no fewer are allowed"
    sure = f"{_points(abs(low))} {'fewer' if low < 0 else 'more'}"
    sentence = (
        f"Against the champion, version {champion.version}, it alone is right on {right:,.0f} and "
        f"the champion alone on {rival_right:,.0f} of {images:,.0f} test images: with 95% "
        f"confidence (one-sided) it gets at worst {sure} right; {asked}."
    )
    return Gate(name, low, -margin, low >= -margin, sentence)


def _incomparable(outcome: Mapping[str, Any], champion: StudyVersion) -> str | None:
    """Why the study's comparison says nothing of the version that is champion now."""
    note = outcome.get("champion_note")
    if isinstance(note, str) and note:
        return note.rstrip(".")
    rival = outcome.get("champion")
    if not rival:
        return "it became the champion after the study; run a new study, which will compare"
    known = {"version": None, **rival}  # An old ledger may not tell the others.
    other = [k for k in IDENTITY if k in known and str(known[k]) != getattr(champion, k)]
    if other:
        compared = f"models:/{known.get('name', champion.name)}/{known['version']}"
        compared += f" of study {known['study']}" if "study" in other else ""
        return (
            f"the study compared with {compared}, and the champion has changed since; run a new "
            "study, which will compare"
        )
    if not rival.get("same_test"):
        return "it was judged on another test split, so that it may have trained on these images"
    if not rival.get("compared"):
        return str(rival.get("trouble") or "the study could not use it").rstrip(".")
    return None


def _reproducible_load(asked: bool | None, reload: Reload | None) -> Gate:
    name = "reproducible_load"
    value = reload.difference if reload else None
    if not asked:
        return _unasked(name, value)
    if reload is None:
        sentence = "It was not tried whether the registered version loads."
    elif not reload.loaded:
        sentence = f"The registered version does not load in a new process: {reload.trouble}."
    elif value is None or not math.isfinite(value):
        reason = reload.trouble or "its probabilities are no numbers"
        sentence = (
            f"The registered version loads, but its predictions could not be compared: {reason}."
        )
    else:
        same = "the same" if reload.is_same else "other"
        sentence = (
            f"Loaded in a new process, the registered version gives {same} probabilities as when "
            f"it was made: they differ by at most {value:.2g}; {TOLERANCE:g} is allowed."
        )
    holds = reload is not None and reload.is_same
    known = value if value is not None and math.isfinite(value) else None
    return Gate(name, known, TOLERANCE, holds, sentence)


def _unasked(name: str, value: float | None) -> Gate:
    return Gate(name, value, None, True, "Not asked for: mlflow.yaml sets no limit.")


def _at(value: Any, *path: str) -> Any:
    """What is found along a path of keys; None where one of them is missing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, *path: str) -> float | None:
    """A finite number; None for everything else."""
    found = _at(value, *path)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if math.isfinite(found) else None


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f} points"
