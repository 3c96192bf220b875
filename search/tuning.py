"""The Tune experiment: search, confirmation and examination on the same worker processes."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
# Tune's snapshots are never read: the ledger is the state that survives.
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1000000000")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
TOKEN_PATH = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
if "RAY_AUTH_TOKEN" in os.environ or TOKEN_PATH.is_file():
    # Ray turns tokens on when it starts a cluster, but joins one without unless it is told.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray._private import ray_constants
from ray._private import utils as ray_utils
from ray.tune.callback import Callback
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from search.credentials import hidden, is_secret
from search.data import TrainingData
from search.interruption import INTERRUPTIONS
from search.records import Assignment, ConfigError, Job, StudyFailed, WorkerReport
from search.space import SpaceSource

if TYPE_CHECKING:
    from search.worker import Worker

CONNECT_SECONDS = 4.0
HEALTH_SECONDS = 8.0
SAVE_SECONDS = 10.0
"""So long a worker may take for a checkpoint that it is asked for."""
LOOK_SECONDS = 0.5
"""So often it is looked meanwhile whether somebody asks a second time to stop."""
REPORT = "report"
TUNE_FOLDER = "tune"
WATCH_SECONDS = 1.0
SHOW_CURSOR = "\x1b[?25h"
"""A view of the progress hides it, and has no time to show it again where the process ends."""
VITAL = {"gcs_server", "raylet"}
"""Ray's processes without which nothing goes on."""


class Director(Protocol):
    """Decides what is trained next and hears everything that comes of it."""

    def next_job(self) -> Job | None:
        """The next job; None while there is none yet."""
        ...

    def is_finished(self) -> bool:
        """Whether there will be no more jobs."""
        ...

    def on_start(self, job: Job) -> None:
        """Takes note that a worker has taken the job up."""
        ...

    def on_report(self, job: Job, report: WorkerReport) -> bool:
        """Takes note of a report; returns whether the job goes on."""
        ...

    def on_crash(self, job: Job, reason: str, *, retry: bool = True) -> None:
        """Takes note that the worker of this job died, and whether to try once more helps."""
        ...

    def give_up_overdue(self) -> Sequence[Job]:
        """Jobs that were given up because their workers do not report; these are replaced."""
        ...

    def interrupt(self) -> float:
        """Takes note that there will be no more jobs; for how many seconds running ones go on."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a Ray cluster offers: CPUs and GPUs of each machine."""

    nodes: tuple[tuple[int, int], ...]
    address: str

    @property
    def cpus(self) -> int:
        """Of all machines together."""
        return sum(cpus for cpus, _ in self.nodes)

    def concurrency(self, wanted: int | None, cpus_per_trial: int, gpus_per_trial: float) -> int:
        """How many trials run at once.

        Raises:
            ConfigError: not even one does.
        """
        largest = max((cpus for cpus, _ in self.nodes), default=0)
        if cpus_per_trial > largest:
            raise ConfigError(
                f"--cpus-per-trial {cpus_per_trial}: the largest machine of the cluster has "
                f"{largest} CPUs."
            )
        most = max((gpus for _, gpus in self.nodes), default=0)
        if gpus_per_trial > most:
            raise ConfigError(
                f"--gpus-per-trial {gpus_per_trial:g}: the largest machine of the cluster has "
                f"{most} GPUs."
            )
        fits = sum(_fitting(*node, cpus_per_trial, gpus_per_trial) for node in self.nodes)
        if not fits:
            raise ConfigError(
                f"No machine of the cluster has both {cpus_per_trial} CPUs and "
                f"{gpus_per_trial:g} GPUs for a trial."
            )
        return min(fits, wanted or fits)


