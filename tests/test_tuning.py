"""Faults inside the Tune experiment, on real Ray; what a failing space or a dying worker does."""

from __future__ import annotations

import contextlib
import http.server
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.air.execution._internal.actor_manager import RayActorManager

from search.interruption import Interruptions
from search.records import ConfigError, Job, StudyFailed, WorkerReport
from search.tuning import (
    Cluster,
    _Bridge,
    _memory_needed,
    _Scheduler,
    _Searcher,
    _with_lack_of_memory,
    run_experiment,
)
from tests.builders import make_assignment, make_epoch, make_report, make_totals
from tests.running import ROOT, environment, podium, serving, start

FAILING = """
from spaces.config import TrialConfig
def suggest(trial):
    return TrialConfig(extra={"x": trial.suggest_float("x", 0, 1)})
def baseline():
    return TrialConfig()
def build(config, input_shape, classes):
    import os, time
    if os.path.exists("HANG_MARK"):
        os.remove("HANG_MARK")
        time.sleep(10_000)
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
    """Even while a worker hangs."""
    mark = tmp_path / "hang"
    mark.touch()
    (tmp_path / "failing.py").write_text(FAILING.replace("HANG_MARK", str(mark)))
    finished = podium(
        *["run", "--study", "doomed", "--space", "failing.py", "--trials", "50"],
        *["--concurrent", "2"],
        folder=tmp_path,
    )
    assert not mark.exists(), "no worker hung"
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
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "podium resume cut" in err
    rows = json.loads(podium("compare", "cut", "--format", "json", folder=tmp_path).out)
    assert rows
    assert all(row["state"] != "running" for row in rows)
    cut = [row["reason"] for row in rows if row["state"] == "interrupted"]
    assert cut == ["interrupted"] * 2
    assert not list(tmp_path.glob("runs/studies/*/tune"))


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


# What an interruption does inside Tune's loop, without Ray


class Talk:
    """A director that has endless trials and remembers what it was told."""

    def __init__(self) -> None:
        self.handed_out: list[Job] = []
        self.reports: list[WorkerReport] = []
        self.interrupted = 0

    def next_job(self) -> Job | None:
        self.handed_out.append(make_assignment(len(self.handed_out)))
        return self.handed_out[-1]

    def is_finished(self) -> bool:
        return False

    def on_start(self, job: Job) -> None:
        pass

    def on_report(self, job: Job, report: WorkerReport) -> bool:
        self.reports.append(report)
        return True

    def on_crash(self, job: Job, reason: str, *, retry: bool = True) -> None:
        raise AssertionError(reason)

    def give_up_overdue(self) -> list[Job]:
        return []

    def interrupt(self) -> float:
        self.interrupted += 1
        return 20.0


class Actor:
    """Answers for the checkpoint as Ray's handle of a worker does."""

    def __init__(self) -> None:
        self.checkpoint = SimpleNamespace(remote=lambda: b"asked for")


