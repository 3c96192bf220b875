"""Data sets, seeded splits, fingerprints, and the lock on the test split."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from search.readers import FORMATS, IDX_NAMES, RawData, find_idx, read, read_idx_folder, read_npz
from search.records import DataError, Opening
from search.settings import nearest

Images = NDArray[np.uint8] | NDArray[np.float32]
Labels = NDArray[np.int32]
Indices = NDArray[np.int32]

VALIDATION_FRACTION = 0.2
TEST_FRACTION = 0.2
TEST_SPLIT_SEED = 20_000
"""Where a data set has no test split of its own. The same in every study, whatever its seed, so
that no study trains on images that another one is tested on."""
FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGIT_CLASSES = tuple("0123456789")
MAX_LABEL = 1_000_000
DOWNLOAD_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Split:
    """Positions in the pool, disjoint and in random order: int32."""

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
            f"Unknown data set {name!r}.{nearest(name, DATASETS)} "
            f"Or give the path of your own data: {FORMATS}."
        )
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir}: no such folder.")
    if known and (label_column is not None or image_shape is not None):
        raise DataError(f"{name}: --label-column and --image-shape are for your own files.")
    raw = DATASETS[name](data_dir) if known else read(Path(name), label_column)
    parts = _checked(name, raw, image_shape)
    title = name if known else _title(Path(name))
    training = TrainingData(title, parts.images, parts.labels, parts.classes)
    split = training.split(seed)
    lock = TestLock(parts.test_images, parts.test_labels)
    contents = _digest(parts.images, parts.labels, split.train, split.validation)
    fingerprint = hashlib.sha256((contents + lock.fingerprint).encode()).hexdigest()[:16]
    missing = _missing_from_test(lock.class_counts(len(parts.classes)), parts.classes)
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


@dataclass(frozen=True, slots=True)
class _Parts:
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    classes: tuple[str, ...]


def _checked(where: str, raw: RawData, image_shape: tuple[int, ...] | None) -> _Parts:
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
        return _Parts(images[pool], labels[pool], images[test], labels[test], classes)
    test_images = _as_images(where, "test", raw.test_images, image_shape)
    if test_images.shape[1:] != images.shape[1:] or test_images.dtype != images.dtype:
        raise DataError(
            f"{where}: test images are {test_images.dtype} {test_images.shape}; training images "
            f"are {images.dtype} {images.shape}. Both need one size, type and scale."
        )
    test_names = _as_labels(where, "test", raw.test_labels, len(test_images))
    test_labels = _positions(where, "test", test_names, values, raw.classes)
    _check_counts(where, "", labels, classes)
    return _Parts(images, labels, test_images, test_labels, classes)


def _as_images(
    where: str, part: str, images: NDArray[Any], image_shape: tuple[int, ...] | None
) -> Images:
    """Images as uint8 or float32 (n, h, w, 1 or 3)."""
    shape = images.shape
    if images.ndim == 2:
        images = images.reshape(len(images), *_flat_shape(where, shape[1], image_shape))
    elif image_shape is not None and (*image_shape, 1)[:3] != (*shape[1:], 1)[:3]:
        raise DataError(f"{where}: {part} images are {shape}; --image-shape is {image_shape}.")
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
    if len(image_shape) not in (2, 3) or min(image_shape) < 1 or np.prod(image_shape) != pixels:
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
        raise DataError(f"{where}: labels are text in one part and numbers in the other.")
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


def _missing_from_test(counts: tuple[int, ...], classes: tuple[str, ...]) -> tuple[str, ...]:
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if not missing:
        return ()
    return (
        f"The test part has no image of {_listed(missing)}: on test, recall of each class that is "
        "missing and the area under the ROC curve are undefined.",
    )


def _load_digits(_: Path | None) -> RawData:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return RawData(bunch.images.astype(np.uint8), bunch.target, classes=DIGIT_CLASSES)


def _load_mnist(data_dir: Path | None) -> RawData:
    return _load_files("mnist", data_dir, DIGIT_CLASSES)


def _load_fashion(data_dir: Path | None) -> RawData:
    return _load_files("fashion-mnist", data_dir, FASHION_CLASSES)


DATASETS: dict[str, Callable[[Path | None], RawData]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "fashion-mnist": _load_fashion,
}
DATASET_NOTES = {
    "digits": "1,797 handwritten digits, 8 by 8, inside scikit-learn: always there",
    "mnist": "70,000 handwritten digits, 28 by 28: --data-dir, Keras's cache, or its download",
    "fashion-mnist": "70,000 pieces of clothing, 28 by 28: likewise",
}


def _load_files(name: str, data_dir: Path | None, classes: tuple[str, ...]) -> RawData:
    if data_dir is not None:
        found = _find(name, data_dir)
        if found is None:
            raise DataError(
                f"{name} is not in {data_dir}: expected {name}.npz, or {IDX_NAMES[0]}[.gz] and "
                f"its three companions there or in {data_dir / name}."
            )
    else:
        found = _from_keras(name)
    raw = read_npz(found) if found.suffix == ".npz" else read_idx_folder(found)
    if raw.test_images is None or raw.test_labels is None:
        raise DataError(f"{found}: without the test part that {name} was published with.")
    for images, labels in ((raw.images, raw.labels), (raw.test_images, raw.test_labels)):
        _check_published(found, images, labels)
    return replace(raw, classes=classes)


def _check_published(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> None:
    """Refuses what would pass for someone's own data but is not what was published."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: images are {images.dtype} {images.shape}; expected uint8 (n, height, width)."
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels are {labels.dtype} {labels.shape}; expected integers of shape (n,)."
        )
    if labels.size and max(abs(int(labels.min())), int(labels.max())) > MAX_LABEL:
        raise DataError(f"{path}: labels run from {labels.min()} to {labels.max()}.")


def _find(name: str, folder: Path) -> Path | None:
    """The .npz file or the folder of IDX files that holds the data set, if one is there."""
    if (folder / f"{name}.npz").is_file():
        return folder / f"{name}.npz"
    for place in (folder / name, folder):
        if find_idx(place, IDX_NAMES[0]):
            return place
    return None


def _from_keras(name: str) -> Path:
    """Finds the data set in Keras's cache, downloading it there first where that is possible."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    found = _find(name, home)
    if found is not None:
        return found
    module = name.replace("-", "_")
    try:
        # Its own process: importing Keras would bring TensorFlow into this one.
        subprocess.run(
            [sys.executable, "-c", f"import keras; keras.datasets.{module}.load_data()"],
            check=True,
            capture_output=True,
            timeout=DOWNLOAD_SECONDS,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    except (subprocess.SubprocessError, OSError):
        found = None
    else:
        found = _find(name, home)
    if found is None:
        raise DataError(
            f"{name} is not on this machine and Keras could not download it. "
            "Name the folder that holds it with --data-dir, or use --data digits."
        )
    return found
