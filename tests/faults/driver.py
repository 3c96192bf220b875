"""A `podium` process that can be killed, and the processes that belong to it."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.running import environment

STARTED = "Ray local"
"""What a driver prints once its study begins."""
TRAINING = ("ray::_Trial", "ray::ResourceTrainable")
"""How Ray calls a process that trains, by the class of its actor."""
DYING_SECONDS = 150.0
"""Ray's agents look for their cluster for a minute before they give up."""
_numbers = itertools.count()


class Driver:
    """One `podium WORDS` in a folder; what it prints goes into files there."""

    def __init__(self, *words: str, folder: Path, **variables: str) -> None:
        """Starts it."""
        self.words, number = words, next(_numbers)
        self._out, self._err = folder / f"{number}.out", folder / f"{number}.err"
        self.began = time.monotonic()
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "search", *words],
                cwd=folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has complained of so far."""
        return self._err.read_text()

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.began

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def wait_until_started(self, seconds: float = 300.0) -> bool:
        """Waits until its study begins; False if it does not."""
        deadline = time.monotonic() + seconds
        while STARTED not in self.out:
            if not self.is_running():
                return False
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def wait(self, seconds: float = 900.0) -> int | None:
        """Waits until it has ended; gives its exit code, or None where it had to be killed."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            return None

    def family(self) -> list[psutil.Process]:
        """The processes that it started, and those that these started: Ray's."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        """Those that train."""
        return [p for p in self.family() if _title(p).startswith(TRAINING)]

    def kill(self) -> list[psutil.Process]:
        """Kills it outright, and nothing else; gives the processes that must follow it."""
        family = self.family()
        self.process.kill()
        self.process.wait()
        return family

    def end(self) -> None:
        """Makes sure that nothing of it is left, if it is still running."""
        if self.is_running():
            end_leftovers(self.kill(), seconds=5.0)


def end_leftovers(family: list[psutil.Process], seconds: float = DYING_SECONDS) -> list[str]:
    """Waits for processes to end by themselves; kills those that do not, and names them."""
    deadline = time.monotonic() + seconds
    while (left := [p for p in family if _is_alive(p)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    names = []
    for process in left:
        names.append(" ".join(_title(process).split())[:80])
        if _is_alive(process):
            process.kill()
    return names


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) or process.name()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""
