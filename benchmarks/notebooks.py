"""The six networks of the notebook msds422-mlp, 10 epochs each, against `model.fit` in one process.

    python benchmarks/notebooks.py --data-dir ../shared/data

Podium's side is the whole command `podium reproduce msds422-mlp --seeds 1`: starting Ray and the
workers, importing TensorFlow in each, training, the test split, MLflow, the report. Keras's side is
the six calls of `fit` with validation data and of `evaluate`, after its imports.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from search.backend import keras
from search.data import LoadedData, load
from search.ledger import Ledger
from search.records import State
from spaces.notebooks import NOTEBOOKS

GOAL = 3.0
NOTEBOOK = "msds422-mlp"
STUDY = "benchmark"
NOTEBOOK_SECONDS = 607.0
"""What the six runs took on the notebook's machine."""


def fit_seconds(loaded: LoadedData, epochs: int) -> float:
    """Trains the six networks as the notebook did."""
    data, split = loaded.training, loaded.split
    images = (data.images / 255.0).reshape(len(data.images), -1).astype(np.float32)
    train = images[split.train], data.labels[split.train]
    validation = images[split.validation], data.labels[split.validation]
    began = time.perf_counter()
    for experiment in NOTEBOOKS[NOTEBOOK].experiments:
        hidden = [keras.layers.Dense(n, activation="relu") for n in experiment.config.hidden]
        model = keras.Sequential([*hidden, keras.layers.Dense(10, activation="softmax")])
        model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(*train, batch_size=32, epochs=epochs, validation_data=validation, verbose=0)
        model.evaluate(*validation, verbose=0)
    return time.perf_counter() - began


def podium_seconds(data_dir: Path, epochs: int) -> float:
    """Runs the command in a folder of its own."""
    command = [sys.executable, "-m", "search", "reproduce", NOTEBOOK, "--study", STUDY]
    command += ["--seeds", "1", "--epochs-scale", str(epochs / 10)]
    command += ["--data-dir", str(data_dir.resolve())]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"podium reproduce failed: {done.stderr}")
        trials = Ledger(Path(folder) / "runs" / "ledger.db").trials(STUDY)
    trained = [t.epochs_trained for t in trials if t.state is State.COMPLETED and t.tests]
    if trained != [epochs] * len(NOTEBOOKS[NOTEBOOK].experiments):
        raise SystemExit(f"podium reproduce trained {trained} epochs, not {epochs} of each")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=10, choices=range(1, 11))
    arguments = parser.parse_args()
    epochs: int = arguments.epochs
    own = podium_seconds(arguments.data_dir, epochs)
    fit = fit_seconds(load("mnist", arguments.data_dir, seed=0), epochs)
    print(
        f"six networks, {epochs} epochs: fit {fit:.0f} s, podium {own:.0f} s, {fit / own:.2f} times"
    )
    print(f"goal: {GOAL:.1f} times; the notebook took {NOTEBOOK_SECONDS:.0f} s on its own machine")
    raise SystemExit(int(fit / own < GOAL))


if __name__ == "__main__":
    main()
