"""One configuration of a network and its training, as data."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal, NoReturn

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Units = Annotated[int, Field(ge=1, le=65_536)]
Scalar = bool | int | float | str


class _ReadOnly(dict[str, Scalar]):
    """A dictionary that stays as it is; pickles and copies like any other."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a TrialConfig is frozen; use model_copy(update={'extra': ...})")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[_ReadOnly], tuple[dict[str, Scalar]]]:
        return _ReadOnly, (dict(self),)


class TrialConfig(BaseModel):
    """Everything that decides what a trial trains, apart from data, seed and number of epochs.

    Frozen and validated; two equal configurations have the same `config_id` in every process and,
    because fields at their default are left out of it, in every later version that adds fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    filters: tuple[Units, ...] = Field(default=(), max_length=16)
    """Filters per convolution; its length is the conv depth. Each is followed by max pooling."""
    kernel_size: int = Field(default=3, ge=1, le=31)
    padding: Literal["same", "valid"] = "same"
    pool_size: int = Field(default=2, ge=1, le=8)
    hidden: tuple[Units, ...] = Field(default=(128,), max_length=64)
    """Units per dense hidden layer."""
    activation: Literal["relu", "elu", "gelu", "selu", "silu", "tanh", "sigmoid"] = "relu"
    kernel_initializer: Literal["glorot_uniform", "he_normal", "lecun_normal", "random_uniform"] = (
        "glorot_uniform"
    )
    input_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """After every dense hidden layer."""
    batch_size: int = Field(default=32, ge=1, le=65_536)
    optimizer: Literal["adam", "rmsprop", "sgd"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0.0, le=100.0)
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    """SGD only."""
    decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """SGD only: the learning rate at step t is learning_rate / (1 + decay * t)."""
    extra: Annotated[dict[str, Scalar], AfterValidator(_ReadOnly)] = Field(
        default_factory=_ReadOnly
    )
    """For spaces with a `build` of their own: whatever it reads."""

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
            if isinstance(value, dict):
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
