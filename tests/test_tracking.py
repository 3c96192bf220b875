"""Delivery to MLflow: exactly once, in batches, and never at the study's expense."""

from __future__ import annotations

import base64
import http.server
import ipaddress
import json
import math
import os
import socket
import socketserver
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pytest

from search import tracking
from search.ledger import EPOCHS_PER_DELIVERY, Delivery, Ledger
from search.records import (
    Assignment,
    EpochReport,
    Opening,
    Phase,
    State,
    TestResult,
    TrackingError,
    WorkerReport,
)
from search.settings import TrackingSettings
from search.tracking import (
    CLASSES_AS_METRICS,
    TRIALS_PER_ROUND,
    Tracker,
    check_tracking,
    config_params,
    connect,
    evaluation,
    is_away,
    once,
    total_metrics,
)
from spaces.config import TrialConfig
from tests.builders import make_measures, make_totals, make_trial
from tests.postgres import ENCODED, Server
from tests.running import serving
from tests.stores import new_store, restore, snapshot

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
    assert ledger.deliveries("many", 10) == []


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
    assert [d.trial.number for d in ledger.deliveries("refused", 10)] == [0]
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
    monkeypatch.setattr(tracking, "GIVE_UP_SECONDS", 1.0)
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
    assert not tracker.is_reached
    assert time.monotonic() - began < 30  # most of it is the import of MLflow
    assert len(ledger.deliveries("gone", 10)[0].epochs) == 3


def test_a_study_whose_runs_are_lost_while_it_goes_on_is_told_again_as_a_whole(
    tmp_path: Path, ledger: Ledger
) -> None:
    settings = TrackingSettings(
        tracking_uri=str(new_store(tmp_path).tracking_uri), artifact_root=str(tmp_path / "a")
    )
    _fill(ledger, "lost", 3)
    ledger.record_opening(Opening("split-a", "lost", "final verdict", 1_700_000_000_000))
    tracker = _tracker(settings, ledger, "lost")
    heard: list[str] = []
    tracker.on_reached = lambda client: heard.append(client.tracking_uri)
    tracker.deliver()
    lost = {tracker.run_id, str(ledger.trials("lost")[0].run_id)}
    for run_id in lost:
        tracker.client.delete_run(run_id)
        tracker.client._tracking_client.store._hard_delete_run(run_id)
    ledger.append("lost", 0, WorkerReport(1, _epochs(4, 4)))
    tracker.deliver()
    assert [step for step, *_ in _history("lost", ledger, "val_loss")] == [1, 2, 3, 4]
    assert "podium.test_opened.1" in tracker.client.get_run(tracker.run_id).data.tags
    assert not lost & {tracker.run_id, str(ledger.trials("lost")[0].run_id)}
    assert len(tracker.client.search_runs([tracker.experiment_id])) == 2
    assert heard == [settings.tracking_uri]


def test_a_trial_that_goes_on_is_told_again_what_an_older_copy_of_the_store_lacks(
    tmp_path: Path, ledger: Ledger
) -> None:
    client = new_store(tmp_path)
    settings = TrackingSettings(tracking_uri=str(client.tracking_uri))
    _fill(ledger, "older", 2)
    _tracker(settings, ledger, "older").deliver()
    old = snapshot(client)
    ledger.append("older", 0, WorkerReport(1, _epochs(3, 4)))
    _tracker(settings, ledger, "older").deliver()
    restore(client, old)
    assert len(_history("older", ledger, "val_loss")) == 2
    tracker = _tracker(settings, ledger, "older")
    tracker.reach()
    assert [len(d.epochs) for d in ledger.deliveries("older", 10)] == [4]
    tracker.deliver()
    assert [step for step, *_ in _history("older", ledger, "val_loss")] == [1, 2, 3, 4]
    _tracker(settings, ledger, "older").reach()
    assert ledger.deliveries("older", 10) == []
    assert len(client.search_runs([tracker.experiment_id])) == 2


