"""Transforms: inside the model they do what scikit-learn does, fitted on training images only."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    Normalizer,
    StandardScaler,
    normalize,
)

from search.backend import keras
from search.data import Split, TrainingData, load
from search.model import build_network, compiled_model, network_of
from search.records import TrialFailed
from search.trainer import Task, Trainer
from search.transforms import Transform, apply_scale, fit_transform
from spaces.config import TrialConfig

TRAIN = 400
TOLERANCE = 1e-5
"""Of the largest feature: what is left of single precision after sums over an image."""

SCALES: dict[str, dict[str, Any]] = {
    "255": {"scale": "255"},
    "max": {"scale": "max"},
    "min-max": {"scale": "min-max"},
    "standardize": {"scale": "standardize"},
    "l2-image": {"scale": "l2", "l2_axis": "image"},
    "l2-1": {"scale": "l2", "l2_axis": 1},
    "l2-2": {"scale": "l2", "l2_axis": 2},
    "l2-3": {"scale": "l2", "l2_axis": 3},
    "none": {"scale": "none"},
}
REDUCTIONS: dict[str, dict[str, Any]] = {
    "components": {"pca_components": 7},
    "variance": {"pca_variance": 0.9},
    "forest": {"forest_pixels": 9},
}
ALONE = {**SCALES, **{key: {"scale": "none", **value} for key, value in REDUCTIONS.items()}}
COMBINED = {
    f"{scale}-{reduction}": {**SCALES[scale], **REDUCTIONS[reduction]}
    for scale in ("255", "standardize", "l2-1")
    for reduction in REDUCTIONS
}


def _table(*tables: dict[str, dict[str, Any]]) -> Any:
    """Runs a test once for each of the configurations, which have their names as ids."""
    rows = [pytest.param(config, id=key) for table in tables for key, config in table.items()]
    return pytest.mark.parametrize("config", rows)


def _digits() -> tuple[NDArray[Any], NDArray[np.int32]]:
    """uint8 (n, 8, 8, 1), with pixels that are always 0."""
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8, 1).astype(np.uint8)[:600], labels[:600].astype(np.int32)


def _drawn(channels: int, dtype: type) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Images of height 6 and width 5: a few patterns, mixed, with noise and constant pixels."""
    random = np.random.default_rng(channels)
    labels = (np.arange(600) % 4).astype(np.int32)
    patterns = random.random((8, 6, 5, channels))
    amounts = random.random((600, 8)) * np.geomspace(1, 0.05, 8)
    amounts[np.arange(600), labels] += 0.3
    images = np.tensordot(amounts, patterns, 1) + 0.01 * random.random((600, 6, 5, channels))
    images /= images.max()
    images[:, 0, 0], images[:, :, 4] = 0.5, 0
    return (images * 255 if dtype is np.uint8 else images * 3 - 1).astype(dtype), labels


IMAGES = {
    "digits": _digits(),
    "colour": _drawn(3, np.uint8),
    "float32": _drawn(1, np.float32),
    "float32-colour": _drawn(3, np.float32),
}


def _identity(config: TrialConfig, shape: tuple[int, ...], classes: int) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Flatten()(inputs))


def _model(transform: Transform, shape: tuple[int, ...]) -> keras.Model:
    """A model whose outputs are the features that a network would see."""
    count = math.prod(shape) if transform.projection is None else transform.projection.shape[1]
    return compiled_model(TrialConfig(), _identity, shape, count, transform, seed=0, steps=1)


def _features(
    config: dict[str, Any],
    train: NDArray[Any],
    labels: NDArray[np.int32],
    images: NDArray[Any],
) -> NDArray[np.float32]:
    """What a network behind the transform, fitted on `train`, would see of the raw `images`."""
    transform = fit_transform(TrialConfig.model_validate(config), train, labels)
    return _model(transform, train.shape[1:])(images.astype(np.float32)).numpy()


