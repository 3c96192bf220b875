from __future__ import annotations

import ast
import copy
import gzip
import io
import math
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

import search.data
from search.data import LoadedData, TestLock, load
from search.datasets import DATASET_NOTES, DATASETS, FASHION_CLASSES
from search.readers import IDX_NAMES
from search.records import DataError, Opening

SHARED = Path(__file__).parents[2] / "shared" / "data"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = IDX_NAMES

Arrays = dict[str, NDArray[Any]]


def small_arrays() -> Arrays:
    """60 training and 20 test images of 4 by 5 pixels, every class equally often."""
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 200, (60, 4, 5), dtype=np.uint8),
        "y_train": (np.arange(60) % 10).astype(np.uint8),
        "x_test": random.integers(0, 200, (20, 4, 5), dtype=np.uint8),
        "y_test": (np.arange(20) % 10).astype(np.uint8),
    }


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def write_npz(folder: Path, name: str = "mnist", **changed: NDArray[Any]) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, **(small_arrays() | changed))  # type: ignore[arg-type]
    return path


def write_idx(folder: Path, *, zipped: bool = False, **changed: NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = small_arrays() | changed
    for file, key in zip(IDX_NAMES, ARRAYS, strict=True):
        content = idx_bytes(arrays[key])
        if zipped:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)


def load_error(folder: Path, name: str = "mnist") -> str:
    with pytest.raises(DataError) as caught:
        load(name, folder, 0)
    return str(caught.value)


@pytest.fixture(scope="module")
def digits() -> LoadedData:
    return load("digits", None, 0)


# Digits


def test_digits_are_raw_labelled_images_of_eight_by_eight(digits: LoadedData) -> None:
    training = digits.training
    assert training.name == "digits"
    assert training.images.dtype == np.uint8
    assert training.labels.dtype == np.int32
    assert training.images.shape == (1437, 8, 8, 1)
    assert training.image_shape == (8, 8, 1)
    assert training.classes == tuple("0123456789")
    assert digits.test.size == 360


def test_digits_are_all_either_in_the_pool_or_in_the_test_split(digits: LoadedData) -> None:
    images, labels = digits.test.open("s", "r", 0, lambda _: None)
    assert images.shape == (360, 8, 8, 1)
    whole = load_digits()
    rows = np.column_stack([whole.data, whole.target]).astype(np.int64)
    found = np.vstack(
        [
            np.column_stack([part.reshape(len(part), -1), names])
            for part, names in ((digits.training.images, digits.training.labels), (images, labels))
        ]
    )
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, rows.tolist()))


def test_the_test_split_of_digits_has_every_class_in_proportion(digits: LoadedData) -> None:
    _, labels = digits.test.open("s", "r", 0, lambda _: None)
    expected = np.bincount(load_digits().target) / 5
    assert np.abs(np.bincount(labels) - expected).max() < 1


# Splits


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_a_split_is_disjoint_whole_and_80_to_20(digits: LoadedData, seed: int) -> None:
    split = digits.training.split(seed)
    both = np.concatenate([split.train, split.validation])
    assert np.array_equal(np.sort(both), np.arange(1437))
    assert len(split.validation) == 288
    assert split.train.dtype == split.validation.dtype == np.int32


@pytest.mark.parametrize("seed", [0, 1])
def test_a_split_is_stratified(digits: LoadedData, seed: int) -> None:
    labels = digits.training.labels
    counts = np.bincount(labels[digits.training.split(seed).validation], minlength=10)
    assert np.abs(counts - 0.2 * np.bincount(labels)).max() < 1


def test_a_split_follows_from_its_seed(digits: LoadedData) -> None:
    one, same, other = (digits.training.split(seed) for seed in (1, 1, 2))
    assert np.array_equal(one.train, same.train)
    assert np.array_equal(one.validation, same.validation)
    assert set(one.validation.tolist()) != set(other.validation.tolist())


def test_a_split_is_in_random_order(digits: LoadedData) -> None:
    split = digits.split
    assert not np.array_equal(split.train, np.sort(split.train))
    assert not np.array_equal(split.validation, np.sort(split.validation))


def test_the_test_split_is_the_same_for_every_seed(digits: LoadedData) -> None:
    other = load("digits", None, 7)
    assert other.test.fingerprint == digits.test.fingerprint
    assert np.array_equal(other.training.images, digits.training.images)


def test_the_test_split_stays_what_it_was_so_that_no_study_trains_on_images_of_another(
    digits: LoadedData,
) -> None:
    assert digits.test.fingerprint == "af35ecfe40d007fc"


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_split_by_another_fraction_is_that_of_scikit_learn(
    digits: LoadedData, fraction: float
) -> None:
    labels = digits.training.labels
    split = digits.training.split(3, fraction)
    assert len(split.validation) == math.ceil(fraction * 1437)
    counts = np.bincount(labels[split.validation])
    assert np.abs(counts - fraction * np.bincount(labels)).max() < 1
    splitter = StratifiedShuffleSplit(1, test_size=fraction, random_state=3)
    train, validation = next(splitter.split(labels, labels))
    assert np.array_equal(split.train, train)
    assert np.array_equal(split.validation, validation)


