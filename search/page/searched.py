"""The chapters of a report on the search: what was tried, and what mattered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from search.page import charts, trial_charts
from search.page.article import (
    UNKNOWN,
    Block,
    Chapter,
    Charts,
    ReportContent,
    Row,
    Table,
    Text,
    columns,
    count_trials,
    counted,
    duration,
    listed,
    row,
    share,
)
from search.records import (
    State,
    TrialRecord,
    TrialTotals,
)
from search.selection import percent, points

BEST_TRIALS = 15


def search(content: ReportContent) -> Iterator[Chapter]:
    """The space, how it was searched, how trials ended, and what that cost."""
    blocks: list[Block] = []
    method = _method(content)
    if method:
        blocks.append(Text(method))
    blocks.append(Text(count_trials(content.trials)))
    blocks += _rungs(content)
    blocks += _compute(content)
    blocks += _space(content)
    best = content.ranked[:BEST_TRIALS]
    if best:
        names = ("trial", "state", "validation accuracy", "parameters", "epochs", "configuration")
        rows = [_trial_row(t) for t in best]
        title = "The best trials of the search" if len(best) > 1 else "The trial of the search"
        blocks.append(Table(title, columns(*names, text=(0, 1), wide=(5,)), rows, folded=True))
    blocks += _failures(content)
    yield Chapter("search", "What was searched", blocks)


def _method(content: ReportContent) -> str:
    settings, parts = content.settings, []
    if "space" in settings:
        parts.append(f"Space {settings['space']}")
    if "sampler" in settings:
        parts.append(f"proposals by the sampler {settings['sampler']}")
    if "scheduler" in settings:
        rungs = "" if settings["scheduler"] == "none" else _first_rung(content)
        parts.append(f"early stopping by the scheduler {settings['scheduler']}{rungs}")
    if "max_epochs" in settings:
        parts.append(f"at most {counted(settings['max_epochs'], 'epoch')} a trial")
    if settings.get("folds"):
        parts.append(f"{settings['folds']} folds each")
    if settings.get("confirm_seeds") and content.recommendation is not None:
        parts.append(
            f"up to {settings.get('finalists', 0)} finalists confirmed on "
            f"{settings['confirm_seeds']} fresh seeds and splits"
        )
    return f"{', '.join(parts)}." if parts else ""


def _first_rung(content: ReportContent) -> str:
    settings = content.settings
    if not {"first_rung", "reduction"} <= set(settings):
        return ""
    return f" (from epoch {settings['first_rung']} on, about 1 of {settings['reduction']} goes on)"


def _rungs(content: ReportContent) -> Iterator[Block]:
    stopped = Counter(t.rung or 0 for t in content.searched if t.state is State.STOPPED)
    rows = []
    for rung, count in sorted(stopped.items()):
        reached = sum(t.epochs_trained >= rung for t in content.searched)
        rows.append(row(f"epoch {rung}", f"{reached:,}", f"{count:,}", share(count / reached)))
    if rows:
        names = ("rung", "trials that reached it", "stopped there", "share")
        yield Table("Where trials were stopped", columns(*names), rows)


def _compute(content: ReportContent) -> Iterator[Block]:
    """What the epochs took, and what the epochs that were not trained would have taken."""
    spent = math.fsum(e.epoch_seconds for reports in content.epochs.values() for e in reports)
    said = []
    if spent:
        said.append(f"Compute spent: {duration(spent)} of training, all epochs together")
    ends = [t.ended_ms for t in content.trials if t.ended_ms is not None]
    if ends:
        wall = (max(ends) - min(t.started_ms for t in content.trials)) / 1000
        said.append(f"{duration(wall)} by the clock from the first trial to the last")
    if said:
        yield Text(f"{', '.join(said)}.")
    stopped = [t for t in content.searched if t.state is State.STOPPED]
    saved_epochs, saved_seconds = 0, 0.0
    for trial in stopped:
        planned = trial.max_epochs or content.settings.get("max_epochs") or trial.epochs_trained
        left = max(0, planned - trial.epochs_trained)
        seconds = [e.epoch_seconds for e in content.epochs.get(trial.number, ())]
        saved_epochs += left
        # At the pace of the last epoch: the first one also compiles.
        saved_seconds += left * seconds[-1] if seconds else 0.0
    if saved_epochs:
        part = f", some {duration(saved_seconds)}" if saved_seconds else ""
        percentage = (
            f" ({percent(saved_seconds / (saved_seconds + spent))} of what it would have taken)"
            if saved_seconds
            else ""
        )
        yield Text(f"Stopping early saved {counted(saved_epochs, 'epoch')}{part}{percentage}.")


def _space(content: ReportContent) -> Iterator[Block]:
    rows = []
    for name, values in trial_charts.varied(content.searched, content.importances).items():
        distinct = sorted(set(values.values()), key=lambda v: (isinstance(v, str), v))
        if all(isinstance(v, int | float) for v in distinct) and len(distinct) > 6:
            tried = f"{_number(distinct[0])} to {_number(distinct[-1])}"
        else:
            tried = listed([_number(v) for v in distinct])
        rows.append(row(name, tried, f"{len(values):,}"))
    if rows:
        names = ("parameter", "values tried", "trials that have it")
        yield Table("The space, as far as it was tried", columns(*names, text=(0, 1)), rows, True)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _trial_row(trial: TrialRecord) -> Row:
    totals = trial.totals
    stopped = trial.state is State.STOPPED
    return row(
        str(trial.number),
        f"stopped at {trial.rung}" if stopped else trial.state.value,
        _accuracy(totals) if totals else UNKNOWN,
        f"{totals.parameters:,}" if totals else UNKNOWN,
        str(trial.epochs_trained),
        trial.config.summary,
    )


def _accuracy(totals: TrialTotals) -> str:
    """On the validation split; with folds their mean, with its standard error."""
    error = totals.fold_standard_error
    if error is None:
        return share(totals.val_accuracy)
    folds = len(totals.fold_accuracies)
    return f"{share(totals.val_accuracy)} ({folds} folds, standard error {points(error)})"


def _failures(content: ReportContent) -> Iterator[Block]:
    reasons = Counter(
        t.reason or "no reason given" for t in content.trials if t.state is State.FAILED
    )
    if reasons:
        rows = [row(f"{count:,}", reason) for reason, count in reasons.most_common(BEST_TRIALS)]
        yield Table("Why trials failed", columns("trials", "reason", wide=(1,)), rows, folded=True)


def mattered(content: ReportContent) -> Iterator[Chapter]:
    """Which hyperparameters mattered, and how the trials learned."""
    ranked = content.ranked
    blocks: list[Block] = []
    if content.importances:
        blocks.append(Charts([charts.importance_bars(content.importances)]))
        blocks.append(_importance_table(content))
        text = "A share of how much the trials differ, as Optuna estimates it; it tells what was "
        blocks.append(
            Text(f"{text}worth tuning in this space, not which value is best.", tone="fine")
        )
    curves = trial_charts.learning_curves(content.searched, content.epochs)
    if curves is not None:
        blocks.append(Charts([curves]))
    parallel = trial_charts.parallel_coordinates(ranked, content.importances)
    if parallel is not None:
        blocks.append(Charts([parallel]))
        slices = trial_charts.slices(ranked, content.importances)
        blocks.append(
            Text(
                "Validation accuracy over each varied parameter, whatever the others were; stopped "
                "trials are grey. The axis begins where most trials do.",
                tone="fine",
            )
        )
        blocks.append(Charts(slices))
    if blocks:
        yield Chapter("parameters", "Which hyperparameters mattered", blocks)


def _importance_table(content: ReportContent) -> Table:
    items = sorted(content.importances.items(), key=lambda item: (-item[1], item[0]))
    rows = [row(name, share(value)) for name, value in items]
    return Table("Importances in figures", columns("parameter", "share"), rows, folded=True)
