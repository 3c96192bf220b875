"""From a `TrialConfig` to a compiled Keras model that takes raw images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from search.backend import keras
from search.records import TrialFailed
from spaces.config import Scalar, TrialConfig

Build: TypeAlias = Callable[[TrialConfig, tuple[int, int, int], int], keras.Model]
"""(config, input_shape (h, w, c), classes) -> a network from pixels in [0, 1] to probabilities."""


def build_network(
    config: TrialConfig, input_shape: tuple[int, int, int], classes: int
) -> keras.Model:
    """Builds convolutions with pooling, then dense layers with dropout, then softmax.

    Raises:
        TrialFailed: the convolutions leave nothing of an image of this size.
    """
    layers = keras.layers
    inputs = outputs = keras.Input(input_shape)
    for count in config.filters:
        outputs = layers.Conv2D(
            count,
            config.kernel_size,
            padding=config.padding,
            activation=config.activation,
            kernel_initializer=config.kernel_initializer,
        )(outputs)
        if min(outputs.shape[1:3]) < config.pool_size:
            raise TrialFailed(
                f"{len(config.filters)} convolutions with {config.padding!r} padding and pooling "
                f"by {config.pool_size} leave nothing of an image of "
                f"{input_shape[0]} by {input_shape[1]}: lower the conv depth."
            )
        outputs = layers.MaxPooling2D(config.pool_size)(outputs)
    outputs = layers.Flatten()(outputs)
    if config.input_dropout:
        outputs = layers.Dropout(config.input_dropout)(outputs)
    for units in config.hidden:
        outputs = layers.Dense(
            units, activation=config.activation, kernel_initializer=config.kernel_initializer
        )(outputs)
        if config.dropout:
            outputs = layers.Dropout(config.dropout)(outputs)
    outputs = layers.Dense(
        classes, activation="softmax", kernel_initializer=config.kernel_initializer
    )(outputs)
    return keras.Model(inputs, outputs)


def compiled_model(
    config: TrialConfig,
    build: Build,
    image_shape: tuple[int, int, int],
    classes: int,
    pixel_max: float,
    seed: int,
) -> keras.Model:
    """Builds and compiles the model that is trained and shipped; the same weights for a seed.

    Input: float32 (n, h, w, c), raw pixels; output: float32 (n, classes), probabilities.

    Raises:
        TrialFailed: `build` returns something else than such a network.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(image_shape, name="images")
    network = build(config, image_shape, classes)
    if not isinstance(network, keras.Model):
        raise TrialFailed(f"build() returned a {type(network).__name__}; expected a keras.Model.")
    outputs = network(keras.layers.Rescaling(1.0 / pixel_max, name="scale")(inputs))
    if tuple(outputs.shape) != (None, classes):
        raise TrialFailed(
            f"build() ends in shape {tuple(outputs.shape)}; expected (None, {classes}): "
            "one probability per class."
        )
    model = keras.Model(inputs, outputs, name="classifier")
    model.compile(_optimizer(config), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _optimizer(config: TrialConfig) -> keras.optimizers.Optimizer:
    if config.optimizer == "adam":
        return keras.optimizers.Adam(config.learning_rate)
    if config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(config.learning_rate)
    rate: float | keras.optimizers.schedules.LearningRateSchedule = config.learning_rate
    if config.decay:
        rate = keras.optimizers.schedules.InverseTimeDecay(
            config.learning_rate, decay_steps=1, decay_rate=config.decay
        )
    return keras.optimizers.SGD(rate, momentum=config.momentum)


def compiled_settings(model: keras.Model) -> dict[str, Scalar]:
    """Reads the settings back from the optimizer that the model was compiled with.

    Nested ones (a learning-rate schedule's) get dotted names; those that are unset are left out.
    """
    settings: dict[str, Scalar] = {}

    def flatten(prefix: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if key in ("module", "registered_name", "name", "build_config"):
                continue
            if isinstance(value, dict):
                flatten(f"{prefix}{key}.", value)
            elif value is not None:
                known = isinstance(value, bool | int | float | str)
                settings[prefix + key] = value if known else str(value)

    settings["class_name"] = type(model.optimizer).__name__
    flatten("", model.optimizer.get_config())
    return settings
