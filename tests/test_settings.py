from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from search.records import ConfigError, Criteria
from search.settings import (
    CORRECTIONS,
    COSTS,
    MLFLOW_FILE,
    POLICIES,
    SAMPLERS,
    SCHEDULERS,
    WITH_TOLERANCE,
    GateSettings,
    StudySettings,
    TrackingSettings,
    criteria_from,
    load_settings,
    load_tracking,
    nearest,
    read_mapping,
    without_password,
)

STUDY_FILE = Path("study.yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def from_file(text: str, **flags: Any) -> StudySettings:
    STUDY_FILE.write_text(text, encoding="utf-8")
    return load_settings(STUDY_FILE, flags)


def complaint(text: str | None = None, **flags: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(None, flags) if text is None else from_file(text, **flags)
    return str(caught.value)


# Who wins


def test_without_files_and_flags_everything_is_at_its_default() -> None:
    assert load_settings(None, {}) == StudySettings()


def test_a_flag_beats_the_study_file_which_beats_the_default() -> None:
    assert load_settings(None, {}).trials == 24
    assert from_file("trials: 7").trials == 7
    assert from_file("trials: 7", trials=9).trials == 9


def test_a_flag_that_was_not_given_leaves_the_study_file_alone() -> None:
    assert from_file("trials: 7\nstudy: mine", trials=None, study=None).trials == 7


@pytest.mark.parametrize(
    ("flag", "value"), [("seed", 0), ("finalists", 0), ("gpus_per_trial", 0.0)]
)
def test_a_flag_of_zero_is_a_flag_that_was_given(flag: str, value: float) -> None:
    assert getattr(from_file(f"{flag}: 2", **{flag: value}), flag) == value


def test_the_study_file_beats_mlflow_yaml_which_beats_the_default() -> None:
    assert load_settings(None, {}).tracking.experiment == "podium"
    MLFLOW_FILE.write_text("experiment: from-mlflow\nregistered-model: shipped\n")
    assert load_settings(None, {}).tracking.experiment == "from-mlflow"
    tracking = from_file("tracking:\n  experiment: from-study\n").tracking
    assert tracking.experiment == "from-study"
    assert tracking.registered_model == "shipped"
    assert tracking.artifact_root == TrackingSettings().artifact_root


def test_a_study_file_beats_mlflow_yaml_and_leaves_the_rest_of_it(here: Path) -> None:
    MLFLOW_FILE.write_text("experiment: from-mlflow\nregistered_model: kept\n")
    study = here / "study.yaml"
    study.write_text("tracking: {experiment: from-study}\n")
    tracking = load_settings(study, {}).tracking
    assert (tracking.experiment, tracking.registered_model) == ("from-study", "kept")


def test_only_the_mlflow_yaml_of_the_current_folder_counts(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MLFLOW_FILE.write_text("experiment: elsewhere\n")
    inner = here / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    assert load_tracking() == TrackingSettings()


def test_the_mlflow_yaml_that_podium_ships_says_the_defaults() -> None:
    shipped = Path(__file__).parents[1] / "mlflow.yaml"
    assert TrackingSettings.model_validate(read_mapping(shipped)) == TrackingSettings()


def test_a_study_file_may_spell_names_like_flags() -> None:
    settings = from_file("max-epochs: 9\nfirst-rung: 3\ncpus-per-trial: 2\n")
    assert (settings.max_epochs, settings.first_rung, settings.cpus_per_trial) == (9, 3, 2)


def test_tracking_in_a_study_file_may_spell_names_like_flags() -> None:
    assert from_file("tracking: {registered-model: mine}").tracking.registered_model == "mine"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "{}", "tracking:\n"])
def test_an_empty_study_file_means_defaults(text: str) -> None:
    assert from_file(text) == StudySettings()


def test_settings_cannot_be_changed_afterwards() -> None:
    settings = load_settings(None, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.trials = 3
    with pytest.raises(ValidationError, match="frozen"):
        settings.tracking.experiment = "other"


# Unknown keys


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("trails", "trials"), ("max_epoch", "max_epochs"), ("smapler", "sampler"), ("Seed", "seed")],
)
def test_an_unknown_key_names_file_key_and_the_nearest_known_one(typed: str, meant: str) -> None:
    message = complaint(f"{typed}: 3")
    assert str(STUDY_FILE) in message
    assert repr(typed) in message
    assert f"Did you mean {meant!r}?" in message


