"""What is seen inside a model is what the model does, computed again by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search import inspection
from search.backend import keras
from search.data import TrainingData, load
from search.inspection import inspect
from search.model import Build, build_network, network_of
from search.records import Inspected, Inspection
from search.trainer import Task, Trainer
from search.transforms import important_pixels
from spaces.config import TrialConfig

SEED = 4
Array = NDArray[np.float32]


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load("digits", None, seed=0).training


@pytest.fixture(scope="module")
def train(data: TrainingData) -> Callable[..., bytes]:
    """Makes the model file of a configuration, trained for one epoch."""
    trainer, made = Trainer(data), {}

    def make(build: Build = build_network, **fields: Any) -> bytes:
        config = TrialConfig.model_validate({"hidden": (16, 8), "batch_size": 128, **fields})
        key = (config, build.__name__)
        if key not in made:
            task = Task(config, build, build.__name__, (data.split(SEED),), 1, max_epochs=1)
            run = trainer.start(task)
            run.run_epoch()
            made[key] = run.saved_model()
        return made[key]

    return make


def _loaded(model: bytes, tmp_path: Path) -> keras.Model:
    path = tmp_path / "model.keras"
    path.write_bytes(model)
    return keras.models.load_model(path)


def _dense(model: keras.Model) -> list[tuple[Array, Array]]:
    """Weights and biases of the network's dense layers, the last one's included."""
    layers = network_of(model).layers
    return [x.get_weights() for x in layers if isinstance(x, keras.layers.Dense)]


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _pixels(data: TrainingData, seen: Inspected) -> Array:
    """What a network sees of the images that activations were recorded for."""
    images = data.images[seen.positions].astype(np.float32)
    return images.reshape(len(images), -1) / data.images[seen.train].max()


def test_probabilities_are_those_that_the_model_predicts(
    data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(dropout=0.4, input_dropout=0.2)
    seen = inspect(Inspection(model, SEED), data)
    split, loaded = data.split(SEED), _loaded(model, tmp_path)
    np.testing.assert_array_equal(seen.train, split.train)
    np.testing.assert_array_equal(seen.validation, split.validation)
    for positions, found in (
        (split.train, seen.train_probabilities),
        (split.validation, seen.val_probabilities),
    ):
        expected = loaded.predict(data.images[positions].astype(np.float32), verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert found.dtype == np.float32


def test_activations_are_what_the_hidden_layers_answer_without_dropout(
    data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(dropout=0.4, input_dropout=0.2)
    seen = inspect(Inspection(model, SEED), data)
    outputs = _pixels(data, seen)
    assert list(seen.activations) == ["hidden 1", "hidden 2"]
    for found, (weights, biases) in zip(
        seen.activations.values(), _dense(_loaded(model, tmp_path)), strict=False
    ):
        outputs = np.maximum(outputs @ weights + biases, 0)
        np.testing.assert_allclose(found, outputs, atol=1e-4)
        assert found.dtype == np.float32


def test_activations_are_taken_after_normalization_and_activation(
    data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(batch_normalization=True, activation="tanh", hidden=(8, 4))
    seen = inspect(Inspection(model, SEED), data)
    layers = network_of(_loaded(model, tmp_path)).layers
    normalized = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
    outputs = _pixels(data, seen)
    for found, (weights, biases), layer in zip(
        seen.activations.values(), _dense(_loaded(model, tmp_path)), normalized, strict=False
    ):
        gamma, beta, mean, variance = layer.get_weights()
        sums = outputs @ weights + biases
        outputs = np.tanh(gamma * (sums - mean) / np.sqrt(variance + layer.epsilon) + beta)
        np.testing.assert_allclose(found, outputs, atol=1e-4)
    assert len(normalized) == len(seen.activations) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"filters": (4, 4), "hidden": (6,)},
        {"pca_components": 5, "hidden": (6,)},
        {"forest_pixels": 7, "hidden": (6,)},
        {"scale": "standardize", "hidden": (6,)},
        {"scale": "none", "hidden": (6,)},
        {"scale": "l2", "l2_axis": 1, "hidden": (6,)},
    ],
    ids=str,
)
def test_the_last_hidden_layer_leads_to_the_probabilities(
    fields: dict[str, Any], data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(**fields)
    seen = inspect(Inspection(model, SEED, activation_images=len(data.labels)), data)
    *_, last = seen.activations.values()
    weights, biases = _dense(_loaded(model, tmp_path))[-1]
    expected = np.concatenate([seen.val_probabilities, seen.train_probabilities])
    np.testing.assert_allclose(_softmax(last @ weights + biases), expected, atol=1e-5)


def test_a_reduction_is_no_hidden_layer(
    data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(pca_components=5, hidden=(6,))
    seen = inspect(Inspection(model, SEED), data)
    loaded = _loaded(model, tmp_path)
    projection, shift = loaded.get_layer("reduce").get_weights()
    (weights, biases), _ = _dense(loaded)
    outputs = np.maximum((_pixels(data, seen) @ projection + shift) @ weights + biases, 0)
    assert list(seen.activations) == ["hidden 1"]
    np.testing.assert_allclose(seen.activations["hidden 1"], outputs, atol=1e-4)


def test_pixels_that_a_model_was_left_with_are_named_and_a_mixture_names_none(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    job = Inspection(train(forest_pixels=7, hidden=(6,)), SEED)
    images = data.images[data.split(SEED).train]
    pixels = images.reshape(len(images), -1).astype(np.float32) / images.max()
    expected = important_pixels(pixels, data.labels[data.split(SEED).train], 7)
    assert inspect(job, data).chosen_pixels == tuple(expected.tolist())
    for fields in ({"pca_components": 5, "hidden": (6,)}, {}):
        assert inspect(Inspection(train(**fields), SEED), data).chosen_pixels == ()


def test_a_model_without_hidden_layers_has_no_activations(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    seen = inspect(Inspection(train(hidden=()), SEED), data)
    assert seen.activations == {}
    assert seen.val_probabilities.shape == (len(seen.validation), 10)
    assert len(seen.positions)


@pytest.mark.parametrize("count", [1, 50, 288, 300, 10_000])
def test_activations_are_of_validation_images_first_and_of_no_more_than_asked_for(
    count: int, data: TrainingData, train: Callable[..., bytes]
) -> None:
    seen = inspect(Inspection(train(), SEED, activation_images=count), data)
    split = data.split(SEED)
    expected = np.concatenate([split.validation, split.train])[:count]
    np.testing.assert_array_equal(seen.positions, expected)
    assert {len(found) for found in seen.activations.values()} == {len(expected)}


def test_a_wide_layer_is_recorded_for_fewer_images(
    data: TrainingData, train: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MAX_ACTIVATIONS", 10 * 16 + 3)
    seen = inspect(Inspection(train(), SEED), data)
    assert {len(found) for found in seen.activations.values()} == {10}
    np.testing.assert_array_equal(seen.positions, data.split(SEED).validation[:10])
    monkeypatch.setattr(inspection, "MAX_ACTIVATIONS", 3)
    assert len(inspect(Inspection(train(), SEED), data).positions) == 1


def test_batches_change_nothing(
    data: TrainingData, train: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspect(Inspection(train(), SEED, activation_images=200), data)
    monkeypatch.setattr(inspection, "BATCH", 64)
    parts = inspect(Inspection(train(), SEED, activation_images=200), data)
    np.testing.assert_allclose(parts.val_probabilities, whole.val_probabilities, atol=1e-6)
    np.testing.assert_allclose(parts.train_probabilities, whole.train_probabilities, atol=1e-6)
    for name, found in whole.activations.items():
        np.testing.assert_allclose(parts.activations[name], found, atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"folds": 3}, {"validation_fraction": 0.05}, {"tail": True, "validation_fraction": 0.1}],
    ids=str,
)
def test_a_model_is_looked_into_on_the_images_of_its_own_trial(
    fields: dict[str, Any], data: TrainingData, train: Callable[..., bytes]
) -> None:
    job = Inspection(train(), SEED, **fields)
    seen = inspect(job, data)
    split = data.splits_for(job)[0]
    np.testing.assert_array_equal(seen.train, split.train)
    np.testing.assert_array_equal(seen.validation, split.validation)
    assert len(seen.val_probabilities) == len(split.validation)


def test_layers_are_listed_from_pixels_to_probabilities_with_their_parameters(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    seen = inspect(Inspection(train(dropout=0.4, input_dropout=0.2), SEED), data)
    found = [(x.kind, x.output_shape, x.parameters, x.detail) for x in seen.layers]
    assert found == [
        ("InputLayer", (None, 8, 8, 1), 0, ""),
        ("Rescaling", (None, 8, 8, 1), 0, ""),
        ("Flatten", (None, 64), 0, ""),
        ("Dropout", (None, 64), 0, "0.2"),
        ("Dense", (None, 16), 64 * 16 + 16, "16 relu"),
        ("Dropout", (None, 16), 0, "0.4"),
        ("Dense", (None, 8), 16 * 8 + 8, "8 relu"),
        ("Dropout", (None, 8), 0, "0.4"),
        ("Dense", (None, 10), 8 * 10 + 10, "10 softmax"),
    ]
    assert len({x.name for x in seen.layers}) == len(seen.layers)


def test_layers_of_a_convolution_say_filters_kernel_and_pool(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    seen = inspect(Inspection(train(filters=(4, 4), hidden=(6,)), SEED), data)
    convolution, pooling = seen.layers[2:4]
    assert (convolution.kind, convolution.output_shape) == ("Conv2D", (None, 8, 8, 4))
    assert (convolution.parameters, convolution.detail) == (4 * 9 + 4, "4 (3, 3) relu")
    assert (pooling.kind, pooling.output_shape) == ("MaxPooling2D", (None, 4, 4, 4))
    assert (pooling.parameters, pooling.detail) == (0, "(2, 2)")


def test_layers_that_are_fitted_and_not_trained_say_so(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    seen = inspect(Inspection(train(pca_components=5, hidden=(6,)), SEED), data)
    [reduce] = [x for x in seen.layers if x.name == "reduce"]
    assert (reduce.parameters, reduce.detail) == (64 * 5 + 5, "5 not trained")
    assert not any("not trained" in x.detail for x in seen.layers if x is not reduce)


def _sequential(config: TrialConfig, shape: tuple[int, ...], classes: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Flatten(),
            layers.Dense(5),
            layers.Activation("tanh"),
            layers.Dense(classes, activation="softmax"),
        ]
    )


def test_a_network_that_a_user_built_is_looked_into_as_well(
    data: TrainingData, train: Callable[..., bytes], tmp_path: Path
) -> None:
    model = train(_sequential)
    seen = inspect(Inspection(model, SEED), data)
    (weights, biases), _ = _dense(_loaded(model, tmp_path))
    expected = np.tanh(_pixels(data, seen) @ weights + biases)
    np.testing.assert_allclose(seen.activations["hidden 1"], expected, atol=1e-4)
    assert [x.kind for x in seen.layers][-3:] == ["Dense", "Activation", "Dense"]


def test_what_was_seen_can_be_sent_from_one_process_to_another(
    data: TrainingData, train: Callable[..., bytes]
) -> None:
    import pickle

    seen = inspect(Inspection(train(), SEED), data)
    again = pickle.loads(pickle.dumps(seen))
    assert again.layers == seen.layers
    np.testing.assert_array_equal(again.val_probabilities, seen.val_probabilities)