def test_what_was_made_without_an_answer_is_not_made_again() -> None:
    made: list[str] = []

    def create() -> str:
        made.append(f"run {len(made)}")
        raise ConnectionError("no answer")

    assert once(create, lambda: made[0] if made else None) == "run 0"
    assert made == ["run 0"]


def test_what_was_not_made_is_asked_for_again_but_not_for_ever() -> None:
    asked: list[int] = []

    def create() -> str:
        asked.append(1)
        raise ConnectionError("no answer")

    with pytest.raises(ConnectionError):
        once(create, lambda: None)
    assert len(asked) == tracking.ATTEMPTS


def test_what_mlflow_refuses_is_not_asked_for_again() -> None:
    asked: list[int] = []

    def create() -> str:
        asked.append(1)
        raise mlflow.MlflowException("no such experiment")

    with pytest.raises(mlflow.MlflowException):
        once(create, lambda: None)
    assert asked == [1]


def test_mlflows_client_repeats_requests_by_itself_but_not_what_is_made_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    posts: list[str] = []

    class Failing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(self.path)
            self.send_error(500)

    with serving(Failing) as port:
        client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
        with pytest.raises(mlflow.MlflowException) as caught:
            client.create_run("0")
        assert is_away(caught.value)
        assert len(posts) == 3
        posts.clear()
        known = once(
            lambda: str(client.create_run("0").info.run_id), lambda: "known" if posts else None
        )
    assert known == "known"
    assert len(posts) == 1
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"


def _peak(folder: Path, trials: int, epochs: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes in use at most while a backlog of so many trials and epochs each is delivered."""
    ledger = Ledger(folder / f"{trials}-{epochs}.db")
    ledger.begin_study("backlog", {}, {}, 0)
    for number in range(trials):
        ledger.begin_trial("backlog", _assignment(number), 0)
        ledger.append("backlog", number, WorkerReport(1, _epochs(1, epochs)))
    tracker = _tracker(TrackingSettings(), ledger, "backlog")
    delivered: list[int] = []
    monkeypatch.setattr(tracker, "_deliver", lambda d: delivered.append(len(d.epochs)))
    tracemalloc.start()
    try:
        tracker._deliver_trials()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(delivered) == trials * epochs
    assert max(delivered) <= EPOCHS_PER_DELIVERY
    return peak


def test_a_backlog_is_delivered_in_rounds_and_never_in_memory_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _peak(tmp_path, 1, 1, monkeypatch)  # imports and caches
    # While one round is read, the one before it is still there.
    rounds = _peak(tmp_path, 2 * TRIALS_PER_ROUND, EPOCHS_PER_DELIVERY, monkeypatch)
    backlog = _peak(tmp_path, 3 * TRIALS_PER_ROUND, 2 * EPOCHS_PER_DELIVERY, monkeypatch)
    assert backlog < 1.5 * rounds


def test_a_server_that_is_away_is_asked_once_a_round_and_not_for_every_trial(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(ledger, "away", 1)
    ledger.begin_trial("away", _assignment(1), 0)
    tracker = _tracker(TrackingSettings(), ledger, "away")
    asked: list[int] = []

    def deliver(delivery: Delivery) -> None:
        asked.append(delivery.trial.number)
        raise ConnectionError("away")

    monkeypatch.setattr(tracker, "_deliver", deliver)
    with pytest.raises(ConnectionError):
        tracker._deliver_trials()
    assert asked == [0]


def test_a_data_set_that_did_not_arrive_with_its_run_arrives_later(
    store: TrackingSettings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(ledger, "inputs", 1)
    log_inputs = mlflow.MlflowClient.log_inputs
    refused: list[str] = []

    def refuse(self: mlflow.MlflowClient, run_id: str, **values: Any) -> None:
        if run_id == ledger.trials("inputs")[0].run_id and not refused:
            refused.append(run_id)
            raise ConnectionError("away")
        log_inputs(self, run_id, **values)

    monkeypatch.setattr(mlflow.MlflowClient, "log_inputs", refuse)
    tracker = _tracker(store, ledger, "inputs")
    with pytest.raises(ConnectionError):
        tracker.deliver()
    tracker.deliver()
    assert len(mlflow.MlflowClient().get_run(refused[0]).inputs.dataset_inputs) == 1


NAN = float("nan")
ENDED = 1_700_000_001_000


def _delivered(settings: TrackingSettings, ledger: Ledger, study: str) -> mlflow.entities.Run:
    """The run of a study's first trial, once everything was delivered."""
    tracker = _tracker(settings, ledger, study)
    tracker.start()
    tracker.close(60)
    assert ledger.deliveries(study, 10) == []
    return mlflow.MlflowClient().get_run(str(ledger.trials(study)[0].run_id))


def _complete(ledger: Ledger, study: str, **values: object) -> None:
    _fill(ledger, study, 3)
    ledger.append(study, 0, WorkerReport(1, totals=make_totals(**values)))
    ledger.end_trial(study, 0, State.COMPLETED, ENDED)


def _evaluation(run: mlflow.entities.Run) -> dict[str, object]:
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/evaluation.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, object] = json.loads(text, parse_constant=refuse)
    return found