def test_a_key_that_is_like_no_other_lists_those_there_are() -> None:
    message = complaint("zzzzzz: 3")
    assert "Did you mean" not in message
    assert all(name in message for name in StudySettings.model_fields)


def test_an_unknown_key_that_is_a_number_is_named() -> None:
    assert "'7'" in complaint("7: 3")


def test_an_unknown_flag_is_refused() -> None:
    message = complaint(trails=3)
    assert "'trails'" in message
    assert "'trials'" in message


def test_an_unknown_key_of_mlflow_yaml_names_that_file() -> None:
    MLFLOW_FILE.write_text("experimnt: x\n")
    message = complaint()
    assert message.startswith("mlflow.yaml")
    assert "'experimnt'" in message
    assert "'experiment'" in message


def test_an_unknown_key_under_tracking_is_refused() -> None:
    message = complaint("tracking:\n  tracking_url: sqlite:///x.db\n")
    assert "'tracking_url'" in message
    assert "'tracking_uri'" in message


def test_an_unknown_key_under_tracking_is_blamed_on_the_study_file() -> None:
    MLFLOW_FILE.write_text("experiment: innocent\n")
    message = complaint("tracking: {experimnt: x}")
    assert message.startswith(f"{STUDY_FILE}: tracking: ")
    assert str(MLFLOW_FILE) not in message


def test_an_unknown_key_under_tracking_that_is_a_number_is_named() -> None:
    assert "'1'" in complaint("tracking: {1: 2}")


@pytest.mark.parametrize(
    "text",
    [
        "tracking: sqlite:///x.db",
        "tracking: 3",
        "tracking: 0",
        "tracking: [a]",
        "tracking: []",
    ],
)
def test_tracking_that_is_no_mapping_is_refused(text: str) -> None:
    message = complaint(text)
    assert str(STUDY_FILE) in message
    assert "tracking" in message


# Impossible values

IMPOSSIBLE = [
    ("trials", 0),
    ("trials", -1),
    ("trials", 1_000_001),
    ("trials", 2.5),
    ("trials", "many"),
    ("max-epochs", 0),
    ("max-epochs", 100_001),
    ("first-rung", 0),
    ("first-rung", -2),
    ("reduction", 1),
    ("reduction", 65),
    ("concurrent", 0),
    ("concurrent", -1),
    ("cpus-per-trial", 0),
    ("cpus-per-trial", 0.5),
    ("gpus-per-trial", -0.5),
    ("seed", -1),
    ("seed", 2**31),
    ("finalists", -1),
    ("confirm-seeds", 0),
    ("confirm-seeds", 1),
    ("confirm-seeds", 1_001),
]


@pytest.mark.parametrize(("name", "value"), IMPOSSIBLE)
def test_an_impossible_number_is_refused_by_name_and_value(name: str, value: Any) -> None:
    for message in (complaint(f"{name}: {value}"), complaint(**{name.replace("-", "_"): value})):
        assert f"{name} is {value!r}" in message
        assert "\n" not in message


@pytest.mark.parametrize("name", ["trials", "concurrent"])
@pytest.mark.parametrize("word", ["true", "yes"])
def test_yes_is_not_taken_for_the_number_one(name: str, word: str) -> None:
    message = complaint(f"{name}: {word}")
    assert f"{name} is True" in message
    assert "yes or no" in message


def test_a_wrong_flag_is_not_blamed_on_the_study_file() -> None:
    message = complaint("trials: 5", trials=0)
    assert "trials is 0" in message
    assert str(STUDY_FILE) not in message


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_gpus_that_are_no_finite_number_are_refused(value: str) -> None:
    assert "gpus-per-trial" in complaint(f"gpus-per-trial: {value}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trials", 1),
        ("trials", 1_000_000),
        ("max_epochs", 100_000),
        ("reduction", 2),
        ("reduction", 64),
        ("concurrent", 1),
        ("gpus_per_trial", 0.25),
        ("seed", 2**31 - 1),
        ("finalists", 0),
        ("confirm_seeds", 2),
        ("confirm_seeds", 1_000),
    ],
)
def test_a_number_at_its_limit_is_accepted(name: str, value: float) -> None:
    assert getattr(load_settings(None, {name: value}), name) == value


