"""Data sets, seeded splits, fingerprints, and the lock on the test split."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from search.records import DataError, Opening
from search.settings import nearest

Images = NDArray[np.uint8]
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
MAX_IDX_BYTES = 4 << 30
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

    It cannot be pickled, so no worker and no checkpoint ever gets hold of the images inside.
    """

    __test__ = False
    __slots__ = ("__arrays", "fingerprint", "size")

    def __init__(self, images: Images, labels: Labels) -> None:
        """Locks `images` (uint8 (n, h, w, c)) and `labels` (int32 (n,)) away."""
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("the test split does not leave the process that holds its lock")


@dataclass(frozen=True, slots=True)
class LoadedData:
    """A data set ready for a study: what trials may see, the locked test split, the fingerprint.

    The fingerprint names contents and split: 16 hexadecimal digits.
    """

    training: TrainingData
    split: Split
    test: TestLock
    fingerprint: str


def load(name: str, data_dir: Path | None, seed: int) -> LoadedData:
    """Loads a data set and splits it: train and validation by `seed`, test always the same.

    Args:
        name: a key of `DATASETS`.
        data_dir: where to look for files first.
        seed: of the split of the pool into train and validation.

    Raises:
        DataError: unknown, missing, damaged, or too small for the split.
    """
    if name not in DATASETS:
        raise DataError(f"Unknown data set {name!r}.{nearest(name, DATASETS)}")
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"--data-dir {data_dir}: no such folder.")
    raw = DATASETS[name](data_dir)
    _check(name, raw)
    training = TrainingData(name, raw.images, raw.labels, raw.classes)
    split = training.split(seed)
    lock = TestLock(raw.test_images, raw.test_labels)
    fingerprint = hashlib.sha256(
        (_digest(raw.images, raw.labels, split.train, split.validation) + lock.fingerprint).encode()
    ).hexdigest()[:16]
    return LoadedData(training, split, lock, fingerprint)