@pytest.mark.parametrize(("count", "seed"), [(2, 0), (5, 0), (5, 1), (10, 2**31 - 1)])
def test_folds_are_those_of_scikit_learn(digits: LoadedData, count: int, seed: int) -> None:
    labels = digits.training.labels
    wanted = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    folds = digits.training.folds(count, seed)
    assert len(folds) == count
    for fold, (train, validation) in zip(folds, wanted, strict=True):
        assert set(fold.train.tolist()) == set(train.tolist())
        assert set(fold.validation.tolist()) == set(validation.tolist())
        assert len(fold.train) + len(fold.validation) == 1437
        assert fold.train.dtype == fold.validation.dtype == np.int32


def test_every_image_is_validated_in_exactly_one_fold(digits: LoadedData) -> None:
    folds = digits.training.folds(5, 0)
    validated = np.concatenate([fold.validation for fold in folds])
    assert np.array_equal(np.sort(validated), np.arange(1437))


def test_folds_follow_from_their_seed_and_are_in_random_order(digits: LoadedData) -> None:
    folds, again, other = (digits.training.folds(5, seed) for seed in (0, 0, 1))
    for fold, same in zip(folds, again, strict=True):
        assert np.array_equal(fold.train, same.train)
        assert np.array_equal(fold.validation, same.validation)
        assert not np.array_equal(fold.train, np.sort(fold.train))
        assert not np.array_equal(fold.validation, np.sort(fold.validation))
    assert set(folds[0].validation.tolist()) != set(other[0].validation.tolist())


# Fingerprints


def test_a_fingerprint_is_the_same_for_the_same_data_and_seed(digits: LoadedData) -> None:
    again = load("digits", None, 0)
    assert again.fingerprint == digits.fingerprint
    assert len(again.fingerprint) == 16
    assert int(again.fingerprint, 16) >= 0


def test_a_fingerprint_changes_with_the_seed(digits: LoadedData) -> None:
    assert load("digits", None, 1).fingerprint != digits.fingerprint


@pytest.mark.parametrize("key", ARRAYS)
def test_a_fingerprint_changes_with_a_single_value_anywhere(tmp_path: Path, key: str) -> None:
    write_npz(tmp_path)
    before = load("mnist", tmp_path, 0)
    changed = small_arrays()[key]
    if key.startswith("x"):
        changed[3, 2, 1] ^= 1
    else:
        changed[[3, 4]] = changed[[4, 3]]
    write_npz(tmp_path, **{key: changed})
    after = load("mnist", tmp_path, 0)
    assert after.fingerprint != before.fingerprint
    assert (after.test.fingerprint != before.test.fingerprint) == key.endswith("test")


def test_a_fingerprint_does_not_depend_on_the_format_of_the_files(tmp_path: Path) -> None:
    write_idx(tmp_path / "plain")
    write_idx(tmp_path / "zipped", zipped=True)
    (tmp_path / "npz").mkdir()
    write_npz(tmp_path / "npz")
    found = {load("mnist", tmp_path / kind, 0).fingerprint for kind in ("plain", "zipped", "npz")}
    assert len(found) == 1


def test_a_fingerprint_tells_images_of_the_same_bytes_but_another_shape_apart(
    tmp_path: Path,
) -> None:
    write_npz(tmp_path)
    before = load("mnist", tmp_path, 0).fingerprint
    turned = {key: small_arrays()[key].reshape(-1, 5, 4) for key in ("x_train", "x_test")}
    write_npz(tmp_path, **turned)
    assert load("mnist", tmp_path, 0).fingerprint != before


# The lock


@pytest.fixture
def lock() -> TestLock:
    arrays = small_arrays()
    return TestLock(arrays["x_test"], arrays["y_test"].astype(np.int32))


def test_the_lock_counts_an_opening_before_it_hands_anything_out(lock: TestLock) -> None:
    openings: list[Opening] = []
    images, labels = lock.open("my-study", "final verdict", 1234, openings.append)
    assert openings == [Opening(lock.fingerprint, "my-study", "final verdict", 1234)]
    assert np.array_equal(images, small_arrays()["x_test"])
    assert np.array_equal(labels, small_arrays()["y_test"])


def test_the_lock_counts_every_opening(lock: TestLock) -> None:
    openings: list[Opening] = []
    for time in (1, 2, 3):
        lock.open("my-study", "curiosity", time, openings.append)
    assert [opening.opened_ms for opening in openings] == [1, 2, 3]


