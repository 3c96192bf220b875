"""Optuna's ask and tell, without Ray: proposes configurations and hears the truth about them."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from search.cma_es import CmaEsSampler
from search.gaussian_process import GaussianProcessSampler
from search.grid import GridExhausted, GridSampler
from search.quasi_random import SobolSampler
from search.records import EpochReport, LedgerError, State, TrialRecord
from search.space import Space
from spaces.config import TrialConfig

FEWEST_FOR_IMPORTANCES = 10
BEST_TENTH, FEWEST_BEST = 0.1, 5
TRIED = 200
"""Random trials in which a space is asked what its parameters are."""
STATES = {
    State.COMPLETED: TrialState.COMPLETE,
    State.STOPPED: TrialState.PRUNED,
    State.FAILED: TrialState.FAIL,
}


def derived_seed(seed: int, *purpose: object) -> int:
    """A seed in [0, 2**31) that depends on `seed` and on what it is for, and on nothing else."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1


def parameters(space: Space, image_shape: tuple[int, int, int]) -> dict[str, str]:
    """What a space asks for, each with its range in words, in the order of asking.

    A space is a function that asks step by step: which parameters there are is seen in what it asks
    in many random trials, so that a very rare one can be missing.

    Args:
        space: to be asked.
        image_shape: as for `Sampler`.

    Raises:
        ConfigError: the space cannot be asked.
    """
    sampler = Sampler("random", space, image_shape, 0)
    asked = Counter[str]()
    found: dict[str, BaseDistribution] = {}
    for number in range(TRIED):
        sampler.ask(number)
        distributions = sampler.distributions(number)
        asked.update(distributions.keys())
        found |= distributions
    return {
        name: _in_words(distribution) + ("" if asked[name] == TRIED else ", in some trials")
        for name, distribution in found.items()
    }


def choices(proposal: str) -> dict[str, tuple[Any, str]]:
    """What was chosen for each parameter in a `proposal`, and from what, in words."""
    distributions, params = _recorded(proposal)
    return {name: (params[name], _in_words(d)) for name, d in distributions.items()}


def _recorded(proposal: str) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """Distributions and choices by the parameter's name.

    Raises:
        LedgerError: it is not as `Sampler.proposal` writes it.
    """
    distributions, params = {}, {}
    try:
        for name, (value, text) in json.loads(proposal or "{}").items():
            distributions[name] = json_to_distribution(text)
            params[name] = distributions[name].to_external_repr(value)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LedgerError(
            f"The ledger's plan of a trial holds a proposal that cannot be read "
            f"({proposal[:80]}): it was damaged, or changed by something else than Podium. Put "
            "back a copy of it."
        ) from error
    return distributions, params


def _in_words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return " | ".join(map(str, distribution.choices))
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return str(distribution)
    words = f"{distribution.low:g} to {distribution.high:g}"
    if distribution.log:
        return f"{words}, logarithmic"
    step = distribution.step
    return words if step is None or step == 1 else f"{words}, in steps of {step:g}"


