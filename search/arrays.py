"""Brings whatever was read into images, labels and classes that fit together, or refuses it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from search.readers import RawData
from search.records import DataError

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int32]

VALIDATION_FRACTION = 0.2
TEST_FRACTION = 0.2
TEST_SPLIT_SEED = 20_000
"""Where a data set has no test split of its own. The same in every study, whatever its seed, so
that no study trains on images that another one is tested on."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A pool and a test part of the same form: see `TrainingData`."""

    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    classes: tuple[str, ...]


def checked(where: str, raw: RawData, image_shape: tuple[int, ...] | None) -> Parts:
    """Brings images and labels into the form of `TrainingData`, and draws a test part if need be.

    Raises:
        DataError: they cannot be brought into it, do not fit together, or are too few.
    """
    images = _as_images(where, "training", raw.images, image_shape)
    names = _as_labels(where, "training", raw.labels, len(images))
    values, classes = _classes(where, names, raw.classes)
    labels = _positions(where, "training", names, values, raw.classes)
    if raw.test_images is None or raw.test_labels is None:
        _check_counts(where, "", labels, classes)
        pool, test = train_test_split(
            np.arange(len(labels)),
            test_size=TEST_FRACTION,
            stratify=labels,
            random_state=TEST_SPLIT_SEED,
        )
        _check_counts(where, " left when the test part is drawn", labels[pool], classes)
        return Parts(images[pool], labels[pool], images[test], labels[test], classes)
    test_images = _as_images(where, "test", raw.test_images, image_shape)
    if test_images.shape[1:] != images.shape[1:] or test_images.dtype != images.dtype:
        raise DataError(
            f"{where}: test images are {test_images.dtype} {test_images.shape}; training images "
            f"are {images.dtype} {images.shape}. Both need one size, type and scale."
        )
    test_names = _as_labels(where, "test", raw.test_labels, len(test_images))
    test_labels = _positions(where, "test", test_names, values, raw.classes)
    _check_counts(where, "", labels, classes)
    return Parts(images, labels, test_images, test_labels, classes)


