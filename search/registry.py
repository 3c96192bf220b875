"""The recommended model in MLflow: logged, and a version of the registered model."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search.records import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_FILE = "data/model.keras"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A version of a registered model, and the address that loads it."""

    name: str
    version: str
    model_id: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{self.name}/{self.version}"


def unpack(package: bytes, folder: Path) -> Path:
    """Writes an MLflow model folder that a worker prepared; returns the `.keras` file in it.

    Raises:
        TrackingError: it is not such a folder.
    """
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        archive.extractall(folder)
    model = folder / MODEL_FILE
    if not model.is_file() or not (folder / "MLmodel").is_file():
        raise TrackingError(f"{folder}: the worker prepared no model.")
    return model


def register(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    name: str,
    folder: Path,
    metrics: Mapping[str, float],
    description: str,
    tags: Mapping[str, str],
    now_ms: int,
) -> RegisteredModel:
    """Logs the model folder as a model of the run and registers it, without TensorFlow.

    Args:
        client: of the store.
        experiment_id: of the run.
        run_id: the study's parent run.
        name: of the registered model; created where it is new.
        folder: the MLflow model folder, complete.
        metrics: logged on the run and linked to the model.
        description: of the version.
        tags: of the version.
        now_ms: time of the metrics.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    logged = client.create_logged_model(experiment_id, name="recommended", source_run_id=run_id)
    card = Model.load(str(folder))
    card.run_id, card.model_id = run_id, logged.model_id
    card.artifact_path = logged.artifact_location
    card.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, now_ms, 0, model_id=logged.model_id)
            for key, value in metrics.items()
        ],
    )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run_id,
        tags=dict(tags),
        description=description,
        model_id=logged.model_id,
    )
    return RegisteredModel(name, str(version.version), logged.model_id)
