"""Studies of which MLflow was told nothing or a part, without training; and what MLflow holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from search.delivery import make_tracker, tell_end
from search.folder import find_study
from search.ledger import Ledger
from search.records import Opening, State, TestResult
from search.settings import StudySettings, TrackingSettings
from spaces.config import TrialConfig
from tests.builders import make_assignment, make_epoch, make_measures, make_report, make_totals
from tests.stores import hand_made_model
from tests.test_gates import OUTCOME

STUDY = "unsynced"
STARTED, ENDED = 1_700_000_000_000, 1_700_000_900_000
FACTS = {
    "data": "pets",
    "fingerprint": "f" * 16,
    "test_fingerprint": "0123",
    "space": "mlp",
    "git_commit": "abc",
    "versions": {"python": "3.11"},
    "class_names": ["cat", "dog"],
}

BASELINE = {"rival": "baseline", "tested": {"accuracy": {"value": 0.9}}}
VERDICT = OUTCOME["verdict"] | {"sentence": "Ship it.", "openings": 1, "contests": [BASELINE]}


def tracking(folder: Path, uri: str = "") -> TrackingSettings:
    """Of the store in a folder, or of a server."""
    root = str(folder / "runs" / "artifacts")
    return TrackingSettings(
        tracking_uri=uri or f"sqlite:///{folder}/runs/mlflow.db", artifact_root=root
    )


def open_ledger(folder: Path) -> Ledger:
    return Ledger(folder / "runs" / "ledger.db")


def begin(folder: Path, uri: str = "", study: str = STUDY) -> Ledger:
    """A study with one trial that has ended, with three epochs."""
    ledger = open_ledger(folder)
    (folder / "runs" / "studies" / study).mkdir(parents=True)
    settings = StudySettings(tracking=tracking(folder, uri)).model_dump(mode="json")
    ledger.begin_study(study, settings, FACTS, STARTED)
    add_trial(ledger, study, 0, State.STOPPED)
    return ledger


def add_trial(ledger: Ledger, study: str, number: int, state: State) -> None:
    started = STARTED + 1_000 * number
    if number >= len(ledger.trials(study)):
        config = TrialConfig(hidden=(16 + number,))
        ledger.begin_trial(study, make_assignment(number, config=config), started)
    epochs = [make_epoch(n, timestamp_ms=started + n) for n in (1, 2, 3)]
    ledger.append(study, number, make_report(*epochs, compiled={"learning_rate": 0.1}))
    _end_trial(ledger, study, number, state)


def _end_trial(ledger: Ledger, study: str, number: int, state: State) -> None:
    reason, rung = ("weak", 2) if state is State.STOPPED else (None, None)
    if state is State.INTERRUPTED:
        reason = "interrupted"
    if state is not State.RUNNING:
        totals = make_totals(val_accuracy=0.7 + number / 100)
        ledger.append(study, number, make_report(totals=totals))
        ended = STARTED + 1_000 * number + 500
        ledger.end_trial(study, number, state, ended, reason, rung)


def ended(folder: Path, uri: str = "", study: str = STUDY) -> Ledger:
    """A study with a verdict, a model, a report and figures, of which MLflow knows nothing."""
    ledger = begin(folder, uri, study)
    add_trial(ledger, study, 1, State.COMPLETED)
    own = folder / "runs" / "studies" / study
    hand_made_model(own / "model", classes=["cat", "dog"], image_shape=[2, 3, 1], data="pets")
    (own / "report.html").write_text("<html>The report</html>")
    (own / "report.md").write_text("The report")
    (own / "figures" / "recommended").mkdir(parents=True)
    (own / "figures" / "varied.png").write_bytes(b"png")
    (own / "figures" / "recommended" / "loss.png").write_bytes(b"png")
    ledger.record_opening(Opening("0123", study, "final verdict", STARTED + 5_000))
    ledger.record_tests(study, 1, [TestResult(2, make_measures())])
    ledger.set_outcome(study, OUTCOME | {"trial": 1, "verdict": VERDICT, "summary": "Why."})
    ledger.end_study(study, State.COMPLETED, None, ENDED)
    return ledger


def judge_again(ledger: Ledger, study: str = STUDY) -> None:
    """What a study that goes on leaves where the same trial wins, and the verdict is another."""
    record = find_study(ledger, study)
    ledger.reopen_study(study, record.settings)
    ledger.record_opening(Opening("0123", study, "final verdict, again", ENDED + 5_000))
    weaker = {"rival": "baseline", "tested": {"accuracy": {"value": 0.85}}}
    verdict = VERDICT | {"sentence": "Keep it.", "openings": 2, "contests": [weaker]}
    outcome = {k: v for k, v in (record.outcome or {}).items() if k != "model"}
    ledger.set_outcome(study, outcome | {"verdict": verdict})
    ledger.end_study(study, State.COMPLETED, None, ENDED + 9_000)


def interrupted(folder: Path, uri: str = "") -> Ledger:
    """A study that was interrupted and told, and then taken up again: one trial goes on."""
    ledger = begin(folder, uri)
    add_trial(ledger, STUDY, 1, State.INTERRUPTED)
    ledger.end_study(STUDY, State.INTERRUPTED, "interrupted", ENDED - 1_000)
    record = find_study(ledger, STUDY)
    tracker = make_tracker(ledger, record, tracking(folder, uri))
    tracker.deliver()
    tell_end(ledger, tracker, State.INTERRUPTED, "interrupted", ENDED - 1_000)
    ledger.reopen_study(STUDY, record.settings)
    ledger.reopen_trial(STUDY, 1)
    return ledger


def go_on(folder: Path) -> None:
    """What the process that took up an `interrupted` study does, from its first step to its end."""
    ledger = open_ledger(folder)
    tracker = make_tracker(ledger, find_study(ledger, STUDY), tracking(folder))
    tracker.deliver()
    ledger.append(STUDY, 1, make_report(make_epoch(4, timestamp_ms=STARTED + 1_004)))
    if ledger.trials(STUDY)[1].state is State.RUNNING:
        _end_trial(ledger, STUDY, 1, State.COMPLETED)
    add_trial(ledger, STUDY, 2, State.RUNNING)
    tracker.deliver()
    ledger.append(STUDY, 2, make_report(make_epoch(4, timestamp_ms=STARTED + 2_004)))
    if ledger.trials(STUDY)[2].state is State.RUNNING:
        _end_trial(ledger, STUDY, 2, State.STOPPED)
    tracker.deliver()
    tell_end(ledger, tracker, State.COMPLETED, None, ENDED)
    ledger.end_study(STUDY, State.COMPLETED, None, ENDED)


def stored(folder: Path, uri: str = "") -> dict[str, Any]:
    """All that MLflow holds of the studies of a folder, without keys that it chose itself."""
    import mlflow

    mlflow.set_tracking_uri(tracking(folder, uri).tracking_uri)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("podium")
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    versions = list(client.search_model_versions())
    models = list(client.search_logged_models([experiment.experiment_id]))
    found = {
        "runs": sorted((_run(client, run) for run in runs), key=lambda run: json.dumps(run)),
        "versions": [
            [v.name, v.version, v.description, dict(v.tags), v.run_id, v.source] for v in versions
        ],
        "models": [[str(m.status), dict(m.tags), m.source_run_id] for m in models],
        "files": _files(Path(tracking(folder).artifact_root)),
    }
    text = json.dumps(found, sort_keys=True, default=str)
    for run in runs:
        number = run.data.tags.get("podium.trial")
        name = "PARENT" if number is None else f"TRIAL{number}"
        text = text.replace(run.info.run_id, f"{run.data.tags['podium.study']}-{name}")
    for model in models:
        text = text.replace(model.model_id, "MODEL")
    normal: dict[str, Any] = json.loads(text)
    normal["runs"].sort(key=json.dumps)
    normal["files"].sort()
    return normal


def _run(client: Any, run: Any) -> dict[str, Any]:
    own = {k: v for k, v in run.data.tags.items() if k.startswith("podium") or k.endswith("Id")}
    return {
        "info": [run.info.run_name, run.info.status, run.info.start_time, run.info.end_time],
        "tags": own | {"note": run.data.tags.get("mlflow.note.content", "")},
        "params": dict(run.data.params),
        "metrics": {
            key: sorted(
                (m.step, m.timestamp, m.value)
                for m in client.get_metric_history(run.info.run_id, key)
            )
            for key in run.data.metrics
        },
        "inputs": [
            [i.dataset.name, i.dataset.digest, [tag.value for tag in i.tags]]
            for i in run.inputs.dataset_inputs
        ],
    }


def _files(root: Path) -> list[list[str]]:
    """Each with its digest; that of a model's card tells when it was made."""
    return [
        [str(path.relative_to(root)), _digest(path) if path.name != "MLmodel" else ""]
        for path in root.rglob("*")
        if path.is_file()
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
