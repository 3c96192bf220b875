"""Drains the ledger to MLflow, from one background thread of the process that runs the study."""

from __future__ import annotations

import http
import json
import logging
import os
import re
import shlex
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from search.credentials import masked
from search.database import ENCODED, trouble_of
from search.ledger import Delivery, Ledger, StudyRecord
from search.records import Measures, Opening, State, TrackingError, TrialRecord, one_line
from search.settings import TrackingSettings, is_address, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

CONNECT_SECONDS = 5.0
TRIALS_PER_ROUND = 20
METRICS_PER_BATCH = 1000
PARAMS_PER_BATCH = 100
PARAM_LENGTH = 6000
KEY_LENGTH = 250
CLASSES_AS_METRICS = 20
RUNS_PER_PAGE = 200
IDLE_SECONDS = 2.0
RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 0.5
GIVE_UP_SECONDS = 15.0
"""Nobody who waits for MLflow waits longer than this while nothing gets through."""
ATTEMPTS = 4
MISSING = "RESOURCE_DOES_NOT_EXIST"
RETRIES_VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
RUN_STATUS = {
    State.COMPLETED: "FINISHED",
    State.STOPPED: "FINISHED",
    State.FAILED: "FAILED",
    State.INTERRUPTED: "KILLED",
}
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SQLITE_MAGIC = b"SQLite format 3\0"

Item = TypeVar("Item")


def check_tracking(settings: TrackingSettings) -> None:
    """Makes sure, within seconds and without writing, that the tracking URI can be used.

    Raises:
        TrackingError: it does not answer, or is of a kind that MLflow 3 cannot use.
    """
    uri, shown = settings.tracking_uri, without_password(settings.tracking_uri)
    if not is_address(uri):  # None of it is told: any part may be one of the password.
        raise TrackingError(
            "The tracking URI is not an address: expected sqlite:///path, a database's URL or "
            f"http(s)://host, {ENCODED}."
        )
    parts = urlsplit(uri)
    scheme = parts.scheme.partition("+")[0]
    if scheme in ("http", "https"):
        _check_server(settings)
    elif scheme == "sqlite":
        path = sqlite_path(uri)
        _check_sqlite(path)
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise TrackingError(f"Tracking URI {shown}: {folder} is not a folder one can write to.")
    elif scheme in DATABASES and parts.hostname:
        _check_database(uri, parts.hostname, parts.port or DATABASES[scheme])
    else:
        raise TrackingError(
            f"Tracking URI {shown!r}: expected sqlite:///path, a database's URL or http(s)://host. "
            "MLflow 3 keeps no runs in plain folders."
        )


def sqlite_path(uri: str) -> Path:
    """The file behind a `sqlite:///` URI."""
    return Path(uri.split(":///", 1)[1]) if ":///" in uri else Path()


def _check_sqlite(path: Path) -> None:
    try:
        head = b""
        if path.exists():
            with path.open("rb") as file:
                head = file.read(len(SQLITE_MAGIC))
    except OSError as error:
        raise TrackingError(f"Tracking database {path}: {error.strerror}.") from None
    if head and head != SQLITE_MAGIC:
        raise TrackingError(f"Tracking database {path} is a file, but not an SQLite database.")


def _check_server(settings: TrackingSettings) -> None:
    """Asks what only who is let in is told, as MLflow's client would: /health is for everyone."""
    shown = without_password(settings.tracking_uri)
    try:
        answer = _ask(settings)
    except Exception as error:  # noqa: BLE001 - MLflow wraps those of two other packages
        raise TrackingError(
            f"Tracking URI {shown} does not answer ({one_line(_root(error))}). {_way_in(error)}, "
            "or correct tracking_uri in mlflow.yaml; sqlite:///runs/mlflow.db needs no server."
        ) from None
    if answer.status_code in (401, 403):
        hosts = "" if answer.status_code == 401 else "; its --allowed-hosts must name its host"
        raise TrackingError(
            f"Tracking URI {shown}: the server answers {answer.status_code} "
            f"({' '.join(masked(answer.text).split())[:200]}). Set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD in the environment, to those of a user that may work "
            f"there{hosts}."
        )
    if answer.status_code not in (200, 404):
        raise TrackingError(f"Tracking URI {shown}: the server answers {answer.status_code}.")
    try:
        told = answer.json()
        known = "experiment" in told or told["error_code"] == MISSING
    except (ValueError, LookupError, TypeError):
        known = False
    if not known:
        raise TrackingError(
            f"Tracking URI {shown}: a server answers, but not as MLflow does. Correct tracking_uri "
            "in mlflow.yaml; where MLflow is not at the root of its host, the path belongs to it."
        )


