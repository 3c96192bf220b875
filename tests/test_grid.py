from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search.grid import GridExhausted, GridSampler, grid_values

Params = dict[str, Any]


def walk(
    suggest: Callable[[optuna.Trial], object], seed: int = 0, limit: int = 1000
) -> list[Params]:
    """The parameters of every proposal until the grid is exhausted."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = GridSampler()
    study = optuna.create_study(sampler=sampler)
    found = []
    for number in range(limit):
        try:
            sampler.begin(1000 * seed + number)
        except GridExhausted:
            return found
        trial = study.ask()
        suggest(trial)
        sampler.end()
        found.append(trial.params)
    raise AssertionError(f"not exhausted after {limit} proposals")


def flat(trial: optuna.Trial) -> None:
    trial.suggest_categorical("a", ["x", "y"])
    trial.suggest_int("b", 0, 10)
    trial.suggest_float("c", 0.0, 1.0)


def conditional(trial: optuna.Trial) -> None:
    depth = trial.suggest_int("depth", 1, 3)
    for layer in range(depth):
        trial.suggest_categorical(f"units_{layer}", [8, 16])
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "sgd":
        trial.suggest_float("momentum", 0.0, 0.9)


def expected_conditional() -> list[Params]:
    found: list[Params] = []
    for depth in (1, 2, 3):
        for units in itertools.product([8, 16], repeat=depth):
            base: Params = {"depth": depth} | {f"units_{i}": u for i, u in enumerate(units)}
            found.append(base | {"optimizer": "adam"})
            found += [base | {"optimizer": "sgd", "momentum": m} for m in (0.0, 0.45, 0.9)]
    return found


def keys(proposals: list[Params]) -> list[tuple[tuple[str, Any], ...]]:
    return [tuple(sorted(params.items())) for params in proposals]


def test_a_flat_grid_proposes_every_combination_exactly_once() -> None:
    expected = [{"a": a, "b": b, "c": c} for a in "xy" for b in (0, 5, 10) for c in (0.0, 0.5, 1.0)]
    assert sorted(keys(walk(flat))) == sorted(keys(expected))


@pytest.mark.parametrize("seed", range(5))
def test_a_conditional_grid_proposes_every_combination_exactly_once(seed: int) -> None:
    found = keys(walk(conditional, seed))
    assert len(found) == len(set(found)) == 56
    assert set(found) == set(keys(expected_conditional()))


def test_a_range_that_depends_on_another_parameter_is_followed() -> None:
    def nested(trial: optuna.Trial) -> None:
        outer = trial.suggest_int("outer", 1, 3)
        trial.suggest_int("inner", 0, outer)

    found = {(params["outer"], params["inner"]) for params in walk(nested)}
    assert found == {(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0), (3, 2), (3, 3)}


def test_a_space_without_choices_is_proposed_once() -> None:
    assert walk(lambda trial: None) == [{}]


def test_a_parameter_with_a_single_value_adds_no_combinations() -> None:
    def narrow(trial: optuna.Trial) -> None:
        trial.suggest_int("fixed", 4, 4)
        trial.suggest_categorical("only", ["a"])
        trial.suggest_categorical("free", ["b", "c"])

    assert sorted(keys(walk(narrow))) == [
        (("fixed", 4), ("free", "b"), ("only", "a")),
        (("fixed", 4), ("free", "c"), ("only", "a")),
    ]


def test_a_parameter_that_is_asked_for_twice_counts_once() -> None:
    def twice(trial: optuna.Trial) -> None:
        trial.suggest_categorical("a", [1, 2])
        trial.suggest_categorical("a", [1, 2])

    assert sorted(params["a"] for params in walk(twice)) == [1, 2]


def test_the_order_follows_from_the_seed_and_is_not_the_order_of_writing() -> None:
    assert walk(flat, seed=1) == walk(flat, seed=1)
    assert walk(flat, seed=1) != walk(flat, seed=2)
    assert keys(walk(flat, seed=1)) != sorted(keys(walk(flat, seed=1)))


def test_an_exhausted_grid_stays_exhausted() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = GridSampler()
    study = optuna.create_study(sampler=sampler)
    for _ in range(2):
        sampler.begin(0)
        study.ask().suggest_categorical("a", [1, 2])
        sampler.end()
    for _ in range(3):
        with pytest.raises(GridExhausted):
            sampler.begin(0)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(["b", "a", None]), ["b", "a", None]),
        (CategoricalDistribution([True, 2, 0.5]), [True, 2, 0.5]),
        (IntDistribution(0, 10), [0, 5, 10]),
        (IntDistribution(1, 2), [1, 2]),
        (IntDistribution(3, 3), [3]),
        (IntDistribution(-4, 4), [-4, 0, 4]),
        (IntDistribution(1, 100, log=True), [1, 10, 100]),
        (IntDistribution(16, 1024, log=True), [16, 128, 1024]),
        (IntDistribution(1, 3, log=True), [1, 2, 3]),
        (IntDistribution(0, 12, step=3), [0, 6, 12]),
        (IntDistribution(32, 96, step=32), [32, 64, 96]),
        (IntDistribution(5, 15, step=10), [5, 15]),
        (FloatDistribution(0.0, 0.5), [0.0, 0.25, 0.5]),
        (FloatDistribution(-1.0, 1.0), [-1.0, 0.0, 1.0]),
        (FloatDistribution(0.0, 1.0, step=0.25), [0.0, 0.5, 1.0]),
        (FloatDistribution(0.0, 0.5, step=0.5), [0.0, 0.5]),
        (FloatDistribution(2.0, 2.0), [2.0]),
    ],
    ids=str,
)
def test_grid_values_are_these(distribution: BaseDistribution, values: list[Any]) -> None:
    found = grid_values(distribution)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_grid_values_of_a_logarithmic_range_have_its_geometric_mean_in_the_middle() -> None:
    low, middle, high = grid_values(FloatDistribution(1e-4, 1e-2, log=True))
    assert (low, high) == (1e-4, 1e-2)
    assert math.isclose(middle, 1e-3)


@pytest.mark.parametrize(
    "distribution", [FloatDistribution(1e-6, 0.3, log=True), FloatDistribution(0.1, 0.7)]
)
@pytest.mark.parametrize("points", [2, 3, 5, 10])
def test_grid_values_never_leave_their_range_and_include_its_ends(
    distribution: FloatDistribution, points: int
) -> None:
    found = grid_values(distribution, points)
    assert len(found) == points
    assert found == sorted(found)
    assert (found[0], found[-1]) == (distribution.low, distribution.high)


@pytest.mark.parametrize("high", [0.3, 0.7])
def test_grid_values_with_a_step_do_not_leave_their_range_by_rounding(high: float) -> None:
    distribution = FloatDistribution(0.0, high, step=0.1)
    found = grid_values(distribution)
    assert (found[0], found[-1]) == (0.0, high)
    assert all(distribution._contains(value) for value in found)


def test_an_unknown_kind_of_parameter_is_refused_by_name() -> None:
    class OddDistribution(BaseDistribution):
        def to_internal_repr(self, param_value_in_external_repr: Any) -> float:
            raise NotImplementedError

        def single(self) -> bool:
            raise NotImplementedError

        def _contains(self, param_value_in_internal_repr: float) -> bool:
            raise NotImplementedError

    with pytest.raises(TypeError, match="OddDistribution"):
        grid_values(OddDistribution())


def test_what_was_proposed_before_is_not_proposed_again() -> None:
    """By a sampler that was told of it, as after an interruption."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    every = keys(walk(flat))
    first, second = GridSampler(), GridSampler()
    proposed = []
    for sampler, count in ((first, 5), (second, len(every) - 5)):
        study = optuna.create_study(sampler=sampler)
        for number in range(count):
            sampler.begin(number)
            trial = study.ask()
            flat(trial)
            sampler.end()
            proposed.append(trial.params)
            if sampler is first:
                second.visit(trial.params, trial.distributions)
    assert sorted(keys(proposed)) == sorted(every)
    with pytest.raises(GridExhausted):
        second.begin(0)


