"""Data sets, seeded splits, fingerprints, and the lock on the test split."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from search.arrays import VALIDATION_FRACTION, Images, Labels, checked, missing_from_test
from search.datasets import DATASETS
from search.readers import FORMATS, read
from search.records import Assignment, DataError, Inspection, Opening, TrialRecord
from search.settings import nearest

Indices = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Split:
    """Positions in the pool, disjoint: int32. In random order, unless it is the pool's tail."""

    train: Indices
    validation: Indices


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Everything that trials may see: the pool that train and validation are drawn from.

    Attributes:
        images: uint8 or float32 (n, h, w, c), raw.
        labels: int32 (n,) in [0, len(classes)).
    """

    name: str
    images: Images
    labels: Labels
    classes: tuple[str, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def split(self, seed: int, validation_fraction: float = VALIDATION_FRACTION) -> Split:
        """Splits the pool into train and validation, stratified; the same for a seed."""
        train, validation = train_test_split(
            np.arange(len(self.labels), dtype=np.int32),
            test_size=validation_fraction,
            stratify=self.labels,
            random_state=seed,
        )
        return Split(train, validation)

    def tail_split(self, validation_fraction: float) -> Split:
        """Splits the pool in its own order: the last part is for validation."""
        positions = np.arange(len(self.labels), dtype=np.int32)
        first = len(positions) - round(len(positions) * validation_fraction)
        return Split(positions[:first], positions[first:])

    def splits_for(self, trial: Assignment | Inspection | TrialRecord) -> tuple[Split, ...]:
        """The split that a trial trains on, or one for each of its folds."""
        if trial.folds:
            return self.folds(trial.folds, trial.split_seed)
        if trial.tail:
            return (self.tail_split(trial.validation_fraction),)
        return (self.split(trial.split_seed, trial.validation_fraction),)

    def folds(self, count: int, seed: int) -> tuple[Split, ...]:
        """Splits the pool into `count` stratified folds, each the validation part of one split."""
        splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
        order = np.random.default_rng(seed)
        return tuple(
            Split(*(order.permutation(part).astype(np.int32) for part in parts))
            for parts in splitter.split(np.zeros(len(self.labels)), self.labels)
        )


class TestLock:
    """Holds the only reference to the test split and counts every opening.

    It cannot be pickled, so no worker and no checkpoint ever gets hold of the images inside. What
    it says without being opened are figures that no model can be chosen by.
    """

    __test__ = False
    __slots__ = ("__arrays", "fingerprint", "size")

    def __init__(self, images: Images, labels: Labels) -> None:
        """Locks `images` (uint8 or float32 (n, h, w, c)) and `labels` (int32 (n,)) away."""
        self.__arrays = (images, labels)
        self.size = len(labels)
        self.fingerprint = _digest(images, labels)

    def open(
        self, study: str, reason: str, now_ms: int, record: Callable[[Opening], None]
    ) -> tuple[Images, Labels]:
        """Hands out the test split after `record` has durably noted the opening.

        Raises:
            Whatever `record` raises; the lock then stays closed.
        """
        record(Opening(self.fingerprint, study, reason, now_ms))
        return self.__arrays

    def class_counts(self, classes: int) -> tuple[int, ...]:
        """How many images there are of each class."""
        return tuple(np.bincount(self.__arrays[1], minlength=classes).tolist())

    def shared_with(self, images: Images) -> int:
        """How many test images are identical, bit by bit, to one of `images` (n, h, w, c)."""
        known = set(image_digests(images))
        return sum(digest in known for digest in image_digests(self.__arrays[0]))

    def __reduce__(self) -> NoReturn:
        raise TypeError("the test split does not leave the process that holds its lock")


@dataclass(frozen=True, slots=True)
class LoadedData:
    """A data set ready for a study: what trials may see, the locked test split, the fingerprint.

    The fingerprint names contents and split: 16 hexadecimal digits. Each warning is a sentence.
    """

    training: TrainingData
    split: Split
    test: TestLock
    fingerprint: str
    warnings: tuple[str, ...] = ()


def load(
    name: str,
    data_dir: Path | None,
    seed: int,
    *,
    label_column: str | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> LoadedData:
    """Loads a data set and splits it: train and validation by `seed`, test always the same.

    Args:
        name: a key of `DATASETS`, or the path of one's own file or folder (`readers.FORMATS`);
            with "./" before it where it is called like one of `DATASETS`.
        data_dir: where to look for the files of `DATASETS` first.
        seed: of the split of the pool into train and validation.
        label_column: which column of CSV holds the classes; by default `label`, `class`, `target`
            or `y`.
        image_shape: (height, width) or (height, width, channels) of images that are stored flat;
            by default they are square and grey.

    Raises:
        DataError: unknown, missing, damaged, or too small for the split.
    """
    known = name in DATASETS
    if not known and not os.path.exists(name):
        raise DataError(
            f"Unknown data set {name!r}, and no file or folder.{nearest(name, DATASETS)} "
            f"Or give the path of your own data: {FORMATS}."
        )
    if data_dir is not None and not os.path.isdir(data_dir):
        raise DataError(f"--data-dir {data_dir}: no such folder.")
    if known and (label_column is not None or image_shape is not None):
        raise DataError(f"{name}: --label-column and --image-shape are for your own files.")
    raw = DATASETS[name](data_dir) if known else read(Path(name), label_column)
    parts = checked(name, raw, image_shape)
    title = name if known else _title(Path(name))
    training = TrainingData(title, parts.images, parts.labels, parts.classes)
    split = training.split(seed)
    lock = TestLock(parts.test_images, parts.test_labels)
    contents = _digest(parts.images, parts.labels, split.train, split.validation)
    fingerprint = hashlib.sha256((contents + lock.fingerprint).encode()).hexdigest()[:16]
    missing = missing_from_test(lock.class_counts(len(parts.classes)), parts.classes)
    return LoadedData(training, split, lock, fingerprint, (*raw.warnings, *missing))


def _title(path: Path) -> str:
    """A short name for messages, of word characters, dots and hyphens."""
    path = path.resolve()
    stem = (
        path.name
        if path.is_dir()
        else path.parent.name
        if path.suffix.lower() == ".npy"
        else path.stem
    )
    return re.sub(r"[^\w.]+", "-", stem).strip("-.")[:60] or "data"


def image_digests(images: Images) -> list[str]:
    """A digest of each image (n, h, w, c): the same for images of the same type, shape and bits."""
    return [_digest(image) for image in images]


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