def _ask(settings: TrackingSettings) -> Any:
    """The server's answer to who asks for the experiment, whatever it is; once, within seconds."""
    _prepare_mlflow()
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    return http_request(
        get_default_host_creds(settings.tracking_uri),
        "/api/2.0/mlflow/experiments/get-by-name",
        "GET",
        max_retries=0,
        raise_on_status=False,
        timeout=CONNECT_SECONDS,
        params={"experiment_name": settings.experiment},
    )


def _root(error: BaseException) -> BaseException:
    """The error that others were made of."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _way_in(error: BaseException) -> str:
    if isinstance(_root(error), ssl.SSLError):
        return "Name the certificate of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH"
    return "Start the server"


def _check_database(uri: str, host: str, port: int) -> None:
    advice = "tracking_uri in mlflow.yaml; sqlite:///runs/mlflow.db needs no server."
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise TrackingError(
            f"Tracking database at {host}:{port} does not answer ({error}). Start it, or correct "
            f"{advice}"
        ) from None
    if trouble := trouble_of(uri):
        raise TrackingError(
            f"Tracking database at {host}:{port} lets nobody in ({trouble}). Correct "
            f"MLFLOW_TRACKING_URI, which holds its password, or {advice}"
        )


def connect(settings: TrackingSettings) -> MlflowClient:
    """A client of the store that the settings name. Imports MLflow, which takes seconds."""
    _prepare_mlflow()
    import mlflow

    # It prints a stack trace of each error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    if not settings.tracking_uri.startswith("http"):
        # It would try ten times, for two minutes, and say nothing meanwhile.
        from mlflow.store.db import utils

        utils.MAX_RETRY_COUNT = 1
    if settings.tracking_uri.startswith("sqlite:"):
        sqlite_path(settings.tracking_uri).parent.mkdir(parents=True, exist_ok=True)
    # A client's own URI is not enough: `models:/` addresses are resolved with the global one.
    mlflow.set_tracking_uri(settings.tracking_uri)
    return mlflow.MlflowClient()


def _prepare_mlflow() -> None:
    """Sets the variables that MLflow reads when it is imported, and later."""
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault(RETRIES_VARIABLE, "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
    # At the end of a run it would print the address, with the password in it.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"


def is_away(error: BaseException) -> bool:
    """Whether MLflow did not answer or failed, rather than refused what it was told."""
    cause = error if isinstance(error, OSError) else error.__context__
    answer = getattr(cause, "response", None)
    if answer is not None and answer.status_code < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    unavailable = getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE"
    return isinstance(cause, OSError) or unavailable


def is_missing(error: BaseException) -> bool:
    """Whether MLflow does not have what it was asked for."""
    return getattr(error, "error_code", "") == MISSING


def once(create: Callable[[], str], find: Callable[[], str | None]) -> str:
    """Makes what MLflow would make twice if it were asked twice: a run, a model, a version.

    MLflow's client repeats any request whose answer it did not get, and one that was carried out
    is then carried out again. Here it asks once, and looks before it asks again.

    Args:
        create: makes it; gives its key.
        find: gives the key of the one that was made; None where there is none.
    """
    known, attempts = find(), 0
    while known is None:
        attempts += 1
        try:
            with _without_repetition():
                known = create()
        except Exception as error:
            if attempts == ATTEMPTS or not is_away(error):
                raise
            known = find()
    return known


@contextmanager
def _without_repetition() -> Iterator[None]:
    before = os.environ.get(RETRIES_VARIABLE)
    os.environ[RETRIES_VARIABLE] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[RETRIES_VARIABLE]
        else:
            os.environ[RETRIES_VARIABLE] = before


class Tracker:
    """Tells MLflow what the ledger holds of one study, in batches, and remembers what it told.

    Trials never wait for it: it reads the ledger, not a queue, so that nothing is lost or grows
    when MLflow is slow or away. Whatever it does can be broken off anywhere and done again.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        ledger: Ledger,
        study: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        fingerprint: str,
    ) -> None:
        """Prepares; nothing is sent before `start`.

        Args:
            settings: where to.
            ledger: where from.
            study: its name, also the parent run's.
            tags: set on the parent run and on every trial's run.
            params: of the parent run; those that changed since they were told are tags of it.
            fingerprint: of data and split.
        """
        self._settings, self._ledger, self._study = settings, ledger, study
        self._tags, self._params, self._fingerprint = dict(tags), dict(params), fingerprint
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._drain, name="podium-tracker", daemon=True)
        self._gave_up = threading.Event()
        self._client: MlflowClient | None = None
        self._experiment_id = self._run_id = ""
        self._openings_told = 0
        self._taken_up: set[int] = set()
        self._got_through = time.monotonic()
        self.trouble: str | None = None
        self._away = False
        self.on_reached: Callable[[MlflowClient], None] = lambda _: None
        """Called once, from the background thread, when MLflow was reached; must not raise."""

    def start(self) -> None:
        """Begins to drain, in the background."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something new in the ledger; never blocks."""
        self._wake.set()

    def close(self, seconds: float) -> None:
        """Waits until every trial is delivered, and ends the thread.

        Waits as long as something gets through, and `GIVE_UP_SECONDS` more, but never longer than
        `seconds`.

        Raises:
            TrackingError: not everything was delivered; the ledger has it.
        """
        began = time.monotonic()
        self._closing.set()
        self._wake.set()
        while self._thread.is_alive():
            now = time.monotonic()
            if now - began > seconds or now - max(began, self._got_through) > GIVE_UP_SECONDS:
                break
            self._thread.join(0.1)
        self._gave_up.set()
        self._thread.join(2 * LAST_RETRY_SECONDS)
        if self._thread.is_alive():
            self._away = True
            self.trouble = self.trouble or f"no answer in {time.monotonic() - began:.0f} s"
        if self.trouble is not None:
            raise TrackingError(self.trouble)

    def deliver(self) -> None:
        """Delivers, in the calling thread, everything that the ledger holds of the study's trials.

        Raises:
            Exception: MLflow's; what was delivered before stays so.
        """
        try:
            self._deliver_all()
        except Exception as error:
            if not is_missing(error):
                raise
            # The store was lost meanwhile, or a run in it: once more, to what there is now.
            self._run_id, self._openings_told = "", 0
            self._taken_up.clear()
            self._deliver_all()

    def reach(self) -> None:
        """Finds the study's runs in MLflow, and makes a parent run where there is none.

        What MLflow was told and does not have any more is undelivered afterwards.

        Raises:
            TrackingError: somebody deleted the run or its experiment, and can take that back.
            Exception: MLflow's.
        """
        if self._client is None:
            self._client = connect(self._settings)
        if not self._run_id:
            run_id = self._parent_run()
            self._forget_lost_trials(run_id)
            self._go_on(run_id)
            self._run_id = run_id
            self._progress()
            heard, self.on_reached = self.on_reached, lambda _: None
            heard(self._client)

    def patiently(self, work: Callable[[], Item]) -> Item:
        """Does what can be done again, until it is done.

        Raises:
            Exception: MLflow's, when it refused, or nothing got through for `GIVE_UP_SECONDS`.
        """
        failed: float | None = None
        while True:
            try:
                return work()
            except Exception as error:
                now = time.monotonic()
                failed = now if failed is None else failed
                patience = max(failed, self._got_through) + GIVE_UP_SECONDS
                if not is_away(error) or now > patience:
                    raise
            time.sleep(LAST_RETRY_SECONDS)

    def finish(
        self,
        status: str,
        ended_ms: int,
        note: str,
        metrics: Sequence[tuple[str, float, int]] = (),
        artifacts: Sequence[Path] = (),
    ) -> None:
        """Ends the parent run, after everything else was delivered.

        Args:
            status: FINISHED, FAILED or KILLED.
            ended_ms: when.
            note: shown as the run's description.
            metrics: of the study as a whole, each with its time: the same one as the last time, so
                that telling it again stores nothing twice.
            artifacts: files and folders to upload.
        """
        from mlflow.entities import Metric, RunTag

        self.client.log_batch(
            self._run_id,
            metrics=[Metric(key, value, when_ms, 0) for key, value, when_ms in metrics],
            tags=[RunTag("mlflow.note.content", note)],
        )
        self._progress()
        for path in artifacts:
            if path.is_dir():
                self.client.log_artifacts(self._run_id, str(path), path.name)
            else:
                self.client.log_artifact(self._run_id, str(path))
            self._progress()
        self._remove_duplicates()
        # Last: a run that has ended has everything.
        self.client.set_terminated(self._run_id, status, ended_ms)

    @property
    def client(self) -> MlflowClient:
        """MLflow's client, once it was reached."""
        if self._client is None:
            raise TrackingError(f"MLflow was not reached: {self.trouble}")
        return self._client

    @property
    def is_reached(self) -> bool:
        """Whether MLflow has the parent run, and answered the last time."""
        return bool(self._run_id) and not self._away

    @property
    def study(self) -> str:
        """Its name."""
        return self._study

    @property
    def run_id(self) -> str:
        """The parent run, once it was made."""
        return self._run_id

    @property
    def experiment_id(self) -> str:
        """The experiment, once it was found or made."""
        return self._experiment_id

    def _drain(self) -> None:
        while True:
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                self.deliver()
                self.trouble, self._away = None, False
            except Exception as error:  # noqa: BLE001 - MLflow's trouble is never the study's
                self.trouble, self._away = one_line(error), is_away(error)
            if not closing:
                if self.trouble:
                    self._closing.wait(RETRY_SECONDS)
                else:
                    self._wake.wait(IDLE_SECONDS)
            elif not self._away or self._gave_up.wait(LAST_RETRY_SECONDS):
                return

    def _progress(self) -> None:
        self._got_through = time.monotonic()

    def _deliver_all(self) -> None:
        self.reach()
        self._deliver_openings()
        self._deliver_trials()

    def _parent_run(self) -> str:
        """The study's run: the one that the ledger or MLflow knows, or else a new one."""
        study = self._ledger.study(self._study)
        run = self._run(study.run_id) if study and study.run_id else None
        if run is None:
            self._experiment_id = _experiment(self.client, self._settings)
            return self._new_parent_run(study)
        self._check_active(run)
        # Where it is, whatever its experiment is called by now.
        self._experiment_id, run_id = str(run.info.experiment_id), str(run.info.run_id)
        _check_artifacts(self.client.get_experiment(self._experiment_id), self._settings)
        if _is_open(run.info) and self._has_ended(study):
            # A copy of the store from before that: nobody knows what else it lacks.
            self._ledger.forget_delivery(self._study)
            self._ledger.set_study_run(self._study, run_id)
        return run_id

    def _has_ended(self, study: StudyRecord | None) -> bool:
        """Whether the study has, and MLflow was told."""
        if study is None or study.state is State.RUNNING:
            return False
        return self._ledger.is_end_told(self._study)

    def _run(self, run_id: str) -> Any:
        """MLflow's run, a deleted one too; None where it is gone for good."""
        try:
            return self.client.get_run(run_id)
        except Exception as error:
            if not is_missing(error):
                raise
            return None

    def _check_active(self, run: Any) -> None:
        """Refuses a run that somebody deleted: it is theirs to say that it is wanted again.

        Raises:
            TrackingError: it says how.
        """
        if run.info.lifecycle_stage != "deleted":
            return
        _check_experiment(self.client.get_experiment(run.info.experiment_id))
        run_id = run.info.run_id
        raise TrackingError(
            f"Run {run_id} of study {self._study} was deleted in MLflow: `mlflow runs restore "
            f"--run-id {run_id}` brings it back, `mlflow gc --run-ids {run_id}` removes it for "
            "good, and Podium makes another one then."
        )

    def _new_parent_run(self, study: StudyRecord | None) -> str:
        if study is not None and study.run_id is not None:
            self._ledger.forget_delivery(self._study)
        started_ms = study.started_ms if study else 0
        run_id = once(
            lambda: self._create_run(self._study, started_ms, {"podium.study": self._study}),
            lambda: next((str(run.info.run_id) for run in self._parents(started_ms)), None),
        )
        self._ledger.set_study_run(self._study, run_id)
        return run_id

    def _forget_lost_trials(self, parent_id: str) -> None:
        """Lets those be told again of which MLflow has no run, or one that lacks something.

        The latter where its store is a copy of an older day.
        """
        query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
        # Deleted ones too: what was told of them need not be told again.
        found = {run.info.run_id: run.info for run in self._client_runs(query, deleted_too=True)}
        for trial in self._ledger.trials(self._study):
            if trial.run_id is None:
                continue
            info = found.get(trial.run_id) or self._info(trial.run_id)
            if not self._has_all(trial, info):
                self._ledger.forget_delivery(self._study, [trial.number])
                if info is not None:
                    self._ledger.set_trial_run(self._study, trial.number, trial.run_id)

    def _info(self, run_id: str) -> Any:
        """Of a run that may be in another experiment; None where there is none."""
        run = self._run(run_id)
        return None if run is None else run.info

    def _has_all(self, trial: TrialRecord, info: Any) -> bool:
        """Whether a run has what MLflow was told of its trial, as far as it shows."""
        if info is None or not _is_open(info):
            return info is not None
        if trial.state is not State.RUNNING:
            return False
        history = self.client.get_metric_history(info.run_id, "epoch_seconds")
        known = {metric.step for metric in history}
        return all(item.epoch in known for item in self._ledger.epochs(self._study, trial.number))

    def _parents(self, started_ms: int) -> Iterator[Any]:
        """Runs of this study and no other: elsewhere there may be one of the same name."""
        runs = self._client_runs(
            f"tags.`podium.study` = '{self._study}' and attributes.start_time = {started_ms}"
        )
        return (run for run in runs if "mlflow.parentRunId" not in run.data.tags)

    def _client_runs(self, query: str, *, deleted_too: bool = False) -> Iterator[Any]:
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted_too else ViewType.ACTIVE_ONLY
        token: str | None = None
        while True:
            page = self.client.search_runs(
                [self._experiment_id], query, view, RUNS_PER_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _go_on(self, run_id: str) -> None:
        """Tells the parent run what it lacks."""
        run = self.client.get_run(run_id)
        missing = {k: v for k, v in self._params.items() if _key(k) not in run.data.params}
        self._log_params(run_id, missing)
        self._tell_changed(run)
        if not run.inputs.dataset_inputs:
            self.client.log_inputs(run_id, datasets=[self._dataset()])
        record = self._ledger.study(self._study)
        runs = record is not None and record.state is State.RUNNING
        if runs and run.info.status != "RUNNING":
            self.client.update_run(run_id, "RUNNING")

    def _tell_changed(self, run: Any) -> None:
        """Tags the parent run with the settings that are not those of its params any more.

        MLflow's params never change, so that they stay those that the study began with. Of a study
        that has gone on with others, as with more `trials` or another `time_budget`, those in force
        are tags, `podium.trials` and so on: the value of the tag goes before that of the param.
        """
        from mlflow.entities import RunTag

        params, tags = run.data.params, run.data.tags
        now = {_key(key): _param(value) for key, value in self._params.items()}
        changed = {key for key, value in now.items() if params.get(key, value) != value}
        told = {f"podium.{key}": now[key] for key in changed}
        new = [RunTag(tag, value) for tag, value in told.items() if tags.get(tag) != value]
        if new:
            self.client.log_batch(run.info.run_id, tags=new)
        # One that is again as it was at first.
        for tag in {f"podium.{key}" for key in now.keys() - changed} & tags.keys():
            if tag not in self._tags:
                self.client.delete_tag(run.info.run_id, tag)

    def _trial_run(self, trial: TrialRecord) -> str:
        """The trial's run: the one that the ledger or MLflow knows, or else a new one."""
        run_id = trial.run_id
        if run_id is None:
            run_id = once(
                lambda: self._create_run(
                    f"{trial.phase} {trial.number:03d}", trial.started_ms, self._trial_tags(trial)
                ),
                lambda: self._known_run(trial.number),
            )
            self._ledger.set_trial_run(self._study, trial.number, run_id)
        if trial.number not in self._taken_up:
            self._take_up(trial, run_id)
            self._taken_up.add(trial.number)
        return run_id

    def _known_run(self, number: int) -> str | None:
        runs = self._client_runs(
            f"tags.`mlflow.parentRunId` = '{self._run_id}' and tags.`podium.trial` = '{number}'"
        )
        return next((str(run.info.run_id) for run in runs), None)

    def _take_up(self, trial: TrialRecord, run_id: str) -> None:
        """Completes and corrects what an earlier process left of a run."""
        from mlflow.entities import RunTag

        run = self.client.get_run(run_id)
        self._check_active(run)
        if not run.inputs.dataset_inputs:
            self.client.log_inputs(run_id, datasets=[self._dataset()])
        if trial.reason is None and "podium.reason" in run.data.tags:
            self.client.delete_tag(run_id, "podium.reason")
        if trial.state is State.RUNNING and run.info.status != "RUNNING":
            self.client.log_batch(run_id, tags=[RunTag("podium.state", State.RUNNING)])
            self.client.update_run(run_id, "RUNNING")

    def _remove_duplicates(self) -> None:
        """Removes runs of the same trial or study: MLflow made one after its client gave up."""
        study = self._ledger.study(self._study)
        known = {t.number: t.run_id for t in self._ledger.trials(self._study)}
        doubtful = [*self._parents(study.started_ms if study else 0)]
        extra = [run.info.run_id for run in doubtful if run.info.run_id != self._run_id]
        for child in self._client_runs(f"tags.`mlflow.parentRunId` = '{self._run_id}'"):
            own = known.get(int(child.data.tags.get("podium.trial", -1)))
            if own is not None and own != child.info.run_id:
                extra.append(child.info.run_id)
        for run_id in extra:
            self.client.delete_run(run_id)

    def _create_run(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        run = self.client.create_run(
            self._experiment_id,
            start_time=started_ms,
            run_name=name,
            tags={**self._tags, **tags},
        )
        return str(run.info.run_id)

    def _dataset(self) -> DatasetInput:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = self._tags.get("podium.data", "")
        dataset = Dataset(data, self._fingerprint, "podium", json.dumps({"name": data}))
        return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])

    def _log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        for part in _chunks(list(params.items()), PARAMS_PER_BATCH):
            self.client.log_batch(
                run_id,
                params=[Param(_key(key), _param(value)) for key, value in part],
            )

    def _deliver_trials(self) -> None:
        """In rounds, so that no backlog is ever in memory as a whole."""
        more, refusal = True, None
        while more:
            more, after = False, -1
            while deliveries := self._ledger.deliveries(self._study, TRIALS_PER_ROUND, after):
                after = deliveries[-1].trial.number
                for delivery in deliveries:
                    try:
                        self._deliver(delivery)
                    except Exception as error:
                        if is_away(error):
                            raise
                        refusal = error  # One trial must not hold up the others.
                        continue
                    self._ledger.mark_delivered(self._study, delivery)
                    more = more or delivery.more
        if refusal is not None:
            raise refusal

    def _deliver_openings(self) -> None:
        """Tags the parent run with each time that the study opened the test split."""
        from mlflow.entities import RunTag

        openings = [o for o in self._ledger.openings() if o.study == self._study]
        tags = [
            RunTag(f"podium.test_opened.{number}", _opening_in_words(opening))
            for number, opening in enumerate(openings, 1)
        ]
        for part in _chunks(tags[self._openings_told :], PARAMS_PER_BATCH):
            self.client.log_batch(self._run_id, tags=part)
        self._openings_told = len(openings)

    def _deliver(self, delivery: Delivery) -> None:
        from mlflow.entities import Metric, RunTag

        trial = delivery.trial
        run_id = self._trial_run(trial)
        # With every delivery: the same value again changes nothing.
        self._log_params(run_id, config_params(trial))
        metrics = [
            Metric(key, value, item.timestamp_ms, item.epoch)
            for item in delivery.epochs
            for key, value in item.metrics.items()
        ]
        # An interrupted trial may go on, and its totals are known when it ends.
        if trial.state not in (State.RUNNING, State.INTERRUPTED) and trial.totals is not None:
            totals, ended = trial.totals, trial.ended_ms or trial.started_ms
            metrics += [
                Metric(key, float(value), ended, totals.best_epoch)
                for key, value in total_metrics(trial).items()
            ]
        metrics += [
            Metric(f"test_{key}", value, trial.ended_ms or trial.started_ms, result.epoch)
            for result in trial.tests
            for key, value in result.measures.scalars.items()
            if value == value
        ]
        for part in _chunks(metrics, METRICS_PER_BATCH):
            self.client.log_batch(run_id, metrics=part)
            self._progress()
        if trial.compiled:
            self._log_params(run_id, {f"compiled.{k}": v for k, v in trial.compiled.items()})
        if trial.state != State.RUNNING and not delivery.more:
            tags = [RunTag("podium.state", state_in_words(trial))]
            if trial.reason:
                tags.append(RunTag("podium.reason", trial.reason))
            self.client.log_batch(run_id, tags=tags)
            self.client.log_dict(run_id, trial.config.model_dump(mode="json"), "config.json")
            self.client.log_dict(run_id, evaluation(trial), "evaluation.json")
            self.client.set_terminated(run_id, RUN_STATUS[trial.state], trial.ended_ms)
        self._progress()

    def _trial_tags(self, trial: TrialRecord) -> dict[str, str]:
        return {
            "mlflow.parentRunId": self._run_id,
            "podium.study": self._study,
            "podium.trial": str(trial.number),
            "podium.phase": trial.phase,
            "podium.config_id": trial.config.config_id,
            "podium.state": State.RUNNING,
            **({"podium.experiment": trial.experiment} if trial.experiment else {}),
        }


