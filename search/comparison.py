"""Published figures beside ours, and in words whether they agree. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from search.inference import probability_better
from search.records import (
    Candidate,
    Criteria,
    EpochReport,
    Phase,
    Recommendation,
    State,
    TrialRecord,
)
from search.selection import SEPARATED, percent, points, recommend
from spaces.notebooks import Experiment, Figure, Notebook

TOLERANCE = 0.004
"""Of accuracies and areas: a smaller difference is none in practice."""
LOSS_TOLERANCE = 0.05
"""Of losses, as a fraction of the published one."""
DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Repetition:
    """A trial that repeats an experiment, with its epochs in order."""

    trial: TrialRecord
    epochs: Sequence[EpochReport]


@dataclass(frozen=True, slots=True)
class Agreement:
    """One published figure and what came out here.

    Attributes:
        ours: one value for each seed, in the order of the trials.
        deviation: standard deviation over seeds; None for a single one.
        difference: mean of ours - mean of the published ones; None where nothing was run.
        standard_errors: the difference in standard errors of a difference of two such means, with
            our deviation for both; None for a single seed.
        words: reproduced, within noise, differs, not run, or that it cannot be compared.
    """

    figure: Figure
    ours: tuple[float, ...]
    deviation: float | None
    difference: float | None
    standard_errors: float | None
    words: str

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.ours) if self.ours else None


@dataclass(frozen=True, slots=True)
class Row:
    """An experiment with everything that was measured of it here.

    Attributes:
        repetitions: its completed trials, shared with equal experiments.
        agreements: one for each published figure.
        figures: ours by metric, for each seed: also those that nothing was published of.
        epochs: how long each trial trained.
        parameters: None where nothing was run.
        shortened: trained for fewer epochs than published, on purpose.
        failed: trials that failed.
    """

    experiment: Experiment
    repetitions: tuple[Repetition, ...]
    agreements: tuple[Agreement, ...]
    figures: Mapping[str, tuple[float, ...]]
    epochs: tuple[int, ...]
    parameters: int | None
    shortened: bool
    failed: int = 0

    @property
    def seconds(self) -> tuple[float, ...]:
        """Wall seconds of each trial in its worker, waiting included."""
        return tuple(r.trial.totals.wall_seconds for r in self.repetitions if r.trial.totals)


def compare(notebook: Notebook, repetitions: Sequence[Repetition]) -> list[Row]:
    """Puts every experiment of a notebook beside the trials that repeat it."""
    rows = []
    for experiment in notebook.experiments:
        own = [r for r in repetitions if _repeats(r.trial, experiment)]
        completed = tuple(r for r in own if r.trial.state is State.COMPLETED)
        failed = sum(r.trial.state is State.FAILED for r in own)
        rows.append(_row(experiment, completed, failed))
    return rows


def protocol(trial: TrialRecord | Experiment) -> Hashable:
    """What makes trials repetitions of each other: model, training and how it is validated."""
    return trial.config, trial.folds, trial.tail, trial.validation_fraction


def _repeats(trial: TrialRecord, experiment: Experiment) -> bool:
    return trial.phase is Phase.REPRODUCE and protocol(trial) == protocol(experiment)


def _row(experiment: Experiment, repetitions: tuple[Repetition, ...], failed: int) -> Row:
    trials = [r.trial for r in repetitions]
    shortened = any(t.max_epochs < (experiment.config.epochs or 0) for t in trials)
    names = ["train_accuracy", "val_accuracy"]
    if experiment.folds:
        names += [f"val_{name}" for name in ("loss", "f1_micro", "roc_auc_ovo")]
    else:
        names += [f"test_{name}" for name in ("accuracy", "loss", "f1_macro", "roc_auc_ovo")]
    figures = {name: _values(Figure(name, ()), repetitions) for name in names}
    return Row(
        experiment=experiment,
        repetitions=repetitions,
        agreements=tuple(
            agree(figure, _values(figure, repetitions), shortened=shortened, failed=failed)
            for figure in experiment.published
        ),
        figures={name: values for name, values in figures.items() if values},
        epochs=tuple(t.epochs_trained for t in trials),
        parameters=next((t.totals.parameters for t in trials if t.totals), None),
        shortened=shortened,
        failed=failed,
    )


def _values(figure: Figure, repetitions: Sequence[Repetition]) -> tuple[float, ...]:
    values = (_value(figure, repetition) for repetition in repetitions)
    return tuple(value for value in values if value is not None)


def _value(figure: Figure, repetition: Repetition) -> float | None:
    trial = repetition.trial
    part, _, name = figure.metric.partition("_")
    if part == "val":
        return _validated(trial, name)
    wanted = figure.epoch or trial.epochs_trained
    if part == "train":
        found = [e.metrics[figure.metric] for e in repetition.epochs if e.epoch == wanted]
    else:
        found = [r.measures.scalars[name] for r in trial.tests if r.epoch == wanted]
    return found[0] if found else None


def _validated(trial: TrialRecord, name: str) -> float | None:
    if trial.totals is None:
        return None
    if name == "accuracy":
        return trial.totals.val_accuracy
    return trial.totals.measures.scalars[name]


def agree(
    figure: Figure, ours: tuple[float, ...], *, shortened: bool = False, failed: int = 0
) -> Agreement:
    """Says in words whether a published figure was reproduced.

    Reproduced: within 0.4 points (of a loss, within 5%). Within noise: further off, but within
    three standard deviations over our seeds. Differs: neither. Of several published values the
    one that lies furthest off decides.

    Args:
        figure: with one value for each published run.
        ours: one value for each seed; none where it was not run.
        shortened: trained for fewer epochs than published.
        failed: trials that failed.
    """
    if not ours:
        return Agreement(figure, ours, None, None, None, "failed" if failed else "not run")
    published = statistics.fmean(figure.values)
    difference = statistics.fmean(ours) - published
    deviation = statistics.stdev(ours) if len(ours) > 1 else None
    errors = None
    if deviation:
        errors = difference / (deviation * math.sqrt(1 / len(ours) + 1 / len(figure.values)))
    furthest = max(figure.values, key=lambda value: abs(statistics.fmean(ours) - value))
    off = round(abs(statistics.fmean(ours) - furthest), 12)
    is_loss = figure.metric.endswith("loss")
    tolerance = LOSS_TOLERANCE * furthest if is_loss else TOLERANCE
    if shortened:
        words = "trained for less: not comparable"
    elif off <= tolerance:
        words = "reproduced"
    elif deviation is not None and off <= DEVIATIONS * deviation:
        words = "within noise"
    else:
        words = "differs"
    return Agreement(figure, ours, deviation, difference, errors, words)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What Podium recommends among a notebook's experiments, by validation alone.

    Attributes:
        recommendation: among the experiments that share seeds and splits; None where fewer than
            two of them were trained on two seeds.
        sentences: for people: what was recommended there and here, and how far that is certain.
    """

    recommendation: Recommendation | None
    sentences: tuple[str, ...]


