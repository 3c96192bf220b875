"""Which figures there are, by kind, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search import analysis, canvas, figures, pictures
from search.arrays import Images, Labels
from search.data import LoadedData, TrainingData
from search.describe import samples
from search.escaping import as_file_name
from search.metrics import Probabilities
from search.records import EpochReport, Inspected, State, TrialRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Named = Iterator[tuple[str, "Figure"]]
FOREST_IMAGES = 10_000
MOST_CLASSES = 100
"""Beyond, a confusion matrix is no picture any more, and takes gigabytes."""
MOST_BARS = 12
MOST_FRACTIONS = 6
"""Of a parameter that is not whole: more values than that were drawn from a range, not listed."""
SAMPLES_PER_CLASS = 10


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to draw where a figure leaves a choice.

    Attributes:
        pair: two classes; None for the two that are confused most.
        layer: which dense hidden layer, from 1.
        unit: which of its units, from 0.
        images: positions in the pool; () for the first ones of the validation split.
        pixels: two positions in the flattened image; None for the two that vary most.
        count: how many pixels to choose; None for a tenth of them.
        tsne_images: on how many images at most.
        perplexity: of t-SNE.
        log_loss: whether losses are drawn on a logarithmic scale.
    """

    pair: tuple[int, int] | None = None
    layer: int = 1
    unit: int = 0
    images: tuple[int, ...] = ()
    pixels: tuple[int, int] | None = None
    count: int | None = None
    tsne_images: int = 1_000
    perplexity: float = 40.0
    log_loss: bool = False


@dataclass(frozen=True)
class Subject:
    """A trial, the model that came of it, and the images that it has seen.

    Attributes:
        test_counts: images of the test split by class.
        opened: images, labels and the model's probabilities of the test split, where that was
            opened for it just now.
    """

    trial: TrialRecord
    epochs: Sequence[EpochReport]
    inspected: Inspected
    data: TrainingData
    test_counts: tuple[int, ...] = ()
    opened: tuple[Images, Labels, Probabilities] | None = None
    wishes: Wishes = field(default_factory=Wishes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        return self.data.classes

    @property
    def val_labels(self) -> Labels:
        """Of the validation split."""
        return self.data.labels[self.inspected.validation]

    @property
    def val_predicted(self) -> NDArray[np.int32]:
        """Classes predicted for the validation split."""
        return np.asarray(self.inspected.val_probabilities.argmax(axis=1), np.int32)

    @property
    def val_images(self) -> Images:
        """Of the validation split."""
        return self.data.images[self.inspected.validation]

    def shown(self, images: Images) -> Images:
        """Images for the eye: float32 in [0, 1]."""
        return shown(self.data, images)


def _class_counts(s: Subject) -> Named:
    size = len(s.classes)
    counts: dict[str, Sequence[int]] = {
        name: tuple(map(int, np.bincount(s.data.labels[positions], minlength=size)))
        for name, positions in (
            ("train", s.inspected.train),
            ("validation", s.inspected.validation),
        )
    }
    if s.test_counts:
        counts["test"] = s.test_counts
    yield "class-counts", figures.class_counts(counts, s.classes)


def _samples(s: Subject) -> Named:
    chosen = s.inspected.train[:50]
    images, labels = s.shown(s.data.images[chosen]), s.data.labels[chosen]
    yield "samples", pictures.sample_images(images, labels, s.classes)


def _samples_per_class(s: Subject) -> Named:
    labels = s.data.labels[s.inspected.train]
    each = min(10, int(np.bincount(labels, minlength=len(s.classes)).min()))
    if each:
        rows = [s.inspected.train[labels == c][:each] for c in range(len(s.classes))]
        images = np.asarray([s.shown(s.data.images[row]) for row in rows], np.float32)
        yield "samples-per-class", pictures.samples_per_class(images, s.classes)


def _model_summary(s: Subject) -> Named:
    yield "model-summary", pictures.model_summary(s.inspected.layers)


def _architecture(s: Subject) -> Named:
    yield "architecture", pictures.architecture(s.inspected.layers)


def _learning_curves(s: Subject) -> Named:
    names = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    curves = {name: [report.metrics[name] for report in s.epochs] for name in names}
    # With the last weights kept, the best epoch is none that the model is of.
    kept = s.trial.totals if s.trial.config.restore_best else None
    best = kept.best_epoch if kept else None
    scales = (True,) if s.wishes.log_loss else (False, True)
    for log_loss in scales:
        name = "learning-curves-log" if log_loss else "learning-curves"
        yield name, figures.learning_curves(curves, log_loss=log_loss, best_epoch=best)


def _confusion(s: Subject) -> Named:
    if len(s.classes) > MOST_CLASSES:
        return
    parts = {
        "train": _matrix(s, s.inspected.train, s.inspected.train_probabilities),
        "validation": _matrix(s, s.inspected.validation, s.inspected.val_probabilities),
    }
    if s.trial.tests:
        parts["test"] = np.array(s.trial.tests[-1].measures.confusion)
    for part, matrix in parts.items():
        for logarithmic in (False, True):
            name = f"confusion-{part}{'-log' if logarithmic else ''}"
            title = f"Confusion matrix, {part} split"
            yield name, analysis.confusion(matrix, s.classes, title, logarithmic)


def _matrix(
    s: Subject, positions: NDArray[np.int32], probabilities: Probabilities
) -> NDArray[np.int64]:
    size = len(s.classes)
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (s.data.labels[positions], probabilities.argmax(axis=1)), 1)
    return matrix


