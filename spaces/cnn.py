"""Convolutional networks: one to four convolutions with pooling, then a dense head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spaces.config import TrialConfig
from spaces.mlp import suggest_optimizer

if TYPE_CHECKING:
    import optuna

POOL_SIZE = 2


def max_conv_depth(image_shape: tuple[int, ...]) -> int:
    """How many times an image of (h, w, ...) pixels can be halved, 1 to 4."""
    side = min(image_shape[:2])
    return max(1, min(4, side.bit_length() - 1))


def suggest(trial: optuna.Trial) -> TrialConfig:
    """Suggests conv depth (1-4 as the image allows), filters, kernel, head and optimizer.

    The study tells the image's shape in the trial's user attribute `image_shape`; without it (in
    a test, say) 28 by 28 is taken.
    """
    shape = tuple(trial.user_attrs.get("image_shape", (28, 28, 1)))
    depth = trial.suggest_int("conv_depth", 1, max_conv_depth(shape))
    filters = tuple(trial.suggest_int(f"filters_{i}", 8, 64, log=True) for i in range(1, depth + 1))
    return TrialConfig.model_validate(
        {
            "filters": filters,
            "kernel_size": trial.suggest_categorical("kernel_size", [3, 5]),
            "pool_size": POOL_SIZE,
            "hidden": (trial.suggest_int("units", 32, 512, log=True),),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
            "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
            **suggest_optimizer(trial),
        }
    )


def baseline() -> TrialConfig:
    """One convolution of 32 filters, a dense layer of 128, Adam at its default rate, batch 32."""
    return TrialConfig(filters=(32,), hidden=(128,))
