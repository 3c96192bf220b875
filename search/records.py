"""The types that pass between modules, and the errors that reach the user."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spaces.config import TrialConfig


class PodiumError(Exception):
    """Root of the errors that the command line prints in one paragraph, without a traceback."""

    exit_code = 1


class ConfigError(PodiumError):
    """A setting, flag or space that cannot work: nothing was written; correct it and run again."""

    exit_code = 2


class DataError(PodiumError):
    """Data that is missing, damaged or too small: nothing was written."""

    exit_code = 2


class TrackingError(PodiumError):
    """MLflow refuses or does not answer; what the ledger holds is not affected."""

    exit_code = 2


class StudyFailed(PodiumError):
    """A study that could not reach a result: its trials failed, all for the same kind of reason."""

    exit_code = 3


class TrialFailed(PodiumError):
    """A trial that cannot go on; recorded as failed with this reason, and the study goes on."""


def one_line(error: BaseException) -> str:
    """An exception's kind and message in one line of at most some 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


class Phase(StrEnum):
    """What a trial is trained for."""

    SEARCH = "search"
    CONFIRM = "confirm"
    REPRODUCE = "reproduce"


class State(StrEnum):
    """Where a trial or a study stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What one epoch measured. Accuracies are fractions; losses are means in nats.

    The training figures are running means over the epoch, with dropout on, as Keras reports them.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    epoch_seconds: float
    examples_per_second: float
    timestamp_ms: int

    @property
    def metrics(self) -> dict[str, float]:
        """The figures by the names that MLflow shows."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "val_loss": self.val_loss,
            "val_accuracy": self.val_accuracy,
            "epoch_seconds": self.epoch_seconds,
            "examples_per_second": self.examples_per_second,
        }

    @property
    def is_finite(self) -> bool:
        """False when training has diverged."""
        return math.isfinite(self.train_loss) and math.isfinite(self.val_loss)


@dataclass(frozen=True, slots=True)
class Measures:
    """How well a classifier does on labelled images; scikit-learn's measures.

    Attributes:
        loss: mean cross-entropy in nats. That of an epoch is Keras's, which counts no probability
            below 1e-7; this one does, so that the surest mistakes cost more.
        roc_auc_ovo: area under the ROC curve, one-vs-one, macro average; NaN, as is
            `roc_auc_ovr` (one-vs-rest), where a class is missing from the labels.
        calibration_error: expected difference of confidence and accuracy.
        precision: of each class; 0 where it is never predicted.
        recall: of each class; 0 where it is missing from the labels.
        confusion: images by true class (rows) and predicted class.
    """

    accuracy: float
    loss: float
    f1_macro: float
    f1_micro: float
    roc_auc_ovo: float
    roc_auc_ovr: float
    calibration_error: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]

    @property
    def scalars(self) -> dict[str, float]:
        """Those that are one number each."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.type == "float"
        }


@dataclass(frozen=True, slots=True)
class TrialTotals:
    """A trial's figures at its best epoch so far, measured without dropout.

    Attributes:
        best_epoch: by the metric that the configuration monitors (the first of several); the
            latest one where it keeps the last weights.
        parameters: of the network; with folds of the first one.
        val_accuracy: with folds the mean over them, as are the losses and train_accuracy.
        train_accuracy: on as many training images as there are validation images.
        gap: train_accuracy - val_accuracy.
        measures: on the validation split; with folds on those of all folds together.
        fold_accuracies: validation accuracy of each fold; empty without folds.
        wall_seconds: since the worker took the trial up, building included.
    """

    best_epoch: int
    parameters: int
    val_loss: float
    val_accuracy: float
    train_accuracy: float
    gap: float
    wall_seconds: float
    measures: Measures
    fold_accuracies: tuple[float, ...] = ()

    @property
    def fold_standard_error(self) -> float | None:
        """Of the mean over folds: their standard deviation by the root of their number."""
        count = len(self.fold_accuracies)
        return statistics.stdev(self.fold_accuracies) / math.sqrt(count) if count > 1 else None


@dataclass(frozen=True, slots=True)
class TestResult:
    """What a trial's model does on the test split, as it was after some epoch."""

    __test__ = False

    epoch: int
    measures: Measures