def _predictions(s: Subject) -> Named:
    """Half of them wrong, where there are so many: right ones alone show nothing."""
    split = (s.val_images, s.val_labels, s.inspected.val_probabilities)
    for part, (images, labels, probabilities) in {
        "validation": split,
        **({"test": s.opened} if s.opened else {}),
    }.items():
        right = probabilities.argmax(axis=1) == labels
        wrong = np.flatnonzero(~right)[:12]
        chosen = np.sort(np.concatenate([wrong, np.flatnonzero(right)[: 25 - len(wrong)]]))
        title = f"Predicted class (true class), {part} split, {len(wrong)} mistakes among them"
        yield (
            f"predictions-{part}",
            pictures.predictions(
                s.shown(images[chosen]),
                labels[chosen],
                probabilities[chosen],
                s.classes,
                title=title,
            ),
        )


def _chosen(s: Subject, count: int) -> tuple[NDArray[np.intp], Probabilities]:
    """Positions in the pool with the model's probabilities; the wished ones, else the first."""
    positions = np.concatenate([s.inspected.validation, s.inspected.train])
    probabilities = np.concatenate([s.inspected.val_probabilities, s.inspected.train_probabilities])
    if s.wishes.images:
        where = {int(position): i for i, position in enumerate(positions)}
        rows = np.array([where[i] for i in s.wishes.images if i in where], np.intp)
    else:
        rows = np.arange(min(count, len(s.inspected.validation)))
    return positions[rows], probabilities[rows]


def _class_probabilities(s: Subject) -> Named:
    positions, probabilities = _chosen(s, 6)
    images, labels = s.shown(s.data.images[positions]), s.data.labels[positions]
    if len(positions):
        figure = pictures.class_probabilities(images, probabilities, labels, s.classes)
        yield "class-probabilities", figure


def _probability_table(s: Subject) -> Named:
    positions, probabilities = _chosen(s, 20)
    if len(positions):
        labels = s.data.labels[positions]
        figure = pictures.probability_table(probabilities, labels, s.classes)
        yield "probability-table", figure


def _confused_pair(s: Subject) -> Named:
    pair = s.wishes.pair
    if pair is None:
        matrix = _matrix(s, s.inspected.validation, s.inspected.val_probabilities)
        ranked = analysis.confused_pairs(matrix)
        pair = ranked[0][:2] if ranked else (0, min(1, len(s.classes) - 1))
    a, b = (s.classes[i] for i in pair)
    images = s.shown(s.val_images)
    figure = pictures.confused_pair(images, s.val_labels, s.val_predicted, pair, s.classes)
    safe = "".join(c if c.isalnum() else "-" for c in f"{a}-{b}")
    yield f"confused-pair-{safe}", figure


def _confused_pairs(s: Subject) -> Named:
    matrix = _matrix(s, s.inspected.validation, s.inspected.val_probabilities)
    title = "Most confused pairs of classes, validation split"
    yield "confused-pairs", analysis.most_confused_pairs(matrix, s.classes, title=title)


def _calibration(s: Subject) -> Named:
    yield "calibration", analysis.calibration(s.inspected.val_probabilities, s.val_labels)


