from __future__ import annotations

import copy
import json
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import IntegrityError

from search import ledger as ledger_module
from search.ledger import SCHEMA_VERSION, Ledger
from search.records import (
    ConfigError,
    Costs,
    EpochReport,
    Latency,
    LedgerError,
    Opening,
    Phase,
    State,
    TestResult,
)
from spaces.config import TrialConfig
from tests.builders import make_assignment, make_epoch, make_measures, make_report, make_totals
from tests.postgres import Server

STUDY = "my-study"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, path: Path) -> Path | str:
    """Where a ledger may be: in a file, or on a server."""
    if request.param == "sqlite":
        return path
    server: Server = request.getfixturevalue("server")
    return server.new_place()


@pytest.fixture
def ledger(place: Path | str) -> Iterator[Ledger]:
    """A ledger with a study of one trial that has begun."""
    opened = Ledger(place)
    opened.begin_study(STUDY, {"trials": 2}, {"seed": 0}, now_ms=100)
    opened.begin_trial(STUDY, make_assignment(0), now_ms=200)
    yield opened
    opened.close()


@pytest.fixture
def reopen(place: Path | str) -> Iterator[Callable[[], Ledger]]:
    """Opens the same ledger again, as another process would."""
    opened: list[Ledger] = []

    def again() -> Ledger:
        opened.append(Ledger(place))
        return opened[-1]

    yield again
    for item in opened:
        item.close()


# Durability


def test_a_file_writes_ahead_and_syncs_every_commit(path: Path) -> None:
    ledger = Ledger(path)
    with ledger.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    ledger.close()


def test_a_server_answers_only_once_a_commit_is_on_its_disk(server: Server) -> None:
    assert server.run("SHOW synchronous_commit") == [("off",)]
    ledger = Ledger(server.new_place())
    with ledger.database.written() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
    ledger.close()