CHOICES = {
    "sampler": SAMPLERS,
    "scheduler": SCHEDULERS,
    "policy": POLICIES,
    "cost": COSTS,
    "correction": CORRECTIONS,
}


@pytest.mark.parametrize("kind", CHOICES)
def test_an_unknown_choice_names_the_nearest_and_lists_all(kind: str) -> None:
    known = CHOICES[kind]
    typed = known[0] + "x"
    message = complaint(**{kind: typed})
    assert repr(typed) in message
    assert f"Did you mean {known[0]!r}?" in message
    assert all(name in message for name in known)


@pytest.mark.parametrize("kind", CHOICES)
def test_every_listed_choice_is_accepted(kind: str) -> None:
    choices = get_args(StudySettings.model_fields[kind].annotation)
    assert choices == CHOICES[kind]
    assert [getattr(load_settings(None, {kind: name}), kind) for name in choices] == list(choices)


def test_every_mistake_is_told_at_once() -> None:
    message = complaint("trials: 0\nreduction: 1\nsampler: tpee\n")
    assert "trials is 0" in message
    assert "reduction is 1" in message
    assert "'tpee'" in message


@pytest.mark.parametrize("name", ["a", "9", "a" * 64, "my-study_1.2", "A..b"])
def test_a_study_name_that_is_safe_in_paths_is_accepted(name: str) -> None:
    assert load_settings(None, {"study": name}).study == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "-rf", "a/b", "a\\b", "a b", "a" * 65, "é", "a\n", "<script>", "a|b"],
)
def test_a_study_name_that_could_leave_its_folder_or_break_a_page_is_refused(name: str) -> None:
    message = complaint(study=name)
    assert "study is" in message
    assert "letters, digits" in message


def test_a_first_rung_after_the_last_epoch_says_the_three_ways_out() -> None:
    message = complaint(max_epochs=3, first_rung=4)
    for part in ("3", "4", "--max-epochs", "--first-rung", "--scheduler none"):
        assert part in message


def test_a_first_rung_at_the_last_epoch_is_accepted() -> None:
    assert load_settings(None, {"max_epochs": 4, "first_rung": 4}).first_rung == 4


def test_without_a_scheduler_the_first_rung_does_not_matter() -> None:
    settings = load_settings(None, {"max_epochs": 1, "first_rung": 4, "scheduler": "none"})
    assert settings.max_epochs == 1


@pytest.mark.parametrize("folds", [0, 2, 10, 100])
def test_folds_of_which_each_can_be_held_out_are_accepted(folds: int) -> None:
    assert load_settings(None, {"folds": folds}).folds == folds
    assert from_file(f"folds: {folds}").folds == folds


@pytest.mark.parametrize("folds", [1, -1, 101, 2.5])
def test_folds_of_which_none_can_be_held_out_are_refused(folds: float) -> None:
    for message in (complaint(folds=folds), complaint(f"folds: {folds}")):
        assert f"folds is {folds!r}" in message


def test_a_single_fold_says_what_was_meant() -> None:
    message = complaint(folds=1)
    for part in ("0 for one split", "at least 2 folds"):
        assert part in message


@pytest.mark.parametrize("shape", ["28x28", "8x16", "32x32x1", "32x32x3"])
def test_an_image_shape_of_two_or_three_sizes_is_accepted(shape: str) -> None:
    assert load_settings(None, {"image_shape": shape}).image_shape == shape


@pytest.mark.parametrize(
    "shape",
    [
        *("28", "28x", "x28", "28x28x", "28x28x2", "28x28x4", "28x28x3x1", "28X28", "28 x 28"),
        *("-28x28", "2.8x28", "28x28\n", "", "axb", "28,28"),
    ],
)
def test_an_image_shape_that_no_image_can_have_is_refused_by_name(shape: str) -> None:
    assert f"image-shape is {shape!r}" in complaint(image_shape=shape)


# Grids


def grid_of(*flags: str, **values: Any) -> StudySettings:
    return load_settings(None, {"grid": list(flags), **values})


def test_a_grid_is_listed_values_by_field() -> None:
    settings = grid_of("batch_size=10,32", "optimizer=adam,rmsprop")
    assert settings.grid == {"batch_size": ("10", "32"), "optimizer": ("adam", "rmsprop")}


