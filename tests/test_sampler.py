"""What every sampler must do, over all of them."""

from __future__ import annotations

import functools
import math
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from search.records import ConfigError, EpochReport, State, TrialRecord
from search.sampler import Sampler, check_space, choices, derived_seed
from search.settings import SAMPLERS
from search.space import find_space, open_space
from spaces.config import TrialConfig
from tests.builders import make_epoch, make_space, make_totals, make_trial

SHAPE = (8, 8, 1)
TRIALS = 14


def small(trial: optuna.Trial) -> TrialConfig:
    """Conditional, with parameters of every kind."""
    depth = trial.suggest_int("depth", 1, 2)
    return TrialConfig(
        hidden=tuple(trial.suggest_int(f"units_{i}", 8, 64, log=True) for i in range(depth)),
        batch_size=trial.suggest_categorical("batch_size", [16, 32]),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    )


def deep(trial: optuna.Trial) -> TrialConfig:
    """Most of its parameters exist only in some trials."""
    depth = trial.suggest_int("depth", 1, 5)
    return TrialConfig(
        hidden=tuple(trial.suggest_int(f"units_{i}", 16, 1024, log=True) for i in range(depth))
    )


def score(config: TrialConfig) -> float:
    return 1.0 / (1.0 + abs(math.log10(config.learning_rate) + 2.5) + 0.1 * len(config.hidden))


def ending(number: int) -> State:
    """Of every three trials one is stopped; every fifth fails."""
    if number % 5 == 4:
        return State.FAILED
    return State.STOPPED if number % 3 == 2 else State.COMPLETED


def run(name: str, seed: int) -> tuple[Sampler, list[TrialConfig]]:
    """Two trials at a time; returns the sampler and what it proposed."""
    sampler = Sampler(name, make_space(small), SHAPE, seed)
    configs: list[TrialConfig] = []
    open_: list[int] = []
    for number in range(TRIALS):
        config = sampler.ask(number)
        assert config is not None
        configs.append(config)
        open_.append(number)
        if len(open_) == 2:
            end(sampler, open_.pop(0), configs)
    for number in open_:
        end(sampler, number, configs)
    return sampler, configs


def end(sampler: Sampler, number: int, configs: list[TrialConfig]) -> None:
    value = score(configs[number])
    state = ending(number)
    last = math.nan if state is State.FAILED else value
    sampler.report(number, [make_epoch(1, val_accuracy=value / 2)])
    sampler.report(number, [make_epoch(2, val_accuracy=last)])
    sampler.tell(number, state, last)


run_once = functools.cache(run)
"""For tests that only look: a Gaussian process takes its time."""

every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@every_sampler
def test_every_proposal_is_a_valid_configuration_of_the_space(name: str) -> None:
    _, configs = run_once(name, 1)
    assert len(configs) == TRIALS
    for config in configs:
        assert TrialConfig.model_validate(config.model_dump()) == config
        assert len(config.hidden) in (1, 2)
        assert all(8 <= units <= 64 for units in config.hidden)
        assert config.batch_size in (16, 32)
        assert 1e-4 <= config.learning_rate <= 1e-1


@every_sampler
def test_the_same_seed_gives_the_same_proposals_and_another_seed_others(name: str) -> None:
    first = run_once(name, 1)[1]
    assert run(name, 1)[1] == first
    assert run(name, 2)[1] != first


@every_sampler
def test_proposals_are_not_all_the_same(name: str) -> None:
    _, configs = run_once(name, 1)
    assert len({config.config_id for config in configs}) > TRIALS / 2


@every_sampler
def test_optuna_hears_the_truth_about_every_trial(name: str) -> None:
    sampler, configs = run_once(name, 1)
    trials = sampler._study.trials
    assert len(trials) == TRIALS
    for number, (trial, config) in enumerate(zip(trials, configs, strict=True)):
        value = score(config)
        assert trial.params["learning_rate"] == config.learning_rate
        assert trial.intermediate_values[1] == value / 2
        if ending(number) is State.COMPLETED:
            assert (trial.state, trial.value) == (TrialState.COMPLETE, value)
        elif ending(number) is State.STOPPED:
            assert (trial.state, trial.value) == (TrialState.PRUNED, value)
        else:
            assert (trial.state, trial.value) == (TrialState.FAIL, None)
            assert math.isnan(trial.intermediate_values[2])


