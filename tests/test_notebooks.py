"""The published experiments say what the notebooks printed, and nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from spaces.config import TrialConfig
from spaces.notebooks import HELD_OUT, NOTEBOOKS, Drawing, Experiment, Figure, Notebook

PATH = Path(__file__).parents[2] / "shared" / "notebooks.json"
NEEDS_FILE = pytest.mark.skipif(
    not PATH.is_file(), reason="the record of the notebooks is not beside the project"
)
PUBLISHED: dict[str, dict[str, Any]] = (
    {n["id"]: n for n in json.loads(PATH.read_text(encoding="utf-8"))["notebooks"]}
    if PATH.is_file()
    else {}
)
SPLIT_UP = {"grid"}
"""Rows of the file that are several experiments here, and have a test of their own."""
ROWS = [
    (name, row)
    for name, notebook in PUBLISHED.items()
    for row in notebook["experiments"]
    if row["id"] not in SPLIT_UP
]
EXPERIMENTS = [(n, e) for n in NOTEBOOKS.values() for e in n.experiments]
DRAWINGS = [(n, d) for n in NOTEBOOKS.values() for d in n.drawings]
each_row = pytest.mark.parametrize(
    ("notebook", "row"), ROWS, ids=[f"{name}-{row['id']}" for name, row in ROWS]
)
each_drawing = pytest.mark.parametrize(
    ("notebook", "drawing"), DRAWINGS, ids=[f"{n.id}-{d.kind}" for n, d in DRAWINGS]
)

SCALES = {
    "divide by 255": {"scale": "255"},
    "divide by the maximum": {"scale": "max"},
    "L2-normalise along axis 1 (each column of the image to unit length)": {
        "scale": "l2",
        "l2_axis": 1,
    },
    "min-max to 0..1 per pixel (networks), divide by 255 (convolutions)": {"scale": "min-max"},
}
OPTIMIZERS = {"sgd as compiled, learning rate 0.01, whatever object was built": "sgd"}
VALIDATION = {
    "last 20%": 0.2,
    "last 20% of the 60,000 training images (12,000)": 0.2,
    "last 8.33% of the training images (5,000)": 5_000 / 60_000,
    "the test set": HELD_OUT,
    None: HELD_OUT,
}
SINGLE = {
    "train_accuracy": ("train_accuracy", None),
    "train_accuracy_epoch18": ("train_accuracy", 18),
    "test_accuracy": ("test_accuracy", None),
    "test_accuracy_run": ("test_accuracy", None),
    "test_accuracy_about": ("test_accuracy", None),
    "test_accuracy_claimed": ("test_accuracy", None),
    "f1": ("test_f1_micro", None),
    "roc_auc": ("test_roc_auc_ovo", None),
    "loss": ("test_loss", None),
}
BY_EPOCH = {
    "train_accuracy_by_epoch": "train_accuracy",
    "test_accuracy_by_epoch": "test_accuracy",
    "val_loss_by_epoch": "test_loss",  # the test set was the notebook's validation set
}


def _id(row: dict[str, Any]) -> str:
    return str(row["id"])


def _listed(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _config_of(notebook: str, row: dict[str, Any], **fields: Any) -> TrialConfig:
    """The row's configuration, from what the file says of it and of its notebook."""
    setup = {**PUBLISHED[notebook]["setup"], **row}
    stopping = setup.get("early_stopping", {})
    reduce = setup.get("reduce", {})
    values: dict[str, Any] = {
        **SCALES[setup["scale"]],
        "hidden": setup["hidden"],
        "optimizer": OPTIMIZERS.get(setup["optimizer"], setup["optimizer"]),
        "learning_rate": setup.get("learning_rate", 0.01 if notebook == "sgd-mlp" else 0.001),
        "batch_size": setup.get("batch_size", 32),
        "epochs": setup.get("epochs", setup.get("epochs_at_most")),
        "dropout": setup.get("dropout", 0.0),
        "input_dropout": setup.get("dropout_on_input", 0.0),
        "pca_components": reduce.get("components"),
        "forest_pixels": reduce.get("pixels"),
        "patience": stopping.get("patience"),
        "monitor": stopping.get("monitor", "val_accuracy"),
        "restore_best": False,
    }
    if setup.get("kernel_initializer") == "uniform":
        values["kernel_initializer"] = "random_uniform"
    if "conv_depth" in setup:
        values |= {
            "scale": "255",
            "filters": (setup["filters"],) * setup["conv_depth"],
            "kernel_size": setup["kernel"],
            "pool_size": setup["pool"],
            "padding": "valid",
        }
    return TrialConfig.model_validate(values | fields)


