"""The training loop: the same results as Keras would give, the same for a seed, no leaks."""

from __future__ import annotations

import gc
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.backend import keras, tf
from search.data import Split, TrainingData, load
from search.metrics import measure
from search.model import build_network, compiled_model, compiled_settings
from search.records import EpochReport, TrialFailed
from search.trainer import Program, Task, Trainer, TrainingRun
from search.transforms import Transform, fit_transform
from spaces.config import TrialConfig

SCALE = Transform(factor=1 / 16)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load("digits", None, seed=0).training


@pytest.fixture(scope="module")
def trainer(data: TrainingData) -> Trainer:
    return Trainer(data)


def _task(data: TrainingData, seed: int = 1, **config: object) -> Task:
    return Task(
        TrialConfig.model_validate({"hidden": (16,), "batch_size": 64, **config}),
        build_network,
        "test",
        (data.split(0),),
        seed,
        max_epochs=20,
    )


def _train(run: TrainingRun, epochs: int) -> list[EpochReport]:
    return [run.run_epoch() for _ in range(epochs)]


def _figures(reports: list[EpochReport]) -> list[tuple[float, ...]]:
    return [(r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy) for r in reports]


def test_the_same_seed_gives_the_same_figures(data: TrainingData) -> None:
    task = _task(data, dropout=0.3)
    first = _figures(_train(Trainer(data).start(task), 3))
    assert first == _figures(_train(Trainer(data).start(task), 3))


def test_another_seed_gives_other_figures(data: TrainingData, trainer: Trainer) -> None:
    first = _figures(_train(trainer.start(_task(data, seed=1)), 2))
    assert first != _figures(_train(trainer.start(_task(data, seed=2)), 2))


def test_reused_graphs_train_as_fresh_ones_do(data: TrainingData) -> None:
    trainer = Trainer(data)
    for optimizer in ("adam", "sgd"):
        task = _task(data, seed=7, dropout=0.2, optimizer=optimizer, learning_rate=0.01)
        _train(trainer.start(_task(data, seed=3, **task.config.model_dump())), 2)
        reused = _figures(_train(trainer.start(task), 3))
        assert reused == _figures(_train(Trainer(data).start(task), 3))