def test_a_grid_of_one_value_is_a_grid() -> None:
    assert grid_of("batch_size=10").grid == {"batch_size": ("10",)}


def test_a_field_may_be_given_several_times() -> None:
    assert grid_of("batch_size=10", "batch_size=32,64").grid == {"batch_size": ("10", "32", "64")}


def test_a_field_may_be_spelt_like_a_flag() -> None:
    assert grid_of("batch-size=10,32").grid == {"batch_size": ("10", "32")}
    assert from_file("grid: {batch-size: [10, 32]}").grid == {"batch_size": ("10", "32")}


def test_a_field_that_is_spelt_in_both_ways_is_one_field() -> None:
    settings = grid_of("batch-size=10", "batch_size=32")
    assert settings.grid == {"batch_size": ("10", "32")}
    assert settings.trials == 2


def test_a_name_of_a_users_own_stays_as_it_is() -> None:
    assert grid_of("extra.my-key=1").grid == {"extra.my-key": ("1",)}
    assert from_file("grid: {extra.my-key: [1]}").grid == {"extra.my-key": ("1",)}


def test_blanks_around_names_and_values_do_not_count() -> None:
    assert grid_of(" batch_size = 10 , 32 ").grid == {"batch_size": ("10", "32")}


def test_a_value_may_hold_an_equals_sign() -> None:
    assert grid_of("extra.formula=a=b,c").grid == {"extra.formula": ("a=b", "c")}


def test_a_value_that_is_listed_twice_is_tried_once() -> None:
    settings = grid_of("batch_size=10,32,10", "batch_size=32")
    assert settings.grid == {"batch_size": ("10", "32")}
    assert settings.trials == 2


def test_layer_sizes_are_joined_by_dashes_in_flags_and_nested_in_files() -> None:
    expected = {"hidden": ("128-64", "32", "16")}
    assert grid_of("hidden=128-64,32,16").grid == expected
    assert from_file("grid: {hidden: [[128, 64], [32], 16]}").grid == expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[10, 32]", ("10", "32")),
        ("10", ("10",)),
        ("[0.1, 1.0e-3]", ("0.1", "0.001")),
        ("['none', max]", ("none", "max")),
        ("[true, false]", ("True", "False")),
        ("[null, 5]", ("None", "5")),
    ],
)
def test_a_study_file_lists_values_as_yaml_does(text: str, values: tuple[str, ...]) -> None:
    assert from_file(f"grid: {{field: {text}}}").grid == {"field": values}


def test_a_grid_decides_sampler_and_trials_unless_they_are_given() -> None:
    settings = grid_of("batch_size=10,32,64", "optimizer=adam,sgd", "dropout=0.1")
    assert (settings.sampler, settings.trials) == ("grid", 6)
    given = grid_of("batch_size=10,32,64", sampler="random", trials=2)
    assert (given.sampler, given.trials) == ("random", 2)


def test_a_grid_in_a_study_file_decides_sampler_and_trials_unless_they_are_given() -> None:
    text = "grid: {batch_size: [10, 32, 10], hidden: [[64], [32, 16]]}\n"
    assert (from_file(text).sampler, from_file(text).trials) == ("grid", 4)
    settings = from_file(text + "sampler: tpe\ntrials: 3\n")
    assert (settings.sampler, settings.trials) == ("tpe", 3)
    assert from_file(text, trials=2).trials == 2


MANY = range(1, 1002)


def test_a_grid_of_more_combinations_than_trials_is_refused_by_its_flag() -> None:
    flags = [f"{name}={','.join(map(str, MANY))}" for name in ("batch_size", "epochs")]
    message = complaint(grid=flags)
    assert message.startswith("--grid has 1,002,001 combinations")
    assert "at most 1,000,000 trials" in message
    assert "None" not in message
    assert load_settings(None, {"grid": flags, "trials": 9}).trials == 9


@pytest.mark.parametrize(
    ("fields", "values", "number"),
    [(2, MANY, "1,002,001"), (20_000, range(2), "more than 10**12")],
)
def test_a_grid_of_more_combinations_than_trials_is_refused_by_its_file(
    fields: int, values: range, number: str
) -> None:
    lists = "".join(f"  extra.n{n}: {list(values)}\n" for n in range(fields))
    message = complaint(f"grid:\n{lists}")
    assert message.startswith(f"{STUDY_FILE}: grid has {number} combinations")
    assert "--trials" in message