def narrow_first(trial: optuna.Trial) -> None:
    """As `--grid optimizer=adam --grid batch_size=10,32 --grid hidden=64,128,256` makes it."""
    trial.suggest_categorical("optimizer", ["adam"])
    trial.suggest_categorical("batch_size", [10, 32])
    trial.suggest_int("fixed", 4, 4)
    trial.suggest_categorical("hidden", [64, 128, 256])


@pytest.mark.parametrize("cut", range(7))
def test_an_interrupted_grid_with_a_parameter_of_one_value_repeats_and_leaves_out_nothing(
    cut: int,
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler, proposed = GridSampler(), list[Params]()
    for number in range(6):
        if number == cut:
            sampler = GridSampler()
            for params in proposed:
                sampler.visit(params, DISTRIBUTIONS)
        sampler.begin(number)
        trial = optuna.create_study(sampler=sampler).ask()
        narrow_first(trial)
        sampler.end()
        proposed.append(trial.params)
    assert len(set(keys(proposed))) == 6
    with pytest.raises(GridExhausted):
        sampler.begin(6)


DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["adam"]),
    "batch_size": CategoricalDistribution([10, 32]),
    "fixed": IntDistribution(4, 4),
    "hidden": CategoricalDistribution([64, 128, 256]),
}
