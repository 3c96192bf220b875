"""What comes before the first trial."""

from __future__ import annotations

from search.launch import SteadyClock

SECOND = 10**9


def test_a_clock_that_is_set_back_goes_on_from_where_it_was() -> None:
    wall, steady = [5_000 * SECOND], [7 * SECOND]
    clock = SteadyClock(lambda: wall[0], lambda: steady[0])
    wall[0] += 2 * SECOND
    steady[0] += 2 * SECOND
    assert clock.now_ms() == 5_002_000
    wall[0] -= 3_600 * SECOND
    assert clock.now_ms() == 5_002_000
    wall[0] += 10 * SECOND
    steady[0] += 10 * SECOND
    assert clock.now_ms() == 5_012_000


def test_time_that_a_machine_slept_counts() -> None:
    wall = [5_000 * SECOND]
    clock = SteadyClock(lambda: wall[0], lambda: 7 * SECOND)
    wall[0] += 3_600 * SECOND
    assert clock.now_ms() == 8_600_000
