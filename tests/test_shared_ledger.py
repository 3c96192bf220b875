"""A whole study with its ledger on PostgreSQL, killed and taken up again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from search.folder import LEDGER_VARIABLE
from search.ledger import Ledger
from search.records import State
from tests.postgres import ENCODED, PASSWORD, Server
from tests.running import podium, start, tracked

STUDY = "run --study cut --trials 4 --max-epochs 6 --finalists 1 --confirm-seeds 2"


@pytest.mark.slow
def test_a_killed_study_on_a_server_is_resumed_once_and_its_password_is_nowhere(
    server: Server, tmp_path: Path
) -> None:
    place = server.new_place()
    variable = {LEDGER_VARIABLE: place}
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    ledger = Ledger(place)
    process = start(*STUDY.split(), folder=here, **variable)
    try:
        assert process.stdout is not None
        said = ""
        while not any(trial.epochs_trained for trial in ledger.trials("cut")):
            assert process.poll() is None, said
            time.sleep(0.1)
        second = podium(*STUDY.split(), folder=elsewhere, **variable)
        assert second.code == 2
        assert f"Study cut is being run by process {process.pid} on" in second.err
        server.stop()
        server.start()
        before = sum(trial.epochs_trained for trial in ledger.trials("cut"))
        while sum(trial.epochs_trained for trial in ledger.trials("cut")) == before:
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    resumed = podium("resume", "cut", folder=here, **variable)
    assert resumed.code == 0, resumed.err
    study, trials = ledger.study("cut"), ledger.trials("cut")
    assert study is not None
    assert (study.state, len(trials)) == (State.COMPLETED, 4 + 2 * 2)
    assert {trial.state for trial in trials} <= {State.COMPLETED, State.STOPPED}
    assert len(ledger.openings()) == 1
    ledger.close()
    runs = tracked(here)
    assert sorted(int(run.data.tags["podium.trial"]) for run in runs.children) == list(range(8))
    for trial in trials:
        steps = [m.step for m in runs.client.get_metric_history(str(trial.run_id), "val_loss")]
        assert steps == list(range(1, trial.epochs_trained + 1))
    assert not (here / "runs" / "ledger.db").exists()
    # What is known is known everywhere.
    listed = podium("status", folder=elsewhere, **variable)
    assert "cut" in listed.out
    recommended = podium("recommend", "cut", folder=elsewhere, **variable)
    assert recommended.code == 0, recommended.err
    printed = [said, *(text for done in (second, resumed, listed) for text in (done.out, done.err))]
    for secret in (PASSWORD, ENCODED):
        assert not any(secret in text for text in printed)
        assert not any(
            secret.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )
