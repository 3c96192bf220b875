"""Ctrl-C and SIGTERM: the first asks a study to stop, the second ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PATIENT_FOR = 2
"""So many signals are only counted while they are deferred; the next one is raised."""


class Interruptions:
    """The signals that were sent to end this process."""

    def __init__(self) -> None:
        """Begins without any; nothing is taken over before `listen`."""
        self.received: list[int] = []
        self._deferred = False

    def listen(self) -> None:
        """Takes over SIGINT and SIGTERM: each is raised as a KeyboardInterrupt.

        From Ray, too, whose handler of SIGTERM stops its processes and raises SystemExit.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._receive)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """While entered, the first two signals are only counted."""
        self.listen()
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @property
    def exit_code(self) -> int:
        """What a shell makes of the first one: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.received[0] if self.received else signal.SIGINT)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if not self._deferred or len(self.received) > PATIENT_FOR:
            raise KeyboardInterrupt


INTERRUPTIONS = Interruptions()
"""Of this process: signals are its, not a study's."""
