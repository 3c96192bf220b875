from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spaces.config import TrialConfig
from tests.builders import quick

UNITS = (1, 65_536)
EDGES: dict[str, tuple[Any, ...]] = {
    "scale": ("max", "255", "min-max", "standardize", "l2", "none"),
    "l2_axis": (1, 2, 3, "image"),
    "pca_components": (None, 1, 65_536),
    "pca_variance": (None, math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)),
    "forest_pixels": (None, 1, 65_536),
    "batch_normalization": (False, True),
    "nesterov": (False, True),
    "weight_decay": (0.0, 1.0),
    "schedule": (None, "constant", "inverse-time", "cosine"),
    "epochs": (None, 1, 100_000),
    "monitor": ("val_accuracy", "val_loss", "train_loss", "val_roc_auc_ovr", "val_f1_micro"),
    "patience": (None, 1, 100_000),
    "restore_best": (True, False),
    "filters": ((), (1,), (65_536,), (8,) * 16),
    "kernel_size": (1, 31),
    "padding": ("same", "valid"),
    "pool_size": (1, 8),
    "hidden": ((), (1,), (65_536,), (8,) * 64),
    "activation": ("relu", "elu", "gelu", "selu", "silu", "tanh", "sigmoid"),
    "kernel_initializer": ("glorot_uniform", "he_normal", "lecun_normal", "random_uniform"),
    "input_dropout": (0.0, math.nextafter(1.0, 0.0)),
    "dropout": (0.0, math.nextafter(1.0, 0.0)),
    "batch_size": (1, 65_536),
    "optimizer": ("adam", "adamw", "rmsprop", "sgd"),
    "learning_rate": (math.nextafter(0.0, 1.0), 100.0),
    "momentum": (0.0, math.nextafter(1.0, 0.0)),
    "decay": (0.0, 1.0),
    "extra": ({}, {"a": 1, "b": 1.5, "c": True, "d": "text"}),
}
BEYOND: dict[str, tuple[Any, ...]] = {
    "scale": ("MAX", 255, None),
    "l2_axis": (0, 4, "column", None),
    "pca_components": (0, 65_537, 0.95),
    "pca_variance": (0.0, 1.0, math.nan),
    "forest_pixels": (0, 65_537, 1.5),
    "batch_normalization": ("perhaps", None),
    "nesterov": (2, None),
    "weight_decay": (-0.1, 1.1, math.nan),
    "schedule": ("step", ""),
    "epochs": (0, 100_001, 2.5),
    "monitor": ("accuracy", "test_accuracy", None),
    "patience": (0, 100_001),
    "restore_best": ("sometimes", None),
    "filters": ((0,), (65_537,), (8, -1), (8,) * 17, 8, (1.5,)),
    "kernel_size": (0, 32, -1, 2.5, "three"),
    "padding": ("full", "SAME", None),
    "pool_size": (0, 9),
    "hidden": ((0,), (65_537,), (8,) * 65, None),
    "activation": ("softmax", ""),
    "kernel_initializer": ("zeros",),
    "input_dropout": (-0.01, 1.0, math.nan, math.inf),
    "dropout": (-0.01, 1.0, math.nan, -math.inf),
    "batch_size": (0, 65_537, 32.5),
    "optimizer": ("adagrad", None),
    "learning_rate": (0.0, -0.001, 100.1, math.nan, math.inf),
    "momentum": (-0.1, 1.0, math.nan),
    "decay": (-1e-9, 1.001, math.nan),
    "extra": ({"a": None}, {"a": [1]}, {"a": math.nan}, {"a": {"b": 1}}, {1: 2}, "text"),
}


def pairs(table: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(field, value, id=f"{field}-{index}")
        for field, values in table.items()
        for index, value in enumerate(values)
    ]


