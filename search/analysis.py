"""What a trained model does, computed and drawn: confusion, calibration, and its features.

Scikit-learn computes; where there is too little to compute from, the answer is zeros, so that a
report on a failed model is still a report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from search.canvas import (
    BLUE,
    FAINT,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    PALETTE,
    READABLE_CLASSES,
    RED,
    TEXT_POINTS,
    color_scale,
    legend,
    longest,
    name_columns,
    name_rows,
    new_figure,
    plain,
    swatches,
    table_size,
    tidy,
    write,
    write_value,
)

Matrix = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]
Features = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.uint8]
Labels = NDArray[np.int32]

FEW_POINTS = 200
MARKERS = "o^sDvP*Xd<>"
"""A shape for every ten classes, since there are ten colours."""


def confusion(
    matrix: Matrix,
    classes: Sequence[str],
    title: str = "Confusion matrix",
    logarithmic: bool = False,
) -> Figure:
    """The confusion matrix in colours, with its counts where there is room (20 classes).

    Args:
        matrix: int (k, k), rows true, columns predicted.
        logarithmic: colours by the logarithm, which shows errors of a good model; 0 stays white.
    """
    count = len(matrix)
    cell = max(0.52, 2.4 / max(1, count)) if count <= READABLE_CLASSES else 0.24
    scaled = logarithmic or count > READABLE_CLASSES
    width, height = table_size(classes, classes, cell, cell)
    figure = new_figure(width + 1.0 if scaled else width, height, title)
    axes = figure.add_subplot()
    top = int(matrix.max(initial=0))
    norm = LogNorm(1, max(10, top)) if logarithmic else Normalize(0, max(1, top))
    shown = np.ma.masked_equal(matrix, 0) if logarithmic else matrix
    picture = axes.imshow(shown, cmap=_blues(0.15 if logarithmic else 0.0), norm=norm)
    if count <= READABLE_CLASSES:
        shades = np.asarray(norm(shown))
        for (row, column), value in np.ndenumerate(matrix):
            dark = value > 0 and shades[row, column] > 0.6
            colour = "white" if dark else INK if value else GREY
            write(axes, f"{value:,}", column, row, color=colour, fontsize=TEXT_POINTS - 0.5)
    tidy(axes, "Predicted class", "True class")
    name_rows(axes, classes)
    name_columns(axes, classes, cell)
    axes.spines[:].set(visible=True, color=FAINT)
    if scaled:
        text = "Images (logarithmic)" if logarithmic else "Images"
        color_scale(figure, picture, text, "{x:,.0f}")
    return figure


def _blues(palest: float) -> ListedColormap:
    """Blues from there on, so that one image differs from none, which is white."""
    return ListedColormap(colormaps["Blues"](np.linspace(palest, 1.0, 256)))


def confused_pairs(matrix: Matrix) -> list[tuple[int, int, int]]:
    """The unordered pairs (a, b), a < b, with the images of either taken for the other.

    Most confused first, then by class; pairs without a confusion are left out.

    Args:
        matrix: int (k, k), rows true, columns predicted.
    """
    both = matrix + matrix.T
    pairs = [(a, b, int(both[a, b])) for a, b in combinations(range(len(both)), 2)]
    return sorted((pair for pair in pairs if pair[2]), key=lambda pair: (-pair[2], pair[:2]))


def most_confused_pairs(
    matrix: Matrix,
    classes: Sequence[str],
    top: int = 10,
    title: str = "Most confused pairs of classes",
) -> Figure:
    """Bars of the most confused pairs, each in two parts: which of the two was the true one.

    Args:
        matrix: int (k, k), rows true, columns predicted.
    """
    pairs = confused_pairs(matrix)[:top]
    figure = new_figure(8.0, 1.4 + 0.32 * len(pairs), title)
    axes = figure.add_subplot()
    if not pairs:
        write(axes, "no image was misclassified", 0.5, 0.5)
        axes.set_axis_off()
        return figure
    first, second = zip(*((matrix[a, b], matrix[b, a]) for a, b, _ in pairs), strict=True)
    rows = np.arange(len(pairs))
    axes.barh(rows, first, 0.75, color=BLUE)
    axes.barh(rows, second, 0.75, left=first, color=ORANGE)
    for row, (_, _, count) in enumerate(pairs):
        write_value(axes, f"{count:,}", count, row)
    name_rows(axes, [f"{classes[a]} and {classes[b]}" for a, b, _ in pairs])
    tidy(axes, "Images")
    meanings = ("first taken for second", "second taken for first")
    legend(figure, swatches((BLUE, ORANGE)), meanings)
    return figure


@dataclass(frozen=True, slots=True)
class Reliability:
    """How sure a classifier is, against how often it is right, in equal bins of sureness.

    Attributes:
        confidence: float64 (bins,), mean of the highest probability; NaN where a bin is empty.
        accuracy: float64 (bins,), likewise.
        counts: int64 (bins,), images.
        error: expected calibration error: the mean gap of the two, over the images.
    """

    confidence: Floats
    accuracy: Floats
    counts: Matrix
    error: float


def reliability(probabilities: NDArray[np.float32], labels: Labels, bins: int = 15) -> Reliability:
    """Confidence and accuracy in bins (lower, upper] of equal width.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        probabilities: float32 (n, classes).
        labels: int32 (n,).
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    places = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    counts, confidence, accuracy = (
        np.bincount(places, weights, bins) for weights in (None, sure, right)
    )
    error = float(np.abs(accuracy - confidence).sum() / max(1, len(labels)))
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(confidence / filled, accuracy / filled, counts.astype(np.int64), error)


