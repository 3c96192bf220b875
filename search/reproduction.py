"""Repeats published experiments: a fixed list of trials, each then measured on the test split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from search.arrays import Images, Labels
from search.comparison import protocol
from search.data import LoadedData
from search.director import Progress
from search.ledger import Ledger
from search.metrics import Probabilities, measure
from search.records import (
    Assignment,
    Examination,
    Job,
    Phase,
    State,
    StudyFailed,
    TestResult,
    WorkerReport,
)
from search.sampler import derived_seed
from spaces.notebooks import Experiment, Notebook

KeepModel = Callable[[int, int, bytes], object]
"""Stores a model for good: (trial, epoch, `.keras` file)."""


def plan(
    notebook: Notebook,
    *,
    only: Sequence[str],
    seeds: int,
    epochs_scale: float,
    full: bool,
    seed: int,
) -> list[Assignment]:
    """The trials of a reproduction, those that take longest first.

    Experiments of equal configuration are one model: trained once, under the first one's id. All
    share seeds and splits, so that differences between them are paired.

    Args:
        notebook: what to repeat.
        only: ids of experiments; all where empty.
        seeds: for each experiment, unless it asks for more or has a budget.
        epochs_scale: by which epochs are multiplied, rounded, at least 1.
        full: without the budgets of experiments.
        seed: that the others are derived from.
    """
    models: dict[Hashable, Experiment] = {}
    for experiment in notebook.experiments:
        if not only or experiment.id in only:
            models.setdefault(protocol(experiment), experiment)
    jobs: list[Assignment] = []
    for experiment in models.values():
        epochs, count = experiment.config.epochs or 1, max(seeds, experiment.seeds)
        if not full:
            epochs = min(epochs, experiment.budget_epochs or epochs)
            count = min(count, experiment.budget_seeds or count)
        jobs += [_assignment(experiment, epochs, epochs_scale, seed, i) for i in range(count)]
    # The longest first, so that no worker waits long for the last one.
    jobs.sort(key=_work, reverse=True)
    return [replace(job, number=number) for number, job in enumerate(jobs)]


def _assignment(
    experiment: Experiment, epochs: int, epochs_scale: float, seed: int, index: int
) -> Assignment:
    last = max(1, round(epochs * epochs_scale))
    snapshots = {max(1, round(epoch * epochs_scale)) for epoch in experiment.snapshots}
    return Assignment(
        number=0,
        phase=Phase.REPRODUCE,
        config=experiment.config,
        seed=derived_seed(seed, "reproduce", index),
        split_seed=derived_seed(seed, "reproduce split", index),
        max_epochs=last,
        rungs=(),
        validation_fraction=experiment.validation_fraction,
        tail=experiment.tail,
        folds=experiment.folds,
        keep_model=not experiment.folds,
        snapshots=tuple(sorted(epoch for epoch in snapshots if epoch < last)),
        experiment=experiment.id,
    )


def _work(job: Assignment) -> float:
    """Roughly what a trial costs, in steps weighed by the size of the network."""
    config = job.config
    weights = sum(a * b for a, b in itertools.pairwise((784, *config.hidden, 10)))
    size = 1 + weights / 300_000 + 10 * len(config.filters)
    # Patience ends most trials long before their last epoch.
    epochs = min(job.max_epochs, 15) if config.patience else job.max_epochs
    return epochs * max(1, job.folds) * (32 / config.batch_size + size)


class ReproductionDirector:
    """Hands out a fixed list of trials, then measures each experiment's models on the test split.

    The ledger hears of everything first, as in a search.
    """

    def __init__(
        self,
        name: str,
        jobs: Sequence[Assignment],
        data: LoadedData,
        ledger: Ledger,
        keep_model: KeepModel,
        *,
        now_ms: Callable[[], int],
        notify: Callable[[], None],
    ) -> None:
        """Prepares a new reproduction, which the ledger knows already.

        Args:
            name: of the study.
            jobs: from `plan`.
            data: with the test split still locked.
            ledger: committed to before anything else.
            keep_model: called with every model before it is measured.
            now_ms: the clock.
            notify: called after each change; must not block.
        """
        self._name, self._data, self._ledger = name, data, ledger
        self._keep_model, self._now_ms, self._notify = keep_model, now_ms, notify
        self._queue = list(jobs)
        self._numbers = itertools.count(len(jobs))
        self._open: dict[int, Assignment] = {}
        self._left = {e: sum(j.experiment == e for j in jobs) for e in {j.experiment for j in jobs}}
        self._models: dict[str, dict[tuple[int, int], bytes]] = {e: {} for e in self._left}
        self._examinations: list[Examination] = []
        self._examining: dict[str, Labels] = {}
        self._later: list[Examination] = []
        self._reexamined: set[str] = set()
        self._retried: set[int] = set()
        self.opened: tuple[Images, Labels] | None = None
        self.probabilities: dict[int, Probabilities] = {}
        self.progress = Progress(len(jobs), 0)

    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return not (self._queue or self._open or self._examinations or self._examining)

    def is_settled(self) -> bool:
        """Whether the outcome stands."""
        return self.is_finished()

    def next_job(self) -> Job | None:
        """The next examination or trial; None while to wait."""
        if self._later:
            return self._later.pop(0)
        if self._examinations:
            return self._begin_examination()
        if not self._queue:
            return None
        job = self._queue.pop(0)
        self._ledger.begin_trial(self._name, job, self._now_ms())
        self._open[job.number] = job
        self.progress.phase = job.phase.value
        self.progress.running = len(self._open)
        self._notify()
        return job

    def on_start(self, job: Job) -> None:
        """Nothing: there are no limits of time."""

    def give_up_overdue(self) -> list[Job]:
        """None."""
        return []

    def interrupt(self) -> float:
        """Takes note that the reproduction is to stop: at once, as it cannot be taken up again."""
        return 0.0

    def on_report(self, job: Job, report: WorkerReport) -> bool:
        """Records a report; every trial goes on to its end."""
        if not isinstance(job, Assignment):
            self._conclude(job, report)
            return False
        self._ledger.append(self._name, job.number, report)
        epoch = report.epochs[-1].epoch if report.epochs else 0
        models = {**report.snapshots, **({epoch: report.model} if report.model else {})}
        for after, model in models.items():
            self._keep_model(job.number, after, model)
            self._models[job.experiment][job.number, after] = model
        if report.totals is not None and report.final:
            self.progress.see(job.number, report.totals.val_accuracy)
        if report.failure is not None:
            self._end(job, State.FAILED, report.failure)
        elif report.final:
            self._end(job, State.COMPLETED)
        self._notify()
        return job.number in self._open

    def on_crash(self, job: Job, reason: str, *, retry: bool = True) -> None:
        """Records that a worker died; its trial is tried once more, on the same seeds.

        So is its examination, on the images that it has. Not where `retry` is false, because it
        would end in the same way.
        """
        if not isinstance(job, Assignment):
            self._examine_again(job, reason, retry=retry)
            return
        if retry and job.number not in self._retried:
            again = replace(job, number=next(self._numbers))
            self._retried.add(again.number)
            self._left[job.experiment] += 1
            self.progress.search_total += 1
            self._queue.insert(0, again)
        self._end(job, State.FAILED, reason)

    def _examine_again(self, job: Job, reason: str, *, retry: bool) -> None:
        if not isinstance(job, Examination) or not retry or job.name in self._reexamined:
            raise StudyFailed(f"The examination on the test split failed: {reason}.")
        self._reexamined.add(job.name)
        self._later.append(job)

    def close_open_trials(self, reason: str) -> None:
        """Records the trials that are still open as failed, when a study ends before its end."""
        for number in list(self._open):
            self._ledger.end_trial(self._name, number, State.FAILED, self._now_ms(), reason)
            del self._open[number]

    def _end(self, job: Assignment, state: State, reason: str | None = None) -> None:
        self._ledger.end_trial(self._name, job.number, state, self._now_ms(), reason)
        del self._open[job.number]
        progress = self.progress
        progress.running = len(self._open)
        progress.search_ended[state] = progress.search_ended.get(state, 0) + 1
        if state is State.FAILED:
            models = self._models[job.experiment]
            self._models[job.experiment] = {k: m for k, m in models.items() if k[0] != job.number}
        self._left[job.experiment] -= 1
        if not self._left[job.experiment]:
            self._queue_examination(job.experiment)

    def _queue_examination(self, experiment: str) -> None:
        """Once the last trial of an experiment has ended; those with folds have no test figure."""
        models = self._models.pop(experiment)
        if models:
            named: Mapping[str, bytes] = {f"{n}/{epoch}": m for (n, epoch), m in models.items()}
            self._examinations.append(Examination(named, np.empty(0), name=experiment))

    def _begin_examination(self) -> Examination:
        job = self._examinations.pop(0)
        images, labels = self._data.test.open(
            self._name,
            f"reproduction of experiment {job.name}",
            self._now_ms(),
            self._ledger.record_opening,
        )
        self._examining[job.name] = labels
        self.opened = images, labels
        return replace(job, images=images)

    def _conclude(self, job: Job, report: WorkerReport) -> None:
        if report.examined is None or not isinstance(job, Examination):
            raise StudyFailed(f"The examination on the test split failed: {report.failure}")
        labels = self._examining[job.name]
        results: dict[int, list[TestResult]] = {}
        for name, probabilities in report.examined.probabilities.items():
            number, epoch = map(int, name.split("/"))
            results.setdefault(number, []).append(TestResult(epoch, measure(labels, probabilities)))
            self.probabilities[number] = probabilities
        for number, found in results.items():
            self._ledger.record_tests(self._name, number, found)
        # Last, for until then the study is not finished.
        del self._examining[job.name]
        self._notify()
