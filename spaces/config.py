"""One configuration of a network and its training, as data."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Units = Annotated[int, Field(ge=1, le=65_536)]
Scalar = bool | int | float | str
LARGE = 10**300
"""What Python will neither write as text nor read from it has some 4,300 digits."""
Initializer = Literal[
    "glorot_uniform",
    "glorot_normal",
    "he_uniform",
    "he_normal",
    "lecun_uniform",
    "lecun_normal",
    "random_uniform",
    "random_normal",
    "orthogonal",
]
Monitored = Literal[
    "val_accuracy",
    "val_loss",
    "val_f1_macro",
    "val_f1_micro",
    "val_roc_auc_ovo",
    "val_roc_auc_ovr",
    "val_calibration_error",
    "train_accuracy",
    "train_loss",
]


class _ReadOnly(dict[str, Scalar]):
    """A dictionary that stays as it is; pickles and copies like any other."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a TrialConfig is frozen; use model_copy(update={'extra': ...})")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[_ReadOnly], tuple[dict[str, Scalar]]]:
        return _ReadOnly, (dict(self),)


def _kept(values: dict[str, Scalar]) -> _ReadOnly:
    for name, value in values.items():
        if isinstance(value, int) and abs(value) >= LARGE:
            raise ValueError(f"{name!r} must be a whole number below 10**300")
    return _ReadOnly(values)


class TrialConfig(BaseModel):
    """Everything that decides what a trial trains, apart from data, seed and number of epochs.

    Frozen and validated; two equal configurations have the same `config_id` in every process and,
    because fields at their default are left out of it, in every later version that adds fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: Literal["max", "255", "min-max", "standardize", "l2", "none"] = "max"
    """What is done to raw pixels, with figures of the training images only: divide by the largest
    value, or by 255; each pixel to 0..1; each pixel to mean 0 and deviation 1; unit length."""
    l2_axis: Literal[1, 2, 3, "image"] = "image"
    """Scale "l2" only: what gets unit length, as the axis of (n, height, width, channels) that is
    summed over; 1 is each column of the image. "image": all its pixels together."""
    pca_components: int | None = Field(default=None, ge=1, le=65_536)
    """Principal components of the training images that the network sees in place of pixels."""
    pca_variance: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Likewise, as many as explain this fraction of the variance."""
    forest_pixels: int | None = Field(default=None, ge=1, le=65_536)
    """The network sees only so many pixels: those most important to a random forest."""
    filters: tuple[Units, ...] = Field(default=(), max_length=16)
    """Filters per convolution; its length is the conv depth. Each is followed by max pooling."""
    kernel_size: int = Field(default=3, ge=1, le=31)
    padding: Literal["same", "valid"] = "same"
    pool_size: int = Field(default=2, ge=1, le=8)
    hidden: tuple[Units, ...] = Field(default=(128,), max_length=64)
    """Units per dense hidden layer."""
    activation: Literal["relu", "elu", "gelu", "selu", "silu", "tanh", "sigmoid"] = "relu"
    kernel_initializer: Initializer = "glorot_uniform"
    batch_normalization: bool = False
    """After every convolution and dense hidden layer, before its activation."""
    input_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """After every dense hidden layer."""
    batch_size: int = Field(default=32, ge=1, le=65_536)
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0.0, le=100.0)
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """SGD and RMSprop only."""
    nesterov: bool = False
    """SGD only; without momentum it changes nothing."""
    weight_decay: float = Field(default=0.004, ge=0.0, le=1.0)
    """AdamW only."""
    schedule: Literal["constant", "inverse-time", "cosine"] | None = None
    """Of the learning rate. None: inverse-time where `decay` is given, else constant. Cosine falls
    to zero at the last epoch."""
    decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """Inverse-time only: the learning rate at step t is learning_rate / (1 + decay * t)."""
    epochs: int | None = Field(default=None, ge=1, le=100_000)
    """Trains so many epochs at most; None: as many as the study's `max_epochs`."""
    monitor: Monitored = "val_accuracy"
    """What decides which epoch is best, and when patience ends."""
    patience: int | None = Field(default=None, ge=1, le=100_000)
    """Ends after so many epochs in a row without a new best; None: never."""
    restore_best: bool = True
    """Whether the weights of the best epoch are kept; else those of the last one."""
    extra: Annotated[dict[str, Scalar], AfterValidator(_kept)] = Field(default_factory=_ReadOnly)
    """For spaces with a `build` of their own: whatever it reads."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> TrialConfig:
        if sum(x is not None for x in self.reduction) > 1:
            raise ValueError("only one of pca_components, pca_variance and forest_pixels at a time")
        if self.filters and any(x is not None for x in self.reduction):
            raise ValueError("convolutions need whole images: leave filters or the reduction out")
        if self.schedule not in (None, "inverse-time") and self.decay:
            raise ValueError(f"decay belongs to schedule inverse-time, not to {self.schedule}")
        return self

    @property
    def reduction(self) -> tuple[int | float | None, ...]:
        """The settings of which one, at most, replaces the pixels by fewer features."""
        return self.pca_components, self.pca_variance, self.forest_pixels

    def __eq__(self, other: object) -> bool:
        """Whether the `config_id` is the same: to Python, 1, 1.0 and True would be equal."""
        return isinstance(other, TrialConfig) and self.canonical_json == other.canonical_json

    def __hash__(self) -> int:
        """Goes with equality."""
        return hash(self.canonical_json)

    @property
    def canonical_json(self) -> str:
        """Sorted JSON without the fields that are at their default."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)

    @property
    def config_id(self) -> str:
        """12 hexadecimal digits that name this configuration."""
        return hashlib.sha256(self.canonical_json.encode()).hexdigest()[:12]

    @property
    def summary(self) -> str:
        """The configuration in a few words: layers, optimizer, batch, and what is not default."""
        parts = []
        if self.filters:
            parts.append(f"conv {'-'.join(map(str, self.filters))} k{self.kernel_size}")
        if self.hidden:
            parts.append(f"dense {'-'.join(map(str, self.hidden))}")
        parts.append(f"{self.optimizer} {self.learning_rate:.2g}")
        parts.append(f"batch {self.batch_size}")
        shown = {"filters", "kernel_size", "hidden", "optimizer", "learning_rate", "batch_size"}
        for key in type(self).model_fields:
            value = getattr(self, key)
            if key in shown or value == type(self).model_fields[key].get_default(
                call_default_factory=True
            ):
                continue
            if key == "restore_best":
                parts.append("last weights")
            elif isinstance(value, bool):
                parts.append(key.replace("_", " "))
            elif isinstance(value, dict):
                parts += [
                    f"{name} {item:.2g}" if isinstance(item, float) else f"{name} {item}"
                    for name, item in value.items()
                ]
            else:
                parts.append(
                    f"{key.replace('_', ' ')} {value:.2g}"
                    if isinstance(value, float)
                    else f"{key.replace('_', ' ')} {value}"
                )
        return ", ".join(parts)
