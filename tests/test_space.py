from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
import pytest

from search.records import ConfigError
from search.sampler import Sampler
from search.space import BUILT_IN, Space, SpaceSource, find_space, listed_space, open_space
from spaces.config import TrialConfig
from tests.builders import make_space

GOOD = """
from spaces.config import TrialConfig

def suggest(trial):
    return TrialConfig(dropout=trial.suggest_float("dropout", 0.0, 0.5))

def baseline():
    return TrialConfig(hidden=(7,))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return name


def message_of(name: str) -> str:
    with pytest.raises(ConfigError) as caught:
        open_space(find_space(name))
    text = str(caught.value)
    assert "\n" not in text
    return text


def a_trial() -> optuna.Trial:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_space_opens_and_proposes(name: str) -> None:
    space = open_space(find_space(name))
    assert space.source == SpaceSource(name, f"spaces.{name}")
    assert space.build is None
    assert isinstance(space.baseline_config(), TrialConfig)
    assert isinstance(space.config_from(a_trial()), TrialConfig)


def test_a_built_in_name_wins_over_a_module_of_the_same_name_here() -> None:
    write("mlp.py", GOOD)
    assert open_space(find_space("mlp")).baseline_config() == TrialConfig()


def test_a_file_opens_under_its_own_name() -> None:
    space = open_space(find_space(write("folder/wide.py", GOOD)))
    assert space.source.name == "wide"
    assert space.baseline_config() == TrialConfig(hidden=(7,))
    assert 0.0 <= space.config_from(a_trial()).dropout <= 0.5


def test_a_file_travels_to_workers_that_do_not_have_it() -> None:
    source = find_space(write("wide.py", GOOD))
    Path("wide.py").unlink()
    again = pickle.loads(pickle.dumps(source))
    assert again.text == GOOD
    assert open_space(again).baseline_config() == TrialConfig(hidden=(7,))


def test_a_file_does_not_hide_an_installed_module_of_its_name() -> None:
    open_space(find_space(write("json.py", GOOD)))
    assert not hasattr(sys.modules["json"], "baseline")


@pytest.mark.parametrize("first_line", ["", "from __future__ import annotations\n"])
def test_a_file_may_define_a_dataclass(first_line: str) -> None:
    text = "from dataclasses import dataclass\n\n@dataclass\nclass Layer:\n    units: int = 1\n"
    space = open_space(find_space(write("layered.py", first_line + text + GOOD)))
    assert space.baseline_config() == TrialConfig(hidden=(7,))


def test_a_file_does_not_inherit_the_future_imports_of_podium() -> None:
    text = GOOD.replace("suggest(trial)", "suggest(trial: int)")
    space = open_space(find_space(write("annotated.py", text)))
    assert space.suggest.__annotations__ == {"trial": int}


def test_a_module_in_the_current_folder_opens_by_name() -> None:
    write("neighbour_space.py", GOOD)
    space = open_space(find_space("neighbour_space"))
    assert space.source == SpaceSource("neighbour_space", "neighbour_space")
    assert space.baseline_config() == TrialConfig(hidden=(7,))


def test_a_module_inside_a_package_of_the_current_folder_opens_by_name() -> None:
    write("my_project/__init__.py", "")
    write("my_project/tall.py", GOOD)
    assert open_space(find_space("my_project.tall")).baseline_config() == TrialConfig(hidden=(7,))


def test_a_build_function_of_the_space_is_found() -> None:
    text = GOOD + "\ndef build(config, input_shape, classes):\n    return 'a model'\n"
    space = open_space(find_space(write("own.py", text)))
    assert space.build is not None
    assert space.build(TrialConfig(), (8, 8, 1), 10) == "a model"


def test_a_misspelt_space_names_the_nearest_and_the_other_ways_to_give_one() -> None:
    message = message_of("mpl")
    assert "'mpl'" in message
    assert "Did you mean 'mlp'?" in message
    assert "cnn" in message
    assert ".py" in message


@pytest.mark.parametrize("name", ["no_such_package.space", "search.no_such_module", "no/such/path"])
def test_an_unknown_module_is_called_an_unknown_space(name: str) -> None:
    message = message_of(name)
    assert "Unknown space" in message
    assert name in message


def test_a_missing_library_whose_name_begins_that_of_the_space_is_not_taken_for_the_space() -> None:
    write("torchless_space.py", "import torchless\n")
    message = message_of("torchless_space")
    assert "No module named 'torchless'" in message
    assert "Unknown space" not in message


def test_an_empty_name_is_refused() -> None:
    assert "space" in message_of("").lower()


def test_a_relative_module_name_is_refused() -> None:
    assert ".sibling" in message_of(".sibling")


def test_a_missing_file_is_named() -> None:
    message = message_of("nowhere.py")
    assert "nowhere.py" in message
    assert "No such file" in message


def test_a_folder_in_place_of_a_file_is_named() -> None:
    Path("folder.py").mkdir()
    message = message_of("folder.py")
    assert "folder.py" in message
    assert "cannot be read" in message


def test_a_file_that_is_not_text_is_named() -> None:
    Path("binary.py").write_bytes(b"\xff\xfe\x00\x01")
    message = message_of("binary.py")
    assert "binary.py" in message
    assert "utf-8" in message


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("def suggest(:\n", "SyntaxError"),
        ("raise RuntimeError('no\\nluck')\n", "RuntimeError: no luck"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import no_such_library\n", "no_such_library"),
        ("a = b\n", "'b' is not defined"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    ],
    ids=["syntax", "raises", "divides", "imports", "names", "exits"],
)
@pytest.mark.parametrize("as_file", [True, False], ids=["file", "module"])
def test_a_space_that_cannot_be_run_is_named_with_its_error(
    text: str, clue: str, as_file: bool
) -> None:
    name = f"broken_{'file' if as_file else 'module'}"
    write(f"{name}.py", text)
    message = message_of(f"{name}.py" if as_file else name)
    assert name in message
    assert clue in message


@pytest.mark.parametrize("function", ["suggest", "baseline"])
@pytest.mark.parametrize("how", ["missing", "not a function"])
def test_a_space_without_one_of_its_functions_is_told_which(function: str, how: str) -> None:
    text = GOOD + (f"\ndel {function}\n" if how == "missing" else f"\n{function} = 3\n")
    message = message_of(write("partial.py", text))
    assert "partial" in message
    assert f"no function {function}()" in message
    assert "suggest(trial)" in message
    assert "baseline()" in message


def test_a_build_that_is_not_a_function_is_refused() -> None:
    message = message_of(write("own.py", GOOD + "\nbuild = 'dense'\n"))
    assert "own" in message
    assert "build" in message


@pytest.mark.parametrize("function", ["suggest", "baseline"])
def test_a_function_that_raises_becomes_one_line_that_names_space_and_function(
    function: str,
) -> None:
    def boom(*_: object) -> TrialConfig:
        raise KeyError("two\nlines")

    space = make_space(boom, boom, name="rough")
    with pytest.raises(ConfigError) as caught:
        space.config_from(a_trial()) if function == "suggest" else space.baseline_config()
    message = str(caught.value)
    assert message.startswith(f"Space rough: {function}() failed: KeyError")
    assert "\n" not in message
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_impossible_configuration_names_the_field() -> None:
    space = make_space(lambda trial: TrialConfig(dropout=1.5), name="rough")
    with pytest.raises(
        ConfigError, match=r"rough: suggest\(\) made no TrialConfig: dropout is 1\.5"
    ):
        space.config_from(a_trial())


@pytest.mark.parametrize("value", [None, {"hidden": [8]}, (TrialConfig(),)])
def test_anything_but_a_trial_config_is_refused_by_its_type(value: object) -> None:
    space = make_space(lambda trial: value, lambda: value, name="rough")
    expected = rf"returned a {type(value).__name__}; expected a spaces.config.TrialConfig"
    with pytest.raises(ConfigError, match=rf"Space rough: suggest\(\) {expected}"):
        space.config_from(a_trial())
    with pytest.raises(ConfigError, match=rf"Space rough: baseline\(\) {expected}"):
        space.baseline_config()


def test_a_bad_space_ends_the_command_with_the_code_for_settings() -> None:
    with pytest.raises(ConfigError) as caught:
        open_space(find_space("mpl"))
    assert caught.value.exit_code == 2


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        find_space("a\0.py")


# Grids of listed values


def everything(space: Space, trials: int = 200) -> list[TrialConfig]:
    """All that the grid sampler proposes, in its order."""
    sampler = Sampler("grid", space, (8, 8, 1), seed=0)
    asked = (sampler.ask(number) for number in range(trials))
    return list(itertools.takewhile(lambda config: config is not None, asked))


def listed(grid: Mapping[str, Sequence[str]], baseline: TrialConfig | None = None) -> Space:
    return listed_space(make_space(a_trial, lambda: baseline or TrialConfig()), grid)


def values_of(name: str, *texts: str) -> list[object]:
    """What a field of the proposals is, in the order of the texts."""
    proposed = {}
    for text in texts:
        [config] = everything(listed({name: (text,)}))
        field, _, key = name.partition(".")
        value = getattr(config, field)
        proposed[text] = value[key] if key else value
    return list(proposed.values())


def grid_complaint(grid: Mapping[str, Sequence[str]]) -> str:
    with pytest.raises(ConfigError) as caught:
        listed(grid)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_every_combination_is_proposed_once_and_nothing_else() -> None:
    grid = {"batch_size": ("10", "32"), "optimizer": ("adam", "rmsprop", "sgd"), "dropout": ("0",)}
    proposed = everything(listed(grid))
    assert len(proposed) == 6
    found = {(c.batch_size, c.optimizer) for c in proposed}
    assert found == set(itertools.product((10, 32), ("adam", "rmsprop", "sgd")))


def test_what_is_not_listed_is_as_in_the_baseline() -> None:
    baseline = TrialConfig(hidden=(7,), dropout=0.25, extra={"width": 3, "name": "x"})
    grid = {"batch_size": ("10", "32"), "extra.width": ("4",)}
    for config in everything(listed(grid, baseline)):
        fields = {"batch_size": config.batch_size, "extra": {"width": 4, "name": "x"}}
        assert config == TrialConfig.model_validate(baseline.model_dump() | fields)


def test_a_listed_space_keeps_name_baseline_and_network_of_its_space() -> None:
    text = GOOD + "\ndef build(config, input_shape, classes):\n    return 'a model'\n"
    own = open_space(find_space(write("own.py", text)))
    space = listed_space(own, {"batch_size": ("10",)})
    assert space.source == own.source
    assert space.build is own.build
    assert space.baseline_config() == TrialConfig(hidden=(7,))


def test_a_grid_is_proposed_by_other_samplers_as_well() -> None:
    sampler = Sampler("random", listed({"batch_size": ("10", "32")}), (8, 8, 1), seed=0)
    assert {sampler.ask(number).batch_size for number in range(20)} == {10, 32}


def test_the_scale_255_stays_a_word() -> None:
    assert values_of("scale", "255", "max", "none", "l2") == ["255", "max", "none", "l2"]


def test_numbers_are_numbers_where_the_field_takes_only_those() -> None:
    assert values_of("l2_axis", "1", "3", "image") == [1, 3, "image"]
    assert values_of("batch_size", "10", "32") == [10, 32]
    assert values_of("learning_rate", "0.1", "1e-3", "1") == [0.1, 0.001, 1.0]
    assert values_of("pca_variance", "0.95") == [0.95]


def test_yes_and_no_are_read_in_any_case() -> None:
    assert values_of("batch_normalization", "true", "False") == [True, False]
    assert values_of("restore_best", "FALSE", "True") == [False, True]


def test_none_is_nothing_where_the_field_may_be_empty() -> None:
    assert values_of("pca_components", "none", "None", "10") == [None, None, 10]
    assert values_of("patience", "none", "3") == [None, 3]
    assert values_of("schedule", "none", "cosine") == [None, "cosine"]


def test_layer_sizes_are_whole_numbers() -> None:
    assert values_of("hidden", "128-64", "32", "none") == [(128, 64), (32,), ()]
    assert values_of("filters", "32-32", "none") == [(32, 32), ()]


def test_a_users_own_values_are_numbers_or_yes_and_no_where_they_can_be() -> None:
    values = values_of("extra.x", "8", "0.5", "1e-3", "true", "False", "wide", "none", "3-4")
    assert values == [8, 0.5, 0.001, True, False, "wide", "none", "3-4"]
    assert [type(value) for value in values[:4]] == [int, float, float, bool]


def test_equal_texts_and_types_make_equal_configurations() -> None:
    [from_grid] = everything(listed({"batch_size": ("64",), "hidden": ("16-8",)}))
    assert from_grid == TrialConfig(batch_size=64, hidden=(16, 8))
    assert from_grid.config_id == TrialConfig(batch_size=64, hidden=(16, 8)).config_id


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("batch_sizes", "batch_size"), ("optimiser", "optimizer"), ("learning-rate", "learning_rate")],
)
def test_an_unknown_field_of_a_grid_names_the_nearest_known_one(typed: str, meant: str) -> None:
    message = grid_complaint({typed: ("1",)})
    assert message.startswith(f"--grid: unknown field {typed!r}.")
    assert f"Did you mean {meant!r}?" in message


@pytest.mark.parametrize("name", ["extra", "hidden.0", "batch_size.x", "extras.x", ""])
def test_a_name_with_a_dot_is_for_the_users_own_values_only(name: str) -> None:
    assert f"unknown field {name!r}" in grid_complaint({name: ("1",)})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("batch_size", "0"),
        ("batch_size", "1.5"),
        ("batch_size", "many"),
        ("batch_size", "none"),
        ("batch_size", ""),
        ("learning_rate", "-1"),
        ("learning_rate", "nan"),
        ("dropout", "1"),
        ("optimizer", "adm"),
        ("scale", "256"),
        ("l2_axis", "0"),
        ("hidden", "64-0"),
        ("hidden", "wide"),
        ("batch_normalization", "maybe"),
        ("pca_components", "0"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_named_with_its_field(name: str, text: str) -> None:
    message = grid_complaint({"momentum": ("0.5",), name: (text,)})
    assert message.startswith(f"--grid {name}: {name}")
    shown = {"64-0": "0"}.get(text, text)
    assert f" is {shown!r}: " in message


def test_the_value_that_is_wrong_is_named_among_right_ones() -> None:
    assert "is '0': " in grid_complaint({"batch_size": ("10", "0", "32")})


def test_values_that_exclude_each_other_are_refused_before_anything_is_proposed() -> None:
    message = grid_complaint({"pca_components": ("none", "10"), "filters": ("none", "8")})
    assert message.startswith("--grid: pca_components=10, filters=8 cannot be combined: ")
    assert "whole images" in message


def test_values_that_exclude_each_other_are_named_without_all_the_others() -> None:
    message = grid_complaint({"pca_components": ("none", "10"), "filters": ("none", "8")})
    assert "{" not in message
    assert len(message) < 200
