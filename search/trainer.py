"""Trains one model: one graph call per epoch over data that is already a tensor."""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search import metrics
from search.backend import keras, tf
from search.data import Split, TrainingData
from search.model import Build, compiled_model, compiled_settings
from search.records import EpochReport, TrialFailed, TrialTotals
from spaces.config import Scalar, TrialConfig

EVALUATION_BATCH = 1000
CACHED_PROGRAMS = 2
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
        for mine, theirs in zip(self.model.variables, model.variables, strict=True):
            mine.assign(theirs)
        for variable, value in zip(
            self.model.optimizer.variables, self._fresh_optimizer, strict=True
        ):
            variable.assign(value)

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
        rate = optimizer.learning_rate
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
    """What to train: configuration, its network, split of the pool, and seed."""

    config: TrialConfig
    build: Build
    space: str
    split: Split
    seed: int


class Trainer:
    """Trains one task after another on one pool of images that stays in memory."""

    def __init__(self, data: TrainingData) -> None:
        """Puts the pool into tensors, once for all tasks."""
        self._data = data
        self._images = tf.constant(data.images)
        self._labels = tf.constant(data.labels)
        self._programs: OrderedDict[tuple[str, str], Program] = OrderedDict()

    def start(self, task: Task) -> TrainingRun:
        """Builds and compiles the task's model, or reuses the graphs of an equal configuration.

        Raises:
            TrialFailed: the configuration does not make a network for these images.
        """
        started = time.perf_counter()
        data = self._data
        key = (task.space, task.config.config_id)
        program = self._programs.pop(key, None)
        while len(self._programs) >= CACHED_PROGRAMS:
            self._programs.popitem(last=False)
        _release_memory()
        model = compiled_model(
            task.config, task.build, data.image_shape, len(data.classes), data.pixel_max, task.seed
        )
        if program is None:
            program = Program(model, self._images, self._labels, task.config.batch_size)
        else:
            program.restart_from(model)
        self._programs[key] = program
        return TrainingRun(program, task, data.labels, started)


class TrainingRun:
    """One model in training. Knows its best epoch and keeps the weights of that epoch."""

    def __init__(
        self, program: Program, task: Task, labels: NDArray[np.int32], started: float
    ) -> None:
        """Takes a program with fresh weights; `started` is in seconds of `time.perf_counter`."""
        self._program = program
        self._task = task
        self._started = started
        self._train = tf.constant(task.split.train)
        self._validation = tf.constant(task.split.validation)
        self._val_labels = labels[task.split.validation]
        self._best: EpochReport | None = None
        self._best_weights: list[NDArray[Any]] = []
        self._best_probabilities: Probabilities = np.empty((0, 0), np.float32)
        self.epoch = 0

    @property
    def compiled(self) -> dict[str, Scalar]:
        """The optimizer's settings as read back from the compiled model."""
        return compiled_settings(self._program.model)

    def run_epoch(self) -> EpochReport:
        """Trains one epoch and measures it on the validation split.

        Raises:
            TrialFailed: the loss is not finite any more.
        """
        began = time.perf_counter()
        self.epoch += 1
        seed = tf.constant([self._task.seed, self.epoch], tf.int32)
        train_loss, train_accuracy = _means(
            self._program.train_epoch(self._train, seed), self._train.shape[0]
        )
        trained = time.perf_counter()
        sums, probabilities = self._program.predict(self._validation)
        val_loss, val_accuracy = _means(sums, self._validation.shape[0])
        report = EpochReport(
            epoch=self.epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            epoch_seconds=time.perf_counter() - began,
            examples_per_second=self._train.shape[0] / (trained - began),
            timestamp_ms=time.time_ns() // 1_000_000,
        )
        if not report.is_finite:
            raise TrialFailed(
                f"the loss is not finite after epoch {self.epoch} (train {train_loss}, "
                f"validation {val_loss}); a lower learning rate may help."
            )
        if self._best is None or val_accuracy > self._best.val_accuracy:
            self._best = report
            self._best_weights = self._program.model.get_weights()
            self._best_probabilities = probabilities.numpy()
        return report

    def totals(self) -> TrialTotals:
        """Measures the best epoch so far, then goes on from the latest.

        Raises:
            TrialFailed: the network's outputs are not probabilities.
        """
        best, probabilities = self._best, self._best_probabilities
        if best is None:
            raise TrialFailed("no epoch was trained.")
        if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):
            raise TrialFailed("build() does not end in probabilities: expected a softmax output.")
        model = self._program.model
        latest = model.get_weights() if best.epoch != self.epoch else None
        if latest is not None:
            model.set_weights(self._best_weights)
        # As many training images as validation images: enough for the gap, at the same price.
        sample = self._train[: self._validation.shape[0]]
        sums, _ = self._program.predict(sample)
        _, train_accuracy = _means(sums, sample.shape[0])
        if latest is not None:
            model.set_weights(latest)
        return TrialTotals(
            best_epoch=best.epoch,
            parameters=model.count_params(),
            val_loss=best.val_loss,
            val_accuracy=best.val_accuracy,
            train_accuracy=train_accuracy,
            gap=train_accuracy - best.val_accuracy,
            f1_macro=metrics.f1_macro(self._val_labels, probabilities),
            roc_auc_ovo=metrics.roc_auc_ovo(self._val_labels, probabilities),
            wall_seconds=time.perf_counter() - self._started,
        )

    def saved_model(self) -> bytes:
        """The `.keras` file of the best epoch, without the optimizer's state.

        Raises:
            TrialFailed: the model cannot be loaded from it again.
        """
        self._program.model.set_weights(self._best_weights)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            self._program.model.save(path, include_optimizer=False)
            try:
                keras.models.load_model(path, compile=False, safe_mode=True)
            except Exception as error:
                raise TrialFailed(
                    "build() makes a model that cannot be loaded again without its code "
                    f"({' '.join(str(error).split())[:200]}); Lambda layers and own layer classes "
                    "do that."
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