def test_the_lock_stays_closed_when_the_opening_cannot_be_recorded(lock: TestLock) -> None:
    def refuse(_: Opening) -> None:
        raise OSError("disk full")

    received: list[object] = []
    with pytest.raises(OSError, match="disk full"):
        received.append(lock.open("my-study", "final verdict", 0, refuse))
    assert received == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_lock_cannot_be_pickled(lock: TestLock, protocol: int) -> None:
    with pytest.raises(TypeError, match="does not leave the process"):
        pickle.dumps(lock, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_the_lock_cannot_be_copied(lock: TestLock, duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="does not leave the process"):
        duplicate(lock)


def test_the_lock_cannot_be_pickled_inside_the_data_it_came_with(digits: LoadedData) -> None:
    with pytest.raises(TypeError, match="does not leave the process"):
        pickle.dumps(digits)
    assert pickle.loads(pickle.dumps(digits.training)).name == "digits"


def test_the_lock_shows_only_figures_that_no_model_can_be_chosen_by(lock: TestLock) -> None:
    public = {name for name in dir(lock) if not name.startswith("_")}
    assert public == {"class_counts", "fingerprint", "open", "shared_with", "size"}
    assert not hasattr(lock, "__dict__")
    assert lock.size == 20


def test_the_lock_counts_its_images_of_each_class(lock: TestLock) -> None:
    assert lock.class_counts(10) == (2,) * 10
    assert lock.class_counts(12) == (*(2,) * 10, 0, 0)


def test_the_lock_counts_its_images_among_others(lock: TestLock) -> None:
    images, others = small_arrays()["x_test"], small_arrays()["x_train"]
    assert lock.shared_with(others) == 0
    assert lock.shared_with(np.concatenate([others, images[[3, 3, 5]]])) == 2
    assert lock.shared_with(images) == 20
    assert lock.shared_with(images ^ np.uint8(1)) == 0


def test_images_of_the_same_bytes_but_another_shape_are_not_shared(lock: TestLock) -> None:
    assert lock.shared_with(small_arrays()["x_test"].reshape(20, 5, 4)) == 0


def test_a_test_image_counts_once_for_each_time_it_is_there() -> None:
    twice = TestLock(np.zeros((2, 3, 3, 1), np.uint8), np.zeros(2, np.int32))
    assert twice.shared_with(np.zeros((1, 3, 3, 1), np.uint8)) == 2


def test_the_fingerprint_of_the_test_split_is_that_of_its_contents(tmp_path: Path) -> None:
    arrays = small_arrays()
    write_npz(tmp_path)
    loaded = load("mnist", tmp_path, 0)
    same = TestLock(arrays["x_test"][..., np.newaxis], arrays["y_test"].astype(np.int32))
    assert loaded.test.fingerprint == same.fingerprint


# Real files


@pytest.mark.parametrize(
    ("name", "present", "classes"),
    [
        ("mnist", SHARED / "mnist.npz", tuple("0123456789")),
        ("fashion-mnist", SHARED / "fashion-mnist" / f"{IMAGES}.gz", FASHION_CLASSES),
    ],
)
def test_the_published_data_set_loads_whole(
    name: str, present: Path, classes: tuple[str, ...]
) -> None:
    if not present.is_file():
        pytest.skip(f"{present.name} is not in ../shared/data next to the project")
    loaded = load(name, SHARED, 0)
    assert loaded.training.images.shape == (60_000, 28, 28, 1)
    assert loaded.training.classes == classes
    assert (len(loaded.split.train), len(loaded.split.validation)) == (48_000, 12_000)
    assert np.bincount(loaded.training.labels[loaded.split.validation]).shape == (10,)
    images, labels = loaded.test.open("s", "r", 0, lambda _: None)
    assert images.shape == (10_000, 28, 28, 1)
    assert np.bincount(labels).shape == (10,)


# Where files are found


def test_npz_arrays_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_npz(tmp_path)
    loaded = load("mnist", tmp_path, 0)
    arrays = small_arrays()
    assert np.array_equal(loaded.training.images[..., 0], arrays["x_train"])
    assert np.array_equal(loaded.training.labels, arrays["y_train"])
    images, labels = loaded.test.open("s", "r", 0, lambda _: None)
    assert np.array_equal(images[..., 0], arrays["x_test"])
    assert np.array_equal(labels, arrays["y_test"])


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("inside", [False, True], ids=["folder", "subfolder"])
def test_idx_files_are_found_plain_and_zipped_in_the_folder_and_in_its_subfolder(
    tmp_path: Path, zipped: bool, inside: bool
) -> None:
    write_idx(tmp_path / "fashion-mnist" if inside else tmp_path, zipped=zipped)
    loaded = load("fashion-mnist", tmp_path, 0)
    assert np.array_equal(loaded.training.images[..., 0], small_arrays()["x_train"])
    assert loaded.training.classes == FASHION_CLASSES


def test_colour_images_keep_their_channels(tmp_path: Path) -> None:
    write_npz(
        tmp_path,
        x_train=np.ones((60, 4, 5, 3), np.uint8),
        x_test=np.ones((20, 4, 5, 3), np.uint8),
    )
    assert load("mnist", tmp_path, 0).training.image_shape == (4, 5, 3)


def test_labels_of_a_wider_integer_type_are_accepted(tmp_path: Path) -> None:
    write_npz(tmp_path, y_train=np.arange(60, dtype=np.int64) % 10)
    assert load("mnist", tmp_path, 0).training.labels.dtype == np.int32


def test_a_data_set_in_the_cache_of_keras_is_used_without_starting_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "run", never)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    write_npz(tmp_path / "datasets")
    assert load("mnist", None, 0).training.images.shape == (60, 4, 5, 1)


