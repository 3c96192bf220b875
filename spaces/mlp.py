"""Multilayer perceptrons of one to five hidden layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces.config import TrialConfig

if TYPE_CHECKING:
    import optuna


def suggest_optimizer(trial: optuna.Trial) -> dict[str, object]:
    """Suggests an optimizer and the settings that it has: the keys are fields of `TrialConfig`.

    SGD wants learning rates about ten times as large as the adaptive optimizers do, so its rate is
    a parameter of its own; a sampler would otherwise learn one range that suits neither.
    """
    name = trial.suggest_categorical("optimizer", ["adam", "rmsprop", "sgd"])
    if name != "sgd":
        rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
        return {"optimizer": name, "learning_rate": rate}
    return {
        "optimizer": name,
        "learning_rate": trial.suggest_float("sgd_learning_rate", 1e-3, 0.3, log=True),
        "momentum": trial.suggest_float("momentum", 0.0, 0.99),
        "decay": trial.suggest_float("decay", 1e-6, 1e-3, log=True),
    }


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Suggests 1-5 hidden layers of 16-1024 units, both dropouts, batch size and optimizer."""
    layers = trial.suggest_int("layers", 1, 5)
    hidden = tuple(
        trial.suggest_int(f"units_{i}", 16, 1024, log=True) for i in range(1, layers + 1)
    )
    return TrialConfig.model_validate(
        {
            "hidden": hidden,
            "input_dropout": trial.suggest_float("input_dropout", 0.0, 0.3),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
            **suggest_optimizer(trial),
        }
    )


def baseline() -> TrialConfig:
    """One hidden layer of 128, Adam at its default rate, batch 32: what one writes first."""
    return TrialConfig(hidden=(128,))
