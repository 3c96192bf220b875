"""Seconds per epoch: Podium's training loop against `model.fit` with its defaults.

    python benchmarks/epoch.py --data-dir ../shared/data

MNIST (48,000 images), one hidden layer of 64, Adam; median of the epochs after the first, both in
this process, alternating, so that a noisy machine is noisy for both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from search.backend import keras
from search.data import TrainingData, load
from search.model import build_network, compiled_model
from search.trainer import Task, Trainer
from search.transforms import Transform
from spaces.config import TrialConfig

GOALS = {32: 3.0, 128: 2.0}


def measure(data: TrainingData, batch_size: int, epochs: int) -> tuple[float, float]:
    """Median seconds per epoch of `fit` and of Podium, the first epoch of each left out."""
    config = TrialConfig(hidden=(64,), batch_size=batch_size)
    split = data.split(0)
    run = Trainer(data).start(Task(config, build_network, "mlp", (split,), 1, 100))
    model = compiled_model(
        config,
        build_network,
        data.image_shape,
        len(data.classes),
        Transform(1.0 / 255.0),
        seed=1,
        steps=1,
    )
    images = data.images.astype(np.float32)
    train = images[split.train], data.labels[split.train]
    validation = images[split.validation], data.labels[split.validation]
    fit_seconds, own_seconds = [], []
    for _ in range(epochs + 1):
        began = time.perf_counter()
        model.fit(*train, batch_size=batch_size, validation_data=validation, verbose=0)
        fit_seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        run.run_epoch()
        own_seconds.append(time.perf_counter() - began)
    return statistics.median(fit_seconds[1:]), statistics.median(own_seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    data = load("mnist", arguments.data_dir, seed=0).training
    print(f"Keras {keras.__version__}, MNIST, one hidden layer of 64, median of {arguments.epochs}")
    print(f"{'batch':>5}  {'fit s':>7}  {'podium s':>8}  {'ratio':>5}  {'goal':>5}")
    missed = False
    for batch_size, goal in GOALS.items():
        fit, own = measure(data, batch_size, arguments.epochs)
        missed |= fit / own < goal
        print(f"{batch_size:>5}  {fit:>7.3f}  {own:>8.3f}  {fit / own:>5.2f}  {goal:>5.2f}")
    raise SystemExit(int(missed))


if __name__ == "__main__":
    main()