@pytest.mark.parametrize(
    "config",
    [
        {"optimizer": "adam"},
        {"optimizer": "rmsprop", "learning_rate": 0.01},
        {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "decay": 0.01},
        {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        {"optimizer": "rmsprop", "learning_rate": 0.01, "momentum": 0.5},
        {"optimizer": "adam", "learning_rate": 0.01, "decay": 0.5, "schedule": "inverse-time"},
        {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.5},
        {"optimizer": "adamw", "learning_rate": 0.01, "weight_decay": 0.0},
        {"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.5, "schedule": "cosine"},
        {"optimizer": "sgd", "learning_rate": 0.5, "schedule": "cosine"},
        {"optimizer": "sgd", "learning_rate": 0.1, "batch_normalization": True},
        # Not Adam: a bias before normalization has a gradient of mere rounding.
        {"optimizer": "sgd", "batch_normalization": True, "filters": (4,), "hidden": ()},
    ],
    ids=str,
)
def test_a_step_updates_as_keras_itself_would(
    data: TrainingData, config: dict[str, object]
) -> None:
    task = _task(data, **config)
    shape, classes = data.image_shape, len(data.classes)
    images = data.images[:64].astype(np.float32)
    labels = data.labels[:64]

    def fresh() -> keras.Model:
        return compiled_model(task.config, build_network, shape, classes, SCALE, seed=5, steps=4)

    ours = fresh()
    start = ours.get_weights()
    program = Program(ours, tf.constant(data.images), tf.constant(data.labels), 64)
    theirs = fresh()
    theirs.run_eagerly = True
    for epoch in range(3):
        program.train_epoch(tf.range(64), tf.constant([0, epoch]))
        theirs.train_on_batch(images, labels)
    for mine, keras_own in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=2e-4, atol=2e-6)
    assert not any(np.array_equal(*pair) for pair in zip(start, ours.get_weights(), strict=True))


def test_an_epoch_takes_every_image_once_the_last_batch_included(data: TrainingData) -> None:
    seen: list[int] = []

    class Recording(Program):
        def _step(self, positions: tf.Tensor) -> tf.Tensor:
            tf.py_function(lambda p: seen.extend(p.numpy().tolist()), [positions], [])
            return super()._step(positions)

    task = _task(data)
    model = compiled_model(
        task.config, build_network, data.image_shape, 10, SCALE, seed=1, steps=100
    )
    program = Recording(model, tf.constant(data.images), tf.constant(data.labels), 64)
    positions = tf.constant(task.splits[0].train[:150])
    program.train_epoch(positions, tf.constant([1, 1]))
    assert sorted(seen) == sorted(positions.numpy().tolist())
    first = list(seen)
    seen.clear()
    program.train_epoch(positions, tf.constant([1, 2]))
    assert seen != first


def test_validation_figures_are_those_of_keras(data: TrainingData, trainer: Trainer) -> None:
    task = _task(data, dropout=0.5)
    run = trainer.start(task)
    report = _train(run, 1)[0]
    images = data.images[task.splits[0].validation].astype(np.float32)
    loss, accuracy = run._model.evaluate(images, data.labels[task.splits[0].validation], verbose=0)
    assert report.val_loss == pytest.approx(loss, rel=1e-4)
    assert report.val_accuracy == pytest.approx(accuracy, abs=1e-6)


def test_more_images_than_one_evaluation_batch_are_all_evaluated(data: TrainingData) -> None:
    everything = np.arange(len(data.labels), dtype=np.int32)
    task = _task(data)
    model = compiled_model(
        task.config, build_network, data.image_shape, 10, SCALE, seed=1, steps=100
    )
    program = Program(model, tf.constant(data.images), tf.constant(data.labels), 64)
    sums, probabilities = program.predict(tf.constant(everything))
    expected = model.predict(data.images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(probabilities.numpy(), expected, atol=1e-5)
    assert float(sums[1]) == float((expected.argmax(axis=1) == data.labels).sum())


def test_totals_belong_to_the_best_epoch_and_training_goes_on_from_the_latest(
    data: TrainingData,
) -> None:
    task = _task(data, learning_rate=0.05)
    with_totals, without = Trainer(data).start(task), Trainer(data).start(task)
    reports = []
    for _ in range(6):
        reports.append(with_totals.run_epoch())
        totals = with_totals.totals()
    assert _figures(reports) == _figures(_train(without, 6))
    best = max(reports, key=lambda r: r.val_accuracy)
    assert (totals.best_epoch, totals.val_accuracy) == (best.epoch, best.val_accuracy)
    assert totals.gap == pytest.approx(totals.train_accuracy - totals.val_accuracy)
    assert totals.parameters == 64 * 16 + 16 + 16 * 10 + 10


def test_the_saved_model_is_the_best_epochs_and_takes_raw_images(
    data: TrainingData, tmp_path: Path
) -> None:
    task = _task(data, learning_rate=0.05)
    run = Trainer(data).start(task)
    reports = _train(run, 6)
    path = tmp_path / "model.keras"
    path.write_bytes(run.saved_model())
    loaded = keras.models.load_model(path, safe_mode=True)
    images = data.images[task.splits[0].validation].astype(np.float32)
    hits = (
        loaded.predict(images, verbose=0).argmax(axis=1) == data.labels[task.splits[0].validation]
    )
    assert hits.mean() == pytest.approx(max(r.val_accuracy for r in reports), abs=1e-6)


def test_a_loss_that_is_not_finite_fails_the_trial_and_names_the_epoch(
    data: TrainingData, trainer: Trainer
) -> None:
    run = trainer.start(_task(data, optimizer="sgd", learning_rate=100.0, hidden=(64, 64, 64)))
    with pytest.raises(TrialFailed, match="not finite after epoch"):
        _train(run, 20)


def test_convolutions_that_leave_nothing_of_the_image_fail_with_the_reason(
    data: TrainingData, trainer: Trainer
) -> None:
    with pytest.raises(TrialFailed, match="lower the conv depth"):
        trainer.start(_task(data, filters=(8, 8, 8), padding="valid"))


def _wrong_shape(config: TrialConfig, shape: tuple[int, int, int], classes: int) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))


def _no_model(config: TrialConfig, shape: tuple[int, int, int], classes: int) -> object:
    return 3


