"""How well Podium chooses in simulated studies, where the truth is known; writes a page on it.

    python benchmarks/selection.py --data-dir ../shared/data --write

Ends with 1 when the default policy misses a goal. Needs onnxruntime, which the extra `test`
installs, and takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for `benchmarks`, when run as a script

from benchmarks.simulation import (
    BEST_FINALIST,
    DEFAULTS,
    SAMPLE,
    SINGLE,
    DataSet,
    Key,
    Landscape,
    Luck,
    Outcome,
    Plan,
    alone,
    play,
    survey,
    task_codes,
)
from search.arrays import VALIDATION_FRACTION
from search.settings import CORRECTIONS, POLICIES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "selection.md"
TEMPLATE = Path(__file__).with_name("selection.md.j2")
DATA_SETS = (
    DataSet("189908", "Fashion-MNIST", 784, 10),
    DataSet("167152", "mfeat-factors", 216, 10),
    DataSet("189906", "segment", 19, 7),
)
MAIN_TASKS = tuple(data.task for data in DATA_SETS)
NOISES = (0.2, 0.5, 1.0)
GOAL_NOISES = (0.2, 0.5)
BELOW_GOAL = 0.05
"""Points below the truly best, on average."""
RATIO_GOAL = 0.25
"""How often worse than the baseline, as a part of how often the best single score is."""
MAIN = {noise: Plan(Luck(noise)) for noise in NOISES}
HALF = MAIN[0.5]
SIZES = sorted(
    {*itertools.product((3, 4, 5, 8), (3, 5, 8)), (DEFAULTS.finalists, DEFAULTS.confirm_seeds)},
    key=lambda size: (size[0] + 1) * size[1],
)
"""Finalists and seeds that are compared, by the trainings that they cost."""
OTHER_LUCK = {
    "as above: 40% of the variance of a run shared": Luck(0.5),
    "nothing shared": Luck(0.5, shared=0.0),
    "70% shared": Luck(0.5, shared=0.7),
    "20% of a candidate's own variance in all of its runs": Luck(0.5, pool=VALIDATION_FRACTION),
}


def all_plans() -> list[Plan]:
    """Each once."""
    sizes = [
        Plan(Luck(noise), *size, correction)
        for noise, size, correction in itertools.product(GOAL_NOISES, SIZES, CORRECTIONS)
    ]
    others = itertools.starmap(
        lambda luck, correction: replace(HALF, luck=luck, correction=correction),
        itertools.product(OTHER_LUCK.values(), CORRECTIONS),
    )
    return list(dict.fromkeys([*MAIN.values(), *sizes, *others]))


# All studies, on two processes


@functools.lru_cache(maxsize=2)
def surveyed(data: DataSet, folder: Path) -> Landscape:
    """Once in each process."""
    return survey(data, folder)


def run(data: DataSet, plan: Plan, numbers: range, folder: Path) -> dict[Key, list[Outcome]]:
    """Some studies of one data set, in a process of the pool."""
    return play(data, surveyed(data, folder), plan, numbers)


Job = tuple[DataSet, Plan, range, Path]


def all_jobs(folder: Path, studies: int) -> Iterator[Job]:
    """By data set, so that a process asks the surrogate once; fewer for those not chosen."""
    for data, plan in itertools.product(DATA_SETS, all_plans()):
        half = studies // 2
        yield data, plan, range(half), folder
        yield data, plan, range(half, studies), folder
    for task in task_codes(folder):
        if task not in MAIN_TASKS:
            yield DataSet(task, task), HALF, range(few(studies)), folder


def few(studies: int) -> int:
    """How many there are of each data set that is not among the three."""
    return max(2, studies // 5)


def fresh_jobs(folder: Path, studies: int) -> Iterator[Job]:
    """Studies that had no part in the choice of the defaults."""
    for data, noise in itertools.product(DATA_SETS, GOAL_NOISES):
        yield data, MAIN[noise], range(studies, 2 * studies), folder


def run_all(jobs: Sequence[Job]) -> dict[Key, list[Outcome]]:
    """On two processes, with a line of progress now and then."""
    outcomes: dict[Key, list[Outcome]] = {}
    began = time.perf_counter()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for done, found in enumerate(pool.map(run, *zip(*jobs, strict=True)), start=1):
            for key, listed in found.items():
                outcomes.setdefault(key, []).extend(listed)
            if done % 20 == 0 or done == len(jobs):
                seconds = time.perf_counter() - began
                print(f"{done} of {len(jobs)} jobs, {seconds:.0f} s", flush=True)
    return outcomes


# Figures

Outcomes = Mapping[Key, Sequence[Outcome]]


@dataclass(frozen=True)
class Record:
    """How well one way to choose did over studies.

    Attributes:
        below: mean points below the truly best, as is its 95th percentile `high`.
        error: standard error of `below` over the studies.
        worse: how often truly worse than the baseline, as a fraction.
        ratio: `worse` by that of the best single score.
        size: parameters by those of the best single score; geometric mean.
    """

    below: float
    error: float
    high: float
    worse: float
    ratio: float
    size: float

    @property
    def is_near(self) -> bool:
        """Whether it meets the goal for points below the best."""
        return self.below <= BELOW_GOAL

    @property
    def is_safe(self) -> bool:
        """Whether it meets the goal for the baseline."""
        return self.ratio <= RATIO_GOAL


def record(outcomes: Outcomes, plan: Plan, way: str, tasks: Sequence[str] = MAIN_TASKS) -> Record:
    """Over some data sets together."""
    own, single = (
        np.array([outcome for task in tasks for outcome in outcomes[plan, task, name]])
        for name in (way, SINGLE)
    )
    below, worse, log_size = own.T
    of_single = single[:, 1].mean()
    return Record(
        below=float(below.mean()),
        error=float(below.std(ddof=1) / math.sqrt(len(below))),
        high=float(np.percentile(below, 95)),
        worse=float(worse.mean()),
        ratio=float(worse.mean() / of_single) if of_single else (math.inf if worse.any() else 0.0),
        size=math.exp(log_size.mean()),
    )


# The page


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; all but the first column are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goal_table(outcomes: Outcomes) -> str:
    """The default policy beside the goals, on all data sets together and on each."""
    sets = [("all three", MAIN_TASKS), *((data.name, (data.task,)) for data in DATA_SETS)]
    rows = []
    for noise, (name, tasks) in itertools.product(GOAL_NOISES, sets):
        single = record(outcomes, MAIN[noise], SINGLE, tasks)
        own = record(outcomes, MAIN[noise], DEFAULTS.policy, tasks)
        rows.append(
            [
                f"{noise:g}, {name}",
                f"{single.below:.3f}",
                f"{own.below:.3f} ± {2 * own.error:.3f}{'' if own.is_near else ' (missed)'}",
                f"{single.worse:.1%}",
                f"{own.worse:.1%}",
                f"{own.ratio:.2f}{'' if own.is_safe else ' (missed)'}",
                f"{own.size:.2f}",
            ]
        )
    head = ["noise, data", "single: below", f"below (goal: {BELOW_GOAL})", "single: worse", "worse"]
    return table([*head, f"ratio (goal: {RATIO_GOAL})", "size"], rows)


def policy_table(outcomes: Outcomes, noise: float) -> str:
    """Every policy, without and with confirmation."""

    def figures(way: str) -> list[str]:
        own = record(outcomes, MAIN[noise], way)
        return [f"{own.below:.3f}", f"{own.high:.2f}", f"{own.worse:.1%}", f"{own.size:.2f}"]

    rows = [[policy, *figures(alone(policy)), *figures(policy)] for policy in POLICIES]
    rows.append([BEST_FINALIST, *[""] * 4, *figures(BEST_FINALIST)])
    head = ["below", "95th", "worse", "size"]
    return table(["policy", *(f"single: {name}" for name in head), *head], rows)


COLUMNS = (
    *((f"one-standard-error, {name}", "one-standard-error", name) for name in CORRECTIONS),
    ("best-mean", "best-mean", DEFAULTS.correction),
)
"""What is compared by cost: title, policy and correction."""


def size_table(outcomes: Outcomes) -> str:
    """Finalists, seeds and correction; what meets both goals at every noise is bold."""
    rows = []
    for finalists, seeds in SIZES:
        row = [f"{finalists} on {seeds}", str(Plan(Luck(0.5), finalists, seeds).trainings)]
        for _, policy, correction in COLUMNS:
            own = record(outcomes, Plan(Luck(0.5), finalists, seeds, correction), policy)
            mark = "**" if meets(outcomes, (finalists, seeds), policy, correction) else ""
            row.append(f"{mark}{own.below:.3f}, {own.ratio:.2f}, {own.size:.2f}{mark}")
        rows.append(row)
    rows.append(["least that meets both goals", "", *least_training(outcomes, 0)])
    rows.append(["with two standard errors to spare", "", *least_training(outcomes, 2)])
    return table(["finalists on seeds", "trainings", *(title for title, *_ in COLUMNS)], rows)


def meets(
    outcomes: Outcomes, size: tuple[int, int], policy: str, correction: str, spare: float = 0.0
) -> bool:
    """Whether both goals are met at every noise that has goals.

    Args:
        spare: standard errors of `below` that it stays away from its goal.
    """
    plans = [Plan(Luck(noise), *size, correction) for noise in GOAL_NOISES]
    found = [record(outcomes, plan, policy) for plan in plans]
    return all(own.below + spare * own.error <= BELOW_GOAL and own.is_safe for own in found)


def least_training(outcomes: Outcomes, spare: float) -> list[str]:
    """Which finalists and seeds meet both goals for the least training, by policy."""
    said = []
    for _, policy, correction in COLUMNS:
        good = [size for size in SIZES if meets(outcomes, size, policy, correction, spare)]
        cost = [f"{f} on {s}, {(f + 1) * s} trainings" for f, s in good[:1]]
        said.append(cost[0] if cost else "none of these")
    return said


def luck_table(outcomes: Outcomes) -> str:
    """The same studies under other assumptions on noise."""
    rows = []
    for title, luck in OTHER_LUCK.items():
        row = [title]
        for _, policy, correction in COLUMNS:
            own = record(outcomes, replace(HALF, luck=luck, correction=correction), policy)
            row.append(f"{own.below:.3f}, {own.ratio:.2f}, {own.size:.2f}")
        rows.append(row)
    return table(["noise of a run", *(title for title, *_ in COLUMNS)], rows)


def page(outcomes: Outcomes, fresh: Outcomes, studies: int) -> str:
    """docs/selection.md.

    Args:
        fresh: of as many other studies, under the default plan.
    """
    others = sorted({task for plan, task, _ in outcomes if plan == HALF} - {*MAIN_TASKS})
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(TEMPLATE.name).render(
        defaults=DEFAULTS,
        trainings=HALF.trainings,
        below_goal=BELOW_GOAL,
        ratio_goal=RATIO_GOAL,
        sample=SAMPLE,
        studies=studies,
        few=few(studies),
        half={way: record(outcomes, HALF, way) for way in (SINGLE, BEST_FINALIST, *POLICIES)},
        goals=goal_table(outcomes),
        fresh={noise: record(fresh, MAIN[noise], DEFAULTS.policy) for noise in GOAL_NOISES},
        policies={noise: policy_table(outcomes, noise) for noise in NOISES},
        sizes=size_table(outcomes),
        luck=luck_table(outcomes),
        elsewhere=record(outcomes, HALF, DEFAULTS.policy, others),
        single_elsewhere=record(outcomes, HALF, SINGLE, others),
        each=[record(outcomes, HALF, DEFAULTS.policy, [task]) for task in others],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--studies", type=int, default=1_000, help="of each data set and plan")
    parser.add_argument("--write", action="store_true", help=f"writes docs/{PAGE.name}")
    arguments = parser.parse_args()
    folder = arguments.data_dir / "lcbench"
    if arguments.studies < 4 or not (folder / "model.onnx").is_file():
        parser.error(f"expected at least 4 studies, and the surrogate in {folder}")
    outcomes = run_all([*all_jobs(folder, arguments.studies)])
    fresh = run_all([*fresh_jobs(folder, arguments.studies)])
    text = page(outcomes, fresh, arguments.studies)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    print(goal_table(outcomes) if arguments.write else text)
    size = DEFAULTS.finalists, DEFAULTS.confirm_seeds
    raise SystemExit(not meets(outcomes, size, DEFAULTS.policy, DEFAULTS.correction))


if __name__ == "__main__":
    main()
