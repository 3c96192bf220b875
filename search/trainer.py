"""Trains one model: one graph call per epoch over data that is already a tensor."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import math
import statistics
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search import metrics
from search.arrays import Labels
from search.backend import keras, tf
from search.data import Split, TrainingData
from search.model import Build, compiled_model, compiled_settings, network_of
from search.records import EpochReport, TrialFailed, TrialTotals
from search.transforms import Transform, fit_transform
from spaces.config import Scalar, TrialConfig

EVALUATION_BATCH = 1000
CHECKPOINT_VERSION = 1
"""Raised by every change of what is in a checkpoint: those of other versions are of no use."""
CACHED_PROGRAMS = 2
CACHED_TRANSFORMS = 32
Probabilities = NDArray[np.float32]


def limit_resources(threads: int) -> None:
    """Keeps TensorFlow to `threads` threads for each operation, and to the GPU memory it needs.

    To be called before TensorFlow's first operation.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


class Program:
    """A compiled model with the graphs that train and evaluate it on one pool of images.

    The graphs take the positions of the images as arguments, so that they serve every split of
    the same sizes and every seed.
    """

    def __init__(
        self, model: keras.Model, images: tf.Tensor, labels: tf.Tensor, batch: int
    ) -> None:
        """Prepares the graphs; they are traced at their first call.

        Args:
            model: compiled; its optimizer's variables are made here.
            images: uint8 (n, h, w, c), the whole pool.
            labels: int32 (n,).
            batch: images per training step; the last step of an epoch takes what is left.
        """
        self.model = model
        model.optimizer.build(model.trainable_variables)
        self._images, self._labels, self._batch = images, labels, batch
        self._fresh_optimizer = [v.numpy() for v in model.optimizer.variables]
        self.train_epoch: Callable[..., Any] = tf.function(self._train_epoch)
        self.predict: Callable[..., Any] = tf.function(self._predict)

    def restart_from(self, model: keras.Model) -> None:
        """Takes over the fresh weights and seeds of `model`, of the same configuration."""
        fresh = [variable.numpy() for variable in model.variables]
        self.restore([*fresh, *self._fresh_optimizer])

    def state(self) -> list[NDArray[Any]]:
        """Weights, seeds and the optimizer's variables: all that training changes."""
        return [variable.numpy() for variable in self._variables]

    def restore(self, state: list[NDArray[Any]]) -> None:
        """Goes back to a `state`."""
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    @property
    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables]

    def _gather(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.cast(tf.gather(self._images, positions), tf.float32)
        return images, tf.gather(self._labels, positions)

    def _step(self, positions: tf.Tensor) -> tf.Tensor:
        images, labels = self._gather(positions)
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            probabilities = self.model(images, training=True)
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            loss = tf.reduce_mean(losses)
            if self.model.losses:  # regularizers and activity losses of a user's own build
                loss += tf.add_n(self.model.losses)
        self._update(tape.gradient(loss, [variable.value for variable in variables]))
        return _sums(labels, probabilities, losses)

    def _update(self, gradients: list[tf.Tensor | None]) -> None:
        # `optimizer.apply` sums gradients over replicas through a custom gradient that TensorFlow
        # registers for ever, and the whole graph with it: 8 MB for each trial.
        optimizer = self.model.optimizer
        rate, weight_decay = optimizer.learning_rate, optimizer.weight_decay
        if weight_decay:
            for variable in self.model.trainable_variables:
                variable.assign(variable - variable * weight_decay * rate)
        for gradient, variable in zip(gradients, self.model.trainable_variables, strict=True):
            if gradient is None:
                continue
            optimizer.update_step(gradient, variable, rate)
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        optimizer.iterations.assign_add(1)

    def _train_epoch(self, positions: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Trains on every position once, in an order that follows from `seed` (int32 (2,)).

        Returns float32 (2,): the sum of losses and the number of correct predictions.
        """
        order = tf.argsort(tf.random.stateless_uniform([positions.shape[0]], seed=seed))
        positions = tf.gather(positions, order)
        sums = tf.zeros(2)
        for start in tf.range(0, positions.shape[0], self._batch):
            sums += self._step(positions[start : start + self._batch])
        return sums

    def _predict(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluates without dropout: float32 (2,) sums as above and float32 (n, classes)."""
        batches = -(-positions.shape[0] // EVALUATION_BATCH)
        sums = tf.zeros(2)
        parts = tf.TensorArray(tf.float32, size=batches, infer_shape=False)
        for index in tf.range(batches):
            start = index * EVALUATION_BATCH
            images, labels = self._gather(positions[start : start + EVALUATION_BATCH])
            probabilities = self.model(images, training=False)
            losses = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
            sums += _sums(labels, probabilities, losses)
            parts = parts.write(index, probabilities)
        return sums, parts.concat()


def _sums(labels: tf.Tensor, probabilities: tf.Tensor, losses: tf.Tensor) -> tf.Tensor:
    hits = tf.equal(tf.argmax(probabilities, axis=1, output_type=tf.int32), labels)
    return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(hits, tf.float32))])


@dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
        build: makes the network of `config`.
        space: where `build` is from.
        splits: of the pool; with several, one network is trained on each, epoch by epoch.
        seed: of initialization, batch order and dropout.
        max_epochs: after which training ends, unless patience ends it before.
    """

    config: TrialConfig
    build: Build
    space: str
    splits: tuple[Split, ...]
    seed: int
    max_epochs: int

    def seed_of(self, index: int) -> int:
        """The seed on split `index`: one for all would let folds share its luck."""
        return (self.seed + index) % 2**31

    def steps_on(self, split: Split) -> int:
        """Of training in all, unless patience ends it before."""
        return -(-len(split.train) // self.config.batch_size) * self.max_epochs


class Trainer:
    """Trains one task after another on one pool of images that stays in memory."""

    def __init__(self, data: TrainingData) -> None:
        """Puts the pool into tensors, once for all tasks."""
        self._data = data
        self._images = tf.constant(data.images)
        self._labels = tf.constant(data.labels)
        self._programs: OrderedDict[Hashable, Program] = OrderedDict()
        self._transforms: OrderedDict[Hashable, Transform] = OrderedDict()

    def start(self, task: Task) -> TrainingRun:
        """Builds and compiles the task's model, or reuses the graphs of an equal configuration.

        Raises:
            TrialFailed: the configuration does not make a network for these images.
        """
        started = time.perf_counter()
        if not task.splits:
            raise TrialFailed("there is nothing to train on.")
        transforms = [self._transform(task.config, split) for split in task.splits]
        steps = [task.steps_on(split) for split in task.splits]
        # Folds may differ in what graphs depend on: their largest pixel, or their components.
        cosine = task.config.schedule == "cosine"
        keys: list[Hashable] = [
            (task.space, task.config.config_id, count if cosine else None, transform.graph_key)
            for count, transform in zip(steps, transforms, strict=True)
        ]
        programs = {key: self._programs.pop(key) for key in set(keys) & set(self._programs)}
        while len(self._programs) >= CACHED_PROGRAMS:
            self._programs.popitem(last=False)
        _release_memory()
        parts = []
        for index, (key, split) in enumerate(zip(keys, task.splits, strict=True)):
            model = self._model(task, transforms[index], steps[index], task.seed_of(index))
            if key in programs:
                programs[key].restart_from(model)
            else:
                batch = task.config.batch_size
                programs[key] = Program(model, self._images, self._labels, batch)
            parts.append(_Part(programs[key], split, self._data.labels[split.validation]))
        self._programs.update(programs)
        return TrainingRun(task, parts, started)

    def _model(self, task: Task, transform: Transform, steps: int, seed: int) -> keras.Model:
        shape, classes = self._data.image_shape, len(self._data.classes)
        return compiled_model(task.config, task.build, shape, classes, transform, seed, steps)

    def _transform(self, config: TrialConfig, split: Split) -> Transform:
        settings = (config.scale, config.l2_axis, *config.reduction)
        key = (settings, split.train.tobytes())
        if key not in self._transforms:
            while len(self._transforms) >= CACHED_TRANSFORMS:
                self._transforms.popitem(last=False)
            data = self._data
            self._transforms[key] = fit_transform(
                config, data.images[split.train], data.labels[split.train]
            )
        self._transforms.move_to_end(key)
        return self._transforms[key]


@dataclass(frozen=True)
class _Validated:
    probabilities: Probabilities
    loss: float
    accuracy: float


class _Part:
    """One split of a task, with what is kept of the network that trains on it."""

    def __init__(self, program: Program, split: Split, val_labels: Labels) -> None:
        self.program, self.state = program, program.state()
        self.train = tf.constant(split.train)
        self.validation = tf.constant(split.validation)
        self.val_labels = val_labels
        self.latest = self.kept = _Validated(np.empty((0, 0), np.float32), math.nan, math.nan)
        self.kept_weights: list[NDArray[Any]] = []


class TrainingRun:
    """One model in training, or one for each fold. Keeps the weights of its best epoch."""

    def __init__(self, task: Task, parts: Sequence[_Part], started: float) -> None:
        """Takes the programs of the parts over; `started` is in seconds of `time.perf_counter`."""
        self._task, self._parts, self._started = task, parts, started
        self._best: tuple[float, EpochReport] | None = None
        self.epoch = 0

    @property
    def compiled(self) -> dict[str, Scalar]:
        """The optimizer's settings as read back from the compiled model."""
        return compiled_settings(self._model)

    @property
    def _identity(self) -> list[str | int]:
        """What no run may go on with the weights of another in."""
        return [self._task.config.config_id, self._task.seed]

    @property
    def _model(self) -> keras.Model:
        return self._parts[0].program.model

    @property
    def is_over(self) -> bool:
        """Whether the last epoch was trained, or patience has ended."""
        patience, best = self._task.config.patience, self._best
        if patience is not None and best is not None and self.epoch - best[1].epoch >= patience:
            return True
        return self.epoch >= self._task.max_epochs

    def run_epoch(self) -> EpochReport:
        """Trains one epoch and measures it on the validation split, or splits.

        Raises:
            TrialFailed: the loss is not finite any more.
        """
        began = time.perf_counter()
        self.epoch += 1
        train_seconds, rows = 0.0, []
        for index, part in enumerate(self._parts):
            seconds, figures = self._run_part(part, index)
            train_seconds += seconds
            rows.append(figures)
        train_loss, train_accuracy, val_loss, val_accuracy = map(float, np.mean(rows, axis=0))
        examples = sum(part.train.shape[0] for part in self._parts)
        report = EpochReport(
            epoch=self.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            epoch_seconds=time.perf_counter() - began,
            examples_per_second=examples / train_seconds,
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        if not report.is_finite:
            raise TrialFailed(
                f"the loss is not finite after epoch {self.epoch} (train {train_loss}, "
                f"validation {val_loss}); a lower learning rate may help."
            )
        self._keep_if_best(report)
        return report

    def _run_part(self, part: _Part, index: int) -> tuple[float, tuple[float, ...]]:
        """Trains and validates one epoch on one split; also leaves its state in the program."""
        program, began = part.program, time.perf_counter()
        self._enter(part)
        seed = tf.constant([self._task.seed_of(index), self.epoch], tf.int32)
        sums = program.train_epoch(part.train, seed)
        trained = _means(sums, part.train.shape[0])
        seconds = time.perf_counter() - began
        sums, probabilities = program.predict(part.validation)
        validated = _means(sums, part.validation.shape[0])
        part.latest = _Validated(probabilities.numpy(), *validated)
        if len(self._parts) > 1:
            part.state = program.state()
        return seconds, (*trained, *validated)

    def _enter(self, part: _Part) -> None:
        if len(self._parts) > 1:
            part.program.restore(part.state)

    def _keep_if_best(self, report: EpochReport) -> None:
        config = self._task.config
        value = self._monitored(report)
        if math.isnan(value):
            raise TrialFailed(
                f"{config.monitor} is not defined where a class is missing from the validation "
                "images: monitor something else, or hold more images out."
            )
        if config.monitor.endswith(("loss", "error")):
            value = -value
        better = self._best is None or value > self._best[0]
        if better:
            self._best = value, report
        if better or not config.restore_best:
            for part in self._parts:
                part.kept = part.latest
        if better and config.restore_best:
            for part in self._parts:
                self._enter(part)
                part.kept_weights = part.program.model.get_weights()

    def _monitored(self, report: EpochReport) -> float:
        monitor = self._task.config.monitor
        if monitor in report.metrics:
            return report.metrics[monitor]
        labels = np.concatenate([part.val_labels for part in self._parts])
        probabilities = np.concatenate([part.latest.probabilities for part in self._parts])
        return metrics.named(monitor.removeprefix("val_"), labels, probabilities)

    def totals(self) -> TrialTotals:
        """Measures the epoch whose weights are kept, then goes on from the latest.

        Raises:
            TrialFailed: the network's outputs are not probabilities.
        """
        parts = self._parts
        if self._best is None:
            raise TrialFailed("no epoch was trained.")
        labels = np.concatenate([part.val_labels for part in parts])
        probabilities = np.concatenate([part.kept.probabilities for part in parts])
        if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
            raise TrialFailed("build() does not end in probabilities: expected a softmax output.")
        train_accuracy = statistics.fmean(self._train_accuracy(part) for part in parts)
        val_accuracy = statistics.fmean(part.kept.accuracy for part in parts)
        restored = self._task.config.restore_best
        return TrialTotals(
            best_epoch=self._best[1].epoch if restored else self.epoch,
            parameters=network_of(self._model).count_params(),
            val_loss=statistics.fmean(part.kept.loss for part in parts),
            val_accuracy=val_accuracy,
            train_accuracy=train_accuracy,
            gap=train_accuracy - val_accuracy,
            wall_seconds=time.perf_counter() - self._started,
            measures=metrics.measure(labels, probabilities),
            fold_accuracies=tuple(p.kept.accuracy for p in parts) if len(parts) > 1 else (),
        )

    def _train_accuracy(self, part: _Part) -> float:
        """With the weights that are kept, on as many images as there are in validation.

        Enough for the gap, at the same price.
        """
        program = part.program
        self._enter(part)
        latest = program.model.get_weights() if part.kept_weights else None
        if part.kept_weights:
            program.model.set_weights(part.kept_weights)
        sample = part.train[: part.validation.shape[0]]
        _, accuracy = _means(program.predict(sample)[0], sample.shape[0])
        if latest is not None:
            program.model.set_weights(latest)
        return accuracy

    def checkpoint(self) -> bytes:
        """All that the run needs to go on elsewhere as if nothing had happened, as an npz file."""
        arrays: dict[str, Any] = {}
        scalars: dict[str, Any] = {
            "version": CHECKPOINT_VERSION,
            "task": self._identity,
            "epoch": self.epoch,
            "best": None if self._best is None else [self._best[0], asdict(self._best[1])],
            "wall_seconds": time.perf_counter() - self._started,
            "parts": [],
        }
        for index, part in enumerate(self._parts):
            state = part.state if len(self._parts) > 1 else part.program.state()
            lists = {"state": state, "weights": part.kept_weights}
            for name, values in lists.items():
                arrays |= {f"{index}.{name}.{i}": value for i, value in enumerate(values)}
            arrays[f"{index}.latest"] = part.latest.probabilities
            arrays[f"{index}.kept"] = part.kept.probabilities
            measured = {
                name: [validated.loss, validated.accuracy]
                for name, validated in (("latest", part.latest), ("kept", part.kept))
            }
            scalars["parts"].append(
                {**measured, "counts": {name: len(values) for name, values in lists.items()}}
            )
        buffer = io.BytesIO()
        np.savez(buffer, scalars=np.array(json.dumps(scalars)), **arrays)
        return buffer.getvalue()

    def restore(self, checkpoint: bytes) -> None:
        """Goes on from a `checkpoint` of a run of the same task.

        Raises:
            TrialFailed: it is not one, or one of another version; the run cannot be used any more.
        """
        try:
            self._restore(checkpoint)
        except Exception as error:
            raise TrialFailed(f"its checkpoint cannot be used: {error}.") from error

    def _restore(self, checkpoint: bytes) -> None:
        with np.load(io.BytesIO(checkpoint), allow_pickle=False) as arrays:
            scalars = json.loads(str(arrays["scalars"]))
            if scalars.get("version") != CHECKPOINT_VERSION:
                raise ValueError(f"its version is {scalars.get('version')!r}")
            if scalars.get("task", self._identity) != self._identity:
                raise ValueError("it is of another trial")
            for index, (part, kept) in enumerate(zip(self._parts, scalars["parts"], strict=True)):
                lists = {
                    name: [arrays[f"{index}.{name}.{i}"] for i in range(count)]
                    for name, count in kept["counts"].items()
                }
                part.state, part.kept_weights = lists["state"], lists["weights"]
                part.latest = _Validated(arrays[f"{index}.latest"], *kept["latest"])
                part.kept = _Validated(arrays[f"{index}.kept"], *kept["kept"])
                part.program.restore(part.state)
        self.epoch = scalars["epoch"]
        if scalars["best"] is not None:
            value, report = scalars["best"]
            self._best = value, EpochReport(**report)
        self._started = time.perf_counter() - scalars["wall_seconds"]

    def snapshot(self) -> bytes:
        """The `.keras` file of the latest epoch, without the optimizer's state.

        With folds, that of the first one.

        Raises:
            TrialFailed: the model cannot be loaded from it again.
        """
        self._enter(self._parts[0])
        return self._saved()

    def saved_model(self) -> bytes:
        """The `.keras` file of the weights that are kept, without the optimizer's state.

        With folds, that of the first one. To be called when training is over.

        Raises:
            TrialFailed: the model cannot be loaded from it again.
        """
        part = self._parts[0]
        self._enter(part)
        if part.kept_weights:
            part.program.model.set_weights(part.kept_weights)
        return self._saved()

    def _saved(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            try:
                self._model.save(path, include_optimizer=False)
                keras.models.load_model(path, compile=False, safe_mode=True)
            except Exception as error:
                raise TrialFailed(
                    "build() makes a model that cannot be loaded again without its code "
                    f"({' '.join(str(error).split())[:200]}); own activation functions do that."
                ) from error
            return path.read_bytes()


def _release_memory() -> None:
    # Models and graphs refer to each other in circles, which only the collector breaks; what it
    # frees, the C library keeps unless it is asked to give it back.
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def _means(sums: tf.Tensor, count: int) -> tuple[float, float]:
    loss, hits = (float(value) for value in sums.numpy())
    return loss / count, hits / count
