"""MLflow stores on SQLite for tests: made once, then copied, because making one takes seconds."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import sqlite3
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mlflow import MlflowClient


@functools.cache
def _template() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    import mlflow

    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    path = Path(folder.name) / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return folder, path


def new_store(folder: Path) -> MlflowClient:
    """A client of an empty store at `runs/mlflow.db` of a folder, MLflow's global one."""
    import mlflow

    path = folder / "runs" / "mlflow.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template()[1], path)
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    client = mlflow.MlflowClient()
    _hurry(client._get_registry_client().store.engine)
    return client


def _hurry(engine: Any) -> None:
    """Lets SQLite not wait for the disk: a test's store need not survive a power cut."""
    import sqlalchemy

    @sqlalchemy.event.listens_for(engine, "connect")
    def _(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    engine.dispose()


def snapshot(client: MlflowClient) -> bytes:
    """All that a store holds."""
    with contextlib.closing(sqlite3.connect(_path(client))) as connection:
        return connection.serialize()


def restore(client: MlflowClient, content: bytes) -> None:
    """Makes a store what it was at a `snapshot`."""
    with (
        contextlib.closing(sqlite3.connect(":memory:")) as source,
        contextlib.closing(sqlite3.connect(_path(client))) as target,
    ):
        source.deserialize(content)
        target.execute("PRAGMA synchronous=OFF")
        source.backup(target)


def _path(client: MlflowClient) -> str:
    return str(client.tracking_uri).removeprefix("sqlite:///")


def hand_made_model(folder: Path, content: bytes = b"1.0", **metadata: Any) -> Path:
    """An MLflow model folder that this module loads, in no time: see `_load_pyfunc`.

    Args:
        folder: to be made.
        content: of the file of the model.
        metadata: what the model says of itself.
    """
    from mlflow.models import Model

    (folder / "data").mkdir(parents=True)
    (folder / "data" / "model.keras").write_bytes(content)
    card = Model(metadata=metadata or None)
    card.add_flavor("python_function", loader_module=__name__, data="data")
    card.save(str(folder / "MLmodel"))
    return folder


def zipped(folder: Path) -> bytes:
    """A model folder as a worker sends it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def add_reference(folder: Path, images: NDArray[np.float32]) -> None:
    """Adds what the model of a folder says now, as a worker does."""
    probabilities = HandMade(folder / "data").predict(images)
    np.savez(folder / "reference.npz", images=images, probabilities=probabilities)


class HandMade:
    """Two classes: the probability of the second is its file's number times the mean pixel."""

    def __init__(self, folder: Path) -> None:
        content = (folder / "model.keras").read_text()
        if content == "dies":
            os._exit(3)
        self._factor = float(content)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """As float32 (n, 2)."""
        second = self._factor * images.reshape(len(images), -1).mean(axis=1)
        return np.stack([1 - second, second], axis=1).astype(np.float32)


def _load_pyfunc(path: str) -> HandMade:
    """What MLflow calls; as noisy as TensorFlow."""
    os.write(1, b"NOISE\n")
    os.write(2, b"NOISE\n")
    return HandMade(Path(path))


def add_version(
    client: MlflowClient, name: str, folder: Path, tags: dict[str, str] | None = None
) -> str:
    """Registers a model folder as Podium does; gives the version."""
    from search.registry import register

    experiment = client.get_experiment_by_name("tests")
    place = (folder.parent / "artifacts").as_uri()
    known = experiment.experiment_id if experiment else client.create_experiment("tests", place)
    run = client.create_run(known)
    registered = register(
        client, known, run.info.run_id, name, folder, {}, "The verdict.", tags or {}, 1_000
    )
    return registered.version


def registered_state(client: MlflowClient, name: str) -> dict[str, Any]:
    """All that the registry holds of a model, but for its name."""
    model = client.get_registered_model(name)
    versions = client.search_model_versions(f"name='{name}'")
    return {
        "aliases": {alias: str(version) for alias, version in model.aliases.items()},
        "tags": dict(model.tags),
        "versions": {
            str(v.version): (dict(v.tags), v.description, sorted(v.aliases)) for v in versions
        },
    }