@pytest.mark.parametrize(
    ("build", "message"),
    [(_wrong_shape, "one probability per class"), (_no_model, "returned a int")],
)
def test_a_build_that_breaks_its_contract_fails_with_the_reason(
    data: TrainingData, trainer: Trainer, build: Callable[..., object], message: str
) -> None:
    task = _task(data)
    with pytest.raises(TrialFailed, match=message):
        trainer.start(Task(task.config, build, "own", task.splits, 0, 9))


def test_outputs_that_are_no_probabilities_fail(data: TrainingData, trainer: Trainer) -> None:
    def logits(config: TrialConfig, shape: tuple[int, int, int], classes: int) -> keras.Model:
        inputs = keras.Input(shape)
        outputs = keras.layers.Dense(classes, activation="sigmoid")
        return keras.Model(inputs, outputs(keras.layers.Flatten()(inputs)))

    task = _task(data)
    run = trainer.start(Task(task.config, logits, "logits", task.splits, 0, 9))
    run.run_epoch()
    with pytest.raises(TrialFailed, match="softmax"):
        run.totals()


def test_an_own_build_gets_pixels_between_0_and_1(data: TrainingData) -> None:
    shapes = []

    def own(config: TrialConfig, shape: tuple[int, int, int], classes: int) -> keras.Model:
        shapes.append((shape, classes, config.extra["width"]))
        inputs = keras.Input(shape)
        hidden = keras.layers.Dense(int(config.extra["width"]))(keras.layers.Flatten()(inputs))
        return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(hidden))

    config = TrialConfig(extra={"width": 5})
    model = compiled_model(config, own, data.image_shape, 10, SCALE, seed=0, steps=100)
    assert shapes == [((8, 8, 1), 10, 5)]
    scaled = model.get_layer("scale")(data.images.astype(np.float32)).numpy()
    assert (scaled.min(), scaled.max()) == (0.0, 1.0)


def test_compiled_settings_are_read_from_the_model_not_from_the_configuration(
    data: TrainingData,
) -> None:
    config = TrialConfig(optimizer="sgd", learning_rate=0.2, momentum=0.5, decay=0.25)
    model = compiled_model(config, build_network, data.image_shape, 10, SCALE, seed=0, steps=100)
    settings = compiled_settings(model)
    assert settings["class_name"] == "SGD"
    assert settings["momentum"] == 0.5
    assert settings["learning_rate.config.decay_rate"] == 0.25
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert compiled_settings(model)["learning_rate"] == pytest.approx(0.01)


def test_the_learning_rate_decays_with_every_step(data: TrainingData) -> None:
    config = TrialConfig(optimizer="sgd", learning_rate=0.2, decay=0.25)
    model = compiled_model(config, build_network, data.image_shape, 10, SCALE, seed=0, steps=100)
    program = Program(model, tf.constant(data.images), tf.constant(data.labels), 32)
    program.train_epoch(tf.range(96), tf.constant([0, 0]))
    assert float(model.optimizer.learning_rate) == pytest.approx(0.2 / (1 + 0.25 * 3))


def test_parameter_counts_are_the_published_ones() -> None:
    config = TrialConfig(hidden=(128, 128))
    model = compiled_model(config, build_network, (28, 28, 1), 10, SCALE, seed=0, steps=100)
    assert model.count_params() == 118_282
    cnn = TrialConfig(filters=(32, 32), hidden=(256,), padding="valid")
    deep = compiled_model(cnn, build_network, (28, 28, 1), 10, SCALE, seed=0, steps=100)
    assert deep.count_params() == 217_194


def test_graphs_of_past_trials_are_let_go(data: TrainingData) -> None:
    from tensorflow.python.framework.func_graph import FuncGraph

    trainer = Trainer(data)

    def graphs_after(trials: range) -> int:
        for number in trials:
            trainer.start(_task(data, hidden=(8 + number,))).run_epoch()
        gc.collect()
        return sum(isinstance(item, FuncGraph) for item in gc.get_objects())

    assert graphs_after(range(3, 8)) == graphs_after(range(3))


