"""One's own data: real files of every format, and every kind of damage."""

from __future__ import annotations

import gzip
import io
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from search import unpacking
from search.data import LoadedData, load
from search.prediction import read_batch
from search.readers import IDX_NAMES, read, read_picture
from search.records import DataError

SHARED = Path(__file__).parents[2] / "shared" / "data"
NAMES = ("x_train", "y_train", "x_test", "y_test")
CLASSES = ("ant", "bee", "cat")

Arrays = dict[str, NDArray[Any]]


def small_arrays(channels: tuple[int, ...] = ()) -> Arrays:
    """45 training and 9 test images of 4 by 4 pixels, of three classes, ordered by class."""
    random = np.random.default_rng(0)
    return {
        "x_train": random.integers(0, 256, (45, 4, 4, *channels), dtype=np.uint8),
        "y_train": np.repeat(np.arange(3), 15),
        "x_test": random.integers(0, 256, (9, 4, 4, *channels), dtype=np.uint8),
        "y_test": np.repeat(np.arange(3), 3),
    }


def write_npz(folder: Path, arrays: Arrays) -> Path:
    path = folder / "own.npz"
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    return path


def write_npy(folder: Path, arrays: Arrays) -> Path:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def idx_bytes(array: NDArray[Any]) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.astype(np.uint8).tobytes()


def write_idx(
    folder: Path,
    arrays: Arrays,
    rename: Callable[[str], str] = lambda name: name,
    *,
    zipped: bool = False,
) -> Path:
    for name, key in zip(IDX_NAMES, NAMES, strict=True):
        if key in arrays:
            content = idx_bytes(arrays[key])
            path = folder / f"{rename(name)}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def csv_text(images: NDArray[Any], labels: NDArray[Any], label: str = "label") -> str:
    rows = images.reshape(len(images), -1).tolist()
    lines = [[label, *(f"p{i}" for i in range(len(rows[0])))]]
    lines += [[str(name), *map(str, row)] for name, row in zip(labels, rows, strict=True)]
    return "".join(",".join(line) + "\n" for line in lines)


def write_csv(folder: Path, arrays: Arrays) -> Path:
    for part in ("train", "test"):
        if f"x_{part}" in arrays:
            text = csv_text(arrays[f"x_{part}"], arrays[f"y_{part}"])
            (folder / f"{part}.csv").write_text(text)
    return folder


