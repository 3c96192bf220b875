"""Each fault a few times, and that the checks which count losses notice them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from search.ledger import Ledger
from search.records import Opening, State
from tests.builders import make_assignment, make_epoch, make_report, make_totals
from tests.faults.__main__ import write_docs
from tests.faults.checks import damaged, differences, lost, rung_trouble, snapshot, unfinished
from tests.faults.kills import KILLS
from tests.faults.outcome import FaultOutcome, NotPossibleHere
from tests.faults.writes import WRITTEN

CI = {"driver": 4, "worker": 5, "ray": 1, "disk": 1, "clock": 1}


@pytest.mark.slow
@pytest.mark.parametrize("fault", CI)
def test_nothing_is_lost(fault: str, tmp_path: Path) -> None:
    outcomes = []
    try:
        for outcome in KILLS[fault](tmp_path, CI[fault], 0):
            print(outcome)
            outcomes.append(outcome)
    except NotPossibleHere as error:
        pytest.skip(str(error))
    assert [(o.at, loss) for o in outcomes for loss in o.losses] == []
    assert sum(o.injected for o in outcomes) == CI[fault]


@pytest.mark.slow
def test_a_study_that_ends_between_any_two_writes_ends_as_if_it_had_not(tmp_path: Path) -> None:
    [outcome] = WRITTEN["writes"](tmp_path, 1, 0)
    assert outcome.losses == []
    assert outcome.injected > 50


STOP = "0.8000 is not among the best 1 of 2 at rung 2 (rank 2)"


def ended(folder: Path) -> Path:
    """A study of two trials that has ended; the second one was stopped at a rung."""
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("cut", {"reduction": 3}, {}, 1_000)
    for number, epochs in ((0, 6), (1, 2)):
        ledger.begin_trial("cut", make_assignment(number), 1_000)
        reports = [make_epoch(epoch) for epoch in range(1, epochs + 1)]
        ledger.append("cut", number, make_report(*reports, totals=make_totals()))
    ledger.end_trial("cut", 0, State.COMPLETED, 2_000)
    ledger.end_trial("cut", 1, State.STOPPED, 2_000, STOP, 2)
    ledger.record_opening(Opening("fingerprint", "cut", "final verdict", 1_500))
    ledger.set_outcome("cut", {"recommended": "a", "verdict": {"openings": 1}})
    ledger.end_study("cut", State.COMPLETED, None, 3_000)
    ledger.close()
    return folder / "runs" / "ledger.db"


def test_a_study_that_ended_well_has_lost_nothing(tmp_path: Path) -> None:
    ended(tmp_path)
    found = snapshot(tmp_path, "cut")
    assert [*lost(found, found), *unfinished(found, 2), *differences(found, found)] == []
    assert list(damaged(tmp_path)) == []


@pytest.mark.parametrize(
    ("statement", "loss"),
    [
        ("DELETE FROM epochs WHERE number = 0 AND epoch = 3", "trial 0: epoch 3 is gone"),
        ("UPDATE epochs SET report = replace(report, '0.6}', '0.7}')", "is gone or changed"),
        ("UPDATE trials SET seed = 5 WHERE number = 1", "trial 1: its seed changed"),
        ("UPDATE trials SET state = 'completed' WHERE number = 1", "trial 1: its state changed"),
        ("DELETE FROM openings", "an opening of the test split is gone"),
        ('UPDATE studies SET outcome = \'{"recommended": "b"}\'', "outcome's recommended changed"),
    ],
)
def test_what_the_ledger_no_longer_holds_is_a_loss(
    tmp_path: Path, statement: str, loss: str
) -> None:
    path = ended(tmp_path)
    before = snapshot(tmp_path, "cut")
    execute(path, statement)
    assert loss in "; ".join(lost(before, snapshot(tmp_path, "cut")))


@pytest.mark.parametrize(
    ("statement", "loss"),
    [
        ("UPDATE studies SET state = 'running'", "the study is running"),
        ("UPDATE trials SET state = 'running' WHERE number = 0", "trial 0 is running"),
        ("DELETE FROM epochs WHERE number = 0 AND epoch = 3", "epochs [1, 2, 4, 5, 6]"),
        ("UPDATE trials SET ended_ms = 10", "ended before it started"),
        ("UPDATE trials SET reason = 'tired'", "stopped for no known reason"),
        ("UPDATE trials SET reason = replace(reason, '0.8000', '0.7')", "but reported 0.8000"),
        ("UPDATE trials SET reason = replace(reason, 'of 2', 'of 3')", "was not to be stopped"),
    ],
)
def test_a_study_that_did_not_end_well_is_a_loss(tmp_path: Path, statement: str, loss: str) -> None:
    path = ended(tmp_path)
    execute(path, statement)
    assert loss in "; ".join(unfinished(snapshot(tmp_path, "cut"), 2))


def test_two_trials_in_the_same_place_of_a_rung_are_a_loss(tmp_path: Path) -> None:
    path = ended(tmp_path)
    execute(path, f"UPDATE trials SET state = 'stopped', rung = 2, reason = '{STOP}'")
    found = "; ".join(rung_trouble(snapshot(tmp_path, "cut")))
    assert found == "2 trials were number 2 at rung 2"


def test_metrics_that_differ_from_an_undisturbed_run_are_a_loss(tmp_path: Path) -> None:
    path = ended(tmp_path)
    reference = snapshot(tmp_path, "cut")
    changed = "replace(report, '\"val_loss\": 0.6', '\"val_loss\": 0.6001')"
    execute(path, f"UPDATE epochs SET report = {changed} WHERE number = 1 AND epoch = 2")
    [loss] = differences(reference, snapshot(tmp_path, "cut"))
    assert loss == "trial 1, epoch 2: val_loss 0.6001000 instead of 0.6000000"


def test_a_damaged_database_is_a_loss(tmp_path: Path) -> None:
    path = ended(tmp_path)
    content = bytearray(path.read_bytes())
    content[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    path.write_bytes(content)
    assert len(list(damaged(tmp_path))) == 1


def test_the_page_keeps_figures_of_faults_that_were_not_tried_again(tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    killed = FaultOutcome("driver", "search, 3 s after", 1, [], 2.5, 30.0)
    broken = FaultOutcome("ray", "search", 1, ["trial 3 is gone"], 1.5, 30.0)
    write_docs({"driver": [killed, killed]}, page, figures, date(2026, 1, 2))
    write_docs({"ray": [broken]}, page, figures, date(2026, 1, 3))
    text = page.read_text()
    assert "whole study | 2 | 0 | 2.5 | 2.5 | 2026-01-02" in text
    assert "2 times in the search." in text
    assert "middle of the search | 1 | 1 | 1.5 | 1.5 | 2026-01-03" in text
    assert "- trial 3 is gone" in text


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)
