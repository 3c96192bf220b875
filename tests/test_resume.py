"""Who may run a study, and how one that was interrupted by hand is left.

What becomes of one whose process is killed outright is in `tests/faults`.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.running import podium, start


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