def _scaler(config: dict[str, Any], train: NDArray[Any]) -> Any:
    """scikit-learn's own, on flat images."""
    scale, axis = config["scale"], config.get("l2_axis")
    if scale == "l2" and axis == "image":
        return Normalizer()
    if scale == "l2":
        return FunctionTransformer(lambda x: _normalized_along(axis, x, train.shape[1:]))
    plain = {
        "255": FunctionTransformer(lambda x: x / 255),
        "max": FunctionTransformer(lambda x: x / float(train.max())),
        "min-max": MinMaxScaler(),
        "standardize": StandardScaler(),
        "none": FunctionTransformer(),
    }
    return plain[scale]


def _normalized_along(axis: int, flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    rows = np.moveaxis(flat.reshape(-1, *shape), axis, -1)
    unit = normalize(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape)
    return np.moveaxis(unit, -1, axis).reshape(len(flat), -1)


def _expected(
    config: dict[str, Any],
    train: NDArray[Any],
    labels: NDArray[np.int32],
    images: NDArray[Any],
) -> NDArray[np.float64]:
    """The same of scikit-learn, in double precision."""
    flat_train, flat = (x.reshape(len(x), -1).astype(np.float64) for x in (train, images))
    scaler = _scaler(config, train)
    components = config.get("pca_components", config.get("pca_variance"))
    if components is not None:
        pipeline = make_pipeline(scaler, PCA(components, svd_solver="full"))
        return pipeline.fit(flat_train).transform(flat)
    scaler.fit(flat_train)
    if "forest_pixels" in config:
        forest = RandomForestClassifier(100, random_state=42)
        forest.fit(scaler.transform(flat_train), labels)
        ranking = np.argsort(-forest.feature_importances_, kind="stable")
        chosen = np.sort(ranking[: config["forest_pixels"]])
        return scaler.transform(flat)[:, chosen]
    return scaler.transform(flat)


@pytest.mark.parametrize(
    ("name", "config"),
    [pytest.param(n, c, id=f"{n}-{key}") for n in IMAGES for key, c in ALONE.items()]
    + [
        pytest.param(n, c, id=f"{n}-{key}")
        for n in ("digits", "float32-colour")
        for key, c in COMBINED.items()
    ],
)
def test_features_inside_the_model_are_those_of_scikit_learn_for_seen_and_unseen_images(
    name: str, config: dict[str, Any]
) -> None:
    images, labels = IMAGES[name]
    train, train_labels = images[:TRAIN], labels[:TRAIN]
    found = _features(config, train, train_labels, images)
    expected = _expected(config, train, train_labels, images)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_unit_length_along_an_axis_is_that_of_keras_normalize(axis: int) -> None:
    images, labels = IMAGES["colour"]
    found = _features({"scale": "l2", "l2_axis": axis}, images, labels, images)
    expected = keras.utils.normalize(images.astype(np.float32), axis=axis)
    np.testing.assert_allclose(found, expected.reshape(len(images), -1), atol=1e-6)


def test_axis_1_gives_each_column_of_an_image_unit_length() -> None:
    image = np.array([[3, 0], [4, 5]], np.uint8).reshape(1, 2, 2, 1)
    found = _features({"scale": "l2", "l2_axis": 1}, image, np.zeros(1, np.int32), image)
    np.testing.assert_allclose(found, [[0.6, 0.0, 0.8, 1.0]], atol=1e-6)


@_table(SCALES)
def test_the_scaling_before_a_fit_is_the_scaling_inside_the_model(config: dict[str, Any]) -> None:
    images, labels = IMAGES["float32-colour"]
    transform = fit_transform(TrialConfig.model_validate(config), images, labels)
    scaled = replace(transform, projection=None, shift=None)
    found = _model(scaled, images.shape[1:])(images).numpy()
    by_hand = apply_scale(transform, images).reshape(len(images), -1)
    np.testing.assert_allclose(found, by_hand, atol=1e-5 * np.abs(by_hand).max())


@pytest.mark.parametrize("variance", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("images", [100, 40], ids=["more-images", "fewer-images-than-pixels"])
def test_so_many_components_are_kept_as_explain_the_variance_asked_for(
    images: int, variance: float
) -> None:
    train, labels = IMAGES["digits"][0][:images], IMAGES["digits"][1][:images]
    config = {"scale": "255", "pca_variance": variance}
    kept = _features(config, train, labels, train).shape[1]
    ratios = PCA(svd_solver="full").fit(train.reshape(images, -1) / 255).explained_variance_ratio_
    assert ratios[:kept].sum() > variance >= ratios[: kept - 1].sum()


def test_components_are_those_of_double_precision_where_single_precision_would_lose_them() -> None:
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    config = {"scale": "standardize", "pca_components": 40}
    found = _features(config, images[:1000], labels[:1000].astype(np.int32), images)
    expected = _expected(config, images[:1000], labels[:1000].astype(np.int32), images)
    worst = np.abs(found - expected).max(axis=0) / expected.std(axis=0)
    assert worst.max() < 1e-4


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load("digits", None, seed=0).training


def _task(data: TrainingData, split: Split, **config: Any) -> Task:
    values = {"hidden": (8,), "batch_size": 64, **config}
    return Task(TrialConfig.model_validate(values), build_network, "test", (split,), 1, 3)


@pytest.fixture(scope="module")
def split() -> Split:
    return Split(np.arange(300, dtype=np.int32), np.arange(300, 400, dtype=np.int32))


@pytest.fixture(scope="module")
def altered(data: TrainingData, split: Split) -> TrainingData:
    """The same pool but for its validation images, which are brighter, and their labels."""
    images, labels = data.images.copy(), data.labels.copy()
    images[split.validation] = 255 - 3 * images[split.validation]
    labels[split.validation] = 0
    return replace(data, images=images, labels=labels)


@_table(ALONE, COMBINED)
def test_validation_images_change_nothing_in_the_transform(
    data: TrainingData, altered: TrainingData, split: Split, config: dict[str, Any]
) -> None:
    read = TrialConfig.model_validate(config)
    one, other = (Trainer(pool)._transform(read, split) for pool in (data, altered))
    assert one.graph_key == other.graph_key
    for name in ("slope", "offset", "projection", "shift"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


def test_validation_images_change_nothing_in_the_model_that_is_trained(
    data: TrainingData, altered: TrainingData, split: Split
) -> None:
    seen = []
    for pool in (data, altered):
        task = _task(pool, split, scale="standardize", pca_variance=0.9)
        run = Trainer(pool).start(task)
        report = run.run_epoch()
        outputs = run._model(data.images[split.validation].astype(np.float32)).numpy()
        seen.append((report.train_loss, report.train_accuracy, outputs.tolist()))
    assert seen[0] == seen[1]


@_table(ALONE, COMBINED)
@pytest.mark.parametrize("value", [0, 7], ids=["all-black", "all-grey"])
def test_images_that_are_all_alike_give_finite_features(config: dict[str, Any], value: int) -> None:
    train = np.full((60, 4, 4, 1), value, np.uint8)
    labels = (np.arange(60) % 3).astype(np.int32)
    unseen = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    features = _features(config, train, labels, np.concatenate([train, unseen]))
    assert np.isfinite(features).all()


@_table(ALONE, COMBINED)
def test_black_images_and_columns_among_others_give_finite_features(
    config: dict[str, Any],
) -> None:
    images, labels = IMAGES["digits"][0].copy(), IMAGES["digits"][1]
    images[5], images[:, :, 3], images[TRAIN + 1] = 0, 0, 0
    features = _features(config, images[:TRAIN], labels[:TRAIN], images)
    assert np.isfinite(features).all()
    if config["scale"] == "l2" and not set(config) & {"pca_components", "pca_variance"}:
        assert not features[5].any()


def test_a_pixel_that_is_constant_in_training_stays_finite_when_it_then_varies() -> None:
    train, labels = IMAGES["digits"]
    train = train.copy()
    train[:, 2, 2] = 9
    unseen = train.copy()
    unseen[:, 2, 2] = np.arange(len(unseen))[:, None] % 17
    for scale in ("standardize", "min-max"):
        features = _features({"scale": scale}, train, labels, unseen)
        expected = _expected({"scale": scale}, train, labels, unseen)
        np.testing.assert_allclose(features, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("config", "images", "numbers"),
    [
        ({"pca_components": 65}, 600, ("65 features", "at most 64")),
        ({"pca_components": 31}, 30, ("31 features", "30 training images")),
        ({"forest_pixels": 65}, 600, ("65 features", "at most 64")),
        ({"forest_pixels": 65}, 30, ("65 features", "at most 64")),
    ],
)
def test_more_features_than_there_can_be_fail_the_trial_with_both_numbers(
    config: dict[str, Any], images: int, numbers: tuple[str, str]
) -> None:
    train, labels = IMAGES["digits"]
    with pytest.raises(TrialFailed) as caught:
        fit_transform(TrialConfig.model_validate(config), train[:images], labels[:images])
    assert all(number in str(caught.value) for number in numbers)


@pytest.mark.parametrize(
    "config", [{"pca_components": 64}, {"forest_pixels": 64}, {"forest_pixels": 1}], ids=str
)
def test_as_many_features_as_there_can_be_are_made(config: dict[str, Any]) -> None:
    train, labels = IMAGES["digits"]
    transform = fit_transform(TrialConfig.model_validate(config), train, labels)
    assert transform.projection is not None
    assert transform.projection.shape == (64, next(iter(config.values())))


@_table(ALONE)
def test_the_saved_file_takes_raw_images_and_needs_no_code(
    data: TrainingData, split: Split, tmp_path: Path, config: dict[str, Any]
) -> None:
    run = Trainer(data).start(_task(data, split, **config))
    path = tmp_path / "model.keras"
    path.write_bytes(run.saved_model())
    loaded = keras.models.load_model(path, safe_mode=True)
    raw = data.images[split.validation].astype(np.float32)
    expected = run._model(raw).numpy()
    np.testing.assert_allclose(loaded(raw).numpy(), expected, atol=1e-6)
    assert np.ptp(expected, axis=0).max() > 1e-3  # the images do make a difference


def test_the_file_of_a_trained_model_on_components_gives_its_validation_accuracy(
    data: TrainingData, tmp_path: Path
) -> None:
    split = data.split(0)
    config = {"scale": "standardize", "pca_variance": 0.9, "learning_rate": 0.01}
    run = Trainer(data).start(_task(data, split, **config))
    while not run.is_over:
        run.run_epoch()
    path = tmp_path / "model.keras"
    path.write_bytes(run.saved_model())
    loaded = keras.models.load_model(path, safe_mode=True)
    raw = data.images[split.validation].astype(np.float32)
    probabilities = loaded(raw).numpy()
    accuracy = (probabilities.argmax(axis=1) == data.labels[split.validation]).mean()
    assert run.totals().val_accuracy == pytest.approx(accuracy) == run.totals().measures.accuracy
    assert accuracy > 0.5


@_table({"min-max": SCALES["min-max"]}, {"x": COMBINED["standardize-components"]})
def test_training_leaves_the_transform_as_it_was_fitted(config: dict[str, Any]) -> None:
    images, labels = IMAGES["digits"]
    transform = fit_transform(TrialConfig.model_validate(config), images, labels)
    model = compiled_model(
        TrialConfig(hidden=(4,)), build_network, (8, 8, 1), 10, transform, seed=0, steps=1
    )
    own = {id(variable) for variable in network_of(model).variables}
    assert {id(variable) for variable in model.trainable_variables} <= own


def test_parameters_are_those_of_the_network_without_what_transforms_the_pixels() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (250, 28, 28, 1)).astype(np.uint8)
    labels = (np.arange(250) % 10).astype(np.int32)
    data = TrainingData("drawn", images, labels, tuple("0123456789"))
    split = Split(np.arange(200, dtype=np.int32), np.arange(200, 250, dtype=np.int32))
    task = _task(data, split, scale="standardize", pca_components=154, hidden=(128, 5))
    run = Trainer(data).start(task)
    run.run_epoch()
    assert run.totals().parameters == 154 * 128 + 128 + 128 * 5 + 5 + 5 * 10 + 10


@pytest.mark.parametrize("scale", ["min-max", "standardize", "l2"])
def test_a_scale_of_each_pixel_adds_no_parameters(data: TrainingData, scale: str) -> None:
    images, labels = IMAGES["digits"]
    transform = fit_transform(TrialConfig(scale=scale), images, labels)
    config = TrialConfig(hidden=(4,))
    model = compiled_model(config, build_network, (8, 8, 1), 10, transform, seed=0, steps=1)
    assert network_of(model).count_params() == 64 * 4 + 4 + 4 * 10 + 10
