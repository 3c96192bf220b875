"""Simulated studies, whose truth is known, and what Podium's own policies choose in them.

A study is 100 random configurations of a learning-curve surrogate (LCBench of YAHPO Gym), each
searched with one noisy score; the best by score and a baseline are confirmed on shared seeds.
Asking the surrogate needs onnxruntime, which the extra `test` installs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.arrays import VALIDATION_FRACTION
from search.records import Candidate, Criteria
from search.selection import recommend
from search.settings import StudySettings
from spaces.config import TrialConfig

DEFAULTS = StudySettings()
CONFIGURATIONS = 100
LAST_EPOCH = 52
SAMPLE = 20_000
"""Random configurations of which the surrogate is asked; studies draw theirs from these."""
STRONG = (96.5, 97.5)
"""Between these percentiles of the sample lies the truth of a baseline."""
MOST_FINALISTS = max(8, DEFAULTS.finalists)
MOST_SEEDS = max(8, DEFAULTS.confirm_seeds)
"""A study draws so many runs, so that fewer finalists or seeds are the same study cut short."""

SINGLE = "best single score"
BEST_FINALIST = "truly best finalist"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """One of the surrogate's tasks.

    Attributes:
        features: of an example; with `classes` it gives the size of a network.
    """

    task: str
    name: str
    features: int = 100
    classes: int = 10


@dataclass(frozen=True)
class Luck:
    """What comes between a configuration's truth and the score of a run.

    Attributes:
        own: standard deviation of what two candidates do not share on a seed, in points.
        shared: part of the variance of a run that all candidates have in common on a seed.
        pool: part of `own`'s variance that stays the same in every run of a candidate, because all
            splits are drawn from the same images.
    """

    own: float
    shared: float = 0.4
    pool: float = 0.0


@dataclass(frozen=True)
class Landscape:
    """Random configurations of a data set, and what they are truly worth.

    Attributes:
        settings: (n, 8), in the order of the surrogate's inputs.
        truth: validation accuracy at the last epoch, in percent.
        hidden: units per hidden layer of each network, as `parameters` is their number.
        strong: positions of those that may be a baseline.
    """

    settings: NDArray[np.float32]
    truth: Floats
    hidden: Sequence[tuple[int, ...]]
    parameters: Integers
    strong: Integers

    @classmethod
    def of(cls, settings: NDArray[np.float32], truth: Floats, data: DataSet) -> Landscape:
        """Adds the sizes of the networks, and which of them may be a baseline."""
        low, high = np.percentile(truth, STRONG)
        strong = np.flatnonzero((truth >= low) & (truth <= high))
        hidden = [widths(row, data.classes) for row in settings]
        sizes = np.array([parameter_count(layers, data) for layers in hidden])
        return cls(settings, truth, hidden, sizes, strong)

    def network(self, position: int) -> TrialConfig:
        """A configuration as Podium would train it."""
        row = self.settings[position]
        return TrialConfig(
            hidden=self.hidden[position],
            optimizer="sgd",
            batch_size=int(row[1]),
            learning_rate=float(row[2]),
            momentum=float(row[3]),
            dropout=float(row[7]),
        )


def widths(settings: NDArray[np.float32], classes: int) -> tuple[int, ...]:
    """Units per hidden layer of a funnel: from max_units in equal steps towards the classes."""
    layers, units = int(settings[5]), int(settings[6])
    return tuple(round(units + (classes - units) * i / layers) for i in range(layers))


def parameter_count(hidden: Sequence[int], data: DataSet) -> int:
    """Weights and biases of a dense network."""
    sizes = [data.features, *hidden, data.classes]
    return sum((before + 1) * after for before, after in itertools.pairwise(sizes))


def random_settings(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    """Drawn as the surrogate's own space says, all at the last epoch."""

    def log_uniform(low: float, high: float) -> Floats:
        return np.exp(rng.uniform(math.log(low), math.log(high), count))

    columns = [
        np.full(count, float(LAST_EPOCH)),
        np.floor(log_uniform(16, 513)),  # batch_size
        log_uniform(1e-4, 0.1),  # learning_rate
        rng.uniform(0.1, 0.99, count),  # momentum
        rng.uniform(1e-5, 0.1, count),  # weight_decay
        rng.integers(1, 6, count),  # num_layers
        np.floor(log_uniform(64, 1025)),  # max_units
        rng.uniform(0.0, 0.999, count),  # max_dropout
    ]
    return np.column_stack(columns).astype(np.float32)


