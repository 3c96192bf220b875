"""Images from files as a model takes them, and answers as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from search.loading import Predicted
from search.prediction import Batch, doubtful_pixels, read_batch, rows
from search.records import DataError
from search.registry import Card

GREY = (4, 6, 1)
COLOUR = (4, 6, 3)
PIXELS = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def saved(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".PNG"])
def test_a_grey_picture_keeps_its_pixels(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"image{suffix}", Image.fromarray(PIXELS))
    batch = read_batch(path, GREY)
    assert batch.images.dtype == np.float32
    np.testing.assert_array_equal(batch.images, PIXELS[np.newaxis, ..., np.newaxis])


def test_a_jpeg_is_read_as_pillow_decodes_it(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.jpg", Image.fromarray(PIXELS))
    expected = np.asarray(Image.open(path))
    np.testing.assert_array_equal(read_batch(path, GREY).images[0, ..., 0], expected)


def test_a_grey_picture_for_a_model_of_colours_has_its_grey_in_each(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", Image.fromarray(PIXELS))
    images = read_batch(path, COLOUR).images
    assert images.shape == (1, *COLOUR)
    for channel in range(3):
        np.testing.assert_array_equal(images[0, ..., channel], PIXELS)


def test_a_picture_in_colour_for_a_grey_model_becomes_its_luma(tmp_path: Path) -> None:
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[..., 1] = 200
    path = saved(tmp_path / "image.png", Image.fromarray(colours))
    images = read_batch(path, GREY).images
    assert images.shape == (1, *GREY)
    assert np.abs(images - 0.587 * 200).max() < 1  # ITU-R 601-2, as Pillow says
    np.testing.assert_array_equal(read_batch(path, COLOUR).images[0], colours)


def test_what_is_transparent_in_a_picture_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:2, :, 3] = 255
    path = saved(tmp_path / "image.png", Image.fromarray(pixels, "RGBA"))
    images = read_batch(path, GREY).images
    assert (images[0, :2] == 0).all()
    assert (images[0, 2:] == 255).all()


@pytest.mark.parametrize(
    ("shape", "model", "count"),
    [
        ((4, 6), GREY, 1),
        ((4, 6, 1), GREY, 1),
        ((5, 4, 6), GREY, 5),
        ((5, 4, 6, 1), GREY, 5),
        ((4, 6, 3), COLOUR, 1),
        ((1, 4, 6, 3), COLOUR, 1),
        ((5, 4, 6, 3), COLOUR, 5),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int16, np.bool_])
def test_an_array_may_hold_one_image_or_a_batch(
    tmp_path: Path, shape: tuple[int, ...], model: tuple[int, int, int], count: int, dtype: Any
) -> None:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    images = read_batch(tmp_path / "a.npy", model).images
    assert images.shape == (count, *model)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images.ravel(), array.ravel().astype(np.float32))


@pytest.mark.parametrize(
    ("names", "used"),
    [
        (("anything",), "anything"),
        (("x", "y"), "x"),
        (("x_test", "x_train"), "x_test"),
        (("labels", "images", "x"), "images"),
    ],
)
def test_of_an_archive_the_array_that_is_used_is_named(
    tmp_path: Path, names: tuple[str, ...], used: str
) -> None:
    arrays: dict[str, Any] = {name: np.full((4, 6), i) for i, name in enumerate(names)}
    np.savez(tmp_path / "a.npz", **arrays)
    batch = read_batch(tmp_path / "a.npz", GREY)
    assert batch.images.max() == names.index(used)
    assert repr(used) in batch.note


def _npy(path: Path, array: Any) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


BAD: dict[str, tuple[Any, str]] = {
    "missing.npy": (None, "cannot be read"),
    "words.txt": (lambda p: p.write_text("x"), "of no known kind"),
    "folder": (Path.mkdir, "is a folder"),
    "size.png": (
        lambda p: saved(p, Image.fromarray(PIXELS.T)),
        "6 by 4 by 1; the model takes 4 by 6 by 1",
    ),
    "size.npy": (lambda p: _npy(p, np.zeros((9, 8, 8))), "9 by 8 by 8; the model takes 4 by 6"),
    "flat.npy": (lambda p: _npy(p, np.zeros((9, 24))), "9 by 24; the model takes 4 by 6"),
    "number.npy": (lambda p: _npy(p, np.array(3.0)), "a single number"),
    "colour.npy": (lambda p: _npy(p, np.zeros((4, 6, 3))), "4 by 6 by 3; the model takes"),
    "empty.npy": (lambda p: _npy(p, np.zeros((0, 4, 6))), "no images"),
    "nan.npy": (lambda p: _npy(p, np.stack([PIXELS, PIXELS * np.nan])), "image 1 has pixels"),
    "text.npy": (lambda p: _npy(p, np.full((4, 6), "a")), "expected numbers"),
    "complex.npy": (lambda p: _npy(p, np.zeros((4, 6), complex)), "expected numbers"),
    "pickle.npy": (lambda p: _npy(p, np.full((4, 6), None)), "they are pickles"),
    "damaged.npy": (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00"), "damaged"),
    "damaged.npz": (lambda p: p.write_bytes(b"PK"), "damaged"),
    "damaged.png": (lambda p: p.write_bytes(b"\x89PNG\r\n"), "damaged"),
    "webp.png": (lambda p: Image.fromarray(PIXELS).save(p, "GIF"), "damaged, or not what"),
    "several.npz": (
        lambda p: np.savez(p, a=PIXELS, b=PIXELS),
        "which array. It holds a, b; expected one array, or one of the name images, x, x_test",
    ),
    "deep.png": (
        lambda p: Image.fromarray(PIXELS.astype(np.uint16) * 200).save(p),
        "16 bits per channel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_classified_is_one_paragraph_that_names_the_file(
    tmp_path: Path, name: str
) -> None:
    make, said = BAD[name]
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(DataError, match=said) as error:
        read_batch(tmp_path / name, GREY)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_array_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = _npy(tmp_path / "a.npy", np.zeros((2, 4, 6)))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(DataError, match="damaged"):
        read_batch(path, GREY)
    huge = path.read_bytes().replace(b"(2, 4, 6)", b"(2000000000000, 4, 6)", 1)
    path.write_bytes(huge)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_batch(path, GREY)


def test_a_picture_is_no_image_of_two_channels(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.png", Image.fromarray(PIXELS))
    with pytest.raises(DataError, match="takes images of 2 channels"):
        read_batch(path, (4, 6, 2))


CARD = Card(GREY, ("cat", "dog", "[bold]cow"), "pets")
TWO = Batch(Path("two.npy"), np.zeros((2, *GREY), np.float32))
ONE = Batch(Path("one.png"), np.zeros((1, *GREY), np.float32))
PROBABILITIES = np.array([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3], [0.0, np.nan, 0.25]], np.float32)


def test_rows_name_file_place_and_class_in_the_order_of_the_files() -> None:
    found = rows([TWO, ONE], Predicted(PROBABILITIES[:, :], None), CARD, top=1)
    assert [(r["file"], r["index"], r["class"]) for r in found[:2]] == [
        ("two.npy", 0, "dog"),
        ("two.npy", 1, "cat"),
    ]
    assert found[0]["probability"] == pytest.approx(0.7)
    assert found[2]["file"] == "one.png"
    assert list(found[0]) == ["file", "index", "class", "probability"]


def test_the_most_probable_classes_come_in_order_and_no_more_than_there_are() -> None:
    row = rows([ONE], Predicted(PROBABILITIES[:1], None), CARD, top=9)[0]
    assert [row["class"], row["class_2"], row["class_3"]] == ["dog", "[bold]cow", "cat"]
    assert row["probability"] > row["probability_2"] > row["probability_3"]
    assert "class_4" not in row


def test_a_probability_that_is_no_number_is_none() -> None:
    row = rows([ONE], Predicted(PROBABILITIES[2:], None), CARD, top=3)[0]
    json.dumps(row, allow_nan=False)
    assert None in row.values()


def test_classes_without_names_are_numbers() -> None:
    row = rows([ONE], Predicted(PROBABILITIES[:1], None), Card(GREY, (), ""), top=1)[0]
    assert row["class"] == "1"


@pytest.mark.parametrize(
    ("greatest", "known", "doubt"),
    [
        (255, (0.0, 255.0), False),
        (200, (0.0, 255.0), False),
        (255, (0.0, 16.0), True),  # a picture for a model of digits with 16 greys
        (1, (0.0, 255.0), True),  # scaled already
        (1, (0.0, 1.0), False),
        (255, None, False),
    ],
)
def test_pixels_of_another_range_are_pointed_out(
    greatest: float, known: tuple[float, float] | None, doubt: bool
) -> None:
    sentence = doubtful_pixels([_even("a.npy", greatest)], Predicted(PROBABILITIES[:1], known))
    assert (sentence is not None) is doubt
    if sentence and known:
        assert f"{known[1]:g}" in sentence


def _even(path: str, pixel: float) -> Batch:
    return Batch(Path(path), np.full((1, *GREY), pixel, np.float32))


def test_files_of_another_range_are_found_among_good_ones() -> None:
    batches = [_even("good.npy", 255), _even("scaled.npy", 1), _even("too.npy", 0.5)]
    sentence = doubtful_pixels(batches, Predicted(PROBABILITIES, (0.0, 255.0)))
    assert sentence is not None
    assert sentence.startswith("scaled.npy: pixels go up to 1 here (as in 1 other file)")
    assert doubtful_pixels(batches[:1], Predicted(PROBABILITIES, (0.0, 255.0))) is None
