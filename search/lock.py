"""One writer for each study: locks that die with the process that holds them."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO, cast

from search.database import SOMEBODY, Database, held_by, since
from search.records import ConfigError, InUse

LOCK_NAME = "lock"
HOST_LENGTH = 40
LOOKS = 10
SECONDS_BETWEEN_LOOKS = 0.05


@contextmanager
def held(study: str, folder: Path, database: Database, now_ms: int) -> Iterator[None]:
    """Holds the lock of a study; it is let go of when the process ends, however it ends.

    Args:
        study: its name.
        folder: its own, with its checkpoints: one process at a time.
        database: with its ledger, which processes in other folders, or on other machines where it
            is on a server, may share.
        now_ms: the clock.

    Raises:
        InUse: another process holds it; the message says which.
    """
    with ExitStack() as locks:
        for path in _paths(study, folder, database):
            locks.enter_context(_file_held(study, path, now_ms))
        locks.enter_context(database.study_locked(study, _this_process()))
        yield


def check_free(study: str, folder: Path, database: Database) -> None:
    """Makes sure that nobody holds the lock of a study now, and writes nothing.

    A file's lock has to be taken for a moment; whoever comes just then tries again.

    Raises:
        InUse: another process holds it; the message says which.
    """
    for path in _paths(study, folder, database):
        if path.exists():
            with _opened(path, "r+") as file:
                _take(study, path, file)
    database.check_unlocked(study)


def _paths(study: str, folder: Path, database: Database) -> list[Path]:
    paths = [folder / LOCK_NAME]
    if database.path is not None and folder.resolve().parents[1] != database.path.resolve().parent:
        paths.append(_shared_path(study, database.path))
    return paths


def is_of_another_folder(study: str, database: Database, runs: Path) -> bool:
    """Whether a study may have been run elsewhere than in `runs`, which does not hold it.

    It was, where a ledger on a server, or of another folder, has it; or where somebody who shares
    the ledger of this folder left a lock beside it.
    """
    path = database.path
    own = path is not None and path.resolve() == runs.resolve() / path.name
    return path is None or not own or _shared_path(study, path).exists()


def _shared_path(study: str, ledger: Path) -> Path:
    """Of a lock beside a ledger, for those who run studies in other folders."""
    # Beside the file itself: each of its links would have a lock of its own.
    path = ledger.resolve()
    return path.with_name(f"{path.name}.{study}.{LOCK_NAME}")


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()[:HOST_LENGTH]}"


@contextmanager
def _file_held(study: str, path: Path, now_ms: int) -> Iterator[None]:
    with _opened(path, "a+") as file:
        _take(study, path, file)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since(now_ms)}
        try:
            file.truncate(0)
            file.write(json.dumps(holder))
            file.flush()
        except OSError as error:
            raise ConfigError(f"The lock {path} cannot be written: {error.strerror}.") from None
        yield


def _opened(path: Path, mode: str) -> TextIO:
    try:
        return cast(TextIO, path.open(mode, encoding="utf-8", errors="replace"))
    except OSError as error:
        raise ConfigError(f"The lock {path} cannot be opened: {error.strerror}.") from None


def _take(study: str, path: Path, file: TextIO) -> None:
    """Locks the file for as long as it is open.

    While it names nobody who lives, it is tried again a few times: somebody only looks at it, or
    took it a moment ago and has not written that yet.
    """
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if holder := _holder(file):
                raise InUse(held_by(study, holder)) from None
        except OSError as error:
            raise ConfigError(
                f"The lock {path} cannot be taken: {error.strerror}. Work in a folder of a file "
                "system that has locks."
            ) from None
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise InUse(held_by(study, SOMEBODY))


def _holder(file: TextIO) -> str | None:
    """Who it is; None where the file names nobody who lives."""
    file.seek(0)
    try:
        holder = json.loads(file.read())
        if holder["host"] != socket.gethostname() or _lives(int(holder["pid"])):
            return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError, OverflowError):
        pass
    return None


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
