"""What a data set holds and what is doubtful about it, without opening the test split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.arrays import Images
from search.data import LoadedData, image_digests

STRONG_IMBALANCE = 10.0
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


@dataclass(frozen=True, slots=True)
class Description:
    """Figures of a data set; images are identical where they are so bit by bit.

    Attributes:
        image_shape: height, width, channels.
        dtype: of the pixels, "uint8" or "float32".
        train_counts: images of each class, as are `validation_counts` and `test_counts`.
        imbalance: images of the largest class by those of the smallest, in the pool.
        pixel_min: of the pool, raw; so are the next two.
        constant_pixels: fraction of an image's values that are the same in all of the pool.
        duplicates_in_pool: images that are identical to an earlier one.
        duplicates_train_validation: validation images that are identical to one of train.
        duplicates_pool_test: test images that are identical to one of the pool.
        conflicting_labels: images of the pool that are identical to one with another label.
        warnings: one sentence each; those of loading first.
    """

    name: str
    fingerprint: str
    image_shape: tuple[int, int, int]
    dtype: str
    classes: tuple[str, ...]
    train_counts: tuple[int, ...]
    validation_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    imbalance: float
    pixel_min: float
    pixel_max: float
    pixel_mean: float
    constant_pixels: float
    duplicates_in_pool: int
    duplicates_train_validation: int
    duplicates_pool_test: int
    conflicting_labels: int
    warnings: tuple[str, ...]


def describe(loaded: LoadedData) -> Description:
    """Counts, measures and compares the images; of the test split only counts come out."""
    data, split = loaded.training, loaded.split
    images, count = data.images, len(data.classes)
    pool_counts = _counts(data.labels, count)
    test_counts = loaded.test.class_counts(count)
    digests = image_digests(images)
    train = {digests[i] for i in split.train}
    across_splits = sum(digests[i] in train for i in split.validation)
    across_test = loaded.test.shared_with(images)
    conflicting = _conflicting(digests, data.labels.tolist())
    low, high = float(images.min()), float(images.max())
    doubts = (
        *_imbalance_doubts(pool_counts, data.classes),
        *_duplicate_doubts(across_splits, len(split.validation), across_test, loaded.test.size),
        *_label_doubts(conflicting),
        *_range_doubts(low, high, images.dtype == np.uint8),
    )
    return Description(
        name=data.name,
        fingerprint=loaded.fingerprint,
        image_shape=data.image_shape,
        dtype=str(images.dtype),
        classes=data.classes,
        train_counts=_counts(data.labels[split.train], count),
        validation_counts=_counts(data.labels[split.validation], count),
        test_counts=test_counts,
        imbalance=max(pool_counts) / min(pool_counts),
        pixel_min=low,
        pixel_max=high,
        pixel_mean=float(images.mean(dtype=np.float64)),
        constant_pixels=float((images.min(axis=0) == images.max(axis=0)).mean()),
        duplicates_in_pool=len(digests) - len(set(digests)),
        duplicates_train_validation=across_splits,
        duplicates_pool_test=across_test,
        conflicting_labels=conflicting,
        warnings=(*loaded.warnings, *doubts),
    )


def samples(loaded: LoadedData, per_class: int, seed: int) -> Images:
    """Draws train images of each class for a picture; the same for a seed.

    Returns:
        uint8 or float32 (classes, per_class, h, w, c), raw; zeros where a class has fewer.
    """
    data, random = loaded.training, np.random.default_rng(seed)
    drawn = np.zeros((len(data.classes), per_class, *data.image_shape), data.images.dtype)
    labels = data.labels[loaded.split.train]
    for label, row in enumerate(drawn):
        members = random.permutation(loaded.split.train[labels == label])[:per_class]
        row[: len(members)] = data.images[members]
    return drawn


def _counts(labels: NDArray[np.int32], classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels, minlength=classes).tolist())


def _conflicting(digests: Sequence[str], labels: Sequence[int]) -> int:
    labels_of = defaultdict(set)
    for digest, label in zip(digests, labels, strict=True):
        labels_of[digest].add(label)
    return sum(n for digest, n in Counter(digests).items() if len(labels_of[digest]) > 1)


def _imbalance_doubts(counts: tuple[int, ...], classes: tuple[str, ...]) -> Iterator[str]:
    large, small = int(np.argmax(counts)), int(np.argmin(counts))
    if counts[large] >= STRONG_IMBALANCE * counts[small]:
        yield (
            f"Class {classes[large]!r} has {counts[large]:,} images, {classes[small]!r} only "
            f"{counts[small]:,}: accuracy can be high though {classes[small]!r} is never "
            "recognized. Look at macro F1 and at the recall of each class."
        )


def _duplicate_doubts(
    across_splits: int, validation: int, across_test: int, test: int
) -> Iterator[str]:
    if across_splits:
        yield (
            f"{across_splits:,} of {validation:,} validation images are also in train: a leak. "
            "Validation accuracy is optimistic and favours networks that learn by heart."
        )
    if across_test:
        yield (
            f"{across_test:,} of {test:,} test images are also in the pool that is trained on: a "
            "leak. The figure on test is optimistic."
        )


def _label_doubts(conflicting: int) -> Iterator[str]:
    if conflicting:
        yield (
            f"{conflicting:,} images of the pool are identical to one with another label: no "
            "network can get all of them right, and some labels may be wrong."
        )


def _range_doubts(low: float, high: float, whole: bool) -> Iterator[str]:
    if low == high:
        yield f"All pixels are {low:g}: there is nothing to learn from."
    elif whole and high <= 1:
        yield (
            "Pixels are only 0 or 1. If the images were grey from 0 to 1, their fractions were "
            "cut off when they became whole numbers."
        )
    elif not any(least <= low and high <= most for least, most in USUAL_RANGES):
        yield (
            f"Pixels run from {low:g} to {high:g}, not within 0 to 1, -1 to 1 or 0 to 255. If "
            "they are scaled already, search with scale none; else look for faulty images."
        )
