"""The page that a study ends in, as Markdown and as one self-contained HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from search.arrays import VALIDATION_FRACTION
from search.records import Phase, Recommendation, State, TrialRecord, TrialTotals, Verdict
from search.registry import RegisteredModel
from search.selection import percent, points, probability_better

BEST_TRIALS = 15


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Everything that the page says.

    Attributes:
        trials: all of the study.
        command: reproduces the study.
        facts: of data, code and versions.
        model_file: the `.keras` file on this machine.
    """

    study: str
    trials: Sequence[TrialRecord]
    recommendation: Recommendation | None
    verdict: Verdict | None
    command: str
    facts: Mapping[str, Any]
    model: RegisteredModel | None = None
    model_file: Path | None = None


def write_report(content: ReportContent, folder: Path) -> tuple[Path, Path]:
    """Writes `report.md` and `report.html` into `folder`; returns both paths."""
    values = _values(content)
    paths = []
    for name in ("report.md", "report.html"):
        environment = Environment(
            loader=PackageLoader("search"),
            autoescape=name.endswith(".html"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {"percent": percent, "cell": _cell}
        path = folder / name
        path.write_text(environment.get_template(f"{name}.j2").render(values), encoding="utf-8")
        paths.append(path)
    return paths[0], paths[1]


def count_trials(trials: Sequence[TrialRecord]) -> str:
    """How many trials there were and how they ended, in one sentence."""
    search = [t for t in trials if t.phase is not Phase.CONFIRM]
    states = Counter(t.state for t in search)
    stopped = Counter(t.rung for t in search if t.state is State.STOPPED)
    parts = [f"{states[State.COMPLETED]} completed"]
    if stopped:
        rungs = ", ".join(f"{count} at epoch {rung}" for rung, count in sorted(stopped.items()))
        parts.append(f"{states[State.STOPPED]} stopped early ({rungs})")
    if states[State.FAILED]:
        parts.append(f"{states[State.FAILED]} failed")
    epochs = sum(t.epochs_trained for t in trials)
    confirmed = sum(t.phase is Phase.CONFIRM for t in trials)
    extra = f" {confirmed} more trained for confirmation." if confirmed else ""
    return f"{len(search)} trials: {', '.join(parts)}.{extra} {epochs:,} epochs in all."


def _values(content: ReportContent) -> dict[str, Any]:
    recommendation = content.recommendation
    better = None
    rows = []
    if recommendation is not None:
        winner, baseline = recommendation.winner, recommendation.baseline
        if not winner.is_baseline:
            better = percent(probability_better(winner, baseline, VALIDATION_FRACTION))
        rows = [
            {
                "name": "baseline" if r.candidate.is_baseline else r.candidate.config.config_id,
                "config_id": r.candidate.config.config_id,
                "config": r.candidate.config.summary,
                "parameters": f"{r.candidate.parameters:,}",
                "mean": percent(r.candidate.mean),
                "standard_error": points(r.standard_error),
                "runs": ", ".join(percent(a) for a in r.candidate.accuracies),
                "search": percent(r.candidate.search_accuracy)
                if r.candidate.search_accuracy is not None
                else "-",
                "reason": r.reason,
                "chosen": index == recommendation.chosen,
            }
            for index, r in enumerate(recommendation.ranked)
        ]
    search = [t for t in content.trials if t.phase is Phase.SEARCH and t.totals]
    search.sort(key=lambda t: -(t.val_accuracy or 0.0))
    return {
        "study": content.study,
        "recommendation": recommendation,
        "verdict": content.verdict,
        "rows": rows,
        "better": better,
        "counts": count_trials(content.trials),
        "best": [_trial_row(t) for t in search[:BEST_TRIALS]],
        "command": content.command,
        "facts": [(key, _fact(value)) for key, value in content.facts.items()],
        "image_shape": content.facts.get("image_shape", ()),
        "classes": content.facts.get("classes", ""),
        "model": content.model,
        "model_file": content.model_file,
    }


def _trial_row(trial: TrialRecord) -> dict[str, str]:
    totals = trial.totals
    return {
        "number": str(trial.number),
        "state": f"stopped at {trial.rung}" if trial.rung else trial.state.value,
        "accuracy": _accuracy(totals) if totals else "-",
        "parameters": f"{totals.parameters:,}" if totals else "-",
        "epochs": str(trial.epochs_trained),
        "config": trial.config.summary,
    }


def _accuracy(totals: TrialTotals) -> str:
    """On the validation split; with folds their mean, with its standard error."""
    error = totals.fold_standard_error
    if error is None:
        return percent(totals.val_accuracy)
    folds = len(totals.fold_accuracies)
    return f"{percent(totals.val_accuracy)} ({folds} folds, standard error {points(error)})"


def _cell(text: object) -> str:
    """Text that can end neither a Markdown table cell nor its code span, nor begin a tag."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    escaped = escaped.replace("[", "&#91;")
    return " ".join(escaped.replace("`", "&#96;").split())


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return str(value)