def _as_images(
    where: str, part: str, images: NDArray[Any], image_shape: tuple[int, ...] | None
) -> Images:
    """Images as uint8 or float32 (n, h, w, 1 or 3)."""
    shape = images.shape
    if images.ndim == 2:
        images = images.reshape(len(images), *_flat_shape(where, shape[1], image_shape))
    elif image_shape is not None and (*image_shape, 1)[:3] != (*shape[1:], 1)[:3]:
        raise DataError(
            f"{where}: {part} images are {shape}; --image-shape is {image_shape}. Leave "
            "it out: it is for images that are stored flat."
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        hint = " Channels come last." if images.ndim == 4 and images.shape[1] in (1, 3) else ""
        raise DataError(
            f"{where}: {part} images have shape {images.shape}; expected (n, height, width), "
            f"(n, height, width, 1) or (n, height, width, 3), none of them 0.{hint}"
        )
    if images.dtype.kind not in "biuf":
        raise DataError(f"{where}: {part} images are {images.dtype}; expected real numbers.")
    if images.dtype in (np.bool_, np.uint8):
        return images.astype(np.uint8, copy=False)
    with np.errstate(over="ignore"):
        floats = images.astype(np.float32)
    faulty = np.flatnonzero(~np.isfinite(floats).all(axis=(1, 2, 3)))
    if len(faulty):
        raise DataError(
            f"{where}: {len(faulty):,} {part} images hold NaN or infinite pixels, the first of "
            f"them image {faulty[0]} (counted from 0). Remove or mend them."
        )
    return floats


def _flat_shape(where: str, pixels: int, image_shape: tuple[int, ...] | None) -> tuple[int, ...]:
    if image_shape is None:
        side = round(pixels**0.5)
        if side * side != pixels or not pixels:
            raise DataError(
                f"{where}: {pixels:,} pixels in a row make no square grey image. Say what they "
                "make with --image-shape HxWxC, or remove what is no pixel."
            )
        return side, side
    if len(image_shape) not in (2, 3) or min(image_shape) < 1 or math.prod(image_shape) != pixels:
        raise DataError(
            f"{where}: {pixels:,} pixels in a row; --image-shape {'x'.join(map(str, image_shape))} "
            "is another number. Expected HxW or HxWxC with as many."
        )
    return image_shape


def _as_labels(where: str, part: str, labels: NDArray[Any], images: int) -> NDArray[Any]:
    """Labels as integers, booleans or strings (n,), one for each image."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim not in (1, 2) or labels.dtype.kind not in ("biuf", "biufU")[labels.ndim == 1]:
        raise DataError(
            f"{where}: {part} labels are {labels.dtype} {labels.shape}; expected integers or "
            "strings of shape (n,) or (n, 1), or one-hot rows of shape (n, classes)."
        )
    if len(labels) != images:
        raise DataError(
            f"{where}: {images:,} {part} images but {len(labels):,} labels; "
            "they must come in pairs."
        )
    if labels.ndim == 2:
        one_hot = ((labels == 0) | (labels == 1)).all(axis=1) & (labels.sum(axis=1) == 1)
        _refuse(where, part, labels, ~one_hot, "expected one 1 in each one-hot row, and else 0")
        labels = labels.argmax(axis=1)
    elif labels.dtype.kind == "U":
        _refuse(where, part, labels, labels == "", "expected the name of a class")
    elif labels.dtype.kind in "uf":
        numbers = labels.astype(np.float64)
        # NaN is none of these, and above 2**53 floats leave out whole numbers.
        whole = (abs(numbers) <= 2**53) & (numbers == np.trunc(numbers))
        _refuse(where, part, labels, ~whole, "expected a whole number")
        labels = labels.astype(np.int64)
    return labels


def _refuse(
    where: str, part: str, labels: NDArray[Any], faulty: NDArray[np.bool_], expected: str
) -> None:
    places = np.flatnonzero(faulty)
    if len(places):
        raise DataError(
            f"{where}: {part} label {str(labels[places[0]])[:60]!r} (number {places[0]}, counted "
            f"from 0) is no class; {expected}."
        )


def _classes(
    where: str, labels: NDArray[Any], known: tuple[str, ...] | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """What stands for each class in the labels, in order, and the names of the classes."""
    if known is None:
        values = np.unique(labels)
        classes = tuple(str(value) for value in values.tolist())
    else:
        values = np.array(known) if labels.dtype.kind == "U" else np.arange(len(known))
        classes = known
    if len(classes) < 2:
        raise DataError(
            f"{where}: all training images are of one class, {classes[0]!r}; expected at least 2 "
            "classes to tell apart."
        )
    return values, classes


def _positions(
    where: str,
    part: str,
    labels: NDArray[Any],
    values: NDArray[Any],
    known: tuple[str, ...] | None,
) -> Labels:
    """The position of each label among `values`: int32 (n,)."""
    if (labels.dtype.kind == "U") != (values.dtype.kind == "U"):
        raise DataError(
            f"{where}: labels are text in one part and numbers in the other; write both alike."
        )
    order = np.argsort(values)
    found = np.searchsorted(values, labels, sorter=order).clip(max=len(values) - 1)
    positions: Labels = order[found].astype(np.int32)
    strangers = labels[values[positions] != labels]
    if not len(strangers):
        return positions
    if known is not None and labels.dtype.kind != "U":
        raise DataError(
            f"{where}: {part} labels run from {labels.min()} to {labels.max()}; "
            f"expected 0 to {len(known) - 1}. Is this the right label file?"
        )
    raise DataError(
        f"{where}: {len(strangers):,} {part} labels such as {strangers.tolist()[0]!r} are none of "
        f"the {len(values)} classes {'that are named' if known else 'of the training images'}, "
        f"{_listed(values.tolist())}. Correct them, or add training images of that class."
    )


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(repr, values[:5])) + (", ..." if len(values) > 5 else "")


def _check_counts(where: str, moment: str, labels: Labels, classes: tuple[str, ...]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    scarce = int(counts.argmin())
    if counts[scarce] < 2 or len(labels) * VALIDATION_FRACTION < len(classes):
        raise DataError(
            f"{where}: {len(labels):,} training images{moment}, {counts[scarce]} of them of class "
            f"{classes[scarce]!r}, are too few: a stratified split into train and validation "
            f"needs at least 2 of each class and {round(len(classes) / VALIDATION_FRACTION)} "
            "in all."
        )


def missing_from_test(counts: tuple[int, ...], classes: tuple[str, ...]) -> tuple[str, ...]:
    """What it means that the test part lacks classes, in a sentence; nothing where it has all."""
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not missing:
        return ()
    return (
        f"The test part has no image of {_listed(missing)}: on test, recall of each class that is "
        "missing and the area under the ROC curve are undefined.",
    )
