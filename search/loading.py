"""Loads registered models in a process of its own, so that TensorFlow stays out of this one."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.readers import open_npz
from search.records import TrackingError, one_line
from search.unpacking import check_package

Result = TypeVar("Result")

REFERENCE_FILE = "reference.npz"
LOADERS = ("mlflow.keras",)
"""What may load a registered version. MLflow has others, and most of them unpickle."""
TOLERANCE = 1e-5
"""On a probability: what another process or machine may add to or take from it."""


@dataclass(frozen=True, slots=True)
class Reload:
    """What came of loading a registered version in a new process.

    Attributes:
        loaded: whether it could be loaded and used.
        difference: largest difference to a probability that the model gave when it was made; None
            where nothing was kept to compare with.
        trouble: why it could not be loaded or compared; "" where it could.
    """

    loaded: bool
    difference: float | None
    trouble: str = ""

    @property
    def is_same(self) -> bool:
        """Whether it gives the same predictions; False where there is nothing to compare with."""
        return self.loaded and self.difference is not None and self.difference <= TOLERANCE


@dataclass(frozen=True, slots=True)
class Predicted:
    """What a model says of images.

    Attributes:
        probabilities: float32 (n, classes).
        pixel_range: least and greatest pixel of the images that the model was tried on when it
            was made; None where none were kept.
    """

    probabilities: NDArray[np.float32]
    pixel_range: tuple[float, float] | None


def check_load(tracking_uri: str, model_uri: str) -> Reload:
    """Whether a registered version loads and predicts as it did when it was made; never raises."""
    result, trouble = _apart(_reload, tracking_uri, model_uri, LOADERS)
    return result or Reload(False, None, trouble)


def predict(tracking_uri: str, model_uri: str, images: NDArray[np.float32]) -> Predicted:
    """Lets a registered version classify images.

    Args:
        tracking_uri: of the store.
        model_uri: models:/NAME/VERSION.
        images: float32 (n, h, w, c), raw pixels in the range of the data.

    Raises:
        TrackingError: it cannot be loaded, or cannot take such images.
    """
    result, trouble = _apart(_predict, tracking_uri, model_uri, LOADERS, images)
    if result is None:
        raise TrackingError(f"{model_uri} cannot be used: {trouble}")
    return result


def _apart(work: Callable[..., Result], *args: Any) -> tuple[Result | None, str]:
    """What `work` returns in a new process, or None and why it failed."""
    # Started afresh: a copy of this process would share its threads' locks.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, context, initializer=_quiet) as pool:
            return pool.submit(_tried, work, *args).result()
    except Exception as error:  # noqa: BLE001 - a process can end in any way
        return None, one_line(error)


def _quiet() -> None:
    """TensorFlow writes to stderr before anyone can stop it, and Keras its progress to stdout."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _tried(work: Callable[..., Result], *args: Any) -> tuple[Result | None, str]:
    # As text: not every exception of Keras or MLflow survives the way to another process.
    try:
        return work(*args), ""
    except Exception as error:  # noqa: BLE001 - a model's own code can raise anything
        return None, one_line(error)


def _reload(tracking_uri: str, model_uri: str, loaders: Collection[str]) -> Reload:
    with tempfile.TemporaryDirectory() as name:
        model = _load(tracking_uri, model_uri, loaders, Path(name))
        reference = _reference(Path(name))
        if reference is None:
            return Reload(True, None, f"there is no {REFERENCE_FILE} in it to compare with")
        images, expected = reference
        found = np.asarray(model.predict(images))
        if found.shape != expected.shape:
            trouble = f"it gives probabilities {found.shape} where it gave {expected.shape}"
            return Reload(True, float("inf"), trouble)
        return Reload(True, float(np.abs(found - expected).max(initial=0.0)))


def _predict(
    tracking_uri: str, model_uri: str, loaders: Collection[str], images: NDArray[np.float32]
) -> Predicted:
    with tempfile.TemporaryDirectory() as name:
        model = _load(tracking_uri, model_uri, loaders, Path(name))
        reference = _reference(Path(name))
        probabilities = np.asarray(model.predict(images), np.float32)
    if reference is None or not reference[0].size:
        return Predicted(probabilities, None)
    return Predicted(probabilities, (float(reference[0].min()), float(reference[0].max())))


def _load(tracking_uri: str, model_uri: str, loaders: Collection[str], folder: Path) -> Any:
    """Downloads a version and loads it, if it is what Podium registers and brings no code.

    Raises:
        TrackingError: it is something else, which could run code or take any amount of memory.
    """
    import mlflow.artifacts
    import mlflow.pyfunc
    from mlflow.models import Model

    mlflow.set_tracking_uri(tracking_uri)
    path = Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(folder)))
    how = Model.load(str(path)).flavors.get("python_function", {})
    if how.get("loader_module") not in loaders or how.get("code"):
        raise TrackingError(
            f"it is loaded by {how.get('loader_module')!r}; expected a Keras model as Podium "
            "registers it, without code of its own."
        )
    for archive in path.rglob("*.keras"):
        check_package(archive)
    return mlflow.pyfunc.load_model(str(path))


def _reference(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Images and probabilities that were kept with the model."""
    path = next(folder.rglob(REFERENCE_FILE), None)
    if path is None:
        return None
    with open_npz(path) as kept:
        return kept["images"]().astype(np.float32), kept["probabilities"]().astype(np.float32)
