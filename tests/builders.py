"""Makers of records: everything has a default, so that a test states only what it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import settings
from numpy.typing import NDArray

from search.comparison import Repetition
from search.records import (
    Assignment,
    Candidate,
    Costs,
    Criteria,
    EpochReport,
    Examination,
    Examined,
    Inspected,
    Latency,
    Layer,
    Measures,
    Phase,
    Recommendation,
    State,
    TestResult,
    TrialRecord,
    TrialTotals,
    WorkerReport,
)
from search.selection import recommend
from search.space import Space, SpaceSource
from spaces.config import TrialConfig
from spaces.notebooks import Experiment, Figure, Notebook

if TYPE_CHECKING:
    from search.data import LoadedData
    from search.reproduction import ReproductionDirector

VALIDATION_FRACTION = 0.2

quick = settings(deadline=None, max_examples=60, derandomize=True)
"""For property tests: no deadline, because the machine may be busy with something else, and the
same examples every time; `tests.fuzz` looks for new ones."""


def make_epoch(epoch: int = 1, **values: Any) -> EpochReport:
    fields: dict[str, Any] = {
        "train_loss": 0.5,
        "train_accuracy": 0.85,
        "val_loss": 0.6,
        "val_accuracy": 0.8,
        "epoch_seconds": 0.25,
        "examples_per_second": 4000.0,
        "timestamp_ms": 1_000 + epoch,
    }
    return EpochReport(epoch, **(fields | values))


def make_totals(**values: Any) -> TrialTotals:
    fields: dict[str, Any] = {
        "best_epoch": 2,
        "parameters": 1_000,
        "val_loss": 0.6,
        "val_accuracy": 0.8,
        "train_accuracy": 0.9,
        "gap": 0.1,
        "wall_seconds": 3.5,
        "measures": make_measures(),
    }
    return TrialTotals(**(fields | values))


def make_measures(**values: Any) -> Measures:
    """Of two classes, ten images each."""
    fields: dict[str, Any] = {
        "accuracy": 0.8,
        "loss": 0.6,
        "f1_macro": 0.79,
        "f1_micro": 0.8,
        "roc_auc_ovo": 0.95,
        "roc_auc_ovr": 0.94,
        "calibration_error": 0.05,
        "precision": (0.75, 0.875),
        "recall": (0.9, 0.7),
        "confusion": ((9, 1), (3, 7)),
    }
    return Measures(**(fields | values))


def make_assignment(number: int = 0, **values: Any) -> Assignment:
    fields: dict[str, Any] = {
        "phase": Phase.SEARCH,
        "config": TrialConfig(),
        "seed": 11,
        "split_seed": 12,
        "max_epochs": 6,
        "rungs": (2,),
    }
    return Assignment(number, **(fields | values))


def make_report(*epochs: EpochReport, **values: Any) -> WorkerReport:
    return WorkerReport(**({"pid": 4711, "epochs": epochs} | values))


def make_trial(number: int = 0, **values: Any) -> TrialRecord:
    """A completed trial of the search; `val_accuracy` and `parameters` go to its totals."""
    totals = {key: values.pop(key) for key in ("val_accuracy", "parameters") if key in values}
    fields: dict[str, Any] = {
        "phase": Phase.SEARCH,
        "config": TrialConfig(),
        "seed": 11,
        "split_seed": 12,
        "state": State.COMPLETED,
        "reason": None,
        "rung": None,
        "started_ms": 1_000,
        "ended_ms": 2_000,
        "totals": make_totals(**totals),
        "compiled": {},
        "epochs_trained": 6,
        "pid": 4711,
        "run_id": None,
    }
    return TrialRecord(number, **(fields | values))


def make_config(units: int) -> TrialConfig:
    """Configurations that differ by a number; 128 is the default one."""
    return TrialConfig(hidden=(units,))


def make_costs(latency_ms: float = 1.0, **values: Any) -> Costs:
    """`latency_ms` is the median for one image; the other times follow from it."""
    fields: dict[str, Any] = {
        "file_bytes": 50_000,
        "single": Latency(latency_ms, 2 * latency_ms),
        "batch": Latency(10 * latency_ms, 15 * latency_ms),
    }
    return Costs(**(fields | values))


def make_candidate(
    accuracies: Sequence[float],
    parameters: int = 1_000,
    *,
    is_baseline: bool = False,
    units: int = 0,
    is_champion: bool = False,
    gaps: Sequence[float] | float = (),
    recalls: Sequence[float] = (),
    costs: Costs | float | None = None,
) -> Candidate:
    """A confirmed configuration; distinct `units` (by default `parameters`) are distinct ones.

    Args:
        accuracies: validation accuracy of each run.
        parameters: of the network.
        is_baseline: whether it is the default configuration, which no search found.
        units: makes it another configuration where `parameters` are the same.
        is_champion: whether it is the configuration of the champion.
        gaps: of each run, or one for all of them; by default not known.
        recalls: of each class; by default not known.
        costs: or the median milliseconds for one image; by default not measured.
    """
    return Candidate(
        config=make_config(units or parameters),
        accuracies=tuple(accuracies),
        trials=tuple(range(len(accuracies))),
        parameters=parameters,
        search_accuracy=None if is_baseline else max(accuracies),
        is_baseline=is_baseline,
        is_champion=is_champion,
        gaps=(gaps,) * len(accuracies) if isinstance(gaps, int | float) else tuple(gaps),
        recalls=tuple(recalls),
        costs=make_costs(costs) if isinstance(costs, int | float) else costs,
    )


def make_recommendation(
    *candidates: Candidate, policy: str = "best-mean", **limits: Any
) -> Recommendation:
    return recommend(candidates, Criteria(policy, **limits), VALIDATION_FRACTION)


def make_space(
    suggest: Callable[..., Any], baseline: Callable[[], Any] = TrialConfig, name: str = "homemade"
) -> Space:
    return Space(SpaceSource(name, name), suggest, baseline, None)


def make_experiment(name: str = "1", units: int = 128, **values: Any) -> Experiment:
    """A published one of six epochs, without figures; `epochs` and such go to its configuration."""
    fields = {key: values.pop(key) for key in list(values) if key in TrialConfig.model_fields}
    config = TrialConfig.model_validate({"hidden": (units,), "epochs": 6, **fields})
    return Experiment(name, config, **values)


def make_notebook(*experiments: Experiment, **values: Any) -> Notebook:
    fields: dict[str, Any] = {
        "id": "homemade",
        "data": "digits",
        "about": "made for a test",
        "recommended": "",
        "because": "",
        "flaw": "none",
        "remedy": "none",
    }
    return Notebook(experiments=experiments, **(fields | values))


def make_repetition(experiment: Experiment, index: int = 0, **values: Any) -> Repetition:
    """A completed trial of an experiment, on the seeds of that index; six epochs, one test result.

    Args:
        experiment: what it repeats.
        index: repetitions of equal index have equal seeds.
        values: `val_accuracy` and `parameters` go to its totals, `epochs` are its reports,
            `test_accuracy` is that of the last epoch, the others are fields of the trial.
    """
    epochs = values.pop("epochs", [make_epoch(number) for number in range(1, 7)])
    measures = make_measures(accuracy=values.pop("test_accuracy", 0.8))
    fields = {
        "phase": Phase.REPRODUCE,
        "config": experiment.config,
        "seed": 100 + index,
        "split_seed": 200 + index,
        "max_epochs": experiment.config.epochs,
        "epochs_trained": len(epochs),
        "validation_fraction": experiment.validation_fraction,
        "tail": experiment.tail,
        "folds": experiment.folds,
        "experiment": experiment.id,
        "tests": () if experiment.folds else (TestResult(len(epochs), measures),),
    }
    return Repetition(make_trial(values.pop("number", index), **(fields | values)), epochs)


def make_figure(metric: str, *values: float, epoch: int | None = None) -> Figure:
    return Figure(metric, values, epoch)


def make_inspected(train: int = 6, validation: int = 4, classes: int = 2) -> Inspected:
    """Of a pool whose first images are the training part; certain that all is the first class."""
    certain = np.zeros((train + validation, classes), np.float32)
    certain[:, 0] = 1.0
    positions = np.arange(train + validation, dtype=np.int32)
    return Inspected(
        layers=(Layer("images", "InputLayer", (None, 8, 8, 1), 0, ""),),
        train=positions[:train],
        validation=positions[train:],
        train_probabilities=certain[:train],
        val_probabilities=certain[train:],
        positions=np.concatenate([positions[train:], positions[:train]]),
        activations={},
    )


class FakeWorker:
    """Does a reproduction's jobs without processes and networks; its models say what they are."""

    def __init__(self, director: ReproductionDirector, data: LoadedData) -> None:
        self.director = director
        self.shape = data.test.size, len(data.training.classes)
        self.trained: list[Assignment] = []
        self.examined: list[Examination] = []

    def model(self, job: Assignment, epoch: int) -> bytes:
        return f"{job.experiment} {job.seed} {epoch}".encode()

    def probabilities(self, model: bytes) -> NDArray[np.float32]:
        """What a model says of the test split: other for each model, the same every time."""
        chances = np.random.default_rng(list(model)).random(self.shape).astype(np.float32)
        return np.asarray(chances / chances.sum(axis=1, keepdims=True), np.float32)

    def train(self, job: Assignment) -> bool:
        """One report with everything; validation accuracy grows with the number of the trial."""
        self.trained.append(job)
        epochs = range(1, job.max_epochs + 1)
        report = make_report(
            *(make_epoch(n) for n in epochs),
            totals=make_totals(val_accuracy=0.5 + job.number / 100),
            final=True,
            snapshots={n: self.model(job, n) for n in epochs if n in job.snapshots},
            model=self.model(job, job.max_epochs) if job.keep_model else None,
        )
        return self.director.on_report(job, report)

    def examine(self, job: Examination) -> bool:
        self.examined.append(job)
        found = {name: self.probabilities(model) for name, model in job.models.items()}
        return self.director.on_report(job, make_report(final=True, examined=Examined(found, b"")))

    def run(self) -> None:
        """To the end, one job at a time."""
        while not self.director.is_finished():
            job = self.director.next_job()
            if isinstance(job, Examination):
                self.examine(job)
            elif isinstance(job, Assignment):
                self.train(job)
