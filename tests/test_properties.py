"""What must hold for all data, files and settings, not only for those that someone thought of."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from numpy.typing import NDArray

from search import cli
from search.data import load
from search.readers import read
from search.records import ConfigError, DataError, PodiumError
from search.settings import (
    COSTS,
    POLICIES,
    RUNS_PATH,
    SAMPLERS,
    SCHEDULERS,
    STUDY_NAME,
    StudySettings,
    load_settings,
    read_mapping,
    settings_again,
)
from search.study import command_line
from tests import fuzz
from tests.builders import quick
from tests.test_readers import CLASSES, WRITERS, Arrays, small_arrays

RUN = typer.main.get_command(cli.app).commands["run"]  # type: ignore[attr-defined]
SOUND = [name for name in WRITERS if name != "pictures"]


@contextmanager
def empty_folder() -> Iterator[Path]:
    """The current folder for one example."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


# Loaders


@st.composite
def data_sets(draw: st.DrawFn) -> Arrays:
    """Training and test parts of one size, uint8 and grey, of at most three classes."""
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    found: Arrays = {}
    for part in ("train", "test"):
        count = draw(st.integers(1, 6))
        images = arrays_of.arrays(np.uint8, (count, height, width))
        labels = arrays_of.arrays(np.uint8, (count,), elements=st.integers(0, 2))
        found |= {f"x_{part}": draw(images), f"y_{part}": draw(labels)}
    return found


@quick
@given(data_sets(), st.sampled_from(SOUND))
def test_what_was_written_in_any_format_is_read_again(written: Arrays, kind: str) -> None:
    with empty_folder() as folder:
        raw = read(WRITERS[kind](folder, written))
    read_again = (raw.images, raw.labels, raw.test_images, raw.test_labels)
    for (name, array), again in zip(sorted_parts(written), read_again, strict=True):
        assert again is not None
        flat = array.reshape(len(array), -1) if kind == "csv" and array.ndim > 1 else array
        assert np.array_equal(again, flat), name


def sorted_parts(written: Arrays) -> list[tuple[str, NDArray[Any]]]:
    return [(name, written[name]) for name in ("x_train", "y_train", "x_test", "y_test")]


@quick
@given(data_sets())
def test_pictures_are_read_again_by_class(written: Arrays) -> None:
    with empty_folder() as folder:
        raw = read(WRITERS["pictures"](folder, written))
    for images, labels, part in (
        (raw.images, raw.labels, "train"),
        (raw.test_images, raw.test_labels, "test"),
    ):
        assert images is not None
        assert labels is not None
        order = np.argsort(written[f"y_{part}"], kind="stable")
        assert np.array_equal(images, written[f"x_{part}"][order])
        assert labels.tolist() == [CLASSES[label] for label in written[f"y_{part}"][order]]


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-1000, 1000)


@quick
@given(
    arrays_of.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=numbers)
)
def test_numbers_in_csv_are_read_to_the_last_bit(pixels: NDArray[np.float64]) -> None:
    lines = [",".join(["label", *(f"p{n}" for n in range(pixels.shape[1]))])]
    lines += [",".join(["a", *map(repr, row)]) for row in pixels.tolist()]
    with empty_folder() as folder:
        (folder / "own.csv").write_text("\n".join(lines))
        raw = read(folder / "own.csv")
    np.testing.assert_allclose(raw.images.astype(np.float64), pixels, rtol=1e-15, atol=0)


def complaint(call: Callable[[], object], kind: type[PodiumError]) -> str:
    """The message of that kind of error, "" where there is none; any other passes through."""
    try:
        call()
    except kind as error:
        return str(error) or "no message"
    return ""


def refused(path: Path) -> bool:
    message = complaint(lambda: load(str(path), None, 0), DataError)
    assert "\n" not in message
    assert len(message) < 1_000
    return bool(message)


@quick
@given(st.sampled_from(list(WRITERS)), st.data())
def test_bytes_changed_anywhere_raise_nothing_but_a_data_error(
    kind: str, data: st.DataObject
) -> None:
    with empty_folder() as folder:
        path = WRITERS[kind](folder, small_arrays())
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        file = data.draw(st.sampled_from(files))
        content = bytearray(file.read_bytes())
        places = st.dictionaries(
            st.integers(0, len(content) - 1), st.integers(0, 255), min_size=1, max_size=8
        )
        for place, value in data.draw(places).items():
            content[place] = value
        cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
        file.write_bytes(content[:cut])
        refused(path)


@quick
@given(st.sampled_from(["own.npz", "x.npy", "own.csv"]), st.binary(max_size=400))
def test_bytes_that_are_no_data_are_refused(name: str, content: bytes) -> None:
    with empty_folder() as folder:
        (folder / name).write_bytes(content)
        assert refused(folder / name)


@pytest.mark.parametrize("reader", fuzz.WRITERS)
def test_the_fuzzer_begins_with_data_that_is_read(tmp_path: Path, reader: str) -> None:
    read_whole = [fuzz.attempt(reader, content, tmp_path) for content in fuzz.seeds(reader)]
    assert any(read_whole)
    assert not fuzz.attempt(reader, fuzz.whole(b"", b""), tmp_path)


# Settings