@dataclass(frozen=True, slots=True)
class _Raw:
    images: Images
    labels: Labels
    test_images: Images
    test_labels: Labels
    classes: tuple[str, ...]


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _check(name: str, raw: _Raw) -> None:
    for part, images, labels in (
        ("training", raw.images, raw.labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if images.ndim != 4 or images.shape[1:] != raw.images.shape[1:] or not images.size:
            raise DataError(
                f"{name}: {part} images have shape {images.shape}; expected (n, height, width, 1)."
            )
        if len(images) != len(labels):
            raise DataError(
                f"{name}: {len(images):,} {part} images but {len(labels):,} labels; "
                "they must come in pairs."
            )
        if labels.min() < 0 or labels.max() >= len(raw.classes):
            raise DataError(
                f"{name}: {part} labels run from {labels.min()} to {labels.max()}; "
                f"expected 0 to {len(raw.classes) - 1}. Is this the right label file?"
            )
    counts = np.bincount(raw.labels, minlength=len(raw.classes))
    scarce = int(counts.argmin())
    if counts[scarce] < 2 or len(raw.labels) * VALIDATION_FRACTION < len(raw.classes):
        raise DataError(
            f"{name}: {len(raw.labels):,} training images, {counts[scarce]} of them of class "
            f"{raw.classes[scarce]!r}, are too few: a stratified split into train and validation "
            f"needs at least 2 of each class and {int(len(raw.classes) / VALIDATION_FRACTION)} "
            "in all."
        )


def _load_digits(_: Path | None) -> _Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., np.newaxis]
    labels = bunch.target.astype(np.int32)
    pool, test = train_test_split(
        np.arange(len(labels)),
        test_size=TEST_FRACTION,
        stratify=labels,
        random_state=TEST_SPLIT_SEED,
    )
    return _Raw(images[pool], labels[pool], images[test], labels[test], DIGIT_CLASSES)


def _load_mnist(data_dir: Path | None) -> _Raw:
    return _load_files("mnist", data_dir, DIGIT_CLASSES)


def _load_fashion(data_dir: Path | None) -> _Raw:
    return _load_files("fashion-mnist", data_dir, FASHION_CLASSES)


DATASETS: dict[str, Callable[[Path | None], _Raw]] = {
    "digits": _load_digits,
    "mnist": _load_mnist,
    "fashion-mnist": _load_fashion,
}
DATASET_NOTES = {
    "digits": "1,797 handwritten digits, 8 by 8, inside scikit-learn: always there",
    "mnist": "70,000 handwritten digits, 28 by 28: --data-dir, Keras's cache, or its download",
    "fashion-mnist": "70,000 pieces of clothing, 28 by 28: likewise",
}
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _load_files(name: str, data_dir: Path | None, classes: tuple[str, ...]) -> _Raw:
    if data_dir is not None:
        found = _find(name, data_dir)
        if found is None:
            raise DataError(
                f"{name} is not in {data_dir}: expected {name}.npz, or {IDX_NAMES[0]}[.gz] and "
                f"its three companions there or in {data_dir / name}."
            )
    else:
        found = _from_keras(name)
    arrays = _read_npz(found) if found.suffix == ".npz" else _read_idx_folder(found)
    images, labels, test_images, test_labels = arrays
    return _Raw(
        _as_images(found, images),
        _as_labels(found, labels),
        _as_images(found, test_images),
        _as_labels(found, test_labels),
        classes,
    )


def _find(name: str, folder: Path) -> Path | None:
    """The .npz file or the folder of IDX files that holds the data set, if one is there."""
    if (folder / f"{name}.npz").is_file():
        return folder / f"{name}.npz"
    for place in (folder / name, folder):
        if any((place / f"{IDX_NAMES[0]}{ending}").is_file() for ending in ("", ".gz")):
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


def _read_npz(path: Path) -> tuple[NDArray[Any], ...]:
    names = ("x_train", "y_train", "x_test", "y_test")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if missing:
                raise DataError(
                    f"{path}: no array {missing[0]!r}; it holds {', '.join(archive) or 'nothing'}."
                )
            arrays = tuple(archive[name] for name in names)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - what damage raises depends on where it is
        raise DataError(f"{path}: damaged or truncated ({error}).") from None
    if not all(isinstance(array, np.ndarray) for array in arrays):
        raise DataError(f"{path}: damaged: not every member is an array.")
    return arrays


def _read_idx_folder(folder: Path) -> tuple[NDArray[Any], ...]:
    return tuple(_read_idx(folder, name) for name in IDX_NAMES)


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes (format: LeCun's MNIST page), gzipped or not."""
    plain, zipped = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else zipped
    dimensions = 3 if "idx3" in name else 1
    try:
        with gzip.open(path) if path is zipped else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions:
                raise DataError(f"{path}: truncated in its header.")
            if header[:4] != bytes((0, 0, 8, dimensions)):
                raise DataError(
                    f"{path}: not an IDX file of {dimensions}-dimensional unsigned bytes "
                    f"(it begins with {header[:4].hex()}). Are images and labels swapped?"
                )
            shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
            size = int(np.prod(shape, dtype=object))
            if size > MAX_IDX_BYTES:
                raise DataError(f"{path}: claims {size:,} bytes; at most {MAX_IDX_BYTES:,}.")
            body = file.read(size + 1)
    except FileNotFoundError:
        raise DataError(f"{plain}[.gz]: no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or truncated ({error}).") from None
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise DataError(f"{path}: its header promises {size:,} bytes, it holds {found}.")
    return np.frombuffer(body, np.uint8).reshape(shape)


def _as_images(path: Path, images: NDArray[Any]) -> Images:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: images are {images.dtype} {images.shape}; expected uint8 (n, height, width)."
        )
    return images if images.ndim == 4 else images[..., np.newaxis]


def _as_labels(path: Path, labels: NDArray[Any]) -> Labels:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path}: labels are {labels.dtype} {labels.shape}; expected integers of shape (n,)."
        )
    if labels.size and max(abs(int(labels.min())), int(labels.max())) > MAX_LABEL:
        raise DataError(f"{path}: labels run from {labels.min()} to {labels.max()}.")
    return labels.astype(np.int32)