def _fitting(cpus: int, gpus: int, cpus_per_trial: int, gpus_per_trial: float) -> int:
    """How many trials fit on one machine; a trial that shares a GPU stays within it."""
    fits = cpus // cpus_per_trial
    if not gpus_per_trial:
        return fits
    if gpus_per_trial >= 1:
        return min(fits, int(gpus // gpus_per_trial))
    return min(fits, gpus * int(1 / gpus_per_trial))


@hidden()
def join_cluster(address: str | None) -> Cluster:
    """Joins the cluster at `address` or RAY_ADDRESS, or starts one on this machine.

    The processes that it starts inherit no credentials but Ray's own token.

    Raises:
        ConfigError: the address does not answer, or a new cluster would let anyone in.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    options: dict[str, Any] = {
        "log_to_driver": False,
        "logging_level": logging.CRITICAL,
        "configure_logging": True,
    }
    if address in (None, "local"):
        _check_tokens_are_on()
        options |= {"address": "local", "include_dashboard": False}
    else:
        _check_answers(str(address))
        options |= {"address": address}
    try:
        with _on_loopback(options["address"] == "local"), _in_groups_of_their_own():
            ray.init(**options)
    except SystemExit:  # of Ray's own handler of SIGTERM, while it starts
        INTERRUPTIONS.received.append(signal.SIGTERM)
        raise KeyboardInterrupt from None
    except Exception as error:  # noqa: BLE001 - Ray raises plain ones when it is slow to start
        where = f"Ray at {address!r}" if address else "Ray did not start on this machine"
        raise ConfigError(
            f"{where}: {_one_line(error)}. Where the machine is busy, try once more."
        ) from None
    INTERRUPTIONS.listen()
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    nodes = tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources)
    return Cluster(nodes, address or "local")


def leave_cluster() -> None:
    """Leaves the cluster; one that was started here stops."""
    with INTERRUPTIONS.deferred():
        ray.shutdown()


@contextmanager
def _on_loopback(only: bool) -> Iterator[None]:
    """Lets a cluster that is started meanwhile listen on 127.0.0.1; else Ray takes all interfaces.

    Ray has no option for that: it turns a loopback address that it is given into the machine's.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not only
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _in_groups_of_their_own() -> Iterator[None]:
    """Lets a signal to this process's group, as `timeout` sends it, not reach Ray's processes.

    Without them no trial could be saved. Ray has no option for that: what it calls in each process
    that it starts here, before the program of that begins, is added to.
    """
    before = ray_utils.set_kill_on_parent_death_linux

    def apart() -> None:
        os.setpgrp()
        before()

    ray_utils.set_kill_on_parent_death_linux = apart
    try:
        yield
    finally:
        ray_utils.set_kill_on_parent_death_linux = before


def _check_tokens_are_on() -> None:
    """Refuses to start a cluster that whoever reaches its ports can run code on.

    Raises:
        ConfigError: RAY_AUTH_MODE turns tokens off.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ConfigError(
            f"RAY_AUTH_MODE={mode}: whoever reaches the ports of a Ray cluster without tokens can "
            "run code on it. Unset the variable; Podium lets Ray make a token."
        )


def _check_answers(address: str) -> None:
    """Asks in seconds what Ray itself would try for minutes.

    Raises:
        ConfigError: nobody listens there, or not a Ray cluster.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    _, at, rest = address.rpartition("@")
    shown = f"***@{rest}" if at else address  # Before it there may be a password.
    if not host or not port.isdecimal() or "/" in host:
        raise ConfigError(
            f"Ray address {shown!r}: expected host:port or auto. A study runs on a machine of "
            "its cluster; ray:// is not supported."
        )
    advice = "Start one with `ray start --head`, or leave --address out to use this machine."
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"No Ray cluster answers at {shown!r} ({_one_line(error)}). {advice}"
        ) from None
    try:
        # Its own process: Ray's client retries for longer than the time there is, and prints.
        subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address],
            check=True,
            capture_output=True,
            timeout=HEALTH_SECONDS,
        )
    except subprocess.SubprocessError:
        raise ConfigError(
            f"What answers at {shown!r} is not a Ray cluster that lets this user in. {advice}"
        ) from None


class _Trial(tune.Trainable):  # type: ignore[misc]
    """A worker process as Tune sees it; the process serves trial after trial."""

    def setup(self, config: dict[str, Any]) -> None:
        from search.worker import Worker, WorkerContext

        data, space, threads = ray.get(config["context"])
        self._worker: Worker = Worker.in_own_process(WorkerContext(data, space, threads))
        self._worker.take(ray.get(config["job"]))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._worker.take(ray.get(new_config["job"]))
        return True

    def step(self) -> dict[str, Any]:
        return {REPORT: self._worker.step()}

    def checkpoint(self) -> bytes | None:
        return self._worker.checkpoint()


