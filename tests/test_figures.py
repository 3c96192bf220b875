from __future__ import annotations

import ast
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cbook import is_math_text
from matplotlib.colors import LogNorm, Normalize, same_color, to_rgba
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier

from search.analysis import (
    activation_boxes,
    calibration,
    confused_pairs,
    confusion,
    forest_importances,
    most_confused_pairs,
    pca,
    pca_scatter,
    reliability,
    tsne,
    tsne_scatter,
    two_pixels,
)
from search.canvas import (
    BLUE,
    GREY,
    ORANGE,
    PALETTE,
    RED,
    longest,
    new_figure,
    plain,
    save,
)
from search.figures import (
    bars,
    class_counts,
    distribution,
    learning_curves,
)
from search.pictures import (
    Images,
    architecture,
    chosen_pixels,
    class_probabilities,
    confused_pair,
    importance_map,
    model_summary,
    predictions,
    probability_table,
    sample_images,
    samples_per_class,
)
from search.records import Layer

CLASSES = ("cat", "dog", "eel")
AWKWARD = (
    "$x$",
    "costs $1 or $2",
    "_hidden",
    "<b>&amp;</b>",
    "日本\x00🙂",
    r"\$\frac{1}",
    "",
    "  \n ",
)
RNG_SEED = 3


def _rng() -> np.random.Generator:
    return np.random.default_rng(RNG_SEED)


def _images(count: int, height: int = 5, width: int = 4, channels: int = 1) -> NDArray[np.uint8]:
    return _rng().integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def _labels(*values: int) -> NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def _sure_of(guesses: list[int], classes: int = 3, sureness: float = 0.9) -> NDArray[np.float32]:
    rows = np.full((len(guesses), classes), (1 - sureness) / max(1, classes - 1), dtype=np.float32)
    rows[np.arange(len(guesses)), guesses] = sureness
    return rows


def _drawn(figure: Figure) -> Figure:
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    return figure


def _words(figure: Figure) -> list[str]:
    """All texts as the reader sees them, none of which is mathematics."""
    found = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return [text.replace(r"\$", "$") for text in found if text]


def _row_names(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_yticklabels()]


def _column_names(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_xticklabels()]


def _lengths(axes: Axes) -> list[list[float]]:
    groups = [c for c in axes.containers if isinstance(c, BarContainer)]
    return [[bar.get_width() for bar in group] for group in groups]


def _pictures(axes: Axes) -> list[NDArray[np.float64]]:
    return [np.ma.getdata(image.get_array()) for image in axes.images]


def _image_axes(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def _colours(patches: list[Patch]) -> list[str]:
    named = (BLUE, RED, ORANGE, GREY)
    return [next(c for c in named if same_color(c, p.get_facecolor())) for p in patches]


def _red(text: Text) -> bool:
    return same_color(text.get_color(), RED)


# What all figures share


def test_no_text_is_read_as_mathematics_or_lacks_a_glyph() -> None:
    figure = new_figure(4, 3, " and ".join(AWKWARD))
    for name in AWKWARD:
        assert not is_math_text(plain(name))
        figure.text(0.5, 0.5, plain(name))
    _drawn(figure)


def _raster(text: str, **style: bool) -> bytes:
    figure = new_figure(3, 1)
    figure.text(0.1, 0.5, text, **style)
    _drawn(figure)
    return bytes(figure.canvas.buffer_rgba())  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["$x$", "a $ b $ c $", r"\$\frac{1}"])
def test_dollars_are_drawn_as_they_are(name: str) -> None:
    assert _raster(plain(name)) == _raster(name, parse_math=False)


def test_characters_without_a_glyph_stay_distinguishable() -> None:
    assert plain("日") == r"\u65e5"
    assert plain("本") == r"\u672c"
    assert plain("é ü ×") == "é ü ×"  # noqa: RUF001


def test_a_long_name_keeps_its_ends_and_its_room() -> None:
    name = "Wide " * 400 + "end"
    short = plain(name, 1.0)
    assert short.startswith("Wide")
    assert short.endswith("end")
    assert "…" in short
    assert 0.7 < longest([short]) <= 1.0


def test_whitespace_and_an_escape_do_not_split() -> None:
    assert plain("a\n\tb") == "a b"
    for room in np.linspace(0.05, 1.5, 40):
        assert not is_math_text(plain("$" * 60, float(room)))


def test_a_long_title_is_wrapped_into_the_figure() -> None:
    figure = _drawn(new_figure(4, 3, "a very long title $of$ many words " * 5))
    title = figure.texts[0] if figure.texts else figure.findobj(Text)[0]
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width


def test_the_same_figure_gives_the_same_bytes_however_often_it_was_drawn(tmp_path: Path) -> None:
    def build() -> Figure:
        return confusion(np.diag([9, 100, 3]), CLASSES, logarithmic=True)

    figure = build()
    first = save(figure, tmp_path / "sub" / "a.png").read_bytes()
    second = save(_drawn(figure), tmp_path / "b.png").read_bytes()
    third = save(_drawn(build()), tmp_path / "c.png").read_bytes()
    assert first == second == third
    assert first.startswith(b"\x89PNG")
    assert b"tEXt" not in first
    assert b"tIME" not in first