words = st.text(st.characters(categories=["L", "N"], include_characters="-_./"), min_size=1)
small = st.integers(1, 1_000)
fractions = st.floats(0.0, 1.0, exclude_max=True)
names = st.from_regex(STUDY_NAME, fullmatch=True)
grids = st.dictionaries(
    st.sampled_from(["batch_size", "hidden", "optimizer", "extra.my-own"]),
    st.lists(st.sampled_from(["8", "16-8", "adam", "0.5", "a=b", "none"]), min_size=1, unique=True),
    max_size=3,
)
study_fields = st.fixed_dictionaries(
    {},
    optional={
        "space": words,
        "data": words,
        "data_dir": words,
        "label_column": words,
        "image_shape": st.sampled_from(["28x28", "8x9x3", "1x1x1"]),
        "trials": small,
        "max_epochs": st.integers(64, 100_000),
        "first_rung": st.integers(1, 18),
        "reduction": st.integers(2, 64),
        "sampler": st.sampled_from(SAMPLERS),
        "scheduler": st.sampled_from(SCHEDULERS),
        "policy": st.sampled_from(POLICIES),
        "tolerance": fractions,
        "cost": st.sampled_from(COSTS),
        "max_params": small,
        "max_latency_ms": st.floats(0.0, 1e9, exclude_min=True),
        "max_gap": fractions,
        "min_class_recall": fractions,
        "concurrent": small,
        "cpus_per_trial": small,
        "gpus_per_trial": fractions,
        "seed": st.integers(0, 2**31 - 1),
        "finalists": st.integers(0, 100),
        "confirm_seeds": st.integers(2, 1_000),
        "folds": st.integers(2, 100),
        "address": words,
    },
)


def flags_of(line: str) -> dict[str, Any]:
    """What the command line gives the program for a line that someone types."""
    context = RUN.make_context("run", shlex.split(line)[2:])
    return {name: value for name, value in context.params.items() if name != "config"}


@quick
@given(study_fields)
def test_the_command_line_of_a_study_gives_its_settings_again(fields: dict[str, Any]) -> None:
    settings = StudySettings.model_validate(fields)
    with empty_folder():
        assert load_settings(None, flags_of(command_line(settings))) == settings


@quick
@given(study_fields, grids)
def test_a_grid_comes_back_from_the_command_line(
    fields: dict[str, Any], grid: dict[str, list[str]]
) -> None:
    settings = StudySettings.model_validate({**fields, "grid": grid})
    # A grid decides both where they are at their defaults, which the line leaves out.
    assume(not grid or (settings.sampler != "tpe" and settings.trials != 24))
    with empty_folder():
        assert load_settings(None, flags_of(command_line(settings))) == settings


@quick
@given(study_fields, st.none() | names)
def test_settings_come_back_from_a_file_and_from_the_ledger(
    fields: dict[str, Any], study: str | None
) -> None:
    settings = StudySettings.model_validate({**fields, "study": study})
    stored = settings.model_dump(mode="json")
    assert StudySettings.model_validate(stored) == settings
    assert StudySettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings_again(stored, settings.tracking, {}) == settings
    kept = {name.replace("_", "-"): v for name, v in stored.items() if name != "tracking"}
    with empty_folder() as folder:
        (folder / "study.yaml").write_text(
            yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8"
        )
        assert load_settings(folder / "study.yaml", {}) == settings


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
keys = st.sampled_from([*StudySettings.model_fields, "trails", "max-epochs"]) | st.text(max_size=5)


@quick
@given(st.dictionaries(keys, values, max_size=4))
def test_a_file_of_any_values_gives_settings_or_a_config_error(content: dict[str, Any]) -> None:
    with empty_folder() as folder:
        file = folder / "study.yaml"
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        message = complaint(lambda: load_settings(file, {}), ConfigError)
    assert len(message) < 5_000


@quick
@given(st.binary(max_size=60) | st.text("[]{}:,*&!-? \n'\"ab1#|>%@`", max_size=40))
def test_a_file_of_any_bytes_gives_a_mapping_or_a_config_error(content: bytes | str) -> None:
    with empty_folder() as folder:
        file = folder / "study.yaml"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        message = complaint(lambda: read_mapping(file), ConfigError)
    assert not message or message.startswith(f"{file}: ")


TAGS = ("int", "float", "bool", "null", "timestamp", "binary", "omap", "pairs", "set", "seq", "map")


@quick
@given(
    st.sampled_from([*TAGS, "str", "python/none"]),
    st.sampled_from(["''", "[[a]]", "{=: ''}", "{? [a] : b}", "-", "0x", "1:", "2001-02-30"])
    | st.text("0123456789:-._+xbeTZ", min_size=1, max_size=12),
)
def test_a_value_of_any_tag_gives_a_mapping_or_a_config_error(tag: str, value: str) -> None:
    with empty_folder() as folder:
        file = folder / "study.yaml"
        file.write_text(f"trials: !!{tag} {value}\n", encoding="utf-8")
        message = complaint(lambda: read_mapping(file), ConfigError)
    assert not message or message.startswith(f"{file}: not valid YAML")


@quick
@given(st.dictionaries(keys, values, max_size=3), st.none() | st.text(max_size=9))
def test_a_study_that_goes_on_has_settings_or_a_config_error(
    stored: dict[str, Any], trials: str | None
) -> None:
    tracking = StudySettings().tracking
    message = complaint(lambda: settings_again(stored, tracking, {"trials": trials}), ConfigError)
    assert message != "no message"


@quick
@given(st.text(max_size=70) | names)
def test_a_name_of_a_study_is_refused_or_names_a_folder_of_its_own(name: str) -> None:
    try:
        settings = StudySettings(study=name)
    except ValueError:
        return
    assert settings.study == name
    assert name.isascii()
    folder = (RUNS_PATH / "studies" / name).resolve()
    assert folder.parent == (RUNS_PATH / "studies").resolve()
    assert folder.name == name
