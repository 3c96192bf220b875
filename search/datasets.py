"""The published data sets: scikit-learn's digits, MNIST and Fashion-MNIST."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.credentials import PROXIES, without_secrets
from search.readers import IDX_NAMES, RawData, find_idx, read_idx_folder, read_npz
from search.records import DataError

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
DIGIT_CLASSES = tuple("0123456789")
MAX_LABEL = 1_000_000
DOWNLOAD_SECONDS = 120


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
        raise DataError(
            f"{found}: without the test part that {name} was published with. Fetch it again."
        )
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
        raise DataError(
            f"{path}: labels run from {labels.min()} to {labels.max()}; expected the number of a "
            "class. Is this the right label file?"
        )


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
            env=without_secrets(PROXIES) | {"TF_CPP_MIN_LOG_LEVEL": "3"},
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
