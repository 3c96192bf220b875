from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import optuna
import pytest

from search.cma_es import CmaEsSampler
from search.sampler import derived_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)

Objective = Callable[[optuna.Trial], float]


def bowl(trial: optuna.Trial) -> float:
    """Highest at 0 for x = 0.7, y = 0.001 and n = 6, whatever is chosen."""
    trial.suggest_categorical("choice", ["a", "b"])
    x, n = trial.suggest_float("x", -1.0, 1.0), trial.suggest_int("n", 1, 8)
    y = trial.suggest_float("y", 1e-4, 1.0, log=True)
    return -((x - 0.7) ** 2) - (math.log10(y) + 3) ** 2 / 4 - ((n - 6) / 7) ** 2


def searched(
    objective: Objective,
    trials: int,
    seed: int = 0,
    at_once: int = 1,
    make: Callable[[int], optuna.samplers.BaseSampler] = CmaEsSampler,
) -> optuna.Study:
    """A study with a sampler made anew for each trial."""
    study = optuna.create_study(direction="maximize")
    under_way: list[tuple[optuna.Trial, float]] = []
    for number in range(trials):
        study.sampler = make(derived_seed(seed, "ask", number))
        trial = study.ask()
        under_way.append((trial, objective(trial)))
        if len(under_way) >= at_once:
            study.tell(*under_way.pop(0))
    for trial, value in under_way:
        study.tell(trial, value)
    return study


@pytest.mark.parametrize("at_once", [1, 8])
def test_it_comes_nearer_to_the_best_than_random_search(at_once: int) -> None:
    found, random = (
        statistics.median(searched(bowl, 60, seed, at_once, make).best_value for seed in range(7))
        for make in (CmaEsSampler, optuna.samplers.RandomSampler)
    )
    assert found > random / 2


def test_a_single_number_is_found() -> None:
    def near(trial: optuna.Trial) -> float:
        return -abs(trial.suggest_float("x", 0.0, 1.0) - 0.2)

    assert searched(near, 40).best_value > -0.01


def test_the_first_and_the_last_of_some_steps_are_as_near_as_the_others() -> None:
    """A step at an end would have half the width of the others."""
    study = searched(lambda trial: 0.0 * trial.suggest_int("n", 0, 2), 1)
    drawn = []
    for seed in range(400):
        study.sampler = CmaEsSampler(derived_seed(seed))
        drawn.append(study.ask().suggest_int("n", 0, 2))
    assert 0.1 < drawn.count(0) / 400 < 0.25
    assert 0.1 < drawn.count(2) / 400 < 0.25


def test_a_number_that_only_some_trials_have_does_not_keep_the_others_from_being_adapted() -> None:
    def nested(trial: optuna.Trial) -> float:
        depth = trial.suggest_int("depth", 1, 3)
        for layer in range(depth):
            trial.suggest_int(f"units_{layer}", 8, 64)
        return -abs(trial.suggest_float("x", 0.0, 1.0) - 0.2)

    late = [trial.params["x"] for trial in searched(nested, 80).trials[-20:]]
    assert abs(statistics.median(late) - 0.2) < 0.05


def test_what_is_proposed_follows_from_the_completed_trials_and_the_seed_only() -> None:
    study = searched(bowl, 20)
    again = optuna.create_study(direction="maximize")
    for trial in study.trials:
        again.add_trial(
            optuna.trial.create_trial(
                params=trial.params, distributions=trial.distributions, value=trial.value
            )
        )
    proposed = []
    for each in (study, again):
        each.sampler = CmaEsSampler(7)
        trial = each.ask()
        bowl(trial)
        proposed.append(trial.params)
        assert each.trials[-1].system_attrs == {}, "a state that the ledger would not keep"
    assert proposed[0] == proposed[1]


def test_trials_that_all_came_out_alike_are_no_obstacle() -> None:
    assert len(searched(lambda trial: 0.0 * trial.suggest_int("n", 0, 3), 200).trials) == 200