@every_sampler
def test_a_trial_that_diverged_is_not_left_running(name: str) -> None:
    sampler = Sampler(name, make_space(small), SHAPE, seed=0)
    for number, state in enumerate((State.FAILED, State.FAILED, State.STOPPED)):
        sampler.ask(number)
        sampler.report(number, [make_epoch(1, val_accuracy=math.nan)])
        sampler.tell(number, state, math.nan)
    assert sampler.ask(3) is not None
    states = [trial.state for trial in sampler._study.trials]
    assert states == [TrialState.FAIL, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING]
    assert sampler._study.trials[2].value is None


@every_sampler
def test_a_trial_that_failed_before_its_first_report_is_not_left_running(name: str) -> None:
    sampler = Sampler(name, make_space(small), SHAPE, seed=0)
    sampler.ask(0)
    sampler.tell(0, State.FAILED, None)
    assert [trial.state for trial in sampler._study.trials] == [TrialState.FAIL]


@every_sampler
def test_trials_may_end_in_another_order_than_they_began(name: str) -> None:
    sampler = Sampler(name, make_space(small), SHAPE, seed=0)
    for number in range(3):
        sampler.ask(number)
    for number in (2, 0, 1):
        sampler.tell(number, State.COMPLETED, number / 10)
    assert [trial.value for trial in sampler._study.trials] == [0.0, 0.1, 0.2]


@every_sampler
def test_a_higher_accuracy_is_the_better_one(name: str) -> None:
    sampler, _ = run_once(name, 1)
    complete = [t.value for t in sampler._study.trials if t.state is TrialState.COMPLETE]
    assert sampler._study.best_value == max(value for value in complete if value is not None)


@every_sampler
def test_the_space_is_told_the_shape_of_the_images(name: str) -> None:
    shapes = []

    def suggest(trial: optuna.Trial) -> TrialConfig:
        shapes.append(tuple(trial.user_attrs["image_shape"]))
        return TrialConfig(dropout=trial.suggest_float("dropout", 0.0, 0.5))

    Sampler(name, make_space(suggest), (28, 14, 3), seed=0).ask(0)
    assert shapes == [(28, 14, 3)]


@every_sampler
def test_a_space_that_breaks_its_contract_is_named(name: str) -> None:
    sampler = Sampler(name, make_space(lambda trial: {"hidden": 8}, name="rough"), SHAPE, seed=0)
    with pytest.raises(ConfigError, match=r"Space rough: suggest\(\) returned a dict"):
        sampler.ask(0)


@every_sampler
def test_a_space_without_any_choice_is_proposed_as_it_is(name: str) -> None:
    sampler = Sampler(name, make_space(lambda trial: TrialConfig()), SHAPE, seed=0)
    assert sampler.ask(0) == TrialConfig()


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes"])
def test_trials_that_run_at_the_same_time_are_different_ones(name: str) -> None:
    sampler = Sampler(name, make_space(small), SHAPE, seed=0)
    configs = [sampler.ask(number) for number in range(8)]
    assert len({config.config_id for config in configs if config}) == 8


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_what_was_told_changes_what_is_proposed(name: str) -> None:
    def proposal(sign: float) -> TrialConfig | None:
        sampler = Sampler(name, make_space(small), SHAPE, seed=3)
        for number in range(10):  # from then on they model what they were told
            config = sampler.ask(number)
            assert config is not None
            sampler.tell(number, State.COMPLETED, 0.5 + sign * 0.4 * (score(config) - 0.5))
        return sampler.ask(10)

    assert proposal(1.0) != proposal(-1.0)


def test_random_search_proposes_for_a_number_whatever_came_before() -> None:
    _, configs = run_once("random", 1)
    assert Sampler("random", make_space(small), SHAPE, seed=1).ask(9) == configs[9]


@pytest.mark.parametrize("seed", range(6))
def test_quasi_random_trials_that_run_at_the_same_time_are_different_ones(seed: int) -> None:
    sampler = Sampler("qmc", open_space(find_space("mlp")), SHAPE, seed)
    configs = [sampler.ask(number) for number in range(8)]
    assert len({config.config_id for config in configs if config}) == 8


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_completed_trial_without_a_value_is_a_failure_to_optuna(value: float | None) -> None:
    sampler = Sampler("random", make_space(small), SHAPE, seed=0)
    sampler.ask(0)
    sampler.tell(0, State.COMPLETED, value)
    assert [trial.state for trial in sampler._study.trials] == [TrialState.FAIL]