def test_test_figures_are_metrics_at_the_epoch_that_they_are_of(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _complete(ledger, "tested")
    results = [
        TestResult(2, make_measures(accuracy=0.7, roc_auc_ovo=NAN)),
        TestResult(3, make_measures(accuracy=0.9)),
    ]
    ledger.record_tests("tested", 0, results)
    run = _delivered(store, ledger, "tested")
    assert _history("tested", ledger, "test_accuracy") == [(2, ENDED, 0.7), (3, ENDED, 0.9)]
    assert _history("tested", ledger, "test_roc_auc_ovo") == [(3, ENDED, 0.95)]
    assert run.data.metrics["test_accuracy"] == 0.9
    assert {f"test_{name}" for name in results[0].measures.scalars} <= set(run.data.metrics)


def test_test_figures_reach_a_trial_that_was_delivered_before(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _complete(ledger, "tested-later")
    before = _delivered(store, ledger, "tested-later")
    assert not any(name.startswith("test_") for name in before.data.metrics)
    assert "test after epoch 3" not in _evaluation(before)
    ledger.record_tests("tested-later", 0, [TestResult(3, make_measures(accuracy=0.9))])
    after = _delivered(store, ledger, "tested-later")
    assert after.info.run_id == before.info.run_id
    assert after.info.status == "FINISHED"
    assert after.data.metrics["test_accuracy"] == 0.9
    assert _history("tested-later", ledger, "best_val_accuracy") == [(2, ENDED, 0.8)]
    assert "test after epoch 3" in _evaluation(after)


def test_the_evaluation_holds_confusion_matrices_and_figures_of_every_class(
    store: TrackingSettings, ledger: Ledger
) -> None:
    measures = make_measures(roc_auc_ovo=NAN)
    _complete(ledger, "evaluated", measures=measures, fold_accuracies=(0.75, 0.85))
    ledger.record_tests("evaluated", 0, [TestResult(3, make_measures(confusion=((7, 3), (2, 8))))])
    found = _evaluation(_delivered(store, ledger, "evaluated"))
    assert set(found) == {"validation", "fold_accuracies", "test after epoch 3"}
    assert found["fold_accuracies"] == [0.75, 0.85]
    validation, test = found["validation"], found["test after epoch 3"]
    assert isinstance(validation, dict)
    assert isinstance(test, dict)
    assert validation["confusion"] == [[9, 1], [3, 7]]
    assert test["confusion"] == [[7, 3], [2, 8]]
    assert (validation["precision"], validation["recall"]) == ([0.75, 0.875], [0.9, 0.7])
    assert (validation["roc_auc_ovo"], test["roc_auc_ovo"]) == (None, 0.95)


def test_a_trial_that_was_never_measured_has_an_empty_evaluation(
    store: TrackingSettings, ledger: Ledger
) -> None:
    assert evaluation(make_trial(totals=None)) == {}
    _fill(ledger, "unmeasured", 1)
    ledger.end_trial("unmeasured", 0, State.FAILED, ENDED, "no luck")
    assert _evaluation(_delivered(store, ledger, "unmeasured")) == {}


def test_a_reproduced_experiment_is_a_tag_of_its_trial_and_a_fold_count_a_param(
    store: TrackingSettings, ledger: Ledger
) -> None:
    ledger.begin_study("named", {}, {}, 0)
    fields = {"folds": 5, "experiment": "cv-5"}
    job = Assignment(0, Phase.REPRODUCE, TrialConfig(), 1, 0, 3, (), **fields)  # type: ignore[arg-type]
    ledger.begin_trial("named", job, 0)
    run = _delivered(store, ledger, "named")
    assert run.data.tags["podium.experiment"] == "cv-5"
    assert run.data.tags["podium.phase"] == "reproduce"
    assert run.data.params["folds"] == "5"


def test_a_trial_of_a_search_has_no_experiment_and_no_folds(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _complete(ledger, "plain")
    run = _delivered(store, ledger, "plain")
    assert "podium.experiment" not in run.data.tags
    assert "folds" not in run.data.params
    assert not any(name.startswith("fold_") for name in run.data.metrics)


def test_every_class_has_its_precision_and_recall_as_metrics() -> None:
    found = total_metrics(make_trial())
    assert (found["precision_class_0"], found["precision_class_1"]) == (0.75, 0.875)
    assert (found["recall_class_0"], found["recall_class_1"]) == (0.9, 0.7)


@pytest.mark.parametrize(
    ("classes", "metrics"), [(CLASSES_AS_METRICS, CLASSES_AS_METRICS), (CLASSES_AS_METRICS + 1, 0)]
)
def test_classes_too_many_to_look_at_are_left_to_the_evaluation(classes: int, metrics: int) -> None:
    measures = make_measures(precision=(0.5,) * classes, recall=(0.5,) * classes)
    trial = make_trial(totals=make_totals(measures=measures))
    names = [name for name in total_metrics(trial) if "_class_" in name]
    assert len(names) == 2 * metrics
    assert len(evaluation(trial)["validation"]["precision"]) == classes


def test_every_fold_is_a_metric_with_the_standard_error_of_their_mean() -> None:
    totals = make_totals(fold_accuracies=(0.7, 0.8, 0.9))
    found = total_metrics(make_trial(totals=totals))
    folds = {name: value for name, value in found.items() if name.startswith("fold_")}
    # standard deviation 0.1, by the root of three
    assert folds.pop("fold_standard_error") == pytest.approx(0.1 / math.sqrt(3))
    assert folds == {
        "fold_1_val_accuracy": 0.7,
        "fold_2_val_accuracy": 0.8,
        "fold_3_val_accuracy": 0.9,
    }


def test_what_is_not_a_number_is_no_metric() -> None:
    measures = make_measures(roc_auc_ovo=NAN, f1_micro=NAN)
    found = total_metrics(make_trial(totals=make_totals(measures=measures)))
    assert not {"roc_auc_ovo", "f1_micro"} & set(found)
    assert found["f1_macro"] == 0.79
    assert total_metrics(make_trial(totals=None)) == {}


def test_params_name_folds_layers_and_a_users_own_values() -> None:
    config = TrialConfig(hidden=(128, 64), filters=(32,), extra={"width": 3})
    params = config_params(make_trial(config=config, folds=4, seed=5, split_seed=6))
    assert (params["hidden"], params["layers"]) == ("128-64", 2)
    assert (params["filters"], params["conv_depth"]) == ("32", 1)
    assert (params["folds"], params["seed"], params["split_seed"]) == (4, 5, 6)
    assert params["extra.width"] == 3


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.path.split("/")[1]))


@pytest.fixture
def answering() -> Iterator[str]:
    with serving(_Answering) as port:
        yield f"http://127.0.0.1:{port}"


def test_a_server_that_answers_errors_is_refused_before_the_study(answering: str) -> None:
    with pytest.raises(TrackingError, match="answers 500"):
        check_tracking(TrackingSettings(tracking_uri=f"{answering}/500"))


@pytest.mark.parametrize("code", [401, 403])
def test_credentials_that_a_server_does_not_take_are_told_before_the_study(
    answering: str, code: int
) -> None:
    uri = answering.replace("://", "://me:secret@")
    with pytest.raises(TrackingError, match=f"answers {code}") as caught:
        check_tracking(TrackingSettings(tracking_uri=f"{uri}/{code}"))
    for part in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "me:***@"):
        assert part in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("code", [200, 404])
