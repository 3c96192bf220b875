"""MLflow stops, is gone or answers at random while a study runs: nothing is lost or told twice."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import mlflow
import psutil

from search.delivery import left
from search.ledger import Ledger, StudyRecord
from search.records import EpochReport, State, TrialRecord
from tests.faults.outcome import FaultOutcome, Scenario
from tests.faults.servers import Proxy, Server, mlflow_server
from tests.running import Finished, podium, start

STUDY = "tracked"
SMALL = ("--trials", "5", "--max-epochs", "3", "--finalists", "1", "--confirm-seeds", "2")
DISTURBED_SHARE = 0.2
CLIENT_SECONDS = 4
OUTAGE_SECONDS = 60.0
LOAD_SECONDS = 60.0
RATE = 0.95
ENDLESS = """
from spaces.config import TrialConfig


def suggest(trial):
    rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    return TrialConfig(hidden=(256, 256), learning_rate=rate)


def baseline():
    return TrialConfig(hidden=(256, 256))
"""
"""A space whose trials all take equally long."""
Histories: TypeAlias = dict[tuple[str, str], list[tuple[Any, ...]]]


def differences(server: Server, ledger: Ledger, study: str, versions: int) -> Iterator[str]:
    """What MLflow lacks of a study that has ended, has twice, or says otherwise than the ledger.

    Args:
        server: that answers.
        ledger: that holds the study.
        study: its name.
        versions: of registered models that the study must have.
    """
    record = ledger.study(study)
    assert record is not None
    mlflow.set_tracking_uri(server.uri)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("podium")
    if experiment is None:
        yield "MLflow has no experiment"
        return
    runs = list(client.search_runs([experiment.experiment_id], max_results=5000))
    histories = _histories(server.folder / "mlflow.db")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    if len(parents) != 1:
        yield f"MLflow has {len(parents)} parent runs"
        return
    [parent] = parents
    yield from _of_parent(client, ledger, record, parent, histories)
    children = [run for run in runs if run is not parent]
    trials = {trial.number: trial for trial in ledger.trials(study)}
    numbers = Counter(int(run.data.tags["podium.trial"]) for run in children)
    if numbers != Counter(trials.keys()):
        yield f"MLflow has runs of trials {sorted(numbers.elements())} of {len(trials)}"
        return
    for run in children:
        yield from _of_trial(client, ledger, study, trials, run, histories)
    found = client.search_model_versions(f"run_id = '{parent.info.run_id}'")
    if len(found) != versions:
        yield f"MLflow has {len(found)} versions of the study's model"
    models = client.search_logged_models([experiment.experiment_id])
    if [str(model.status) for model in models] != ["READY"] * versions:
        yield f"MLflow has logged models {[str(model.status) for model in models]}"


def _histories(path: Path) -> Histories:
    """Every value of every metric as it is stored, by run and name: step, time, value."""
    found: Histories = {}
    with closing(sqlite3.connect(path)) as connection:
        query = "select run_uuid, key, step, timestamp, value from metrics order by step"
        for run_id, key, *value in connection.execute(query):
            found.setdefault((run_id, key), []).append(tuple(value))
    return found


def _of_parent(
    client: Any, ledger: Ledger, record: StudyRecord, parent: Any, histories: Histories
) -> Iterator[str]:
    expected = {State.COMPLETED: "FINISHED", State.FAILED: "FAILED", State.INTERRUPTED: "KILLED"}
    if parent.info.status != expected[record.state]:
        yield f"the parent run is {parent.info.status}, the study {record.state}"
    if parent.info.run_id != record.run_id:
        yield "the ledger names another parent run"
    tags = parent.data.tags
    openings = [key for key in tags if key.startswith("podium.test_opened.")]
    if len(openings) != sum(o.study == record.name for o in ledger.openings()):
        yield f"{len(openings)} openings are tagged"
    if len(parent.inputs.dataset_inputs) != 1:
        yield f"the parent run has {len(parent.inputs.dataset_inputs)} data sets"
    for key in parent.data.metrics:
        if len(histories[parent.info.run_id, key]) != 1:
            yield f"the parent run has {key} more than once"
    verdict = (record.outcome or {}).get("verdict")
    if record.state is State.COMPLETED:
        sentence = verdict["sentence"] if verdict else "Search only"
        if not tags.get("mlflow.note.content", "").startswith(sentence):
            yield "the parent run's note is not the verdict"
        files = {file.path for file in client.list_artifacts(parent.info.run_id)}
        if not {"report.html", "report.md", "figures"} <= files:
            yield f"the parent run has only {sorted(files)}"


def _of_trial(
    client: Any,
    ledger: Ledger,
    study: str,
    trials: Mapping[int, TrialRecord],
    run: Any,
    histories: Histories,
) -> Iterator[str]:
    number = int(run.data.tags["podium.trial"])
    trial = trials[number]
    epochs = ledger.epochs(study, number)
    if trial.run_id != run.info.run_id:
        yield f"trial {number} is another run than the ledger says"
    if len(run.inputs.dataset_inputs) != 1:
        yield f"trial {number} has {len(run.inputs.dataset_inputs)} data sets"
    ended = "KILLED" if trial.state is State.INTERRUPTED else "FINISHED"
    if run.info.status != ended or run.data.tags["podium.state"].split()[0] != trial.state:
        yield f"trial {number} is {run.info.status}, {run.data.tags['podium.state']}"
    if not run.data.params.get("hidden"):
        yield f"trial {number} has no configuration"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    if files != {"config.json", "evaluation.json"}:
        yield f"trial {number} has artifacts {sorted(files)}"
    per_epoch = set(epochs[0].metrics) if epochs else set()
    for key in per_epoch | set(run.data.metrics):
        history = histories[run.info.run_id, key]
        if key in per_epoch:
            wanted = [(e.epoch, e.timestamp_ms, e.metrics[key]) for e in epochs]
            if history != wanted:
                yield f"trial {number}: {len(history)} values of {key} for {len(epochs)} epochs"
        elif len(history) != 1:
            yield f"trial {number}: {key} is there {len(history)} times"
    ended_well = trial.state in (State.COMPLETED, State.STOPPED)
    if ended_well and "best_val_accuracy" not in run.data.metrics:
        yield f"trial {number} has no totals"


def _folder(folder: Path, uri: str) -> tuple[Path, Ledger]:
    """A folder to run studies in that are tracked at `uri`; its ledger, not there yet."""
    folder.mkdir(parents=True)
    (folder / "mlflow.yaml").write_text(f"tracking_uri: {uri}\n")
    return folder, Ledger(folder / "runs" / "ledger.db")


@contextmanager
def _running(*words: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], Future[Any]]]:
    """`podium WORDS`, and what it will have printed: read all the time, so that it never waits."""
    process = start(*words, folder=folder)
    with ThreadPoolExecutor(1) as pool:
        try:
            yield process, pool.submit(process.communicate)
        finally:
            process.kill()


def _run(*words: str, folder: Path, **variables: str) -> Finished:
    return podium(*words, folder=folder, seconds=600, **variables)


def _wait_for_trials(
    ledger: Ledger, process: subprocess.Popen[str], ended: int, seconds: float = 400
) -> None:
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if sum(t.state is not State.RUNNING for t in ledger.trials(STUDY)) >= ended:
            return
        time.sleep(0.1)
    raise TimeoutError(f"the study did not come to {ended} trials")


def disturbed(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """A fifth of all requests is answered by 500, hangs or is cut, before or after it is done."""
    for index in range(repeat):
        began = time.monotonic()
        here = folder / str(index)
        with mlflow_server(here / "server") as server:
            proxy = Proxy(server.port, DISTURBED_SHARE, seed + index, CLIENT_SECONDS + 1.0)
            with proxy.serving() as uri:
                work, ledger = _folder(here / "work", uri)
                waits = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(CLIENT_SECONDS)}
                losses = []
                finished = _run("run", "--study", STUDY, *SMALL, folder=work, **waits)
                if finished.code:
                    losses.append(f"the study ended with {finished.code}: {finished.err[-300:]}")
                syncs = 0
                while left(ledger, _record(ledger)) and syncs < 20:
                    syncs += 1
                    _run("sync", STUDY, folder=work, **waits)
                if left(ledger, _record(ledger)):
                    losses.append(
                        f"after {syncs} syncs MLflow lacks {left(ledger, _record(ledger))}"
                    )
            # Once what was late has been carried out, and asked without the proxy.
            losses += differences(server, ledger, STUDY, versions=1)
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(proxy.disturbed.items()))
        yield FaultOutcome(
            "mlflow-disturbed",
            f"{sum(proxy.disturbed.values())} of {proxy.requests} requests ({kinds}); "
            f"{syncs} syncs",
            1,
            losses,
            0.0,
            time.monotonic() - began,
        )


def _record(ledger: Ledger) -> StudyRecord:
    record = ledger.study(STUDY)
    assert record is not None
    return record


def gone(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """The server stops in mid-search and does not come back until the study has ended."""
    for index in range(repeat):
        began = time.monotonic()
        here = folder / str(index)
        losses: list[str] = []
        with mlflow_server(here / "server") as server:
            work, ledger = _folder(here / "work", server.uri)
            words = ["run", "--study", STUDY, "--seed", str(seed + index), *SMALL]
            with _running(*words, folder=work) as (process, printed):
                _wait_for_trials(ledger, process, 1 + index % 4)
                server.stop()
                stopped = len(ledger.trials(STUDY))
                out, err = printed.result(timeout=400)
            losses += _gone_losses(work, ledger, Finished(process.returncode, out, err))
            server.start()
            first = _run("sync", STUDY, folder=work)
            if first.code or "delivered" not in first.out:
                losses.append(f"sync ended with {first.code}: {first.out}{first.err}")
            losses += differences(server, ledger, STUDY, versions=1)
            again = _run("sync", folder=work)
            if again.code or "Nothing to deliver" not in again.out:
                losses.append(f"the second sync: {again.code} {again.out}{again.err}")
            losses += differences(server, ledger, STUDY, versions=1)
            words = ["promote", STUDY, "--override", "a small study"]
            promoted = _run(*words, folder=work)
            if promoted.code:
                losses.append(f"promote ended with {promoted.code}: {promoted.err}")
        seconds = time.monotonic() - began
        yield FaultOutcome("mlflow-gone", f"at trial {stopped}", 1, losses, 0.0, seconds)


def _gone_losses(work: Path, ledger: Ledger, finished: Finished) -> Iterator[str]:
    """What must hold of a study that ended without its server, and of `sync` before it is back."""
    if finished.code:
        yield f"the study ended with {finished.code}: {finished.err[-300:]}"
        return
    if "Recommended:" not in finished.out or "Verdict:" not in finished.out:
        yield "the study ended without a recommendation"
    if f"podium sync {STUDY}" not in " ".join(finished.err.split()):
        yield f"the warning does not name podium sync: {finished.err[-300:]}"
    record = _record(ledger)
    if record.state is not State.COMPLETED or not left(ledger, record).ending:
        yield f"the ledger says {record.state}, left {left(ledger, record)}"
    said = _run("status", STUDY, folder=work)
    if f"podium sync {STUDY}" not in " ".join(said.out.split()):
        yield f"status does not tell: {said.out[-300:]}"
    refused = _run("sync", STUDY, folder=work)
    if refused.code != 2 or "does not answer" not in refused.err:
        yield f"sync without a server ended with {refused.code}: {refused.err[-300:]}"


def stopped_for_a_minute(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """The server stops for 60 s and comes back, while trials of equal length go on and on."""
    for index in range(repeat):
        began = time.monotonic()
        here = folder / str(index)
        with mlflow_server(here / "server") as server:
            work, ledger = _folder(here / "work", server.uri)
            (work / "endless.py").write_text(ENDLESS)
            words = ["--space", "endless.py", "--trials", "100000", "--max-epochs", "40"]
            words += ["--sampler", "random", "--seed", str(seed), "--scheduler", "none"]
            words += ["--finalists", "0"]
            with _running("run", "--study", STUDY, *words, folder=work) as (process, printed):
                _wait_for_trials(ledger, process, 2)
                before = _stretch(process.pid, LOAD_SECONDS)
                server.stop()
                during = _stretch(process.pid, OUTAGE_SECONDS)
                server.start()
                later = _stretch(process.pid, LOAD_SECONDS)
                process.send_signal(signal.SIGINT)
                _, err = printed.result(timeout=400)
            losses = [*_undelivered(ledger), *differences(server, ledger, STUDY, versions=0)]
        epochs = [(e.timestamp_ms / 1000, e.epoch_seconds) for e in _all_epochs(ledger)]
        losses += slowed(before, during, later, epochs)
        if process.returncode != 130:
            losses.append(f"the study ended with {process.returncode}: {err[-300:]}")
        rates = [stretch.rate(epochs) for stretch in (before, during, later)]
        yield FaultOutcome(
            "mlflow-stopped",
            f"{OUTAGE_SECONDS:.0f} s: {{:.1f}} epochs a second before, {{:.1f}} during, "
            "{:.1f} after".format(*rates),
            1,
            losses,
            0.0,
            time.monotonic() - began,
        )


Epochs: TypeAlias = Sequence[tuple[float, float]]
"""When each ended, in seconds since 1970, and how many seconds it took."""


@dataclass(frozen=True)
class Stretch:
    """A part of a study.

    Attributes:
        first: when it began, in seconds since 1970.
        last: when it ended, likewise.
        driver_seconds: CPU time that the driver took meanwhile.
    """

    first: float
    last: float
    driver_seconds: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.last - self.first

    @property
    def driver_share(self) -> float:
        """Of one CPU."""
        return self.driver_seconds / self.seconds

    def rate(self, epochs: Epochs) -> float:
        """Epochs a second."""
        return sum(self.first <= end < self.last for end, _ in epochs) / self.seconds

    def trained_share(self, epochs: Epochs) -> float:
        """How many processes trained, on average, in place of waiting for something."""
        parts = (min(end, self.last) - max(end - took, self.first) for end, took in epochs)
        return sum(max(0.0, part) for part in parts) / self.seconds


def _stretch(driver: int, seconds: float) -> Stretch:
    """Lets the study go on for so long."""
    process = psutil.Process(driver)
    first, before = time.time(), process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    return Stretch(first, time.time(), used)


def slowed(before: Stretch, during: Stretch, later: Stretch, epochs: Epochs) -> Iterator[str]:
    """What trials lost of their speed to the outage.

    Their rate itself depends on whatever else the machine does. Podium can lower it in two ways:
    processes wait in place of training, or the driver takes the CPU from them.
    """
    waited = during.trained_share(epochs) / _mean(
        before.trained_share(epochs), later.trained_share(epochs)
    )
    taken = during.driver_share - _mean(before.driver_share, later.driver_share)
    if waited < RATE:
        yield f"processes trained {waited:.2f} of the usual time during the outage"
    if taken > (1 - RATE) * (os.cpu_count() or 1):
        yield f"the driver took {taken:.2f} CPUs more than usual during the outage"


def _mean(first: float, second: float) -> float:
    return (first + second) / 2


def _undelivered(ledger: Ledger) -> list[str]:
    missing = left(ledger, _record(ledger))
    return [f"MLflow lacks {missing}"] if missing else []


def _all_epochs(ledger: Ledger) -> list[EpochReport]:
    numbers = [trial.number for trial in ledger.trials(STUDY)]
    return [epoch for number in numbers for epoch in ledger.epochs(STUDY, number)]


TRACKING: dict[str, Scenario] = {
    "mlflow-stopped": stopped_for_a_minute,
    "mlflow-gone": gone,
    "mlflow-disturbed": disturbed,
}
TRACKING_ABOUT = {
    "mlflow-stopped": "the MLflow server is stopped for 60 s in mid-search",
    "mlflow-gone": "the MLflow server is gone for good; `podium sync` once it is back",
    "mlflow-disturbed": "a fifth of the requests to MLflow is answered by 500, hangs or is cut",
}
