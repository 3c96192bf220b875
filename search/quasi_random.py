"""Quasi-random search over a define-by-run space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from scipy.stats import qmc

from search.gaussian_process import decode

DIMENSIONS = 128
"""More parameters than that share dimensions."""


class SobolSampler(optuna.samplers.RandomSampler):
    """Trial n takes point n of a scrambled Sobol sequence; each parameter has its own dimension.

    Dimensions are dealt in the order in which parameters are first met, so that conditional ones
    are covered evenly too. Optuna's own sampler starts its sequence again whenever the set of
    parameters changes, so that trials which run at the same time get the same point.
    """

    def __init__(self, seed: int) -> None:
        """Scrambles the sequence by `seed`."""
        super().__init__(seed)
        self._seed = seed
        self._dimension_of: dict[str, int] = {}

    def meet(self, names: Iterable[str]) -> None:
        """Deals dimensions to parameters of an earlier trial, in the order of its choices."""
        for name in names:
            self._dimension_of.setdefault(name, len(self._dimension_of) % DIMENSIONS)

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The parameter's coordinate of the trial's point, in the parameter's own scale."""
        self.meet([param_name])
        dimension = self._dimension_of[param_name]
        sequence = qmc.Sobol(DIMENSIONS, scramble=True, rng=self._seed)
        if trial.number:
            sequence.fast_forward(trial.number)
        coordinate = float(sequence.random(1)[0, dimension])
        if isinstance(param_distribution, CategoricalDistribution):
            choices = param_distribution.choices
            return choices[min(int(coordinate * len(choices)), len(choices) - 1)]
        row = np.array([coordinate])
        return decode(row, {param_name: param_distribution})[param_name]
