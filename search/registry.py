"""Models in MLflow's registry: registered, found again by name, version or alias."""

from __future__ import annotations

import io
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.escaping import as_line
from search.records import Champion, ConfigError, ModelVersion, TrackingError, one_line
from search.settings import TrackingSettings, nearest, without_password
from search.tracking import check_tracking, connect, sqlite_path
from search.unpacking import check_archive
from spaces.config import TrialConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from search.ledger import StudyRecord

MODEL_FILE = "data/model.keras"
CHAMPION = "champion"
PREVIOUS = "previous-champion"
MISSING = "RESOURCE_DOES_NOT_EXIST"
PAGE = 100


@dataclass(frozen=True, slots=True)
class RegisteredModel(ModelVersion):
    """A version of a registered model, and the address that loads it."""

    name: str
    version: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Chosen(ModelVersion):
    """The version that a user's words stand for; `why` says how it was found, for people."""

    name: str
    version: str
    why: str


@dataclass(frozen=True, slots=True)
class Card:
    """What a version says of itself.

    Attributes:
        image_shape: height, width, channels of the images that it takes.
        classes: names in the order of its probabilities; () where it does not tell.
        data: the data set that it was trained on; "" where it does not tell.
    """

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    data: str


def unpack(package: bytes, folder: Path) -> Path:
    """Writes an MLflow model folder that a worker prepared; returns the `.keras` file in it.

    Raises:
        TrackingError: it is not such a folder.
    """
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        check_archive(folder, archive)
        archive.extractall(folder)
    if not is_whole(folder):
        raise TrackingError(f"{folder}: the worker prepared no model.")
    return folder / MODEL_FILE


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

    known = _registered_before(client, name, tags)
    if known is not None:
        return known
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


def _registered_before(
    client: MlflowClient, name: str, tags: Mapping[str, str]
) -> RegisteredModel | None:
    """The version of the same trial, where an earlier process came as far as that."""
    same = ("podium.study", "podium.trial")
    for version in client.search_model_versions(f"name = '{name}'"):
        if all(tags.get(key) and version.tags.get(key) == tags[key] for key in same):
            return RegisteredModel(name, str(version.version), str(version.model_id or ""))
    return None


def is_whole(folder: Path) -> bool:
    """Whether a folder is an MLflow model folder with a `.keras` file in it."""
    return (folder / MODEL_FILE).is_file() and (folder / "MLmodel").is_file()


def version_of_study(client: MlflowClient, name: str, study: str, run_id: str) -> str | None:
    """The newest version that a study registered; None where it registered none.

    Args:
        client: of the store.
        name: of the registered model, which need not exist.
        study: its name, which a study in another folder may have too.
        run_id: the study's parent run, which no other study has.
    """
    found = client.search_model_versions(f"run_id = '{run_id}'")
    own = [v for v in found if v.name == name and v.tags.get("podium.study") == study]
    return max((str(version.version) for version in own), key=int, default=None)


def register_late(
    client: MlflowClient,
    name: str,
    record: StudyRecord,
    config: TrialConfig,
    folder: Path,
    now_ms: int,
) -> str:
    """Registers the model of a study that has ended; gives the version.

    Args:
        client: of the store.
        name: of the registered model.
        record: of the study, with a verdict and a parent run.
        config: of the model.
        folder: the MLflow model folder, complete.
        now_ms: time of the metrics.
    """
    verdict, study = (record.outcome or {})["verdict"], record.name
    run = client.get_run(str(record.run_id))
    tested = verdict.get("tested", {})
    found = {f"test_{key}": value for key, value in tested.get("measures", {}).items()}
    accuracy = {"": "value", "_low": "low", "_high": "high"}
    found |= {f"test_accuracy{k}": tested.get("accuracy", {}).get(v) for k, v in accuracy.items()}
    same = ("space", "data", "fingerprint", "test_fingerprint")
    tags = {key: run.data.tags.get(key, "") for key in (f"podium.{word}" for word in same)}
    registered = register(
        client,
        run.info.experiment_id,
        run.info.run_id,
        name,
        folder,
        metrics={key: value for key, value in found.items() if isinstance(value, int | float)},
        description=f"{as_line(verdict.get('sentence', ''))}\n\nRegistered by `podium promote`, "
        f"after study {study} had ended.",
        tags={
            "podium.study": study,
            "podium.config_id": config.config_id,
            "podium.config": config.canonical_json,
            **{key: value for key, value in tags.items() if value},
        },
        now_ms=now_ms,
    )
    return registered.version


def open_registry(settings: TrackingSettings) -> MlflowClient:
    """A client of a store that is there already; nothing is made.

    Raises:
        ConfigError: it is an SQLite file that does not exist.
        TrackingError: it does not answer.
    """
    uri = settings.tracking_uri
    if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        raise ConfigError(
            f"No models here: {sqlite_path(uri)} does not exist. Register one with `podium run`, "
            "change to the folder that it was run in, or correct tracking_uri in mlflow.yaml."
        )
    check_tracking(settings)
    return connect(settings)


@contextmanager
def speaking(settings: TrackingSettings) -> Iterator[None]:
    """Turns what MLflow raises within into one paragraph.

    Raises:
        TrackingError: MLflow refused, or went away.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        shown = without_password(settings.tracking_uri)
        raise TrackingError(f"The registry at {shown} refuses: {one_line(error)}") from None


def find_model(client: MlflowClient, name: str) -> Any:
    """MLflow's registered model, with aliases and tags; None where there is none of that name."""
    return _found(client.get_registered_model, name)