def test_a_server_of_something_else_is_no_tracking_server(answering: str, code: int) -> None:
    with pytest.raises(TrackingError, match="not as MLflow does"):
        check_tracking(TrackingSettings(tracking_uri=f"{answering}/{code}"))


class _AskingForCredentials(http.server.BaseHTTPRequestHandler):
    """MLflow's basic-auth, in which nobody has made the experiment yet."""

    def do_GET(self) -> None:
        known = base64.b64encode(b"me:se@cret").decode()
        if self.path == "/health":  # open to everyone
            self.send_response(200)
            self.end_headers()
        elif self.headers["Authorization"] != f"Basic {known}":
            self.send_error(401)
        elif self.path.startswith("/mlflow/api/2.0/mlflow/experiments/get-by-name?"):
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}')
        else:
            self.send_error(500)


def test_credentials_are_tried_as_mlflows_client_sends_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(_AskingForCredentials) as port:
        check_tracking(
            TrackingSettings(tracking_uri=f"http://me:se%40cret@127.0.0.1:{port}/mlflow/")
        )
        plain = TrackingSettings(tracking_uri=f"http://127.0.0.1:{port}/mlflow")
        with pytest.raises(TrackingError, match="answers 401"):
            check_tracking(plain)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "se@cret")
        check_tracking(plain)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
        with pytest.raises(TrackingError, match="answers 401"):
            check_tracking(plain)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key, in one file, of a server that only its own authority vouches for."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path_factory.mktemp("authority") / "both.pem"
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(certificate.public_bytes(encoding) + private)
    return path