def _activation_predicted(s: Subject) -> NDArray[np.int32]:
    """Predicted classes of the images that activations were recorded for."""
    positions = np.concatenate([s.inspected.validation, s.inspected.train])
    both = np.concatenate([s.inspected.val_probabilities, s.inspected.train_probabilities])
    predicted = np.empty(positions.max() + 1, np.int32)
    predicted[positions] = both.argmax(axis=1)
    return predicted[s.inspected.positions]


def _hidden(s: Subject, number: int) -> tuple[str, NDArray[np.float32]] | None:
    name = f"hidden {number}"
    found = s.inspected.activations.get(name)
    return None if found is None else (name, found)


def _activation_boxes(s: Subject) -> Named:
    found = _hidden(s, s.wishes.layer)
    if found and s.wishes.unit < found[1].shape[1]:
        name, values = found
        unit = f"{name}, unit {s.wishes.unit}"
        yield (
            f"activation-boxes-{s.wishes.layer}-{s.wishes.unit}",
            analysis.activation_boxes(
                values[:, s.wishes.unit], _activation_predicted(s), s.classes, unit
            ),
        )


def _two_pixels(s: Subject) -> Named:
    pixels = s.wishes.pixels
    if pixels is None:
        spread = s.val_images.reshape(len(s.val_images), -1).std(axis=0)
        first, second = np.sort(np.argsort(-spread, kind="stable")[:2])
        pixels = int(first), int(second)
    if max(pixels) < s.val_images[0].size:
        figure = analysis.two_pixels(s.val_images, s.val_predicted, pixels, s.classes)
        yield "two-pixels", figure


def _pca_pixels(s: Subject) -> Named:
    pixels = s.data.images[s.inspected.positions].reshape(len(s.inspected.positions), -1)
    labels = s.data.labels[s.inspected.positions]
    for components in (2, 3):
        if components <= min(pixels.shape):
            title = f"Principal components of the pixels, {components}-D"
            figure = analysis.pca_scatter(
                pixels.astype(np.float32), labels, s.classes, components, title
            )
            yield f"pca-pixels-{components}d", figure


def _last_hidden(s: Subject) -> tuple[str, NDArray[np.float32]] | None:
    return _hidden(s, len(s.inspected.activations))


def _pca_activations(s: Subject) -> Named:
    found = _last_hidden(s)
    if found is None:
        return
    name, values = found
    labels = s.data.labels[s.inspected.positions]
    for components in (2, 3):
        if components <= min(values.shape):
            title = f"Principal components of the activations of {name}, {components}-D"
            figure = analysis.pca_scatter(values, labels, s.classes, components, title)
            yield f"pca-activations-{components}d", figure


def _tsne(s: Subject) -> Named:
    found = _last_hidden(s)
    if found is not None and len(found[1]) > 3:
        name, values = found[0], found[1][: s.wishes.tsne_images]
        labels = s.data.labels[s.inspected.positions[: len(values)]]
        title = f"t-SNE of the activations of {name}, {len(values):,} images"
        figure = analysis.tsne_scatter(
            values, labels, s.classes, s.wishes.perplexity, s.trial.seed, title
        )
        yield "tsne", figure


def _forest_sample(s: Subject) -> tuple[NDArray[np.float32], Labels]:
    chosen = s.inspected.train[:FOREST_IMAGES]
    images = s.data.images[chosen].reshape(len(chosen), -1)
    return images.astype(np.float32), s.data.labels[chosen]