class Loop:
    """Two trials under way, a clock, and signals that nobody sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.signals, self.talk = 0.0, Interruptions(), Talk()
        monkeypatch.setattr("search.tuning.INTERRUPTIONS", self.signals)
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr("search.tuning.time", clock)
        monkeypatch.setattr(ray, "put", lambda value: value)
        monkeypatch.setattr(ray, "get", lambda value, timeout: value)
        self.bridge = _Bridge(self.talk, 3)
        self.searcher = _Searcher(self.bridge, None)
        self.trials = [self._trial(name) for name in ("a", "b")]
        for trial in self.trials:
            assert self.searcher.suggest(trial.trial_id)
            self.bridge.start(trial)

    def _trial(self, name: str) -> Any:
        return SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=Actor()))

    def hear(self, index: int, **values: Any) -> bool:
        """A report of a trial, as Tune passes it on; one that does not go on is over."""
        trial = self.trials[index]
        go_on = self.bridge.hear(trial, make_report(make_epoch(1), **values))
        if not go_on:
            self.searcher.on_trial_complete(trial.trial_id)
        return go_on


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return Loop(monkeypatch)


def test_after_a_signal_nothing_is_begun_and_trials_go_on_to_their_next_rung(loop: Loop) -> None:
    loop.signals.received.append(signal.SIGINT)
    loop.bridge.tick()
    assert loop.searcher.suggest("c") is None
    assert len(loop.talk.handed_out) == 2
    assert loop.hear(0), "not at a rung"
    assert not loop.hear(0, totals=make_totals(), checkpoint=b"of the rung")
    loop.bridge.tick()
    assert not loop.hear(1, totals=make_totals(), checkpoint=b"of the rung")
    with pytest.raises(KeyboardInterrupt):
        loop.bridge.tick()
    assert loop.talk.interrupted == 1
    assert [r.checkpoint for r in loop.talk.reports] == [b"asked for"] + [b"of the rung"] * 2


def test_a_trial_without_a_rung_is_waited_for_20_s(loop: Loop) -> None:
    loop.signals.received.append(signal.SIGTERM)
    loop.bridge.tick()
    loop.now += 19.9
    assert loop.hear(0)
    loop.bridge.tick()
    loop.now += 0.1
    with pytest.raises(KeyboardInterrupt):
        loop.bridge.tick()


def test_a_second_signal_waits_for_nothing(loop: Loop) -> None:
    loop.signals.received += [signal.SIGINT, signal.SIGINT]
    with pytest.raises(KeyboardInterrupt):
        loop.bridge.tick()


def test_a_trial_that_no_worker_has_taken_up_yet_is_not_waited_for(loop: Loop) -> None:
    for trial in loop.trials:
        loop.searcher.on_trial_complete(trial.trial_id)
    assert loop.searcher.suggest("c")
    loop.signals.received.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.bridge.tick()


def test_without_a_signal_no_checkpoint_is_asked_for(loop: Loop) -> None:
    loop.bridge.tick()
    assert loop.hear(0, totals=make_totals())
    assert loop.talk.reports[0].checkpoint is None
    assert loop.searcher.suggest("c")


def test_a_worker_that_cannot_save_any_more_leaves_its_last_checkpoint(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead(value: object, timeout: float) -> bytes:
        raise ray.exceptions.RayActorError

    monkeypatch.setattr(ray, "get", dead)
    loop.signals.received.append(signal.SIGINT)
    loop.bridge.tick()
    assert loop.hear(0)
    assert loop.talk.reports[0].checkpoint is None


def test_a_second_signal_ends_the_wait_for_a_checkpoint_within_a_second(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def slow(value: object, timeout: float) -> bytes:
        waited.append(timeout)
        loop.now += timeout
        loop.signals.received.append(signal.SIGINT)
        raise ray.exceptions.GetTimeoutError

    monkeypatch.setattr(ray, "get", slow)
    loop.signals.received.append(signal.SIGINT)
    loop.bridge.tick()
    loop.hear(0)
    assert sum(waited) <= 1.0
    assert loop.talk.reports[0].checkpoint is None


def test_a_checkpoint_is_waited_for_for_10_s(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(value: bytes, timeout: float) -> bytes:
        loop.now += timeout
        if loop.now < comes_after:
            raise ray.exceptions.GetTimeoutError
        return value

    comes_after = 9.0
    monkeypatch.setattr(ray, "get", slow)
    loop.signals.received.append(signal.SIGINT)
    loop.bridge.tick()
    loop.hear(0)
    comes_after = 1_000.0
    loop.hear(1)
    assert [report.checkpoint for report in loop.talk.reports] == [b"asked for", None]
    assert loop.now < 21


# Errors of the director


class Doomed(Talk):
    """Fails for good at the first report; its other trial says nothing any more."""

    def on_report(self, job: Job, report: WorkerReport) -> bool:
        raise StudyFailed("the first 5 trials all failed")


def test_a_worker_that_says_nothing_does_not_keep_a_study_that_has_failed(loop: Loop) -> None:
    loop.bridge.director = Doomed()
    assert not loop.hear(0)
    assert len(loop.bridge.started) == 1
    with pytest.raises(KeyboardInterrupt):
        loop.bridge.tick()


@pytest.mark.parametrize("signals", [0, 1, 2])
def test_what_a_study_failed_of_is_told_even_if_it_was_interrupted_then(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, signals: int
) -> None:
    class Tuner:
        def __init__(self, _: object, *, tune_config: Any, run_config: Any) -> None:
            self.searcher, self.loop = tune_config.search_alg, run_config.callbacks[0]

        def fit(self) -> None:
            trial = loop.trials[0]
            assert self.searcher.suggest(trial.trial_id)
            self.loop.on_trial_start(0, [], trial)
            self.loop._bridge.hear(trial, make_report(make_epoch(1)))
            loop.signals.received += [signal.SIGINT] * signals
            self.loop.on_step_begin(1, [])
            raise AssertionError("it would hang")

    monkeypatch.setattr("search.tuning.tune.Tuner", Tuner)
    how = {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0.0}
    with pytest.raises(StudyFailed, match="first 5 trials"):
        run_experiment(Doomed(), None, None, folder=tmp_path, way_on="", **how)  # type: ignore[arg-type]


# What Tune writes


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("Tune failed")])
def test_nothing_that_tune_writes_stays(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: BaseException | None
) -> None:
    own, kept = tmp_path / "tune", tmp_path / "checkpoints"
    found: list[Path] = []

    class Tuner:
        def __init__(self, _: object, *, run_config: Any, **__: object) -> None:
            assert Path(run_config.storage_path, run_config.name) == own
            found.extend(own.rglob("*"))

        def fit(self) -> None:
            (own / "trial").mkdir(parents=True)
            (own / "trial" / "result.json").touch()
            if error is not None:
                raise error

    monkeypatch.setattr("search.tuning.tune.Tuner", Tuner)
    kept.mkdir()
    (own / "of-a-killed-process").mkdir(parents=True)
    how = {"concurrent": 1, "cpus_per_trial": 1, "gpus_per_trial": 0.0}
    with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
        run_experiment(Talk(), None, None, folder=tmp_path, way_on="", **how)  # type: ignore[arg-type]
    assert found == []
    assert list(tmp_path.iterdir()) == [kept]


# Ray's own processes that die

DYING = """
import sys
from rich.console import Console
from rich.live import Live
from search import tuning
console = Console()
with Live("epochs", console=console):
    tuning._end_process(["raylet"], "`podium resume s` goes on from there")
