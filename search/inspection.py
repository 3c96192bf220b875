"""Looks inside a trained model: predictions, activations and layers, for figures."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search.backend import keras
from search.data import TrainingData
from search.model import load_model, network_of
from search.records import Inspected, Inspection, Layer

BATCH = 1000
MAX_ACTIVATIONS = 20_000_000
"""Numbers of the widest layer; of such fewer images are taken."""


def inspect(job: Inspection, data: TrainingData) -> Inspected:
    """Predicts train and validation, and records what the hidden layers answer.

    Activations are those of the dense hidden layers, on validation images first and then on
    training images, up to `job.activation_images`.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(job.model)
        model = load_model(path)
    split = data.splits_for(job)[0]
    positions = np.concatenate([split.validation, split.train])[: job.activation_images]
    hidden = _hidden_layers(model)
    widest = max((layer.units for layer in hidden), default=1)
    positions = positions[: max(1, MAX_ACTIVATIONS // widest)]
    return Inspected(
        layers=tuple(_layers(model)),
        train=split.train,
        validation=split.validation,
        train_probabilities=_predict(model, data, split.train),
        val_probabilities=_predict(model, data, split.validation),
        positions=positions,
        activations=_activations(model, hidden, data, positions),
        chosen_pixels=_chosen_pixels(model),
    )


def _chosen_pixels(model: keras.Model) -> tuple[int, ...]:
    """What the model's own reduction passes on, where that is a choice and not a mixture."""
    reduce = next((layer for layer in model.layers if layer.name == "reduce"), None)
    if reduce is None:
        return ()
    kernel = reduce.get_weights()[0]
    is_choice = np.isin(kernel, (0, 1)).all() and (kernel.sum(axis=0) == 1).all()
    return tuple(map(int, kernel.argmax(axis=0))) if is_choice else ()


def _predict(
    model: keras.Model, data: TrainingData, positions: NDArray[np.int32]
) -> NDArray[np.float32]:
    parts = [
        model.predict_on_batch(data.images[positions[i : i + BATCH]].astype(np.float32))
        for i in range(0, len(positions), BATCH)
    ]
    return np.concatenate(parts)


def _hidden_layers(model: keras.Model) -> list[keras.layers.Dense]:
    """The dense layers of the network but the last one, which makes the probabilities."""
    dense = [x for x in network_of(model).layers if isinstance(x, keras.layers.Dense)]
    return dense[:-1]


def _activations(
    model: keras.Model,
    hidden: list[keras.layers.Dense],
    data: TrainingData,
    positions: NDArray[np.int32],
) -> dict[str, NDArray[np.float32]]:
    """By the layer's name; after its activation, where that is a layer of its own."""
    if not hidden:
        return {}
    network = network_of(model)
    # The network comes last, after the layers of the transform in a row.
    before = keras.Model(model.inputs, model.layers[-2].output)
    within = keras.Model(network.inputs, [_answer(network, layer) for layer in hidden])
    parts: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(positions), BATCH):
        images = data.images[positions[start : start + BATCH]].astype(np.float32)
        outputs = within.predict_on_batch(before.predict_on_batch(images))
        parts.append(outputs if isinstance(outputs, list) else [outputs])
    names = [f"hidden {number}" for number in range(1, len(hidden) + 1)]
    return {
        name: np.concatenate(answers)
        for name, answers in zip(names, zip(*parts, strict=True), strict=True)
    }


def _answer(network: keras.Model, layer: keras.layers.Dense) -> keras.KerasTensor:
    following = network.layers[network.layers.index(layer) + 1 :]
    for later in following:
        if isinstance(later, keras.layers.Activation):
            return later.output
        if not isinstance(later, keras.layers.BatchNormalization):
            break
    return layer.output


def _layers(model: keras.Model) -> list[Layer]:
    """From raw pixels to probabilities, the network's own layers in the place of the network."""
    rows = []
    for layer in model.layers:
        inner = layer.layers if isinstance(layer, keras.Model) else [layer]
        rows += [_layer(x) for x in inner if not (x is not layer and _is_input(x))]
    return rows


def _is_input(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.InputLayer)


def _layer(layer: keras.layers.Layer) -> Layer:
    settings = layer.get_config()
    details = [
        str(settings[key])
        for key in ("units", "filters", "kernel_size", "pool_size", "rate", "activation")
        if settings.get(key) not in (None, "linear")
    ]
    if layer.count_params() and not layer.trainable:
        details.append("not trained")
    shape = layer.batch_shape if _is_input(layer) else layer.output.shape
    kind = type(layer).__name__
    return Layer(layer.name, kind, tuple(shape), layer.count_params(), " ".join(details))
