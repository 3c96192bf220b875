"""Python imports this at start: the wall clock of a process follows the file CLOCK_OFFSET names.

The file holds seconds to be added, and may change at any time. What only ever goes forward
(`time.monotonic`, `time.perf_counter`) is left alone, as when an administrator sets the clock.
"""

import os
import time

_path = os.environ.get("CLOCK_OFFSET", "")
_time_ns = time.time_ns


def _shifted_ns() -> int:
    try:
        with open(_path) as file:
            offset = int(file.read() or 0)
    except OSError:
        offset = 0
    return _time_ns() + offset * 10**9


if _path:
    time.time_ns = _shifted_ns
    time.time = lambda: _shifted_ns() / 1e9
