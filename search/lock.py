"""One writer for each study: a lock that dies with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from search.records import ConfigError

LOCK_NAME = "lock"


@contextmanager
def held(study: str, folder: Path, now_ms: int) -> Iterator[None]:
    """Holds the lock of a study; the system lets go of it when the process ends, however it ends.

    Raises:
        ConfigError: another process holds it; the message says which.
    """
    path = folder / LOCK_NAME
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(
                f"Study {study} is being run by {_holder(file.read())}. Wait until that has ended, "
                "or end it; what it recorded is kept."
            ) from None
        file.truncate(0)
        since = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        file.write(json.dumps(holder))
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