def _parameters(config: TrialConfig) -> int:
    """Of the network for images of 28 by 28, counted by hand."""
    side, channels, count = 28, 1, 0
    for filters in config.filters:
        count += (config.kernel_size**2 * channels + 1) * filters
        side = (side - config.kernel_size + 1) // config.pool_size
        channels = filters
    features = config.pca_components or config.forest_pixels or side * side * channels
    sizes = (features, *config.hidden, 10)
    return count + sum((a + 1) * b for a, b in itertools.pairwise(sizes))


def _figures_of(row: dict[str, Any]) -> set[Figure]:
    """Every figure that the file has of a row: a mean over folds where there are any."""
    found = {
        Figure(metric.replace("test_", "val_") if "folds" in row else metric, values, epoch)
        for key, (metric, epoch) in SINGLE.items()
        if key in row
        for values in [_listed(row[key])]
    }
    return found | {
        Figure(metric, (value,), int(epoch))
        for key, metric in BY_EPOCH.items()
        for epoch, value in row.get(key, {}).items()
    }


@NEEDS_FILE
def test_no_notebook_and_no_experiment_is_missing_or_invented() -> None:
    assert list(NOTEBOOKS) == list(PUBLISHED)
    for name, notebook in NOTEBOOKS.items():
        expected = {_id(row) for row in PUBLISHED[name]["experiments"]} - SPLIT_UP
        ours = {e.id for e in notebook.experiments}
        assert len(ours) == len(notebook.experiments)
        intended = {key for key in ours if key.endswith("-intended")}
        assert ours - intended - {key for key in ours if key.startswith("grid-")} == expected
        assert intended == {
            f"{_id(row)}-intended" for row in PUBLISHED[name]["experiments"] if "intended" in row
        }


@NEEDS_FILE
@pytest.mark.parametrize("name", PUBLISHED)
def test_data_and_recommendation_are_the_notebooks_own(name: str) -> None:
    published, notebook = PUBLISHED[name], NOTEBOOKS[name]
    assert notebook.id == name
    assert notebook.data == published["dataset"]
    assert notebook.recommended == str(published.get("recommended", ""))
    assert bool(notebook.because) == bool(notebook.recommended)
    assert notebook.flaw
    assert notebook.remedy
    if notebook.recommended:
        assert notebook.experiment(notebook.recommended)


@each_row
def test_no_printed_figure_is_missing_altered_or_invented(
    notebook: str, row: dict[str, Any]
) -> None:
    experiment = NOTEBOOKS[notebook].experiment(_id(row))
    assert len(experiment.published) == len(set(experiment.published))
    assert set(experiment.published) == _figures_of(row)


@each_row
def test_every_experiment_is_configured_as_published(notebook: str, row: dict[str, Any]) -> None:
    experiment = NOTEBOOKS[notebook].experiment(_id(row))
    setup = {**PUBLISHED[notebook]["setup"], **row}
    assert experiment.config == _config_of(notebook, row)
    assert experiment.folds == row.get("folds", 0)
    if not experiment.folds:
        fraction = VALIDATION[setup.get("validation")]
        assert experiment.validation_fraction == pytest.approx(fraction, abs=1e-4)


@each_row
def test_published_sizes_and_times_are_kept(notebook: str, row: dict[str, Any]) -> None:
    experiment = NOTEBOOKS[notebook].experiment(_id(row))
    assert experiment.seconds == (_listed(row["seconds"]) if "seconds" in row else ())
    params = row.get("params", PUBLISHED[notebook]["setup"].get("params"))
    if params is not None:
        assert experiment.parameters == params
    if experiment.parameters is not None:
        # The notebook may have printed it of another experiment with the same network.
        printed = {r.get("params", params) for r in PUBLISHED[notebook]["experiments"]}
        assert experiment.parameters in printed
        assert experiment.parameters == _parameters(experiment.config)


