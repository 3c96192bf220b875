"""Figures show what they say they show: the right split, the right classes, the right images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from search import analysis, figures, pictures
from search.data import LoadedData, TestLock, TrainingData, load
from search.gallery import (
    KINDS,
    MOST_BARS,
    MOST_CLASSES,
    MOST_FRACTIONS,
    Subject,
    Wishes,
    draw,
    draw_data,
    draw_varied,
    flat,
    shown,
    varied,
)
from search.records import Inspected, Layer, State, TestResult
from spaces.config import TrialConfig
from tests.builders import make_epoch, make_measures, make_totals, make_trial

PNG = b"\x89PNG\r\n\x1a\n"
LAYERS = (
    Layer("images", "InputLayer", (None, 8, 8, 1), 0, ""),
    Layer("dense", "Dense", (None, 6), 390, "6 relu"),
    Layer("dense_1", "Dense", (None, 3), 21, "3 softmax"),
)


def make_subject(
    data: TrainingData | None = None,
    mistakes: float = 0.3,
    hidden: Sequence[int] = (6, 3),
    **values: Any,
) -> Subject:
    """A made-up model on digits, whose positions are in no order; a third is for validation."""
    data = data or _digits()
    random = np.random.default_rng(3)
    order = random.permutation(len(data.labels)).astype(np.int32)
    validation, train = np.split(order, [len(order) // 3])
    positions = np.concatenate([validation, train])[: len(order) // 2]
    return Subject(
        **{
            "trial": make_trial(),
            "epochs": [make_epoch(n, val_loss=1 / n) for n in range(1, 4)],
            "inspected": Inspected(
                layers=LAYERS,
                train=train,
                validation=validation,
                train_probabilities=_probabilities(data, train, mistakes),
                val_probabilities=_probabilities(data, validation, mistakes),
                positions=positions,
                activations={
                    f"hidden {number}": random.random((len(positions), units), np.float32)
                    for number, units in enumerate(hidden, 1)
                },
            ),
            "data": data,
            **values,
        }
    )


def _digits(count: int = 150, classes: int = 10) -> TrainingData:
    pool = load("digits", None, 0).training
    chosen = np.flatnonzero(pool.labels < classes)[:count]
    names = pool.classes[:classes]
    return TrainingData("digits", pool.images[chosen], pool.labels[chosen], names)


def _colours(classes: int = 3) -> TrainingData:
    """Float colour images, taller than wide, of classes whose names are no words."""
    images = np.random.default_rng(0).normal(size=(60, 7, 5, 3)).astype(np.float32)
    labels = np.resize(np.arange(classes, dtype=np.int32), 60)
    return TrainingData("own", images, labels, ("T-shirt/top", "$x$ <b>", "../up")[:classes])


def _probabilities(
    data: TrainingData, positions: NDArray[np.int32], mistakes: float
) -> NDArray[np.float32]:
    """Of a model that is wrong about that fraction of the images."""
    classes = len(data.classes)
    random = np.random.default_rng(len(positions))
    guesses = data.labels[positions].copy()
    wrong = random.random(len(positions)) < mistakes
    guesses[wrong] = (guesses[wrong] + random.integers(1, classes, wrong.sum())) % classes
    rows = random.random((len(positions), classes), np.float32) * 0.3
    rows[np.arange(len(positions)), guesses] = 1.0
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), np.float32)


Capture = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def capture(monkeypatch: pytest.MonkeyPatch) -> Capture:
    """What a kind of figure hands to a drawing function, by the names of its arguments."""

    def run(subject: Subject, kind: str, module: ModuleType, function: str) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        signature = inspect.signature(getattr(module, function))

        def fake(*values: Any, **named: Any) -> Figure:
            bound = signature.bind(*values, **named)
            bound.apply_defaults()
            calls.append(dict(bound.arguments))
            return Figure()

        with monkeypatch.context() as patched:
            patched.setattr(module, function, fake)
            names = [name for name, _ in KINDS[kind](subject)]
        assert len(names) == len(set(names))
        return [{"name": name, **call} for name, call in zip(names, calls, strict=True)]

    return run


# Every kind, of everything

HIDDEN = {"activation-boxes", "pca-activations", "tsne"}
ERRORS = {"confusion", "predictions", "class-probabilities", "probability-table"} | {
    *("confused-pair", "confused-pairs", "calibration")
}
SUBJECTS: dict[str, tuple[Callable[[], Subject], set[str]]] = {
    "digits": (lambda: make_subject(test_counts=(4,) * 10), set(KINDS)),
    "two classes in colour": (lambda: make_subject(_colours(2)), set(KINDS)),
    "no mistakes": (lambda: make_subject(_digits(60, classes=2), mistakes=0.0), ERRORS),
    "nothing but mistakes": (lambda: make_subject(_digits(60, classes=2), mistakes=1.0), ERRORS),
}


@pytest.mark.parametrize("what", SUBJECTS)
def test_every_kind_of_figure_can_be_drawn(what: str, tmp_path: Path) -> None:
    make, kinds = SUBJECTS[what]
    subject, folder = make(), tmp_path / "figures"
    drawn = {kind: draw(subject, folder, [kind]) for kind in sorted(kinds)}
    assert not {kind for kind, paths in drawn.items() if not paths}
    files = [path for paths in drawn.values() for path in paths]
    assert len(files) == len(set(files))
    assert set(files) == set(folder.iterdir())
    assert all(path.read_bytes().startswith(PNG) for path in files)


def test_without_hidden_layers_everything_else_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from search import canvas

    monkeypatch.setattr(canvas, "save", lambda figure, path: path)
    subject = make_subject(_digits(60, classes=3), hidden=())
    missing = {kind for kind in KINDS if not draw(subject, tmp_path, [kind])}
    assert missing == HIDDEN


def test_without_a_choice_all_kinds_are_drawn_and_with_one_only_that(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from search import canvas, gallery

    kinds = {kind: lambda _, kind=kind: iter([(kind, Figure())]) for kind in ("first", "second")}
    monkeypatch.setattr(gallery, "KINDS", kinds)
    monkeypatch.setattr(canvas, "save", lambda figure, path: path)
    subject = make_subject()
    assert draw(subject, tmp_path / "new") == [
        tmp_path / "new" / "first.png",
        tmp_path / "new" / "second.png",
    ]
    assert draw(subject, tmp_path / "new", ["second"]) == [tmp_path / "new" / "second.png"]


def test_a_pool_of_which_a_class_is_missing_is_drawn_as_far_as_it_goes(tmp_path: Path) -> None:
    data = _digits(60, classes=2)
    pool = TrainingData("own", data.images, data.labels, ("a", "b", "never"))
    assert draw(make_subject(pool), tmp_path, ["samples-per-class"]) == []
    rest = ["class-counts", "confused-pairs", "calibration"]
    assert len(draw(make_subject(pool), tmp_path, rest)) == 3


# What is drawn


def test_class_counts_are_those_of_each_split(capture: Capture) -> None:
    subject = make_subject(test_counts=tuple(range(10)))
    [call] = capture(subject, "class-counts", figures, "class_counts")
    seen, labels = subject.inspected, subject.data.labels
    for part, positions in (("train", seen.train), ("validation", seen.validation)):
        assert sum(call["counts"][part]) == len(positions)
        expected = [int((labels[positions] == c).sum()) for c in range(10)]
        assert list(call["counts"][part]) == expected
    assert call["counts"]["test"] == tuple(range(10))
    assert call["classes"] == subject.classes


def test_counts_of_an_unknown_test_split_are_left_out(capture: Capture) -> None:
    [call] = capture(make_subject(), "class-counts", figures, "class_counts")
    assert set(call["counts"]) == {"train", "validation"}


def test_samples_are_images_of_the_training_split_under_their_own_labels(
    capture: Capture,
) -> None:
    subject = make_subject()
    [call] = capture(subject, "samples", pictures, "sample_images")
    first = subject.inspected.train[:50]
    np.testing.assert_array_equal(call["labels"], subject.data.labels[first])
    np.testing.assert_allclose(call["images"], subject.data.images[first] / 16, atol=1e-6)


def test_samples_per_class_are_of_their_class_and_as_many_of_each(capture: Capture) -> None:
    subject = make_subject()
    [call] = capture(subject, "samples-per-class", pictures, "samples_per_class")
    train = subject.inspected.train
    known = {subject.data.images[i].tobytes(): subject.data.labels[i] for i in train}
    images = np.rint(call["images"] * 16).astype(np.uint8)
    assert 1 <= images.shape[1] <= 10
    for label, row in enumerate(images):
        assert [known[image.tobytes()] for image in row] == [label] * images.shape[1]


@pytest.mark.parametrize(
    ("kind", "function"), [("model-summary", "model_summary"), ("architecture", "architecture")]
)
def test_layers_are_drawn_as_they_were_found(kind: str, function: str, capture: Capture) -> None:
    [call] = capture(make_subject(), kind, pictures, function)
    assert tuple(call["layers"]) == LAYERS


def test_learning_curves_are_of_the_trials_epochs_and_mark_the_best(capture: Capture) -> None:
    epochs = [make_epoch(n, train_loss=n / 10, val_accuracy=n / 20) for n in range(1, 6)]
    trial = make_trial(totals=make_totals(best_epoch=4))
    subject = make_subject(epochs=epochs, trial=trial)
    linear, log = capture(subject, "learning-curves", figures, "learning_curves")
    assert (linear["log_loss"], log["log_loss"]) == (False, True)
    assert linear["curves"]["train_loss"] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert linear["curves"]["val_accuracy"] == [0.05, 0.1, 0.15, 0.2, 0.25]
    assert linear["best_epoch"] == log["best_epoch"] == 4


def test_no_epoch_is_the_best_where_the_last_weights_were_kept(capture: Capture) -> None:
    trial = make_trial(config=TrialConfig(restore_best=False))
    for call in capture(make_subject(trial=trial), "learning-curves", figures, "learning_curves"):
        assert call["best_epoch"] is None


def test_a_logarithmic_loss_may_be_all_that_is_wished_for(capture: Capture) -> None:
    subject = make_subject(wishes=Wishes(log_loss=True), trial=make_trial(totals=None))
    [call] = capture(subject, "learning-curves", figures, "learning_curves")
    assert call["log_loss"]
    assert call["best_epoch"] is None


def _expected_confusion(subject: Subject, part: str) -> NDArray[np.int64]:
    seen = subject.inspected
    positions, probabilities = {
        "train": (seen.train, seen.train_probabilities),
        "validation": (seen.validation, seen.val_probabilities),
    }[part]
    labels = np.arange(len(subject.classes))
    truth = subject.data.labels[positions]
    return np.asarray(confusion_matrix(truth, probabilities.argmax(axis=1), labels=labels))


def test_confusion_matrices_are_scikit_learns(capture: Capture) -> None:
    subject = make_subject()
    calls = {call["name"]: call for call in capture(subject, "confusion", analysis, "confusion")}
    assert set(calls) == {
        f"confusion-{part}{scale}" for part in ("train", "validation") for scale in ("", "-log")
    }
    for part in ("train", "validation"):
        for scale in ("", "-log"):
            call = calls[f"confusion-{part}{scale}"]
            np.testing.assert_array_equal(call["matrix"], _expected_confusion(subject, part))
            assert call["logarithmic"] is bool(scale)
            assert part in call["title"]
            assert call["classes"] == subject.classes


def test_the_test_splits_confusion_is_drawn_where_it_was_opened_and_of_the_last_epoch(
    capture: Capture,
) -> None:
    tests = tuple(
        TestResult(epoch, make_measures(confusion=((epoch, 1), (2, 3)))) for epoch in (2, 6)
    )
    subject = make_subject(_digits(60, classes=2), trial=make_trial(tests=tests))
    calls = {call["name"]: call for call in capture(subject, "confusion", analysis, "confusion")}
    np.testing.assert_array_equal(calls["confusion-test"]["matrix"], [[6, 1], [2, 3]])
    assert "test" in calls["confusion-test"]["title"]
    assert len(calls) == 6


@pytest.mark.parametrize("mistakes", [0.0, 0.1, 0.5, 1.0])
def test_predictions_are_images_labels_and_probabilities_of_the_validation_split(
    mistakes: float, capture: Capture
) -> None:
    subject = make_subject(mistakes=mistakes)
    [call] = capture(subject, "predictions", pictures, "predictions")
    seen, data = subject.inspected, subject.data
    own = {data.images[p].tobytes(): i for i, p in enumerate(seen.validation)}
    rows = [own[image.tobytes()] for image in np.rint(call["images"] * 16).astype(np.uint8)]
    assert len(rows) == len(set(rows)) <= 25
    np.testing.assert_array_equal(call["labels"], data.labels[seen.validation[rows]])
    np.testing.assert_array_equal(call["probabilities"], seen.val_probabilities[rows])
    wrong = call["probabilities"].argmax(axis=1) != call["labels"]
    everywhere = (subject.val_predicted != subject.val_labels).sum()
    assert wrong.sum() == min(12, everywhere)
    assert len(rows) == min(25, 12 + (len(seen.validation) - everywhere), len(seen.validation))
    assert "validation split" in call["title"]
    assert f"{wrong.sum()} mistakes" in call["title"]


def test_predictions_on_the_test_split_are_of_the_test_split_throughout(capture: Capture) -> None:
    random = np.random.default_rng(1)
    images = random.integers(0, 17, (40, 8, 8, 1), dtype=np.uint8)
    labels = random.integers(0, 10, 40, dtype=np.int32)
    probabilities = random.random((40, 10), np.float32)
    subject = make_subject(opened=(images, labels, probabilities))
    validation, test = capture(subject, "predictions", pictures, "predictions")
    assert (validation["name"], test["name"]) == ("predictions-validation", "predictions-test")
    assert "test split" in test["title"]
    where = {image.tobytes(): i for i, image in enumerate(images)}
    rows = [where[image.tobytes()] for image in np.rint(test["images"] * 16).astype(np.uint8)]
    np.testing.assert_array_equal(test["labels"], labels[rows])
    np.testing.assert_array_equal(test["probabilities"], probabilities[rows])


@pytest.mark.parametrize(
    ("kind", "function", "count"),
    [
        ("class-probabilities", "class_probabilities", 6),
        ("probability-table", "probability_table", 20),
    ],
)
def test_probabilities_are_shown_of_the_first_validation_images_or_of_those_wished_for(
    kind: str, function: str, count: int, capture: Capture
) -> None:
    subject = make_subject()
    seen, labels = subject.inspected, subject.data.labels
    [call] = capture(subject, kind, pictures, function)
    np.testing.assert_array_equal(call["probabilities"], seen.val_probabilities[:count])
    np.testing.assert_array_equal(call["labels"], labels[seen.validation[:count]])
    wished = int(seen.train[5]), int(seen.validation[3])
    subject = replace(subject, wishes=Wishes(images=wished))
    [call] = capture(subject, kind, pictures, function)
    np.testing.assert_array_equal(call["labels"], labels[list(wished)])
    expected = np.stack([seen.train_probabilities[5], seen.val_probabilities[3]])
    np.testing.assert_array_equal(call["probabilities"], expected)


def test_images_are_shown_beside_their_own_probabilities(capture: Capture) -> None:
    subject = make_subject()
    [call] = capture(subject, "class-probabilities", pictures, "class_probabilities")
    expected = subject.data.images[subject.inspected.validation[:6]] / 16
    np.testing.assert_allclose(call["images"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["class-probabilities", "probability-table"])
def test_images_that_are_not_there_are_not_drawn(kind: str, tmp_path: Path) -> None:
    subject = make_subject(wishes=Wishes(images=(10_000, -1)))
    assert draw(subject, tmp_path, [kind]) == []
    some = replace(subject, wishes=Wishes(images=(10_000, 0)))
    assert len(draw(some, tmp_path, [kind])) == 1


def test_the_pair_is_the_one_that_is_confused_most_on_validation(capture: Capture) -> None:
    subject = make_subject()
    matrix = _expected_confusion(subject, "validation")
    both = np.triu(matrix + matrix.T, 1)
    expected = np.unravel_index(both.argmax(), both.shape)
    [call] = capture(subject, "confused-pair", pictures, "confused_pair")
    assert tuple(call["pair"]) == tuple(map(int, expected))
    a, b = call["pair"]
    assert call["name"] == f"confused-pair-{a}-{b}"


def test_a_pair_is_drawn_from_images_labels_and_predictions_of_validation(
    capture: Capture,
) -> None:
    subject = make_subject(wishes=Wishes(pair=(4, 9)))
    [call] = capture(subject, "confused-pair", pictures, "confused_pair")
    seen, data = subject.inspected, subject.data
    assert (call["pair"], call["name"]) == ((4, 9), "confused-pair-4-9")
    np.testing.assert_allclose(call["images"], data.images[seen.validation] / 16, atol=1e-6)
    np.testing.assert_array_equal(call["labels"], data.labels[seen.validation])
    np.testing.assert_array_equal(call["predicted"], seen.val_probabilities.argmax(axis=1))


def test_without_a_confusion_the_first_two_classes_are_the_pair(capture: Capture) -> None:
    [call] = capture(make_subject(mistakes=0.0), "confused-pair", pictures, "confused_pair")
    assert call["pair"] == (0, 1)


def test_a_pairs_file_stays_in_its_folder_whatever_the_classes_are_called(tmp_path: Path) -> None:
    subject = make_subject(_colours(), wishes=Wishes(pair=(0, 2)))
    [path] = draw(subject, tmp_path / "figures", ["confused-pair"])
    assert path.parent == tmp_path / "figures"
    assert path.is_file()


def test_confused_pairs_and_calibration_are_those_of_validation(capture: Capture) -> None:
    subject = make_subject()
    [call] = capture(subject, "confused-pairs", analysis, "most_confused_pairs")
    np.testing.assert_array_equal(call["matrix"], _expected_confusion(subject, "validation"))
    [call] = capture(subject, "calibration", analysis, "calibration")
    np.testing.assert_array_equal(call["probabilities"], subject.inspected.val_probabilities)
    np.testing.assert_array_equal(call["labels"], subject.val_labels)


@pytest.mark.parametrize(("layer", "unit"), [(1, 0), (1, 5), (2, 2)])
def test_activations_are_of_the_unit_wished_for_by_the_class_predicted_for_the_same_image(
    layer: int, unit: int, capture: Capture
) -> None:
    subject = make_subject(wishes=Wishes(layer=layer, unit=unit))
    [call] = capture(subject, "activation-boxes", analysis, "activation_boxes")
    seen = subject.inspected
    assert call["name"] == f"activation-boxes-{layer}-{unit}"
    assert (f"hidden {layer}" in call["unit"], f"unit {unit}" in call["unit"]) == (True, True)
    expected = seen.activations[f"hidden {layer}"][:, unit]
    np.testing.assert_array_equal(call["activation"], expected)
    guesses = dict(zip(seen.train, seen.train_probabilities.argmax(axis=1), strict=True))
    guesses |= dict(zip(seen.validation, seen.val_probabilities.argmax(axis=1), strict=True))
    np.testing.assert_array_equal(call["predicted"], [guesses[p] for p in seen.positions])


@pytest.mark.parametrize(("layer", "unit"), [(3, 0), (1, 6), (2, 3), (99, 99)])
def test_a_unit_that_is_not_there_is_not_drawn(layer: int, unit: int, tmp_path: Path) -> None:
    subject = make_subject(wishes=Wishes(layer=layer, unit=unit))
    assert draw(subject, tmp_path, ["activation-boxes"]) == []


def test_two_pixels_are_those_wished_for_or_those_that_vary_most(capture: Capture) -> None:
    subject = make_subject()
    [call] = capture(subject, "two-pixels", analysis, "two_pixels")
    spread = subject.val_images.reshape(len(subject.val_images), -1).std(axis=0)
    assert set(call["pixels"]) == set(np.argsort(-spread, kind="stable")[:2].tolist())
    np.testing.assert_array_equal(call["predicted"], subject.val_predicted)
    np.testing.assert_array_equal(call["images"], subject.val_images)
    [call] = capture(
        replace(subject, wishes=Wishes(pixels=(7, 63))), "two-pixels", analysis, "two_pixels"
    )
    assert call["pixels"] == (7, 63)


@pytest.mark.parametrize("pixels", [(0, 64), (64, 0), (10_000, 10_001)])
def test_a_pixel_that_is_not_there_is_not_drawn(pixels: tuple[int, int], tmp_path: Path) -> None:
    assert draw(make_subject(wishes=Wishes(pixels=pixels)), tmp_path, ["two-pixels"]) == []


def test_components_are_of_pixels_and_of_the_last_hidden_layer_by_true_class(
    capture: Capture,
) -> None:
    subject = make_subject()
    seen, data = subject.inspected, subject.data
    pixels = data.images[seen.positions].reshape(len(seen.positions), -1)
    for kind, features in (
        ("pca-pixels", pixels),
        ("pca-activations", seen.activations["hidden 2"]),
    ):
        calls = capture(subject, kind, analysis, "pca_scatter")
        assert [call["components"] for call in calls] == [2, 3]
        assert [call["name"] for call in calls] == [f"{kind}-2d", f"{kind}-3d"]
        for call in calls:
            np.testing.assert_array_equal(call["features"], features)
            np.testing.assert_array_equal(call["labels"], data.labels[seen.positions])


@pytest.mark.parametrize(("units", "drawn"), [(1, []), (2, [2]), (3, [2, 3])])
def test_no_more_components_are_drawn_than_there_are_units(
    units: int, drawn: list[int], capture: Capture
) -> None:
    calls = capture(make_subject(hidden=(6, units)), "pca-activations", analysis, "pca_scatter")
    assert [call["components"] for call in calls] == drawn


def test_t_sne_is_of_as_many_images_as_wished_for(capture: Capture) -> None:
    subject = make_subject(wishes=Wishes(tsne_images=20, perplexity=5.0))
    [call] = capture(subject, "tsne", analysis, "tsne_scatter")
    seen = subject.inspected
    np.testing.assert_array_equal(call["features"], seen.activations["hidden 2"][:20])
    np.testing.assert_array_equal(call["labels"], subject.data.labels[seen.positions[:20]])
    assert (call["perplexity"], call["seed"]) == (5.0, subject.trial.seed)
    assert "20 images" in call["title"]
    many = replace(subject, wishes=Wishes(tsne_images=100_000))
    [call] = capture(many, "tsne", analysis, "tsne_scatter")
    assert len(call["features"]) == len(call["labels"]) == len(seen.positions)


def _importances(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> NDArray[np.float64]:
    """Made-up ones, with ties; asks that only images of the training split were looked at."""
    found = np.random.default_rng(0).integers(0, 20, subject.data.images[0].size) / 20

    def importances(images: Any, labels: Any, seed: int) -> NDArray[np.float64]:
        train = subject.inspected.train
        expected = subject.data.images[train].reshape(len(train), -1)
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, subject.data.labels[train])
        return found

    monkeypatch.setattr(analysis, "forest_importances", importances)
    monkeypatch.setattr(pictures, "importance_map", lambda *_, **__: Figure())
    return found


@pytest.mark.parametrize(("count", "expected"), [(None, 6), (1, 1), (7, 7), (64, 64), (999, 64)])
def test_the_chosen_pixels_are_the_most_important_ones(
    count: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(wishes=Wishes(count=count))
    found = _importances(subject, monkeypatch)
    chosen: list[Any] = []
    monkeypatch.setattr(
        pictures, "chosen_pixels", lambda image, positions, title: chosen.append(positions)
    )
    assert [name for name, _ in KINDS["importance"](subject)] == ["importance", "chosen-pixels"]
    [positions] = chosen
    assert len(positions) == len(set(positions.tolist())) == expected
    left = np.setdiff1d(np.arange(64), positions)
    assert found[positions].min() >= (found[left].max() if len(left) else 0)


def test_where_the_model_sees_some_pixels_only_those_are_the_chosen_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = make_subject(wishes=Wishes(count=5))
    _importances(subject, monkeypatch)
    seen = replace(subject.inspected, chosen_pixels=(40, 3, 9))
    chosen: list[Any] = []
    monkeypatch.setattr(
        pictures, "chosen_pixels", lambda _, positions, title: chosen.append((positions, title))
    )
    list(KINDS["importance"](replace(subject, inspected=seen)))
    [(positions, title)] = chosen
    assert set(positions.tolist()) == {3, 9, 40}
    assert "3 pixels that the model sees" in title


def test_a_confusion_matrix_of_too_many_classes_is_left_out(tmp_path: Path) -> None:
    classes = tuple(map(str, range(MOST_CLASSES + 1)))
    data = _digits(60, classes=3)
    many = TrainingData("own", data.images, data.labels, classes)
    assert draw(make_subject(many), tmp_path, ["confusion"]) == []


@pytest.mark.parametrize(
    ("images", "low", "high"),
    [
        (np.array([0, 8, 16], np.uint8), 0.0, 16.0),
        (np.array([0.0, 0.5, 1.0], np.float32), 0.0, 1.0),
        (np.array([-1.0, 0.0, 3.0], np.float32), -1.0, 3.0),
        (np.array([5, 5, 5], np.uint8), 0.0, 5.0),
        (np.zeros(3, np.uint8), 0.0, 1.0),
    ],
)
def test_images_are_shown_between_black_and_white_by_the_range_of_the_pool(
    images: NDArray[Any], low: float, high: float
) -> None:
    pool = TrainingData("own", images.reshape(3, 1, 1, 1), np.zeros(3, np.int32), ("a", "b"))
    expected = (images.astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(shown(pool, pool.images).ravel(), expected, atol=1e-6)
    assert shown(pool, pool.images).dtype == np.float32


def test_a_data_set_is_drawn_without_its_test_images(tmp_path: Path) -> None:
    data = _digits()
    lock = TestLock(data.images[:30], data.labels[:30])
    loaded = LoadedData(data, data.split(0), lock, "f" * 16)
    paths = draw_data(loaded, tmp_path / "data")
    assert [path.name for path in paths] == ["class-counts.png", "samples.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths)


# What was varied


def _trials(*configs: TrialConfig, **values: Any) -> list[Any]:
    return [
        make_trial(number, config=config, val_accuracy=0.5 + number / 100, **values)
        for number, config in enumerate(configs)
    ]


def test_only_what_was_varied_is_grouped_and_by_its_values() -> None:
    found = varied(
        _trials(
            TrialConfig(batch_size=32, optimizer="sgd"),
            TrialConfig(batch_size=10, optimizer="adam"),
            TrialConfig(batch_size=32, optimizer="adam"),
        )
    )
    assert found == {
        "batch_size": {"10": [0.51], "32": [0.5, 0.52]},
        "optimizer": {"adam": [0.51, 0.52], "sgd": [0.5]},
    }


def test_numbers_are_in_the_order_of_their_size_and_words_after_them() -> None:
    configs = [TrialConfig(batch_size=size) for size in (128, 9, 32, 1000)]
    assert list(varied(_trials(*configs))["batch_size"]) == ["9", "32", "128", "1000"]
    configs = [TrialConfig(pca_components=count) for count in (100, None, 20)]
    assert list(varied(_trials(*configs))["pca_components"]) == ["20", "100", "none"]


def test_layer_sizes_and_a_users_own_values_are_parameters_as_well() -> None:
    found = varied(
        _trials(
            TrialConfig(hidden=(128, 64), extra={"width": 3}),
            TrialConfig(hidden=(), extra={"width": 2}),
        )
    )
    assert found == {
        "hidden": {"128-64": [0.5], "none": [0.51]},
        "extra.width": {"2": [0.51], "3": [0.5]},
    }


def test_a_parameter_that_only_some_trials_have_is_grouped_among_those() -> None:
    found = varied(
        _trials(TrialConfig(extra={"depth": 1}), TrialConfig(), TrialConfig(extra={"depth": 2}))
    )
    assert found == {"extra.depth": {"1": [0.5], "2": [0.52]}}


@pytest.mark.parametrize(("count", "drawn"), [(1, 0), (2, 1), (MOST_BARS, 1), (MOST_BARS + 1, 0)])
def test_a_parameter_of_one_value_or_of_too_many_makes_no_bars(count: int, drawn: int) -> None:
    configs = [TrialConfig(batch_size=size) for size in range(1, count + 1)]
    assert len(varied(_trials(*configs))) == drawn


@pytest.mark.parametrize(
    ("count", "drawn"), [(1, 0), (2, 1), (MOST_FRACTIONS, 1), (MOST_FRACTIONS + 1, 0)]
)
def test_a_fraction_of_more_values_was_drawn_from_a_range_and_makes_no_bars(
    count: int, drawn: int
) -> None:
    configs = [TrialConfig(dropout=n / 100) for n in range(count)]
    assert len(varied(_trials(*configs))) == drawn


def test_values_that_look_alike_are_two_groups() -> None:
    configs = [TrialConfig(learning_rate=rate) for rate in (0.001001, 0.001002)]
    found = varied(_trials(*configs))["learning_rate"]
    assert sorted(found.values()) == [[0.5], [0.51]]


def test_nothing_varied_in_nothing() -> None:
    assert varied([]) == {}
    assert varied(_trials(TrialConfig(), TrialConfig())) == {}


def test_bars_are_drawn_of_completed_trials_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = _trials(TrialConfig(batch_size=10), TrialConfig(batch_size=32))
    trials += _trials(TrialConfig(dropout=0.5), state=State.STOPPED)
    trials += _trials(TrialConfig(dropout=0.4), state=State.FAILED)
    calls = []
    monkeypatch.setattr(
        figures, "bars", lambda series, *_, **__: (calls.append(series), Figure())[1]
    )
    assert draw_varied(trials, tmp_path / "f") == [tmp_path / "f" / "bars-batch_size.png"]
    assert calls == [{"validation": {"10": [0.5], "32": [0.51]}}]


def test_bars_are_files(tmp_path: Path) -> None:
    trials = _trials(TrialConfig(hidden=(8, 4)), TrialConfig(hidden=(8,)))
    [path] = draw_varied(trials, tmp_path / "new")
    assert path.read_bytes().startswith(PNG)
    assert draw_varied([], tmp_path / "empty") == []


def test_a_configuration_is_plain_values() -> None:
    fields = {"hidden": (128, 64), "filters": (), "patience": None, "extra": {"a": True}, "x": 0.5}
    assert flat(fields) == {
        "hidden": "128-64",
        "filters": "none",
        "patience": "none",
        "extra.a": True,
        "x": 0.5,
    }