def survey(data: DataSet, folder: Path, count: int = SAMPLE) -> Landscape:
    """Asks the surrogate in `folder` for the truth of random configurations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
    code = task_codes(folder)[data.task]
    settings = random_settings(np.random.default_rng(0), count)
    inputs = {"x_cat": np.full((count, 1), code, np.int32), "x_cont": settings}
    (output,) = session.run(None, inputs)
    return Landscape.of(settings, output[:, 1].astype(np.float64), data)


def task_codes(folder: Path) -> dict[str, int]:
    """The surrogate's code of each data set in its space."""
    space = json.loads((folder / "config_space.json").read_text())["hyperparameters"]
    listed = next(p["choices"] for p in space if p["name"] == "OpenML_task_id")
    codes = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"]
    return {task: int(codes[task]) for task in listed}


@dataclass(frozen=True)
class Study:
    """One simulated search and its confirmation. Accuracies in percent.

    Rows are positions among its configurations; the baseline is the last one.

    Attributes:
        chosen: positions in the landscape: the searched configurations, then the baseline.
        truth: of these, as are `parameters` and `gaps`.
        gaps: of training and validation; they tell nothing of the truth.
        scores: one for each searched configuration.
        ranking: rows of the searched configurations, best score first.
        runs: (finalists + 1, seeds), finalists by rank, then the baseline.
    """

    chosen: Integers
    truth: Floats
    parameters: Integers
    gaps: Floats
    scores: Floats
    ranking: Integers
    runs: Floats

    @property
    def baseline(self) -> int:
        """Its row."""
        return len(self.scores)

    @property
    def best_single(self) -> int:
        """The highest score of the search, which is what other tools recommend."""
        return int(self.ranking[0])

    @property
    def finalists(self) -> list[int]:
        """Rows of those that are confirmed, in the order of `runs`."""
        return [*self.ranking[: len(self.runs) - 1].tolist(), self.baseline]

    @property
    def best_finalist(self) -> int:
        """The truly best of those that were confirmed: no rule can do better."""
        return max(self.finalists, key=lambda row: float(self.truth[row]))


def simulate(
    landscape: Landscape, luck: Luck, seed: Sequence[int], finalists: int, seeds: int
) -> Study:
    """The same configurations and draws for the same seed, however large the noise."""
    rng = np.random.default_rng(seed)
    searched = rng.choice(len(landscape.truth), CONFIGURATIONS, replace=False)
    baseline = rng.choice(np.setdiff1d(landscape.strong, searched))
    chosen = np.append(searched, baseline)
    truth = landscape.truth[chosen]
    fresh = luck.own * math.sqrt(1 - luck.pool)
    suited = truth + luck.own * math.sqrt(luck.pool) * rng.standard_normal(len(chosen))
    # The search has one split for all of its trials: what they share ranks none above another.
    scores = (suited + fresh * rng.standard_normal(len(chosen)))[:-1]
    ranking = np.argsort(-scores, kind="stable")
    confirmed = np.append(ranking[:finalists], len(scores))
    return Study(
        chosen=chosen,
        truth=truth,
        parameters=landscape.parameters[chosen],
        scores=scores,
        ranking=ranking,
        runs=suited[confirmed][:, None] + noise_of_runs(luck, rng, finalists, seeds),
        gaps=rng.uniform(0.0, 4.0, len(chosen)),
    )


def noise_of_runs(luck: Luck, rng: np.random.Generator, finalists: int, seeds: int) -> Floats:
    """What the runs of finalists and baseline have of their own, and what they share on a seed."""
    own = (
        luck.own * math.sqrt(1 - luck.pool) * rng.standard_normal((MOST_FINALISTS + 1, MOST_SEEDS))
    )
    common = luck.own * math.sqrt(luck.shared / (1 - luck.shared))
    together = common * rng.standard_normal(MOST_SEEDS)
    # The baseline's draws are the last ones, however many finalists there are.
    runs: Floats = np.vstack([own[:finalists], own[-1:]]) + together
    return runs[:, :seeds]