"""


def _dying(stdout: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", DYING],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(TERM="xterm"),
        timeout=60,
        check=False,
    )


def test_a_terminal_has_its_cursor_again_where_rays_processes_end_the_study() -> None:
    ours, its = os.openpty()
    ended = _dying(its)
    os.close(its)
    shown = os.read(ours, 10_000)
    os.close(ours)
    assert ended.returncode == 3
    assert b"`podium resume s` goes on from there" in shown + ended.stderr
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l") >= 0


def test_a_file_gets_no_control_characters_where_rays_processes_end_the_study() -> None:
    ended = _dying(subprocess.PIPE)
    assert (ended.returncode, b"\x1b" in ended.stdout) == (3, False)
    assert b"(raylet) died" in ended.stderr


# Processes that Ray kills for want of memory

KILLED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 192.0.2.2, \
ID: 9c55) was 11.80GB used / 23.54GB limit (0.501369)
OOM kill reason: Memory usage 13101936640B exceeded threshold of 13093228544B
Considered workers: [
Selected to kill: (Task: job ID=01000000, task name=_Trial.train, pid=30765, actual memory \
used=3.06GB, worker ID=719d)
]
"""


def test_a_process_that_was_killed_for_want_of_memory_says_what_it_had() -> None:
    assert _memory_needed(KILLED) == (
        "needed more than the 3.06 GB that its process had: 11.80 of the machine's 23.54 GB were "
        "in use"
    )
    died = "The actor is dead because its worker process has died. Common causes: OOM killer"
    assert _memory_needed(died) is None


def test_tune_is_told_of_such_a_process_as_of_one_that_died() -> None:
    """It takes no other errors of Ray than these, and would end the experiment."""
    told: list[Exception] = []
    failed = _with_lack_of_memory(lambda _, error: told.append(error))
    theirs = inspect.signature(RayActorManager._actor_task_failed).parameters
    assert list(theirs)[1:] == list(inspect.signature(failed).parameters), "Tune names them"
    failed(None, ray.exceptions.OutOfMemoryError(KILLED))
    failed(None, ray.exceptions.RayActorError(error_msg="died"))
    assert [type(error) for error in told] == [ray.exceptions.RayActorError] * 2
    assert [str(error) for error in told] == [KILLED, "died"]


class Crashes(Talk):
    """Remembers what it was told of workers that died."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, bool]] = []

    def on_crash(self, job: Job, reason: str, *, retry: bool = True) -> None:
        self.told.append((reason, retry))


@pytest.mark.parametrize("started", [True, False])
def test_a_trial_that_never_ran_is_not_blamed_for_the_memory_that_its_worker_was_killed_for(
    loop: Loop, tmp_path: Path, started: bool
) -> None:
    """Ray kills idle workers too, which Tune notices when it gives them the next trial."""
    crashes = loop.bridge.director = Crashes()
    trial = loop.trials[0]
    trial.error_file = tmp_path / "error.txt"
    trial.error_file.write_text(KILLED)
    if not started:
        del loop.bridge.started[trial.trial_id]
    _Scheduler(loop.bridge).on_trial_error(None, trial)
    [(reason, retry)] = crashes.told
    assert retry is not started
    assert reason.startswith("out of memory: ") is started
