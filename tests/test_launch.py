"""What comes before the first trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from search import launch
from search.launch import SteadyClock, prepare, prepare_again
from search.ledger import StudyRecord
from search.records import State, TrackingError
from search.settings import StudySettings, TrackingSettings
from search.tuning import Cluster

SECOND = 10**9


def test_a_clock_that_is_set_back_goes_on_from_where_it_was() -> None:
    wall, steady = [5_000 * SECOND], [7 * SECOND]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    wall[0] += 2 * SECOND
    steady[0] += 2 * SECOND
    assert clock.now_ms() == 5_002_000
    wall[0] -= 3_600 * SECOND
    assert clock.now_ms() == 5_002_000
    wall[0] += 10 * SECOND
    steady[0] += 10 * SECOND
    assert clock.now_ms() == 5_012_000


def test_time_that_a_machine_slept_counts() -> None:
    wall = [5_000 * SECOND]
    clock = SteadyClock(lambda: wall[0], lambda: 7 * SECOND)
    wall[0] += 3_600 * SECOND
    assert clock.now_ms() == 8_600_000


def test_mlflow_that_is_away_holds_up_no_study_that_goes_on_but_one_that_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cluster = Cluster(((2, 0),), "test")
    monkeypatch.setattr(launch, "join_cluster", lambda _: cluster)
    away = TrackingSettings(tracking_uri="http://127.0.0.1:1")
    settings = StudySettings(study="s", tracking=away)
    with pytest.raises(TrackingError, match="does not answer"):
        prepare(settings)
    stored = settings.model_dump(mode="json")
    record = StudyRecord("s", stored, {}, State.INTERRUPTED, None, 0, None, None, None)
    note = prepare_again(record, away, {}).note
    assert "http://127.0.0.1:1 does not answer" in note
    assert "`podium sync s`" in note