def test_a_committed_report_survives_reopening(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    epochs = [make_epoch(1, val_accuracy=0.1 + 0.2), make_epoch(2)]
    ledger.append(STUDY, 0, make_report(*epochs, totals=make_totals(), compiled={"rate": 0.1}))
    before = ledger.trials(STUDY)
    ledger.close()
    again = reopen()
    assert again.epochs(STUDY, 0) == epochs
    assert again.trials(STUDY) == before
    assert before[0].totals == make_totals()


def test_a_committed_report_is_seen_by_others_while_the_ledger_is_open(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    assert reopen().epochs(STUDY, 0) == [make_epoch(1)]


def test_a_committed_report_survives_the_death_of_its_process(place: Path | str) -> None:
    program = """
import os, sys
from pathlib import Path
from search.ledger import Ledger
from tests.builders import make_assignment, make_epoch, make_report
place = sys.argv[1]
ledger = Ledger(place if "://" in place else Path(place))
ledger.begin_study("my-study", {}, {}, 1)
ledger.begin_trial("my-study", make_assignment(0), 2)
ledger.append("my-study", 0, make_report(make_epoch(1), make_epoch(2)))
os._exit(9)
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program, str(place)], cwd=root, check=False)
    assert done.returncode == 9
    ledger = Ledger(place)
    assert ledger.epochs(STUDY, 0) == [make_epoch(1), make_epoch(2)]
    ledger.close()


def test_a_report_is_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    broken = replace(make_epoch(2), val_loss=object())  # type: ignore[arg-type]
    report = make_report(make_epoch(1), broken, pid=99, totals=make_totals())
    with pytest.raises(TypeError):
        ledger.append(STUDY, 0, report)
    assert ledger.epochs(STUDY, 0) == []
    trial = ledger.trials(STUDY)[0]
    assert (trial.pid, trial.totals) == (None, None)


def test_reports_of_several_threads_are_all_recorded(ledger: Ledger) -> None:
    for number in range(1, 5):
        ledger.begin_trial(STUDY, make_assignment(number), now_ms=200)

    def append_all(number: int) -> None:
        for epoch in range(1, 11):
            ledger.append(STUDY, number, make_report(make_epoch(epoch)))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(append_all, range(5)))
    assert [trial.epochs_trained for trial in ledger.trials(STUDY)] == [10] * 5


def test_a_report_for_a_trial_that_was_never_begun_is_refused(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        ledger.append(STUDY, 7, make_report(make_epoch(1)))
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        ledger.begin_trial("no-such-study", make_assignment(0), now_ms=1)


def test_a_trial_number_is_given_out_once(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        ledger.begin_trial(STUDY, make_assignment(0), now_ms=1)


# Epochs


def test_the_same_epoch_twice_counts_once_and_the_first_one_stays(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1), make_epoch(2)))
    ledger.append(STUDY, 0, make_report(make_epoch(2, val_accuracy=0.1), make_epoch(3)))
    assert ledger.epochs(STUDY, 0) == [make_epoch(1), make_epoch(2), make_epoch(3)]
    assert ledger.trials(STUDY)[0].epochs_trained == 3


def test_epochs_come_back_in_order_and_of_their_own_trial_only(ledger: Ledger) -> None:
    ledger.begin_study("other", {}, {}, now_ms=1)
    ledger.begin_trial("other", make_assignment(0), now_ms=1)
    ledger.begin_trial(STUDY, make_assignment(1), now_ms=1)
    ledger.append(STUDY, 0, make_report(make_epoch(3), make_epoch(1)))
    ledger.append(STUDY, 0, make_report(make_epoch(2)))
    ledger.append(STUDY, 1, make_report(make_epoch(8)))
    ledger.append("other", 0, make_report(make_epoch(9)))
    assert [item.epoch for item in ledger.epochs(STUDY, 0)] == [1, 2, 3]
    assert [trial.epochs_trained for trial in ledger.trials(STUDY)] == [3, 1]
    assert ledger.trials("other")[0].epochs_trained == 1


def test_figures_that_are_not_a_number_come_back_as_such(ledger: Ledger) -> None:
    diverged = make_epoch(1, train_loss=math.nan, val_loss=math.nan)
    undefined = make_measures(roc_auc_ovo=math.nan)
    ledger.append(
        STUDY, 0, make_report(diverged, totals=make_totals(measures=undefined, val_accuracy=0.7))
    )
    [epoch] = ledger.epochs(STUDY, 0)
    assert math.isnan(epoch.train_loss)
    assert math.isnan(epoch.val_loss)
    assert epoch.val_accuracy == diverged.val_accuracy
    totals = ledger.trials(STUDY)[0].totals
    assert totals is not None
    assert math.isnan(totals.measures.roc_auc_ovo)
    known = replace(totals.measures, roc_auc_ovo=make_measures().roc_auc_ovo)
    assert replace(totals, measures=known) == make_totals(val_accuracy=0.7)


def test_what_is_not_a_number_is_stored_as_json_that_others_can_read(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1, val_loss=math.inf, train_loss=math.nan)))
    with ledger.engine.connect() as connection:
        stored = connection.scalar(text("SELECT report FROM epochs"))
    json.loads(stored, parse_constant=pytest.fail)
    assert "NaN" not in stored
    assert "Infinity" not in stored


# Studies and trials


def test_a_study_comes_back_as_it_was_begun(ledger: Ledger) -> None:
    study = ledger.study(STUDY)
    assert study is not None
    assert (study.settings, study.facts) == ({"trials": 2}, {"seed": 0})
    assert (study.state, study.started_ms) == (State.RUNNING, 100)
    assert (study.ended_ms, study.reason, study.outcome, study.run_id) == (None, None, None, None)


def test_how_a_study_ended_is_recorded(ledger: Ledger) -> None:
    ledger.set_study_run(STUDY, "run-1")
    ledger.set_outcome(STUDY, {"recommended": "abc", "p": math.nan})
    ledger.end_study(STUDY, State.FAILED, "interrupted", now_ms=900)
    study = ledger.study(STUDY)
    assert study is not None
    assert (study.state, study.reason, study.ended_ms) == (State.FAILED, "interrupted", 900)
    assert study.outcome == {"recommended": "abc", "p": None}
    assert study.run_id == "run-1"


def test_a_model_is_named_beside_the_outcome_of_now_and_only_for_its_own_trial(
    ledger: Ledger,
) -> None:
    def outcome() -> object:
        record = ledger.study(STUDY)
        return record and record.outcome

    assert not ledger.name_model(STUDY, 3, "models:/m/1")
    assert outcome() is None
    ledger.set_outcome(STUDY, {"trial": 3, "summary": "of now"})
    assert not ledger.name_model(STUDY, 4, "models:/m/1")
    assert outcome() == {"trial": 3, "summary": "of now"}
    for _ in range(2):
        assert ledger.name_model(STUDY, 3, "models:/m/1")
        assert outcome() == {"trial": 3, "summary": "of now", "model": "models:/m/1"}


def test_the_name_of_a_reproduction_is_not_said_to_be_resumable(ledger: Ledger) -> None:
    ledger.begin_study("again", {"notebook": "mnist_mlp"}, {}, 1)
    with pytest.raises(ConfigError, match="a reproduction of mnist_mlp") as error:
        ledger.begin_study("again", {}, {}, 2)
    assert "podium resume" not in str(error.value)
    assert "choose another --study" in str(error.value)


def test_a_study_name_that_is_taken_is_refused_with_the_way_out(ledger: Ledger) -> None:
    with pytest.raises(ConfigError) as caught:
        ledger.begin_study(STUDY, {"trials": 9}, {}, now_ms=500)
    for part in (repr(STUDY), "--study", f"podium status {STUDY}"):
        assert part in str(caught.value)
    study = ledger.study(STUDY)
    assert study is not None
    assert study.settings == {"trials": 2}


def test_studies_are_listed_the_newest_first(ledger: Ledger) -> None:
    ledger.begin_study("newer", {}, {}, now_ms=300)
    ledger.begin_study("older", {}, {}, now_ms=50)
    assert [study.name for study in ledger.studies()] == ["newer", STUDY, "older"]
    assert ledger.study("absent") is None


def test_a_trial_comes_back_as_it_was_assigned(ledger: Ledger) -> None:
    config = TrialConfig(hidden=(9, 8), learning_rate=0.1 + 0.2, extra={"a": "é", "b": True})
    assignment = make_assignment(
        5, phase=Phase.CONFIRM, config=config, seed=2**31 - 1, split_seed=2**31 - 2
    )
    ledger.begin_trial(STUDY, assignment, now_ms=2**41)
    trial = ledger.trials(STUDY)[-1]
    assert (trial.number, trial.phase, trial.config) == (5, Phase.CONFIRM, config)
    assert trial.config.config_id == config.config_id
    assert (trial.seed, trial.split_seed) == (2**31 - 1, 2**31 - 2)
    assert (trial.state, trial.started_ms, trial.ended_ms) == (State.RUNNING, 2**41, None)
    assert (trial.totals, trial.val_accuracy, trial.pid, trial.run_id) == (None, None, None, None)
    assert (trial.compiled, trial.epochs_trained) == ({}, 0)


def test_trials_come_back_in_the_order_of_their_numbers(ledger: Ledger) -> None:
    for number in (3, 1, 2):
        ledger.begin_trial(STUDY, make_assignment(number), now_ms=1)
    assert [trial.number for trial in ledger.trials(STUDY)] == [0, 1, 2, 3]
    assert ledger.trials("absent") == []


@pytest.mark.parametrize(
    ("state", "reason", "rung"),
    [
        (State.COMPLETED, None, None),
        (State.STOPPED, "0.5 is not among the best", 2),
        (State.FAILED, "out of memory", None),
    ],
)
def test_how_a_trial_ended_is_recorded(
    ledger: Ledger, state: State, reason: str | None, rung: int | None
) -> None:
    ledger.end_trial(STUDY, 0, state, 777, reason, rung)
    trial = ledger.trials(STUDY)[0]
    assert (trial.state, trial.reason, trial.rung) == (state, reason, rung)
    assert trial.ended_ms == 777


def test_a_later_report_does_not_erase_what_an_earlier_one_brought(ledger: Ledger) -> None:
    totals, compiled = make_totals(), {"learning_rate": 0.01, "nesterov": False}
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=totals, compiled=compiled))
    ledger.append(STUDY, 0, make_report(make_epoch(2)))
    trial = ledger.trials(STUDY)[0]
    assert trial.totals == totals
    assert trial.compiled == compiled
    assert trial.pid == 4711


def test_later_totals_replace_earlier_ones(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=make_totals(val_accuracy=0.5)))
    ledger.append(STUDY, 0, make_report(make_epoch(2), totals=make_totals(val_accuracy=0.6)))
    assert ledger.trials(STUDY)[0].val_accuracy == 0.6


# Delivery to MLflow


def delivered_epochs(ledger: Ledger) -> list[tuple[int, list[int]]]:
    return [
        (item.trial.number, [epoch.epoch for epoch in item.epochs])
        for item in ledger.deliveries(STUDY, 10)
    ]


def test_what_was_not_delivered_is_offered_until_it_is_marked(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1), make_epoch(2)))
    assert delivered_epochs(ledger) == [(0, [1, 2])]
    assert delivered_epochs(ledger) == [(0, [1, 2])]
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    assert delivered_epochs(ledger) == []


def test_only_what_is_new_is_offered_again(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    ledger.append(STUDY, 0, make_report(make_epoch(2)))
    assert delivered_epochs(ledger) == [(0, [2])]


def test_the_end_of_a_trial_is_offered_even_without_new_epochs(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    ledger.end_trial(STUDY, 0, State.FAILED, 5, "out of memory")
    [delivery] = ledger.deliveries(STUDY, 10)
    assert (delivery.trial.state, delivery.trial.reason) == (State.FAILED, "out of memory")
    assert delivery.epochs == ()


def test_an_epoch_that_arrives_between_reading_and_marking_stays_undelivered(
    ledger: Ledger,
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.append(STUDY, 0, make_report(make_epoch(2)))
    ledger.mark_delivered(STUDY, delivery)
    assert delivered_epochs(ledger) == [(0, [2])]


def test_an_epoch_that_arrives_in_the_midst_of_marking_stays_undelivered(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    [delivery] = ledger.deliveries(STUDY, 10)
    late: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        @event.listens_for(ledger.engine, "before_cursor_execute")
        def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith("UPDATE trials") and not late:
                report = make_report(make_epoch(2))
                late.append(pool.submit(lambda: ledger.append(STUDY, 0, report)))
                with suppress(TimeoutError):
                    late[0].result(0.3)

        ledger.mark_delivered(STUDY, delivery)
        late[0].result(30)
    assert delivered_epochs(ledger) == [(0, [2])]


def test_an_end_that_arrives_between_reading_and_marking_stays_undelivered(
    ledger: Ledger,
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.end_trial(STUDY, 0, State.COMPLETED, 5)
    ledger.mark_delivered(STUDY, delivery)
    [left] = ledger.deliveries(STUDY, 10)
    assert (left.trial.state, left.epochs) == (State.COMPLETED, ())


def test_totals_that_arrive_between_reading_and_marking_stay_undelivered(ledger: Ledger) -> None:
    totals = make_totals(measures=make_measures(roc_auc_ovo=math.nan), best_epoch=1)
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=totals))
    [delivery] = ledger.deliveries(STUDY, 10)
    newer = make_report(totals=replace(totals, best_epoch=2))
    ledger.append(STUDY, 0, newer)
    ledger.mark_delivered(STUDY, delivery)
    [left] = ledger.deliveries(STUDY, 10)
    assert left.trial.totals is not None
    assert left.trial.totals.best_epoch == 2


def test_first_totals_that_arrive_between_reading_and_marking_stay_undelivered(
    ledger: Ledger,
) -> None:
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.append(STUDY, 0, make_report(totals=make_totals()))
    ledger.mark_delivered(STUDY, delivery)
    assert len(ledger.deliveries(STUDY, 10)) == 1


def test_compiled_settings_that_arrive_between_reading_and_marking_stay_undelivered(
    ledger: Ledger,
) -> None:
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.append(STUDY, 0, make_report(compiled={"learning_rate": 0.1}))
    ledger.mark_delivered(STUDY, delivery)
    [left] = ledger.deliveries(STUDY, 10)
    assert left.trial.compiled == {"learning_rate": 0.1}


def test_totals_that_are_not_a_number_can_be_marked_delivered(ledger: Ledger) -> None:
    ledger.append(
        STUDY,
        0,
        make_report(
            make_epoch(1), totals=make_totals(measures=make_measures(roc_auc_ovo=math.nan))
        ),
    )
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    assert ledger.deliveries(STUDY, 10) == []


def test_a_repeated_epoch_is_not_delivered_twice(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    assert delivered_epochs(ledger) == [(0, [])]


def test_a_study_that_is_tracked_elsewhere_keeps_its_other_settings(ledger: Ledger) -> None:
    ledger.begin_study("moved", {"trials": 3, "tracking": {"tracking_uri": "a", "x": 1}}, {}, 0)
    for name in ("moved", STUDY):
        ledger.set_tracking(name, {"tracking_uri": "b"})
    moved, other = ledger.study("moved"), ledger.study(STUDY)
    assert moved is not None
    assert other is not None
    assert moved.settings == {"trials": 3, "tracking": {"tracking_uri": "b", "x": 1}}
    assert other.settings == {"trials": 2, "tracking": {"tracking_uri": "b"}}


def _all_told(ledger: Ledger, study: str = STUDY) -> None:
    ledger.set_study_run(study, "parent")
    for trial in ledger.trials(study):
        ledger.set_trial_run(study, trial.number, f"run {trial.number}")
    for delivery in ledger.deliveries(study, 10):
        ledger.mark_delivered(study, delivery)
    ledger.set_end_told(study)


def test_a_trial_that_mlflow_has_lost_is_delivered_again_from_its_first_epoch(
    ledger: Ledger,
) -> None:
    ledger.begin_trial(STUDY, make_assignment(1), now_ms=200)
    for number in (0, 1):
        ledger.append(STUDY, number, make_report(make_epoch(1), make_epoch(2)))
    _all_told(ledger)
    ledger.forget_delivery(STUDY, [1])
    [delivery] = ledger.deliveries(STUDY, 10)
    assert (delivery.trial.number, delivery.trial.run_id) == (1, None)
    assert [item.epoch for item in delivery.epochs] == [1, 2]
    assert ledger.trials(STUDY)[0].run_id == "run 0"
    assert ledger.is_end_told(STUDY)


def test_a_study_that_mlflow_has_lost_is_delivered_again_and_no_other_one(ledger: Ledger) -> None:
    ledger.begin_study("other", {}, {}, 0)
    ledger.begin_trial("other", make_assignment(0), 0)
    for study in (STUDY, "other"):
        ledger.append(study, 0, make_report(make_epoch(1)))
        _all_told(ledger, study)
    ledger.forget_delivery(STUDY)
    found = ledger.study(STUDY)
    assert found is not None
    assert found.run_id is None
    assert not ledger.is_end_told(STUDY)
    assert [len(item.epochs) for item in ledger.deliveries(STUDY, 10)] == [1]
    assert ledger.deliveries("other", 10) == []
    assert ledger.is_end_told("other")


def test_undelivered_trials_are_offered_oldest_first_and_no_more_than_asked_for(
    ledger: Ledger,
) -> None:
    for number in (3, 2, 1):
        ledger.begin_trial(STUDY, make_assignment(number), now_ms=1)
    ledger.begin_study("other", {}, {}, now_ms=1)
    ledger.begin_trial("other", make_assignment(9), now_ms=1)
    assert [item.trial.number for item in ledger.deliveries(STUDY, 3)] == [0, 1, 2]
    assert [item.trial.number for item in ledger.deliveries("other", 3)] == [9]


def test_marking_one_trial_leaves_the_others(ledger: Ledger) -> None:
    ledger.begin_trial(STUDY, make_assignment(1), now_ms=1)
    for number in (0, 1):
        ledger.append(STUDY, number, make_report(make_epoch(1)))
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 1)[0])
    assert delivered_epochs(ledger) == [(1, [1])]


def test_what_was_delivered_is_remembered_by_the_next_process(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    ledger.set_trial_run(STUDY, 0, "run-7")
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    again = reopen()
    assert again.deliveries(STUDY, 10) == []
    assert again.trials(STUDY)[0].run_id == "run-7"


# What was assigned, and the test split


def test_what_a_trial_was_assigned_comes_back_with_it(ledger: Ledger) -> None:
    plan = {
        "max_epochs": 77,
        "validation_fraction": 1 / 12,
        "tail": True,
        "folds": 5,
        "experiment": "cv-5 ü",
    }
    ledger.begin_trial(STUDY, make_assignment(1, **plan), now_ms=1)
    trial = ledger.trials(STUDY)[1]
    assert {name: getattr(trial, name) for name in plan} == plan
    usual = ledger.trials(STUDY)[0]
    assert (usual.max_epochs, usual.validation_fraction) == (6, 0.2)
    assert (usual.folds, usual.tail, usual.experiment) == (0, False, "")


def test_accuracies_of_folds_come_back_with_the_totals(ledger: Ledger) -> None:
    totals = make_totals(fold_accuracies=(0.1 + 0.2, 0.5, 0.75))
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=totals))
    found = ledger.trials(STUDY)[0].totals
    assert found == totals
    assert found is not None
    assert found.fold_standard_error == totals.fold_standard_error


def make_result(epoch: int, **values: object) -> TestResult:
    return TestResult(epoch, make_measures(**values))


def test_results_on_the_test_split_come_back_in_the_order_of_their_epochs(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    late, early = make_result(9, accuracy=0.1 + 0.2), make_result(2, loss=math.pi)
    ledger.record_tests(STUDY, 0, [late, early])
    for found in (ledger, reopen()):
        assert found.trials(STUDY)[0].tests == (early, late)
        assert found.deliveries(STUDY, 10)[0].trial.tests == (early, late)


def test_results_of_one_trial_are_not_those_of_another(ledger: Ledger) -> None:
    ledger.begin_study("other", {}, {}, now_ms=1)
    ledger.begin_trial("other", make_assignment(0), now_ms=1)
    ledger.begin_trial(STUDY, make_assignment(1), now_ms=1)
    ledger.record_tests(STUDY, 1, [make_result(3)])
    assert [trial.tests for trial in ledger.trials(STUDY)] == [(), (make_result(3),)]
    assert ledger.trials("other")[0].tests == ()


def test_the_same_result_twice_counts_once_and_the_first_one_stays(ledger: Ledger) -> None:
    ledger.record_tests(STUDY, 0, [make_result(3, accuracy=0.9)])
    ledger.record_tests(STUDY, 0, [make_result(3, accuracy=0.1), make_result(4)])
    assert ledger.trials(STUDY)[0].tests == (make_result(3, accuracy=0.9), make_result(4))


def test_results_are_recorded_whole_or_not_at_all(ledger: Ledger) -> None:
    broken = make_result(4, loss=object())
    with pytest.raises(TypeError):
        ledger.record_tests(STUDY, 0, [make_result(3), broken])
    assert ledger.trials(STUDY)[0].tests == ()


def test_a_measure_of_the_test_split_that_is_undefined_comes_back_as_such(ledger: Ledger) -> None:
    ledger.record_tests(STUDY, 0, [make_result(3, roc_auc_ovo=math.nan)])
    [result] = ledger.trials(STUDY)[0].tests
    assert math.isnan(result.measures.roc_auc_ovo)
    assert replace(result.measures, roc_auc_ovo=0.95) == make_measures()


def test_results_for_a_trial_that_was_never_begun_are_refused(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        ledger.record_tests(STUDY, 7, [make_result(3)])


def _deliver(ledger: Ledger) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=make_totals()))
    ledger.end_trial(STUDY, 0, State.COMPLETED, 5)
    ledger.mark_delivered(STUDY, ledger.deliveries(STUDY, 10)[0])
    assert ledger.deliveries(STUDY, 10) == []


def test_results_of_a_trial_that_was_delivered_are_offered_then(ledger: Ledger) -> None:
    _deliver(ledger)
    ledger.record_tests(STUDY, 0, [make_result(1)])
    [delivery] = ledger.deliveries(STUDY, 10)
    assert (delivery.trial.tests, delivery.epochs) == ((make_result(1),), ())
    ledger.mark_delivered(STUDY, delivery)
    assert ledger.deliveries(STUDY, 10) == []


def test_results_that_arrive_between_reading_and_marking_stay_undelivered(ledger: Ledger) -> None:
    _deliver(ledger)
    ledger.record_tests(STUDY, 0, [make_result(1)])
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.record_tests(STUDY, 0, [make_result(2)])
    ledger.mark_delivered(STUDY, delivery)
    [left] = ledger.deliveries(STUDY, 10)
    assert left.trial.tests == (make_result(1), make_result(2))


def test_first_results_that_arrive_between_reading_and_marking_stay_undelivered(
    ledger: Ledger,
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    [delivery] = ledger.deliveries(STUDY, 10)
    ledger.record_tests(STUDY, 0, [make_result(1)])
    ledger.mark_delivered(STUDY, delivery)
    assert [item.trial.tests for item in ledger.deliveries(STUDY, 10)] == [(make_result(1),)]


# The test lock


def test_openings_of_a_test_split_are_counted_across_studies_in_order(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    openings = [
        Opening("split-a", "first", "final verdict", 30),
        Opening("split-a", "second", "curiosity", 20),
        Opening("split-a", "first", "final verdict", 30),
    ]
    for opening in openings:
        ledger.record_opening(opening)
    ledger.record_opening(Opening("split-b", "first", "final verdict", 10))
    again = reopen()
    assert again.openings("split-a") == openings
    assert len(again.openings("split-b")) == 1
    assert again.openings("split-c") == []
    assert [o.fingerprint for o in again.openings()] == ["split-a"] * 3 + ["split-b"]


# Costs


def test_costs_are_kept_by_study_and_configuration_and_replaced_when_measured_again(
    ledger: Ledger, reopen: Callable[[], Ledger]
) -> None:
    for study in ("first", "second"):
        ledger.begin_study(study, {}, {}, 1)
    old = Costs(1_000, Latency(0.5, 0.9), Latency(5.0, 9.0))
    new = Costs(1_000, Latency(0.25, 0.75), Latency(4.0, 8.0))
    ledger.record_costs("first", {"a": old, "b": old})
    ledger.record_costs("first", {"a": new})
    ledger.record_costs("second", {})
    again = reopen()
    assert again.costs("first") == {"a": new, "b": old}
    assert again.costs("second") == {}


# Files that are no ledger


def test_a_new_ledger_is_made_with_its_folder_and_its_version(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "ledger.db"
    for _ in range(2):
        opened = Ledger(path)
        with opened.engine.connect() as connection:
            versions = connection.scalars(text("SELECT schema_version FROM meta")).all()
        opened.close()
        assert versions == [SCHEMA_VERSION]


@pytest.mark.parametrize("version", [-1, 0, SCHEMA_VERSION + 1, 99])
def test_a_ledger_of_another_version_is_refused_with_the_way_out(path: Path, version: int) -> None:
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET schema_version = ?", (version,))
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError) as caught:
        Ledger(path)
    found = f"schema version {version}"
    way_out = "Update Podium" if version > SCHEMA_VERSION else "move it away"
    for part in (str(path), found, f"1 to {SCHEMA_VERSION}", way_out):
        assert part in str(caught.value)
    assert path.read_bytes() == before


VERSION_1 = """
CREATE TABLE meta (schema_version INTEGER NOT NULL PRIMARY KEY);
CREATE TABLE studies (
    name VARCHAR(64) NOT NULL PRIMARY KEY, settings TEXT NOT NULL, facts TEXT NOT NULL,
    state VARCHAR(16) NOT NULL, reason TEXT, started_ms BIGINT NOT NULL, ended_ms BIGINT,
    outcome TEXT, run_id VARCHAR(64)
);
CREATE TABLE trials (
    study VARCHAR(64) NOT NULL, number INTEGER NOT NULL, phase VARCHAR(16) NOT NULL,
    config TEXT NOT NULL, seed INTEGER NOT NULL, split_seed INTEGER NOT NULL,
    state VARCHAR(16) NOT NULL, reason TEXT, rung INTEGER, started_ms BIGINT NOT NULL,
    ended_ms BIGINT, totals TEXT, compiled TEXT, pid INTEGER, run_id VARCHAR(64),
    delivered BOOLEAN NOT NULL,
    PRIMARY KEY (study, number), FOREIGN KEY (study) REFERENCES studies (name)
);
CREATE TABLE epochs (
    study VARCHAR(64) NOT NULL, number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    report TEXT NOT NULL, delivered BOOLEAN NOT NULL,
    PRIMARY KEY (study, number, epoch),
    FOREIGN KEY (study, number) REFERENCES trials (study, number)
);
CREATE TABLE openings (
    id INTEGER NOT NULL PRIMARY KEY, fingerprint VARCHAR(64) NOT NULL, study VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL, opened_ms BIGINT NOT NULL
);
CREATE INDEX ix_openings_fingerprint ON openings (fingerprint);
INSERT INTO meta VALUES (1);
INSERT INTO studies VALUES ('old', '{"trials": 2}', '{"seed": 3}', 'completed', NULL, 10, 90,
    '{"recommended": "abc"}', 'run-0');
INSERT INTO openings VALUES (1, 'split-a', 'old', 'final verdict', 80);
"""


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A ledger as the first version of Podium wrote it, with a finished and a failed trial."""
    totals = {
        "best_epoch": 2,
        "parameters": 650,
        "val_loss": 0.5,
        "val_accuracy": 0.75,
        "train_accuracy": 0.8,
        "gap": 0.05,
        "f1_macro": 0.7,
        "roc_auc_ovo": 0.9,
        "wall_seconds": 1.5,
    }
    undefined = json.dumps(totals | {"roc_auc_ovo": None})
    compiled = '{"learning_rate": 0.001}'
    done, weak, failed = (
        ("completed", None, None, 20, 30, json.dumps(totals), compiled, 77, "run-1", True),
        ("stopped", "weak", 2, 20, 30, undefined, None, 78, "run-2", True),
        ("failed", "no luck", None, 20, 30, None, None, 78, "run-3", True),
    )
    trials: list[tuple[object, ...]] = [
        ("old", 0, "search", '{"hidden":[64]}', 1, 2, *done),
        ("old", 1, "search", "{}", 3, 2, *weak),
        ("old", 2, "confirm", "{}", 4, 5, *failed),
    ]
    path = tmp_path / "ledger.db"
    connection = sqlite3.connect(path)
    connection.executescript(VERSION_1)
    marks = ", ".join("?" * 16)
    connection.executemany(f"INSERT INTO trials VALUES ({marks})", trials)
    report = json.dumps(asdict(make_epoch(1)))
    connection.execute("INSERT INTO epochs VALUES ('old', 0, 1, ?, 1)", (report,))
    connection.commit()
    connection.close()
    return path


def test_a_ledger_of_version_1_is_read_as_it_was_written(version_1: Path) -> None:
    ledger = Ledger(version_1)
    study = ledger.study("old")
    assert study is not None
    assert (study.settings, study.outcome) == ({"trials": 2}, {"recommended": "abc"})
    assert ledger.openings("split-a") == [Opening("split-a", "old", "final verdict", 80)]
    assert ledger.epochs("old", 0) == [make_epoch(1)]
    completed, stopped, failed = ledger.trials("old")
    assert completed.config == TrialConfig(hidden=(64,))
    assert (completed.seed, completed.split_seed, completed.pid) == (1, 2, 77)
    assert (completed.phase, completed.state) == (Phase.SEARCH, State.COMPLETED)
    assert completed.compiled == {"learning_rate": 0.001}
    assert (stopped.state, stopped.rung, stopped.reason) == (State.STOPPED, 2, "weak")
    assert (failed.phase, failed.state, failed.totals) == (Phase.CONFIRM, State.FAILED, None)
    ledger.close()


def test_totals_of_version_1_keep_their_figures_and_say_what_was_not_measured(
    version_1: Path,
) -> None:
    ledger = Ledger(version_1)
    completed, stopped, _ = ledger.trials("old")
    ledger.close()
    totals = completed.totals
    assert totals is not None
    assert (totals.best_epoch, totals.parameters, totals.wall_seconds) == (2, 650, 1.5)
    assert (totals.val_accuracy, totals.val_loss) == (0.75, 0.5)
    assert (totals.train_accuracy, totals.gap) == (0.8, 0.05)
    measures = totals.measures
    assert (measures.accuracy, measures.loss) == (0.75, 0.5)
    assert (measures.f1_macro, measures.roc_auc_ovo) == (0.7, 0.9)
    for name in ("f1_micro", "roc_auc_ovr", "calibration_error"):
        assert math.isnan(getattr(measures, name))
    assert (measures.precision, measures.recall, measures.confusion) == ((), (), ())
    assert (totals.fold_accuracies, totals.fold_standard_error) == ((), None)
    assert stopped.totals is not None
    assert math.isnan(stopped.totals.measures.roc_auc_ovo)


def test_trials_of_version_1_were_on_one_split_and_never_tested(version_1: Path) -> None:
    ledger = Ledger(version_1)
    for trial in ledger.trials("old"):
        assert (trial.folds, trial.validation_fraction, trial.tail) == (0, 0.2, False)
        assert trial.experiment == ""
        assert trial.tests == ()
    ledger.close()


def test_a_ledger_of_version_1_goes_on_as_one_of_this_version(version_1: Path) -> None:
    for _ in range(2):
        ledger = Ledger(version_1)
        with ledger.engine.connect() as connection:
            assert connection.scalars(text("SELECT schema_version FROM meta")).all() == [
                SCHEMA_VERSION
            ]
        ledger.close()
    ledger = Ledger(version_1)
    ledger.begin_study("new", {}, {}, now_ms=100)
    ledger.begin_trial("new", make_assignment(0, folds=3, experiment="x"), now_ms=101)
    ledger.append("new", 0, make_report(make_epoch(1), totals=make_totals()))
    ledger.record_tests("new", 0, [make_result(1)])
    ledger.record_tests("old", 0, [make_result(1)])
    [trial] = ledger.trials("new")
    assert (trial.folds, trial.experiment, trial.totals) == (3, "x", make_totals())
    assert trial.tests == ledger.trials("old")[0].tests == (make_result(1),)
    assert [study.name for study in ledger.studies()] == ["new", "old"]
    assert len(ledger.trials("old")) == 3
    ledger.close()


def test_a_migrated_ledger_has_the_same_tables_as_a_new_one(version_1: Path, path: Path) -> None:
    for place in (version_1, path):
        Ledger(place).close()
    columns = []
    for place in (version_1, path):
        connection = sqlite3.connect(place)
        columns.append(
            {
                name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
                for name in tables(place)
            }
        )
        connection.close()
    assert columns[0] == columns[1]
    assert {"tests", "openings"} <= set(columns[0])


def tables(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    return [name for (name,) in found]


def test_a_ledger_of_another_version_gets_no_tables_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (schema_version INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO meta VALUES (99)")
    connection.close()
    with pytest.raises(ConfigError, match="schema version 99"):
        Ledger(path)
    assert tables(path) == ["meta"]


def test_a_database_of_something_else_is_refused_and_gets_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE colours (name TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match=r"ledger\.db is a database, but not one of Podium's"):
        Ledger(path).close()
    assert tables(path) == ["colours"]


@pytest.mark.parametrize(
    "content",
    [b"not a database at all, but long enough" * 200, b"SQLite format 3\0" + b"\xff" * 4096],
)
def test_a_file_that_is_not_a_database_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 2
    assert path.read_bytes() == content


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(ConfigError, match=r"ledger\.db cannot be used as a ledger"):
        Ledger(tmp_path / "ledger.db")


def test_a_file_in_place_of_the_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(ConfigError, match=r"runs cannot be made: "):
        Ledger(tmp_path / "runs" / "ledger.db")
    assert (tmp_path / "runs").read_text() == "mine"


def test_a_database_whose_tables_are_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE meta (colour TEXT)")
    connection.close()
    with pytest.raises(ConfigError, match=r"ledger\.db cannot be used as a ledger"):
        Ledger(path)


def test_every_figure_of_an_epoch_has_its_place_in_the_ledger(ledger: Ledger) -> None:
    odd = EpochReport(*(float(i) / 7 if i else 1 for i in range(7)), timestamp_ms=2**41)
    ledger.append(STUDY, 0, make_report(odd))
    assert ledger.epochs(STUDY, 0) == [odd]
    with ledger.engine.connect() as connection:
        count = connection.scalar(select(func.count()).select_from(ledger_module._epochs))
    assert count == 1


# Cells of the wrong shape


def _whole(ledger: Ledger) -> None:
    """Something in every table."""
    ledger.append(STUDY, 0, make_report(make_epoch(1), totals=make_totals()))
    ledger.record_tests(STUDY, 0, [TestResult(1, make_measures())])
    ledger.record_costs(STUDY, {"abc": Costs(1, Latency(1.0, 2.0), Latency(3.0, 4.0))})


def _changed(ledger: Ledger, table: str, column: str, value: str) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text(f"UPDATE {table} SET {column} = :value"), {"value": value})


MEASURED = json.dumps(asdict(make_measures()))


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("epochs", "report", ("[]", "7", "{}", '{"epoch": 1}')),
        ("epochs", "report", (json.dumps(asdict(make_epoch(1, val_accuracy="much"))),)),
        ("trials", "totals", (json.dumps(asdict(make_totals(parameters="many"))),)),
        ("trials", "totals", (json.dumps(asdict(make_totals(fold_accuracies=3))),)),
        ("tests", "measures", ("[]", "null", "7", "{}", MEASURED.replace("[[", "[[[["))),
        ("costs", "costs", ("[]", "7", "{}", '{"single": 1, "batch": 2, "file_bytes": 3}')),
        ("costs", "costs", ('{"single": [], "batch": {}, "file_bytes": 3}',)),
    ],
)
def test_a_cell_of_the_wrong_shape_is_damage_and_named(
    ledger: Ledger, table: str, column: str, values: tuple[str, ...]
) -> None:
    _whole(ledger)
    for value in values:
        _changed(ledger, table, column, value)
        with pytest.raises(LedgerError, match=f"cannot be read .*{column} of .*Put back a copy"):
            (ledger.epochs(STUDY, 0), ledger.trials(STUDY), ledger.costs(STUDY))


def test_what_a_study_lacks_is_no_damage_until_it_is_needed(ledger: Ledger) -> None:
    record = ledger.study(STUDY)
    assert record is not None
    assert (record.facts, record.facts.get("data")) == ({"seed": 0}, None)
    with pytest.raises(LedgerError, match=f"facts of study {STUDY} lacks 'data'.*Put back a copy"):
        record.facts["data"]
    assert copy.deepcopy(record) == record
