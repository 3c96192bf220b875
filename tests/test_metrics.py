from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from search.metrics import calibration_error, f1, measure, named, roc_auc
from search.records import Measures
from spaces.config import Monitored


def sample(
    classes: int, n: int = 300, seed: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Labels of which every class occurs, and probabilities that know a little of them."""
    random = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.int32)
    raw = random.random((n, classes)) + 0.4 * (labels[:, None] == np.arange(classes))
    return labels, (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_f1_macro_is_that_of_scikit_learn(classes: int) -> None:
    labels, probabilities = sample(classes)
    expected = f1_score(labels, probabilities.argmax(axis=1), average="macro")
    assert f1(labels, probabilities, "macro") == pytest.approx(expected)


def test_f1_macro_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1], np.int32)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    # class 0: precision 1, recall 1/2: 2/3; class 1: precision 2/3, recall 1: 4/5
    assert f1(labels, probabilities, "macro") == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_f1_macro_counts_a_class_that_is_never_predicted_as_zero_without_a_warning() -> None:
    labels = np.array([0, 1, 2], np.int32)
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]], np.float32)
    assert f1(labels, probabilities, "macro") == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_f1_macro_counts_a_class_that_is_missing_from_the_labels_too() -> None:
    labels = np.array([0, 1, 0, 1], np.int32)
    probabilities = np.eye(3, dtype=np.float32)[[0, 1, 0, 1]]
    assert f1(labels, probabilities, "macro") == pytest.approx(2 / 3)


@pytest.mark.parametrize("classes", [3, 4, 10])
def test_roc_auc_is_one_versus_one_and_macro_of_scikit_learn(classes: int) -> None:
    labels, probabilities = sample(classes)
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    expected = roc_auc_score(labels, exact, multi_class="ovo", average="macro")
    found = roc_auc(labels, probabilities, "ovo")
    assert found == pytest.approx(expected)
    assert 0.5 < found < 1.0


def test_roc_auc_one_versus_one_is_not_one_versus_rest() -> None:
    labels, probabilities = sample(3)
    kept = (labels == 0) | (np.arange(len(labels)) < 60)  # the two differ on uneven classes
    labels, exact = labels[kept], probabilities[kept].astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    rest = roc_auc_score(labels, exact, multi_class="ovr", average="macro")
    assert abs(roc_auc(labels, probabilities[kept], "ovo") - rest) > 1e-3


def test_roc_auc_of_two_classes_is_that_of_the_second() -> None:
    labels, probabilities = sample(2)
    expected = roc_auc_score(labels, probabilities[:, 1].astype(np.float64))
    assert roc_auc(labels, probabilities, "ovo") == pytest.approx(expected)


def test_roc_auc_of_two_classes_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1], np.int32)
    second = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    assert roc_auc(labels, np.column_stack([1 - second, second]), "ovo") == pytest.approx(0.75)


@pytest.mark.parametrize("classes", [2, 3])
def test_roc_auc_of_a_model_that_is_always_right_is_one(classes: int) -> None:
    labels = (np.arange(12) % classes).astype(np.int32)
    assert roc_auc(labels, np.eye(classes, dtype=np.float32)[labels], "ovo") == 1.0


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 1, 0, 1], 3), ([1, 1, 1], 2), ([0, 2, 2], 3), ([0], 10)]
)
def test_roc_auc_is_not_a_number_where_a_class_is_missing(labels: list[int], classes: int) -> None:
    probabilities = np.full((len(labels), classes), 1 / classes, np.float32)
    assert math.isnan(roc_auc(np.array(labels, np.int32), probabilities, "ovo"))


def test_roc_auc_accepts_rows_that_sum_to_one_only_in_single_precision() -> None:
    labels, probabilities = sample(10)
    assert (probabilities.astype(np.float64).sum(axis=1) != 1.0).any()
    drifted = probabilities * np.float32(1.0001)
    assert roc_auc(labels, drifted, "ovo") == pytest.approx(
        roc_auc(labels, probabilities, "ovo"), abs=1e-6
    )


def test_metrics_leave_the_probabilities_as_they_were() -> None:
    labels, probabilities = sample(3)
    before = probabilities.copy()
    f1(labels, probabilities, "macro")
    roc_auc(labels, probabilities, "ovo")
    assert np.array_equal(before, probabilities)


PROBLEMS = {
    "two-classes": lambda: sample(2),
    "three-classes": lambda: sample(3),
    "ten-classes": lambda: sample(10),
    "uneven": lambda: _uneven(),
    "a-class-is-missing": lambda: _without(sample(4), label=2),
    "the-last-class-is-missing": lambda: _without(sample(4), label=3),
    "one-of-two-is-missing": lambda: _without(sample(2), label=0),
    "a-class-is-never-predicted": lambda: _never_predicted(sample(3), label=1),
    "one-class-is-predicted": lambda: (
        sample(3)[0],
        np.tile(np.float32([0.1, 0.7, 0.2]), (300, 1)),
    ),
    "always-right": lambda: (sample(3)[0], np.eye(3, dtype=np.float32)[sample(3)[0]]),
    "always-wrong": lambda: (sample(3)[0], np.eye(3, dtype=np.float32)[(sample(3)[0] + 1) % 3]),
    "undecided": lambda: (sample(4)[0], np.full((300, 4), 0.25, np.float32)),
    "one-image": lambda: (np.int32([1]), np.float32([[0.2, 0.5, 0.3]])),
    "one-image-wrong": lambda: (np.int32([0]), np.float32([[0.2, 0.8]])),
}
Problem = tuple[NDArray[np.int32], NDArray[np.float32]]


def _uneven() -> Problem:
    labels, probabilities = sample(5, n=1000)
    kept = np.arange(1000) % 7 >= labels
    return labels[kept], probabilities[kept]


def _without(problem: Problem, label: int) -> Problem:
    kept = problem[0] != label
    return problem[0][kept], problem[1][kept]


def _never_predicted(problem: Problem, label: int) -> Problem:
    probabilities = problem[1].copy()
    probabilities[:, label] *= 0.01
    return problem[0], probabilities / probabilities.sum(axis=1, keepdims=True)


def _areas(problem: Problem, multi_class: str) -> float:
    labels, probabilities = problem
    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return math.nan
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    scores = exact[:, 1] if classes == 2 else exact
    return float(roc_auc_score(labels, scores, multi_class=multi_class))


def _binned(problem: Problem) -> float:
    """The expected calibration error as its definition reads (Guo et al., ICML 2017)."""
    labels, probabilities = problem
    confidence = probabilities.astype(np.float64).max(axis=1).clip(0, 1)
    right = probabilities.argmax(axis=1) == labels
    total = 0.0
    for number in range(15):
        inside = confidence <= 1.0
        if number:
            inside &= confidence > number / 15
        if number < 14:
            inside &= confidence <= (number + 1) / 15
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            total += inside.sum() / len(labels) * gap
    return float(total)


EXPECTED: dict[str, Callable[[NDArray[np.int32], NDArray[np.float32]], object]] = {
    "accuracy": lambda y, p: accuracy_score(y, p.argmax(axis=1)),
    "loss": lambda y, p: log_loss(y, p.astype(np.float64), labels=np.arange(p.shape[1])),
    "f1_macro": lambda y, p: f1_score(
        y, p.argmax(axis=1), labels=np.arange(p.shape[1]), average="macro", zero_division=0
    ),
    "f1_micro": lambda y, p: f1_score(y, p.argmax(axis=1), average="micro"),
    "roc_auc_ovo": lambda y, p: _areas((y, p), "ovo"),
    "roc_auc_ovr": lambda y, p: _areas((y, p), "ovr"),
    "calibration_error": lambda y, p: _binned((y, p)),
    "precision": lambda y, p: precision_score(
        y, p.argmax(axis=1), labels=np.arange(p.shape[1]), average=None, zero_division=0
    ),
    "recall": lambda y, p: recall_score(
        y, p.argmax(axis=1), labels=np.arange(p.shape[1]), average=None, zero_division=0
    ),
    "confusion": lambda y, p: confusion_matrix(y, p.argmax(axis=1), labels=np.arange(p.shape[1])),
}


def test_every_measure_has_its_counterpart_tested() -> None:
    assert set(EXPECTED) == {field.name for field in fields(Measures)}


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("field", EXPECTED)
def test_every_measure_is_that_of_scikit_learn(field: str, problem: str) -> None:
    labels, probabilities = PROBLEMS[problem]()
    found = getattr(measure(labels, probabilities), field)
    expected = np.asarray(EXPECTED[field](labels, probabilities), np.float64)
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_measures_are_plain_numbers_that_json_can_hold(problem: str) -> None:
    found = measure(*PROBLEMS[problem]())
    assert {type(value) for value in found.scalars.values()} == {float}
    assert {type(value) for value in (*found.precision, *found.recall)} == {float}
    assert {type(value) for row in found.confusion for value in row} == {int}
    defined = {k: v for k, v in found.scalars.items() if not k.startswith("roc_auc")}
    assert all(map(math.isfinite, defined.values()))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_f1_micro_is_accuracy_under_another_name(problem: str) -> None:
    found = measure(*PROBLEMS[problem]())
    assert found.f1_micro == pytest.approx(found.accuracy)


def test_measures_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 2], np.int32)
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2]],
        np.float32,
    )
    found = measure(labels, probabilities)
    assert found.confusion == ((1, 1, 0), (0, 2, 0), (1, 0, 0))
    assert found.precision == pytest.approx((1 / 2, 2 / 3, 0))
    assert found.recall == pytest.approx((1 / 2, 1, 0))
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.loss == pytest.approx(-sum(map(math.log, (0.8, 0.2, 0.7, 0.8, 0.2))) / 5)


def test_calibration_error_worked_out_by_hand() -> None:
    # 4 images at 0.9, 3 of them right: |0.75 - 0.9|; 2 at 0.6, both right: |1 - 0.6|.
    second = np.array([0.9, 0.9, 0.9, 0.1, 0.6, 0.4])
    labels = np.array([1, 1, 0, 0, 1, 0], np.int32)
    probabilities = np.column_stack([1 - second, second]).astype(np.float32)
    expected = 4 / 6 * 0.15 + 2 / 6 * 0.4
    assert calibration_error(labels, probabilities) == pytest.approx(expected)


def test_calibration_error_is_zero_where_confidence_is_accuracy_in_every_bin() -> None:
    labels, rows = [], []
    for confidence, images in ((0.5, 10), (0.7, 10), (0.9, 20), (1.0, 3)):
        right = round(confidence * images)
        labels += [0] * right + [1] * (images - right)
        rows += [[confidence, 1 - confidence]] * images
    found = calibration_error(np.array(labels, np.int32), np.array(rows, np.float32))
    assert found == pytest.approx(0, abs=1e-7)


def test_calibration_error_does_not_cancel_over_bins() -> None:
    # As confident as right on the whole: 0.6 where it is always right, 0.8 where it is 2 of 5.
    labels = np.array([0] * 5 + [0, 0, 1, 1, 1], np.int32)
    rows = [[0.6, 0.4]] * 5 + [[0.8, 0.2]] * 5
    found = calibration_error(labels, np.array(rows, np.float32))
    assert found == pytest.approx(0.4)


def test_calibration_error_has_15_bins() -> None:
    # 0.60 and 0.66 share the bin from 9/15 to 10/15 and cancel; 0.60 and 0.68 do not.
    def error(confidence: float, right: int) -> float:
        labels = np.array([0] * 60 + [1] * 40 + [0] * right + [1] * (100 - right), np.int32)
        first = np.array([0.605] * 100 + [confidence] * 100)
        return calibration_error(labels, np.column_stack([first, 1 - first]).astype(np.float32))

    assert error(0.66, right=66) == pytest.approx(abs(1.26 - 1.265) / 2, abs=1e-6)
    assert error(0.665, right=67) == pytest.approx(0, abs=1e-6)
    assert error(0.68, right=69) == pytest.approx((0.005 + 0.01) / 2, abs=1e-6)


@pytest.mark.parametrize("right", [True, False])
def test_calibration_error_accepts_probabilities_of_exactly_0_and_1(right: bool) -> None:
    labels = np.zeros(4, np.int32)
    probabilities = np.eye(2, dtype=np.float32)[labels if right else 1 - labels]
    assert calibration_error(labels, probabilities) == (0.0 if right else 1.0)


def test_calibration_error_accepts_what_single_precision_leaves_above_1() -> None:
    probabilities = np.array([[np.nextafter(np.float32(1), np.float32(2)), 0.0]], np.float32)
    assert calibration_error(np.zeros(1, np.int32), probabilities) == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 30])
def test_calibration_error_is_its_definition_on_random_problems(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, 500).astype(np.int32)
    probabilities = random.dirichlet(np.full(classes, 0.2), 500).astype(np.float32)
    assert calibration_error(labels, probabilities) == pytest.approx(
        _binned((labels, probabilities))
    )


@pytest.mark.parametrize(
    "monitored",
    sorted({m for m in get_args(Monitored) if m.startswith("val_")} - {"val_accuracy", "val_loss"}),
)
def test_what_patience_may_watch_is_the_measure_of_that_name(monitored: str) -> None:
    labels, probabilities = _uneven()
    name = monitored.removeprefix("val_")
    assert named(name, labels, probabilities) == getattr(measure(labels, probabilities), name)
