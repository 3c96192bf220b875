"""What comes before the first trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search import launch
from search.launch import SteadyClock, check_not_ended, prepare, prepare_again
from search.ledger import StudyRecord
from search.records import ConfigError, State, TrackingError
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


# What has ended


def _record(outcome: dict[str, Any], state: State = State.COMPLETED) -> StudyRecord:
    """Of a study of 50 trials in 100 s."""
    settings = StudySettings(trials=50, time_budget=100).model_dump(mode="json")
    return StudyRecord("s", settings, {}, state, None, 0, 1, outcome, None)


CUTS = [{"cut": "It was cut.", "cut_at_budget": 100.0}, {"cut": "It was cut, by an older Podium."}]


@pytest.mark.parametrize("outcome", CUTS)
def test_a_study_that_its_budget_cut_goes_on_with_more_time_only(outcome: dict[str, Any]) -> None:
    record = _record(outcome)
    check_not_ended(record, StudySettings(trials=50, time_budget=101))
    check_not_ended(record, StudySettings(trials=100, time_budget=101))
    with pytest.raises(ConfigError, match=r"has ended\. `podium resume s --time-budget 200`"):
        check_not_ended(record, StudySettings(trials=50, time_budget=100))


@pytest.mark.parametrize("outcome", CUTS)
@pytest.mark.parametrize("state", [State.COMPLETED, State.INTERRUPTED])
def test_more_trials_for_which_there_is_no_time_are_refused(
    outcome: dict[str, Any], state: State
) -> None:
    with pytest.raises(ConfigError, match="`podium resume s --trials 100 --time-budget 200`"):
        check_not_ended(_record(outcome, state), StudySettings(trials=100, time_budget=100))


def test_a_study_that_is_past_an_earlier_cut_is_cut_no_more() -> None:
    record = _record({"cut": "", "cut_at_budget": None, "verdict": {}})
    check_not_ended(record, StudySettings(trials=100, time_budget=100))
    with pytest.raises(ConfigError, match=r"--trials \+50` gives it 50 more"):
        check_not_ended(record, StudySettings(trials=50, time_budget=1_000))


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
