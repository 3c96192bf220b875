"""Models in MLflow's registry: registered, found again by name, version or alias."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.escaping import as_line
from search.records import (
    Champion,
    ConfigError,
    ModelVersion,
    PodiumError,
    State,
    TrackingError,
    one_line,
)
from search.settings import TrackingSettings, nearest, without_password
from search.tracking import check_tracking, connect, is_missing, once, sqlite_path
from search.unpacking import check_archive
from spaces.config import TrialConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from search.ledger import StudyRecord
    from search.records import TrialRecord

MODEL_FILE = "data/model.keras"
TRIAL_FILE = "trial.txt"
"""Which trial's model a folder holds: its number."""
CHAMPION = "champion"
PREVIOUS = "previous-champion"
PAGE = 100
IDENTITY = ("podium.study", "podium.trial")
"""Tags that tell which model it is, together with the run that it came from."""
DESCRIPTION_LENGTH = 5000
"""Of a version's description, in MLflow's tables; SQLite alone would take more."""
CUT_SHORT = " (...)"
MODEL_FACTS = ("space", "data", "fingerprint", "test_fingerprint")


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


def unpack(package: bytes, folder: Path, trial: int) -> Path:
    """Writes an MLflow model folder that a worker prepared; returns the `.keras` file in it.

    Args:
        package: the folder as a ZIP file.
        folder: where to; what is there is replaced once the new one is whole.
        trial: whose model it is.

    Raises:
        TrackingError: it is not such a folder.
    """
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        check_archive(folder, archive)
        archive.extractall(fresh)
    if not is_whole(fresh):
        shutil.rmtree(fresh)
        raise TrackingError(f"{folder}: the worker prepared no model.")
    (fresh / TRIAL_FILE).write_text(str(trial))
    # A folder that is there is whole: what is registered later is read from it.
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
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

    One that was registered before stays, and is told what differs: a study that goes on may come
    to another verdict on the same model.

    Args:
        client: of the store.
        experiment_id: of the run.
        run_id: the study's parent run.
        name: of the registered model; created where it is new.
        folder: the MLflow model folder, complete.
        metrics: logged on the run and linked to the model.
        description: of the version, which ends in a paragraph that stays the same: what follows it
            in MLflow was added there.
        tags: of the version.
        now_ms: time of the metrics.
    """
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    known = _versions(client, name, run_id, tags)
    if known:
        _tell_again(client, known[0], run_id, metrics, description, now_ms)
        return known[0]
    same = {key: tags[key] for key in IDENTITY if key in tags}
    model_id = once(
        lambda: str(
            client.create_logged_model(
                experiment_id, name="recommended", source_run_id=run_id, tags=same
            ).model_id
        ),
        lambda: next((m.model_id for m in _logged(client, experiment_id, run_id, same)), None),
    )
    card = Model.load(str(folder))
    card.run_id, card.model_id = run_id, model_id
    card.artifact_path = client.get_logged_model(model_id).artifact_location
    fresh = folder / ".MLmodel"
    card.save(str(fresh))
    fresh.replace(folder / "MLmodel")
    client.log_model_artifacts(model_id, str(folder))
    client.finalize_logged_model(model_id, "READY")
    client.log_batch(
        run_id,
        metrics=[
            Metric(key, value, now_ms, 0, model_id=model_id) for key, value in metrics.items()
        ],
    )
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = once(
        lambda: str(
            client.create_model_version(
                name,
                source=f"models:/{model_id}",
                run_id=run_id,
                tags=dict(tags),
                description=_fitting(description),
                model_id=model_id,
            ).version
        ),
        lambda: next((v.version for v in _versions(client, name, run_id, tags)), None),
    )
    return RegisteredModel(name, version, model_id)


def _tell_again(
    client: MlflowClient,
    known: RegisteredModel,
    run_id: str,
    metrics: Mapping[str, float],
    description: str,
    now_ms: int,
) -> None:
    """Tells MLflow what it has otherwise of a version, and nothing where it has the same."""
    from mlflow.entities import Metric

    before = client.get_model_version(known.name, known.version).description or ""
    text = _described_again(before, description)
    if text != before:
        client.update_model_version(known.name, known.version, text)
    of_run = client.get_run(run_id).data.metrics
    model = _found(client.get_logged_model, known.model_id)  # None where somebody deleted it
    of_model = _latest((model.metrics if model else None) or ())
    again = []
    for key, value in metrics.items():
        linked = of_model.get(key)
        is_linked = model is None or (linked is not None and linked.value == value)
        if of_run.get(key) == value and is_linked:
            continue
        latest = _latest(client.get_metric_history(run_id, key)).get(key)
        # MLflow shows what is of the latest time, and tells the run before the model: where it
        # came to the first only, the same time again adds nothing to that.
        if latest is None or latest.value == value:
            when_ms = now_ms if latest is None else latest.timestamp
        else:
            when_ms = max(now_ms, latest.timestamp + 1)
        again.append(Metric(key, value, when_ms, 0, model_id=model and known.model_id))
    if again:
        client.log_batch(run_id, metrics=again)


def _latest(history: Iterable[Any]) -> dict[str, Any]:
    """Of each metric, what MLflow shows of its history."""
    return {m.key: m for m in sorted(history, key=lambda m: (m.step, m.timestamp, m.value))}


def _described_again(before: str, description: str) -> str:
    """A version's description with another verdict, and what was added to it since.

    Somebody's own words stay as they are.
    """
    _, _, source = description.rpartition("\n\n")
    _, ours, added = before.partition(source)
    return _fitting(description, added) if ours or not before else before


def _fitting(description: str, added: str = "") -> str:
    """The description and what was added, the former's first part cut where it is too long."""
    head, gap, source = description.rpartition("\n\n")
    room = DESCRIPTION_LENGTH - len(gap) - len(source) - len(added)
    if len(head) > room:
        head = head[: max(room - len(CUT_SHORT), 0)] + CUT_SHORT
    return f"{head}{gap}{source}{added}"