def _importance(s: Subject) -> Named:
    images, labels = _forest_sample(s)
    importances = analysis.forest_importances(images, labels, seed=42)
    title = f"Importance of each pixel to a forest of {len(images):,} images"
    yield "importance", pictures.importance_map(importances, s.data.image_shape, title=title)
    if s.inspected.chosen_pixels:
        chosen = np.array(s.inspected.chosen_pixels, np.int32)
        title = f"The {len(chosen)} pixels that the model sees"
    else:
        order = np.argsort(-importances, kind="stable")
        chosen = np.sort(order[: s.wishes.count or max(1, len(order) // 10)]).astype(np.int32)
        title = f"The {len(chosen)} most important pixels"
    image = s.shown(s.data.images[s.inspected.train[:1]])[0]
    figure = pictures.chosen_pixels(image, chosen, title)
    yield "chosen-pixels", figure


KINDS: dict[str, Callable[[Subject], Named]] = {
    "class-counts": _class_counts,
    "samples": _samples,
    "samples-per-class": _samples_per_class,
    "model-summary": _model_summary,
    "architecture": _architecture,
    "learning-curves": _learning_curves,
    "confusion": _confusion,
    "predictions": _predictions,
    "class-probabilities": _class_probabilities,
    "probability-table": _probability_table,
    "confused-pair": _confused_pair,
    "confused-pairs": _confused_pairs,
    "calibration": _calibration,
    "activation-boxes": _activation_boxes,
    "two-pixels": _two_pixels,
    "pca-pixels": _pca_pixels,
    "pca-activations": _pca_activations,
    "tsne": _tsne,
    "importance": _importance,
}


def draw(subject: Subject, folder: Path, kinds: Iterable[str] = ()) -> list[Path]:
    """Writes the figures of a trial as PNG files.

    Args:
        subject: the trial with all that is known of it.
        folder: made where it is missing.
        kinds: of `KINDS`; all where empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        canvas.save(figure, folder / f"{name}.png")
        for kind in (tuple(kinds) or KINDS)
        for name, figure in KINDS[kind](subject)
    ]


def draw_data(loaded: LoadedData, folder: Path) -> list[Path]:
    """Writes class counts and samples of a data set; of the test split only its counts."""
    folder.mkdir(parents=True, exist_ok=True)
    data, split = loaded.training, loaded.split
    size = len(data.classes)
    counts: dict[str, Sequence[int]] = {
        "train": tuple(np.bincount(data.labels[split.train], minlength=size).tolist()),
        "validation": tuple(np.bincount(data.labels[split.validation], minlength=size).tolist()),
        "test": loaded.test.class_counts(size),
    }
    rows = shown(data, samples(loaded, SAMPLES_PER_CLASS, seed=0).reshape(-1, *data.image_shape))
    images = rows.reshape(size, SAMPLES_PER_CLASS, *data.image_shape)
    return [
        canvas.save(figures.class_counts(counts, data.classes), folder / "class-counts.png"),
        canvas.save(pictures.samples_per_class(images, data.classes), folder / "samples.png"),
    ]


def shown(data: TrainingData, images: Images) -> Images:
    """Images for the eye: float32 in [0, 1], by the range of the pool's first thousand."""
    sample = data.images[:1000]
    low, high = float(min(0, sample.min())), float(sample.max())
    scaled = (images.astype(np.float32) - low) / max(high - low, 1e-12)
    return np.asarray(np.clip(scaled, 0.0, 1.0), np.float32)


def draw_varied(trials: Sequence[TrialRecord], folder: Path) -> list[Path]:
    """Writes a bar chart of validation accuracy over each parameter that was varied.

    Only over those that `varied` names: more values are a scatter, not bars.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    done = [t for t in trials if t.state is State.COMPLETED and t.totals]
    for parameter, groups in varied(done).items():
        title = f"Validation accuracy by {parameter.replace('_', ' ')}"
        figure = figures.bars({"validation": groups}, title, "validation accuracy", zoom=True)
        paths.append(canvas.save(figure, folder / f"bars-{as_file_name(parameter)}.png"))
    return paths


def varied(trials: Sequence[TrialRecord]) -> dict[str, dict[str, list[float]]]:
    """Validation accuracies by value, of every parameter with two to twelve values.

    Or to six, where they are not whole numbers.
    """
    found: dict[str, dict[str, list[float]]] = {}
    rows = [(flat(t.config.model_dump()), t.val_accuracy or 0.0) for t in trials]
    for parameter in sorted({name for row, _ in rows for name in row}):
        groups: dict[Any, list[float]] = {}
        for row, accuracy in rows:
            if parameter in row:
                groups.setdefault(row[parameter], []).append(accuracy)
        most = MOST_FRACTIONS if any(isinstance(v, float) for v in groups) else MOST_BARS
        if 2 <= len(groups) <= most:
            ordered = sorted(groups, key=lambda v: (isinstance(v, str), v))
            short = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in ordered]
            names = short if len(set(short)) == len(short) else map(str, ordered)
            found[parameter] = dict(zip(names, map(groups.__getitem__, ordered), strict=True))
    return found


def flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a configuration as plain values; layer sizes as `128-64`, None as "none"."""
    values: dict[str, Any] = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            values |= {f"{key}.{name}": item for name, item in value.items()}
        elif isinstance(value, tuple):
            values[key] = "-".join(map(str, value)) or "none"
        else:
            values[key] = "none" if value is None else value
    return values
