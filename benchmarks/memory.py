"""Resident memory of a worker from trial to trial, over configurations drawn from the mlp space.

    python benchmarks/memory.py --trials 100

The last trial must be within 10% of the tenth. The trials are what a search makes of them: other
shapes each time, two epochs, totals, on the embedded digits.
"""

from __future__ import annotations

import argparse
import os

import psutil

from search.data import load
from search.records import Assignment, Phase
from search.sampler import Sampler
from search.space import find_space, open_space
from search.worker import Worker, WorkerContext

GOAL = 1.10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100, help="at least 20")
    arguments = parser.parse_args()
    if arguments.trials < 20:
        parser.error("--trials must be at least 20")
    data = load("digits", None, seed=0).training
    source = find_space("mlp")
    sampler = Sampler("random", open_space(source), data.image_shape, seed=0)
    worker = Worker.in_own_process(WorkerContext(data, source, threads=1))
    process = psutil.Process(os.getpid())
    tenth = 0.0
    print(f"{'trial':>5}  {'MB':>7}")
    for number in range(arguments.trials):
        config = sampler.ask(number)
        if config is None:
            break
        worker.take(Assignment(number, Phase.SEARCH, config, number, 0, 2, ()))
        while not (report := worker.step()).final:
            pass
        if report.failure:
            raise SystemExit(f"trial {number} failed: {report.failure}")
        resident = process.memory_info().rss / 1e6
        if number == 9:
            tenth = resident
        if (number + 1) % 10 == 0:
            print(f"{number + 1:>5}  {resident:>7.1f}", flush=True)
    print(f"last / tenth = {resident / tenth:.3f} (goal: at most {GOAL:.2f})")
    raise SystemExit(int(resident / tenth > GOAL))


if __name__ == "__main__":
    main()
