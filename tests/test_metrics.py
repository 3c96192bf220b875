from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from search.metrics import f1, roc_auc


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
