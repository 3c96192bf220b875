"""Measures of a classifier: scikit-learn's, with the arguments that Podium means by each name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score


def f1_macro(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> float:
    """F1 per class, averaged without weights; a class that is never predicted counts 0.

    Args:
        labels: int32 (n,).
        probabilities: float32 (n, classes), rows sum to 1.
    """
    classes = np.arange(probabilities.shape[1])
    predicted = probabilities.argmax(axis=1)
    return float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0))


def roc_auc_ovo(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> float:
    """Area under the ROC curve, one-vs-one, macro average (Hand and Till 2001).

    NaN where a class is missing from `labels`: it is then not defined.
    """
    classes = np.arange(probabilities.shape[1])
    if len(np.unique(labels)) < len(classes):
        return float("nan")
    exact = probabilities.astype(np.float64)
    if len(classes) == 2:
        return float(roc_auc_score(labels, exact[:, 1]))
    exact /= exact.sum(axis=1, keepdims=True)
    return float(roc_auc_score(labels, exact, multi_class="ovo", average="macro", labels=classes))