class _Bridge:
    """Carries calls between Tune's hooks and the director, and an exception out of Tune's loop."""

    def __init__(self, director: Director, concurrent: int) -> None:
        self.director = director
        self.concurrent = concurrent
        self.jobs: dict[str, Job] = {}
        self.started: dict[str, Any] = {}  # Tune's trials, once a worker has taken them up
        self.failure: BaseException | None = None
        self._until: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher into a file that nobody reads."""
        return {}

    def guarded(self, call: Callable[[], Any], otherwise: Any) -> Any:
        """Tune would end or loop on an exception in a hook: it is kept, and raised afterwards."""
        if self.failure is not None:
            return otherwise
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - raised again by run_experiment
            self.failure = error
            return otherwise

    @property
    def is_stopping(self) -> bool:
        """Whether the study is to be interrupted."""
        return self._until is not None

    def tick(self) -> None:
        """What has to be seen to several times a second.

        Raises:
            KeyboardInterrupt: nothing is to be waited for, as the study was interrupted or its
                director failed; a worker that hangs has no limit then.
        """
        if self.failure is not None:
            raise KeyboardInterrupt
        asked = len(INTERRUPTIONS.received)
        if asked and self._until is None:
            self._until = time.monotonic() + self.guarded(self.director.interrupt, 0.0)
        if self._until is not None and (
            asked > 1 or not self.started or time.monotonic() >= self._until
        ):
            raise KeyboardInterrupt
        for job in self.guarded(self.director.give_up_overdue, ()):
            self._replace_worker(job)

    def start(self, trial: Any) -> None:
        """A worker has taken a trial up."""
        self.started[trial.trial_id] = trial
        job = self.jobs[trial.trial_id]
        self.guarded(lambda: self.director.on_start(job), None)

    def end(self, trial_id: str) -> None:
        """A trial is over, for Tune."""
        self.jobs.pop(trial_id, None)
        self.started.pop(trial_id, None)

    def hear(self, trial: Any, report: WorkerReport) -> bool:
        """Passes a report on; returns whether its job goes on."""
        job = self.jobs[trial.trial_id]
        if self.is_stopping and len(INTERRUPTIONS.received) == 1:
            report = _with_checkpoint(trial, report)
        go_on = self.guarded(lambda: self.director.on_report(job, report), False)
        at_rung = report.totals is not None
        return bool(go_on) and not (self.is_stopping and at_rung)

    def _replace_worker(self, job: Job) -> None:
        for trial_id, trial in self.started.items():
            actor = trial.temporary_state.ray_actor
            if self.jobs[trial_id] is job and actor is not None:
                ray.kill(actor)


def _with_checkpoint(trial: Any, report: WorkerReport) -> WorkerReport:
    """The report with a checkpoint after its last epoch, if its trial goes on from there.

    Its worker has nothing to do until the report was heard, so that it answers soon.
    """
    if report.final or report.checkpoint is not None or not report.epochs:
        return report
    until = time.monotonic() + SAVE_SECONDS
    try:
        asked = trial.temporary_state.ray_actor.checkpoint.remote()
        while time.monotonic() < until and len(INTERRUPTIONS.received) == 1:
            with suppress(ray.exceptions.GetTimeoutError):
                return replace(report, checkpoint=ray.get(asked, timeout=LOOK_SECONDS))
    except ray.exceptions.RayError:
        pass
    return report  # what was saved before stands


class _Searcher(Searcher):  # type: ignore[misc]
    def __init__(self, bridge: _Bridge, context: ray.ObjectRef[Any]) -> None:
        super().__init__()
        self._bridge, self._context = bridge, context

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        bridge = self._bridge
        bridge.tick()
        if bridge.guarded(bridge.director.is_finished, True):
            return str(Searcher.FINISHED)
        if bridge.is_stopping or len(bridge.jobs) >= bridge.concurrent:
            return None
        job = bridge.guarded(bridge.director.next_job, None)
        if job is None:
            return None
        bridge.jobs[trial_id] = job
        return {"context": self._context, "job": ray.put(job)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._bridge.end(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: there is no state here."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: there is no state here."""


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge
        self._is_prepared = False

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if self._is_prepared:
            return
        self._is_prepared = True
        controller = tune_controller._tune_controller
        # Tune keeps an idle process only for a trial that is already waiting for it, and would
        # let all but one go whenever the searcher has to wait, as between search and confirmation.
        cache = controller._actor_cache
        cache.increase_max(trial.placement_group_factory, self._bridge.concurrent)
        # It ends the whole experiment when Ray kills a process for want of memory.
        manager = controller._actor_manager
        manager._actor_task_failed = _with_lack_of_memory(manager._actor_task_failed)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        go_on = self._bridge.hear(trial, result[REPORT])
        return str(TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        bridge = self._bridge
        job = bridge.jobs.get(trial.trial_id)
        if job is not None:
            text = _error_of(trial)
            # A worker that was killed while it was idle is noticed when it is given a trial.
            needed = _memory_needed(text) if trial.trial_id in bridge.started else None
            reason = f"the worker failed: {_cause_of_death(text)}"
            if needed is not None:
                what = job.config.summary if isinstance(job, Assignment) else "the process"
                reason = f"out of memory: {what} {needed}"
            bridge.guarded(
                lambda: bridge.director.on_crash(job, reason, retry=needed is None), None
            )


def _with_lack_of_memory(fail: Callable[..., None]) -> Callable[..., None]:
    """The same for a process that Ray killed for want of memory as for one that died."""

    def failed(tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, ray.exceptions.OutOfMemoryError):
            exception = ray.exceptions.RayActorError(error_msg=str(exception))
        fail(tracked_actor_task, exception)

    return failed


def _error_of(trial: Any) -> str:
    """What Tune wrote of it."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return ""


def _cause_of_death(text: str) -> str:
    """Of what Tune wrote of a trial's error, from where Ray gets to the point."""
    lines = text.strip().splitlines()
    causes = [line for line in lines if line.startswith("The actor is dead because ")]
    return _one_line((causes or lines or ["Ray gave no reason"])[-1])


def _memory_needed(text: str) -> str | None:
    """What a process had that Ray killed for want of memory; None where it died otherwise."""
    machine = re.search(r"low on memory.* was ([\d.]+)GB used / ([\d.]+)GB", text, re.DOTALL)
    if machine is None:
        return None
    had = max(map(float, re.findall(r"memory used=([\d.]+)GB", text)), default=0.0)
    return (
        f"needed more than the {had:g} GB that its process had: {machine[1]} of the machine's "
        f"{machine[2]} GB were in use"
    )


class _Loop(Callback):  # type: ignore[misc]
    """What else Tune's loop tells."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        self._bridge.tick()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._bridge.start(trial)

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        # Else Tune would keep the reports, and the models in them.
        result.pop(REPORT, None)


def _end_process(dead: Sequence[str], way_on: str) -> NoReturn:
    """Ends this process because Ray's died, and says so."""
    sys.stdout.flush()
    terminal = sys.__stdout__  # not what a view of the progress has put in its place
    if terminal is not None and terminal.isatty():
        terminal.write(SHOW_CURSOR)
        terminal.flush()
    # Whoever stopped everything at once asked for that.
    asked = bool(INTERRUPTIONS.received)
    why = "were ended too" if asked else "died, as they do where memory runs out"
    sys.stderr.write(
        f"\npodium: Ray's own processes on this machine ({', '.join(dead)}) {why}. "
        f"What was committed is kept; {way_on}.\n"
    )
    sys.stderr.flush()
    os._exit(INTERRUPTIONS.exit_code if asked else StudyFailed.exit_code)


@contextmanager
def _watched(way_on: str) -> Iterator[None]:
    """Ends this process where Ray's own processes on this machine die under it.

    Ray's client would wait for them for a minute, deaf to everything, and then abort with a stack
    trace. To end at once is as safe as to be killed: the ledger has all that was heard.

    Args:
        way_on: how the study goes on then, as a clause.
    """
    node, over = ray._private.worker._global_node, threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_SECONDS):
            dead = sorted(VITAL & {name for name, _ in node.dead_processes()})
            if dead and not over.is_set():
                _end_process(dead, way_on)

    thread = threading.Thread(target=watch, name="podium-ray", daemon=True)
    if node is not None:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if node is not None:
            thread.join()