@pytest.fixture
def encrypted(authority: Path) -> Iterator[TrackingSettings]:
    """Of a server that is reached by HTTPS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    with serving(_Empty, context) as port:
        yield TrackingSettings(tracking_uri=f"https://127.0.0.1:{port}")


class _Empty(http.server.BaseHTTPRequestHandler):
    """MLflow without an experiment."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.end_headers()
        self.wfile.write(b'{"error_code": "RESOURCE_DOES_NOT_EXIST"}')


def test_a_server_whose_certificate_nobody_vouches_for_is_refused_with_the_way_out(
    encrypted: TrackingSettings,
) -> None:
    with pytest.raises(TrackingError, match="certificate") as caught:
        check_tracking(encrypted)
    assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in str(caught.value)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize(
    "variable",
    ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", "MLFLOW_TRACKING_INSECURE_TLS"],
)
def test_a_server_that_mlflows_client_trusts_is_trusted(
    encrypted: TrackingSettings, authority: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "true" if "INSECURE" in variable else str(authority))
    check_tracking(encrypted)


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


class _Closing(socketserver.BaseRequestHandler):
    """A server that takes connections and closes them, as a database does that is starting."""


@pytest.fixture
def closing() -> Iterator[int]:
    with socketserver.TCPServer(("127.0.0.1", 0), _Closing) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def test_a_database_that_refuses_is_told_at_once_and_without_its_password(closing: int) -> None:
    began = time.monotonic()
    uri = f"postgresql+psycopg://u:secret@127.0.0.1:{closing}/db"
    with pytest.raises(TrackingError, match=f"127.0.0.1:{closing} lets nobody in") as caught:
        check_tracking(TrackingSettings(tracking_uri=uri))
    assert "secret" not in str(caught.value)
    assert time.monotonic() - began < 5