def test_a_split_uses_only_its_own_images(data: TrainingData, trainer: Trainer) -> None:
    split = data.split(0)
    small = Split(split.train[:100], split.validation[:50])
    task = _task(data)
    report = trainer.start(Task(task.config, build_network, "test", (small,), 1, 9)).run_epoch()
    assert (report.train_accuracy * 100) == pytest.approx(round(report.train_accuracy * 100))
    assert (report.val_accuracy * 50) == pytest.approx(round(report.val_accuracy * 50))


def _probabilities(content: bytes, images: NDArray[Any], folder: Path) -> NDArray[np.float32]:
    """What the model of a `.keras` file says of raw images."""
    path = folder / "model.keras"
    path.write_bytes(content)
    model = keras.models.load_model(path, safe_mode=True)
    return model(images.astype(np.float32)).numpy()


def test_a_cosine_schedule_falls_over_the_whole_training_to_zero(
    data: TrainingData, trainer: Trainer
) -> None:
    split = Split(data.split(0).train[:130], data.split(0).validation[:50])
    task = _task(data, optimizer="sgd", learning_rate=0.4, schedule="cosine")
    run = trainer.start(replace(task, splits=(split,), max_epochs=4))
    rates = [float(run._model.optimizer.learning_rate)]
    while not run.is_over:
        run.run_epoch()
        rates.append(float(run._model.optimizer.learning_rate))
    assert int(run._model.optimizer.iterations) == 3 * 4  # 130 images are 3 batches of 64
    expected = [0.2 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(5)]
    assert rates == pytest.approx(expected, abs=1e-7)
    assert rates[-1] < 1e-7


def test_graphs_of_another_number_of_epochs_are_not_reused_for_a_cosine(
    data: TrainingData, trainer: Trainer
) -> None:
    task = _task(data, optimizer="sgd", learning_rate=0.4, schedule="cosine")
    for epochs in (1, 2, 1):
        run = trainer.start(replace(task, max_epochs=epochs))
        while not run.is_over:
            run.run_epoch()
        assert float(run._model.optimizer.learning_rate) < 1e-7


def test_moving_statistics_of_normalization_are_kept_saved_and_used(
    data: TrainingData, tmp_path: Path
) -> None:
    task = _task(data, batch_normalization=True, learning_rate=0.01)
    run = Trainer(data).start(task)
    reports = _train(run, 3)
    best = max(reports, key=lambda r: r.val_accuracy)
    validation = task.splits[0].validation
    probabilities = _probabilities(run.saved_model(), data.images[validation], tmp_path)
    hits = probabilities.argmax(axis=1) == data.labels[validation]
    assert hits.mean() == pytest.approx(best.val_accuracy)
    assert best.val_accuracy > 0.8


@pytest.fixture(scope="module")
def small(data: TrainingData) -> Split:
    """So few images that figures go up and down from epoch to epoch."""
    split = data.split(0)
    return Split(split.train[:120], split.validation[:150])


RESTLESS: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0, "hidden": (12,)}
WATCHED = {
    "val_accuracy": 1,
    "val_loss": -1,
    "val_f1_macro": 1,
    "val_roc_auc_ovo": 1,
    "val_calibration_error": -1,
}
"""Monitored metrics, 1 where more is better; one of each kind, because each takes a second."""


@pytest.mark.parametrize(
    ("monitor", "restore_best"),
    [*((monitor, True) for monitor in WATCHED), ("val_loss", False), ("val_f1_macro", False)],
)
def test_patience_ends_after_so_many_epochs_without_a_new_best_and_the_asked_weights_are_kept(
    data: TrainingData, small: Split, tmp_path: Path, monitor: str, restore_best: bool
) -> None:
    config = {**RESTLESS, "monitor": monitor, "patience": 3, "restore_best": restore_best}
    task = replace(_task(data, **config), splits=(small,), max_epochs=60)
    run = Trainer(data).start(task)
    labels = data.labels[small.validation]
    reports, outputs, values = [], [], []
    while not run.is_over:
        reports.append(run.run_epoch())
        outputs.append(run._model(data.images[small.validation].astype(np.float32)).numpy())
        figures = {f"val_{k}": v for k, v in measure(labels, outputs[-1]).scalars.items()}
        values.append(WATCHED[monitor] * (figures | reports[-1].metrics)[monitor])
    best = max(range(len(values)), key=values.__getitem__)  # the first of several
    records = [e for e in range(len(values)) if values[e] > max(values[:e], default=-math.inf)]
    assert len(values) == best + 1 + 3 < 60
    assert all(later - earlier <= 3 for earlier, later in pairwise(records))
    kept = best if restore_best else len(values) - 1
    totals = run.totals()
    assert totals.best_epoch == kept + 1
    assert totals.val_accuracy == reports[kept].val_accuracy
    assert totals.val_loss == reports[kept].val_loss
    assert totals.measures.confusion == measure(labels, outputs[kept]).confusion
    saved = _probabilities(run.saved_model(), data.images[small.validation], tmp_path)
    np.testing.assert_allclose(saved, outputs[kept], atol=1e-5)
    accuracy = run._model(data.images[small.train].astype(np.float32)).numpy().argmax(axis=1)
    hits = accuracy == data.labels[small.train]
    assert totals.train_accuracy == pytest.approx(hits.mean())  # fewer than in validation: all