def write_pictures(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[Any], kind: str = "png"
) -> Path:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / CLASSES[label] / f"{number:04}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def write_picture_parts(folder: Path, arrays: Arrays) -> Path:
    for part in ("train", "test"):
        write_pictures(folder / part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return folder


def parts(loaded: LoadedData) -> Arrays:
    images, labels = loaded.test.open("s", "r", 0, lambda _: None)
    arrays = (loaded.training.images, loaded.training.labels, images, labels)
    return dict(zip(NAMES, arrays, strict=True))


def own(path: Path, **options: Any) -> LoadedData:
    return load(str(path), None, 0, **options)


def own_error(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        own(path, **options)
    return str(caught.value)


WRITERS: dict[str, Callable[[Path, Arrays], Path]] = {
    "npz": write_npz,
    "npy": write_npy,
    "npy-file": lambda folder, arrays: write_npy(folder, arrays) / "x_train.npy",
    "idx": write_idx,
    "idx-gz": lambda folder, arrays: write_idx(folder, arrays, zipped=True),
    "idx-dots": lambda folder, arrays: write_idx(
        folder, arrays, lambda n: n.replace("-idx", ".idx")
    ),
    "idx-test": lambda folder, arrays: write_idx(
        folder, arrays, lambda n: n.replace("t10k", "test")
    ),
    "csv": write_csv,
    "pictures": write_picture_parts,
}


# What comes back


@pytest.mark.parametrize("kind", WRITERS)
def test_images_and_labels_come_back_as_they_were_written(tmp_path: Path, kind: str) -> None:
    arrays = small_arrays()
    loaded = own(WRITERS[kind](tmp_path, arrays))
    for name, array in parts(loaded).items():
        wanted = arrays[name][..., np.newaxis] if name.startswith("x") else arrays[name]
        assert np.array_equal(array, wanted), name
    assert loaded.training.images.dtype == np.uint8
    assert loaded.training.labels.dtype == np.int32
    assert loaded.training.classes == (CLASSES if kind == "pictures" else ("0", "1", "2"))
    assert loaded.warnings == ()


def test_the_fingerprint_does_not_depend_on_the_format(tmp_path: Path) -> None:
    found = {}
    for kind, write in WRITERS.items():
        (tmp_path / kind).mkdir()
        found[kind] = own(write(tmp_path / kind, small_arrays())).fingerprint
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize("kind", ["npz", "npy", "idx", "pictures"])
def test_colour_images_come_back_as_they_were_written(tmp_path: Path, kind: str) -> None:
    arrays = small_arrays((3,))
    if kind == "idx":
        path = write_idx(tmp_path, arrays, lambda name: name.replace("idx3", "idx4"))
    else:
        path = WRITERS[kind](tmp_path, arrays)
    loaded = own(path)
    assert loaded.training.image_shape == (4, 4, 3)
    for name, array in parts(loaded).items():
        assert np.array_equal(array, arrays[name]), name


@pytest.mark.parametrize("kind", ["npz", "npy", "idx", "csv"])
def test_without_a_test_part_a_fifth_is_drawn_stratified(tmp_path: Path, kind: str) -> None:
    arrays = {name: small_arrays()[name] for name in ("x_train", "y_train")}
    loaded = own(WRITERS[kind](tmp_path, arrays))
    found = parts(loaded)
    assert loaded.test.class_counts(3) == (3, 3, 3)
    rows = np.concatenate([found["x_train"], found["x_test"]]).reshape(45, 16)
    labels = np.concatenate([found["y_train"], found["y_test"]])
    drawn = sorted(zip(rows.tolist(), labels.tolist(), strict=True))
    wanted = arrays["x_train"].reshape(45, 16).tolist()
    assert drawn == sorted(zip(wanted, arrays["y_train"].tolist(), strict=True))


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        (("x", "y"), ()),
        (("X", "Y"), ()),
        (("X_train", "y_train", "X_test", "y_test"), ()),
        (("x", "y", "x_test", "y_test"), ()),
        (("images", "labels"), ()),
        (("train_images", "train_labels", "test_images", "test_labels"), ("val_images",)),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("write", [write_npz, write_npy])
def test_arrays_are_found_by_the_names_that_circulate(
    tmp_path: Path,
    names: tuple[str, ...],
    unused: tuple[str, ...],
    write: Callable[[Path, Arrays], Path],
) -> None:
    arrays = small_arrays()
    stored = {name: arrays[key] for name, key in zip(names, NAMES, strict=False)}
    raw = read(write(tmp_path, stored | dict.fromkeys(unused, np.zeros(3))))
    assert np.array_equal(raw.images, arrays["x_train"])
    assert np.array_equal(raw.labels, arrays["y_train"])
    assert (raw.test_images is not None) == (len(names) == 4)
    assert all(name in raw.warnings[0] for name in unused)
    assert len(raw.warnings) == len(unused)


def test_a_single_array_is_read_with_its_own_companions_only(tmp_path: Path) -> None:
    arrays = small_arrays()
    write_npy(tmp_path, {"x_train": arrays["x_train"], "y_train": arrays["y_train"]})
    write_npy(tmp_path, {"images": arrays["x_test"], "labels": arrays["y_test"]})
    assert np.array_equal(read(tmp_path / "images.npy").images, arrays["x_test"])


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_names_of_classes_are_read_from_the_array_of_that_name(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path, small_arrays() | {"classes": np.array(CLASSES)})
    assert own(path).training.classes == CLASSES


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("mnist", SHARED / "mnist.npz"), ("fashion-mnist", SHARED / "fashion-mnist")],
)
def test_a_published_data_set_is_the_same_by_name_and_by_path(name: str, wanted: Path) -> None:
    if not wanted.exists():
        pytest.skip(f"{wanted.name} is not in ../shared/data next to the project")
    by_path = own(wanted)
    assert by_path.fingerprint == load(name, SHARED, 0).fingerprint
    assert by_path.training.name == name
    assert by_path.training.classes == tuple("0123456789")


# CSV


@pytest.mark.parametrize("column", ["label", "class", "target", "y"])
def test_the_usual_names_of_a_label_column_need_no_option(tmp_path: Path, column: str) -> None:
    arrays = small_arrays()
    path = tmp_path / "own.csv"
    path.write_text(csv_text(arrays["x_train"], arrays["y_train"], column))
    assert np.array_equal(read(path).labels, arrays["y_train"])


def test_another_label_column_is_read_where_it_is_named(tmp_path: Path) -> None:
    arrays = small_arrays()
    path = tmp_path / "own.csv"
    path.write_text(csv_text(arrays["x_train"], arrays["y_train"], "species"))
    message = own_error(path)
    for part in (str(path), "'label' or 'class'", "species, p0, p1", "--label-column"):
        assert part in message
    assert own(path, label_column="species").training.image_shape == (4, 4, 1)


def test_the_label_column_may_stand_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("p0,class,p1\n1,b,2\n3,a,4\n")
    raw = read(path)
    assert raw.labels.tolist() == ["b", "a"]
    assert raw.images.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("labels", [("NA", "None", "null"), ("", " ", "nan")])
