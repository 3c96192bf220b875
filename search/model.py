"""From a `TrialConfig` to a compiled Keras model that takes raw images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from search.backend import keras
from search.records import TrialFailed
from search.transforms import Transform
from search.unpacking import check_package
from spaces.config import Scalar, TrialConfig

Build: TypeAlias = Callable[[TrialConfig, tuple[int, ...], int], keras.Model]
"""(config, input_shape, classes) -> a network from transformed pixels to probabilities.

The shape is (h, w, c), or (features,) where the pixels were reduced."""


def build_network(config: TrialConfig, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """Builds convolutions with pooling, then dense layers with dropout, then softmax.

    Raises:
        TrialFailed: the convolutions leave nothing of an image of this size.
    """
    layers = keras.layers
    inputs = outputs = keras.Input(input_shape)
    for count in config.filters:
        convolution = layers.Conv2D(
            count,
            config.kernel_size,
            padding=config.padding,
            activation=_fused_activation(config),
            kernel_initializer=config.kernel_initializer,
        )
        if config.padding == "valid" and min(outputs.shape[1:3]) < config.kernel_size:
            raise _too_deep(config, input_shape)
        outputs = _normalized(config, convolution(outputs))
        if min(outputs.shape[1:3]) < config.pool_size:
            raise _too_deep(config, input_shape)
        outputs = layers.MaxPooling2D(config.pool_size)(outputs)
    outputs = layers.Flatten()(outputs)
    if config.input_dropout:
        outputs = layers.Dropout(config.input_dropout)(outputs)
    for units in config.hidden:
        dense = layers.Dense(
            units,
            activation=_fused_activation(config),
            kernel_initializer=config.kernel_initializer,
        )
        outputs = _normalized(config, dense(outputs))
        if config.dropout:
            outputs = layers.Dropout(config.dropout)(outputs)
    outputs = layers.Dense(
        classes, activation="softmax", kernel_initializer=config.kernel_initializer
    )(outputs)
    return keras.Model(inputs, outputs)


def load_model(path: Path) -> keras.Model:
    """Loads a `.keras` file, which can neither run code nor claim more than is read.

    Raises:
        DataError: it claims too much.
        Whatever Keras raises where it is damaged, or wants code of its own.
    """
    check_package(path)
    return keras.models.load_model(path, safe_mode=True)


def _fused_activation(config: TrialConfig) -> str | None:
    return None if config.batch_normalization else config.activation


def _normalized(config: TrialConfig, outputs: keras.KerasTensor) -> keras.KerasTensor:
    """Batch normalization comes before the activation (Ioffe and Szegedy 2015)."""
    if not config.batch_normalization:
        return outputs
    outputs = keras.layers.BatchNormalization()(outputs)
    return keras.layers.Activation(config.activation)(outputs)


def _too_deep(config: TrialConfig, input_shape: tuple[int, ...]) -> TrialFailed:
    return TrialFailed(
        f"{len(config.filters)} convolutions with {config.padding!r} padding and pooling "
        f"by {config.pool_size} leave nothing of an image of "
        f"{input_shape[0]} by {input_shape[1]}: lower the conv depth."
    )


def compiled_model(
    config: TrialConfig,
    build: Build,
    image_shape: tuple[int, int, int],
    classes: int,
    transform: Transform,
    seed: int,
    steps: int,
) -> keras.Model:
    """Builds and compiles the model that is trained and shipped; the same weights for a seed.

    Input: float32 (n, h, w, c), raw pixels; output: float32 (n, classes), probabilities.

    Args:
        config: what to build.
        build: makes the network behind the transform.
        image_shape: height, width, channels.
        classes: how many.
        transform: fitted on the training images; its arrays become weights that are not trained.
        seed: of initialization and dropout.
        steps: of training in all, over which a cosine schedule runs.

    Raises:
        TrialFailed: `build` returns something else than such a network.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(image_shape, name="images")
    features = _transformed(transform, inputs)
    network = build(config, tuple(features.shape[1:]), classes)
    if not isinstance(network, keras.Model):
        raise TrialFailed(f"build() returned a {type(network).__name__}; expected a keras.Model.")
    own = _own_class(network)
    if own:
        raise TrialFailed(
            f"build() uses a {own}: a registered model is loaded where there is no code of its "
            "space. Compose it of Keras's own layers and of keras.ops."
        )
    outputs = network(features)
    if tuple(outputs.shape) != (None, classes):
        raise TrialFailed(
            f"build() ends in shape {tuple(outputs.shape)}; expected (None, {classes}): "
            "one probability per class."
        )
    model = keras.Model(inputs, outputs, name="classifier")
    optimizer = _optimizer(config, steps)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def _own_class(network: keras.Model) -> str:
    """The class of a layer, or of the network, that cannot be loaded without its code; or ""."""
    for layer in (network, *network.layers):
        foreign = type(layer).__module__.partition(".")[0] != "keras"
        if foreign or isinstance(layer, keras.layers.Lambda):
            return type(layer).__name__
        found = _own_class(layer) if isinstance(layer, keras.Model) and layer is not network else ""
        if found:
            return found
    return ""


def _transformed(transform: Transform, images: keras.KerasTensor) -> keras.KerasTensor:
    """Adds the layers that transform raw pixels: Keras's own, so that a file needs no code."""
    layers = keras.layers
    outputs = images
    if transform.factor != 1.0:
        outputs = layers.Rescaling(transform.factor, name="scale")(outputs)
    if transform.unit_axes:
        outputs = layers.UnitNormalization(transform.unit_axes, name="unit_length")(outputs)
    if transform.slope is not None:
        affine = layers.EinsumDense(
            "nhwc,hwc->nhwc",
            output_shape=transform.slope.shape,
            bias_axes="hwc",
            trainable=False,
            name="scale_pixels",
        )
        outputs = affine(outputs)
        affine.set_weights([transform.slope, transform.offset])
    if transform.projection is not None:
        outputs = layers.Flatten(name="pixels")(outputs)
        reduce = layers.Dense(transform.projection.shape[1], trainable=False, name="reduce")
        outputs = reduce(outputs)
        reduce.set_weights([transform.projection, transform.shift])
    return outputs


def network_of(model: keras.Model) -> keras.Model:
    """The part of a compiled model that `build` made, without the transform before it."""
    return next(layer for layer in model.layers if isinstance(layer, keras.Model))


def _optimizer(config: TrialConfig, steps: int) -> keras.optimizers.Optimizer:
    rate = _learning_rate(config, steps)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    if config.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    if config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(rate, momentum=config.momentum)
    return keras.optimizers.SGD(rate, momentum=config.momentum, nesterov=config.nesterov)


def _learning_rate(
    config: TrialConfig, steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(config.learning_rate, decay_steps=steps)
    if config.decay:
        return keras.optimizers.schedules.InverseTimeDecay(
            config.learning_rate, decay_steps=1, decay_rate=config.decay
        )
    return config.learning_rate


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