class Sampler:
    """Proposes trial after trial; one Optuna study in memory, rebuilt by asking and telling again.

    Optuna's samplers are made anew before each proposal, from a seed that follows from the study's
    seed and the trial's number; grid and Sobol sequence depend on the order of proposals only. So
    there is no hidden state to save.
    """

    def __init__(
        self, name: str, space: Space, image_shape: tuple[int, int, int], seed: int
    ) -> None:
        """Starts an empty study.

        Args:
            name: one of `settings.SAMPLERS`.
            space: what to propose from.
            image_shape: given to the space as the trial's user attribute `image_shape`.
            seed: of the study.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._name, self._space, self._shape, self._seed = name, space, image_shape, seed
        self._grid = GridSampler()
        self._sobol = SobolSampler(derived_seed(seed, "qmc"))
        self._study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed))
        self._open: dict[int, optuna.Trial] = {}

    def ask(self, number: int) -> TrialConfig | None:
        """Proposes a configuration for trial `number`; None when a grid is exhausted.

        Raises:
            ConfigError: the space breaks its contract.
        """
        with warnings.catch_warnings():
            # Optuna warns of what is experimental in it, and of every parameter that not all
            # trials have, which is what a conditional space is.
            warnings.simplefilter("ignore")
            try:
                self._study.sampler = self._sampler(number)
            except GridExhausted:
                return None
            trial = self._study.ask()
            trial.set_user_attr("image_shape", self._shape)
            config = self._space.config_from(trial)
        if self._name == "grid":
            self._grid.end()
        self._open[number] = trial
        return config

    def distributions(self, number: int) -> dict[str, BaseDistribution]:
        """What the space asked for in an open trial."""
        return dict(self._open[number].distributions)

    def proposal(self, number: int) -> str:
        """How an open trial's configuration was proposed, for `restore`: JSON."""
        trial = self._open[number]
        return json.dumps(
            {
                name: [
                    distribution.to_internal_repr(trial.params[name]),
                    distribution_to_json(distribution),
                ]
                for name, distribution in self.distributions(number).items()
            }
        )

    def restore(self, trial: TrialRecord, epochs: Sequence[EpochReport]) -> None:
        """Takes over a trial of an earlier process; to be called in the order of their numbers.

        One that has not ended is open afterwards, as if it had just been asked for.
        """
        distributions, params = _recorded(trial.proposal)
        reports = {item.epoch: item.val_accuracy for item in epochs}
        state, value = _as_told(trial, reports)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study.add_trial(
                create_trial(
                    state=state,
                    params=params,
                    distributions=distributions,
                    intermediate_values=reports,
                    user_attrs={"image_shape": self._shape},
                    value=value,
                )
            )
        if self._name == "grid":
            self._grid.visit(params, distributions)
        # Optuna never asks a sampler about a parameter of one value.
        self._sobol.meet(name for name, item in distributions.items() if not item.single())
        if state is TrialState.RUNNING:
            frozen = self._study.get_trials(deepcopy=False)[-1]
            self._open[trial.number] = optuna.Trial(self._study, frozen._trial_id)

    def report(self, number: int, epochs: Sequence[EpochReport]) -> None:
        """Passes on what was measured after each epoch."""
        for item in epochs:
            self._open[number].report(item.val_accuracy, item.epoch)

    def tell(self, number: int, state: State, value: float | None) -> None:
        """Says how a trial ended; `value` (validation accuracy) counts only when completed.

        A trial that was stopped is PRUNED in Optuna, with its last report; one that failed, or has
        no value, FAIL.
        """
        trial = self._open.pop(number)
        optuna_state = STATES[state]
        if optuna_state is TrialState.COMPLETE and (value is None or math.isnan(value)):
            optuna_state = TrialState.FAIL
        values = value if optuna_state is TrialState.COMPLETE else None
        self._study.tell(trial, values, state=optuna_state)

    def importances(self) -> dict[str, float]:
        """How far each parameter sets the best trials apart, as fractions, largest first.

        Optuna's PED-ANOVA (Watanabe, Bansal and Hutter, IJCAI 2023) over the trials that ended;
        one that was stopped counts with its last validation accuracy. The best are a tenth of
        them, at least the five that Optuna asks for. Empty for fewer than ten trials, and where
        all came out alike.
        """
        ended = optuna.create_study(direction="maximize")
        for trial in self._study.get_trials(deepcopy=False):
            pruned = trial.state is TrialState.PRUNED and trial.intermediate_values
            value = trial.intermediate_values[max(trial.intermediate_values)] if pruned else None
            if trial.state is TrialState.COMPLETE:
                value = trial.value
            if value is not None and not math.isnan(value):
                ended.add_trial(
                    create_trial(
                        params=trial.params, distributions=trial.distributions, value=value
                    )
                )
        count = len(ended.trials)
        if count < FEWEST_FOR_IMPORTANCES or len({t.value for t in ended.trials}) == 1:
            return {}
        best = max(BEST_TENTH, FEWEST_BEST / count)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=best, region_quantile=1.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = optuna.importance.get_param_importances(ended, evaluator=evaluator)
            except (ValueError, RuntimeError):  # nothing varied
                return {}
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}

    def _sampler(self, number: int) -> BaseSampler:
        seed = derived_seed(self._seed, "ask", number)
        if self._name == "grid":
            self._grid.begin(seed)
            return self._grid
        if self._name == "tpe":
            return TPESampler(
                seed=seed,
                n_startup_trials=10,
                n_ei_candidates=24,
                multivariate=True,
                group=True,
                constant_liar=True,
            )
        if self._name == "gp":
            return GaussianProcessSampler(seed)
        if self._name == "cmaes":
            return CmaEsSampler(seed)
        if self._name == "qmc":
            return self._sobol
        return RandomSampler(seed)


def _as_told(trial: TrialRecord, reports: Mapping[int, float]) -> tuple[TrialState, float | None]:
    """State and value that a trial has for Optuna once it was told of it."""
    state, value = STATES.get(trial.state, TrialState.RUNNING), None
    if state is TrialState.COMPLETE:
        value = trial.val_accuracy
    elif state is TrialState.PRUNED and reports:
        value = reports[max(reports)]
    if value is None or math.isnan(value):
        return (TrialState.FAIL if state is TrialState.COMPLETE else state), None
    return state, value


def check_space(space: Space, image_shape: tuple[int, int, int]) -> None:
    """Tries a space out before anything is written.

    Raises:
        ConfigError: it breaks its contract.
    """
    space.baseline_config()
    sampler = Sampler("random", space, image_shape, seed=0)
    for number in range(3):
        sampler.ask(number)