def test_no_word_in_the_label_column_is_taken_for_missing(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    path = tmp_path / "own.csv"
    path.write_text("label,p0\n" + "".join(f"{label},1\n" for label in labels))
    assert read(path).labels.tolist() == list(labels)


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (("0", "255"), np.uint8),
        (("0.0", "17.0"), np.uint8),
        (("True", "0"), np.uint8),
        (("0", "256"), np.float64),
        (("0", "-1"), np.float64),
        (("0.5", "1"), np.float64),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value.__name__,
)
def test_pixels_of_csv_are_bytes_only_where_nothing_is_lost(
    tmp_path: Path, cells: tuple[str, str], dtype: type
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"label,p0,p1\n0,{cells[0]},{cells[1]}\n1,{cells[0]},{cells[1]}\n")
    images = read(path).images
    assert images.dtype == dtype
    wanted = [1.0 if cell == "True" else float(cell) for cell in cells]
    assert images.tolist() == [wanted, wanted]


def test_columns_of_the_test_file_are_taken_by_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,p0,p1\n0,1,2\n1,3,4\n")
    (tmp_path / "test.csv").write_text("p1,p0,label\n6,5,1\n")
    raw = read(tmp_path)
    assert raw.test_images is not None
    assert raw.test_images.tolist() == [[5, 6]]
    assert raw.test_labels is not None
    assert raw.test_labels.tolist() == [1]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_bytes(b"\xef\xbb\xbflabel,p0\r\n0,1\r\n1,2\r\n")
    assert read(path).images.tolist() == [[1], [2]]


# Pictures


WIDTH = 10_007


def wide_csv(*rows: list[str], label: int = 5) -> str:
    names = [f"p{n}" for n in range(WIDTH)]
    names.insert(label, "label")
    return "\n\n".join(",".join(row) for row in (names, *rows)) + "\n"


def test_many_columns_are_read_as_few_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, WIDTH))
    words = np.repeat(["ant", "bee", ""], 15)
    rows = [
        [*map(str, row[:5]), word, *map(str, row[5:])]
        for row, word in zip(pixels, words, strict=True)
    ]
    rows[7][9], pixels[7, 8] = " 1e2 ", 100
    for row in rows:
        row[8] = "True"
    pixels[:, 7] = 1
    (tmp_path / "own.csv").write_text(wide_csv(*rows))
    found = read(tmp_path / "own.csv")
    np.testing.assert_array_equal(found.images, pixels)
    assert found.labels.tolist() == words.tolist()
    assert found.images.dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row[:-3], r"row 3, column 'p10004' holds ''"),
        (lambda row: [*row[:2], "a", *row[3:]], r"row 3, column 'p2' holds 'a'"),
        (lambda row: [*row, "a"], "damaged or truncated"),
    ],
)
def test_a_row_of_many_columns_that_is_wrong_is_refused_by_its_place(
    tmp_path: Path, change: Callable[[list[str]], list[str]], said: str
) -> None:
    row = ["0"] * (WIDTH + 1)
    (tmp_path / "own.csv").write_text(wide_csv(row, row, change(row)))
    with pytest.raises(DataError, match=rf"own\.csv: {said}"):
        read(tmp_path / "own.csv")


@pytest.mark.parametrize("kind", ["png", "PNG", "jpg", "jpeg", "JPG"])
def test_pictures_of_every_suffix_are_read(tmp_path: Path, kind: str) -> None:
    # Of one grey each, so that JPEG loses nothing.
    images = np.repeat(np.arange(45, dtype=np.uint8) * 5, 16).reshape(45, 4, 4)
    labels = small_arrays()["y_train"]
    raw = read(write_pictures(tmp_path, images, labels, kind))
    assert np.array_equal(raw.images, images)
    assert raw.labels.tolist() == [CLASSES[label] for label in labels]
    assert raw.classes == CLASSES
    assert raw.test_images is None


@pytest.mark.parametrize("folder", ["val", "valid", "validation"])
def test_a_validation_folder_is_merged_into_the_pool_with_a_warning(
    tmp_path: Path, folder: str
) -> None:
    arrays = small_arrays()
    write_picture_parts(tmp_path, arrays)
    write_pictures(tmp_path / folder, arrays["x_test"], arrays["y_test"])
    loaded = own(tmp_path)
    assert len(loaded.training.labels) == 54
    assert loaded.test.size == 9
    (warning,) = loaded.warnings
    assert str(tmp_path / folder) in warning
    assert "merged" in warning


