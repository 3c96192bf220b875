"""Faults of the machine: processes killed outright, a full disk, a clock that is set back."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from search.records import State
from tests.faults.checks import Snapshot, all_of, differences, lost, query, snapshot
from tests.faults.driver import Driver, end_leftovers
from tests.faults.outcome import FaultOutcome, NotPossibleHere, Scenario

HERE = Path(__file__).parent
STUDY = "cut"
SPACE = ("--study", STUDY, "--space", str(HERE / "space.py"), "--max-epochs", "9")
WHOLE = (*SPACE, "--trials", "6", "--finalists", "1", "--confirm-seeds", "2", "--concurrent", "2")
WHOLE_TRIALS = 6 + 2 * 2
ALONE = (
    *(*SPACE, "--trials", "5", "--finalists", "0", "--concurrent", "1"),
    # A kill may hit the trial after the one that it was meant for: no trial runs out of attempts.
    *("--sampler", "random", "--reduction", "2", "--retries", "20"),
)
ALONE_TRIALS = 5
KILLS_PER_STUDY = 5
DISK_BYTES = 256 * 2**20
DISK_SECONDS = 150.0
RAY_SECONDS = 150.0
HOUR = 3600


@dataclass(frozen=True)
class Pace:
    """How fast an undisturbed study is here.

    Attributes:
        warm: seconds from its begin to its first epoch.
        whole: seconds from its begin to the end of the process.
        end: what the ledger held then.
    """

    warm: float
    whole: float
    end: Snapshot


def undisturbed(folder: Path, *words: str) -> Pace:
    """Runs a study to its end in a new folder."""
    folder.mkdir(parents=True)
    driver = Driver("run", *words, folder=folder)
    try:
        driver.wait_until_started()
        began, began_ms = time.monotonic(), time.time() * 1000
        code = driver.wait()
        whole = time.monotonic() - began
    finally:
        driver.end()
    if code != 0:
        raise RuntimeError(f"the undisturbed study ended with {code}: {driver.err}")
    end = snapshot(folder, STUDY)
    first_ms = min(item.timestamp_ms for epochs in end.epochs.values() for item in epochs)
    return Pace((first_ms - began_ms) / 1000, whole, end)


# kill -9 the driver


def kill_driver(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Kills drivers at random moments of their studies, several times in succession each."""
    pace = undisturbed(folder / "undisturbed", *WHOLE)
    yield from _over_studies(_killed_study, folder, pace, repeat, seed)


def _over_studies(
    kill: Callable[[Path, Pace, int, random.Random], list[FaultOutcome]],
    folder: Path,
    pace: Pace,
    repeat: int,
    seed: int,
) -> Iterator[FaultOutcome]:
    """Study after study, until there were `repeat` kills."""
    rng, left = random.Random(seed), repeat
    for number in range(2 * repeat):
        kills = kill(folder / f"study-{number}", pace, min(left, KILLS_PER_STUDY), rng)
        left -= len(kills)
        yield from kills
        if not left:
            return
    raise RuntimeError(f"{left} of {repeat} kills could not be made: studies end too early")


@dataclass
class _Kill:
    at: str
    before: Snapshot
    family: list[psutil.Process]
    losses: list[str]
    seconds_repeated: float
    seconds: float