@NEEDS_FILE
def test_the_published_grid_is_every_combination_and_its_figure_is_the_best_ones() -> None:
    row = next(row for row in PUBLISHED["fashion"]["experiments"] if row["id"] == "grid")
    notebook, best = NOTEBOOKS["fashion"], row["best"]
    combinations = itertools.product(row["grid"]["batch_size"], row["grid"]["optimizer"])
    expected = {f"grid-{size}-{name}": (size, name) for size, name in combinations}
    assert {e.id for e in notebook.experiments if e.id.startswith("grid-")} == set(expected)
    for key, (size, name) in expected.items():
        experiment = notebook.experiment(key)
        fields = {"batch_size": size, "optimizer": name}
        assert experiment.config == _config_of("fashion", row, **fields)
        assert experiment.folds >= 2
        figure = Figure("val_accuracy", (row["best_cv_accuracy"],))
        assert experiment.published == ((figure,) if fields == best else ())


@NEEDS_FILE
def test_intended_optimizers_differ_from_the_compiled_ones_in_what_was_built_alone() -> None:
    notebook = NOTEBOOKS["sgd-mlp"]
    rows = {_id(row): row for row in PUBLISHED["sgd-mlp"]["experiments"] if "intended" in row}
    assert rows
    for key, row in rows.items():
        compiled, intended = (notebook.experiment(x) for x in (key, f"{key}-intended"))
        assert intended.config == compiled.config.model_copy(update=row["intended"])
        assert intended.published == ()


@pytest.mark.parametrize(("first", "second"), [("a", "c"), ("d32", "g")])
def test_experiments_that_were_the_same_model_have_one_config_id(first: str, second: str) -> None:
    notebook = NOTEBOOKS["sgd-mlp"]
    ids = {notebook.experiment(key).config.config_id for key in (first, second)}
    assert len(ids) == 1
    intended = notebook.experiment(f"{second}-intended").config.config_id
    assert intended not in ids


def test_all_other_experiments_of_a_notebook_are_models_of_their_own() -> None:
    for notebook in NOTEBOOKS.values():
        models = [(e.config.config_id, e.folds) for e in notebook.experiments]
        twice = 2 if notebook.id == "sgd-mlp" else 0
        assert len(set(models)) == len(models) - twice


def test_every_experiment_says_how_long_it_trains_and_what_it_is_measured_on() -> None:
    for _, experiment in EXPERIMENTS:
        assert experiment.config.epochs
        assert 0 < experiment.validation_fraction < 1
        assert experiment.budget_epochs is None or experiment.budget_epochs < (
            experiment.config.epochs
        )
        for figure in experiment.published:
            part, _, name = figure.metric.partition("_")
            assert part in (("train", "val") if experiment.folds else ("train", "test"))
            assert name in ("accuracy", "loss", "f1_micro", "roc_auc_ovo")
            assert figure.epoch is None or 1 <= figure.epoch <= experiment.config.epochs
            assert all(value > 0 if name == "loss" else 0 < value < 1 for value in figure.values)


def test_early_stopping_goes_by_the_images_that_it_went_by_in_the_notebook() -> None:
    assert any(experiment.tail for _, experiment in EXPERIMENTS)
    for _, experiment in EXPERIMENTS:
        assert experiment.tail is (experiment.config.patience is not None)


def test_test_figures_after_an_epoch_ask_for_a_snapshot_of_that_epoch() -> None:
    experiment = NOTEBOOKS["dense-dropout"].experiment("1")
    assert experiment.snapshots == (2, 3, 5, 7, 11, 30, 57, 95)
    trained_only = Experiment("x", TrialConfig(), (Figure("train_accuracy", (0.5,), 18),))
    assert trained_only.snapshots == ()
    final_only = Experiment("x", TrialConfig(), (Figure("test_accuracy", (0.5,)),))
    assert final_only.snapshots == ()


# Drawings

ROW_KINDS = ("bars", "distribution")


@each_drawing
def test_every_drawing_is_of_a_known_kind_and_an_experiment_that_exists(
    notebook: Notebook, drawing: Drawing
) -> None:
    from search.gallery import KINDS

    ids = {e.id for e in notebook.experiments}
    if drawing.kind in ROW_KINDS:
        assert drawing.experiment == ""
        assert set(drawing.options) <= {"metric", "experiments", "over"}
        assert drawing.options["metric"] in ("train_accuracy", "test_accuracy", "val_accuracy")
        assert set(drawing.options.get("experiments", ())) <= ids
    else:
        assert drawing.kind in KINDS
        assert drawing.experiment in ids


