"""Charts of data, training and results. Pure: arrays and text in, a `Figure` out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from search.canvas import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    PALETTE,
    RED,
    TEXT_POINTS,
    legend,
    name_rows,
    new_figure,
    plain,
    swatches,
    tidy,
    write,
    write_value,
)


def class_counts(
    counts: Mapping[str, Sequence[int]], classes: Sequence[str], title: str = "Images per class"
) -> Figure:
    """Bars with their values, one per class and split.

    Args:
        counts: of each split, images per class, in the order of `classes`.
    """
    lengths = np.array([counts[split] for split in counts], dtype=np.float64)
    figure = new_figure(7.5, 1.2 + len(classes) * (0.12 + 0.16 * len(counts)), title)
    axes = figure.add_subplot()
    texts = [[f"{count:,.0f}" for count in row] for row in lengths]
    _draw_groups(axes, lengths, np.zeros_like(lengths), texts)
    name_rows(axes, classes)
    tidy(axes, "Images")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if len(counts) > 1:
        legend(figure, swatches(map(_colour, range(len(counts)))), list(counts))
    return figure


def _draw_groups(
    axes: Axes,
    lengths: NDArray[np.float64],
    spreads: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    start: float = 0.0,
) -> None:
    """Bars from `start`, a group per column and a colour per row; none where the length is NaN."""
    rows, groups = lengths.shape
    thickness = 0.8 / rows
    for row in range(rows):
        middles = np.arange(groups) + (row - (rows - 1) / 2) * thickness
        ends, whiskers = lengths[row], spreads[row]
        known = np.isfinite(ends)
        colour = _colour(row)
        axes.barh(middles[known], ends[known] - start, 0.92 * thickness, left=start, color=colour)
        spread = whiskers > 0
        if spread.any():
            xerr = whiskers[spread]
            axes.errorbar(
                ends[spread], middles[spread], xerr=xerr, fmt="none", ecolor=INK, capsize=2
            )
        for middle, end, whisker, text in zip(middles, ends, whiskers, texts[row], strict=True):
            foot = max(end + whisker, start) if np.isfinite(end) else start
            write_value(axes, text, foot, middle)
    known = np.isfinite(lengths)
    low = float((lengths - spreads)[known].min(initial=np.inf))
    high = float((lengths + spreads)[known].max(initial=start))
    axes.set_xlim(min(low, 0.0) if low < 0 else start, high if high > start else start + 1)


def _colour(row: int) -> str:
    return PALETTE[row % len(PALETTE)]


def learning_curves(
    curves: Mapping[str, Sequence[float]],
    log_loss: bool = False,
    best_epoch: int | None = None,
    title: str = "Learning curves",
) -> Figure:
    """Loss and accuracy by epoch, of train and validation, in two panels.

    Args:
        curves: train_loss, val_loss, train_accuracy and val_accuracy, or some of them; the first
            value is that of epoch 1. Accuracies are fractions.
        log_loss: draws the loss on a logarithmic scale, if any of it is positive.
        best_epoch: marked in both panels; counted from 1.
    """
    figure = new_figure(9.5, 3.8, title)
    loss, accuracy = figure.subplots(1, 2)
    for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
        _draw_curves(axes, curves, measure)
        tidy(axes, "Epoch", measure.capitalize())
        if best_epoch is not None:
            axes.axvline(best_epoch, color=INK, linewidth=0.9, linestyle=":")
            place: dict[str, Any] = {"va": "bottom", "transform": axes.get_xaxis_transform()}
            write(axes, f"best epoch: {best_epoch}", best_epoch, 1.01, **place)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    losses = [v for key in ("train_loss", "val_loss") for v in curves.get(key, ())]
    if log_loss and any(value > 0 for value in losses):
        loss.set_yscale("log")
        loss.set_ylabel("Loss (logarithmic)")
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, Sequence[float]], measure: str) -> None:
    longest = max((len(values) for values in curves.values()), default=1)
    marker = "o" if longest <= 30 else ""
    for prefix, name, colour, dashes in (
        ("train", "train", BLUE, "--"),
        ("val", "validation", ORANGE, "-"),
    ):
        values = curves.get(f"{prefix}_{measure}", ())
        if len(values):
            (line,) = axes.plot(range(1, len(values) + 1), values, label=name)
            line.set(color=colour, linestyle=dashes, marker=marker, markersize=3.0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(0.5, longest + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend(fontsize=TEXT_POINTS, frameon=False)


def bars(
    series: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    measure: str,
    percent: bool = True,
    zoom: bool = False,
) -> Figure:
    """Means over runs as bars, with their values; whiskers are standard deviations (n - 1).

    Args:
        series: of each series, such as train and validation, the values of each bar: one per run.
            A bar that a series lacks is left out; one with a value that is not finite says so.
        measure: what the values are.
        percent: the values are fractions, to be read as percent.
        zoom: starts the axis near the shortest bar instead of at 0, and says so beside it. Not
            done where a value is negative.
    """
    names = list(dict.fromkeys(name for values in series.values() for name in values))
    runs = [[list(values.get(name, ())) for name in names] for values in series.values()]
    means = np.array([[np.mean(v) if v else np.nan for v in row] for row in runs])
    spreads = np.array([[_spread(v) for v in row] for row in runs])
    start = _cut(means, spreads) if zoom else 0.0
    figure = new_figure(8.0, 1.3 + len(names) * (0.14 + 0.2 * len(series)), title)
    axes = figure.add_subplot()
    texts = [[_value_text(v, percent) for v in row] for row in runs]
    _draw_groups(axes, means, spreads, texts, start)
    name_rows(axes, names)
    tidy(axes, plain(measure, 3.0) + _runs_text(runs))
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    if start:
        axes.spines["left"].set_linestyle((0, (2, 3)))
        cut = f"{100 * start:.6g}%" if percent else f"{start:.4g}"
        axes.set_xlabel(f"{axes.get_xlabel()}\n(axis is cut: starts at {cut}, not 0)")
    if len(series) > 1:
        legend(figure, swatches(map(_colour, range(len(series)))), list(series))
    return figure


def _spread(values: Sequence[float]) -> float:
    usable = len(values) > 1 and bool(np.isfinite(values).all())
    return float(np.std(values, ddof=1)) if usable else 0.0


def _cut(means: NDArray[np.float64], spreads: NDArray[np.float64]) -> float:
    """Where a zoomed axis starts: a round number below everything drawn; 0 if none would help."""
    known = np.isfinite(means)
    low = float((means - spreads)[known].min(initial=np.inf))
    high = float((means + spreads)[known].max(initial=-np.inf))
    if not 0 < low < high:
        return 0.0
    step = 10.0 ** math.floor(math.log10(high - low))
    return max(0.0, step * math.floor((low - 0.2 * (high - low)) / step))


def _value_text(values: Sequence[float], percent: bool) -> str:
    if not values:
        return ""
    if not np.isfinite(values).all():
        return "undefined"
    mean, spread = float(np.mean(values)), _spread(values)
    text = _number(mean, percent)
    if len(values) == 1:
        return text
    return f"{text} ± {100 * spread:.2f}" if percent else f"{text} ± {spread:.2g}"


def _number(value: float, percent: bool) -> str:
    return f"{value:.2%}" if percent else f"{value:.4g}"


def _runs_text(runs: Iterable[Iterable[Sequence[float]]]) -> str:
    counts = {len(values) for row in runs for values in row if values}
    most, least = max(counts, default=0), min(counts, default=0)
    if most < 2:
        return ""
    return f": mean ± standard deviation of {most if most == least else f'{least} to {most}'} runs"


def distribution(
    values: Mapping[str, Sequence[float]],
    title: str,
    measure: str,
    percent: bool = True,
    published: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """Each run a dot, with the median of each row: what another start of the same model gives.

    Args:
        values: of each row, one finite value per run.
        measure: what the values are.
        percent: the values are fractions, to be read as percent.
        published: values of others to mark in rows of the same name.
    """
    figure = new_figure(9.0, 1.4 + 0.5 * len(values), title)
    axes = figure.add_subplot()
    seen: dict[str, Artist] = {}
    for row, (name, results) in enumerate(values.items()):
        # Runs next to each other in rank are the ones that would hide each other.
        heights = np.empty(len(results))
        heights[np.argsort(results)] = row + np.resize([0.0, 0.14, -0.14], len(results))
        if len(results):
            seen["a run"] = axes.scatter(
                results, heights, s=26, color=BLUE, alpha=0.8, linewidths=0
            )
            (seen["median"],) = axes.plot([np.median(results)] * 2, [row - 0.3, row + 0.3], c=INK)
            middle = _number(float(np.median(results)), percent)
            text, edge = f"median of {len(results)}: {middle}", axes.get_yaxis_transform()
            write(axes, text, 1.01, row, transform=edge, ha="left")
        others = (published or {}).get(name, ())
        if len(others):
            rows = [row] * len(others)
            seen["published"] = axes.scatter(
                others, rows, s=34, marker="D", c="none", edgecolors=RED
            )
    name_rows(axes, list(values))
    tidy(axes, plain(measure, 5.0))
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    legend(figure, seen.values(), list(seen))
    return figure
