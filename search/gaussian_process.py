"""Bayesian optimization with a Gaussian process, on scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm, qmc
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

STARTUP_TRIALS = 10
MAX_OBSERVATIONS = 500
SOBOL_CANDIDATES = 2048
LOCAL_CANDIDATES = 512

Vector = NDArray[np.float64]


class GaussianProcessSampler(optuna.samplers.BaseSampler):
    """Expected improvement under a Matern 5/2 process with one length scale per dimension.

    It models the parameters that every trial has; the others are sampled at random. Running
    trials count with the value that the process expects of them (Ginsbourger et al. 2010), so
    that parallel workers are not sent to the same place. Optuna's own sampler does the same with
    PyTorch, which this project would carry for nothing else.
    """

    def __init__(self, seed: int) -> None:
        """Seeds everything that is random here."""
        self._seed = seed
        self._independent = optuna.samplers.RandomSampler(seed)
        self._shared = optuna.search_space.IntersectionSearchSpace(include_pruned=True)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        """The parameters that every finished trial has."""
        space = self._shared.calculate(study)
        return {name: item for name, item in space.items() if not item.single()}

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Any, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The candidate with the highest expected improvement."""
        trials = study.get_trials(deepcopy=False)
        observed = [t for t in trials if _value(t) is not None][-MAX_OBSERVATIONS:]
        if not search_space or len(observed) < STARTUP_TRIALS:
            return {}
        running = [
            t
            for t in trials
            if t.state == TrialState.RUNNING
            and t.number != trial.number
            and all(name in t.params for name in search_space)
        ]
        x = np.array([encode(t.params, search_space) for t in observed])
        y = _standardized([float(_value(t) or 0.0) for t in observed])
        pending = np.array([encode(t.params, search_space) for t in running])
        candidates = self._candidates(x, y)
        chosen = candidates[expected_improvement(x, y, pending, candidates, self._seed).argmax()]
        return decode(chosen, search_space)

    def _candidates(self, x: Vector, y: Vector) -> Vector:
        random = np.random.default_rng(self._seed)
        dimensions = x.shape[1]
        everywhere = qmc.Sobol(dimensions, rng=random).random(SOBOL_CANDIDATES)
        best = x[np.argsort(y)[-5:]]
        centres = best[random.integers(len(best), size=LOCAL_CANDIDATES)]
        near = np.clip(centres + random.normal(0.0, 0.1, centres.shape), 0.0, 1.0)
        return np.vstack([everywhere, near])


def expected_improvement(
    x: Vector, y: Vector, pending: Vector, candidates: Vector, seed: int
) -> Vector:
    """Expected improvement over the best of `y` (Jones et al. 1998), higher being better.

    Args:
        x: (n, d) in [0, 1].
        y: (n,).
        pending: (p, d) or empty: proposals without a value yet.
        candidates: (m, d).
        seed: of the fit's restarts.

    Returns:
        (m,).
    """
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
        np.full(x.shape[1], 0.5), (0.05, 20.0), nu=2.5
    ) + WhiteKernel(1e-2, (1e-5, 1.0))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(x, y)
    if len(pending):
        expected = process.predict(pending)
        process = GaussianProcessRegressor(process.kernel_, optimizer=None)
        process.fit(np.vstack([x, pending]), np.concatenate([y, expected]))
    mean, deviation = process.predict(candidates, return_std=True)
    deviation = np.maximum(deviation, 1e-9)
    z = (mean - y.max()) / deviation
    result: Vector = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return result


def encode(params: dict[str, Any], space: dict[str, BaseDistribution]) -> list[float]:
    """Numbers to [0, 1] (logarithmic where the space says so), choices to one-hot columns."""
    columns: list[float] = []
    for name, item in space.items():
        if isinstance(item, CategoricalDistribution):
            columns += [float(params[name] == choice) for choice in item.choices]
        else:
            number = _numeric(item)
            low, high, value = _scaled(number, number.low, number.high, params[name])
            columns.append((value - low) / (high - low))
    return columns


def decode(row: Vector, space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """The parameters that a point of the encoded space stands for; inverse of `encode`."""
    params: dict[str, Any] = {}
    position = 0
    for name, item in space.items():
        if isinstance(item, CategoricalDistribution):
            width = len(item.choices)
            params[name] = item.choices[int(row[position : position + width].argmax())]
            position += width
            continue
        number = _numeric(item)
        low, high = _scaled(number, number.low, number.high)
        value = low + float(row[position]) * (high - low)
        value = float(np.exp(value)) if number.log else value
        if number.step and not number.log:
            value = number.low + round((value - number.low) / number.step) * number.step
        value = min(max(value, number.low), number.high)
        params[name] = round(value) if isinstance(number, IntDistribution) else value
        position += 1
    return params


def _numeric(item: BaseDistribution) -> FloatDistribution | IntDistribution:
    if isinstance(item, FloatDistribution | IntDistribution):
        return item
    raise TypeError(f"cannot encode a {type(item).__name__}")


def _scaled(item: FloatDistribution | IntDistribution, *values: float) -> Sequence[float]:
    return [float(np.log(value)) for value in values] if item.log else values


def _value(trial: FrozenTrial) -> float | None:
    return trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None


def _standardized(values: Sequence[float]) -> Vector:
    """Zero mean, unit variance, after lifting outliers below: a diverged trial is just bad."""
    y = np.asarray(values, np.float64)
    low, median = np.quantile(y, [0.25, 0.5])
    y = np.maximum(y, median - 4 * max(median - low, 1e-6))
    deviation = float(y.std())
    standardized: Vector = (y - y.mean()) / (deviation or 1.0)
    return standardized
