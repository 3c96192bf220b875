"""The training loop: the same results as Keras would give, the same for a seed, no leaks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from search.backend import keras, tf
from search.data import Split, TrainingData, load
from search.model import build_network, compiled_model, compiled_settings
from search.records import EpochReport, TrialFailed
from search.trainer import Program, Task, Trainer, TrainingRun
from search.transforms import Transform
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
        {"batch_normalization": True, "filters": (4,), "kernel_initializer": "he_normal"},
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
    model = compiled_model(task.config, build_network, data.image_shape, 10, SCALE, seed=1, steps=100)
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
    loss, accuracy = run._model.evaluate(
        images, data.labels[task.splits[0].validation], verbose=0
    )
    assert report.val_loss == pytest.approx(loss, rel=1e-4)
    assert report.val_accuracy == pytest.approx(accuracy, abs=1e-6)


def test_more_images_than_one_evaluation_batch_are_all_evaluated(data: TrainingData) -> None:
    everything = np.arange(len(data.labels), dtype=np.int32)
    task = _task(data)
    model = compiled_model(task.config, build_network, data.image_shape, 10, SCALE, seed=1, steps=100)
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
    hits = loaded.predict(images, verbose=0).argmax(axis=1) == data.labels[task.splits[0].validation]
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