def _is_open(info: Any) -> bool:
    """Whether a run is there, and MLflow was not told of its end."""
    return (info.status, info.lifecycle_stage) == ("RUNNING", "active")


def _opening_in_words(opening: Opening) -> str:
    when = datetime.fromtimestamp(opening.opened_ms / 1000, UTC).isoformat(timespec="seconds")
    return f"{when} {opening.fingerprint} {opening.reason}"


def config_params(trial: TrialRecord) -> dict[str, Any]:
    """A trial's configuration and seeds as MLflow params; lists as `128-64`."""
    params: dict[str, Any] = {}
    for key, value in trial.config.model_dump().items():
        if isinstance(value, dict):
            params |= {f"{key}.{name}": item for name, item in value.items()}
        else:
            params[key] = "-".join(map(str, value)) if isinstance(value, tuple) else value
    if trial.folds:
        params["folds"] = trial.folds
    params["layers"] = len(trial.config.hidden)
    params["conv_depth"] = len(trial.config.filters)
    params["seed"], params["split_seed"] = trial.seed, trial.split_seed
    return params


def total_metrics(trial: TrialRecord) -> dict[str, float]:
    """A trial's totals as MLflow metrics; what is not a number is left out."""
    totals = trial.totals
    if totals is None:
        return {}
    values = {
        "best_epoch": float(totals.best_epoch),
        "parameters": float(totals.parameters),
        "best_val_accuracy": totals.val_accuracy,
        "best_val_loss": totals.val_loss,
        "best_train_accuracy": totals.train_accuracy,
        "gap_train_validation": totals.gap,
        "wall_seconds": totals.wall_seconds,
    }
    measures = totals.measures
    for name in ("f1_macro", "f1_micro", "roc_auc_ovo", "roc_auc_ovr", "calibration_error"):
        values[name] = getattr(measures, name)
    if totals.fold_standard_error is not None:
        values["fold_standard_error"] = totals.fold_standard_error
        values |= {f"fold_{i}_val_accuracy": a for i, a in enumerate(totals.fold_accuracies, 1)}
    if len(measures.recall) <= CLASSES_AS_METRICS:
        values |= {f"precision_class_{i}": p for i, p in enumerate(measures.precision)}
        values |= {f"recall_class_{i}": r for i, r in enumerate(measures.recall)}
    return {key: value for key, value in values.items() if value == value}