def judge_notebook(notebook: Notebook, rows: Sequence[Row], policy: str) -> Judgement:
    """Recommends again what the notebook recommended, or something else, and says how sure."""
    published = _published_choice(notebook)
    candidates, fraction = _candidates(notebook, rows)
    if len(candidates) < 2:
        too_few = (
            "Podium recommends nothing among them: that takes two experiments, each trained on "
            "the same two seeds or more."
        )
        return Judgement(None, (published, too_few, *_wasted(rows)))
    recommendation = recommend(candidates, Criteria(policy), fraction)
    winner = recommendation.winner
    chosen = recommendation.ranked[recommendation.chosen]
    sentences = [
        published,
        f"Podium recommends {_named(notebook, winner)} by validation accuracy alone: "
        f"{percent(winner.mean)} (standard error {points(chosen.standard_error)}) over "
        f"{len(winner.accuracies)} seeds. {chosen.reason}",
    ]
    best = recommendation.ranked[0]
    near = [
        _named(notebook, r.candidate)
        for r in recommendation.ranked[1:]
        if _better(best.candidate, r.candidate, fraction) < SEPARATED
    ]
    if near:
        sentences.append(
            f"The evidence does not separate {', '.join(near)} from the one with the best mean, "
            f"{_named(notebook, best.candidate)}: the probability that it is better than each of "
            f"them is below {percent(SEPARATED)}."
        )
    sentences.append(_against_published(notebook, rows, recommendation, fraction))
    if any(row.experiment.tail for row in rows):
        sentences.append(
            "All seeds share the notebook's own validation images, so that standard errors and "
            "probabilities leave out the luck of that choice."
        )
    return Judgement(recommendation, tuple(s for s in sentences if s))


