"""Faults inside the Tune experiment, on real Ray; what a failing space or a dying worker does."""

from __future__ import annotations

import http.server
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from search.records import ConfigError
from search.tuning import Cluster
from tests.running import ROOT, podium, serving, start

FAILING = """
from spaces.config import TrialConfig
def suggest(trial):
    return TrialConfig(extra={"x": trial.suggest_float("x", 0, 1)})
def baseline():
    return TrialConfig()
def build(config, input_shape, classes):
    raise RuntimeError("no network today")
"""
OWN = """
from spaces.config import TrialConfig
def suggest(trial):
    return TrialConfig(
        batch_size=256, learning_rate=0.01, extra={"width": trial.suggest_int("width", 4, 64)}
    )
def baseline():
    return TrialConfig(extra={"width": 8})
def build(config, input_shape, classes):
    import keras, os, signal
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Dense(config.extra["width"], activation="relu")(
        keras.layers.Flatten()(inputs)
    )
    if os.path.exists("CRASH_MARK"):
        os.remove("CRASH_MARK")
        os.kill(os.getpid(), signal.SIGKILL)
    return keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(outputs))
"""


def test_when_every_trial_fails_the_study_ends_with_3_and_the_shared_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    finished = podium(
        "run", "--study", "doomed", "--space", "failing.py", "--trials", "50", folder=tmp_path
    )
    assert finished.code == 3
    assert "first 5 trials all failed" in finished.err
    assert "no network today" in finished.err
    assert "Traceback" not in finished.err
    status = podium("status", "doomed", folder=tmp_path)
    assert "failed" in status.out
    assert "no network today" in status.out


@pytest.mark.slow
def test_a_trial_whose_worker_was_killed_goes_on_in_another_one(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "crash"
    mark.touch()
    (tmp_path / "own.py").write_text(OWN.replace("CRASH_MARK", str(mark)))
    finished = podium(
        *["run", "--study", "own", "--space", "own.py", "--trials", "5", "--max-epochs", "4"],
        *["--finalists", "1", "--confirm-seeds", "2", "--sampler", "random"],
        *["--scheduler", "median"],
        folder=tmp_path,
    )
    assert finished.code == 0, finished.err
    assert "Verdict:" in finished.out
    rows = json.loads(podium("compare", "own", "--format", "json", folder=tmp_path).out)
    assert not mark.exists(), "no worker was killed"
    assert {row["state"] for row in rows} <= {"completed", "stopped"}
    assert len(rows) == 5 + 2 * 2


@pytest.fixture
def other_server() -> Iterator[str]:
    with serving(http.server.BaseHTTPRequestHandler) as port:
        yield f"127.0.0.1:{port}"


def test_a_server_that_is_not_ray_is_refused_within_15_s(other_server: str, tmp_path: Path) -> None:
    began = time.monotonic()
    finished = podium("run", "--address", other_server, folder=tmp_path)
    assert finished.code == 2
    assert "not a Ray cluster" in finished.err
    assert time.monotonic() - began < 15
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_nobody_answers_is_refused_also_from_the_environment(
    tmp_path: Path,
) -> None:
    finished = podium("run", folder=tmp_path, RAY_ADDRESS="127.0.0.1:1")
    assert finished.code == 2
    assert "127.0.0.1:1" in finished.err
    assert list(tmp_path.iterdir()) == []


def test_more_cpus_than_the_cluster_has_are_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    finished = podium("run", "--cpus-per-trial", "4096", folder=tmp_path)
    assert finished.code == 2
    assert "--cpus-per-trial 4096" in finished.err
    assert list(tmp_path.iterdir()) == []


def test_the_cluster_file_is_one_that_rays_launcher_takes(tmp_path: Path) -> None:
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    broken = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    broken["head_node_type"] = "nowhere"
    with pytest.raises(ValueError, match="head_node_type"):
        validate_config(prepare_config(broken))


def test_an_interrupted_study_closes_its_trials_and_says_what_to_do(tmp_path: Path) -> None:
    # Trials that do not end by themselves, so that both are in flight whenever the signal comes.
    endless = ["--max-epochs", "100000", "--scheduler", "none", "--concurrent", "2"]
    process = start("run", "--study", "cut", *endless, folder=tmp_path)
    try:
        assert process.stdout is not None
        while "2 running" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "podium resume cut" in err
    rows = json.loads(podium("compare", "cut", "--format", "json", folder=tmp_path).out)
    assert rows
    assert all(row["state"] != "running" for row in rows)
    cut = [row["reason"] for row in rows if row["state"] == "interrupted"]
    assert cut == ["interrupted"] * 2


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "fits"),
    [
        (((2, 0),), 1, 0.0, 2),
        (((3, 0), (3, 0)), 2, 0.0, 2),
        (((0, 0), (8, 4)), 1, 0.6, 4),
        (((8, 1),), 2, 0.25, 4),
        (((8, 4),), 4, 1.0, 2),
    ],
)
def test_as_many_trials_run_at_once_as_fit_on_the_machines(
    nodes: tuple[tuple[int, int], ...], cpus: int, gpus: float, fits: int
) -> None:
    cluster = Cluster(nodes, "test")
    assert cluster.concurrency(None, cpus, gpus) == fits
    assert cluster.concurrency(1, cpus, gpus) == 1
    assert cluster.concurrency(99, cpus, gpus) == fits


def test_a_trial_that_needs_what_no_one_machine_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="both 8 CPUs and 1 GPUs"):
        Cluster(((8, 0), (2, 1)), "test").concurrency(None, 8, 1.0)