def test_save_returns_its_path_and_draws_120_dots_per_inch(tmp_path: Path) -> None:
    path = save(new_figure(4, 3), tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    width = int.from_bytes(path.read_bytes()[16:20], "big")
    assert width == 480


@pytest.mark.parametrize("module", ["figures", "pictures", "analysis"])
def test_nothing_goes_through_pyplot(module: str) -> None:
    tree = ast.parse((Path(__file__).parents[1] / "search" / f"{module}.py").read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imports
    assert not [n for n in imports if "pyplot" in ast.unparse(n)]


# Counts


def test_class_counts_are_bars_with_their_values() -> None:
    counts = {"train": [5000, 0, 1], "test": [10, 20, 30]}
    figure = class_counts(counts, CLASSES)
    (axes,) = figure.axes
    assert _lengths(axes) == [[5000, 0, 1], [10, 20, 30]]
    assert _row_names(axes) == list(CLASSES)
    assert [t.get_text() for t in axes.texts] == ["5,000", "0", "1", "10", "20", "30"]
    assert {"train", "test"} <= set(_words(figure))


def test_class_counts_of_one_split_need_no_legend() -> None:
    assert not class_counts({"train": [1, 2, 3]}, CLASSES).legends


def test_class_counts_start_at_the_top_and_at_zero() -> None:
    (axes,) = class_counts({"train": [7, 8, 9]}, CLASSES).axes
    assert axes.get_xlim()[0] == 0
    assert axes.yaxis_inverted()


def test_zero_counts_and_fifty_awkward_classes_draw() -> None:
    _drawn(class_counts({"train": [0, 0, 0]}, CLASSES))
    names = [AWKWARD[i % len(AWKWARD)] * 30 for i in range(50)]
    figure = _drawn(class_counts({"$a$": [1] * 50, "_b": [2] * 50}, names))
    assert {"$a$", "_b"} <= set(_words(figure))


# Learning curves

CURVES = {
    "train_loss": [0.9, 0.5, 0.25],
    "val_loss": [1.0, 0.7, 0.8],
    "train_accuracy": [0.5, 0.75, 0.875],
    "val_accuracy": [0.25, 0.5, 0.375],
}


def test_learning_curves_hold_the_values_from_epoch_one() -> None:
    loss, accuracy = _drawn(learning_curves(CURVES)).axes
    for axes, measure in ((loss, "loss"), (accuracy, "accuracy")):
        train, validation = axes.lines
        assert list(train.get_ydata()) == CURVES[f"train_{measure}"]
        assert list(validation.get_ydata()) == CURVES[f"val_{measure}"]
        assert list(train.get_xdata()) == [1, 2, 3]
        assert (train.get_label(), validation.get_label()) == ("train", "validation")
        assert train.get_linestyle() != validation.get_linestyle()
    assert all(t.get_text().endswith("%") for t in accuracy.get_yticklabels())


def test_the_loss_may_be_logarithmic_and_says_so() -> None:
    loss, accuracy = learning_curves(CURVES, log_loss=True).axes
    assert loss.get_yscale() == "log"
    assert "logarithmic" in loss.get_ylabel()
    assert accuracy.get_yscale() == "linear"


def test_the_best_epoch_is_marked_in_both_panels() -> None:
    figure = learning_curves(CURVES, best_epoch=2)
    for axes in figure.axes:
        assert list(axes.lines[-1].get_xdata()) == [2, 2]
        assert [t.get_text() for t in axes.texts] == ["best epoch: 2"]


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"train_loss": [0.5], "train_accuracy": [1.0]},
        {"train_loss": [0.0, 0.0], "val_loss": [0.0, 0.0]},
        {"train_loss": [math.nan, math.inf, 0.1], "val_accuracy": [math.nan] * 3},
    ],
)
def test_degenerate_curves_draw(curves: dict[str, list[float]]) -> None:
    _drawn(learning_curves(curves, log_loss=True))


# Bars over runs

RUNS = {"one": [0.9, 0.92, 0.97], "two": [0.5], "three": [0.8, 0.8]}


def _whiskers(axes: Axes) -> list[tuple[float, float]]:
    """Half lengths of the error bars, and their middles."""
    found = []
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            for (left, _), (right, _) in container.lines[2][0].get_segments():
                found.append(((right - left) / 2, (right + left) / 2))
    return found


def test_bars_are_means_and_whiskers_sample_deviations() -> None:
    (axes,) = bars({"test": RUNS}, "Title", "Accuracy").axes
    assert _lengths(axes) == [pytest.approx([0.93, 0.5, 0.8])]
    assert _whiskers(axes) == [
        (pytest.approx(np.std(RUNS["one"], ddof=1)), pytest.approx(np.mean(RUNS["one"])))
    ]
    assert _row_names(axes) == list(RUNS)


def test_bars_print_their_values() -> None:
    (axes,) = bars({"test": RUNS}, "Title", "Accuracy").axes
    values = [t.get_text() for t in axes.texts]
    assert values == ["93.00% ± 3.61", "50.00%", "80.00% ± 0.00"]
    assert "standard deviation of 1 to 3 runs" in axes.get_xlabel()
    (axes,) = bars({"test": {"a": [1.25]}}, "Title", "Loss", percent=False).axes
    assert [t.get_text() for t in axes.texts] == ["1.25"]
    assert axes.get_xlabel() == "Loss"


def test_two_series_stand_side_by_side_in_other_colours() -> None:
    figure = bars({"train": {"a": [1.0], "b": [2.0]}, "test": {"b": [3.0]}}, "T", "M", False)
    (axes,) = figure.axes
    train, test = axes.containers
    assert [bar.get_width() for bar in train] == [1.0, 2.0]
    assert [bar.get_width() for bar in test] == [3.0]
    assert train[1].get_y() + train[1].get_height() <= test[0].get_y()
    assert not same_color(train[0].get_facecolor(), test[0].get_facecolor())
    assert {"train", "test"} <= set(_words(figure))