def test_a_database_that_accepts_and_says_nothing_is_refused_within_15_s() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        began = time.monotonic()
        uri = f"postgresql+psycopg://u:secret@127.0.0.1:{mute.getsockname()[1]}/db"
        with pytest.raises(TrackingError, match="lets nobody in"):
            check_tracking(TrackingSettings(tracking_uri=uri))
        assert time.monotonic() - began < 15


def test_a_database_whose_driver_is_missing_is_refused_with_its_name(closing: int) -> None:
    uri = f"mysql+oursql://u:secret@127.0.0.1:{closing}/db"
    with pytest.raises(TrackingError, match="oursql"):
        check_tracking(TrackingSettings(tracking_uri=uri))


def test_a_database_that_lets_mlflow_in_passes_and_a_wrong_password_does_not(
    server: Server,
) -> None:
    address = server.address.replace("postgresql:", "postgresql+psycopg:")
    check_tracking(TrackingSettings(tracking_uri=address))
    wrong = address.replace(ENCODED, "wr0ng")
    with pytest.raises(TrackingError, match=r"lets nobody in .*password") as caught:
        check_tracking(TrackingSettings(tracking_uri=wrong))
    assert "wr0ng" not in str(caught.value)


def test_mlflow_does_not_try_a_database_for_minutes(
    closing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    assert utils.MAX_RETRY_COUNT  # a name that MLflow may change
    monkeypatch.setattr(utils, "MAX_RETRY_COUNT", 10)
    began = time.monotonic()
    with pytest.raises(Exception, match=f"{closing} failed"):
        connect(TrackingSettings(tracking_uri=f"postgresql+psycopg://u:p@127.0.0.1:{closing}/db"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:1", "does not answer"),
        ("http://u:secret@127.0.0.1:1", r"u:\*\*\*@127.0.0.1:1 does not answer .*refused"),
        ("http://u:secret@", "does not answer"),
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


@pytest.mark.parametrize("scheme", ["postgresql", "mysql+pymysql", "http", "https"])
@pytest.mark.parametrize(
    "password", ["S3cr/et", "S3cr?et", "S3cr#et", "S3cr[et", "12/34", "12?34", "12#34", "S3@cr/et"]
)
def test_a_password_that_breaks_its_address_is_not_told_in_part(scheme: str, password: str) -> None:
    with pytest.raises(TrackingError, match=r"%2F for /") as caught:
        check_tracking(TrackingSettings(tracking_uri=f"{scheme}://user:{password}@host/db"))
    told = str(caught.value).replace("%2F", "")
    assert not any(part in told for part in ("S3", "cr", "12", "34", "@host"))


def test_every_opening_of_the_test_split_by_a_study_is_tagged_on_its_run(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _fill(ledger, "judge", 1)
    ledger.record_opening(Opening("split-a", "another", "final verdict", 1_700_000_000_000))
    ledger.record_opening(Opening("split-a", "judge", "final verdict", 1_700_000_060_000))
    tracker = _tracker(store, ledger, "judge")
    tracker.start()
    ledger.record_opening(Opening("split-b", "judge", "a second look", 1_700_000_120_000))
    tracker.wake()
    tracker.close(60)
    tags = mlflow.MlflowClient().get_run(tracker.run_id).data.tags
    assert {key: tag for key, tag in tags.items() if key.startswith("podium.test_opened")} == {
        "podium.test_opened.1": "2023-11-14T22:14:20+00:00 split-a final verdict",
        "podium.test_opened.2": "2023-11-14T22:15:20+00:00 split-b a second look",
    }


def test_whoever_waits_for_mlflow_hears_once_that_it_was_reached(
    store: TrackingSettings, ledger: Ledger
) -> None:
    _fill(ledger, "reached", 1)
    tracker = _tracker(store, ledger, "reached")
    heard: list[str] = []
    tracker.on_reached = lambda client: heard.append(client.tracking_uri)
    tracker.start()
    tracker.wake()
    tracker.close(60)
    assert heard == [store.tracking_uri]