@dataclass(frozen=True, slots=True)
class Assignment:
    """One trial as it is handed to a worker.

    Attributes:
        number: unique within the study, from 0; also the order of proposal.
        seed: of initialization, batch order and dropout.
        split_seed: of the split of the pool into train and validation.
        rungs: ascending epochs after which the worker reports totals and waits for the scheduler.
        validation_fraction: of the pool; without folds.
        tail: whether that is the last part of the pool, whatever the seed; else it is drawn.
        folds: 0, or in how many folds the pool is cut by `split_seed`; the trial then trains one
            network for each, epoch by epoch, and its figures are means over them.
        keep_model: whether the last report carries the trained model.
        snapshots: epochs after which a report carries the model as it then is.
        experiment: which published experiment it repeats.
    """

    number: int
    phase: Phase
    config: TrialConfig
    seed: int
    split_seed: int
    max_epochs: int
    rungs: tuple[int, ...]
    validation_fraction: float = 0.2
    tail: bool = False
    folds: int = 0
    keep_model: bool = False
    snapshots: tuple[int, ...] = ()
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class Examination:
    """Trained models to be measured on images that no trial has seen.

    Attributes:
        models: `.keras` files by a name for each.
        images: uint8 or float32 (n, h, w, c), without their labels.
        name: what it is made for, where several may be under way.
        ship: which of the models to prepare for MLflow, if any.
        requirements: what loading that model needs, as pip requirements.
    """

    models: Mapping[str, bytes]
    images: NDArray[Any]
    name: str = ""
    ship: str = ""
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of an `Examination`.

    Attributes:
        probabilities: float32 (n, classes) for each model.
        package: the MLflow model folder of the one to ship, as a zip file.
    """

    probabilities: Mapping[str, NDArray[np.float32]]
    package: bytes


@dataclass(frozen=True, slots=True)
class Inspection:
    """A trained model to be looked into, on the images that its trial has seen.

    Attributes:
        model: a `.keras` file.
        split_seed: of the trial, as are `validation_fraction`, `tail` and `folds`.
        activation_images: on how many images to record activations, at most.
    """

    model: bytes
    split_seed: int
    validation_fraction: float = 0.2
    tail: bool = False
    folds: int = 0
    activation_images: int = 2_000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model; `output_shape` begins with None for the batch."""

    name: str
    kind: str
    output_shape: tuple[int | None, ...]
    parameters: int
    detail: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """What came of an `Inspection`; of folds, that of the first one.

    Attributes:
        train: int32 positions in the pool; `train_probabilities` are float32 (n, classes).
        validation: likewise.
        positions: int32 (m,), the images of `activations`.
        activations: float32 (m, units) of each dense hidden layer, "hidden 1" first.
        chosen_pixels: positions in the flattened image, where the model sees only some pixels.
    """

    layers: tuple[Layer, ...]
    train: NDArray[np.int32]
    validation: NDArray[np.int32]
    train_probabilities: NDArray[np.float32]
    val_probabilities: NDArray[np.float32]
    positions: NDArray[np.int32]
    activations: Mapping[str, NDArray[np.float32]]
    chosen_pixels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker sends after each stretch of epochs.

    Attributes:
        epochs: reports since the last one, in order.
        totals: at a rung and at the end.
        compiled: the optimizer's settings as read back from the compiled model (first report).
        final: the trial has trained its last epoch, or has failed.
        failure: why it failed.
        model: the `.keras` file of the best epoch (`keep_model`, final).
        snapshots: `.keras` files by the epoch after which they were taken.
        pid: the worker's process.
        examined: the answer to an `Examination`.
        inspected: the answer to an `Inspection`.
    """

    pid: int
    epochs: tuple[EpochReport, ...] = ()
    totals: TrialTotals | None = None
    compiled: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    final: bool = False
    failure: str | None = None
    model: bytes | None = None
    snapshots: Mapping[int, bytes] = field(default_factory=dict)
    examined: Examined | None = None
    inspected: Inspected | None = None


Job: TypeAlias = Assignment | Examination | Inspection
"""What a worker can be given to do."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """A trial as the ledger holds it.

    Attributes:
        max_epochs: as it was assigned, as are the next four.
        tests: what its models did on the test split, where that was opened for them.
    """

    number: int
    phase: Phase
    config: TrialConfig
    seed: int
    split_seed: int
    state: State
    reason: str | None
    rung: int | None
    started_ms: int
    ended_ms: int | None
    totals: TrialTotals | None
    compiled: Mapping[str, Any]
    epochs_trained: int
    pid: int | None
    run_id: str | None
    max_epochs: int = 0
    validation_fraction: float = 0.2
    tail: bool = False
    folds: int = 0
    experiment: str = ""
    tests: tuple[TestResult, ...] = ()

    @property
    def val_accuracy(self) -> float | None:
        """At the best epoch; None before the first rung."""
        return self.totals.val_accuracy if self.totals else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A confirmed configuration: paired runs on shared seeds and splits.

    Attributes:
        accuracies: validation accuracy of each run, in the order of the shared seeds.
        trials: the number of each run, in the same order.
        search_accuracy: the single score that made it a finalist; None for the baseline.
        is_baseline: whether it is the space's default configuration.
    """

    config: TrialConfig
    accuracies: tuple[float, ...]
    trials: tuple[int, ...]
    parameters: int
    search_accuracy: float | None
    is_baseline: bool

    @property
    def mean(self) -> float:
        """Mean validation accuracy over the runs."""
        return math.fsum(self.accuracies) / len(self.accuracies)


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A candidate with its standard error and one sentence on why it was or was not chosen."""

    candidate: Candidate
    standard_error: float
    reason: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The chosen candidate, the rule that chose it, and a sentence for each of the others.

    Attributes:
        ranked: all candidates, best mean first.
        chosen: the index of the recommended one in `ranked`.
        summary: the choice in one sentence.
    """

    policy: str
    ranked: tuple[Reasoned, ...]
    chosen: int
    summary: str

    @property
    def winner(self) -> Candidate:
        """The recommended candidate."""
        return self.ranked[self.chosen].candidate

    @property
    def baseline(self) -> Candidate:
        """The space's default configuration, confirmed like the others."""
        return next(r.candidate for r in self.ranked if r.candidate.is_baseline)


@dataclass(frozen=True, slots=True)
class Interval:
    """A proportion with its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test split said, once, about the recommended model and the baseline.

    Attributes:
        accuracy: of the recommended model, 95% Wilson interval.
        baseline_accuracy: likewise.
        only_recommended_right: test images that only the recommended model classifies right.
        only_baseline_right: and only the baseline.
        p_value: exact McNemar test of equal accuracy, two-sided.
        images: size of the test split.
        measures: of the recommended model.
        openings: how often this test split has been opened so far, this opening included.
        sentence: all of it for people.
    """

    accuracy: Interval
    baseline_accuracy: Interval
    measures: Measures
    only_recommended_right: int
    only_baseline_right: int
    p_value: float
    images: int
    openings: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of a test split."""

    fingerprint: str
    study: str
    reason: str
    opened_ms: int