def test_quasi_random_search_varies_parameters_that_only_some_trials_have() -> None:
    sampler = Sampler("qmc", make_space(deep), SHAPE, seed=0)
    seen: list[set[int]] = [set() for _ in range(5)]
    for number in range(32):
        config = sampler.ask(number)
        assert config is not None
        sampler.tell(number, State.COMPLETED, 0.5)
        for units, found in zip(config.hidden, seen, strict=False):
            found.add(units)
    assert min(len(found) for found in seen) > 1


# Interruptions


def lived(name: str, trials: int, cut: int | None = None) -> list[TrialConfig | None]:
    """What is proposed with three trials at a time, the newest of which ends first.

    Args:
        name: of the sampler.
        trials: to be proposed.
        cut: before this proposal all is lost but what the ledger keeps; None: never.
    """
    sampler = Sampler(name, make_space(open_ended), SHAPE, 5)
    records: dict[int, TrialRecord] = {}
    reports: dict[int, list[EpochReport]] = {}
    open_: list[int] = []
    configs: list[TrialConfig | None] = []
    for number in range(trials):
        if number == cut:
            sampler = Sampler(name, make_space(open_ended), SHAPE, 5)
            for trial in records.values():
                sampler.restore(trial, reports[trial.number])
        config = sampler.ask(number)
        configs.append(config)
        assert config is not None
        records[number] = make_trial(
            number,
            config=config,
            state=State.RUNNING,
            totals=None,
            proposal=sampler.proposal(number),
        )
        value = score(config)
        reports[number] = [make_epoch(n, val_accuracy=value * n / 3) for n in (1, 2)]
        sampler.report(number, reports[number])
        open_.append(number)
        if len(open_) == 3:
            ended, state = open_.pop(), ending(number)
            if number % 10 == 2:  # stopped where it had diverged
                reports[ended].append(make_epoch(3, val_accuracy=math.nan))
                sampler.report(ended, reports[ended][-1:])
            accuracy = score(records[ended].config)
            totals = make_totals(val_accuracy=accuracy)
            records[ended] = replace(records[ended], state=state, totals=totals)
            sampler.tell(ended, state, accuracy)
    return configs


def open_ended(trial: optuna.Trial) -> TrialConfig:
    """As `small`, and with a parameter of one value, too many combinations for 26."""
    config = small(trial)
    patience = trial.suggest_int("patience", 7, 7)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    return config.model_copy(update={"patience": patience, "dropout": dropout})


undisturbed = functools.cache(lived)


@pytest.mark.parametrize("cut", [7, 13, 24])
@every_sampler
def test_a_sampler_that_was_interrupted_proposes_what_an_undisturbed_one_does(
    name: str, cut: int
) -> None:
    assert lived(name, 26, cut) == undisturbed(name, 26)


# The grid


def test_the_grid_ends_with_none_after_every_combination_and_stays_at_its_end() -> None:
    def suggest(trial: optuna.Trial) -> TrialConfig:
        return TrialConfig(
            batch_size=trial.suggest_categorical("batch_size", [16, 32]),
            dropout=trial.suggest_float("dropout", 0.0, 0.5),
        )

    sampler = Sampler("grid", make_space(suggest), SHAPE, seed=0)
    found = []
    for number in range(6):
        config = sampler.ask(number)
        assert config is not None
        found.append((config.batch_size, config.dropout))
        sampler.tell(number, State.COMPLETED, 0.5)
    assert sorted(found) == [(size, drop) for size in (16, 32) for drop in (0.0, 0.25, 0.5)]
    assert [sampler.ask(number) for number in (6, 7)] == [None, None]
    assert all(trial.state is TrialState.COMPLETE for trial in sampler._study.trials)


def test_the_grid_repeats_nothing_while_its_trials_still_run() -> None:
    sampler = Sampler("grid", make_space(small), SHAPE, seed=0)
    configs = [sampler.ask(number) for number in range(73)]
    assert configs[72] is None
    assert len({config.config_id for config in configs if config}) == 72


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "grid"])
def test_only_the_grid_ever_ends(name: str) -> None:
    sampler = Sampler(
        name, make_space(lambda t: TrialConfig(batch_size=t.suggest_int("b", 1, 2))), SHAPE, seed=0
    )
    for number in range(5):
        assert sampler.ask(number) is not None
        sampler.tell(number, State.COMPLETED, 0.5)


