from __future__ import annotations

import math
import statistics
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from search.gaussian_process import (
    STARTUP_TRIALS,
    GaussianProcessSampler,
    decode,
    encode,
    expected_improvement,
)
from search.records import State
from search.sampler import Sampler
from spaces.config import TrialConfig
from tests.builders import make_epoch, make_space, quick

Vector = NDArray[np.float64]

SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 0.5, log=True),
    "choice": CategoricalDistribution(["adam", "sgd", None, 0.5]),
    "fraction": FloatDistribution(-0.25, 0.75),
    "stepped": FloatDistribution(0.0, 2.0, step=0.25),
    "units": IntDistribution(16, 1024, log=True),
    "layers": IntDistribution(-2, 5),
    "batch": IntDistribution(32, 256, step=32),
}
WIDTH = 6 + 4

points_of_space = st.fixed_dictionaries(
    {
        "rate": st.floats(1e-5, 0.5),
        "choice": st.sampled_from(["adam", "sgd", None, 0.5]),
        "fraction": st.floats(-0.25, 0.75),
        "stepped": st.integers(0, 8).map(lambda n: n * 0.25),
        "units": st.integers(16, 1024),
        "layers": st.integers(-2, 5),
        "batch": st.integers(1, 8).map(lambda n: 32 * n),
    }
)


# Encoding


@quick
@given(points_of_space)
def test_decoding_what_was_encoded_gives_the_same_parameters(params: dict[str, Any]) -> None:
    row = np.array(encode(params, SPACE))
    assert row.shape == (WIDTH,)
    assert ((row >= -1e-12) & (row <= 1 + 1e-12)).all()
    again = decode(row, SPACE)
    assert list(again) == list(SPACE)
    for name in ("choice", "stepped", "units", "layers", "batch"):
        assert again[name] == params[name]
        assert type(again[name]) is type(params[name])
    for name in ("rate", "fraction"):
        assert math.isclose(again[name], params[name], rel_tol=1e-9, abs_tol=1e-12)


@quick
@given(st.lists(st.floats(0, 1), min_size=WIDTH, max_size=WIDTH))
def test_every_point_of_the_cube_decodes_to_parameters_inside_their_ranges(
    row: list[float],
) -> None:
    params = decode(np.array(row), SPACE)
    for name, item in SPACE.items():
        assert item._contains(item.to_internal_repr(params[name])), name
    again = decode(np.array(encode(params, SPACE)), SPACE)
    assert again == pytest.approx(params)


@pytest.mark.parametrize(("corner", "rate", "units"), [(0.0, 1e-5, 16), (1.0, 0.5, 1024)])
def test_the_corners_of_the_cube_are_the_ends_of_the_ranges(
    corner: float, rate: float, units: int
) -> None:
    params = decode(np.full(WIDTH, corner), SPACE)
    assert params["rate"] == pytest.approx(rate)
    assert params["units"] == units
    assert SPACE["rate"]._contains(params["rate"])


def test_choices_are_one_hot_columns_and_numbers_are_scaled() -> None:
    params = {
        "rate": math.sqrt(1e-5 * 0.5),
        "choice": "sgd",
        "fraction": 0.25,
        "stepped": 0.5,
        "units": 128,
        "layers": 5,
        "batch": 32,
    }
    expected = [0.5, 0, 1, 0, 0, 0.5, 0.25, 0.5, 1.0, 0.0]
    assert encode(params, SPACE) == pytest.approx(expected)


