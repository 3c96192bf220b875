"""What earlier versions of Podium wrote: read as it was meant, or refused with the way out.

`tests/ledgers/` holds what they wrote indeed, as SQL: whole studies, and some whose process was
killed in the middle of the search. In the one that can be resumed, the figures are made up.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from search import ledger as ledger_module
from search.cli import app
from search.delivery import left
from search.folder import find_study
from search.launch import prepare_again
from search.ledger import PLANNED, SCHEMA_VERSION, Ledger, StudyRecord
from search.records import ConfigError, Costs, EpochReport, Latency, Measures, State, TrialTotals
from search.settings import StudySettings, TrackingSettings, criteria_from, settings_again
from tests.running import podium
from tests.test_database import die_while_opening

LEDGERS = Path(__file__).parent / "ledgers"
WHOLE = ("version-1-whole", "version-2-whole")
BROKEN_OFF = ("version-1-broken-off", "version-2-broken-off")
RESUMABLE = "version-2-resumable"
STUDY = "old"


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ledger of that name, in the folder that Podium is run in."""
    place = tmp_path / "runs" / "ledger.db"
    place.parent.mkdir()
    with closing(sqlite3.connect(place)) as connection:
        connection.executescript((LEDGERS / f"{request.param}.sql").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    return place


def every(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", names, indirect=True)


def content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        names = [
            row["name"]
            for row in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}
        return {name: [dict(row) for row in found] for name, found in rows.items()}


def command(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@every(*WHOLE, *BROKEN_OFF, RESUMABLE)
def test_a_migration_changes_nothing_that_was_recorded(path: Path, tmp_path: Path) -> None:
    before = content(path)
    assert before["meta"][0]["schema_version"] < SCHEMA_VERSION
    Ledger(path).close()
    after = content(path)
    assert after.pop("meta") == [{"schema_version": SCHEMA_VERSION}]
    del before["meta"]
    for table, rows in before.items():
        assert rows or table in ("openings", "tests", "costs")
        kept = [
            {name: row[name] for name in old} for old, row in zip(rows, after[table], strict=True)
        ]
        assert kept == rows
    Ledger(tmp_path / "new.db").close()
    with (
        closing(sqlite3.connect(path)) as old,
        closing(sqlite3.connect(tmp_path / "new.db")) as new,
    ):
        for table in content(tmp_path / "new.db"):
            columns = [
                {row[1:4] for row in connection.execute(f"PRAGMA table_info({table})")}
                for connection in (old, new)
            ]
            assert columns[0] == columns[1]


@every(*WHOLE)
def test_what_mlflow_was_told_of_a_study_is_not_told_again(path: Path) -> None:
    ledger = Ledger(path)
    assert not left(ledger, find_study(ledger, STUDY))
    ledger.close()


@every(*WHOLE, *BROKEN_OFF, RESUMABLE)
def test_a_process_that_dies_while_it_migrates_leaves_the_ledger_as_it_was(path: Path) -> None:
    before = content(path)
    die_while_opening(path)
    assert content(path) == before
    ledger = Ledger(path)
    assert ledger.trials(STUDY)
    ledger.close()


@every(*WHOLE, *BROKEN_OFF, RESUMABLE)
def test_everything_that_an_earlier_version_recorded_can_be_read(path: Path) -> None:
    before = content(path)
    ledger = Ledger(path)
    study = ledger.study(STUDY)
    assert study is not None
    assert study.settings == json.loads(before["studies"][0]["settings"])
    trials = ledger.trials(STUDY)
    assert [t.seed for t in trials] == [row["seed"] for row in before["trials"]]
    for trial, row in zip(trials, before["trials"], strict=True):
        assert trial.config.canonical_json == row["config"]
        assert len(ledger.epochs(STUDY, trial.number)) == trial.epochs_trained
        if row["totals"]:
            assert trial.val_accuracy == json.loads(row["totals"])["val_accuracy"]
    assert len(ledger.openings()) == len(before["openings"])
    ledger.close()


@every(*WHOLE)
def test_a_whole_study_of_an_earlier_version_can_be_looked_at_and_judged(path: Path) -> None:
    assert "completed" in command("status")
    told = command("status", STUDY)
    assert "Study old: completed" in told
    assert "Verdict: " in told
    rows = json.loads(command("compare", STUDY, "--format", "json"))
    assert len(rows) == len(content(path)["trials"])
    assert all(row["val_accuracy"] > 0 for row in rows if row["state"] == "completed")
    assert "Recommended: " in command("recommend", STUDY)
    assert STUDY in command("test-log")


@every(*BROKEN_OFF)
def test_an_unfinished_study_of_an_earlier_version_can_be_looked_at(path: Path) -> None:
    assert "Study old: " in command("status", STUDY)
    assert json.loads(command("compare", STUDY, "--format", "json"))
    with pytest.raises(ConfigError, match="no recommendation can be made"):
        command("recommend", STUDY)


@every(*WHOLE)
def test_a_whole_study_of_an_earlier_version_is_not_run_again(path: Path) -> None:
    with pytest.raises(ConfigError, match="has ended"):
        command("resume", STUDY)


@every(*WHOLE, *BROKEN_OFF)
def test_a_study_whose_proposals_are_not_known_is_refused_more_trials_with_the_way_out(
    path: Path,
) -> None:
    before = content(path)
    with pytest.raises(ConfigError, match=r"cannot go on.*podium compare old.*another study"):
        command("resume", STUDY, "--trials", "+2")
    assert content(path).keys() >= before.keys()
    assert content(path)["studies"] == before["studies"]


@pytest.mark.slow
@every(RESUMABLE)
def test_a_study_that_an_earlier_version_could_have_resumed_is_resumed(
    path: Path, tmp_path: Path
) -> None:
    before = {t["number"]: t for t in content(path)["trials"]}
    resumed = podium("resume", STUDY, folder=tmp_path)
    assert resumed.code == 0, resumed.err
    ledger = Ledger(path)
    study = ledger.study(STUDY)
    assert study is not None
    assert study.state is State.COMPLETED
    searched = study.settings["trials"]
    trials = ledger.trials(STUDY)
    assert len(trials) == searched + 2 * study.settings["confirm_seeds"]
    assert {t.state for t in trials} <= {State.COMPLETED, State.STOPPED}
    for number, row in before.items():
        assert trials[number].config.canonical_json == row["config"]
    ledger.close()


def test_what_is_stored_changes_with_the_schema_version_only() -> None:
    stored = {
        "tables": {
            table.name: [column.name for column in table.columns]
            for table in ledger_module._metadata.sorted_tables
        },
        "plan": PLANNED,
        "fields": {
            kind.__name__: [field.name for field in fields(kind)]
            for kind in (EpochReport, TrialTotals, Measures, Costs, Latency)
        },
    }
    digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:12]
    assert (SCHEMA_VERSION, digest) == (4, "ace5a1b9e13f"), (
        "What the ledger stores is another: raise SCHEMA_VERSION, say in MIGRATIONS how an older "
        "ledger becomes one of that version, then put both here."
    )


# Settings


def test_settings_that_came_later_are_at_their_defaults() -> None:
    stored = StudySettings(trials=7).model_dump(mode="json")
    for name in ("correction", "tolerance", "cost", "retries", "max_gap"):
        del stored[name]
    assert settings_again(stored, TrackingSettings(), {}) == StudySettings(trials=7)
    assert criteria_from(stored, {}) == StudySettings().criteria


def test_settings_that_this_version_does_not_know_are_refused_not_forgotten() -> None:
    stored = StudySettings().model_dump(mode="json") | {"augment": "mixup"}
    with pytest.raises(ConfigError, match=r"do.* not know: augment\. .* start another study"):
        settings_again(stored, TrackingSettings(), {})


def test_a_study_may_have_more_finalists_and_seeds_but_no_fewer() -> None:
    stored = {"finalists": 2, "confirm_seeds": 5}
    assert settings_again(stored, TrackingSettings(), {"confirm_seeds": 6}).confirm_seeds == 6
    with pytest.raises(ConfigError, match=r"--confirm-seeds 4: the study has 5 already"):
        settings_again(stored, TrackingSettings(), {"confirm_seeds": 4})
    assert settings_again(stored, TrackingSettings(), {"finalists": 3}).finalists == 3
    assert settings_again(stored, TrackingSettings(), {"finalists": None}).finalists == 2
    assert settings_again(stored, TrackingSettings(), {"finalists": "+3"}).finalists == 5
    assert settings_again(stored, TrackingSettings(), {"confirm_seeds": "+3"}).confirm_seeds == 8
    with pytest.raises(ConfigError, match=r"--finalists many: expected a number, or \+50"):
        settings_again(stored, TrackingSettings(), {"finalists": "many"})
    with pytest.raises(ConfigError, match=r"--finalists 1: the study has 2 already; \+1 would"):
        settings_again(stored, TrackingSettings(), {"finalists": 1})
    assert criteria_from(stored, {}) == StudySettings().criteria


def test_a_study_whose_sampler_is_gone_is_refused_by_its_name() -> None:
    stored = StudySettings().model_dump(mode="json") | {"sampler": "annealing"}
    record = StudyRecord("old", stored, {}, State.RUNNING, None, 1, None, None, None)
    with pytest.raises(ConfigError, match="Unknown sampler 'annealing'"):
        prepare_again(record, TrackingSettings(), {})


@every(*WHOLE)
def test_what_mlflow_was_told_of_an_old_study_is_marked_as_such(path: Path) -> None:
    ledger = Ledger(path)
    ledger.forget_delivery(STUDY)
    waiting = ledger.deliveries(STUDY, 100)
    assert waiting
    for delivery in waiting:
        ledger.mark_delivered(STUDY, delivery)
    assert ledger.count_undelivered(STUDY) == 0
    ledger.close()