def test_what_is_no_picture_is_left_out_with_a_warning_and_hidden_files_without(
    tmp_path: Path,
) -> None:
    arrays = small_arrays()
    write_pictures(tmp_path, arrays["x_train"], arrays["y_train"])
    (tmp_path / "ant" / "notes.txt").write_text("six legs")
    (tmp_path / "ant" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("insects")
    raw = read(tmp_path)
    assert len(raw.images) == 45
    assert raw.classes == CLASSES
    (warning,) = raw.warnings
    assert "1 files" in warning
    assert str(tmp_path / "ant" / "notes.txt") in warning


def test_classes_that_are_called_train_and_test_are_classes(tmp_path: Path) -> None:
    arrays = small_arrays()
    write_pictures(tmp_path, arrays["x_train"], arrays["y_train"])
    (tmp_path / "ant").rename(tmp_path / "train")
    (tmp_path / "bee").rename(tmp_path / "test")
    raw = read(tmp_path)
    assert raw.classes == ("cat", "test", "train")
    assert raw.test_images is None


def test_a_folder_of_classes_that_is_called_test_is_the_pool(tmp_path: Path) -> None:
    arrays = small_arrays()
    raw = read(write_pictures(tmp_path / "test", arrays["x_train"], arrays["y_train"]))
    assert len(raw.images) == 45
    assert raw.test_images is None


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def png_bytes(
    width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b""
) -> bytes:
    """A PNG by the letter of its specification (ISO/IEC 15948)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


def one_of_each(folder: Path, image: Image.Image, kind: str = "png") -> NDArray[np.uint8]:
    """What becomes of a picture among others like it."""
    for name in CLASSES:
        (folder / name).mkdir()
        image.save(folder / name / f"1.{kind}")
    image_read: NDArray[np.uint8] = read(folder).images[0]
    return image_read


def test_transparency_shows_white_behind_it(tmp_path: Path) -> None:
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    found = one_of_each(tmp_path, Image.fromarray(pixels))
    assert found.tolist() == [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]


def test_grey_with_transparency_stays_grey(tmp_path: Path) -> None:
    pixels = np.array([[[10, 255], [10, 0], [0, 51]]], np.uint8)
    assert one_of_each(tmp_path, Image.fromarray(pixels)).tolist() == [[10, 255, 204]]


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.putdata([0, 1])
    assert one_of_each(tmp_path, image).tolist() == [[[1, 2, 3], [200, 100, 50]]]


def test_a_transparent_entry_of_a_palette_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 200, 100, 50])
    image.putdata([0, 1])
    image.info["transparency"] = 0
    assert one_of_each(tmp_path, image).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_black_and_white_becomes_0_and_255(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert one_of_each(tmp_path, image).tolist() == [[0, 255]]


def test_grey_among_colour_becomes_colour_with_a_warning(tmp_path: Path) -> None:
    arrays = small_arrays((3,))
    write_pictures(tmp_path, arrays["x_train"], arrays["y_train"])
    grey = small_arrays()["x_train"][0]
    Image.fromarray(grey).save(tmp_path / "ant" / "0000.png")
    raw = read(tmp_path)
    assert raw.images.shape == (45, 4, 4, 3)
    assert np.array_equal(raw.images[0], np.stack([grey] * 3, axis=-1))
    assert np.array_equal(raw.images[1:], arrays["x_train"][1:])
    assert "1 of 45 pictures are grey" in raw.warnings[0]


# Damage: what is written, and what the message must name; `test_bad_input` reads all of it


def with_arrays(kind: str, **changed: NDArray[Any] | None) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        arrays = small_arrays() | changed
        kept = {name: array for name, array in arrays.items() if array is not None}
        return WRITERS[kind](folder, kept)

    return write


def with_file(
    kind: str, name: str, change: Callable[[bytes], bytes] | None
) -> Callable[[Path], Path]:
    """Sound files of which one is changed or, without a change, removed."""

    def write(folder: Path) -> Path:
        path = WRITERS[kind](folder, small_arrays())
        file = folder / name
        if change is None:
            file.unlink()
        else:
            file.write_bytes(change(file.read_bytes()) if file.exists() else change(b""))
        return path

    return write


def with_text(text: str | bytes) -> Callable[[Path], Path]:
    """A CSV file, own.csv."""

    def write(folder: Path) -> Path:
        path = folder / "own.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def npy_header(*shape: int) -> bytes:
    """The header of an array of bytes, whatever its shape, and nothing behind it."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


def archive_of(members: dict[str, bytes]) -> Callable[[bytes], bytes]:
    def change(_: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return file.getvalue()

    return change


def nan_at(index: int) -> NDArray[np.float32]:
    images = small_arrays()["x_train"].astype(np.float32)
    images[index, 1, 2] = np.nan
    return images


def pictures_but(change: Callable[[Path], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_picture_parts(folder, small_arrays())
        change(folder)
        return folder

    return write


PICTURE = "train/ant/0003.png"
CSV_ROWS = "label,p0\n" + "0,1\n1,2\n" * 8
PNG = png_bytes(4, 4, 8, 0, bytes(20))
BLOWN_UP_TEXT = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2 << 20)))
LABELS = small_arrays()["y_train"]

DAMAGED: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    # npz
    "npz empty": (with_file("npz", "own.npz", lambda _: b""), "own.npz", "damaged"),
    "npz truncated": (with_file("npz", "own.npz", lambda b: b[:-30]), "own.npz", "damaged"),
    "npz of text": (with_file("npz", "own.npz", lambda _: b"404"), "own.npz", "not a zip file"),
    "npz of a pickle": (
        with_arrays("npz", x_train=np.array([{}] * 45, dtype=object)),
        "own.npz",
        "Object arrays cannot be loaded",
    ),
    "npz member that promises a terabyte": (
        with_file(
            "npz",
            "own.npz",
            archive_of({"x.npy": npy_header(1000000000000), "y.npy": b""}),
        ),
        "own.npz",
        "claims an array",
    ),
    "npz member that promises more than it holds": (
        with_file("npz", "own.npz", archive_of({"x.npy": npy_header(45, 4, 4), "y.npy": b""})),
        "own.npz",
        "damaged",
    ),
    "npz member of negative size": (
        with_file("npz", "own.npz", archive_of({"x.npy": npy_header(-45, 4), "y.npy": b""})),
        "own.npz",
        "negative",
    ),
    "npz without labels": (with_arrays("npz", y_train=None), "own.npz", "no array 'y_train'"),
    "npz without test labels": (with_arrays("npz", y_test=None), "own.npz", "no array 'y_test'"),
    "npz of other arrays": (
        with_file("npz", "own.npz", archive_of({"weights.npy": b""})),
        "own.npz",
        "it holds weights",
    ),
    "classes twice the same": (
        with_arrays("npz", classes=np.array(["a", "b", "a"])),
        "own.npz",
        "no two the same",
    ),
    "classes of numbers": (with_arrays("npz", classes=np.arange(3)), "own.npz", "int64 (3,)"),
    "labels beyond the named classes": (
        with_arrays("npz", classes=np.array(["a", "b"])),
        "own.npz",
        "from 0 to 2; expected 0 to 1",
    ),
    "text labels beyond the named classes": (
        with_arrays("npz", classes=np.array(["a", "b"]), y_train=np.array(["a", "b", "c"] * 15)),
        "own.npz",
        "such as 'c'",
    ),
    # npy
    "npy truncated": (with_file("npy", "x_train.npy", lambda b: b[:-1]), "x_train.npy", "damaged"),
    "npy empty": (with_file("npy", "y_test.npy", lambda _: b""), "y_test.npy", "damaged"),
    "npy of negative size": (
        with_file("npy", "x_train.npy", lambda _: npy_header(-45, 4, 4)),
        "x_train.npy",
        "damaged",
    ),
    "npy of an impossible size": (
        with_file("npy", "x_train.npy", lambda _: npy_header(4611686018427387904, 4)),
        "x_train.npy",
        "damaged",
    ),
    "npy of a pickle": (
        with_arrays("npy", y_train=np.array([{}] * 45, dtype=object)),
        "y_train.npy",
        "Object arrays",
    ),
    "npy without its labels": (with_file("npy", "y_train.npy", None), "", "no array 'y_train'"),
    "npy of an unknown name": (
        lambda folder: write_npy(folder, {"stuff": np.zeros(3)}) / "stuff.npy",
        "stuff.npy",
        "which array",
    ),
    # IDX
    "idx gz truncated": (
        with_file("idx-gz", f"{IDX_NAMES[0]}.gz", lambda b: b[:-20]),
        f"{IDX_NAMES[0]}.gz",
        "damaged or truncated",
    ),
    "idx gz that is none": (
        with_file("idx-gz", f"{IDX_NAMES[0]}.gz", lambda _: b"<html>"),
        f"{IDX_NAMES[0]}.gz",
        "gzip",
    ),
    "idx of wrong magic": (
        with_file("idx", IDX_NAMES[1], lambda b: b"\0\0\x09\x01" + b[4:]),
        IDX_NAMES[1],
        "00000901",
    ),
    "idx that promises more": (
        with_file("idx", IDX_NAMES[0], lambda b: b[:7] + b"\x2e" + b[8:]),
        IDX_NAMES[0],
        "promises 736 bytes, it holds 720",
    ),
    "idx of negative size": (
        with_file("idx", IDX_NAMES[0], lambda b: b[:4] + b"\xff\xff\xff\xff" + b[8:]),
        IDX_NAMES[0],
        "at most",
    ),
    "idx without labels": (with_file("idx", IDX_NAMES[1], None), IDX_NAMES[1], "no such file"),
    "idx without test labels": (with_file("idx", IDX_NAMES[3], None), IDX_NAMES[3], "no such file"),
    "idx of test alone": (
        with_arrays("idx", x_train=None, y_train=None),
        IDX_NAMES[0],
        "no such file",
    ),
    # CSV
    "csv empty": (with_text(""), "own.csv", "empty"),
    "csv of blank lines": (with_text("\n\n"), "own.csv", "damaged"),
    "csv of a header alone": (with_text("label,p0\n"), "own.csv", "without rows"),
    "csv without label": (with_text("a,p0\n0,1\n"), "own.csv", "its first line names a, p0"),
    "csv without header": (with_text("5,0,0\n3,1,2\n"), "own.csv", "--label-column"),
    "csv row too long": (with_text(CSV_ROWS + "0,1,2\n"), "own.csv", "Expected 2 fields"),
    "csv row too short": (with_text(CSV_ROWS + "0\n"), "own.csv", "row 17, column 'p0' holds ''"),
    "csv all rows too long": (with_text("label,p0\n0,1,2\n1,3,4\n"), "own.csv", "header"),
    "csv with text in a pixel": (
        with_text(CSV_ROWS + "0,dark\n"),
        "own.csv",
        "row 17, column 'p0' holds 'dark'",
    ),
    "csv with nan in a pixel": (with_text(CSV_ROWS + "0,nan\n"), "own.csv", "holds 'nan'"),
    "csv with infinity in a pixel": (with_text(CSV_ROWS + "0,inf\n"), "own.csv", "infinite"),
    "csv not square": (with_text("label,a,b\n0,1,2\n1,2,3\n"), "own.csv", "--image-shape HxWxC"),
    "csv without pixels": (with_text("label\n0\n1\n"), "own.csv", "0 pixels"),
    "csv with an open quote": (with_text('label,p0\n"0,1\n'), "own.csv", "column 'p0' holds ''"),
    "csv with an open quote further down": (
        with_text(CSV_ROWS + '"0,1\n'),
        "own.csv",
        "damaged",
    ),
    "csv of other bytes": (with_text(b"label,p0\n\xff\xfe,1\n"), "own.csv", "utf-8"),
    "csv with an empty label": (with_text(CSV_ROWS + ",3\n"), "own.csv", "name of a class"),
    "csv test without labels": (
        with_file("csv", "test.csv", lambda b: b.replace(b"label", b"id", 1)),
        "test.csv",
        "no column 'label', but a test part needs labels too",
    ),
    "csv test of other pixels": (
        with_file("csv", "test.csv", lambda b: b.replace(b"p7", b"q7", 1)),
        "test.csv",
        "columns are not those of",
    ),
    # Pictures
    "picture truncated": (with_file("pictures", PICTURE, lambda b: b[:-20]), PICTURE, "damaged"),
    "picture cut in its header": (
        with_file("pictures", PICTURE, lambda b: b[:20]),
        PICTURE,
        "damaged",
    ),
    "picture empty": (with_file("pictures", PICTURE, lambda _: b""), PICTURE, "cannot identify"),
    "picture of text": (
        with_file("pictures", PICTURE, lambda _: b"hi"),
        PICTURE,
        "cannot identify",
    ),
    "picture of another format": (
        pictures_but(lambda folder: Image.new("L", (4, 4)).save(folder / PICTURE, "TIFF")),
        PICTURE,
        "cannot identify",
    ),
    "picture with a wrong checksum": (
        with_file("pictures", PICTURE, lambda _: PNG[:45] + b"\xff\xff" + PNG[47:]),
        PICTURE,
        "damaged",
    ),
    "picture that is a bomb": (
        with_file("pictures", PICTURE, lambda _: png_bytes(50_000, 50_000, 8, 0, b"")),
        PICTURE,
        "bomb",
    ),
    "picture that is half a bomb": (
        with_file("pictures", PICTURE, lambda _: png_bytes(10_000, 10_000, 8, 0, b"")),
        PICTURE,
        "bomb",
    ),
    "picture with a text that is a bomb": (
        with_file(
            "pictures",
            PICTURE,
            lambda _: png_bytes(4, 4, 8, 0, bytes(20), BLOWN_UP_TEXT),
        ),
        PICTURE,
        "too large",
    ),
    "picture of another size": (
        with_file("pictures", PICTURE, lambda _: png_bytes(5, 4, 8, 0, bytes(24))),
        PICTURE,
        "resize all pictures",
    ),
    "picture of 16 bits": (
        with_file("pictures", PICTURE, lambda _: png_bytes(4, 4, 16, 0, bytes(36))),
        PICTURE,
        "16 bits",
    ),
    "colour picture of 16 bits": (
        with_file("pictures", PICTURE, lambda _: png_bytes(4, 4, 16, 2, bytes(100))),
        PICTURE,
        "16 bits",
    ),
    "class folder empty": (
        pictures_but(lambda folder: (folder / "train" / "dog").mkdir()),
        "train/dog",
        "no PNG or JPEG",
    ),
    "class folder of text": (
        pictures_but(lambda folder: os.renames(folder / PICTURE, folder / "train/dog/a.txt")),
        "train/dog",
        "no PNG or JPEG",
    ),
    "class in test alone": (
        pictures_but(lambda folder: (folder / "test/ant").rename(folder / "test/dog")),
        "",
        "such as 'dog'",
    ),
    "test folder without classes": (
        pictures_but(
            lambda folder: [
                (folder / "test" / name).rename(folder / "train" / name / "more")
                for name in CLASSES
            ]
        ),
        "test",
        "a folder for each class",
    ),
    "one picture of a class": (
        pictures_but(lambda folder: os.renames(folder / PICTURE, folder / "train/dog/1.png")),
        "",
        "1 of them of class 'dog'",
    ),
    # Arrays that do not fit
    "labels short": (
        with_arrays("npz", y_train=LABELS[:-1]),
        "own.npz",
        "45 training images but 44",
    ),
    "test labels long": (with_arrays("idx", y_test=LABELS), "", "9 test images but 45"),
    "labels not whole": (with_arrays("npz", y_train=LABELS + 0.5), "own.npz", "'0.5'"),
    "labels NaN": (with_arrays("npz", y_train=LABELS * np.nan), "own.npz", "'nan'"),
    "labels infinite": (
        with_arrays("npz", y_train=np.where(LABELS > 1, np.inf, 0)),
        "own.npz",
        "'inf' (number 30",
    ),
    "labels above 2**63": (
        with_arrays("npz", y_train=LABELS.astype(np.uint64) + np.uint64(2**63)),
        "own.npz",
        "whole number",
    ),
    "labels complex": (with_arrays("npz", y_train=LABELS * 1j), "own.npz", "complex128"),
    "labels of bytes": (with_arrays("npz", y_train=LABELS.astype("S")), "own.npz", "labels are |S"),
    "labels of dates": (
        with_arrays("npz", y_train=LABELS.astype("datetime64[D]")),
        "own.npz",
        "datetime64",
    ),
    "labels with an empty name": (
        with_arrays("npz", y_train=np.where(LABELS > 1, "", "a")),
        "own.npz",
        "name of a class",
    ),
    "labels a single number": (with_arrays("npz", y_train=np.array(3)), "own.npz", "int64 ()"),
    "labels of three dimensions": (
        with_arrays("npz", y_train=np.zeros((45, 3, 1))),
        "own.npz",
        "(45, 3, 1)",
    ),
    "labels two-hot": (
        with_arrays("npz", y_train=np.eye(3)[LABELS] + np.eye(3)[0]),
        "own.npz",
        "one-hot",
    ),
    "labels none-hot": (with_arrays("npz", y_train=np.zeros((45, 3))), "own.npz", "one-hot"),
    "labels soft": (with_arrays("npz", y_train=np.full((45, 2), 0.5)), "own.npz", "one-hot"),
    "labels text in training alone": (
        with_arrays("npz", y_train=LABELS.astype(str)),
        "own.npz",
        "text in one part and numbers in the other",
    ),
    "a class in test alone": (
        with_arrays("npz", y_test=np.repeat([0, 1, 7], 3)),
        "own.npz",
        "3 test labels such as 7",
    ),
    "a single class": (with_arrays("npz", y_train=LABELS * 0), "own.npz", "of one class, '0'"),
    "one image of a class": (
        with_arrays("npz", y_train=np.array([5] + [0] * 44), y_test=np.repeat([0, 5, 0], 3)),
        "own.npz",
        "1 of them of class '5'",
    ),
    "one image of a class left by the test part": (
        with_arrays("npz", y_train=np.array([0, 0, 1, 1] + [2] * 41), x_test=None, y_test=None),
        "own.npz",
        "36 training images left when the test part is drawn, 1 of them",
    ),
    "as many classes as images": (
        with_arrays("npz", y_train=np.arange(45) // 2, x_test=None, y_test=None),
        "own.npz",
        "are too few",
    ),
    "no images": (
        with_arrays("npz", x_train=np.zeros((0, 4, 4)), y_train=LABELS[:0]),
        "own.npz",
        "(0, 4, 4, 1)",
    ),
    "no flat images": (
        with_arrays("npz", x_train=np.zeros((0, 16)), y_train=LABELS[:0]),
        "own.npz",
        "(0, 4, 4, 1)",
    ),
    "no test images": (
        with_arrays("npz", x_test=np.zeros((0, 4, 4)), y_test=LABELS[:0]),
        "own.npz",
        "test images have shape (0, 4, 4, 1)",
    ),
    "images NaN": (with_arrays("npz", x_train=nan_at(7)), "own.npz", "image 7"),
    "images beyond float32": (
        with_arrays("npz", x_train=small_arrays()["x_train"] * 1e300),
        "own.npz",
        "infinite",
    ),
    "images complex": (
        with_arrays("npz", x_train=small_arrays()["x_train"] * 1j),
        "own.npz",
        "complex128",
    ),
    "images text": (
        with_arrays("npz", x_train=small_arrays()["x_train"].astype(str)),
        "own.npz",
        "expected real numbers",
    ),
    "channels first": (
        with_arrays("npz", x_train=np.zeros((45, 3, 4, 4), np.uint8)),
        "own.npz",
        "Channels come last",
    ),
    "four channels": (
        with_arrays("npz", x_train=np.zeros((45, 4, 4, 4), np.uint8)),
        "own.npz",
        "(45, 4, 4, 4)",
    ),
    "test of another size": (
        with_arrays("npz", x_test=np.zeros((9, 4, 5), np.uint8)),
        "own.npz",
        "test images are uint8 (9, 4, 5, 1)",
    ),
    "test of another type": (
        with_arrays("npz", x_test=small_arrays()["x_test"] / 255),
        "own.npz",
        "test images are float32",
    ),
    # Whole paths
    "folder empty": (lambda folder: folder, "", "holds nothing"),
    "file of another kind": (
        lambda folder: write_npz(folder, small_arrays()).rename(folder / "own.tar"),
        "own.tar",
        "Expected an .npz",
    ),
}


def refusal(path: Path) -> str | None:
    """The message of the error; None where there is none."""
    try:
        own(path)
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("percent", range(0, 86, 8))
@pytest.mark.parametrize("kind", ["npz", "pictures"])
def test_a_file_cut_anywhere_is_refused(tmp_path: Path, kind: str, percent: int) -> None:
    path = WRITERS[kind](tmp_path, small_arrays())
    file = path if kind == "npz" else tmp_path / PICTURE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * percent // 100])
    assert str(file) in (refusal(path) or "")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_size_beyond_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    arrays = {name: np.zeros_like(array) for name, array in small_arrays().items()}
    path = WRITERS[kind](tmp_path, arrays)
    monkeypatch.setattr(unpacking, "MAX_BYTES", 300)
    message = own_error(path)
    assert str(tmp_path) in message
    assert "at most 300" in message


def test_a_pickle_in_an_array_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object))
    np.save(tmp_path / "y.npy", np.zeros(1))
    assert str(tmp_path / "x.npy") in own_error(tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kind", ["npz", "npy", "idx", "pictures"])
def test_a_label_column_is_refused_where_there_are_no_columns(tmp_path: Path, kind: str) -> None:
    message = own_error(WRITERS[kind](tmp_path, small_arrays()), label_column="class")
    assert str(tmp_path) in message
    assert "--label-column" in message


def jpeg_of_scans(count: int, size: int = 64) -> bytes:
    """A progressive JPEG whose last scan is there so often."""
    file = io.BytesIO()
    Image.new("L", (size, size), 99).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    first, last = content.index(b"\xff\xda"), content.rindex(b"\xff\xda")
    scans = content.count(b"\xff\xda")
    assert (first != last, content[-2:]) == (True, b"\xff\xd9")
    return content[:-2] + content[last:-2] * (count - scans) + content[-2:]


@pytest.mark.parametrize(
    "filler", [b"", b"\xff" * 9, b"\xff\xd0", b"\xff\x01", b"\0\xff\0", b"\xff\x02\xff\xff"]
)
def test_a_jpeg_of_more_scans_than_pictures_have_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filler: bytes
) -> None:
    path = tmp_path / "1.jpg"
    path.write_bytes(jpeg_of_scans(101).replace(b"\xff\xda", filler + b"\xff\xda"))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match=r"1\.jpg: a JPEG of 101 scans.*at most 100.*PNG"):
        read_picture(path)
    with pytest.raises(DataError, match="101 scans"):
        read_batch(path, (64, 64, 1))


