"""Measures of a classifier: scikit-learn's, with the arguments that Podium means by each name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)

from search.records import Measures

CALIBRATION_BINS = 15
Labels = NDArray[np.int32]
Probabilities = NDArray[np.float32]


def measure(labels: Labels, probabilities: Probabilities) -> Measures:
    """Everything that Podium measures of a classifier.

    Args:
        labels: int32 (n,), n >= 1.
        probabilities: float32 (n, classes), rows sum to 1.
    """
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    precision, recall, _, _ = precision_recall_fscore_support(
        labels, predicted, labels=classes, average=None, zero_division=0.0
    )
    confusion = confusion_matrix(labels, predicted, labels=classes)
    return Measures(
        accuracy=float(accuracy_score(labels, predicted)),
        loss=float(log_loss(labels, _exact(probabilities), labels=classes)),
        f1_macro=f1(labels, probabilities, "macro"),
        f1_micro=f1(labels, probabilities, "micro"),
        roc_auc_ovo=roc_auc(labels, probabilities, "ovo"),
        roc_auc_ovr=roc_auc(labels, probabilities, "ovr"),
        calibration_error=calibration_error(labels, probabilities),
        precision=tuple(map(float, precision)),
        recall=tuple(map(float, recall)),
        confusion=tuple(tuple(map(int, row)) for row in confusion),
    )


def named(name: str, labels: Labels, probabilities: Probabilities) -> float:
    """One of the measures that cost something, by its name: what patience may watch."""
    if name == "calibration_error":
        return calibration_error(labels, probabilities)
    kind, _, average = name.rpartition("_")
    return (f1 if kind == "f1" else roc_auc)(labels, probabilities, average)


def f1(labels: Labels, probabilities: Probabilities, average: str) -> float:
    """F1, "macro" (the mean over classes; one that is never predicted counts 0) or "micro".

    Micro-averaged over all classes it is accuracy under another name.
    """
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    return float(f1_score(labels, predicted, labels=classes, average=average, zero_division=0.0))


def roc_auc(labels: Labels, probabilities: Probabilities, multi_class: str) -> float:
    """Area under the ROC curve, "ovo" (Hand and Till 2001) or "ovr", macro average.

    NaN where a class is missing from `labels`: it is then not defined.
    """
    classes = np.arange(probabilities.shape[1])
    if len(np.unique(labels)) < len(classes):
        return float("nan")
    exact = _exact(probabilities)
    if len(classes) == 2:
        return float(roc_auc_score(labels, exact[:, 1]))
    return float(
        roc_auc_score(labels, exact, multi_class=multi_class, average="macro", labels=classes)
    )


def calibration_error(labels: Labels, probabilities: Probabilities) -> float:
    """Expected calibration error over 15 bins of equal width (Guo et al., ICML 2017).

    The mean, over images, of how far the confidence in a bin is from the accuracy in it.
    """
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0.0, 1.0)
    right = probabilities.argmax(axis=1) == labels
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=CALIBRATION_BINS)
    # The bins of `calibration_curve`, of which it tells neither the sizes nor which are empty.
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    counts = np.bincount(np.searchsorted(edges[1:-1], confidence), minlength=CALIBRATION_BINS)
    weights = counts[counts > 0] / len(labels)
    return float(np.abs(accuracy - mean_confidence) @ weights)


def _exact(probabilities: Probabilities) -> NDArray[np.float64]:
    """Rows that sum to 1 in double precision, which scikit-learn insists on."""
    exact = probabilities.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    return exact
