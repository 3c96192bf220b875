"""CMA-ES over a define-by-run space, on the cmaes package."""

from __future__ import annotations

from typing import Any

import cmaes
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from search.gaussian_process import decode, encode

SPREAD = 1 / 6
"""The first standard deviation, in widths of the space, around its middle."""

Vector = NDArray[np.float64]


class CmaEsSampler(optuna.samplers.BaseSampler):
    """Covariance matrix adaptation (Hansen, arXiv:1604.00772), begun anew for each proposal.

    All completed trials, in the order of their numbers, are told to it again, one population after
    the other: what it proposes follows from the study and the seed, and nothing has to be kept
    from one proposal to the next. Optuna's own sampler keeps its optimizer as a pickle.

    It adapts to the numbers that every completed trial has; choices and the others are sampled at
    random. A trial may count for a later population than the one that it was drawn from: with
    several at a time, none is wasted.
    """

    def __init__(self, seed: int) -> None:
        """Seeds everything that is random here."""
        self._seed = seed
        self._independent = optuna.samplers.RandomSampler(seed)
        self._shared = optuna.search_space.IntersectionSearchSpace()

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """The numbers that every completed trial has."""
        return {
            name: item
            for name, item in self._shared.calculate(study).items()
            if isinstance(item, FloatDistribution | IntDistribution) and not item.single()
        }

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A draw from the distribution that the completed trials lead to."""
        if not search_space:
            return {}
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        margins = _margins(search_space)
        point = _adapted(trials, search_space, margins, self._seed).ask()
        return decode(point * (1 + 2 * margins) - margins, search_space)


def _adapted(
    trials: list[FrozenTrial], space: dict[str, BaseDistribution], margins: Vector, seed: int
) -> cmaes.CMA:
    """An optimizer that was told of all whole populations of the trials."""
    width = len(space)
    optimizer = cmaes.CMA(
        mean=np.full(width, 0.5),
        sigma=SPREAD,
        bounds=np.tile([0.0, 1.0], (width, 1)),
        n_max_resampling=10 * width,
        seed=seed,
    )
    points = (np.array([encode(t.params, space) for t in trials]) + margins) / (1 + 2 * margins)
    size = optimizer.population_size
    for end in range(size, len(trials) + 1, size):
        whole = range(end - size, end)
        optimizer.tell([(points[i], -float(trials[i].value or 0.0)) for i in whole])
    return optimizer


def _margins(space: dict[str, BaseDistribution]) -> Vector:
    """How far beyond its ends each dimension reaches: its first and last step are whole ones."""
    return np.array([_margin(item) for item in space.values()])


def _margin(item: BaseDistribution) -> float:
    if not isinstance(item, FloatDistribution | IntDistribution) or item.log or not item.step:
        return 0.0
    return item.step / (item.high - item.low) / 2