def test_the_strongest_of_the_columns_of_a_choice_decides() -> None:
    row = np.array([0.5, 0.2, 0.3, 0.9, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert decode(row, SPACE)["choice"] is None


# Expected improvement


def observations(n: int = 14, seed: int = 3) -> tuple[Vector, Vector, Vector]:
    """Points in the unit square, standardized values of a smooth function there, and candidates."""
    random = np.random.default_rng(seed)
    x = random.random((n, 2))
    y = np.sin(4 * x[:, 0]) - (x[:, 1] - 0.4) ** 2
    return x, (y - y.mean()) / y.std(), random.random((40, 2))


def by_hand(process: GaussianProcessRegressor, candidates: Vector, best: float) -> list[float]:
    """Jones, Schonlau and Welch 1998, equation 15, for maximization."""
    mean, deviation = process.predict(candidates, return_std=True)
    normal = statistics.NormalDist()
    return [
        (m - best) * normal.cdf((m - best) / s) + s * normal.pdf((m - best) / s)
        for m, s in zip(mean.tolist(), deviation.tolist(), strict=True)
    ]


def fitted(x: Vector, y: Vector, seed: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(
        np.full(2, 0.5), (0.05, 20.0), nu=2.5
    ) + WhiteKernel(1e-2, (1e-5, 1.0))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return process.fit(x, y)


def test_expected_improvement_is_the_formula_of_jones() -> None:
    x, y, candidates = observations()
    found = expected_improvement(x, y, np.empty((0,)), candidates, seed=5)
    expected = by_hand(fitted(x, y, seed=5), candidates, float(y.max()))
    assert found.shape == (40,)
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_running_trial_counts_with_the_value_that_is_expected_of_it() -> None:
    x, y, candidates = observations()
    pending = candidates[:3]
    found = expected_improvement(x, y, pending, candidates, seed=5)
    first = fitted(x, y, seed=5)
    second = GaussianProcessRegressor(first.kernel_, optimizer=None)
    second.fit(np.vstack([x, pending]), np.concatenate([y, first.predict(pending)]))
    assert found.tolist() == pytest.approx(
        by_hand(second, candidates, float(y.max())), rel=1e-6, abs=1e-9
    )


def test_a_running_trial_makes_its_own_place_less_worth_trying() -> None:
    x, y, candidates = observations()
    alone = expected_improvement(x, y, np.empty((0,)), candidates, seed=5)
    best = int(alone.argmax())
    beside = expected_improvement(x, y, candidates[[best]], candidates, seed=5)
    assert beside[best] < 0.9 * alone[best]


def test_expected_improvement_is_never_negative_and_small_where_all_is_known() -> None:
    x, y, candidates = observations(n=20)
    worst = x[[int(y.argmin())]]
    found = expected_improvement(x, y, np.empty((0,)), np.vstack([worst, candidates]), seed=5)
    assert (found >= 0).all()
    assert found[0] < 1e-3 * found.max()


def test_values_that_are_all_the_same_are_no_division_by_zero() -> None:
    space = make_space(lambda trial: TrialConfig(dropout=trial.suggest_float("x", 0.0, 0.9)))
    sampler = Sampler("gp", space, (8, 8, 1), seed=0)
    for number in range(STARTUP_TRIALS + 1):
        config = sampler.ask(number)
        assert config is not None
        assert 0.0 <= config.dropout <= 0.9
        sampler.tell(number, State.COMPLETED, 0.5)


# The search


def plane(trial: optuna.Trial) -> TrialConfig:
    return TrialConfig(
        dropout=trial.suggest_float("x", 0.0, 0.9),
        momentum=trial.suggest_float("y", 0.0, 0.9),
    )


def smooth(config: TrialConfig) -> float:
    """At most 1, at (0.23, 0.61)."""
    return 1.0 - (config.dropout - 0.23) ** 2 - (config.momentum - 0.61) ** 2


def best_after(name: str, seed: int, trials: int) -> float:
    sampler = Sampler(name, make_space(plane), (8, 8, 1), seed)
    best = -math.inf
    for number in range(trials):
        config = sampler.ask(number)
        assert config is not None
        value = smooth(config)
        best = max(best, value)
        sampler.tell(number, State.COMPLETED, value)
    return best


def test_it_beats_random_search_on_a_smooth_function() -> None:
    seeds = range(3)
    regret = {
        name: statistics.fmean(1.0 - best_after(name, seed, STARTUP_TRIALS + 4) for seed in seeds)
        for name in ("gp", "random")
    }
    assert regret["gp"] < 0.2 * regret["random"]


def test_the_first_trials_are_those_of_random_search() -> None:
    proposals = {}
    for name in ("gp", "random"):
        sampler = Sampler(name, make_space(plane), (8, 8, 1), seed=1)
        proposals[name] = [sampler.ask(number) for number in range(STARTUP_TRIALS)]
    assert proposals["gp"] == proposals["random"]


def test_stopped_trials_are_learned_from_and_failed_ones_are_not() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def proposal(*, failed: bool, stopped_value: float) -> dict[str, Any]:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
        for number in range(STARTUP_TRIALS):
            trial = study.ask()
            x = trial.suggest_float("x", 0.0, 1.0)
            trial.report(stopped_value * x if number % 2 else x, 1)
            if number % 2:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, x)
        if failed:
            trial = study.ask()
            trial.suggest_float("x", 0.0, 1.0)
            trial.report(math.nan, 1)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        study.sampler = GaussianProcessSampler(0)
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        return trial.params

    assert proposal(failed=True, stopped_value=1.0) == proposal(failed=False, stopped_value=1.0)
    assert proposal(failed=False, stopped_value=1.0) != proposal(failed=False, stopped_value=-1.0)


def test_a_parameter_that_only_some_trials_have_is_still_proposed() -> None:
    def conditional(trial: optuna.Trial) -> TrialConfig:
        dropout = trial.suggest_float("x", 0.0, 0.9)
        if trial.suggest_categorical("sgd", [True, False]):
            return TrialConfig(
                optimizer="sgd", dropout=dropout, momentum=trial.suggest_float("y", 0.1, 0.9)
            )
        return TrialConfig(dropout=dropout)

    sampler = Sampler("gp", make_space(conditional), (8, 8, 1), seed=0)
    for number in range(STARTUP_TRIALS + 1):
        config = sampler.ask(number)
        assert config is not None
        assert (config.momentum > 0) == (config.optimizer == "sgd")
        sampler.report(number, [make_epoch(1, val_accuracy=config.dropout)])
        sampler.tell(number, State.STOPPED if number % 3 else State.COMPLETED, config.dropout)
