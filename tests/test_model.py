"""From a configuration to a network: sizes, initializers, normalization, learning rates."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from search.backend import keras
from search.model import build_network, compiled_model, compiled_settings, network_of
from search.transforms import Transform
from spaces.config import Initializer, TrialConfig
from spaces.notebooks import NOTEBOOKS, Experiment

PUBLISHED = {
    "msds422-mlp": {"1": 101_770, "2": 118_282, "3": 55_050, "4": 50_890},
    "bottleneck": {"base": 101_770, "1": 100_629, "6": 55_050, "7": 118_282},
    "fashion": {
        "epochs-25": 203_530,
        "dense-2": 235_146,
        "dense-3": 269_450,
        "dropout-0.1": 235_146,
        "dropout-0.2": 235_146,
        "dropout-0.3": 235_146,
        "conv-1": 1_387_594,
        "conv-2": 217_194,
        "conv-3": 29_834,
    },
}
"""What the notebooks printed as the number of parameters, by notebook and experiment."""


def _compiled(config: TrialConfig, steps: int = 100) -> keras.Model:
    transform = Transform(factor=1 / 16)
    return compiled_model(config, build_network, (8, 8, 1), 10, transform, seed=0, steps=steps)


@pytest.mark.parametrize(
    ("notebook", "experiment", "published"),
    [(notebook, *row) for notebook, rows in PUBLISHED.items() for row in rows.items()],
)
def test_a_published_number_of_parameters_is_in_the_experiment(
    notebook: str, experiment: str, published: int
) -> None:
    assert NOTEBOOKS[notebook].experiment(experiment).parameters == published


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(experiment, id=f"{notebook.id}-{experiment.id}")
        for notebook in NOTEBOOKS.values()
        for experiment in notebook.experiments
        if experiment.parameters is not None
    ],
)
def test_an_experiment_is_built_with_the_published_number_of_parameters(
    experiment: Experiment,
) -> None:
    config = experiment.config
    features = config.pca_components or config.forest_pixels
    network = build_network(config, (features,) if features else (28, 28, 1), 10)
    assert network.count_params() == experiment.parameters


@pytest.mark.parametrize(
    ("features", "hidden", "parameters"),
    [
        (154, (128, 5), 154 * 128 + 128 + 128 * 5 + 5 + 5 * 10 + 10),
        (70, (128, 5), 70 * 128 + 128 + 128 * 5 + 5 + 5 * 10 + 10),
        (1, (), 1 * 10 + 10),
    ],
)
def test_a_network_on_features_has_no_weights_for_pixels(
    features: int, hidden: tuple[int, ...], parameters: int
) -> None:
    network = build_network(TrialConfig(hidden=hidden), (features,), 10)
    assert network.count_params() == parameters


@pytest.mark.parametrize("name", get_args(Initializer))
def test_every_kernel_initializer_is_that_of_every_layer_and_differs_by_layer(name: str) -> None:
    network = build_network(
        TrialConfig(filters=(4,), hidden=(8, 8), kernel_initializer=name), (8, 8, 1), 8
    )
    layers = [layer for layer in network.layers if layer.get_weights()]
    expected = name.title().replace("_", "")
    assert [type(layer.kernel_initializer).__name__ for layer in layers] == [expected] * 4
    kernels = [layer.get_weights()[0] for layer in layers]
    assert all(np.isfinite(kernel).all() and np.ptp(kernel) > 0 for kernel in kernels)
    assert not np.array_equal(kernels[2], kernels[3])


def test_batch_normalization_comes_between_each_layer_and_its_activation() -> None:
    config = TrialConfig(filters=(4,), hidden=(8, 6), batch_normalization=True, activation="tanh")
    network = build_network(config, (8, 8, 1), 10)
    assert [type(layer).__name__ for layer in network.layers] == [
        *("InputLayer", "Conv2D", "BatchNormalization", "Activation", "MaxPooling2D", "Flatten"),
        *("Dense", "BatchNormalization", "Activation") * 2,
        "Dense",
    ]
    activations = [
        layer.activation.__name__ for layer in network.layers if hasattr(layer, "activation")
    ]
    assert activations == ["linear", "tanh", "linear", "tanh", "linear", "tanh", "softmax"]


def test_dropout_comes_after_the_activation_of_every_dense_layer_but_the_last() -> None:
    config = TrialConfig(hidden=(8, 6), input_dropout=0.1, dropout=0.2, batch_normalization=True)
    network = build_network(config, (8, 8, 1), 10)
    names = [type(layer).__name__ for layer in network.layers[1:]]
    hidden = ("Dense", "BatchNormalization", "Activation", "Dropout")
    assert names == ["Flatten", "Dropout", *hidden, *hidden, "Dense"]
    rates = [layer.rate for layer in network.layers if type(layer).__name__ == "Dropout"]
    assert rates == [0.1, 0.2, 0.2]


@pytest.mark.parametrize("kind", ["functional", "sequential", "nested"])
def test_the_network_is_found_behind_the_transform_however_it_was_built(kind: str) -> None:
    def build(config: TrialConfig, shape: tuple[int, ...], classes: int) -> keras.Model:
        inner = keras.Sequential(
            [
                keras.Input(shape),
                keras.layers.Flatten(),
                keras.layers.Dense(classes, activation="softmax"),
            ]
        )
        if kind == "sequential":
            return inner
        inputs = keras.Input(shape)
        if kind == "nested":
            return keras.Model(inputs, inner(inputs))
        return keras.Model(inputs, inner.layers[1](inner.layers[0](inputs)))

    pixels = np.ones((8, 8, 1), np.float32)
    components = Transform(
        slope=pixels,
        offset=pixels,
        projection=np.ones((64, 3), np.float32),
        shift=np.ones(3, np.float32),
    )
    model = compiled_model(TrialConfig(), build, (8, 8, 1), 10, components, seed=0, steps=1)
    assert network_of(model).count_params() == 3 * 10 + 10
    assert model.count_params() == 3 * 10 + 10 + 2 * 64 + 3 * 64 + 3


SCHEDULES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda step: 0.2),
    ({"schedule": "constant"}, lambda step: 0.2),
    ({"decay": 0.25}, lambda step: 0.2 / (1 + 0.25 * step)),
    ({"decay": 0.25, "schedule": "inverse-time"}, lambda step: 0.2 / (1 + 0.25 * step)),
    ({"schedule": "inverse-time"}, lambda step: 0.2),
    ({"schedule": "cosine"}, lambda step: 0.1 * (1 + math.cos(math.pi * step / 100))),
]


@pytest.mark.parametrize(
    ("config", "rate"), [pytest.param(*row, id=str(row[0])) for row in SCHEDULES]
)
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_the_learning_rate_at_a_step_is_that_of_the_formula(
    optimizer: str, config: dict[str, Any], rate: Any
) -> None:
    values = {"hidden": (), "optimizer": optimizer, "learning_rate": 0.2, **config}
    model = _compiled(TrialConfig.model_validate(values))
    for step in (0, 1, 50, 99, 100):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(rate(step), abs=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_decay_with_a_schedule_that_would_ignore_it_is_refused(schedule: str) -> None:
    with pytest.raises(ValidationError, match=f"not to {schedule}"):
        TrialConfig.model_validate({"schedule": schedule, "decay": 0.1})


@pytest.mark.parametrize(
    "fields",
    [
        {"pca_components": 5, "pca_variance": 0.9},
        {"pca_components": 5, "forest_pixels": 5},
        {"pca_variance": 0.9, "forest_pixels": 5},
    ],
    ids=lambda fields: "-".join(fields),
)
def test_two_reductions_at_a_time_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="only one of"):
        TrialConfig.model_validate(fields)


@pytest.mark.parametrize(
    "fields", [{"pca_components": 5}, {"pca_variance": 0.9}, {"forest_pixels": 5}], ids=str
)
def test_convolutions_over_what_is_no_image_any_more_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="convolutions need whole images"):
        TrialConfig.model_validate({"filters": (8,), **fields})


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"optimizer": "adamw", "weight_decay": 0.02}, {"weight_decay": 0.02}),
        ({"optimizer": "adamw"}, {"weight_decay": 0.004}),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, {"nesterov": True}),
        ({"optimizer": "rmsprop", "momentum": 0.5}, {"momentum": 0.5}),
        ({"schedule": "cosine"}, {"learning_rate.config.decay_steps": 100}),
    ],
    ids=str,
)
def test_what_the_optimizer_was_given_is_read_back_from_the_model(
    config: dict[str, Any], settings: dict[str, Any]
) -> None:
    model = _compiled(TrialConfig.model_validate({"hidden": (), **config}))
    found = compiled_settings(model)
    assert found["class_name"].lower() == config.get("optimizer", "adam")
    assert settings.items() <= found.items()