def _wasted(rows: Sequence[Row]) -> list[str]:
    """Says of every experiment after which epoch validation loss only rose."""
    sentences = []
    for row in rows:
        lowest = [min(r.epochs, key=lambda e: e.val_loss).epoch for r in row.repetitions]
        patient = row.experiment.config.patience is not None
        if lowest and not patient and max(lowest) < min(row.epochs):
            after = ", ".join(map(str, sorted(lowest)))
            sentences.append(
                f"The validation loss of experiment {row.experiment.id} was lowest after epoch "
                f"{after} of {max(row.epochs)}, one for each seed: patience would have ended "
                "training soon after."
            )
    return sentences


def _published_choice(notebook: Notebook) -> str:
    if not notebook.recommended:
        return "The notebook compared nothing and recommended nothing."
    return f"The notebook recommended {notebook.recommended}: {notebook.because}."


def _against_published(
    notebook: Notebook, rows: Sequence[Row], recommendation: Recommendation, fraction: float
) -> str:
    winner = recommendation.winner
    if not notebook.recommended:
        return ""
    config = notebook.experiment(notebook.recommended).config
    theirs = [r.candidate for r in recommendation.ranked if r.candidate.config == config]
    if winner in theirs:
        return ""
    if not theirs:
        row = next(r for r in rows if r.experiment.id == notebook.recommended)
        runs = len(row.repetitions)
        trained = f"was trained on {runs} seed{'s'[: runs != 1]} here" if runs else "was not run"
        if row.shortened:
            trained += f", for {max(row.epochs)} of {row.experiment.config.epochs} epochs"
        return (
            f"Experiment {notebook.recommended} {trained}, so that nothing can be said on whether "
            "it is better or worse."
        )
    better = _better(winner, theirs[0], fraction)
    separates = "separates" if max(better, 1 - better) >= SEPARATED else "does not separate"
    return (
        f"The probability that {_named(notebook, winner)} is better than "
        f"{_named(notebook, theirs[0])}, the notebook's choice, is {percent(better)}: the evidence "
        f"{separates} them."
    )


def _better(first: Candidate, second: Candidate, fraction: float) -> float:
    return probability_better(first.accuracies, second.accuracies, fraction)


def _named(notebook: Notebook, candidate: Candidate) -> str:
    same = [e.id for e in notebook.experiments if e.config == candidate.config and not e.folds]
    return " = ".join(same)


def _candidates(notebook: Notebook, rows: Sequence[Row]) -> tuple[list[Candidate], float]:
    """The models that were trained at full length on the same seeds and splits, two at least."""
    fraction = statistics.mode(e.validation_fraction for e in notebook.experiments if not e.folds)
    models: dict[str, Row] = {}
    for row in rows:
        single = not row.experiment.folds and row.experiment.validation_fraction == fraction
        if single and not row.shortened and len(row.repetitions) > 1:
            models.setdefault(row.experiment.config.config_id, row)
    shared = [
        {(r.trial.seed, r.trial.split_seed) for r in row.repetitions} for row in models.values()
    ]
    seeds = sorted(set.intersection(*shared)) if shared else []
    if len(seeds) < 2:
        return [], fraction
    return [_candidate(row, seeds) for row in models.values()], fraction


def _candidate(row: Row, seeds: Sequence[tuple[int, int]]) -> Candidate:
    """As any other, also where the notebook recommended it: here it is no baseline to keep to."""
    by_seed = {(r.trial.seed, r.trial.split_seed): r.trial for r in row.repetitions}
    trials = [by_seed[seed] for seed in seeds]
    return Candidate(
        config=row.experiment.config,
        accuracies=tuple(t.val_accuracy or 0.0 for t in trials),
        trials=tuple(t.number for t in trials),
        parameters=row.parameters or 0,
        search_accuracy=None,
        is_baseline=False,
        gaps=tuple(t.totals.gap for t in trials if t.totals),
    )