def test_a_cut_axis_is_flagged_and_an_uncut_one_starts_at_zero() -> None:
    values = {"test": {"a": [0.971, 0.973], "b": [0.981, 0.982]}}
    (axes,) = bars(values, "T", "Accuracy").axes
    assert axes.get_xlim()[0] == 0
    assert "cut" not in axes.get_xlabel()
    (axes,) = bars(values, "T", "Accuracy", zoom=True).axes
    start = axes.get_xlim()[0]
    assert 0.9 < start < 0.97
    assert f"axis is cut: starts at {100 * start:.6g}%, not 0" in axes.get_xlabel()
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[0]]
    assert ends == pytest.approx([0.972, 0.9815])
    assert all(bar.get_x() == start for bar in axes.containers[0])


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [-1.0, 2.0], [0.1, 5.0]])
def test_zoom_does_nothing_where_it_would_mislead_or_not_help(values: list[float]) -> None:
    named = {str(i): [value] for i, value in enumerate(values)}
    (axes,) = bars({"s": named}, "T", "M", percent=False, zoom=True).axes
    assert axes.get_xlim()[0] <= 0
    assert "cut" not in axes.get_xlabel()


def test_an_undefined_value_is_named_and_not_drawn() -> None:
    (axes,) = _drawn(bars({"s": {"a": [math.nan, 1.0], "b": [0.5], "c": []}}, "T", "AUC")).axes
    assert _lengths(axes) == [[0.5]]
    assert [t.get_text() for t in axes.texts if t.get_text()] == ["undefined", "50.00%"]
    _drawn(bars({"s": {"a": [math.nan]}}, "T", "AUC", zoom=True))


# Distribution over runs


def test_each_run_is_a_dot_and_each_row_has_its_median() -> None:
    values = {"1": [0.5, 0.7, 0.6, 0.6], "2": [0.1]}
    figure = distribution(values, "T", "Accuracy", published={"1": [0.54], "x": [1.0]})
    (axes,) = figure.axes
    first, published, second = (c.get_offsets() for c in axes.collections)
    assert sorted(first[:, 0]) == sorted(values["1"])
    assert list(second[:, 0]) == [0.1]
    assert published.tolist() == [[0.54, 0.0]]
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx([0.6, 0.1])
    assert [t.get_text() for t in axes.texts] == ["median of 4: 60.00%", "median of 1: 10.00%"]
    assert {"a run", "median", "published"} <= set(_words(figure))


def test_equal_runs_do_not_hide_each_other() -> None:
    (axes,) = distribution({"1": [0.5, 0.5, 0.5]}, "T", "A").axes
    heights = axes.collections[0].get_offsets()[:, 1]
    assert len(set(heights)) == 3
    assert np.abs(heights).max() < 0.3


def test_no_runs_draw() -> None:
    _drawn(distribution({"1": []}, "T", "A"))
    _drawn(distribution({}, "T", "A"))


# Samples


def test_sample_images_show_every_image_under_its_class() -> None:
    images = _images(7)
    figure = sample_images(images, _labels(0, 1, 2, 0, 1, 2, 0), CLASSES, columns=3)
    assert len(_image_axes(figure)) == 7
    for axes, image, label in zip(figure.axes, images, [0, 1, 2, 0, 1, 2, 0], strict=True):
        (shown,) = _pictures(axes)
        np.testing.assert_array_equal(shown, image[..., 0])
        assert axes.get_title() == CLASSES[label]
    columns = {round(axes.get_position().x0, 3) for axes in figure.axes}
    assert len(columns) == 3


def test_images_of_either_kind_are_shown_in_full_range() -> None:
    colour = _images(2, channels=3)
    (first, _) = sample_images(colour, _labels(0, 1), CLASSES).axes
    np.testing.assert_array_equal(_pictures(first)[0], colour[0])
    scaled = (colour / 255).astype(np.float32)
    (first, _) = sample_images(scaled, _labels(0, 1), CLASSES).axes
    np.testing.assert_allclose(_pictures(first)[0], scaled[0])
    grey = np.linspace(-2, 3, 40, dtype=np.float32).reshape(2, 5, 4, 1)
    figure = sample_images(grey, _labels(0, 1), CLASSES)
    assert {axes.images[0].get_clim() for axes in figure.axes} == {(-2.0, 3.0)}
    (axes,) = sample_images(_images(1), _labels(0), CLASSES).axes
    assert axes.images[0].get_clim() == (0, 255)


def test_float_colours_beyond_one_are_not_clipped() -> None:
    images = np.linspace(-1, 3, 60, dtype=np.float32).reshape(1, 5, 4, 3)
    (axes,) = sample_images(images, _labels(0), CLASSES).axes
    np.testing.assert_allclose(_pictures(axes)[0], (images[0] + 1) / 4, atol=1e-6)


def test_samples_per_class_are_rows_of_that_class() -> None:
    images = _images(12).reshape(3, 4, 5, 4, 1)
    (axes,) = samples_per_class(images, CLASSES).axes
    assert len(axes.images) == 12
    for position, image in enumerate(axes.images):
        np.testing.assert_array_equal(image.get_array(), images.reshape(12, 5, 4)[position])
        left, right, bottom, top = image.get_extent()
        row = position // 4
        assert top <= axes.get_yticks()[row] <= bottom
        assert right - left == 4
    assert _row_names(axes) == list(CLASSES)