def test_the_epoch_that_is_kept_follows_the_monitored_metric_not_accuracy(
    data: TrainingData, small: Split
) -> None:
    best = set()
    for monitor in ("val_accuracy", "val_calibration_error"):
        task = _task(data, **RESTLESS, monitor=monitor)
        run = Trainer(data).start(replace(task, splits=(small,), max_epochs=12))
        _train(run, 12)
        best.add(run.totals().best_epoch)
    assert len(best) == 2


def test_a_monitored_metric_that_is_not_defined_fails_the_trial_with_the_reason(
    data: TrainingData, trainer: Trainer, small: Split
) -> None:
    without = small.validation[data.labels[small.validation] != 3]
    task = replace(_task(data, monitor="val_roc_auc_ovo"), splits=(Split(small.train, without),))
    with pytest.raises(TrialFailed, match="val_roc_auc_ovo is not defined"):
        trainer.start(task).run_epoch()


def test_without_patience_all_epochs_are_trained_however_bad(
    data: TrainingData, trainer: Trainer, small: Split
) -> None:
    run = trainer.start(replace(_task(data, **RESTLESS), splits=(small,), max_epochs=9))
    while not run.is_over:
        run.run_epoch()
    assert run.epoch == 9


FOLDED: dict[str, Any] = {
    "scale": "standardize",
    "pca_components": 12,
    "dropout": 0.3,
    "batch_normalization": True,
    "optimizer": "adamw",
    "learning_rate": 0.01,
}
EPOCHS = 3


def _followed(trainer: Trainer, task: Task) -> tuple[list[EpochReport], TrainingRun]:
    run = trainer.start(replace(task, max_epochs=EPOCHS))
    return _train(run, EPOCHS), run


def _alone(trainer: Trainer, task: Task, index: int) -> tuple[list[EpochReport], TrainingRun]:
    """Fold `index` of the task, trained as a task of its own."""
    seed = task.seed_of(index)
    return _followed(trainer, replace(task, splits=(task.splits[index],), seed=seed))


@pytest.fixture(scope="module")
def folded(data: TrainingData) -> Task:
    return replace(_task(data, **FOLDED, restore_best=False), splits=data.folds(3, seed=4), seed=21)


@pytest.fixture(scope="module")
def together(
    trainer: Trainer, folded: Task
) -> tuple[list[EpochReport], TrainingRun, list[NDArray[np.float32]]]:
    """Three folds as one task: the reports, the run, and the predictions of each fold."""
    reports, run = _followed(trainer, folded)
    return reports, run, [part.latest.probabilities for part in run._parts]


@pytest.fixture(scope="module")
def alone(trainer: Trainer, folded: Task) -> list[tuple[list[EpochReport], Any, Any]]:
    """Each of the folds for itself: reports, totals and predictions."""
    found = []
    for index in range(3):
        reports, run = _alone(trainer, folded, index)
        found.append((reports, run.totals(), run._parts[0].latest.probabilities))
    return found


def test_every_fold_trains_as_if_it_were_alone_with_its_seed(together: Any, alone: Any) -> None:
    reports, run, probabilities = together
    for found, (_, totals, expected) in zip(probabilities, alone, strict=True):
        assert np.array_equal(found, expected)
        assert totals.fold_accuracies == ()
    assert run.totals().fold_accuracies == tuple(totals.val_accuracy for _, totals, _ in alone)
    for epoch in range(EPOCHS):
        each = np.array([_figures(rows)[epoch] for rows, _, _ in alone])
        assert _figures(reports)[epoch] == pytest.approx(each.mean(axis=0))
        assert len(np.unique(each[:, 0])) == 3