@each_drawing
def test_every_drawing_wishes_for_what_its_experiment_has(
    notebook: Notebook, drawing: Drawing
) -> None:
    from search.gallery import Wishes

    if drawing.kind in ROW_KINDS:
        return
    wishes = Wishes(**drawing.options)
    assert set(drawing.options) <= {field.name for field in dataclasses.fields(Wishes)}
    hidden = notebook.experiment(drawing.experiment).config.hidden
    assert 1 <= wishes.layer <= len(hidden)
    assert 0 <= wishes.unit < hidden[wishes.layer - 1]
    assert all(0 <= pixel < 784 for pixel in wishes.pixels or ())
    assert all(0 <= label < 10 for label in wishes.pair or ())


def _bars(over: str, *ids: str) -> list[tuple[str, dict[str, Any]]]:
    options = {"over": over, "experiments": ids}
    return [("bars", {"metric": m, **options}) for m in ("train_accuracy", "test_accuracy")]


DRAWN: dict[str, dict[str, list[tuple[str, dict[str, Any]]]]] = {
    "msds422-mlp": {
        "class counts": [("class-counts", {})],
        "50 sample images with labels": [("samples", {})],
        "model summary": [("model-summary", {})],
        "picture of the architecture": [("architecture", {})],
        "train and validation accuracy by epoch": [("learning-curves", {})],
        "25 test images with predicted and true label, wrong ones in red": [("predictions", {})],
        "class probabilities of one image": [("class-probabilities", {})],
        "confusion matrix of train and of test, as numbers and as an image": [("confusion", {})],
        "the images of two confused classes (4 and 9) in a 2x2 of true by predicted": [
            ("confused-pair", {"pair": (4, 9)})
        ],
    },
    "dense-dropout": {
        "one random image of each class": [("samples-per-class", {})],
        "loss (log scale) and accuracy of train and test by epoch": [
            ("learning-curves", {"log_loss": True})
        ],
        "confusion matrix of test, annotated, with a logarithmic colour scale": [
            ("confusion", {}),
            ("confused-pairs", {}),
        ],
    },
    "sgd-mlp": {},
    "bottleneck": {
        "box plot of one hidden node's activation by predicted class": [
            ("activation-boxes", {"layer": 2, "unit": 0})
        ],
        "scatter of two pixel values (77 and 78) by predicted class": [
            ("two-pixels", {"pixels": (77, 78)})
        ],
        "PCA to 2 of the pixels, coloured by class (explained variance 0.097, 0.071)": [
            ("pca-pixels", {})
        ],
        "PCA to 2 and to 3 (3-D) of the hidden activations (0.169, 0.112, 0.090)": [
            ("pca-activations", {})
        ],
        "t-SNE to 2 of the activations of 10,000 images (perplexity 40)": [
            ("tsne", {"tsne_images": 10_000, "perplexity": 40.0})
        ],
        "heat map of pixel importances from the random forest": [("importance", {})],
        "the 70 chosen pixels drawn over an image": [("importance", {"count": 70})],
        "class probabilities of 20 images as a shaded table": [("probability-table", {})],
    },
    "fashion": {
        "ten sample images with class": [("samples", {})],
        "accuracy and loss by epoch": [("learning-curves", {})],
        "bar charts of train and of test accuracy over folds, epochs, dense layers, dropout rates, "
        "conv depth, and over all models together, with the value on each bar": [
            ("bars", {"metric": "val_accuracy", "over": "folds", "experiments": ("cv-5", "cv-10")}),
            *_bars("epochs", "epochs-25", "epochs-50", "epochs-100", "epochs-200"),
            *_bars("dense layers", "epochs-50", "dense-2", "dense-3"),
            *_bars("dropout", "dense-2", "dropout-0.1", "dropout-0.2", "dropout-0.3"),
            *_bars("conv depth", "conv-1", "conv-2", "conv-3"),
            *_bars("all models"),
        ],
    },
}


@NEEDS_FILE
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_figure_that_a_notebook_drew_is_drawn(name: str) -> None:
    assert set(DRAWN[name]) == set(PUBLISHED[name].get("figures", ()))
    drawings = NOTEBOOKS[name].drawings
    for text, wanted in DRAWN[name].items():
        for kind, options in wanted:
            found = [d for d in drawings if d.kind == kind and options.items() <= d.options.items()]
            assert found, f"{name}: nothing draws {text!r} as {kind} {options}"


def test_every_bar_chart_of_a_notebook_has_a_file_of_its_own() -> None:
    for notebook in NOTEBOOKS.values():
        files = [
            (d.kind, d.options["metric"], d.options.get("over", "experiments"))
            for d in notebook.drawings
            if d.kind in ROW_KINDS
        ]
        assert len(files) == len(set(files))