def test_a_data_set_that_keras_downloads_is_then_read_from_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def download(command: list[str], **_: object) -> None:
        commands.append(command)
        write_idx(tmp_path / "datasets" / "fashion-mnist", zipped=True)

    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert load("fashion-mnist", None, 0).training.images.shape == (60, 4, 5, 1)
    assert len(commands) == 1
    assert "fashion_mnist.load_data()" in commands[0][-1]


@pytest.mark.parametrize(
    "failure",
    [
        subprocess.CalledProcessError(1, "python"),
        subprocess.TimeoutExpired("python", 120),
        FileNotFoundError("python"),
        None,
    ],
    ids=["fails", "hangs", "no python", "writes nothing"],
)
def test_a_data_set_that_keras_cannot_download_says_the_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    def download(*_: object, **__: object) -> None:
        if failure is not None:
            raise failure

    monkeypatch.setattr(subprocess, "run", download)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load("mnist", None, 0)
    for part in ("mnist", "--data-dir", "--data digits"):
        assert part in str(caught.value)


# One's own data


def own(folder: Path, options: dict[str, Any] | None = None, **arrays: NDArray[Any]) -> LoadedData:
    """Loads the small arrays with some of them changed, from a path."""
    return load(str(write_npz(folder, "own", **arrays)), None, 0, **(options or {}))


def own_error(folder: Path, options: dict[str, Any] | None = None, **arrays: NDArray[Any]) -> str:
    with pytest.raises(DataError) as caught:
        own(folder, options, **arrays)
    assert str(folder / "own.npz") in str(caught.value)
    return str(caught.value)


def relabelled(values: NDArray[Any]) -> Arrays:
    """The labels 0 to 9 replaced by `values`."""
    return {name: values[small_arrays()[name]] for name in ("y_train", "y_test")}


SPARSE = np.array([-7, 0, 3, 40, 41, 100, 1_000, 2**31, 2**40, 2**53])
WORDS = np.array(["ten", "nine", "eight", "seven", "six", "five", "four", "three", "two", "one"])


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (np.arange(10), tuple("0123456789")),
        (np.arange(1, 11, dtype=np.uint8), (*"123456789", "10")),
        (SPARSE, tuple(map(str, SPARSE.tolist()))),
        (np.arange(10, dtype=np.float16), tuple("0123456789")),
        (np.arange(10)[:, np.newaxis], tuple("0123456789")),
        (WORDS, tuple(sorted(WORDS.tolist()))),
        (WORDS[:, np.newaxis], tuple(sorted(WORDS.tolist()))),
        (np.arange(10) > 4, ("False", "True")),
        (np.eye(10), tuple("0123456789")),
        (np.eye(10, dtype=bool), tuple("0123456789")),
        (np.eye(12, dtype=np.uint8)[2:], ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11")),
    ],
    ids=[
        *["from 0", "from 1", "sparse", "whole floats", "column", "words", "column of words"],
        *["bool", "one-hot floats", "one-hot bool", "one-hot without 0 and 1"],
    ],
)
def test_labels_of_every_form_become_positions_in_the_sorted_classes(
    tmp_path: Path, values: NDArray[Any], classes: tuple[str, ...]
) -> None:
    loaded = own(tmp_path, **relabelled(values))
    names = [str(v) for v in (values.argmax(1) if values.shape[1:] > (1,) else values.ravel())]
    if values.dtype.kind == "f" and values.ndim == 1:
        names = [str(int(value)) for value in values]
    assert loaded.training.classes == classes
    assert loaded.training.labels.dtype == np.int32
    found = [classes[label] for label in loaded.training.labels]
    assert found == [names[label] for label in small_arrays()["y_train"]]
    _, labels = loaded.test.open("s", "r", 0, lambda _: None)
    assert [classes[label] for label in labels] == [names[i] for i in small_arrays()["y_test"]]


