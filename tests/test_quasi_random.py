"""The Sobol sampler: even cover, no repeats, conditional parameters included."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from search.quasi_random import SobolSampler


def _proposals(seed: int, count: int) -> list[dict[str, Any]]:
    """All asked before any has ended."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=SobolSampler(seed))
    rows = []
    for _ in range(count):
        trial = study.ask()
        row: dict[str, Any] = {"depth": trial.suggest_int("depth", 1, 3)}
        for layer in range(row["depth"]):
            row[f"units_{layer}"] = trial.suggest_int(f"units_{layer}", 16, 1024, log=True)
        row["rate"] = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
        row["kind"] = trial.suggest_categorical("kind", ["a", "b", "c"])
        rows.append(row)
    return rows


@pytest.mark.parametrize("seed", range(6))
def test_trials_that_run_at_the_same_time_never_get_the_same_point(seed: int) -> None:
    rows = _proposals(seed, 32)
    assert len({str(row) for row in rows}) == 32


def test_a_range_is_covered_more_evenly_than_at_random() -> None:
    logs = np.sort([np.log10(row["rate"]) for row in _proposals(0, 64)])
    cells = np.bincount(((logs + 4) / 3 * 16).astype(int).clip(0, 15), minlength=16)
    assert cells.tolist() == [4] * 16


def test_conditional_parameters_vary() -> None:
    rows = _proposals(1, 32)
    deep = [row["units_2"] for row in rows if "units_2" in row]
    assert len(deep) > 5
    assert len(set(deep)) == len(deep)


def test_every_choice_comes_about_equally_often() -> None:
    kinds = [row["kind"] for row in _proposals(2, 64)]
    assert all(abs(kinds.count(kind) - 64 / 3) < 3 for kind in "abc")


def test_the_seed_decides() -> None:
    assert _proposals(3, 8) == _proposals(3, 8)
    assert _proposals(3, 8) != _proposals(4, 8)
