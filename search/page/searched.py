"""The chapters of a report on the search: what was tried, and what mattered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

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
    rule = f"is among the best 1 of {settings['reduction']} that came that far before it"
    if settings["scheduler"] == "median":
        rule = "is not below the median of those that came that far before it"
    later = ", in some brackets later" if settings["scheduler"] == "hyperband" else ""
    return f" (from epoch {settings['first_rung']} on{later}, a trial goes on that {rule})"


def _rungs(content: ReportContent) -> Iterator[Block]:
    stopped = Counter(t.rung for t in content.searched if t.rung is not None)
    rows = []
    for rung, compared in sorted(content.rungs.items()):
        part = share(stopped[rung] / compared)
        rows.append(row(f"epoch {rung}", f"{compared:,}", f"{stopped[rung]:,}", part))
    if rows:
        names = ("rung", "trials compared there", "stopped there", "share")
        yield Table("Where trials were stopped", columns(*names), rows)


def _compute(content: ReportContent) -> Iterator[Block]:
    """What the epochs took, and what the epochs that were not trained would have taken."""
    spent = math.fsum(t.totals.wall_seconds for t in content.trials if t.totals)
    said = []
    if spent:
        epochs = math.fsum(_epoch_seconds(content, content.trials))
        said.append(
            f"Compute spent: {duration(spent)} of the training processes, all trials together, "
            f"{duration(epochs)} of it in epochs"
        )
    ends = [t.ended_ms for t in content.trials if t.ended_ms is not None]
    if ends:
        wall = (max(ends) - min(t.started_ms for t in content.trials)) / 1000
        said.append(
            f"{duration(wall)} by the clock from the first trial to the last, pauses included"
        )
    if said:
        yield Text(f"{'; '.join(said)}.")
    stopped = [t for t in content.searched if t.rung is not None]
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
        searching = math.fsum(_epoch_seconds(content, content.searched))
        percentage = (
            f" ({percent(saved_seconds / (saved_seconds + searching))} of the training that the "
            "search would have taken)"
            if saved_seconds
            else ""
        )
        most = "up to " if any(t.config.patience for t in stopped) else ""
        yield Text(
            f"Stopping early saved {most}{counted(saved_epochs, 'epoch')}{part}{percentage}."
        )


def _epoch_seconds(content: ReportContent, trials: Sequence[TrialRecord]) -> Iterator[float]:
    return (e.epoch_seconds for t in trials for e in content.epochs.get(t.number, ()))


def _space(content: ReportContent) -> Iterator[Block]:
    rows, ranges = [], trial_charts.ranges(content.searched)
    for name, values in trial_charts.varied(content.searched, content.importances).items():
        distinct = sorted(set(values.values()), key=lambda v: (isinstance(v, str), v))
        if all(isinstance(v, int | float) for v in distinct) and len(distinct) > 6:
            tried = f"{_number(distinct[0])} to {_number(distinct[-1])}"
        else:
            tried = listed([_number(v) for v in distinct])
        rows.append(row(name, ranges.get(name, UNKNOWN), tried, f"{len(values):,}"))
    if rows:
        names = ("parameter", "range", "values tried", "trials that have it")
        yield Table(
            "The space, and what was tried of it", columns(*names, text=(0, 1, 2)), rows, True
        )


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _trial_row(trial: TrialRecord) -> Row:
    totals = trial.totals
    return row(
        str(trial.number),
        f"stopped at {trial.rung}" if trial.rung is not None else trial.state.value,
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
        text = (
            "How far each parameter sets the best trials (a tenth of them, at least five) apart "
            "from all, as a share of the sum (PED-ANOVA, Watanabe et al. 2023). It tells what was "
            "worth tuning in this space, not which value is best; of few trials, roughly."
        )
        blocks.append(Text(text, tone="fine"))
    curves = trial_charts.learning_curves(content.searched, content.epochs)
    if curves is not None:
        blocks.append(Charts([curves]))
    parallel = trial_charts.parallel_coordinates(ranked, content.importances)
    if parallel is not None:
        blocks.append(Charts([parallel]))
        slices = trial_charts.slices(ranked, content.importances)
        note = (
            "Validation accuracy over each varied parameter, whatever the others were; stopped "
            "trials are grey. The axis begins where most trials do."
        )
        blocks.append(Charts(slices, note))
    if blocks:
        yield Chapter("parameters", "Which hyperparameters mattered", blocks)


def _importance_table(content: ReportContent) -> Table:
    items = sorted(content.importances.items(), key=lambda item: (-item[1], item[0]))
    rows = [row(name, share(value)) for name, value in items]
    return Table("Importances in figures", columns("parameter", "share"), rows, folded=True)