def _versions(
    client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]
) -> list[RegisteredModel]:
    """Versions of the same trial of the same run, the first one first."""
    if not all(tags.get(key) for key in IDENTITY):
        return []
    found = [
        version
        for version in client.search_model_versions(f"run_id = '{run_id}'")
        if version.name == name and all(version.tags.get(key) == tags[key] for key in IDENTITY)
    ]
    found.sort(key=lambda version: int(version.version))
    # The store keeps no `model_id` with a version, but the address of its source.
    return [
        RegisteredModel(name, str(v.version), str(v.source).removeprefix("models:/")) for v in found
    ]


def _logged(
    client: MlflowClient, experiment_id: str, run_id: str, tags: Mapping[str, str]
) -> list[Any]:
    """Logged models of the same trial of the same run, the first one first."""
    if set(tags) != set(IDENTITY):
        return []
    found = [
        model
        for model in client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
        if all(model.tags.get(key) == tags[key] for key in IDENTITY)
    ]
    return sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))


def remove_duplicates(client: MlflowClient, model: RegisteredModel, run_id: str) -> None:
    """Removes what MLflow made a second time, of the same files, after its client gave up.

    A version that has an alias stays: somebody chose it.

    Args:
        client: of the store.
        model: the one that stays.
        run_id: the study's parent run.
    """
    version = client.get_model_version(model.name, model.version)
    tags = {key: version.tags.get(key, "") for key in IDENTITY}
    aliased = {str(number) for number in client.get_registered_model(model.name).aliases.values()}
    for other in _versions(client, model.name, run_id, tags):
        same = other.model_id == model.model_id and other.version != model.version
        if same and other.version not in aliased:
            client.delete_model_version(model.name, other.version)
    used = {other.model_id for other in _versions(client, model.name, run_id, tags)}
    experiment_id = client.get_run(run_id).info.experiment_id
    for logged in _logged(client, experiment_id, run_id, tags):
        if logged.model_id not in used:
            client.delete_logged_model(logged.model_id)


def is_whole(folder: Path) -> bool:
    """Whether a folder is an MLflow model folder with a `.keras` file in it."""
    return (folder / MODEL_FILE).is_file() and (folder / "MLmodel").is_file()