def test_one_sample_per_class_is_a_grid() -> None:
    images = _images(3)[:, None]
    figure = samples_per_class(images, CLASSES)
    assert [axes.get_title() for axes in figure.axes] == list(CLASSES)
    np.testing.assert_array_equal(_pictures(figure.axes[2])[0], images[2, 0, ..., 0])


# Predictions


def test_wrong_predictions_alone_are_red() -> None:
    images = _images(4)
    figure = predictions(images, _labels(0, 1, 2, 0), _sure_of([0, 2, 2, 1]), CLASSES)
    assert [_red(axes.title) for axes in figure.axes] == [False, True, False, True]
    assert [axes.spines["left"].get_visible() for axes in figure.axes] == [False, True, False, True]
    assert [axes.get_title() for axes in figure.axes] == [
        "cat (cat), 90%",
        "eel (dog), 90%",
        "eel (eel), 90%",
        "dog (cat), 90%",
    ]
    for axes, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(_pictures(axes)[0], image[..., 0])


def test_long_names_go_on_two_lines() -> None:
    names = ("Ankle boot", "$a$" * 50)
    figure = predictions(_images(1), _labels(1), _sure_of([0], 2), names)
    first, second = figure.axes[0].get_title().split("\n")
    assert first == "Ankle boot"
    assert second.endswith(", 90%")
    assert not is_math_text(second)


def test_all_right_and_no_images_draw() -> None:
    figure = _drawn(predictions(_images(2), _labels(0, 1), _sure_of([0, 1]), CLASSES))
    assert not any(_red(axes.title) for axes in figure.axes)
    nothing = np.zeros((0, 3), np.float32)
    _drawn(predictions(_images(0), _labels(), nothing, CLASSES))
    _drawn(class_probabilities(_images(0), nothing, _labels(), CLASSES))
    _drawn(sample_images(_images(0), _labels(), CLASSES))


def test_class_probabilities_stand_beside_their_image() -> None:
    images = _images(3)
    rows = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0, 0.004, 0.996]], np.float32)
    figure = class_probabilities(images, rows, _labels(0, 0, 2), CLASSES)
    pictures, charts = figure.axes[::2], figure.axes[1::2]
    for axes, image in zip(pictures, images, strict=True):
        np.testing.assert_array_equal(_pictures(axes)[0], image[..., 0])
    for axes, row in zip(charts, rows, strict=True):
        assert _lengths(axes) == [pytest.approx(row.tolist())]
        assert _row_names(axes) == list(CLASSES)
        assert axes.get_xlim() == (0, 1)
    assert [t.get_text() for t in charts[2].texts] == ["0%", "<1%", "100%"]
    assert _colours(list(charts[0].patches)) == [BLUE, GREY, GREY]
    assert _colours(list(charts[1].patches)) == [ORANGE, RED, GREY]


def test_of_many_classes_the_likely_ones_and_the_true_one_are_shown() -> None:
    row = np.linspace(0, 1, 50, dtype=np.float32)[None]
    row /= row.sum()
    names = [f"class {i}" for i in range(50)]
    figure = class_probabilities(_images(1), row, _labels(3), names)
    chart = figure.axes[1]
    assert _row_names(chart) == [f"class {i}" for i in [*range(49, 40, -1), 3]]
    assert _lengths(chart) == [pytest.approx(row[0, [*range(49, 40, -1), 3]].tolist())]


def test_the_probability_table_shades_numbers_and_frames_the_truth() -> None:
    rows = np.array([[0.7, 0.298, 0.002], [0, 0, 1]], np.float32)
    (axes,) = probability_table(rows, _labels(1, 2), CLASSES).axes
    np.testing.assert_array_equal(_pictures(axes)[0], rows)
    assert axes.images[0].get_clim() == (0, 1)
    numbers = {(t.get_position()): t.get_text() for t in axes.texts}
    assert numbers == {(0, 0): "70", (1, 0): "30", (2, 1): "100"}
    frames = [p for p in axes.patches if isinstance(p, Rectangle)]
    centres = [(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height() / 2) for p in frames]
    assert centres == [pytest.approx((1, 0)), pytest.approx((2, 1))]
    assert _row_names(axes) == ["dog", "eel"]
    assert _column_names(axes) == list(CLASSES)


def test_a_wide_probability_table_has_a_scale_instead_of_numbers() -> None:
    figure = probability_table(_sure_of([1, 2], 30), _labels(1, 0), ["$a$"] * 30)
    table, scale = figure.axes
    assert not table.texts
    assert scale.get_ylabel() == "Probability"


# Confusion

MATRIX = np.array([[50, 3, 0], [1, 40, 2], [0, 6, 1000]])


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_confusion_matrix_is_written_in_its_cells(logarithmic: bool) -> None:
    figure = confusion(MATRIX, CLASSES, logarithmic=logarithmic)
    axes = figure.axes[0]
    written = np.full((3, 3), -1)
    for text in axes.texts:
        x, y = text.get_position()
        written[int(y), int(x)] = int(text.get_text().replace(",", ""))
    np.testing.assert_array_equal(written, MATRIX)
    np.testing.assert_array_equal(_pictures(axes)[0], MATRIX)
    assert _row_names(axes) == _column_names(axes) == list(CLASSES)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted class", "True class")
    assert axes.yaxis_inverted()
    assert type(axes.images[0].norm) is (LogNorm if logarithmic else Normalize)


