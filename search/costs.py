"""What using a trained model costs: the size of its file, and its latency."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from search.backend import keras, tf
from search.model import load_model
from search.records import Costs, Latency, Timing

BATCH = 256
WARM_UP_CALLS = 3
FEWEST_CALLS = 20
MOST_CALLS = 500
SECONDS = 0.2
"""Of calls, for each model and batch size, unless that would be fewer than the fewest."""


def measure_costs(job: Timing) -> dict[str, Costs]:
    """Times each model on random images, one after the other; alone in its process.

    Latency is that of one call of the compiled model, from an array of raw pixels to an array of
    probabilities: what a server adds (HTTP, JSON) is not in it.
    """
    return {name: _costs(content, job.image_shape) for name, content in job.models.items()}


def _costs(content: bytes, image_shape: tuple[int, int, int]) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(content)
        model = load_model(path)
    return Costs(len(content), _latency(model, 1, image_shape), _latency(model, BATCH, image_shape))


def _latency(model: keras.Model, images: int, image_shape: tuple[int, int, int]) -> Latency:
    values = np.random.default_rng(0).uniform(0, 255, (images, *image_shape)).astype(np.float32)
    compiled = tf.function(lambda x: model(x, training=False))
    seconds = _timed(lambda: compiled(tf.constant(values)).numpy())
    median, p99 = np.percentile(seconds, [50, 99])
    return Latency(1000 * float(median), 1000 * float(p99))


def _timed(call: Callable[[], object]) -> list[float]:
    """Seconds of each of many calls, after some that are not counted."""
    for _ in range(WARM_UP_CALLS):
        call()
    seconds: list[float] = []
    while len(seconds) < FEWEST_CALLS or (sum(seconds) < SECONDS and len(seconds) < MOST_CALLS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return seconds