def _killed_study(folder: Path, pace: Pace, count: int, rng: random.Random) -> list[FaultOutcome]:
    """One study whose driver is killed up to `count` times; fewer if it ends before the last."""
    folder.mkdir(parents=True)
    moments = [(i + rng.random()) / count * 0.95 for i in range(count)]
    kills: list[_Kill] = []
    ended, reached = False, 0.0
    for moment in moments:
        delay = pace.warm + (moment - reached) * (pace.whole - pace.warm)
        if rng.random() < 0.1:  # one in ten before anything is trained
            delay = rng.uniform(0.0, pace.warm)
        else:
            reached = moment
        kill = _start_and_kill(folder, delay, pace.warm)
        if kill is None:
            ended = True
            break
        kills.append(kill)
        if kill.before.phase == "end":
            ended = True
            break
    losses = [] if ended else _resumed(folder)
    found = snapshot(folder, STUDY)
    losses += all_of(folder, found, WHOLE_TRIALS, concluded=True)
    losses += _ended_for_good(folder)
    for kill in kills:
        kill.losses += [f"{name} outlived its driver" for name in end_leftovers(kill.family)]
    if kills:
        kills[-1].losses += losses
    elif losses:
        raise RuntimeError(f"an undisturbed study went wrong: {losses}")
    return [
        FaultOutcome(
            fault="driver",
            at=kill.at,
            injected=1,
            losses=[*kill.losses, *lost(kill.before, found)],
            seconds_repeated=kill.seconds_repeated,
            seconds=kill.seconds,
        )
        for kill in kills
    ]


def _command(folder: Path) -> tuple[str, ...]:
    """What a user types next: `run`, or `resume` where the ledger knows the study."""
    begun = snapshot(folder, STUDY).study is not None
    return ("resume", STUDY) if begun else ("run", *WHOLE)


def _start_and_kill(folder: Path, delay: float, warm: float) -> _Kill | None:
    """Goes on with the study and kills its driver `delay` seconds later; None if it ended first."""
    driver = Driver(*_command(folder), folder=folder)
    losses = []
    try:
        if driver.wait_until_started():
            began = time.monotonic()
            while driver.is_running() and time.monotonic() - began < delay:
                time.sleep(0.02)
        if not driver.is_running():
            if driver.wait() != 0:
                losses.append(f"podium {driver.words[0]} ended with {driver.wait()}: {driver.err}")
                found = snapshot(folder, STUDY)
                return _Kill("its own end", found, [], losses, 0.0, driver.seconds)
            return None
        killed_ms = time.time() * 1000
        warm_ms = killed_ms - 1000 * (delay - warm)
        family = driver.kill()
    finally:
        driver.end()
    before = snapshot(folder, STUDY)
    repeated = sum(
        max(0.0, killed_ms - max(warm_ms, kept_ms)) / 1000 for kept_ms in _kept_ms(folder, before)
    )
    at = f"{before.phase}, {delay:.0f} s after it began to {driver.words[0]}"
    return _Kill(at, before, family, losses, repeated, driver.seconds)


def _kept_ms(folder: Path, found: Snapshot) -> Iterator[float]:
    """For each trial under way, when the state was left that it goes on from."""
    checkpoints = folder / "runs" / "studies" / STUDY / "checkpoints"
    for trial in found.running:
        written = [p.stat().st_mtime * 1000 for p in checkpoints.glob(f"{trial.number:03d}-*.npz")]
        yield max([*written, float(trial.started_ms)])


def _resumed(folder: Path) -> list[str]:
    """Goes on with the study to its end."""
    driver = Driver(*_command(folder), folder=folder)
    try:
        code = driver.wait()
    finally:
        driver.end()
    return [] if code == 0 else [f"podium {driver.words[0]} ended with {code}: {driver.err}"]


def _ended_for_good(folder: Path) -> list[str]:
    """A study that has ended is not run again."""
    driver = Driver("resume", STUDY, folder=folder)
    try:
        code = driver.wait()
    finally:
        driver.end()
    refused = code == 2 and "has ended" in driver.err
    return [] if refused else [f"resuming a study that has ended gave {code}: {driver.err}"]


# kill -9 a training process


