"""Figures of a crafted data set whose duplicates and counts are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from search.arrays import Images
from search.data import LoadedData, Split, TestLock, TrainingData, load
from search.describe import describe, samples


def numbered(count: int, start: int = 0) -> NDArray[np.uint8]:
    """Images of 2 by 3 pixels that all differ: the first pixel counts, the last is always 9."""
    images = np.zeros((count, 2, 3, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(start, start + count)
    images[:, 0, 1, 0] = 2
    images[:, 1, 2, 0] = 9
    images[0, 0, 1, 0] = 200
    return images


def crafted(
    images: Images | None = None, warnings: tuple[str, ...] = (), **changed: Any
) -> LoadedData:
    """20 images of three classes in the pool (12, 6, 2), of which the last 5 validate; 4 test."""
    pool = numbered(20) if images is None else images
    labels = np.array([0] * 9 + [1] * 5 + [2] + [0] * 3 + [1] + [2], np.int32)
    order = np.random.default_rng(0).permutation(15).astype(np.int32)
    split = Split(order, np.arange(15, 20, dtype=np.int32))
    parts: dict[str, Any] = {
        "labels": labels,
        "test_images": numbered(4, 100),
        "test_labels": np.array([0, 0, 1, 0], np.int32),
    } | changed
    training = TrainingData("crafted", pool, parts["labels"], ("a", "b", "c"))
    lock = TestLock(parts["test_images"], parts["test_labels"])
    return LoadedData(training, split, lock, "0123456789abcdef", warnings)


def test_shape_names_and_counts_are_those_of_the_data() -> None:
    found = describe(crafted())
    assert (found.name, found.fingerprint) == ("crafted", "0123456789abcdef")
    assert (found.image_shape, found.dtype) == ((2, 3, 1), "uint8")
    assert found.classes == ("a", "b", "c")
    assert found.train_counts == (9, 5, 1)
    assert found.validation_counts == (3, 1, 1)
    assert found.test_counts == (3, 1, 0)
    assert found.imbalance == 6.0


def test_pixels_are_those_of_the_pool() -> None:
    found = describe(crafted())
    assert (found.pixel_min, found.pixel_max) == (0.0, 200.0)
    total = sum(range(20)) + 19 * 2 + 200 + 20 * 9
    assert found.pixel_mean == pytest.approx(total / 120)
    assert found.constant_pixels == pytest.approx(4 / 6)


def test_sound_data_has_no_duplicates_and_no_warnings() -> None:
    found = describe(crafted())
    assert found.duplicates_in_pool == 0
    assert found.duplicates_train_validation == 0
    assert found.duplicates_pool_test == 0
    assert found.conflicting_labels == 0
    assert found.warnings == ()


def test_duplicates_are_counted_by_where_they_are() -> None:
    pool = numbered(20)
    pool[[1, 2]] = pool[3]  # three alike in train, of class a
    pool[16] = pool[15]  # two alike in validation
    pool[[17, 18]] = pool[4]  # two of validation as one in train; 18 is of class b, 4 and 17 of a
    test = numbered(4, 100)
    test[[0, 1]] = pool[3]  # two of test as three in the pool
    test[2] = pool[19]  # one of test as one that validates
    found = describe(crafted(pool, test_images=test))
    assert found.duplicates_in_pool == 2 + 1 + 2
    assert found.duplicates_train_validation == 2
    assert found.duplicates_pool_test == 3
    assert found.conflicting_labels == 3
    validation, held_out, labels = found.warnings
    assert "2 of 5 validation images are also in train: a leak" in validation
    assert "3 of 4 test images" in held_out
    assert "The figure on test is optimistic" in held_out
    assert "3 images of the pool are identical to one with another label" in labels


def test_images_that_differ_in_one_bit_are_no_duplicates() -> None:
    pool = numbered(20)
    pool[16] = pool[1]
    pool[16, 1, 1, 0] ^= 1
    assert describe(crafted(pool)).duplicates_in_pool == 0


def test_the_warnings_of_loading_come_first() -> None:
    pool = numbered(20)
    pool[16] = pool[1]
    found = describe(crafted(pool, warnings=("The test part lacks c.",)))
    assert found.warnings[0] == "The test part lacks c."
    assert len(found.warnings) == 2


@pytest.mark.parametrize(("large", "warns"), [(19, False), (20, True)])
def test_an_imbalance_of_ten_and_more_is_a_warning_with_both_classes(
    large: int, warns: bool
) -> None:
    labels = np.array([0] * large + [1] * 2 + [2] * 2, np.int32)
    found = describe(crafted(numbered(large + 4), labels=labels))
    assert found.imbalance == large / 2
    assert any("Class 'a' has 20 images, 'b' only 2" in w for w in found.warnings) == warns
    assert bool(found.warnings) == warns


def floats(low: float, high: float) -> NDArray[np.float32]:
    images = numbered(20).astype(np.float32)
    images = (images - images.min()) / (images.max() - images.min())
    return np.float32(low) + images * np.float32(high - low)


@pytest.mark.parametrize(
    ("images", "clue"),
    [
        (floats(0, 1), None),
        (floats(-1, 1), None),
        (floats(0, 255), None),
        (floats(0, 16), None),
        (numbered(20), None),
        (floats(-0.5, 2), "from -0.5 to 2"),
        (floats(0, 256), "from 0 to 256"),
        (floats(-3, 3), "from -3 to 3"),
        (np.minimum(numbered(20), 1), "only 0 or 1"),
        (np.full((20, 2, 3, 1), 7, np.uint8), "All pixels are 7"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_range_of_pixels_that_is_unusual_is_a_warning(images: Images, clue: str | None) -> None:
    test = numbered(4, 100).astype(images.dtype)
    found = describe(crafted(images, test_images=test)).warnings
    about_pixels = [w for w in found if "ixels" in w]
    assert len(about_pixels) == (clue is not None)
    assert all(clue in w for w in about_pixels if clue)


def test_describing_does_not_open_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(TestLock, "open", refuse)
    assert describe(crafted()).test_counts == (3, 1, 0)
    samples(crafted(), 3, 0)


def test_the_digits_are_described_as_scikit_learn_documents_them() -> None:
    found = describe(load("digits", None, 0))
    counts = (found.train_counts, found.validation_counts, found.test_counts)
    assert np.sum(counts, axis=0).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (found.pixel_min, found.pixel_max) == (0.0, 16.0)
    assert found.warnings == ()


# Samples


def test_samples_are_train_images_of_their_class_without_repetition() -> None:
    loaded = crafted()
    drawn = samples(loaded, 4, 0)
    assert drawn.shape == (3, 4, 2, 3, 1)
    assert drawn.dtype == np.uint8
    train = {int(i): loaded.training.labels[i] for i in loaded.split.train}
    for label in (0, 1):
        numbers = drawn[label, :, 0, 0, 0].tolist()
        assert len(set(numbers)) == 4
        assert all(train[number] == label for number in numbers)


def test_a_class_with_fewer_images_is_filled_up_with_zeros() -> None:
    drawn = samples(crafted(), 4, 0)
    assert np.array_equal(drawn[2, 0], numbered(20)[14])
    assert not drawn[2, 1:].any()


def test_samples_follow_from_their_seed() -> None:
    one, same, other = (samples(crafted(), 4, seed) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_samples_of_floats_are_floats_as_they_were_loaded(tmp_path: Path) -> None:
    images = np.linspace(-1, 1, 40 * 4).reshape(40, 2, 2)
    np.savez(tmp_path / "own.npz", x=images, y=np.arange(40) % 2)
    loaded = load(str(tmp_path / "own.npz"), None, 0)
    drawn = samples(loaded, 2, 0)
    assert drawn.dtype == np.float32
    rows = images.astype(np.float32).reshape(40, 4).tolist()
    assert all(row in rows for row in drawn.reshape(4, 4).tolist())
