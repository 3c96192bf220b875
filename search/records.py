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

from search.credentials import masked
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


class DeliveryFailed(TrackingError):
    """MLflow was told a part of a study; the ledger keeps what is left."""

    exit_code = 3


class InUse(ConfigError):
    """A study that another process runs."""


class RunElsewhere(ConfigError):
    """A study whose files are in another folder, or on another machine."""


class StudyFailed(PodiumError):
    """A study that could not reach a result: its trials failed, all for the same kind of reason."""

    exit_code = 3


class ConstraintsUnmet(StudyFailed):
    """A study of which no confirmed candidate meets the hard constraints."""

    def __init__(self, message: str, ranked: tuple[Reasoned, ...], criteria: Criteria) -> None:
        """Takes the candidates, best mean first, each with what it does not meet."""
        super().__init__(message)
        self.ranked, self.criteria = ranked, criteria
        self.left_out: tuple[str, ...] = ()


class LedgerError(PodiumError):
    """The ledger's database fails: a full disk, damage, a server that is away.

    Attributes:
        lost: whether the connection broke on the way, so that the call may have worked.
    """

    exit_code = 3

    def __init__(self, message: str, *, lost: bool = False) -> None:
        """As any error."""
        super().__init__(message)
        self.lost = lost


class PromotionRefused(PodiumError):
    """A champion that stays, because a gate does not hold or there is none to go back to."""

    exit_code = 4


class TrialFailed(PodiumError):
    """A trial that cannot go on; recorded as failed with this reason, and the study goes on."""