def test_a_grid_of_flags_replaces_that_of_the_study_file() -> None:
    settings = from_file("grid: {batch_size: [10, 32, 64]}", grid=["hidden=64,32"])
    assert settings.grid == {"hidden": ("64", "32")}
    assert settings.trials == 2


def test_without_a_grid_sampler_and_trials_are_the_usual_ones() -> None:
    for settings in (load_settings(None, {"grid": None}), from_file("grid: {}")):
        assert (settings.grid, settings.sampler, settings.trials) == ({}, "tpe", 24)


@pytest.mark.parametrize("flag", ["batch_size", "batch_size=", "=10", " =10", "batch_size= ", "="])
def test_a_grid_flag_without_name_or_values_is_refused_with_an_example(flag: str) -> None:
    message = complaint(grid=[flag])
    assert f"--grid {flag}: " in message
    assert "batch_size=10,32" in message


@pytest.mark.parametrize("flag", ["hidden=64,", "hidden=,64", "batch_size=10,,32", "batch_size=,"])
def test_a_grid_flag_with_a_value_missing_is_refused(flag: str) -> None:
    message = complaint(grid=[flag])
    assert f"--grid {flag}: " in message


@pytest.mark.parametrize("text", ["3", "batch_size", "[batch_size]", "[[batch_size, 10]]"])
def test_a_grid_in_a_study_file_that_is_no_mapping_is_refused_by_name(text: str) -> None:
    message = complaint(f"grid: {text}")
    assert message.startswith(f"{STUDY_FILE}: grid is ")
    assert "name: [value, value]" in message


def test_a_grid_in_a_study_file_without_values_is_refused_by_name() -> None:
    assert "grid" in complaint("grid: {batch_size: []}")


@pytest.mark.parametrize("field", sorted(TrackingSettings.model_fields))
def test_an_empty_tracking_setting_is_refused_by_name(field: str) -> None:
    MLFLOW_FILE.write_text(f"{field}: ''\n")
    message = complaint()
    assert "mlflow.yaml" in message
    assert field.replace("_", "-") in message


@pytest.mark.parametrize("name", ["a/b", "a:b", "models:/podium/1"])
def test_a_model_name_that_mlflow_could_not_address_is_refused(name: str) -> None:
    MLFLOW_FILE.write_text(f"registered_model: '{name}'\n")
    assert name in complaint()


# How to choose


def test_the_criteria_are_those_of_the_settings() -> None:
    assert load_settings(None, {}).criteria == Criteria()
    chosen = {
        "policy": "cheapest-within",
        "tolerance": 0.01,
        "cost": "latency",
        "correction": "nadeau-bengio",
        "max_params": 50_000,
        "max_latency_ms": 2.5,
        "max_gap": 0.05,
        "min_class_recall": 0.7,
    }
    assert load_settings(None, chosen).criteria == Criteria(**chosen)
    text = "\n".join(f"{name.replace('_', '-')}: {value}" for name, value in chosen.items())
    assert from_file(text).criteria == Criteria(**chosen)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("tolerance", value) for value in (-0.001, 1.0, "wide", float("nan"))),
        *(("max-params", value) for value in (0, -1, 2.5, "few")),
        *(("max-latency-ms", value) for value in (0, 0.0, -1.0, float("inf"))),
        *(("max-gap", value) for value in (-0.01, 1.01)),
        *(("min-class-recall", value) for value in (-0.01, 1.01, 70)),
    ],
)
def test_a_criterion_that_cannot_be_met_or_means_nothing_is_refused(name: str, value: Any) -> None:
    message = complaint(**{name.replace("-", "_"): value})
    assert f"{name} is {value!r}" in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tolerance", 0.0),
        ("max_params", 1),
        ("max_latency_ms", 0.001),
        ("max_gap", 0.0),
        ("max_gap", 1.0),
        ("min_class_recall", 0.0),
        ("min_class_recall", 1.0),
    ],
)
def test_a_criterion_at_its_limit_is_accepted(name: str, value: float) -> None:
    assert getattr(load_settings(None, {name: value}).criteria, name) == value