def test_zero_is_blank_and_one_is_not_on_the_logarithmic_scale() -> None:
    axes = confusion(MATRIX, CLASSES, logarithmic=True).axes[0]
    (picture,) = axes.images
    values = np.ma.asarray(picture.get_array())
    np.testing.assert_array_equal(np.ma.getmaskarray(values), MATRIX == 0)
    assert picture.norm(1) == 0
    assert picture.norm(1000) == 1
    assert picture.to_rgba([1])[0][0] < 0.95


def test_written_counts_contrast_with_their_cells() -> None:
    axes = confusion(MATRIX, CLASSES, logarithmic=True).axes[0]
    texts = {t.get_text(): t.get_color() for t in axes.texts}
    assert texts["1,000"] == "white"
    assert texts["3"] != "white"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_an_empty_confusion_matrix_draws(logarithmic: bool) -> None:
    _drawn(confusion(np.zeros((2, 2), np.int64), ("$a$", "_b"), "none", logarithmic))


@pytest.mark.parametrize(("count", "logarithmic"), [(21, False), (50, True)])
def test_a_large_confusion_matrix_has_a_scale_instead_of_numbers(
    count: int, logarithmic: bool
) -> None:
    names = [AWKWARD[i % len(AWKWARD)] * 20 for i in range(count)]
    matrix, scale = confusion(np.eye(count, dtype=int), names, "$", logarithmic).axes
    assert not matrix.texts
    assert scale.get_ylabel() == ("Images (logarithmic)" if logarithmic else "Images")


def test_confused_pairs_are_unordered_counted_both_ways_and_sorted() -> None:
    assert confused_pairs(MATRIX) == [(1, 2, 8), (0, 1, 4)]
    assert confused_pairs(np.diag([5, 6])) == []
    ties = np.array([[0, 1, 1], [1, 0, 0], [0, 2, 0]])
    assert confused_pairs(ties) == [(0, 1, 2), (1, 2, 2), (0, 2, 1)]


def test_most_confused_pairs_are_bars_in_two_parts() -> None:
    figure = most_confused_pairs(MATRIX, CLASSES)
    (axes,) = figure.axes
    first, second = axes.containers
    assert [bar.get_width() for bar in first] == [2, 3]
    assert [bar.get_width() for bar in second] == [6, 1]
    assert [bar.get_x() for bar in second] == [2, 3]
    assert [t.get_text() for t in axes.texts] == ["8", "4"]
    assert _row_names(axes) == ["dog and eel", "cat and dog"]
    assert len(most_confused_pairs(MATRIX, CLASSES, top=1).axes[0].containers[0]) == 1


def test_without_confusions_the_chart_says_so() -> None:
    figure = _drawn(most_confused_pairs(np.diag([3, 4, 5]), CLASSES))
    assert "no image was misclassified" in _words(figure)


def test_the_two_by_two_holds_exactly_the_images_of_each_cell() -> None:
    images = _images(12)
    labels = _labels(0, 0, 0, 0, 2, 2, 2, 1, 0, 2, 1, 0)
    predicted = _labels(0, 2, 0, 0, 0, 2, 1, 2, 1, 0, 1, 0)
    cells = confused_pair(images, labels, predicted, (0, 2), CLASSES, per_cell=3).axes
    held = [[0, 2, 3], [1], [4, 9], [5]]
    for axes, expected in zip(cells, held, strict=True):
        shown = _pictures(axes)
        assert len(shown) == len(expected)
        for picture, position in zip(shown, expected, strict=True):
            np.testing.assert_array_equal(picture, images[position, ..., 0])
    assert [axes.get_title() for axes in cells] == [
        "true cat, predicted cat: 4, the first 3 shown",
        "true cat, predicted eel: 1",
        "true eel, predicted cat: 2",
        "true eel, predicted eel: 1",
    ]
    assert [_red(axes.title) for axes in cells] == [False, True, True, False]


def test_images_of_a_cell_do_not_overlap_and_are_inside() -> None:
    images = _images(7, 8, 4)
    figure = confused_pair(images, _labels(*[0] * 7), _labels(*[0] * 7), (0, 1), CLASSES)
    axes = figure.axes[0]
    boxes = [image.get_extent() for image in axes.images]
    for i, (left, right, bottom, top) in enumerate(boxes):
        assert axes.get_xlim()[0] <= left < right <= axes.get_xlim()[1]
        assert axes.get_ylim()[1] <= top < bottom <= axes.get_ylim()[0]
        for other in boxes[:i]:
            assert left >= other[1] or right <= other[0] or top >= other[2] or bottom <= other[3]


def test_empty_cells_say_none() -> None:
    figure = _drawn(confused_pair(_images(1), _labels(0), _labels(0), (0, 1), CLASSES))
    assert [[t.get_text() for t in axes.texts] for axes in figure.axes] == [
        [],
        ["none"],
        ["none"],
        ["none"],
    ]


# Calibration


def test_reliability_worked_out_by_hand() -> None:
    rows = np.array([[0.9, 0.1], [0.95, 0.05], [0.45, 0.55], [0.25, 0.2]], np.float32)
    result = reliability(rows, _labels(0, 1, 1, 0), bins=10)
    assert result.counts.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, 1, 1]
    assert result.accuracy[[2, 5, 8, 9]].tolist() == [1, 1, 1, 0]
    assert result.confidence[[2, 5, 8, 9]] == pytest.approx([0.25, 0.55, 0.9, 0.95])
    assert np.isnan(result.accuracy[[0, 1, 3, 4, 6, 7]]).all()
    assert result.error == pytest.approx((0.75 + 0.45 + 0.1 + 0.95) / 4)