def test_text_labels_follow_the_order_of_the_named_classes(tmp_path: Path) -> None:
    loaded = own(tmp_path, classes=WORDS, **relabelled(WORDS))
    assert loaded.training.classes == tuple(WORDS.tolist())
    assert np.array_equal(loaded.training.labels, small_arrays()["y_train"])


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (np.uint8, np.uint8),
        (np.bool_, np.uint8),
        (np.int16, np.float32),
        (np.uint16, np.float32),
        (np.int64, np.float32),
        (np.float16, np.float32),
        (np.float64, np.float32),
        (np.longdouble, np.float32),
        (">f4", np.float32),
    ],
)
def test_pixels_are_kept_as_bytes_and_become_float32_otherwise(
    tmp_path: Path, dtype: Any, wanted: type
) -> None:
    arrays = {name: small_arrays()[name].astype(dtype) for name in ("x_train", "x_test")}
    loaded = own(tmp_path, **arrays)
    images, _ = loaded.test.open("s", "r", 0, lambda _: None)
    assert loaded.training.images.dtype == images.dtype == wanted
    assert loaded.training.images.dtype.isnative
    assert np.array_equal(loaded.training.images[..., 0], arrays["x_train"])


@pytest.mark.parametrize(
    ("shape", "option", "wanted"),
    [
        ((16,), None, (4, 4, 1)),
        ((20,), (4, 5), (4, 5, 1)),
        ((20,), (5, 4, 1), (5, 4, 1)),
        ((48,), (4, 4, 3), (4, 4, 3)),
        ((16,), (2, 8), (2, 8, 1)),
        ((4, 5), None, (4, 5, 1)),
        ((4, 5, 1), None, (4, 5, 1)),
        ((4, 5, 3), None, (4, 5, 3)),
        ((4, 5), (4, 5), (4, 5, 1)),
        ((4, 5), (4, 5, 1), (4, 5, 1)),
        ((4, 5, 3), (4, 5, 3), (4, 5, 3)),
        ((1, 1), None, (1, 1, 1)),
    ],
)
def test_images_of_every_shape_become_height_width_channels(
    tmp_path: Path,
    shape: tuple[int, ...],
    option: tuple[int, ...] | None,
    wanted: tuple[int, int, int],
) -> None:
    arrays = {
        name: np.arange(count * math.prod(shape)).astype(np.uint8).reshape(count, *shape)
        for name, count in (("x_train", 60), ("x_test", 20))
    }
    loaded = own(tmp_path, {"image_shape": option}, **arrays)
    assert loaded.training.image_shape == wanted
    assert np.array_equal(loaded.training.images.ravel(), arrays["x_train"].ravel())


@pytest.mark.parametrize(
    ("shape", "option", "clue"),
    [
        ((20,), None, "20 pixels"),
        ((20,), (4, 4), "4x4"),
        ((20,), (20,), "HxW"),
        ((20,), (-4, -5), "-4x-5"),
        ((20,), (5, 2, 2), "(60, 5, 2, 2)"),
        ((4, 5), (5, 4), "(5, 4)"),
        ((4, 5), (4, 5, 3), "(4, 5, 3)"),
        ((4, 5, 3), (4, 5), "(4, 5)"),
    ],
)
def test_an_image_shape_that_does_not_fit_is_refused_with_both_shapes(
    tmp_path: Path, shape: tuple[int, ...], option: tuple[int, ...] | None, clue: str
) -> None:
    arrays = {"x_train": np.zeros((60, *shape), np.uint8)}
    message = own_error(tmp_path, {"image_shape": option}, **arrays)
    assert clue in message
    assert "--image-shape" in message or "expected (n, height, width)" in message


def test_a_class_that_the_test_part_lacks_is_a_warning_that_says_what_is_undefined(
    tmp_path: Path,
) -> None:
    loaded = own(tmp_path, y_test=np.arange(20) % 8)
    (warning,) = loaded.warnings
    for part in ("'8', '9'", "recall", "area under the ROC curve", "undefined"):
        assert part in warning
    assert loaded.test.class_counts(10)[8:] == (0, 0)


def test_a_rare_class_that_the_drawn_test_part_lacks_is_a_warning(tmp_path: Path) -> None:
    labels = np.array([7, 7] + [1, 2] * 29)
    path = tmp_path / "own.npz"
    np.savez(path, x=small_arrays()["x_train"], y=labels)
    loaded = load(str(path), None, 0)
    assert "'7'" in loaded.warnings[0]
    assert loaded.training.labels.tolist().count(2) == 2


def test_data_without_doubt_has_no_warnings(tmp_path: Path, digits: LoadedData) -> None:
    assert own(tmp_path).warnings == ()
    assert digits.warnings == ()


def test_the_drawn_test_part_is_the_same_for_every_seed(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=small_arrays()["x_train"], y=small_arrays()["y_train"] % 5)
    one, other = (load(str(path), None, seed) for seed in (0, 1))
    assert one.test.fingerprint == other.test.fingerprint
    assert one.fingerprint != other.fingerprint