def test_an_unknown_cost_names_the_nearest_and_lists_all() -> None:
    message = complaint(cost="parameter")
    assert "Unknown cost 'parameter'. Did you mean 'parameters'?" in message
    assert all(cost in message for cost in COSTS)


def test_an_unknown_correction_names_the_nearest_and_lists_all() -> None:
    message = complaint(correction="nadeau-bengo")
    assert message == (
        "Unknown correction 'nadeau-bengo'. Did you mean 'nadeau-bengio'? "
        "Known: nadeau-bengio, paired."
    )
    in_file = complaint("correction: pairs")
    assert in_file.startswith(f"{STUDY_FILE}: Unknown correction 'pairs'. Did you mean 'paired'?")


def test_a_typed_correction_beats_the_study_file_which_beats_the_default() -> None:
    assert load_settings(None, {}).criteria.correction == "paired"
    assert from_file("correction: nadeau-bengio").criteria.correction == "nadeau-bengio"
    typed = from_file("correction: nadeau-bengio", correction="paired")
    assert typed.criteria.correction == "paired"
    assert from_file("correction: paired", correction="nadeau-bengio").criteria == Criteria(
        correction="nadeau-bengio"
    )


def test_a_correction_of_yes_or_no_is_refused() -> None:
    assert "Unknown correction True." in complaint("correction: yes")


# A policy with its tolerance


@pytest.mark.parametrize("policy", WITH_TOLERANCE)
@pytest.mark.parametrize("typed", ["0.01", " 0.01", ".01", "1e-2"])
def test_a_policy_may_bring_its_tolerance(policy: str, typed: str) -> None:
    settings = load_settings(None, {"policy": f"{policy} {typed}"})
    assert (settings.policy, settings.tolerance) == (policy, 0.01)
    assert from_file(f"policy: {policy} {typed}").criteria == Criteria(policy, 0.01)
    assert criteria_from({}, {"policy": f"{policy} {typed}"}) == Criteria(policy, 0.01)


def test_a_policy_without_tolerance_leaves_the_one_that_is_set() -> None:
    settings = load_settings(None, {"policy": "cheapest-within", "tolerance": 0.03})
    assert settings.tolerance == 0.03
    assert load_settings(None, {"policy": "smallest-gap"}).tolerance == Criteria().tolerance


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - set(WITH_TOLERANCE)))
def test_a_tolerance_for_a_policy_that_has_none_is_refused(policy: str) -> None:
    message = complaint(policy=f"{policy} 0.01")
    assert f"Unknown policy '{policy} 0.01'" in message
    assert f"Did you mean '{policy}'?" in message


@pytest.mark.parametrize("typed", ["wide", "2", "-0.1", "nan", "0.01 0.02"])
def test_a_tolerance_that_means_nothing_is_refused_by_name(typed: str) -> None:
    message = complaint(policy=f"cheapest-within {typed}")
    assert message.startswith(f"tolerance is {typed!r}: ")
    in_file = complaint(f"policy: cheapest-within {typed}")
    assert in_file.startswith(f"{STUDY_FILE}: tolerance is {typed!r}: ")


def test_a_wrong_tolerance_within_a_typed_policy_is_not_blamed_on_the_study_file() -> None:
    assert str(STUDY_FILE) not in complaint("tolerance: 0.02", policy="cheapest-within wide")


def test_a_typed_policy_with_its_tolerance_beats_the_study_file() -> None:
    settings = from_file("tolerance: 0.02\npolicy: pareto", policy="cheapest-within 0.01")
    assert settings.criteria == Criteria("cheapest-within", 0.01)


def test_a_typed_tolerance_beats_the_one_with_the_policy_of_the_study_file() -> None:
    settings = from_file("policy: cheapest-within 0.01", tolerance=0.03)
    assert settings.criteria == Criteria("cheapest-within", 0.03)


# How to choose again


CHOSEN_BEFORE = StudySettings(policy="smallest-gap", tolerance=0.02, max_params=9_000)
STORED = CHOSEN_BEFORE.model_dump(mode="json")


def test_a_study_is_chosen_from_again_as_it_was_told() -> None:
    assert criteria_from(STORED, {}) == Criteria("smallest-gap", 0.02, max_params=9_000)
    assert criteria_from(STORED, {"policy": None, "max_params": None}) == criteria_from(STORED, {})


