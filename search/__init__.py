"""Podium: a hyperparameter search that ends in a decision."""

import os

# Nothing leaves this machine unasked: MLflow would report its use, in every process.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
