"""Studies on the real data sets and the promise of `podium run` without arguments."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.running import ROOT, podium

DATA_DIR = ROOT.parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(
    not (DATA_DIR / "mnist.npz").is_file(), reason="the real data sets are not beside the project"
)


@pytest.mark.slow
@NEEDS_DATA
@pytest.mark.parametrize(
    ("space", "data", "epochs", "least"),
    [("mlp", "mnist", "2", 0.93), ("cnn", "fashion-mnist", "1", 0.75)],
)
def test_a_study_on_real_data_ends_in_a_plausible_verdict(
    space: str, data: str, epochs: str, least: float, tmp_path: Path
) -> None:
    finished = podium(
        *["run", "--study", "real", "--space", space, "--data", data],
        *["--data-dir", str(DATA_DIR), "--trials", "2", "--max-epochs", epochs],
        *["--first-rung", "1", "--finalists", "1", "--confirm-seeds", "2"],
        folder=tmp_path,
        seconds=900,
    )
    assert finished.code == 0, finished.err
    assert "48,000 train, 12,000 validation, 10,000 test (locked)" in finished.out
    rows = json.loads(podium("compare", "real", "--format", "json", folder=tmp_path).out)
    assert max(row["val_accuracy"] for row in rows) > least
    status = podium("status", "real", folder=tmp_path)
    assert "Verdict:" in status.out


@pytest.mark.slow
@pytest.mark.alone
def test_podium_run_without_arguments_ends_within_90_s(tmp_path: Path) -> None:
    began = time.monotonic()
    finished = podium("run", folder=tmp_path)
    assert finished.code == 0, finished.err
    assert time.monotonic() - began < 90