# Seeds


@pytest.mark.parametrize(
    ("arguments", "seed"),
    [
        ((0,), 804_681_139),
        ((0, "ask", 0), 1_477_433_225),
        ((0, "train", 7), 1_014_475_804),
        ((2**31 - 1, "confirm split", 2), 220_656_635),
    ],
)
def test_derived_seeds_stay_what_they_were_so_that_old_studies_can_be_repeated(
    arguments: tuple[int, object], seed: int
) -> None:
    assert derived_seed(*arguments) == seed


def test_derived_seeds_differ_by_seed_purpose_and_number() -> None:
    found = {
        derived_seed(seed, purpose, number)
        for seed in range(10)
        for purpose in ("ask", "train", "confirm", "confirm split")
        for number in range(25)
    }
    assert len(found) == 1000
    assert all(0 <= seed < 2**31 for seed in found)


# Trying a space out


def test_a_sound_space_passes_its_trial() -> None:
    asked = []
    check_space(make_space(lambda trial: asked.append(trial) or small(trial)), SHAPE)
    assert len(asked) >= 1


@pytest.mark.parametrize("part", ["suggest", "baseline"])
def test_a_broken_space_is_found_out_before_anything_is_written(part: str) -> None:
    def boom(*_: object) -> TrialConfig:
        raise ZeroDivisionError("division by zero")

    space = make_space(boom) if part == "suggest" else make_space(small, boom)
    with pytest.raises(ConfigError, match=rf"homemade: {part}\(\) failed: ZeroDivisionError"):
        check_space(space, SHAPE)


# Importances


def told(*values: float | None, state: State = State.COMPLETED) -> Sampler:
    """A random search over `small` with these results; None for a trial that failed."""
    sampler = Sampler("random", make_space(small), SHAPE, 0)
    for number, value in enumerate(values):
        config = sampler.ask(number)
        assert config is not None
        if value is None:
            sampler.tell(number, State.FAILED, None)
        else:
            sampler.report(number, [make_epoch(1, val_accuracy=value)])
            sampler.tell(number, state, value)
    return sampler


def test_the_parameter_that_decides_is_the_most_important_one() -> None:
    sampler = Sampler("random", make_space(small), SHAPE, 1)
    for number in range(60):
        config = sampler.ask(number)
        assert config is not None
        accuracy = 1.0 - abs(math.log10(config.learning_rate) + 2.5)
        sampler.report(number, [make_epoch(1, val_accuracy=accuracy)])
        sampler.tell(number, State.STOPPED if number % 4 == 0 else State.COMPLETED, accuracy)
    importances = sampler.importances()
    assert next(iter(importances)) == "learning_rate"
    assert sum(importances.values()) == pytest.approx(1.0)
    assert importances["learning_rate"] > 0.5


def test_few_trials_say_nothing_of_importances() -> None:
    assert told(*[0.1 * n for n in range(9)]).importances() == {}
    assert told(*[0.1 * n for n in range(9)], None, None).importances() == {}
    assert told(*[0.1 * n for n in range(10)]).importances() != {}


def test_a_trial_that_was_stopped_counts_for_importances() -> None:
    assert told(*[0.05 * n for n in range(10)], state=State.STOPPED).importances() != {}


def test_a_space_without_parameters_has_no_importances() -> None:
    sampler = Sampler("random", make_space(lambda _: TrialConfig()), SHAPE, 0)
    for number in range(12):
        sampler.ask(number)
        sampler.tell(number, State.COMPLETED, number / 20)
    assert sampler.importances() == {}


def test_trials_that_all_came_out_alike_have_no_importances() -> None:
    assert told(*[0.5] * 12).importances() == {}


def test_what_was_chosen_is_told_by_the_names_of_the_space_and_with_its_range() -> None:
    sampler = Sampler("random", make_space(small), SHAPE, 0)
    config = sampler.ask(0)
    assert config is not None
    found = choices(sampler.proposal(0))
    assert found["learning_rate"] == (config.learning_rate, "0.0001 to 0.1, logarithmic")
    assert choices("") == {}