def calibration(
    probabilities: NDArray[np.float32], labels: Labels, title: str = "Calibration"
) -> Figure:
    """Reliability diagram in 15 bins, over the share of the images that each bin holds.

    Args:
        probabilities: float32 (n, classes).
        labels: int32 (n,).
    """
    result = reliability(probabilities, labels)
    bins = len(result.counts)
    middles = (np.arange(bins) + 0.5) / bins
    full = result.counts > 0
    figure = new_figure(5.6, 6.2, f"{title}: expected calibration error {result.error:.2%}")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.bar(middles[full], result.accuracy[full], 0.92 / bins, color=BLUE, label="accuracy")
    upper.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, label="perfect")
    upper.plot(middles[full], result.confidence[full], "D", color=ORANGE, label="mean confidence")
    upper.legend(fontsize=TEXT_POINTS, frameon=False, loc="upper left")
    tidy(upper, "", "Accuracy")
    shares = result.counts / max(1, len(labels))
    lower.bar(middles, shares, 0.92 / bins, color=GREY)
    tidy(lower, "Confidence: highest probability", "Share of images")
    upper.set_ylim(0, 1)
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def activation_boxes(
    activation: NDArray[np.float32],
    predicted: Labels,
    classes: Sequence[str],
    unit: str,
    title: str = "Activation by predicted class",
) -> Figure:
    """A box per class of what one hidden unit answers to its images.

    Args:
        activation: float32 (n,).
        predicted: int32 (n,).
        unit: which unit it is, such as "unit 3 of layer dense_1".
    """
    groups = [activation[predicted == label] for label in range(len(classes))]
    held = [label for label, group in enumerate(groups) if len(group)]
    figure = new_figure(7.5, 1.3 + 0.32 * len(classes), title)
    axes = figure.add_subplot()
    if held:
        axes.boxplot(
            [groups[label] for label in held],
            positions=held,
            orientation="horizontal",
            widths=0.6,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": PALE_BLUE, "edgecolor": BLUE},
            medianprops={"color": RED, "linewidth": 1.8},
            whiskerprops={"color": BLUE},
            capprops={"color": BLUE},
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": GREY, "alpha": 0.5},
        )
    counts = [f"{len(group):,}" for group in groups]
    name_rows(axes, [f"{c} ({n})" for c, n in zip(classes, counts, strict=True)])
    tidy(axes, f"Activation of {plain(unit, 4.0)}", "Predicted class (images)")
    return figure


def _scatter(axes: Axes, points: Floats, labels: Labels, classes: Sequence[str]) -> None:
    """Points (n, 2 or 3), in their own order, so that no class hides the others."""
    size = float(np.clip(24_000 / max(1, len(points)), 5, 30))
    space = {"depthshade": False} if points.shape[1] == 3 else {}
    for turn in range(math.ceil(len(classes) / len(PALETTE))):
        mine = labels // len(PALETTE) == turn
        colours = [PALETTE[label % len(PALETTE)] for label in labels[mine]]
        style: dict[str, Any] = {"c": colours, "s": size, "linewidths": 0, "alpha": 0.75, **space}
        if mine.any():
            axes.scatter(*points[mine].T, marker=MARKERS[turn % len(MARKERS)], **style)