def run_experiment(
    director: Director,
    data: TrainingData,
    space: SpaceSource,
    *,
    concurrent: int,
    cpus_per_trial: int,
    gpus_per_trial: float,
    folder: Path,
    way_on: str,
) -> None:
    """Runs the director's jobs until it is finished, on `concurrent` processes from first to last.

    Args:
        director: called from this thread only, and from inside Tune's loop: it must not block.
        data: put into the object store once.
        space: opened by each worker.
        concurrent: jobs at once.
        cpus_per_trial: also the number of TensorFlow's threads.
        gpus_per_trial: may be a fraction.
        folder: for what Tune writes, in a folder of its own; that is removed at the end, and at the
            beginning, if an earlier process was killed: nothing reads it.
        way_on: how the study goes on where Ray breaks down under it, as a clause.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once, when each running job has reached a rung
            or its time for that is over; every trial has left a checkpoint. Twice: at once.
        Whatever the director raises.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(concurrent)
    # Tune would hand the driver's AWS credentials to every worker, by way of Ray's own records.
    ENV_VARS_TO_PROPAGATE.difference_update([n for n in ENV_VARS_TO_PROPAGATE if is_secret(n, "")])
    for name in ("ray.tune", "ray.air", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    bridge = _Bridge(director, concurrent)
    context = ray.put((data, space, cpus_per_trial))
    trainable = tune.with_resources(
        _Trial, {"CPU": cpus_per_trial, **({"GPU": gpus_per_trial} if gpus_per_trial else {})}
    )
    shutil.rmtree(folder / TUNE_FOLDER, ignore_errors=True)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=_Searcher(bridge, context),
            scheduler=_Scheduler(bridge),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: f"trial_{trial.trial_id}",
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(folder.resolve()),
            callbacks=[_Loop(bridge)],
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    try:
        with _watched(way_on), INTERRUPTIONS.deferred():
            tuner.fit()
    except KeyboardInterrupt:
        if bridge.failure is None:
            raise
    finally:
        shutil.rmtree(folder / TUNE_FOLDER, ignore_errors=True)
    if bridge.failure is not None:
        raise bridge.failure


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
