"""Networks so wide that an epoch on the embedded digits is long enough to be cut."""

from spaces.config import TrialConfig


def suggest(trial):
    return TrialConfig(
        hidden=(trial.suggest_int("units", 384, 768),) * 2,
        dropout=trial.suggest_float("dropout", 0.0, 0.5),
        learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-3, log=True),
        batch_size=8,
    )


def baseline():
    return TrialConfig(hidden=(320, 320), batch_size=8)