def evaluation(trial: TrialRecord) -> dict[str, Any]:
    """Everything that was measured of a trial's model: confusion matrices, figures per class."""
    found: dict[str, Any] = {}
    if trial.totals is not None:
        found["validation"] = _as_json(trial.totals.measures)
        found["fold_accuracies"] = trial.totals.fold_accuracies
    for result in trial.tests:
        found[f"test after epoch {result.epoch}"] = _as_json(result.measures)
    return found


def _as_json(measures: Measures) -> dict[str, Any]:
    """JSON has no NaN."""
    return {key: value if value == value else None for key, value in asdict(measures).items()}


def state_in_words(trial: TrialRecord) -> str:
    """completed, stopped at rung N, stopped (by a time budget), failed, running."""
    if trial.rung is not None:
        return f"stopped at rung {trial.rung}"
    return trial.state.value


def _experiment(client: MlflowClient, settings: TrackingSettings) -> str:
    from mlflow.exceptions import MlflowException

    existing = client.get_experiment_by_name(settings.experiment)
    if existing is None:
        root = settings.artifact_root
        location = root if "://" in root else Path(root).resolve().as_uri()
        remote = settings.tracking_uri.startswith("http")
        try:
            # A server keeps artifacts where it was told to, not where this machine would.
            return str(
                client.create_experiment(
                    settings.experiment,
                    artifact_location=None if remote and "://" not in root else location,
                    tags={"mlflow.experimentKind": "custom_model_development"},
                )
            )
        except MlflowException:  # another study was faster
            existing = client.get_experiment_by_name(settings.experiment)
            if existing is None:
                raise
    _check_experiment(existing)
    _check_artifacts(existing, settings)
    return str(existing.experiment_id)


