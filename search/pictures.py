"""Pictures: of images, of what a classifier makes of them, of its pixels and of its layers.

Images are uint8, or float32 of any range. Black is 0 and white is 255, or 1 for floats; floats
beyond that move it to the lowest and the highest value among the images of the figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from search.canvas import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE_BLUE,
    READABLE_CLASSES,
    RED,
    TEXT_POINTS,
    color_scale,
    legend,
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
from search.records import Layer

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int32]
Probabilities = NDArray[np.float32]

SHOWN_BARS = 10
NEW_LINE = "\n"


def _limits(images: Images) -> tuple[float, float]:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min(initial=0.0)), float(images.max(initial=1.0))
    return low, high


def _draw(
    axes: Axes,
    image: Images,
    limits: tuple[float, float],
    corner: tuple[float, float] = (-0.5, -0.5),
) -> None:
    """One image (h, w, c) with its upper left corner there, a pixel being one unit."""
    low, high = limits
    height, width, channels = image.shape
    pixels = image[..., 0] if channels == 1 else image
    if channels > 1 and image.dtype != np.uint8:
        pixels = (image - low) / (high - low)
    x, y = corner
    axes.imshow(
        pixels,
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=(x, x + width, y + height, y),
        interpolation="nearest" if max(height, width) <= 64 else "auto",
    )


def _tile(axes: Axes, images: Images, columns: int, limits: tuple[float, float]) -> None:
    """Images (n, h, w, c) in rows of `columns`, with a small gap."""
    height, width = images.shape[1:3]
    gap = max(1, height // 12)
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        _draw(axes, image, limits, (column * (width + gap), row * (height + gap)))
    rows = math.ceil(len(images) / columns)
    axes.set_xlim(-gap, columns * (width + gap))
    axes.set_ylim(rows * (height + gap), -gap)
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _grid(
    images: Images, titles: Sequence[str], columns: int, cell: float, title: str
) -> tuple[Figure, list[Axes]]:
    """Each image in axes of its own, `cell` inches wide, under its title."""
    columns = max(1, min(columns, len(images)))
    rows = max(1, math.ceil(len(images) / columns))
    lines = 1 + max((text.count("\n") for text in titles), default=0)
    height = cell * images.shape[1] / images.shape[2] + 0.05 + 0.15 * lines
    figure = new_figure(max(2.5, columns * cell + 0.2), rows * height + 0.5, title)
    limits, drawn = _limits(images), []
    for position, (image, text) in enumerate(zip(images, titles, strict=True), 1):
        axes = figure.add_subplot(rows, columns, position)
        _draw(axes, image, limits)
        _bare(axes)
        axes.set_title(text, fontsize=TEXT_POINTS, pad=2, color=INK)
        drawn.append(axes)
    return figure, drawn


def sample_images(
    images: Images,
    labels: Labels,
    classes: Sequence[str],
    columns: int = 10,
    title: str = "Sample images",
) -> Figure:
    """Every image with its class above it.

    Args:
        images: uint8 or float32 (n, h, w, c), c = 1 or 3.
        labels: int32 (n,).
    """
    titles = [plain(classes[label], 0.9) for label in labels]
    return _grid(images, titles, columns, 0.95, title)[0]


def samples_per_class(
    images: Images, classes: Sequence[str], title: str = "Samples of each class"
) -> Figure:
    """A row of images for every class; a grid of them where there is one image of each.

    Args:
        images: uint8 or float32 (classes, k, h, w, c), c = 1 or 3.
    """
    count, each, height, width, channels = images.shape
    if each == 1:
        return _grid(images[:, 0], [plain(name, 1.15) for name in classes], 5, 1.2, title)[0]
    gap = max(1, height // 12)
    cell = 0.55
    figure = new_figure(max(3.5, 1.5 + cell * each), 0.6 + cell * count * height / width, title)
    axes = figure.add_subplot()
    _tile(axes, images.reshape(-1, height, width, channels), each, _limits(images))
    middles = np.arange(count) * (height + gap) + height / 2
    axes.set_yticks(middles, [plain(name) for name in classes], fontsize=TEXT_POINTS)
    axes.tick_params(length=0)
    return figure


def predictions(
    images: Images,
    labels: Labels,
    probabilities: Probabilities,
    classes: Sequence[str],
    columns: int = 5,
    title: str = "Predicted class (true class), probability of the predicted",
) -> Figure:
    """Every image under its predicted class, how sure that is, and the true class in brackets.

    Wrong ones have a red title and, for those who see no red, a frame.

    Args:
        images: uint8 or float32 (n, h, w, c), c = 1 or 3.
        labels: int32 (n,).
        probabilities: float32 (n, classes).
    """
    predicted = probabilities.argmax(axis=1)
    brief = all(len(name) <= 4 for name in classes)
    titles = [
        f"{plain(classes[guess], 1.3)}{' ' if brief else NEW_LINE}({plain(classes[label], 0.9)})"
        f", {row[guess]:.0%}"
        for guess, label, row in zip(predicted, labels, probabilities, strict=True)
    ]
    figure, drawn = _grid(images, titles, columns, 1.5, title)
    for axes, right in zip(drawn, predicted == labels, strict=True):
        if not right:
            axes.title.set_color(RED)
            axes.spines[:].set(visible=True, color=RED, linewidth=2.0)
    return figure


def class_probabilities(
    images: Images,
    probabilities: Probabilities,
    labels: Labels,
    classes: Sequence[str],
    title: str = "Class probabilities",
) -> Figure:
    """Beside every image, the probabilities of the classes; the 10 highest where there are more.

    The true class is always among them.

    Args:
        images: uint8 or float32 (n, h, w, c), c = 1 or 3.
        probabilities: float32 (n, classes).
        labels: int32 (n,).
    """
    pairs = min(2, max(1, len(images)))
    rows = max(1, math.ceil(len(images) / pairs))
    shown = min(len(classes), SHOWN_BARS)
    figure = new_figure(5.2 * pairs + 1.2, 0.6 + rows * max(1.6, 0.4 + 0.19 * shown), title)
    grid = figure.add_gridspec(rows, 2 * pairs, width_ratios=[1.0, 1.7] * pairs)
    limits = _limits(images)
    for position, (image, row, label) in enumerate(zip(images, probabilities, labels, strict=True)):
        line, pair = divmod(position, pairs)
        axes = figure.add_subplot(grid[line, 2 * pair])
        _draw(axes, image, limits)
        _bare(axes)
        _draw_probabilities(figure.add_subplot(grid[line, 2 * pair + 1]), row, int(label), classes)
    meanings = ("predicted, right", "predicted, wrong", "true, not predicted", "other")
    legend(figure, swatches((BLUE, RED, ORANGE, GREY)), meanings)
    return figure


def _draw_probabilities(axes: Axes, row: Probabilities, label: int, classes: Sequence[str]) -> None:
    guess = int(row.argmax())
    shown = np.arange(len(row))
    if len(row) > SHOWN_BARS:
        shown = np.argsort(-row, kind="stable")[:SHOWN_BARS]
        shown = shown if label in shown else np.append(shown[:-1], label)
    colours = [
        (BLUE if guess == label else RED) if i == guess else ORANGE if i == label else GREY
        for i in shown
    ]
    axes.barh(range(len(shown)), row[shown], 0.8, color=colours)
    for y, value in enumerate(row[shown]):
        write_value(axes, _percent(value), value, y)
    name_rows(axes, [classes[int(i)] for i in shown])
    tidy(axes)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _percent(value: float) -> str:
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def probability_table(
    probabilities: Probabilities,
    labels: Labels,
    classes: Sequence[str],
    title: str = "Class probabilities",
) -> Figure:
    """A row per image, a column per class, shaded by probability; the true class is framed.

    Percentages are written where there is room (20 classes), and those below 1 left out.

    Args:
        probabilities: float32 (n, classes).
        labels: int32 (n,).
    """
    count = probabilities.shape[1]
    cell = 0.5 if count <= READABLE_CLASSES else 0.26
    names = [classes[label] for label in labels]
    width, height = table_size(names, classes, cell, 0.26)
    figure = new_figure(width if count <= READABLE_CLASSES else width + 1.0, height, title)
    axes = figure.add_subplot()
    axes.imshow(probabilities, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(probabilities):
        if count <= READABLE_CLASSES and value >= 0.005:
            colour = "white" if value > 0.6 else INK
            write(axes, f"{100 * value:.0f}", column, row, color=colour)
    for row, label in enumerate(labels):
        corner = (label - 0.47, row - 0.46)
        axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor=ORANGE, linewidth=1.8))
    unit = " (numbers are percent; framed: the true class)"
    text = "Class" + (unit if count <= READABLE_CLASSES else " (framed: the true one)")
    tidy(axes, text, "True class of the image")
    name_rows(axes, names)
    name_columns(axes, classes, cell)
    axes.spines[:].set_visible(False)
    if count > READABLE_CLASSES:
        color_scale(figure, axes.images[0], "Probability", PercentFormatter(1.0))
    return figure


def confused_pair(
    images: Images,
    labels: Labels,
    predicted: Labels,
    pair: tuple[int, int],
    classes: Sequence[str],
    per_cell: int = 25,
) -> Figure:
    """The images of two classes that were taken for one of the two: rows true, columns predicted.

    Args:
        images: uint8 or float32 (n, h, w, c), c = 1 or 3, of the same split as the labels.
        labels: int32 (n,), the true classes.
        predicted: int32 (n,).
        per_cell: at most so many images per cell, the first ones.
    """
    names = [plain(classes[i], 1.0) for i in pair]
    figure = new_figure(7.0, 7.6, " and ".join(classes[i] for i in pair))
    columns = max(1, math.ceil(math.sqrt(per_cell)))
    limits = _limits(images)
    for position, axes in enumerate(figure.subplots(2, 2).flat):
        row, column = divmod(position, 2)
        chosen = np.flatnonzero((labels == pair[row]) & (predicted == pair[column]))
        kept = chosen[:per_cell]
        _tile(axes, images[kept], columns, limits)
        axes.set_ylim(axes.get_xlim()[::-1])
        amount = f"{len(chosen):,}" + (
            f", the first {len(kept)} shown" if len(kept) < len(chosen) else ""
        )
        text = f"true {names[row]}, predicted {names[column]}: {amount}"
        axes.set_title(text, fontsize=TEXT_POINTS + 1, color=INK if row == column else RED)
        if not len(kept):
            write(axes, "none", 0.5, 0.5, transform=axes.transAxes, fontsize=TEXT_POINTS + 4)
            axes.set_aspect("equal")
    return figure


def importance_map(
    importances: NDArray[np.float64],
    image_shape: tuple[int, int, int],
    positions: NDArray[np.int32] | None = None,
    title: str = "Importance of each pixel",
) -> Figure:
    """A heat map of what each pixel counts for; the channels of a pixel are summed.

    Args:
        importances: float64 (h * w * c,), or (k,) of the pixels at `positions`.
        image_shape: height, width, channels.
        positions: int32 (k,) in the flattened image; the other pixels are left blank.
    """
    values = np.full(math.prod(image_shape), np.nan)
    values[slice(None) if positions is None else positions] = importances
    blank = np.isnan(values).reshape(image_shape).all(axis=2)
    sums = np.nansum(values.reshape(image_shape), axis=2)
    figure = new_figure(5.4, 4.8, title)
    axes = figure.add_subplot()
    top = float(sums.max()) or 1.0
    picture = axes.imshow(np.ma.array(sums, mask=blank), cmap="viridis", vmin=0, vmax=top)
    tidy(axes, "Column", "Row")
    color_scale(figure, picture, "Importance", "{x:.3g}")
    return figure


def chosen_pixels(
    image: Images, positions: NDArray[np.int32], title: str = "Chosen pixels"
) -> Figure:
    """The chosen pixels in colour over an image.

    Args:
        image: uint8 or float32 (h, w, c), c = 1 or 3.
        positions: int32 (k,) in the flattened image; one channel is enough to mark a pixel.
    """
    mask = np.zeros(image.size, dtype=bool)
    mask[positions] = True
    marked = mask.reshape(image.shape).any(axis=2)
    figure = new_figure(4.8, 4.9, title)
    axes = figure.add_subplot()
    _draw(axes, image, _limits(image))
    axes.imshow(np.ma.masked_equal(marked, False), cmap=ListedColormap([ORANGE]), alpha=0.75)
    tidy(axes, f"Column ({int(marked.sum()):,} of {marked.size:,} pixels chosen)", "Row")
    return figure


def architecture(layers: Sequence[Layer], title: str = "Architecture") -> Figure:
    """The layers as boxes from top to bottom; beside each arrow, the shape that it carries."""
    figure = new_figure(4.6, 0.6 + 0.85 * len(layers), title)
    axes = figure.add_subplot(xlim=(0, 4.4), ylim=(max(1, len(layers)), 0))
    axes.set_axis_off()
    for top, layer in enumerate(layers):
        colour = PALE_BLUE if layer.parameters else "#f0f2f3"
        shape = "round,pad=0,rounding_size=0.06"
        axes.add_patch(FancyBboxPatch((0.2, top), 4.0, 0.58, shape, fc=colour, ec=GREY))
        amount = f"{layer.parameters:,} parameters" if layer.parameters else "no parameters"
        write(axes, plain(layer.kind, 1.9), 0.35, top + 0.19, ha="left", weight="bold")
        write(axes, plain(layer.name, 1.5), 4.05, top + 0.19, ha="right")
        write(axes, plain(layer.detail, 2.2), 0.35, top + 0.42, ha="left")
        write(axes, amount, 4.05, top + 0.42, ha="right")
        arrow = {"arrowstyle": "->", "color": INK, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (2.2, top + 1), (2.2, top + 0.58), arrowprops=arrow)
        write(axes, _shape_text(layer.output_shape), 2.3, top + 0.77, ha="left")
    return figure


def _shape_text(shape: Sequence[int | None]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(
        "?" if size is None else f"{size:,}" for size in shape[1:]
    )


def model_summary(layers: Sequence[Layer], title: str = "Model summary") -> Figure:
    """A table of the layers, with the total of their parameters."""
    head = ("Layer", "Kind", "Output shape", "Parameters", "Detail")
    rows = [
        (r.name, r.kind, _shape_text(r.output_shape), f"{r.parameters:,}", r.detail) for r in layers
    ]
    total = f"{sum(layer.parameters for layer in layers):,}"
    table = [head, *rows, ("Total", "", "", total, "")]
    figure = new_figure(8.4, 0.5 + 0.27 * len(table), title)
    axes = figure.add_subplot(xlim=(0, 8.2), ylim=(len(table), 0))
    axes.set_axis_off()
    columns = ((0.1, 1.6), (1.8, 1.5), (3.4, 1.3), (5.7, 1.0), (5.95, 2.2))
    for number, row in enumerate(table):
        weight = "bold" if number in (0, len(table) - 1) else "normal"
        for column, (text, (x, inches)) in enumerate(zip(row, columns, strict=True)):
            align = "right" if column == 3 else "left"
            write(axes, plain(text, inches), x, number + 0.5, ha=align, weight=weight)
    for y in (1, len(table) - 1):
        axes.axhline(y, color=INK, linewidth=0.8)
    return figure