def one_line(error: BaseException) -> str:
    """An exception's kind and message in one line of some 300 characters, without passwords."""
    text = masked(" ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:300]}"


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
    INTERRUPTED = "interrupted"
    """Not ended: it can be taken up again."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to come of it."""
        return self not in (State.RUNNING, State.INTERRUPTED)


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
        proposal: how Optuna came to the configuration, as JSON: parameters and distributions.
        checkpoint: to go on from, where the trial was begun before; see `TrainingRun.checkpoint`.
        begun: whether it was handed out before.
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
    proposal: str = ""
    checkpoint: bytes = b""
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Examination:
    """Trained models to be measured on images that no trial has seen.

    Attributes:
        models: `.keras` files by a name for each.
        images: uint8 or float32 (n, h, w, c), without their labels.
        name: what it is made for, where several may be under way.
        ship: which of the models to prepare for MLflow, if any.
        dispensable: models that may turn out not to load: the others are examined all the same.
        requirements: what loading that model needs, as pip requirements.
    """

    models: Mapping[str, bytes]
    images: NDArray[Any]
    name: str = ""
    ship: str = ""
    dispensable: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of an `Examination`.

    Attributes:
        probabilities: float32 (n, classes) for each model that could be loaded.
        package: the MLflow model folder of the one to ship, as a zip file.
        failures: why a dispensable model could not be examined.
    """

    probabilities: Mapping[str, NDArray[np.float32]]
    package: bytes
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """Trained models whose costs are to be measured, one after the other in one process.

    Attributes:
        models: `.keras` files by a name for each.
        image_shape: height, width, channels.
    """

    models: Mapping[str, bytes]
    image_shape: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from images to probabilities, over repeated calls."""

    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What using a model costs.

    Attributes:
        file_bytes: of its `.keras` file, without the optimizer's state.
        single: of one image at a time.
        batch: of 256 images at a time.
    """

    file_bytes: int
    single: Latency
    batch: Latency


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
        checkpoint: to go on from after the last epoch of `epochs`.
        pid: the worker's process.
        examined: the answer to an `Examination`.
        inspected: the answer to an `Inspection`.
        timed: the answer to a `Timing`.
    """

    pid: int
    epochs: tuple[EpochReport, ...] = ()
    totals: TrialTotals | None = None
    compiled: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    final: bool = False
    failure: str | None = None
    model: bytes | None = None
    snapshots: Mapping[int, bytes] = field(default_factory=dict)
    checkpoint: bytes | None = None
    examined: Examined | None = None
    inspected: Inspected | None = None
    timed: Mapping[str, Costs] = field(default_factory=dict)


Job: TypeAlias = Assignment | Timing | Examination | Inspection
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
    proposal: str = ""
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
        search_accuracy: the single score that made it a finalist; None where it was none.
        is_baseline: whether it is the space's default configuration.
        is_champion: whether it is the configuration of the model that production uses.
        gaps: training accuracy - validation accuracy of each run.
        recalls: of each class, mean over the runs; NaN where a class is missing.
        costs: of one of the runs' models; None where they were not measured.
    """

    config: TrialConfig
    accuracies: tuple[float, ...]
    trials: tuple[int, ...]
    parameters: int
    search_accuracy: float | None
    is_baseline: bool
    is_champion: bool = False
    gaps: tuple[float, ...] = ()
    recalls: tuple[float, ...] = ()
    costs: Costs | None = None

    @property
    def mean(self) -> float:
        """Mean validation accuracy over the runs; equal where equally many images are right."""
        return round(math.fsum(self.accuracies) / len(self.accuracies), 12)

    @property
    def gap(self) -> float:
        """Mean over the runs of training accuracy - validation accuracy; NaN if not known."""
        return math.fsum(self.gaps) / len(self.gaps) if self.gaps else math.nan

    @property
    def latency_ms(self) -> float:
        """Median for one image; NaN if not measured."""
        return self.costs.single.median_ms if self.costs else math.nan

    @property
    def lowest_recall(self) -> float:
        """Of the class that is found worst; NaN if not known."""
        known = [recall for recall in self.recalls if not math.isnan(recall)]
        return min(known, default=math.nan)


@dataclass(frozen=True, slots=True)
class Criteria:
    """How to choose among confirmed candidates.

    Attributes:
        policy: one of `settings.POLICIES`.
        tolerance: accuracy that may be given up, as a fraction: of smallest-gap, cheapest-within.
        cost: what cheapest-within makes least of: "parameters" or "latency".
        correction: which standard error is the margin of one-standard-error: "paired" (without what
            a candidate shares with the best on a seed) or "nadeau-bengio" (that of resampled
            splits).
        max_params: a candidate with more is ruled out, whatever the policy; None: no limit.
        max_latency_ms: likewise, of the median for one image.
        max_gap: likewise, of the mean gap between training and validation.
        min_class_recall: likewise, one that finds less of some class.
    """

    policy: str = "one-standard-error"
    tolerance: float = 0.005
    cost: str = "parameters"
    correction: str = "paired"
    max_params: int | None = None
    max_latency_ms: float | None = None
    max_gap: float | None = None
    min_class_recall: float | None = None


@dataclass(frozen=True, slots=True)
class Reasoned:
    """A candidate with its standard error and one sentence on why it was or was not chosen.

    Attributes:
        allowed: whether it meets all hard constraints.
    """

    candidate: Candidate
    standard_error: float
    reason: str
    allowed: bool = True


@dataclass(frozen=True, slots=True)
class Comparison:
    """The recommended candidate against one other, over their paired runs.

    Attributes:
        rival: "runner-up", "baseline" or "champion".
        difference: of the mean validation accuracies, the recommended one's less the rival's,
            with its 95% interval.
        better: probability that the recommended one is the better one.
        p_value: two-sided, of no difference.
        adjusted_p: Holm-corrected over the comparisons of a recommendation.
    """

    rival: str
    config_id: str
    difference: Interval
    better: float
    p_value: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The chosen candidate, the rule that chose it, and a sentence for each of the others.

    Attributes:
        ranked: all candidates, best mean first.
        chosen: the index of the recommended one in `ranked`.
        summary: the choice in one sentence, and in a second one from what the evidence does not
            separate it.
        criteria: by which it was chosen.
        comparisons: with the runner-up, the baseline and the champion, as far as there are such.
        unseparated: `config_id`s of the others that the evidence does not tell from the winner.
        optimism: by how much the score that the winner had in the search exceeds its confirmed
            mean; None where it was not found by the search.
        alternatives: the `config_id` that each policy would choose; those that cannot are missing.
        changes: sentences on what would change the decision.
        left_out: sentences on configurations whose confirmation is not complete.
    """

    ranked: tuple[Reasoned, ...]
    chosen: int
    summary: str
    criteria: Criteria
    comparisons: tuple[Comparison, ...] = ()
    unseparated: tuple[str, ...] = ()
    optimism: float | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def policy(self) -> str:
        """The rule that chose."""
        return self.criteria.policy

    @property
    def winner(self) -> Candidate:
        """The recommended candidate."""
        return self.ranked[self.chosen].candidate

    @property
    def surely_better(self) -> tuple[Candidate, ...]:
        """Those that meet the constraints and that the evidence puts above the winner."""
        above = (r.candidate for r in self.ranked if r.allowed)
        return tuple(
            c
            for c in above
            if c.mean > self.winner.mean and c.config.config_id not in self.unseparated
        )

    @property
    def baseline(self) -> Candidate:
        """The space's default configuration, confirmed like the others."""
        return next(r.candidate for r in self.ranked if r.candidate.is_baseline)


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Tested:
    """What one model does on the test split.

    Attributes:
        accuracy: Wilson interval.
        recalls: of each class, likewise; NaN where the class is missing from the test split.
    """

    accuracy: Interval
    measures: Measures
    recalls: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Contest:
    """The recommended model against another one, on the same test images.

    Attributes:
        rival: "baseline" or "champion".
        name: of the rival for people: its `config_id`, or its address in the registry.
        tested: the rival.
        difference: accuracy of the recommended model less the rival's; an adjusted Wald interval.
        only_recommended_right: images that only the recommended model classifies right.
        only_rival_right: and only the rival.
        p_value: exact McNemar test of equal accuracy, two-sided.
        adjusted_p: Holm-corrected over the contests of a verdict.
    """

    rival: str
    name: str
    tested: Tested
    difference: Interval
    only_recommended_right: int
    only_rival_right: int
    p_value: float
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the test split said, once, about the recommended model, the baseline and the champion.

    Attributes:
        tested: the recommended model.
        contests: with the baseline, unless that is recommended, and with the champion.
        images: size of the test split.
        openings: how often this test split has been opened so far, this opening included.
        speaks_for_it: whether it is a reason to promote the recommended model, or at least none
            against it.
        headline: what to do, in one short sentence.
        sentence: all of it for people.
    """

    tested: Tested
    contests: tuple[Contest, ...]
    images: int
    openings: int
    speaks_for_it: bool
    headline: str
    sentence: str

    def against(self, rival: str) -> Contest | None:
        """The contest with the "baseline" or the "champion", if there was one."""
        return next((c for c in self.contests if c.rival == rival), None)


class ModelVersion:
    """What has the name and the number of a version in MLflow's registry."""

    __slots__ = ()
    name: str
    version: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class StudyVersion(ModelVersion):
    """A model version and the study that it came from.

    Attributes:
        name: of the registered model.
        version: its number, as text; a store that was made anew gives it to another model.
        study: that it came from; "" where it was not registered by Podium.
    """

    name: str
    version: str
    study: str


@dataclass(frozen=True, slots=True)
class Champion(StudyVersion):
    """The model version that production uses.

    Attributes:
        config: what it was trained with; None where it was not registered by Podium.
        space: that of the study that it came from, as `SpaceSource.identity` has it.
        test_fingerprint: of the test split that it was judged on.
        model: its `.keras` file; None where it could not be read.
        trial: of the study, that trained it; None where that is not known.
        before: what the study that it came from was compared with, where that asks once more.
    """

    config: TrialConfig | None
    space: str
    test_fingerprint: str
    model: bytes | None
    trial: int | None = None
    before: Champion | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of a test split."""

    fingerprint: str
    study: str
    reason: str
    opened_ms: int