def test_totals_over_folds_are_means_and_the_measures_those_of_all_predictions_together(
    data: TrainingData, folded: Task, together: Any, alone: Any
) -> None:
    _, run, probabilities = together
    totals = run.totals()
    for name in ("val_accuracy", "val_loss", "train_accuracy", "gap"):
        values = [getattr(single, name) for _, single, _ in alone]
        assert getattr(totals, name) == pytest.approx(statistics.fmean(values)), name
    labels = np.concatenate([data.labels[split.validation] for split in folded.splits])
    assert len(labels) == len(data.labels)
    assert totals.measures == measure(labels, np.concatenate(probabilities))
    assert sum(map(sum, totals.measures.confusion)) == len(data.labels)
    assert totals.parameters == alone[0][1].parameters
    deviation = np.std(totals.fold_accuracies, ddof=1)
    assert totals.fold_standard_error == pytest.approx(deviation / math.sqrt(3))
    assert alone[0][1].fold_standard_error is None


def test_the_figures_of_a_fold_do_not_depend_on_which_folds_train_beside_it(
    data: TrainingData, folded: Task, together: Any
) -> None:
    first, second, third = folded.splits
    _, run = _followed(Trainer(data), replace(folded, splits=(first, third, second)))
    found = [part.latest.probabilities for part in run._parts]
    assert np.array_equal(found[0], together[2][0])
    assert run.totals().fold_accuracies[0] == together[1].totals().fold_accuracies[0]


def test_measuring_folds_between_epochs_changes_nothing(
    trainer: Trainer, folded: Task, together: Any
) -> None:
    run = trainer.start(replace(folded, max_epochs=EPOCHS))
    for _ in range(EPOCHS):
        run.run_epoch()
        run.totals()
        run.snapshot()
    for part, expected in zip(run._parts, together[2], strict=True):
        assert np.array_equal(part.latest.probabilities, expected)


def test_with_folds_the_kept_epoch_is_the_best_one_of_the_mean_for_every_fold(
    data: TrainingData, tmp_path: Path
) -> None:
    task = _task(data, **RESTLESS)
    splits = tuple(Split(s.train[:100], s.validation[:80]) for s in data.folds(3, seed=1))
    run = Trainer(data).start(replace(task, splits=splits, max_epochs=6))
    reports, outputs = [], []
    for _ in range(6):
        reports.append(run.run_epoch())
        outputs.append([part.latest.probabilities for part in run._parts])
    best = max(range(6), key=lambda epoch: reports[epoch].val_accuracy)
    totals = run.totals()
    assert totals.best_epoch == best + 1 < 6
    assert totals.val_accuracy == pytest.approx(reports[best].val_accuracy)
    labels = np.concatenate([data.labels[split.validation] for split in splits])
    assert totals.measures == measure(labels, np.concatenate(outputs[best]))
    images = data.images[splits[0].validation]
    latest = _probabilities(run.snapshot(), images, tmp_path)
    np.testing.assert_allclose(latest, outputs[-1][0], atol=1e-5)  # of the first fold
    saved = _probabilities(run.saved_model(), images, tmp_path)
    np.testing.assert_allclose(saved, outputs[best][0], atol=1e-5)


@pytest.fixture(scope="module")
def glaring() -> TrainingData:
    """Half black images of which one is far brighter than all others."""
    random = np.random.default_rng(3)
    labels = (np.arange(90) % 3).astype(np.int32)
    images = random.integers(0, 60, (90, 4, 4, 1)).astype(np.uint8)
    images[np.arange(90), labels] += 40
    images[:, :, 2:] = 0
    images[7] = 255
    return TrainingData("glaring", images, labels, ("a", "b", "c"))