def test_what_is_typed_beats_what_the_study_was_told() -> None:
    assert criteria_from(STORED, {"policy": "pareto", "max_params": 500, "max_gap": 0.1}) == (
        Criteria("pareto", 0.02, max_params=500, max_gap=0.1)
    )
    assert criteria_from(STORED, {"policy": "cheapest-within 0.05"}).tolerance == 0.05
    assert criteria_from(STORED, {"tolerance": 0.0}).tolerance == 0.0


def test_a_study_is_chosen_from_again_with_the_correction_that_it_was_told() -> None:
    stored = StudySettings(correction="nadeau-bengio").model_dump(mode="json")
    assert criteria_from(stored, {}) == Criteria(correction="nadeau-bengio")
    assert criteria_from(stored, {"correction": None}) == criteria_from(stored, {})
    assert criteria_from(stored, {"correction": "paired"}) == Criteria()
    assert criteria_from(STORED, {"correction": "nadeau-bengio"}) == Criteria(
        "smallest-gap", 0.02, correction="nadeau-bengio", max_params=9_000
    )


def test_an_older_study_is_chosen_from_by_the_defaults_of_what_it_did_not_know() -> None:
    older = {"policy": "lower-bound", "trials": 24, "something_gone": 3}
    assert criteria_from(older, {}) == Criteria("lower-bound")
    assert criteria_from({}, {}) == Criteria()


def test_other_settings_of_the_study_do_not_matter_to_its_criteria() -> None:
    assert criteria_from({**STORED, "max_epochs": 1, "first_rung": 5}, {}).max_params == 9_000


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"policy": "paretto"}, "Unknown policy 'paretto'. Did you mean 'pareto'?"),
        ({"correction": "pared"}, "Unknown correction 'pared'. Did you mean 'paired'?"),
        ({"max_params": 0}, "max-params is 0: "),
        ({"policy": "smallest-gap 7"}, "tolerance is '7': "),
        ({"polici": "pareto"}, "unknown setting 'polici'. Did you mean 'policy'?"),
    ],
)
def test_choosing_again_by_something_impossible_is_refused(
    flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        criteria_from(STORED, flags)
    assert str(caught.value).startswith(words)


# The registered model, and what it must be


def test_models_of_different_data_are_registered_by_different_names() -> None:
    tracking = TrackingSettings()
    assert tracking.model_name("digits") == "podium-digits"
    assert tracking.model_name("mnist") == "podium-mnist"


@pytest.mark.parametrize(
    ("registered", "name"),
    [("shipped", "shipped"), ("{data}", "digits"), ("{data}-of-{data}", "digits-of-digits")],
)
def test_the_registered_model_may_be_named_in_mlflow_yaml(registered: str, name: str) -> None:
    MLFLOW_FILE.write_text(f"registered_model: '{registered}'\n")
    assert load_settings(None, {}).tracking.model_name("digits") == name


def test_other_braces_in_a_model_name_are_left_alone() -> None:
    tracking = TrackingSettings(registered_model="{data}-{x}-{}")
    assert tracking.model_name("digits") == "digits-{x}-{}"


def test_gates_may_be_set_in_mlflow_yaml_and_the_rest_stay_at_their_defaults() -> None:
    MLFLOW_FILE.write_text("gates: {min_accuracy: 0.95, max_size_mb: null}\n")
    gates = load_tracking().gates
    assert (gates.min_accuracy, gates.max_size_mb) == (0.95, None)
    assert gates.max_latency_ms == GateSettings().max_latency_ms
    assert gates.reproducible_load


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("min_accuracy", "min_class_recall") for value in (-0.1, 1.1)),
        ("non_inferiority_margin", -0.01),
        ("non_inferiority_margin", 1.01),
        ("max_calibration_error", 2),
        ("max_size_mb", 0),
        ("max_latency_ms", -1),
        ("max_latency_ms", ".inf"),
        ("min_accuracy", "high"),
        ("reproducible_load", 7),
    ],
)
def test_an_impossible_gate_is_refused_by_file_and_name(name: str, value: Any) -> None:
    MLFLOW_FILE.write_text(f"gates: {{{name}: {value}}}\n")
    message = complaint()
    assert message.startswith("mlflow.yaml: ")
    assert name.replace("_", "-") in message