def candidates(
    study: Study, landscape: Landscape, rows: Sequence[int], runs: Floats
) -> list[Candidate]:
    """What `recommend` takes: some rows of the study, with the accuracies of each."""
    return [
        Candidate(
            config=landscape.network(int(study.chosen[row])),
            accuracies=tuple((accuracies / 100).tolist()),
            trials=tuple(range(len(accuracies))),
            parameters=int(study.parameters[row]),
            search_accuracy=None if row == study.baseline else float(study.scores[row]) / 100,
            is_baseline=row == study.baseline,
            gaps=(float(study.gaps[row]) / 100,) * len(accuracies),
        )
        for row, accuracies in zip(rows, runs, strict=True)
    ]


def policy_picks(
    study: Study, landscape: Landscape, rows: Sequence[int], runs: Floats, criteria: Criteria
) -> dict[str, int]:
    """The row that each policy recommends, in one call: a recommendation lists all of them."""
    found = candidates(study, landscape, rows, runs)
    alternatives = recommend(found, criteria, VALIDATION_FRACTION).alternatives
    positions = {c.config.config_id: row for c, row in zip(found, rows, strict=True)}
    return {policy: positions[config_id] for policy, config_id in alternatives.items()}


def single_scores(study: Study, rows: Sequence[int]) -> Floats:
    """Each score twice, since one run alone has no spread: this has none either."""
    return np.repeat(study.scores[list(rows)][:, None], 2, axis=1)


def hopefuls(study: Study, tolerance: float) -> list[int]:
    """Rows that some policy may choose by single scores; to leave the others out changes no choice.

    Those within the tolerance of the best score, or smaller than all with a higher one.
    """
    best, smallest, found = study.scores[study.best_single], math.inf, []
    for row in study.ranking.tolist():
        is_near = best - study.scores[row] <= 100 * tolerance + 1e-6
        if is_near or study.parameters[row] < smallest:
            found.append(row)
        smallest = min(smallest, int(study.parameters[row]))
    return found


@dataclass(frozen=True)
class Plan:
    """One set of circumstances in which every policy is tried; otherwise those of a real study."""

    luck: Luck
    finalists: int = DEFAULTS.finalists
    seeds: int = DEFAULTS.confirm_seeds
    correction: str = DEFAULTS.correction

    @property
    def trainings(self) -> int:
        """That confirmation costs."""
        return (self.finalists + 1) * self.seeds


class Outcome(NamedTuple):
    """What one choice in one study came to.

    Attributes:
        below: points below the truly best of the study's configurations and the baseline.
        is_worse: whether truly worse than the baseline.
        log_size: natural logarithm of the parameters by those of the best single score.
    """

    below: float
    is_worse: bool
    log_size: float

    @classmethod
    def of(cls, study: Study, pick: int) -> Outcome:
        """That of choosing the row `pick`."""
        return cls(
            float(study.truth.max() - study.truth[pick]),
            bool(study.truth[pick] < study.truth[study.baseline]),
            math.log(study.parameters[pick] / study.parameters[study.best_single]),
        )


Key = tuple[Plan, str, str]
"""A plan, the task of a data set, and a way to choose."""


def alone(policy: str) -> str:
    """The name of a policy that chooses by the single scores."""
    return f"{policy}, single scores"


def choices(study: Study, landscape: Landscape, plan: Plan) -> dict[str, int]:
    """The row that each way to choose takes."""
    criteria = replace(DEFAULTS.criteria, correction=plan.correction)
    picks = {SINGLE: study.best_single, BEST_FINALIST: study.best_finalist}
    picks |= policy_picks(study, landscape, study.finalists, study.runs, criteria)
    if plan == Plan(Luck(plan.luck.own)):  # the others are not asked for this
        rows = hopefuls(study, criteria.tolerance)
        found = policy_picks(study, landscape, rows, single_scores(study, rows), criteria)
        picks |= {alone(policy): row for policy, row in found.items()}
    return picks


def play(
    data: DataSet, landscape: Landscape, plan: Plan, numbers: Sequence[int]
) -> dict[Key, list[Outcome]]:
    """Runs studies; those of one number are the same under every plan but for what it changes."""
    outcomes: dict[Key, list[Outcome]] = {}
    for number in numbers:
        seed = [int(data.task), number]
        study = simulate(landscape, plan.luck, seed, plan.finalists, plan.seeds)
        for way, pick in choices(study, landscape, plan).items():
            outcomes.setdefault((plan, data.task, way), []).append(Outcome.of(study, pick))
    return outcomes