def test_a_jpeg_of_as_many_scans_as_may_be_is_read(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg_of_scans(100))
    assert np.unique(read_picture(tmp_path / "1.jpg")).tolist() == [99]


def test_what_looks_like_scans_in_a_comment_or_after_the_end_is_none(tmp_path: Path) -> None:
    file = io.BytesIO()
    image = Image.fromarray(np.full((8, 8), 99, np.uint8))
    image.save(file, "JPEG", comment=b"\xff\xda\0\2" * 5000)
    (tmp_path / "1.jpg").write_bytes(file.getvalue() + b"\xff\xda\0\2" * 5000)
    np.testing.assert_array_equal(read_picture(tmp_path / "1.jpg"), np.asarray(image))


def test_a_megabyte_of_scans_is_refused_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg_of_scans(30_000, 4096))
    began = time.monotonic()
    with pytest.raises(DataError, match="30,000 scans"):
        read_picture(tmp_path / "1.jpg")
    assert time.monotonic() - began < 5


def test_what_is_neither_file_nor_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    assert str(tmp_path / "pipe.npz") in own_error(tmp_path / "pipe.npz")
    write_pictures(tmp_path / "own", small_arrays()["x_train"], LABELS)
    os.mkfifo(tmp_path / "own" / "ant" / "pipe.png")
    assert len(read(tmp_path / "own").images) == 45


@pytest.mark.parametrize("kind", ["npy", "npz", "png", "jpg", "bmp"])
def test_a_pipe_in_place_of_images_to_classify_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{kind}")
    with pytest.raises(DataError, match=rf"pipe\.{kind}: a pipe.*Copy what it gives into a file"):
        read_batch(tmp_path / f"pipe.{kind}", (4, 4, 1))


def test_a_link_to_a_file_is_read_as_that_file(tmp_path: Path) -> None:
    write_npy(tmp_path, small_arrays())
    (tmp_path / "x_train.npy").rename(tmp_path / "elsewhere")
    (tmp_path / "x_train.npy").symlink_to("elsewhere")
    assert len(read(tmp_path).images) == 45