def holds_recommended(folder: Path, record: StudyRecord) -> bool:
    """Whether a folder is whole, and its model that of the trial which a study recommends now.

    A study that goes on may recommend another trial than before, and break off before it has put
    that one's model in the place of the earlier one.

    Args:
        folder: the study's MLflow model folder.
        record: of the study.
    """
    if not is_whole(folder):
        return False
    try:
        told = (folder / TRIAL_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        # An older Podium wrote none: what is certain is that a study which completed wrote its own.
        return record.state is State.COMPLETED
    return told == str((record.outcome or {}).get("trial"))


def version_of_trial(
    client: MlflowClient, name: str, study: str, run_id: str, trial: int
) -> str | None:
    """The first version that a study registered of a trial's model; None where there is none.

    Args:
        client: of the store.
        name: of the registered model, which need not exist.
        study: its name, which a study in another folder may have too.
        run_id: the study's parent run, which no other study has.
        trial: a study that goes on may register those of several.
    """
    identity = {"podium.study": study, "podium.trial": str(trial)}
    return next((known.version for known in _versions(client, name, run_id, identity)), None)


def register_recommended(
    client: MlflowClient,
    name: str,
    record: StudyRecord,
    trial: TrialRecord,
    folder: Path,
    judged_ms: int | None,
) -> RegisteredModel:
    """Registers the model that a study recommends, from what the ledger and its folder hold.

    The same whenever it is done, and nothing where it was done before. Where the study has gone on
    since, and come to another verdict on the same model, that takes the place of the one before.

    Args:
        client: of the store.
        name: of the registered model.
        record: of the study, with a verdict and a parent run.
        trial: that trained the model.
        folder: the MLflow model folder, complete.
        judged_ms: when the study last opened the test split, which is later than for any verdict
            before; None where that is not known.
    """
    verdict, study, facts = (record.outcome or {})["verdict"], record.name, record.facts
    run_id = str(record.run_id)
    run = client.get_run(run_id)
    experiment_id, told = run.info.experiment_id, run.data.tags
    tested = verdict.get("tested", {})
    contests = verdict.get("contests", ())
    baseline = next((c for c in contests if c.get("rival") == "baseline"), {"tested": tested})
    accuracy = tested.get("accuracy", {})
    found = {f"test_{key}": value for key, value in tested.get("measures", {}).items()} | {
        "test_accuracy": accuracy.get("value"),
        "test_accuracy_low": accuracy.get("low"),
        "test_accuracy_high": accuracy.get("high"),
        "baseline_test_accuracy": baseline.get("tested", {}).get("accuracy", {}).get("value"),
        "test_openings": verdict.get("openings"),
    }
    # Facts of an old ledger may lack what the run tells.
    tags = {(tag := f"podium.{key}"): facts.get(key) or told.get(tag) for key in MODEL_FACTS}
    return register(
        client,
        experiment_id,
        run_id,
        name,
        folder,
        metrics={k: float(value) for k, value in found.items() if isinstance(value, int | float)},
        description=f"{as_line(verdict.get('sentence', ''))}\n\n"
        f"[The report]({artifact_link(experiment_id, run_id)}) is among the artifacts of the run "
        f"of study {study}.",
        tags={
            "podium.study": study,
            "podium.trial": str(trial.number),
            "podium.config_id": trial.config.config_id,
            "podium.config": trial.config.canonical_json,
            **{key: str(value) for key, value in tags.items() if value},
        },
        now_ms=judged_ms or trial.ended_ms or record.started_ms,
    )


def artifact_link(experiment_id: str, run_id: str) -> str:
    """The report among a run's artifacts, as MLflow's UI addresses it."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html"


@contextmanager
def registry(settings: TrackingSettings) -> Iterator[MlflowClient]:
    """A client of a store that is there already; what goes wrong with it is one paragraph.

    Nothing is made.

    Raises:
        ConfigError: it is an SQLite file that does not exist.
        TrackingError: it does not answer, refuses, or goes away.
    """
    uri = settings.tracking_uri
    if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        raise ConfigError(
            f"No models here: {sqlite_path(uri)} does not exist. Register one with `podium run`, "
            "bring those of a store that was lost back by `podium sync STUDY`, change to the "
            "folder that it was run in, or correct tracking_uri in mlflow.yaml."
        )
    check_tracking(settings)
    try:
        yield connect(settings)
    except (PodiumError, BrokenPipeError):  # the latter is whoever reads what is printed
        raise
    except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
        shown = without_password(uri)
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
        if not is_missing(error):
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
    return read_champion(client, name, str(model.aliases[CHAMPION]))


def read_champion(client: MlflowClient, name: str, version: str) -> Champion:
    """A version that is the champion, or was; arguments as of `find_champion`."""
    tags = client.get_model_version(name, version).tags
    trial = tags.get("podium.trial", "")
    return Champion(
        name=name,
        version=version,
        study=tags.get("podium.study", ""),
        config=_config(tags.get("podium.config", "")),
        space=tags.get("podium.space", ""),
        test_fingerprint=tags.get("podium.test_fingerprint", ""),
        model=_model_file(f"models:/{name}/{version}"),
        trial=int(trial) if trial.isdecimal() else None,
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