def kill_worker(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Kills training processes at random, while trials are trained one after the other."""
    pace = undisturbed(folder / "undisturbed", *ALONE)
    yield from _over_studies(_killed_workers, folder, pace, repeat, seed)


def _killed_workers(folder: Path, pace: Pace, count: int, rng: random.Random) -> list[FaultOutcome]:
    folder.mkdir(parents=True)
    driver = Driver("run", *ALONE, folder=folder)
    kills: list[FaultOutcome] = []
    began = time.monotonic()
    try:
        driver.wait_until_started()
        while len(kills) < count and driver.is_running():
            # From when the process is nearly ready to train, to when its trial would end.
            delay = rng.uniform(0.7 * pace.warm, pace.warm + rng.random() * _longest(pace))
            kill = _kill_one_worker(driver, folder, delay, pace.warm)
            if kill is not None:
                kills.append(replace(kill, seconds=time.monotonic() - began))
                began = time.monotonic()
        code = driver.wait()
    finally:
        driver.end()
    found = snapshot(folder, STUDY)
    losses = [] if code == 0 else [f"podium run ended with {code}: {driver.err}"]
    losses += all_of(folder, found, ALONE_TRIALS, concluded=False)
    losses += differences(pace.end, found)
    if kills:
        kills[-1].losses.extend(losses)
    elif losses:
        raise RuntimeError(f"an undisturbed study went wrong: {losses}")
    return kills


def _longest(pace: Pace) -> float:
    return max(sum(e.epoch_seconds for e in epochs) for epochs in pace.end.epochs.values())


def _kill_one_worker(
    driver: Driver, folder: Path, delay: float, warm: float
) -> FaultOutcome | None:
    """Waits for a new worker, and `delay` seconds after; None if the study ended before."""
    while driver.is_running() and not driver.workers():
        time.sleep(0.1)
    began = time.monotonic()
    while driver.is_running():
        running = query(folder, "SELECT number FROM trials WHERE state = 'running'")
        workers, due = driver.workers(), time.monotonic() - began >= delay
        if due and running and workers:
            break
        time.sleep(0.05)
    else:
        return None
    [[number]], killed_ms = running, time.time() * 1000
    for worker in workers:
        worker.kill()
    found = snapshot(folder, STUDY)
    kept_ms = max([*_kept_ms(folder, found), killed_ms - 1000 * (delay - warm)])
    at = f"trial {number}, {len(found.epochs[number])} epochs known"
    repeated = max(0.0, (killed_ms - kept_ms) / 1000)
    left = end_leftovers(workers)
    return FaultOutcome("worker", at, 1, [f"{name} outlived kill -9" for name in left], repeated, 0)


# kill -9 every Ray process


def kill_ray(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Kills all of Ray, but not the driver, in the middle of the search; then resumes."""
    rng = random.Random(seed)
    for number in range(repeat):
        own = folder / f"study-{number}"
        own.mkdir(parents=True)
        driver = Driver("run", *WHOLE, folder=own)
        try:
            wanted = rng.randint(3, 14)
            found = _wait_for_epochs(driver, own, wanted)
            for process in driver.family():
                process.kill()
            killed = time.monotonic()
            losses = _said(driver, driver.wait(RAY_SECONDS), wanted=(0, 3))
            dying = time.monotonic() - killed
        finally:
            driver.end()
        at = f"search, {wanted} epochs known; the driver ended {dying:.0f} s later"
        yield _gone_on("ray", at, own, found, losses, driver)


def _wait_for_epochs(driver: Driver, folder: Path, wanted: int) -> Snapshot:
    """Waits until so many epochs are in the ledger."""
    driver.wait_until_started()
    while driver.is_running():
        if query(folder, "SELECT count(*) FROM epochs") >= [(wanted,)]:
            return snapshot(folder, STUDY)
        time.sleep(0.05)
    raise RuntimeError(f"the study ended before {wanted} epochs: {driver.err}")


def _said(driver: Driver, code: int | None, wanted: tuple[int, ...]) -> list[str]:
    """Breaches of: a known exit code, and where that is not 0, one paragraph that says why."""
    if code is None:
        return ["the driver did not end"]
    losses = [] if code in wanted else [f"the driver ended with {code}"]
    lines = [line for line in driver.err.splitlines() if line.strip()]
    clear = lines and all("podium: " in line for line in lines[:1]) and len(lines) <= 4
    if code != 0 and not clear:
        losses.append(f"the message was not one paragraph: {driver.err[-2000:]}")
    return losses


def _gone_on(
    fault: str, at: str, folder: Path, before: Snapshot, losses: list[str], driver: Driver
) -> FaultOutcome:
    """What came of it once the study was resumed, where it had not ended."""
    seconds, began = driver.seconds, time.monotonic()
    killed = snapshot(folder, STUDY)
    repeated = _trained_since_kept(folder, killed)
    if killed.study is None or killed.study.state is not State.COMPLETED:
        losses += _resumed(folder)
    found = snapshot(folder, STUDY)
    losses += lost(before, found)
    losses += all_of(folder, found, WHOLE_TRIALS, concluded=True)
    seconds += time.monotonic() - began
    return FaultOutcome(fault, at, 1, losses, repeated, seconds)


def _trained_since_kept(folder: Path, found: Snapshot) -> float:
    """Seconds of the epochs that were reported since the last checkpoints of unfinished trials."""
    checkpoints = folder / "runs" / "studies" / STUDY / "checkpoints"
    seconds = 0.0
    for trial in found.trials.values():
        if trial.state in (State.RUNNING, State.INTERRUPTED):
            paths = checkpoints.glob(f"{trial.number:03d}-*.npz")
            kept = max((int(p.stem.partition("-")[2]) for p in paths), default=0)
            again = (e for e in found.epochs[trial.number] if e.epoch > kept)
            seconds += sum(e.epoch_seconds for e in again)
    return seconds


# A disk that is full


def fill_disk(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Fills the file system under `runs/` in the middle of the search; then makes space again."""
    rng = random.Random(seed)
    for number in range(repeat):
        own = folder / f"study-{number}"
        with _small_disk(own / "runs"):
            driver = Driver("run", *WHOLE, folder=own)
            try:
                wanted = rng.randint(3, 14)
                found = _wait_for_epochs(driver, own, wanted)
                _fill(own / "runs" / "filler")
                losses = _said(driver, driver.wait(DISK_SECONDS), wanted=(3,))
            finally:
                driver.end()
            (own / "runs" / "filler").unlink()
            at = f"search, {wanted} epochs known"
            yield _gone_on("disk", at, own, found, losses, driver)


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "podium", str(path)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotPossibleHere(f"mount: {error.strerror}") from None
    if done.returncode:
        raise NotPossibleHere(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _fill(path: Path) -> None:
    """Takes all the space there is."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


# A clock that is set back


def set_clock_back(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Sets the wall clock of a study's processes back by an hour in the middle of the search."""
    rng = random.Random(seed)
    for number in range(repeat):
        own = folder / f"study-{number}"
        own.mkdir(parents=True)
        offset = own / "offset"
        offset.write_text("0")
        path = os.pathsep.join([str(HERE / "clock"), str(HERE.parents[1])])
        driver = Driver("run", *WHOLE, folder=own, PYTHONPATH=path, CLOCK_OFFSET=str(offset))
        losses = []
        try:
            wanted = rng.randint(3, 14)
            found = _wait_for_epochs(driver, own, wanted)
            offset.write_text(str(-HOUR))
            code = driver.wait()
        finally:
            driver.end()
        if code:
            losses.append(f"podium run ended with {code}: {driver.err}")
        at = f"search, {wanted} epochs known"
        ended = snapshot(own, STUDY)
        times = [item.timestamp_ms for epochs in ended.epochs.values() for item in epochs]
        if max(times, default=0) - min(times, default=0) < 0.9 * HOUR * 1000:
            losses.append("the clock did not jump for the training processes")
        yield _gone_on("clock", at, own, found, losses, driver)


KILLS: dict[str, Scenario] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "ray": kill_ray,
    "disk": fill_disk,
    "clock": set_clock_back,
}
ABOUT = {
    "driver": "kill -9 the driver, at random moments of the whole study",
    "worker": "kill -9 a training process, at random",
    "ray": "kill -9 every Ray process, in the middle of the search",
    "disk": "disk full under runs/, in the middle of the search",
    "clock": "clock set back an hour, in the middle of the search",
}