def test_an_unknown_gate_names_the_nearest() -> None:
    MLFLOW_FILE.write_text("gates: {min_acuracy: 0.9}\n")
    message = complaint()
    assert message.startswith("mlflow.yaml: ")
    assert "'min_acuracy'" in message
    assert "Did you mean 'min_accuracy'?" in message


def test_gates_may_spell_names_like_flags() -> None:
    MLFLOW_FILE.write_text("gates:\n  min-accuracy: 0.9\n")
    assert load_tracking().gates.min_accuracy == 0.9


def test_yes_is_not_taken_for_an_accuracy_of_one() -> None:
    MLFLOW_FILE.write_text("gates: {min_accuracy: yes}\n")
    assert "min-accuracy" in complaint()


@pytest.mark.parametrize("gates", ["{min_accuracy: 0.95}", "{}", ""])
def test_gates_in_a_study_file_are_refused_because_promote_reads_mlflow_yaml(gates: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking: .*gates.* mlflow\.yaml"):
        from_file(f"tracking: {{gates: {gates}}}")


def test_other_tracking_of_a_study_file_leaves_the_gates_of_mlflow_yaml() -> None:
    MLFLOW_FILE.write_text("gates: {max_size_mb: 5}\n")
    tracking = from_file("tracking: {experiment: other}").tracking
    assert (tracking.experiment, tracking.gates.max_size_mb) == ("other", 5.0)


def test_a_gate_that_is_left_empty_is_not_asked() -> None:
    MLFLOW_FILE.write_text("gates:\n  reproducible_load:\n  min_accuracy:\n")
    gates = load_tracking().gates
    assert (gates.reproducible_load, gates.min_accuracy) == (None, None)


def test_gates_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        GateSettings().min_accuracy = 0.1


# Files


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a: 'x",
        "\ttrials: 1",
        "a: b: c",
        "\x00",
        "%",
        "trials: 2024-13-45",
        "trials: 0b_",
        "trials: !!int foo",
        pytest.param("trials: " + "[" * 5000, id="nested too deeply"),
    ],
)
@pytest.mark.parametrize("path", [STUDY_FILE, MLFLOW_FILE], ids=str)
def test_damaged_yaml_names_its_file_in_one_line(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(STUDY_FILE if path == STUDY_FILE else None, {})
    message = str(caught.value)
    assert message.startswith(f"{path}: not valid YAML")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "found"),
    [("- trials", "list"), ("just words", "str"), ("42", "int"), ("true", "bool")],
)
@pytest.mark.parametrize("path", [STUDY_FILE, MLFLOW_FILE], ids=str)
def test_yaml_that_holds_no_mapping_says_what_it_holds(path: Path, text: str, found: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"^{path}: expected .* found a {found}"):
        load_settings(STUDY_FILE if path == STUDY_FILE else None, {})


def test_yaml_that_would_run_code_is_refused() -> None:
    assert "not valid YAML" in complaint("trials: !!python/object/apply:os.getcwd []")


def test_a_missing_study_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: no such file"):
        load_settings(Path("absent.yaml"), {})


def test_a_folder_in_place_of_a_study_file_is_named(here: Path) -> None:
    (here / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml: cannot be read"):
        load_settings(Path("folder.yaml"), {})


def test_a_study_file_that_is_not_utf_8_is_named() -> None:
    STUDY_FILE.write_bytes("study: größe".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"study\.yaml: cannot be read"):
        load_settings(STUDY_FILE, {})


# The hint


def test_nearest_guesses_regardless_of_case_and_lists_in_order() -> None:
    assert nearest("TPEE", ["tpe", "grid"]) == " Did you mean 'tpe'? Known: grid, tpe."
    assert nearest("xyz", ["tpe", "grid"]) == " Known: grid, tpe."


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///runs/mlflow.db", "sqlite:///runs/mlflow.db"),
        ("http://me:s3cret@host:5000/x", "http://me:***@host:5000/x"),
        ("postgresql://u:p%40ss@h/db", "postgresql://u:***@h/db"),
        ("http://me@host", "http://me@host"),
        ("http://[::1", "(not an address)"),
        ("http://user:12/34@host", "(not an address)"),
        ("postgresql://user:s3cr#t@host/db", "(not an address)"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert without_password(uri) == shown