def _check_artifacts(experiment: Any, settings: TrackingSettings) -> None:
    """Refuses to write artifacts to where this folder was before it was renamed or copied.

    MLflow keeps their absolute place with the experiment.

    Raises:
        TrackingError: it says how to go on.
    """
    uri, root = settings.tracking_uri, Path(settings.artifact_root)
    location, here = str(experiment.artifact_location), Path.cwd().resolve()
    is_ours = uri.startswith("sqlite:") and here in sqlite_path(uri).resolve().parents
    if not (is_ours and location.startswith("file:")) or root.is_absolute():
        return
    place = Path(unquote(urlsplit(location).path))
    if place.parts[-len(root.parts) :] != root.parts or place.resolve() == root.resolve():
        return
    before = Path(*place.parts[: -len(root.parts)])
    raise TrackingError(
        f"This folder is not where it was: artifacts of the experiment {experiment.name!r} are in "
        f"{place}, and MLflow would go on to write there. Move the folder back to {before}, or "
        f"link that to it: `ln -s {shlex.quote(str(here))} {shlex.quote(str(before))}`; of a copy, "
        f"move {sqlite_path(uri)} away, and `podium sync STUDY` fills a new one."
    )


def _check_experiment(experiment: Any) -> None:
    """Refuses an experiment that somebody deleted.

    Raises:
        TrackingError: it says how to go on.
    """
    if experiment.lifecycle_stage == "deleted":
        number = experiment.experiment_id
        raise TrackingError(
            f"The experiment {experiment.name!r} was deleted in MLflow: `mlflow experiments "
            f"restore --experiment-id {number}` brings it back, `mlflow gc --experiment-ids "
            f"{number}` removes it for good, and Podium makes another one then."
        )


def _key(name: str) -> str:
    """A param's name as MLflow takes it: users may call what is in `extra` as they like."""
    return re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)[:KEY_LENGTH] or "_"


def _param(value: Any) -> str:
    """A param's value as MLflow takes it."""
    return str(value)[:PARAM_LENGTH]


def _chunks(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