@pytest.mark.parametrize("classes", [2, 3, 6, 7])
def test_as_many_images_are_enough_as_the_message_says(tmp_path: Path, classes: int) -> None:
    def of(count: int) -> Arrays:
        return {
            "x_train": np.zeros((count, 4, 5), np.uint8),
            "y_train": np.arange(count) % classes,
            "y_test": np.arange(20) % classes,
        }

    assert f"{5 * classes} in all" in own_error(tmp_path, **of(5 * classes - 1))  # type: ignore[arg-type]
    assert len(own(tmp_path, **of(5 * classes)).training.labels) == 5 * classes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("own.npz", "own"),
        ("my data (v2).npz", "my-data-v2"),
        ("<b>$(rm -rf)\n.npz", "b-rm-rf"),
        ("--.npz", "data"),
        ("größe.v1.npz", "größe.v1"),
        ("x" * 200 + ".npz", "x" * 60),
    ],
)
def test_the_name_of_ones_own_data_is_fit_for_messages(
    tmp_path: Path, file: str, name: str
) -> None:
    path = write_npz(tmp_path).rename(tmp_path / file)
    assert load(str(path), None, 0).training.name == name


def test_a_folder_and_an_array_in_it_are_called_by_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my insects").mkdir()
    monkeypatch.chdir(tmp_path / "my insects")
    for name, array in small_arrays().items():
        np.save(f"{name}.npy", array)
    for path in (".", "x_train.npy", str(tmp_path / "my insects")):
        assert load(path, None, 0).training.name == "my-insects"


def test_a_known_name_means_that_data_set_whatever_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    for name, array in small_arrays().items():
        np.save(tmp_path / "digits" / f"{name}.npy", array)
    assert load("digits", None, 0).training.image_shape == (8, 8, 1)
    assert load("./digits", None, 0).training.image_shape == (4, 5, 1)


@pytest.mark.parametrize("options", [{"label_column": "class"}, {"image_shape": (8, 8)}])
def test_options_for_files_are_refused_for_a_known_data_set(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"digits: .* are for your own files"):
        load("digits", None, 0, **options)


# What is refused


@pytest.mark.parametrize("name", ["", "absent.npz", "a\0b", "x" * 5_000])
def test_a_name_that_is_neither_known_nor_there_says_that_a_path_may_be_given(name: str) -> None:
    with pytest.raises(DataError) as caught:
        load(name, None, 0)
    for part in ("Unknown data set", *DATASETS, "path of your own data", ".npz", ".csv", "IDX"):
        assert part in str(caught.value)


def test_a_published_data_set_without_its_test_part_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=small_arrays()["x_train"], y_train=small_arrays()["y_train"])
    assert f"{path}: without the test part" in load_error(tmp_path)


def test_an_unknown_data_set_names_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        load("fashion_mnist", None, 0)
    assert "'fashion_mnist'" in str(caught.value)
    assert "Did you mean 'fashion-mnist'?" in str(caught.value)
    assert all(name in str(caught.value) for name in DATASETS)


def test_every_data_set_has_its_note() -> None:
    assert set(DATASET_NOTES) == set(DATASETS)


def test_a_data_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "absent") in load_error(tmp_path / "absent")


def test_a_data_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in load_error(tmp_path / "file")


def test_an_empty_data_folder_says_what_was_expected_there(tmp_path: Path) -> None:
    message = load_error(tmp_path)
    for part in (str(tmp_path), "mnist.npz", IMAGES):
        assert part in message


def replaced(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def flip_last(content: bytes, back: int) -> bytes:
    return content[:-back] + bytes([content[-back] ^ 0xFF]) + content[len(content) - back + 1 :]


SIZES = (60).to_bytes(4, "big")
DAMAGED_IDX: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": (IMAGES, lambda _: b""),
    "three bytes": (IMAGES, lambda b: b[:3]),
    "header cut after its magic number": (LABELS, lambda b: b[:4]),
    "header cut in its last size": (TEST_IMAGES, lambda b: b[:15]),
    "body missing": (IMAGES, lambda b: b[:16]),
    "last byte missing": (IMAGES, lambda b: b[:-1]),
    "last label missing": (TEST_LABELS, lambda b: b[:-1]),
    "one byte too many": (IMAGES, lambda b: b + b"\0"),
    "one label too many": (LABELS, lambda b: b + b"\0"),
    "floats": (IMAGES, replaced(b"\0\0\x08\x03", b"\0\0\x0d\x03")),
    "two dimensions": (IMAGES, replaced(b"\0\0\x08\x03", b"\0\0\x08\x02")),
    "little-endian magic": (LABELS, replaced(b"\0\0\x08\x01", b"\x01\x08\0\0")),
    "text": (LABELS, lambda _: b"<!doctype html><title>404</title>"),
    "claims one image more": (IMAGES, replaced(SIZES, (61).to_bytes(4, "big"))),
    "claims one image fewer": (IMAGES, replaced(SIZES, (59).to_bytes(4, "big"))),
    "claims more than fits in memory": (IMAGES, replaced(SIZES, b"\xff\xff\xff\xff")),
    "claims no images": (IMAGES, replaced(SIZES, bytes(4))),
    "claims 2**96 bytes": (IMAGES, lambda b: b[:4] + b"\xff" * 12 + b[16:]),
}


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("damage", DAMAGED_IDX)
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str, zipped: bool) -> None:
    write_idx(tmp_path, zipped=zipped)
    file, change = DAMAGED_IDX[damage]
    path = tmp_path / f"{file}{'.gz' if zipped else ''}"
    content = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
    path.write_bytes(gzip.compress(change(content)) if zipped else change(content))
    assert str(path) in load_error(tmp_path)