def find_version(client: MlflowClient, name: str, version: str) -> Any:
    """MLflow's model version, with tags and description; None where there is none."""
    is_one = re.fullmatch("[0-9]{1,18}", version)  # Larger ones do not fit MLflow's tables.
    return _found(client.get_model_version, name, version) if is_one else None


def _found(get: Any, *key: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return get(*key)
    except MlflowException as error:
        if error.error_code != MISSING:
            raise
        return None


def find_champion(client: MlflowClient, name: str) -> Champion | None:
    """The version of a registered model that has the alias `champion`; None if there is none.

    Args:
        client: of the store, which must be MLflow's global one too (see `tracking.connect`).
        name: of the registered model, which need not exist.
    """
    model = find_model(client, name)
    if model is None or CHAMPION not in model.aliases:
        return None
    version = str(model.aliases[CHAMPION])
    tags = client.get_model_version(name, version).tags
    return Champion(
        name=name,
        version=version,
        study=tags.get("podium.study", ""),
        config=_config(tags.get("podium.config", "")),
        space=tags.get("podium.space", ""),
        test_fingerprint=tags.get("podium.test_fingerprint", ""),
        model=_model_file(f"models:/{name}/{version}"),
    )


def _config(text: str) -> TrialConfig | None:
    try:
        return TrialConfig.model_validate_json(text)
    except ValueError:
        return None


def _model_file(uri: str) -> bytes | None:
    """The `.keras` file of a version; None where it is gone, or was never one."""
    from mlflow.artifacts import download_artifacts

    _no_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(download_artifacts(f"{uri}/{MODEL_FILE}", dst_path=folder)).read_bytes()
        except Exception:  # noqa: BLE001 - each kind of store has errors of its own
            return None


def _no_progress_bars() -> None:
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def model_names(client: MlflowClient, pattern: str = "{data}") -> list[str]:
    """Registered models whose names fit a pattern of `mlflow.yaml`, sorted."""
    expression = re.compile(".+".join(map(re.escape, pattern.split("{data}"))))
    names, token = [], None
    while True:
        page = client.search_registered_models(max_results=PAGE, page_token=token)
        names += [model.name for model in page if expression.fullmatch(model.name)]
        token = page.token
        if not token:
            return sorted(names)


def need_model(client: MlflowClient, name: str) -> Any:
    """MLflow's registered model of that name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    model = find_model(client, name) if name else None
    if model is None:
        known = model_names(client)
        hint = nearest(name, known) if known else " None is registered yet: `podium run` does that."
        raise ConfigError(f"No registered model {name!r}.{hint}")
    return model


def choose(client: MlflowClient, words: str) -> Chosen:
    """Finds a version by NAME, NAME/VERSION or NAME@ALIAS, with or without `models:/` before it.

    A name alone stands for its champion, and where it has none for its newest version.

    Raises:
        ConfigError: no such model, version or alias; the message lists those that there are.
    """
    text = words.removeprefix("models:/").strip("/")
    name, at, alias = text.partition("@")
    name, slash, version = (name, "", "") if at else text.partition("/")
    model = need_model(client, name)
    aliases = {key: str(value) for key, value in model.aliases.items()}
    newest = max((int(v.version) for v in model.latest_versions), default=0)
    if at:
        if alias not in aliases:
            raise ConfigError(f"{name} has no alias {alias!r}. Its aliases: {_listed(aliases)}.")
        return Chosen(name, aliases[alias], f"its alias {alias}")
    if slash:
        if find_version(client, name, version) is None:
            raise ConfigError(
                f"{name} has no version {version!r}. Its newest is {newest or 'none'}; "
                f"its aliases: {_listed(aliases)}."
            )
        return Chosen(name, version, "as asked")
    if CHAMPION in aliases:
        return Chosen(name, aliases[CHAMPION], "its champion")
    if not newest:
        raise ConfigError(f"{name} has no version. `podium run` registers one.")
    return Chosen(name, str(newest), "its newest version: it has no champion")


def _listed(aliases: Mapping[str, str]) -> str:
    return ", ".join(f"{alias} ({version})" for alias, version in sorted(aliases.items())) or "none"


def read_card(uri: str) -> Card:
    """What a version says of itself, without loading it.

    Raises:
        TrackingError: its files cannot be read, or it takes no images.
    """
    from mlflow.models import get_model_info

    _no_progress_bars()
    try:
        info = get_model_info(uri)
    except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
        raise TrackingError(f"{uri}: its files cannot be read: {one_line(error)}") from None
    told = info.metadata or {}
    shape = told.get("image_shape") or _input_shape(info.signature)
    if len(shape) != 3:
        raise TrackingError(
            f"{uri} does not say what images it takes: it was not registered by Podium."
        )
    height, width, channels = map(int, shape)
    classes = tuple(map(str, told.get("classes") or ()))
    return Card((height, width, channels), classes, str(told.get("data") or ""))


def _input_shape(signature: Any) -> tuple[int, ...]:
    inputs = signature.inputs.inputs if signature is not None else []
    return tuple(getattr(inputs[0], "shape", ()))[1:] if len(inputs) == 1 else ()