def test_calibration_draws_accuracy_over_the_share_of_images() -> None:
    rows = np.concatenate([_sure_of([0] * 6, 2, 0.99), _sure_of([1] * 4, 2, 0.7)])
    labels = _labels(0, 0, 0, 0, 0, 1, 1, 1, 0, 0)
    figure = _drawn(calibration(rows, labels))
    upper, lower = figure.axes
    (accuracy,) = upper.containers
    assert [bar.get_height() for bar in accuracy] == pytest.approx([0.5, 5 / 6])
    middles = [bar.get_x() + bar.get_width() / 2 for bar in accuracy]
    assert middles == pytest.approx([10.5 / 15, 14.5 / 15])
    shares = [bar.get_height() for bar in lower.containers[0]]
    assert len(shares) == 15
    assert shares[10] == pytest.approx(0.4)
    assert shares[14] == pytest.approx(0.6)
    dots = next(line for line in upper.lines if line.get_label() == "mean confidence")
    assert dots.get_ydata() == pytest.approx([0.7, 0.99])
    expected = reliability(rows, labels).error
    assert f"Calibration: expected calibration error {expected:.2%}" in _words(figure)


def test_calibration_of_certainty_and_of_nothing_draws() -> None:
    certain = _sure_of([0, 1], 2, 1.0)
    assert reliability(certain, _labels(0, 1)).error == 0
    _drawn(calibration(certain, _labels(0, 1)))
    _drawn(calibration(np.zeros((0, 2), np.float32), _labels()))


# Hidden units and pixels


def test_box_medians_are_those_of_each_class() -> None:
    rng = _rng()
    activation = rng.normal(size=60).astype(np.float32)
    predicted = rng.choice([0, 2], 60).astype(np.int32)
    figure = activation_boxes(activation, predicted, CLASSES, "unit $3$")
    (axes,) = figure.axes
    medians = [line for line in axes.lines if same_color(line.get_color(), RED)]
    found = {round(float(np.mean(m.get_ydata()))): float(m.get_xdata()[0]) for m in medians}
    assert found == {
        label: pytest.approx(np.median(activation[predicted == label])) for label in (0, 2)
    }
    ones = int((predicted == 0).sum())
    assert _row_names(axes) == [f"cat ({ones})", "dog (0)", f"eel ({60 - ones})"]
    assert axes.get_xlabel() == r"Activation of unit \$3\$"


def test_boxes_of_one_image_and_of_none_draw() -> None:
    _drawn(activation_boxes(np.ones(1, np.float32), _labels(1), CLASSES, "unit"))
    _drawn(activation_boxes(np.ones(0, np.float32), _labels(), CLASSES, "unit"))