@pytest.mark.parametrize(
    "config",
    [
        {"scale": "max"},
        {"scale": "standardize"},
        {"scale": "255", "pca_variance": 0.93},
        {"scale": "none", "pca_components": 3, "schedule": "cosine", "batch_size": 67},
    ],
    ids=str,
)
def test_the_transform_of_a_fold_is_fitted_on_its_own_training_images(
    glaring: TrainingData, config: dict[str, Any]
) -> None:
    task = _task(glaring, **{"batch_size": 16, "hidden": (4,), **config})
    folds = glaring.folds(4, seed=0)
    task = replace(task, splits=folds)
    transforms = [
        fit_transform(task.config, glaring.images[f.train], glaring.labels[f.train]) for f in folds
    ]
    _, run = _followed(Trainer(glaring), task)
    apart = Trainer(glaring)
    for index, part in enumerate(run._parts):
        _, single = _alone(apart, task, index)
        assert np.array_equal(part.latest.probabilities, single._parts[0].latest.probabilities), (
            f"fold {index}"
        )
    shapes = {transform.graph_key for transform in transforms}
    assert (len(shapes) > 1) == (config["scale"] == "max" or "pca_variance" in config)


def test_graphs_that_folds_shared_serve_a_single_split_afterwards(
    trainer: Trainer, folded: Task, together: Any, alone: Any
) -> None:
    again = _alone(trainer, folded, 1)[0]
    assert _figures(again) == _figures(alone[1][0])


def test_a_task_without_splits_fails_with_the_reason(data: TrainingData, trainer: Trainer) -> None:
    with pytest.raises(TrialFailed, match="nothing to train on"):
        trainer.start(replace(_task(data), splits=()))


def test_fold_seeds_differ_and_stay_in_the_range_of_an_int32(data: TrainingData) -> None:
    task = replace(_task(data), seed=2**31 - 2)
    assert [task.seed_of(index) for index in range(4)] == [2**31 - 2, 2**31 - 1, 0, 1]


@pytest.mark.parametrize("folds", [1, 3], ids=["one split", "folds"])
@pytest.mark.parametrize(
    "values",
    [
        {"dropout": 0.3, "batch_normalization": True, "schedule": "cosine"},
        {"optimizer": "sgd", "momentum": 0.9, "patience": 3, "monitor": "val_f1_macro"},
        {"optimizer": "adamw", "input_dropout": 0.2, "restore_best": False},
    ],
)
def test_a_run_from_a_checkpoint_gives_what_the_uninterrupted_one_gives(
    data: TrainingData, folds: int, values: dict[str, Any]
) -> None:
    config = TrialConfig.model_validate({"hidden": (16, 8), **values})
    splits = data.folds(folds, 0) if folds > 1 else (data.split(0),)
    task = Task(config, build_network, "mlp", splits, 5, 7)

    def measured(run: TrainingRun, most: int) -> list[tuple[float, ...]]:
        rows = []
        while not run.is_over and run.epoch < most:
            r = run.run_epoch()
            rows.append((r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy))
        return rows

    whole = Trainer(data).start(task)
    expected = measured(whole, 7)
    first = Trainer(data).start(task)
    begun = measured(first, 3)
    second = Trainer(data).start(task)
    second.restore(first.checkpoint())
    np.testing.assert_allclose(begun + measured(second, 7), expected, rtol=1e-6)
    one, other = (replace(run.totals(), wall_seconds=0.0) for run in (whole, second))
    assert one == other


def test_a_checkpoint_of_another_trial_is_not_gone_on_from(data: TrainingData) -> None:
    """Of the same network, so that all its weights would fit."""
    split, rates = data.split(0), (0.5, 0.0001)
    tasks = [
        Task(TrialConfig(learning_rate=rate), build_network, "mlp", (split,), seed, 3)
        for rate, seed in zip((*rates, rates[1]), (1, 1, 2), strict=True)
    ]
    runs = [Trainer(data).start(task) for task in tasks]
    runs[0].run_epoch()
    for other in runs[1:]:
        with pytest.raises(TrialFailed, match="it is of another trial"):
            other.restore(runs[0].checkpoint())


def test_what_is_no_checkpoint_fails_the_trial(data: TrainingData) -> None:
    run = Trainer(data).start(Task(TrialConfig(), build_network, "mlp", (data.split(0),), 1, 2))
    for damaged in (b"", b"PK\x03\x04 torn", b"nothing of the kind"):
        with pytest.raises(TrialFailed, match="its checkpoint cannot be used"):
            run.restore(damaged)