DAMAGED_GZIP: dict[str, Callable[[bytes], bytes]] = {
    "not zipped at all": gzip.decompress,
    "empty": lambda _: b"",
    "cut in its header": lambda b: b[:7],
    "cut in its body": lambda b: b[: len(b) // 2],
    "cut in its checksum": lambda b: b[:-6],
    "wrong checksum": lambda b: flip_last(b, 8),
    "wrong length": lambda b: flip_last(b, 1),
    "followed by something else": lambda b: b + b"something else",
    "damaged in its body": lambda b: b[:20] + b"\xff" * 20 + b[40:],
}


@pytest.mark.parametrize("damage", DAMAGED_GZIP)
def test_a_damaged_gz_file_is_named(tmp_path: Path, damage: str) -> None:
    write_idx(tmp_path, zipped=True)
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(DAMAGED_GZIP[damage](path.read_bytes()))
    assert str(path) in load_error(tmp_path)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("file", [LABELS, TEST_IMAGES, TEST_LABELS])
def test_a_missing_companion_is_named(tmp_path: Path, file: str, zipped: bool) -> None:
    write_idx(tmp_path, zipped=zipped)
    (tmp_path / f"{file}{'.gz' if zipped else ''}").unlink()
    message = load_error(tmp_path)
    assert str(tmp_path / file) in message
    assert "no such file" in message


def test_swapped_images_and_labels_are_guessed(tmp_path: Path) -> None:
    write_idx(tmp_path)
    os.rename(tmp_path / IMAGES, tmp_path / "spare")
    os.rename(tmp_path / LABELS, tmp_path / IMAGES)
    os.rename(tmp_path / "spare", tmp_path / LABELS)
    message = load_error(tmp_path)
    assert str(tmp_path / IMAGES) in message
    assert "swapped" in message


def damaged_archive(content: bytes) -> bytes:
    """The pixels of the first image, zipped without compression, no longer match their checksum."""
    start = content.index(small_arrays()["x_train"].tobytes()[:16])
    return content[:start] + b"\xaa" * 16 + content[start + 16 :]


def flagged(flag: int) -> Callable[[bytes], bytes]:
    """Sets a flag of the archive's first member, in its own header and in the directory."""

    def change(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[content.index(b"PK\x03\x04") + 6] |= flag
        changed[content.index(b"PK\x01\x02") + 8] |= flag
        return bytes(changed)

    return change


def single_array(_: bytes) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def archive_of_text(_: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for key in ARRAYS:
            archive.writestr(f"{key}.npy", b"no array")
    return file.getvalue()


DAMAGED_NPZ: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut in half": lambda b: b[: len(b) // 2],
    "without its directory": lambda b: b[:-22],
    "only its first four bytes": lambda _: b"PK\x03\x04",
    "text": lambda _: b"<!doctype html><title>404</title>",
    "first bytes missing": lambda b: b[100:],
    "wrong checksum": damaged_archive,
    "a pickle": lambda _: pickle.dumps(small_arrays()),
    "a single array": single_array,
    "members that are no arrays": archive_of_text,
    "said to be encrypted": flagged(0x01),
    "said to be a patch": flagged(0x20),
}


@pytest.mark.parametrize("damage", DAMAGED_NPZ)
def test_a_damaged_npz_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write_npz(tmp_path)
    path.write_bytes(DAMAGED_NPZ[damage](path.read_bytes()))
    assert str(path) in load_error(tmp_path)


@pytest.mark.parametrize("damage", DAMAGED_NPZ)
def test_a_damaged_npz_file_is_not_left_open(tmp_path: Path, damage: str) -> None:
    path = write_npz(tmp_path)
    path.write_bytes(DAMAGED_NPZ[damage](path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path, 0)
    still_open = {file.path for file in psutil.Process().open_files()}
    assert str(path.resolve()) not in still_open, caught.value  # which keeps its frames alive


@pytest.mark.parametrize("missing", ARRAYS)
def test_an_npz_file_without_an_array_names_it_and_those_it_holds(
    tmp_path: Path, missing: str
) -> None:
    path = tmp_path / "mnist.npz"
    kept = {key: array for key, array in small_arrays().items() if key != missing}
    np.savez(path, **kept)  # type: ignore[arg-type]
    message = load_error(tmp_path)
    assert str(path) in message
    assert f"no array {missing!r}" in message
    assert all(key in message for key in kept)


def test_an_npz_file_that_is_an_empty_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mnist.npz"
    zipfile.ZipFile(path, "w").close()
    assert f"{path}: no array 'x_train'; it holds nothing" in load_error(tmp_path)


@pytest.mark.parametrize(
    ("key", "array", "clue"),
    [
        ("x_train", np.zeros((60, 4, 5), np.float32), "float32"),
        ("x_train", np.zeros((60, 4, 5), np.int16), "int16"),
        ("x_train", np.zeros((60, 20), np.uint8), "(60, 20)"),
        ("x_test", np.zeros((20, 4, 5, 1, 1), np.uint8), "(20, 4, 5, 1, 1)"),
        ("x_test", np.zeros((), np.uint8), "()"),
        ("y_train", np.zeros(60, np.float64), "float64"),
        ("y_train", np.zeros((60, 10), np.uint8), "(60, 10)"),
        ("y_test", np.zeros(20, np.bool_), "bool"),
        ("y_test", np.array(["a"] * 20), "<U1"),
        ("y_test", np.array([None] * 20), "Object arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_array_of_another_kind_names_file_type_and_shape(
    tmp_path: Path, key: str, array: NDArray[Any], clue: str
) -> None:
    path = write_npz(tmp_path, **{key: array})
    message = load_error(tmp_path)
    assert str(path) in message
    assert clue in message


def test_an_array_that_is_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = write_npz(tmp_path, x_train=np.array([Trap()], dtype=object))
    assert str(path) in load_error(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("changed", "clues"),
    [
        ({"y_train": np.arange(59) % 10}, ("60", "training", "59")),
        ({"y_test": np.arange(21) % 10}, ("20", "test", "21")),
        ({"y_train": np.arange(60) % 11}, ("training", "0 to 10", "0 to 9")),
        ({"y_test": np.arange(20) % 10 - 1}, ("test", "-1 to 8", "0 to 9")),
        ({"x_test": np.zeros((20, 5, 4), np.uint8)}, ("test", "(20, 5, 4, 1)")),
        ({"x_train": np.zeros((0, 4, 5), np.uint8)}, ("training", "(0, 4, 5, 1)")),
        ({"x_test": np.zeros((0, 4, 5), np.uint8)}, ("test", "(0, 4, 5, 1)")),
        ({"x_train": np.zeros((60, 0, 5), np.uint8)}, ("training", "(60, 0, 5, 1)")),
        ({"y_train": np.array([3] + [0, 1, 2, 4, 5, 6, 7, 8, 9] * 7)[:60]}, ("1", "'3'", "few")),
        ({"y_train": np.arange(60) % 9}, ("0 of them", "'9'", "few")),
    ],
    ids=[
        "labels short",
        "test labels long",
        "eleven classes",
        "negative label",
        "other size",
        "no images",
        "no test images",
        "no height",
        "one of a class",
        "none of a class",
    ],
)
def test_arrays_that_do_not_fit_together_name_data_set_part_and_figures(
    tmp_path: Path, changed: Arrays, clues: tuple[str, ...]
) -> None:
    write_npz(tmp_path, **changed)
    message = load_error(tmp_path)
    for part in ("mnist", *clues):
        assert part in message


@pytest.mark.parametrize("beyond", [2**32, -(2**32)])
def test_labels_that_would_wrap_around_to_sound_ones_are_refused(
    tmp_path: Path, beyond: int
) -> None:
    path = write_npz(tmp_path, y_train=np.arange(60, dtype=np.int64) % 10 + beyond)
    message = load_error(tmp_path)
    assert str(path) in message
    assert str(beyond) in message


def test_too_few_images_for_a_stratified_split_say_how_many_are_needed(tmp_path: Path) -> None:
    few = {key: small_arrays()[key][:49] for key in ("x_train", "y_train")}
    write_npz(tmp_path, **few)
    message = load_error(tmp_path)
    assert "49" in message
    assert "50 in all" in message
    enough = {key: small_arrays()[key][:50] for key in ("x_train", "y_train")}
    write_npz(tmp_path, **enough)
    split = load("mnist", tmp_path, 0).split
    assert (len(split.train), len(split.validation)) == (40, 10)


def test_bad_data_ends_the_command_with_the_code_for_data(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("mnist", tmp_path, 0)
    assert caught.value.exit_code == 2


def test_nothing_but_a_verdict_and_a_reproduction_opens_the_lock() -> None:
    """Trials, figures, policies and pages cannot: their modules never call `test.open`."""
    package = Path(search.data.__file__).parent
    opening = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "open"
                and isinstance(node.func.value, ast.Attribute)
                and node.func.value.attr == "test"
            ):
                opening.add(path.name)
    assert opening == {"director.py", "reproduction.py"}


@pytest.mark.parametrize("attribute", ["arrays", "_TestLock__arrays", "images", "labels"])
def test_the_arrays_are_no_attribute_of_the_lock_that_code_outside_uses(attribute: str) -> None:
    package = Path(search.data.__file__).parent
    using = [
        path.name
        for path in package.rglob("*.py")
        if path.name != "data.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == attribute
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "test"
    ]
    assert using == []