def _scatter_figure(classes: Sequence[str], title: str) -> Figure:
    """A figure with the colours of the classes in a legend, and as wide as that needs."""
    columns = math.ceil(len(classes) / 25)
    figure = new_figure(6.0 + columns * (0.7 + longest(classes)), 5.8, title)
    handles = [
        Line2D([], [], linestyle="", color=PALETTE[i % 10], marker=MARKERS[i // 10 % len(MARKERS)])
        for i in range(len(classes))
    ]
    legend(figure, handles, classes)
    return figure


def _name_clusters(axes: Axes, points: Floats, labels: Labels, classes: Sequence[str]) -> None:
    """Each class by name at the point of its own that is nearest to its median."""
    for label in np.unique(labels):
        mine = points[labels == label]
        x, y = mine[np.linalg.norm(mine - np.median(mine, axis=0), axis=1).argmin()]
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.85}
        edge = PALETTE[label % len(PALETTE)]
        write(axes, plain(classes[label], 1.0), x, y, bbox={**box, "edgecolor": edge})


def pca(features: Features, components: int) -> tuple[Floats, Floats]:
    """Points (n, components) and the fraction of the variance that each component explains.

    Components that the features do not have, being too few or constant, are zeros.

    Args:
        features: float or uint8 (n, d).
    """
    points, explained = np.zeros((len(features), components)), np.zeros(components)
    kept = min(components, *features.shape)
    if len(features) > 1 and np.ptp(features, axis=0).any():
        model = PCA(kept, random_state=0)
        points[:, :kept] = model.fit_transform(features)
        explained[:kept] = model.explained_variance_ratio_
    return points, explained


def pca_scatter(
    features: Features,
    labels: Labels,
    classes: Sequence[str],
    components: int = 2,
    title: str = "Principal components",
) -> Figure:
    """The first principal components, coloured by class, with the variance that each explains.

    Args:
        features: float or uint8 (n, d), such as flattened pixels or hidden activations.
        labels: int32 (n,).
        components: 2, or 3 for a drawing in space.
    """
    points, explained = pca(features, components)
    figure = _scatter_figure(classes, title)
    axes = figure.add_subplot(projection="3d") if components == 3 else figure.add_subplot()
    _scatter(axes, points, labels, classes)
    tidy(axes)
    for name, fraction in zip("xyz"[:components], explained, strict=True):
        text = f"Component {'xyz'.index(name) + 1} ({fraction:.1%} of the variance)"
        getattr(axes, f"set_{name}label")(text, fontsize=TEXT_POINTS + 1)
    if components == 2 and len(classes) <= READABLE_CLASSES:
        _name_clusters(axes, points, labels, classes)
    return figure


def tsne(features: Features, perplexity: float = 40.0, seed: int = 0) -> Floats:
    """Points (n, 2) of t-SNE (van der Maaten and Hinton, JMLR 9, 2008), the same for a seed.

    Args:
        features: float or uint8 (n, d).
        perplexity: lowered to a third of the other points where those are few.
    """
    count = len(features)
    if count < 2:
        return np.zeros((count, 2))
    # TSNE's own start from PCA fails on one feature and on constant ones.
    start, _ = pca(features, 2)
    spread = start[:, 0].std()
    init = (start / spread * 1e-4).astype(np.float32) if spread else "random"
    perplexity = _usable(perplexity, count)
    # Of few points the exact gradient is faster than threads that wait for each other.
    method = "exact" if count <= FEW_POINTS else "barnes_hut"
    model = TSNE(perplexity=perplexity, init=init, method=method, random_state=seed)
    # Beside workers that train, OpenMP's threads wait for each other: three times as slow as one.
    with threadpool_limits(1):
        return np.asarray(model.fit_transform(features), dtype=np.float64)


def _usable(perplexity: float, count: int) -> float:
    return min(perplexity, max(0, count - 1) / 3)


def tsne_scatter(
    features: Features,
    labels: Labels,
    classes: Sequence[str],
    perplexity: float = 40.0,
    seed: int = 0,
    title: str = "t-SNE",
) -> Figure:
    """t-SNE to two dimensions, coloured by class; its title tells the perplexity that was used.

    Args:
        features: float or uint8 (n, d).
        labels: int32 (n,).
        perplexity: see `tsne`.
    """
    points, used = tsne(features, perplexity, seed), _usable(perplexity, len(features))
    figure = _scatter_figure(classes, f"{title} (perplexity {used:.3g})")
    axes = figure.add_subplot()
    _scatter(axes, points, labels, classes)
    tidy(axes)
    axes.set(xticks=[], yticks=[])
    if len(classes) <= READABLE_CLASSES:
        _name_clusters(axes, points, labels, classes)
    return figure


def two_pixels(
    images: Features,
    predicted: Labels,
    pixels: tuple[int, int],
    classes: Sequence[str],
    title: str = "Two pixels by predicted class",
) -> Figure:
    """The values of two pixels against each other, coloured by predicted class.

    Args:
        images: uint8 or float32 (n, h, w, c).
        predicted: int32 (n,).
        pixels: positions in the flattened image.
    """
    points = images.reshape(len(images), -1)[:, list(pixels)].astype(np.float64)
    figure = _scatter_figure(classes, title)
    axes = figure.add_subplot()
    _scatter(axes, points, predicted, classes)
    places = [np.unravel_index(pixel, images.shape[1:3] + images.shape[3:]) for pixel in pixels]
    names = [
        f"Value of pixel {pixel} (row {place[0]}, column {place[1]}"
        + (f", channel {place[2]})" if images.shape[3] > 1 else ")")
        for pixel, place in zip(pixels, places, strict=True)
    ]
    tidy(axes, *names)
    return figure


def forest_importances(images: Features, labels: Labels, seed: int, trees: int = 100) -> Floats:
    """What each pixel counts for in a random forest: float64 (h * w * c,), summing to 1.

    The mean decrease in impurity (Breiman 2001); all 0 where no tree could split.

    Args:
        images: uint8 or float32 (n, h, w, c).
        labels: int32 (n,).
    """
    forest = RandomForestClassifier(n_estimators=trees, random_state=seed)
    forest.fit(images.reshape(len(images), -1), labels)
    return np.asarray(forest.feature_importances_, dtype=np.float64)