def _dots(figure: Figure) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Position and colour of all dots of the first axes."""
    found = []
    for group in figure.axes[0].collections:
        colours = np.asarray(group.get_facecolor())[:, :3]
        offsets = np.asarray(group.get_offsets())
        found += [(tuple(o), tuple(c)) for o, c in zip(offsets, colours, strict=True)]
    return found


def test_two_pixels_are_those_two_coloured_by_class() -> None:
    images = _images(20)
    predicted = _rng().integers(0, 3, 20).astype(np.int32)
    figure = two_pixels(images, predicted, (7, 13), CLASSES)
    flat = images.reshape(20, -1).astype(float)
    expected = [
        ((row[7], row[13]), to_rgba(PALETTE[label])[:3])
        for row, label in zip(flat, predicted, strict=True)
    ]
    assert _dots(figure) == expected
    (axes,) = figure.axes
    assert axes.get_xlabel() == "Value of pixel 7 (row 1, column 3)"
    assert axes.get_ylabel() == "Value of pixel 13 (row 3, column 1)"
    assert set(CLASSES) <= set(_words(figure))


def test_a_pixel_of_a_colour_image_names_its_channel() -> None:
    figure = two_pixels(_images(2, channels=3), _labels(0, 1), (0, 14), CLASSES)
    assert figure.axes[0].get_ylabel() == "Value of pixel 14 (row 1, column 0, channel 2)"


def test_every_one_of_fifty_classes_has_its_own_mark() -> None:
    names = [f"class {i}" for i in range(50)]
    labels = np.arange(50, dtype=np.int32)
    figure = two_pixels(_images(50), labels, (0, 1), names)
    handles = [h for h in figure.legends[0].legend_handles if isinstance(h, Line2D)]
    assert len({(h.get_color(), h.get_marker()) for h in handles}) == 50
    assert [t.get_text() for t in figure.legends[0].get_texts()] == names
    assert len(figure.axes[0].collections) == 5


def test_the_importance_map_is_the_importances_in_place() -> None:
    values = np.arange(20) / 190
    axes, _ = importance_map(values, (5, 4, 1)).axes
    np.testing.assert_allclose(_pictures(axes)[0], values.reshape(5, 4))
    colour = np.arange(60) / 1770
    axes, _ = importance_map(colour, (5, 4, 3)).axes
    np.testing.assert_allclose(_pictures(axes)[0], colour.reshape(5, 4, 3).sum(axis=2))
    importance_map(np.zeros(20), (5, 4, 1))


def test_importances_of_chosen_pixels_leave_the_others_blank() -> None:
    axes, _ = importance_map(np.array([0.25, 0.75]), (5, 4, 1), _labels(6, 2)).axes
    shown = np.ma.asarray(axes.images[0].get_array())
    assert shown.count() == 2
    assert shown[1, 2] == 0.25
    assert shown[0, 2] == 0.75


@pytest.mark.parametrize("channels", [1, 3])
def test_chosen_pixels_are_marked_over_the_image(channels: int) -> None:
    (image,) = _images(1, channels=channels)
    figure = chosen_pixels(image, _labels(0, 5 * channels, 19 * channels))
    below, above = figure.axes[0].images
    shown = image[..., 0] if channels == 1 else image
    np.testing.assert_array_equal(below.get_array(), shown)
    marked = np.argwhere(~np.ma.getmaskarray(np.ma.asarray(above.get_array())))
    assert marked.tolist() == [[0, 0], [1, 1], [4, 3]]
    assert below.get_extent() == pytest.approx(above.get_extent())
    assert "3 of 20 pixels" in figure.axes[0].get_xlabel()
    chosen_pixels(image, _labels())


def test_forest_importances_are_scikit_learns() -> None:
    images = _images(60)
    labels = (images[:, 2, 1, 0] > 127).astype(np.int32)
    found = forest_importances(images, labels, seed=5, trees=10)
    forest = RandomForestClassifier(10, random_state=5).fit(images.reshape(60, -1), labels)
    np.testing.assert_array_equal(found, forest.feature_importances_)
    assert found.argmax() == 2 * 4 + 1
    assert found.sum() == pytest.approx(1)
    assert not forest_importances(np.zeros((4, 5, 4, 1), np.uint8), _labels(0, 1, 0, 1), 1, 2).any()


# Projections


def test_pca_is_scikit_learns() -> None:
    features = _rng().normal(size=(40, 6)) * np.arange(1, 7)
    points, explained = pca(features, 3)
    model = PCA(3).fit(features)
    np.testing.assert_allclose(np.abs(points), np.abs(model.transform(features)))
    np.testing.assert_allclose(explained, model.explained_variance_ratio_)


@pytest.mark.parametrize("components", [2, 3])
def test_the_axes_tell_the_variance_that_each_component_explains(components: int) -> None:
    features = (_rng().normal(size=(40, 6)) * np.arange(1, 7)).astype(np.float32)
    labels = _rng().integers(0, 3, 40).astype(np.int32)
    figure = pca_scatter(features, labels, CLASSES, components)
    (axes,) = figure.axes
    explained = PCA(components).fit(features).explained_variance_ratio_
    for number, (name, fraction) in enumerate(zip("xyz", explained, strict=False), 1):
        label = getattr(axes, f"get_{name}label")()
        assert label == f"Component {number} ({fraction:.1%} of the variance)"
    assert axes.name == ("3d" if components == 3 else "rectilinear")


def test_the_dots_are_the_points_in_the_colours_of_their_classes() -> None:
    features = _rng().normal(size=(30, 4))
    labels = _rng().integers(0, 3, 30).astype(np.int32)
    figure = pca_scatter(features, labels, CLASSES)
    points, _ = pca(features, 2)
    expected = [
        (tuple(p), to_rgba(PALETTE[label])[:3]) for p, label in zip(points, labels, strict=True)
    ]
    assert _dots(figure) == expected
    assert sorted(t.get_text() for t in figure.axes[0].texts) == sorted(CLASSES)


@pytest.mark.parametrize(
    ("features", "left"),
    [
        (np.ones((5, 4)), 0),
        (np.ones((1, 4)), 0),
        (np.zeros((0, 4)), 0),
        (np.arange(5.0)[:, None], 1),
        (np.array([[1.0, 2.0], [3.0, 5.0]]), 2),
        (np.full((5, 4), 7, np.uint8), 0),
    ],
)
@pytest.mark.parametrize("components", [2, 3])
def test_components_that_are_not_there_are_zero(
    features: NDArray[np.float64], left: int, components: int
) -> None:
    points, explained = pca(features, components)
    assert points.shape == (len(features), components)
    assert not points[:, left:].round(9).any()
    assert not explained[left:].round(9).any()


@pytest.mark.parametrize(("count", "components"), [(0, 3), (1, 2), (5, 3)])
def test_pca_of_few_or_constant_features_draws(count: int, components: int) -> None:
    labels = np.zeros(count, np.int32)
    figure = _drawn(pca_scatter(np.ones((count, 4)), labels, CLASSES, components))
    assert "(0.0% of the variance)" in figure.axes[0].get_xlabel()


def test_tsne_repeats_for_a_seed_and_separates_what_is_apart() -> None:
    features = np.concatenate([_rng().normal(size=(15, 4)), _rng().normal(size=(15, 4)) + 50])
    points = tsne(features, perplexity=40, seed=1)
    np.testing.assert_array_equal(points, tsne(features, perplexity=40, seed=1))
    first, second = points[:15], points[15:]
    gap = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert gap > first.std() + second.std()


@pytest.mark.parametrize(
    ("count", "perplexity", "method"), [(1000, 40, "barnes_hut"), (100, 33, "exact")]
)
def test_tsne_asks_scikit_learn_for_a_perplexity_that_the_points_allow(
    count: int, perplexity: float, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}

    class Recorder:
        def __init__(self, **settings: object) -> None:
            asked.update(settings)

        def fit_transform(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
            return features[:, :2]

    monkeypatch.setattr("search.analysis.TSNE", Recorder)
    tsne(_rng().normal(size=(count, 3)), seed=7)
    init = asked.pop("init")
    assert asked == {"perplexity": perplexity, "method": method, "random_state": 7}
    assert np.shape(init) == (count, 2)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_tsne_of_few_or_constant_features_draws(count: int) -> None:
    features = np.ones((count, 1), np.float32)
    figure = _drawn(tsne_scatter(features, np.zeros(count, np.int32), CLASSES))
    assert np.isfinite([place for place, _ in _dots(figure)]).all()


def test_tsne_of_a_single_feature_tells_the_perplexity_it_used() -> None:
    features = np.arange(12, dtype=np.float32)[:, None]
    figure = tsne_scatter(features, np.zeros(12, np.int32), CLASSES, perplexity=3, seed=2)
    assert "t-SNE (perplexity 3)" in _words(figure)
    figure = tsne_scatter(features, np.zeros(12, np.int32), CLASSES, perplexity=40)
    assert "t-SNE (perplexity 3.67)" in _words(figure)
    assert len(_dots(figure)) == 12


# The layers of a model

LAYERS = (
    Layer("input", "Input", (None, 28, 28, 1), 0, ""),
    Layer("conv_$1$", "Conv2D", (None, None, 26, 32), 320, "32 filters, relu"),
    Layer("dense", "Dense", (None, 10), 216_330, "softmax"),
)


def test_the_architecture_has_a_box_and_an_arrow_per_layer() -> None:
    figure = architecture(LAYERS)
    (axes,) = figure.axes
    assert len(axes.patches) == len(LAYERS)
    tops = [patch.get_window_extent().y1 for patch in axes.patches]
    assert tops == sorted(tops, reverse=True)
    words = _words(figure)
    for word in ("Conv2D", "conv_$1$", "32 filters, relu", "320 parameters", "216,330 parameters"):
        assert word in words
    shapes = ["28 × 28 × 1", "? × 26 × 32", "10"]  # noqa: RUF001
    assert [word for word in words if word in shapes] == shapes


def test_the_summary_is_a_table_with_the_total() -> None:
    figure = model_summary(LAYERS)
    rows: dict[float, list[str]] = {}
    for text in figure.axes[0].texts:
        rows.setdefault(text.get_position()[1], []).append(text.get_text().replace(r"\$", "$"))
    table = [rows[y] for y in sorted(rows)]
    assert table[0] == ["Layer", "Kind", "Output shape", "Parameters", "Detail"]
    assert table[2] == ["conv_$1$", "Conv2D", "? × 26 × 32", "320", "32 filters, relu"]  # noqa: RUF001
    assert table[-1] == ["Total", "", "", "216,650", ""]
    assert len(table) == 5


def test_a_model_without_layers_draws() -> None:
    _drawn(architecture([]))
    _drawn(model_summary([]))


# Names that would break a figure


def _figures_of(names: tuple[str, ...]) -> list[Figure]:
    """Every kind of figure, with these names and others wherever text goes."""
    count, title = len(names), "$t$ and <t> of 日"
    labels = np.arange(count, dtype=np.int32)
    images: Images = _images(count)
    sure = _sure_of(list(range(count)), count)
    matrix = np.ones((count, count), np.int64)
    features = images.reshape(count, -1)
    unit = features[:, 0].astype(np.float32)
    layers = [Layer(name, name, (None, 3), 1, name) for name in names]
    return [
        class_counts({"$s$": [1] * count, "_s": [2] * count}, names, title),
        sample_images(images, labels, names, title=title),
        samples_per_class(np.stack([images, images], axis=1), names, title),
        predictions(images, labels, sure, names, title=title),
        class_probabilities(images, sure, labels, names, title),
        probability_table(sure, labels, names, title),
        confused_pair(images, labels, labels, (0, 1), names),
        confusion(matrix, names, title),
        most_confused_pairs(matrix, names, title=title),
        activation_boxes(unit, labels, names, "$u$", title),
        two_pixels(images, labels, (0, 1), names, title),
        pca_scatter(features, labels, names, title=title),
        tsne_scatter(features, labels, names, title=title),
        importance_map(np.arange(20.0), (5, 4, 1), title=title),
        chosen_pixels(images[0], labels, title),
        calibration(sure, labels, title),
        learning_curves(CURVES, title=title),
        architecture(layers, title),
        model_summary(layers, title),
        bars({"_s": {name: [0.5, 0.6] for name in names}, "$": {}}, title, "$m$ of $m$"),
        distribution({name: [0.5] for name in names}, title, "$m$ of $m$"),
    ]


def test_every_figure_draws_and_reads_no_text_as_mathematics() -> None:
    for figure in _figures_of(("$x$ or $y$", "_hidden 日\x00", r"<b>\$\frac{1}", "")):
        _drawn(figure)
        found = [text.get_text() for text in figure.findobj(Text)]
        assert not [line for text in found for line in text.split("\n") if is_math_text(line)]


def test_a_name_that_starts_with_an_underscore_stays_in_the_legend() -> None:
    figure = class_counts({"_a": [1], "b": [2]}, ["x"])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["_a", "b"]


def test_figures_write_to_any_stream_as_pictures() -> None:
    stream = BytesIO()
    class_counts({"a": [1]}, ["x"]).savefig(stream, format="png")
    assert stream.getvalue().startswith(b"\x89PNG")
