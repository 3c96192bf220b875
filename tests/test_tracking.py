"""Delivery to MLflow: exactly once, in batches, and never at the study's expense."""

from __future__ import annotations

import http.server
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from search.ledger import Ledger
from search.records import (
    Assignment,
    EpochReport,
    Phase,
    State,
    TrackingError,
    WorkerReport,
)
from search.settings import TrackingSettings
from search.tracking import Tracker, check_tracking
from spaces.config import TrialConfig
from tests.builders import make_measures, make_totals
from tests.running import serving

TAGS = {"podium.data": "digits", "podium.space": "mlp"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingSettings:
    folder = tmp_path_factory.mktemp("store")
    return TrackingSettings(
        tracking_uri=f"sqlite:///{folder}/mlflow.db", artifact_root=str(folder / "artifacts")
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


def _assignment(number: int) -> Assignment:
    return Assignment(number, Phase.SEARCH, TrialConfig(), 1, 0, 300, ())


def _epochs(first: int, last: int) -> tuple[EpochReport, ...]:
    return tuple(
        EpochReport(e, 1 / e, 0.5, 1 / e, 0.5 + e / 1000, 0.1, 100.0, 1_700_000_000_000 + e)
        for e in range(first, last + 1)
    )


def _tracker(settings: TrackingSettings, ledger: Ledger, study: str) -> Tracker:
    return Tracker(settings, ledger, study, TAGS, {"trials": 1}, "f" * 16)


def _fill(ledger: Ledger, study: str, epochs: int) -> None:
    ledger.begin_study(study, {}, {}, 1_700_000_000_000)
    ledger.begin_trial(study, _assignment(0), 1_700_000_000_000)
    ledger.append(study, 0, WorkerReport(1, _epochs(1, epochs), compiled={"learning_rate": 0.1}))


def _history(study: str, ledger: Ledger, key: str) -> list[tuple[int, int, float]]:
    run_id = ledger.trials(study)[0].run_id
    history = mlflow.MlflowClient().get_metric_history(run_id, key)
    return [(m.step, m.timestamp, m.value) for m in history]


def test_more_metrics_than_one_batch_takes_all_arrive_once(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _fill(ledger, "many", 300)
    tracker = _tracker(store, ledger, "many")
    tracker.start()
    tracker.close(60)
    expected = [(e.epoch, e.timestamp_ms, e.val_accuracy) for e in _epochs(1, 300)]
    assert _history("many", ledger, "val_accuracy") == expected
    assert ledger.undelivered("many", 10) == []


def test_a_replay_from_the_ledger_stores_nothing_twice(
    store: TrackingSettings, ledger: Ledger
) -> None:
    from sqlalchemy import text

    _fill(ledger, "again", 5)
    totals = make_totals(measures=make_measures(roc_auc_ovo=float("nan")))
    ledger.append("again", 0, WorkerReport(1, totals=totals))
    ledger.end_trial("again", 0, State.COMPLETED, 1_700_000_001_000)
    for _ in range(2):
        tracker = _tracker(store, ledger, "again")
        tracker.start()
        tracker.close(60)
        assert len(_history("again", ledger, "val_loss")) == 5
        assert len(_history("again", ledger, "f1_macro")) == 1
        with ledger.engine.begin() as connection:
            connection.execute(text("update trials set delivered = 0"))
            connection.execute(text("update epochs set delivered = 0"))
    assert _history("again", ledger, "roc_auc_ovo") == []
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(store.experiment)
    runs = client.search_runs(
        [experiment.experiment_id], "tags.`podium.study` = 'again'", max_results=100
    )
    assert len(runs) == 2  # the parent and its one trial


def test_what_comes_after_a_delivery_is_delivered_next(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _fill(ledger, "later", 2)
    tracker = _tracker(store, ledger, "later")
    tracker.start()
    ledger.append("later", 0, WorkerReport(1, _epochs(3, 4)))
    ledger.end_trial("later", 0, State.STOPPED, 1_700_000_001_000, "weak", 4)
    tracker.wake()
    tracker.close(60)
    assert [step for step, *_ in _history("later", ledger, "val_loss")] == [1, 2, 3, 4]
    run = mlflow.MlflowClient().get_run(str(ledger.trials("later")[0].run_id))
    assert run.data.tags["podium.state"] == "stopped at rung 4"
    assert run.data.tags["podium.reason"] == "weak"
    assert run.info.status == "FINISHED"


def test_a_failed_trial_is_a_failed_run_with_its_reason(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _fill(ledger, "failed", 1)
    ledger.end_trial("failed", 0, State.FAILED, 1_700_000_001_000, "loss is not finite")
    tracker = _tracker(store, ledger, "failed")
    tracker.start()
    tracker.close(60)
    run = mlflow.MlflowClient().get_run(str(ledger.trials("failed")[0].run_id))
    assert (run.info.status, run.data.tags["podium.reason"]) == ("FAILED", "loss is not finite")


def test_a_trial_that_mlflow_refuses_holds_up_no_other_and_makes_no_second_run(
    store: TrackingSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(ledger, "refused", 2)
    ledger.begin_trial("refused", _assignment(1), 1_700_000_000_000)
    ledger.append("refused", 1, WorkerReport(1, _epochs(1, 3)))
    log_batch = mlflow.MlflowClient.log_batch

    def refuse(self: mlflow.MlflowClient, run_id: str, **values: object) -> object:
        if run_id == ledger.trials("refused")[0].run_id and values.get("metrics"):
            raise mlflow.MlflowException("no room for this one")
        return log_batch(self, run_id, **values)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    for _ in range(2):
        tracker = _tracker(store, ledger, "refused")
        tracker.start()
        with pytest.raises(TrackingError, match="no room for this one"):
            tracker.close(60)
    assert [d.trial.number for d in ledger.undelivered("refused", 10)] == [0]
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(store.experiment)
    runs = client.search_runs([experiment.experiment_id], "tags.`podium.study` = 'refused'")
    assert len(runs) == 3  # the parent and one for each trial


def test_names_that_mlflow_does_not_take_are_written_otherwise(
    store: TrackingSettings, ledger: Ledger
) -> None:
    ledger.begin_study("names", {}, {}, 0)
    config = TrialConfig(extra={"l2+l1": 0.1})
    ledger.begin_trial("names", Assignment(0, Phase.SEARCH, config, 1, 0, 3, ()), 0)
    tracker = _tracker(store, ledger, "names")
    tracker.start()
    tracker.close(60)
    run = mlflow.MlflowClient().get_run(str(ledger.trials("names")[0].run_id))
    assert run.data.params["extra.l2_l1"] == "0.1"


def test_a_server_that_is_gone_never_blocks_and_is_named_at_the_end(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _fill(ledger, "gone", 3)
    gone = TrackingSettings(tracking_uri=f"http://127.0.0.1:{_free_port()}")
    tracker = _tracker(gone, ledger, "gone")
    tracker.start()
    began = time.monotonic()
    for _ in range(100):
        tracker.wake()
    assert time.monotonic() - began < 0.5
    with pytest.raises(TrackingError):
        tracker.close(60)
    assert len(ledger.undelivered("gone", 10)[0].epochs) == 3


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.path.split("/")[1]))


@pytest.fixture
def server() -> Iterator[str]:
    with serving(_Answering) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_server_that_answers_errors_is_refused_before_the_study(server: str) -> None:
    with pytest.raises(TrackingError, match="answers 500"):
        check_tracking(TrackingSettings(tracking_uri=f"{server}/500"))


def test_a_server_that_asks_for_credentials_is_there(server: str) -> None:
    check_tracking(TrackingSettings(tracking_uri=f"{server}/401"))


def test_a_server_that_accepts_and_says_nothing_is_refused_within_15_s() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        with pytest.raises(TrackingError, match="does not answer"):
            check_tracking(
                TrackingSettings(tracking_uri=f"http://127.0.0.1:{mute.getsockname()[1]}")
            )
        assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:1", "does not answer"),
        ("postgresql://u:secret@127.0.0.1:1/db", "127.0.0.1:1 does not answer"),
        ("file:./mlruns", "expected sqlite"),
        ("http://[::1", "not an address"),
        ("postgresql://u:secret@h:99999/db", "not an address"),
        (f"sqlite:///{__file__}", "not an SQLite database"),
        ("mlruns", "expected sqlite"),
        ("ftp://host/x", "expected sqlite"),
        (f"sqlite:///{__file__}/mlflow.db", "not a folder one can write to"),
    ],
)
def test_a_uri_that_cannot_be_used_is_refused_without_writing_or_telling_secrets(
    uri: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrackingError, match=message) as caught:
        check_tracking(TrackingSettings(tracking_uri=uri))
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