scalars = (
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
fractions = st.floats(0.0, 1.0, exclude_max=True)
units = st.integers(*UNITS)
fields = st.fixed_dictionaries(
    {},
    optional={
        "filters": st.lists(units, max_size=16).map(tuple),
        "kernel_size": st.integers(1, 31),
        "padding": st.sampled_from(EDGES["padding"]),
        "pool_size": st.integers(1, 8),
        "hidden": st.lists(units, max_size=64).map(tuple),
        "activation": st.sampled_from(EDGES["activation"]),
        "kernel_initializer": st.sampled_from(EDGES["kernel_initializer"]),
        "input_dropout": fractions,
        "dropout": fractions,
        "batch_size": units,
        "optimizer": st.sampled_from(EDGES["optimizer"]),
        "learning_rate": st.floats(0.0, 100.0, exclude_min=True),
        "momentum": fractions,
        "decay": st.floats(0.0, 1.0),
        "extra": st.dictionaries(st.text(), scalars, max_size=4),
    },
)


def test_every_field_has_its_edges_tested() -> None:
    assert set(EDGES) == set(BEYOND) == set(TrialConfig.model_fields)


@pytest.mark.parametrize(("field", "value"), pairs(EDGES))
def test_a_value_at_the_edge_is_accepted_and_kept(field: str, value: Any) -> None:
    assert getattr(TrialConfig.model_validate({field: value}), field) == value


@pytest.mark.parametrize(("field", "value"), pairs(BEYOND))
def test_a_value_beyond_the_edge_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        TrialConfig.model_validate({field: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {field}


def test_a_misspelt_field_is_refused_and_not_ignored() -> None:
    with pytest.raises(ValidationError, match="droput"):
        TrialConfig.model_validate({"droput": 0.5})


@pytest.mark.parametrize("field", sorted(TrialConfig.model_fields))
def test_no_field_can_be_assigned(field: str) -> None:
    config = TrialConfig()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, field, getattr(config, field))


@pytest.mark.parametrize(
    "change",
    [
        lambda extra: operator.setitem(extra, "b", 2),
        lambda extra: operator.delitem(extra, "a"),
        lambda extra: operator.ior(extra, {"b": 2}),
        lambda extra: extra.update(b=2),
        lambda extra: extra.setdefault("b", 2),
        lambda extra: extra.pop("a"),
        lambda extra: extra.popitem(),
        lambda extra: extra.clear(),
    ],
    ids=["set", "del", "|=", "update", "setdefault", "pop", "popitem", "clear"],
)
def test_extra_cannot_be_changed_behind_the_back_of_the_id(
    change: Callable[[dict[str, Any]], object],
) -> None:
    config = TrialConfig(extra={"a": 1})
    before = config.config_id
    with pytest.raises(TypeError, match="frozen"):
        change(config.extra)
    assert config.config_id == before


def test_canonical_json_leaves_out_what_is_at_its_default() -> None:
    assert TrialConfig().canonical_json == "{}"
    assert TrialConfig(hidden=(128,), batch_size=32, dropout=0.0).canonical_json == "{}"
    assert TrialConfig(dropout=0.25).canonical_json == '{"dropout":0.25}'


def test_canonical_json_is_sorted_compact_ascii() -> None:
    config = TrialConfig(optimizer="sgd", hidden=(64, 32), extra={"z": "é", "a": True})
    assert config.canonical_json == (
        '{"extra":{"a":true,"z":"\\u00e9"},"hidden":[64,32],"optimizer":"sgd"}'
    )


def test_config_ids_of_earlier_versions_stay_what_they_were() -> None:
    assert TrialConfig().config_id == "44136fa355b3"
    assert TrialConfig(filters=(32,)).config_id == "5b93b730e300"
    assert (
        TrialConfig(hidden=(64, 32), learning_rate=0.01, extra={"a": 1}).config_id == "096174949ad9"
    )


def test_config_id_does_not_depend_on_how_a_number_or_sequence_was_written() -> None:
    written = TrialConfig.model_validate({"learning_rate": 1, "hidden": [8, 4]})
    assert written.config_id == TrialConfig(learning_rate=1.0, hidden=(8, 4)).config_id


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (0.0, False), (1, 1)])
def test_configurations_are_equal_exactly_where_their_ids_are(one: Any, other: Any) -> None:
    first, second = TrialConfig(extra={"n": one}), TrialConfig(extra={"n": other})
    assert (first == second) == (first.config_id == second.config_id)
    assert len({first, second}) == len({first.config_id, second.config_id})


def test_the_order_of_layers_matters() -> None:
    assert TrialConfig(hidden=(8, 4)).config_id != TrialConfig(hidden=(4, 8)).config_id


@quick
@given(fields)
def test_json_round_trip_gives_the_same_configuration_and_id(values: dict[str, Any]) -> None:
    config = TrialConfig.model_validate(values)
    again = TrialConfig.model_validate_json(config.canonical_json)
    assert again == config
    assert again.config_id == config.config_id
    whole = TrialConfig.model_validate_json(config.model_dump_json())
    assert whole.config_id == config.config_id


@quick
@given(fields, st.randoms(use_true_random=False))
def test_config_id_does_not_depend_on_the_order_of_fields(
    values: dict[str, Any], random: Any
) -> None:
    shuffled = list(values.items())
    random.shuffle(shuffled)
    other = dict(shuffled)
    if "extra" in other:
        other["extra"] = dict(reversed(other["extra"].items()))
    assert (
        TrialConfig.model_validate(other).config_id == TrialConfig.model_validate(values).config_id
    )


@quick
@given(fields)
def test_writing_a_default_out_does_not_change_the_id(values: dict[str, Any]) -> None:
    config = TrialConfig.model_validate(values)
    explicit = TrialConfig.model_validate(config.model_dump())
    assert explicit.config_id == config.config_id


@quick
@given(fields, fields)
def test_different_configurations_have_different_ids(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    one, other = TrialConfig.model_validate(first), TrialConfig.model_validate(second)
    if one != other:
        assert one.config_id != other.config_id


@quick
@given(fields)
def test_config_id_is_12_hexadecimal_digits_and_the_json_is_json(values: dict[str, Any]) -> None:
    config = TrialConfig.model_validate(values)
    assert len(config.config_id) == 12
    assert int(config.config_id, 16) >= 0
    assert set(json.loads(config.canonical_json)) <= set(TrialConfig.model_fields)


def test_the_summary_says_layers_optimizer_and_batch_and_nothing_that_is_at_its_default() -> None:
    assert TrialConfig().summary == "dense 128, adam 0.001, batch 32"
    wide = TrialConfig(filters=(8, 16), kernel_size=5, hidden=(64, 32), learning_rate=0.0123)
    assert wide.summary == "conv 8-16 k5, dense 64-32, adam 0.012, batch 32"


def test_the_summary_says_what_is_not_at_its_default() -> None:
    config = TrialConfig(hidden=(), dropout=0.25, pool_size=3, activation="tanh", extra={"a": 1.5})
    assert config.summary == (
        "adam 0.001, batch 32, pool size 3, activation tanh, dropout 0.25, a 1.5"
    )
