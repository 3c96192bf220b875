"""A study whose process is killed outright and taken up again: every epoch once, one verdict."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from search.ledger import Ledger
from search.records import State
from tests.running import podium, start, tracked

STUDY = "run --study cut --trials 6 --max-epochs 6 --finalists 1 --confirm-seeds 2"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [6, 14, 22])
def test_a_killed_study_that_is_resumed_ends_as_if_nothing_had_happened(
    tmp_path: Path, seconds: int
) -> None:
    process = start(*STUDY.split(), folder=tmp_path)
    try:
        assert process.stdout is not None
        while "Ray local" not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    resumed = podium("resume", "cut", folder=tmp_path)
    assert resumed.code == 0, resumed.err
    ledger = Ledger(tmp_path / "runs" / "ledger.db")
    study = ledger.study("cut")
    assert study is not None
    assert study.state is State.COMPLETED
    assert study.outcome is not None
    assert study.outcome["verdict"]["openings"] == 1
    trials = ledger.trials("cut")
    assert len(trials) == 6 + 2 * 2
    assert {t.state for t in trials} <= {State.COMPLETED, State.STOPPED}
    runs = tracked(tmp_path)
    assert {r.info.status for r in [runs.parent, *runs.children]} == {"FINISHED"}
    assert sorted(int(r.data.tags["podium.trial"]) for r in runs.children) == list(range(10))
    for trial in trials:
        steps = [m.step for m in runs.client.get_metric_history(str(trial.run_id), "val_loss")]
        assert steps == list(range(1, trial.epochs_trained + 1))
    assert len(runs.client.search_model_versions("name = 'podium-digits'")) == 1
    again = podium("resume", "cut", folder=tmp_path)
    assert again.code == 2
    assert "has ended" in again.err


@pytest.mark.slow
def test_a_study_is_run_by_one_process_only(tmp_path: Path) -> None:
    endless = ["--max-epochs", "100000", "--scheduler", "none"]
    process = start("run", "--study", "held", *endless, folder=tmp_path)
    try:
        assert process.stdout is not None
        while "2 running" not in process.stdout.readline():
            assert process.poll() is None
        second = podium("resume", "held", folder=tmp_path)
        assert second.code == 2
        assert f"process {process.pid} on " in second.err
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert "podium resume held" in err
    finally:
        process.kill()
    rows = json.loads(podium("compare", "held", "--format", "json", folder=tmp_path).out)
    assert {row["state"] for row in rows} == {"interrupted"}
