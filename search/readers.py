"""Reads images and labels from files: arrays, IDX, CSV, and folders of pictures.

Whatever is wrong becomes a `DataError` that names the file. Nothing is unpickled, and what a file
claims to hold is compared with its size and with a limit before memory is taken for it.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import mmap
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.records import DataError
from search.unpacking import MAX_INFLATION, check_archive, check_ends, check_inflation, check_size

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

MAX_CLASSES = 100_000
MAX_CLASS_NAME = 1_000
"""Characters; NumPy keeps all names at the length of the longest."""
MAX_ARRAY_HEADER = 10_000
"""Bytes; as many as NumPy itself reads, but it takes the memory for more before it refuses."""
MAX_PICTURE_PIXELS = 4096 * 4096
MAX_SCANS = 100
"""Of a progressive JPEG, each of which is decoded over the whole picture; encoders write ten."""
MAX_COLUMNS = 200_000
"""Of CSV: 256 by 256 pixels in colour and a label are 196,609."""
MAX_EQUAL_NAMES = 1_000
"""Of columns; pandas gives them others, in time that grows with the square of their number."""
MAX_CSV_HEADER = 8_000_000
"""Characters of its first line; of any, where there are many columns."""
MANY_COLUMNS = 10_000
"""Of CSV: pandas takes kilobytes for each, if it holds text."""
CELLS_AT_ONCE = 2_000_000
"""Of CSV: pandas takes some 25 bytes for each while it reads them, or 40 where they are text."""
ROWS_AT_ONCE = 20
"""Of CSV, at least: where there are many columns, a row costs pandas little beside them."""
FORMATS = (
    "an .npz, .npy or .csv file, or a folder with IDX files, .npy files, train.csv, or a folder "
    "of PNG or JPEG pictures for each class"
)
ARRAY_NAMES = (
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x", "y", "x_test", "y_test"),
    ("images", "labels", "test_images", "test_labels"),
)
"""Sought in this order, in upper or lower case; the last two of each may be missing."""
IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
LABEL_COLUMNS = ("label", "class", "target", "y")
VALIDATION_FOLDERS = ("val", "valid", "validation")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
KINDS_OF_PICTURE = ("PNG", "JPEG")
_MARKER = re.compile(rb"\xff[^\x00-\xbf\xd0-\xd7\xff]")
"""Of a segment of a JPEG: others have no length after them, or libjpeg takes none for theirs."""
_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA


@dataclass(frozen=True, slots=True)
class RawData:
    """What files hold, before shapes, types and labels are checked.

    Attributes:
        images: any dtype, (n, ...); (n, pixels) from CSV.
        labels: any dtype, (n, ...).
        test_images: likewise; None where the files have no test part.
        test_labels: likewise.
        classes: in the order of integer labels; None where nothing names them.
        warnings: one sentence each.
    """

    images: NDArray[Any]
    labels: NDArray[Any]
    test_images: NDArray[Any] | None = None
    test_labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()


def _raw(
    arrays: Sequence[NDArray[Any]],
    classes: tuple[str, ...] | None = None,
    notes: tuple[str, ...] = (),
) -> RawData:
    """From images and labels, and those for testing where there are four arrays."""
    images, labels = arrays[:2]
    test_images, test_labels = arrays[2:] or (None, None)
    return RawData(images, labels, test_images, test_labels, classes, notes)


def read(path: Path, label_column: str | None = None) -> RawData:
    """Reads a file or folder, whose kind is told by its suffix or by the names inside.

    Args:
        path: exists.
        label_column: of CSV; by default the first of `LABEL_COLUMNS` that is there.

    Raises:
        DataError: of no known kind, or missing a part, or damaged.
    """
    kind = path.suffix.lower() if path.is_file() else _kind_of_folder(path)
    if label_column is not None and kind != ".csv":
        raise DataError(f"{path}: only CSV has columns; leave --label-column out.")
    match kind:
        case ".npz":
            return read_npz(path)
        case ".npy":
            return _read_npy(path)
        case ".csv":
            return _read_csv(path, label_column)
        case "idx":
            return read_idx_folder(path)
        case "pictures":
            return _read_pictures(path)
    raise DataError(f"{path}: data of no known kind. Expected {FORMATS}.")


def _kind_of_folder(folder: Path) -> str:
    if not folder.is_dir():
        return ""
    with readable(folder):
        if any(find_idx(folder, name) for name in IDX_NAMES):
            return "idx"
        if (folder / "train.csv").is_file():
            return ".csv"
        if any(folder.glob("*.npy")):
            return ".npy"
        if _visible(folder, Path.is_dir):
            return "pictures"
        names = [f.name for f in _visible(folder, Path.exists)]
    held = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
    raise DataError(f"{folder}: holds {held or 'nothing'}. Expected {FORMATS}.")


@contextmanager
def readable(path: Path, damage: str = "damaged or truncated") -> Iterator[None]:
    """Turns whatever reading a file raises within into a `DataError` that names it.

    Args:
        path: of the file.
        damage: what to call it when neither the system nor memory is to blame.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(
            f"{path}: does not fit in memory. Use a smaller one, or a machine that has more."
        ) from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Check its name and who may read it."
        ) from None
    except Exception as error:  # noqa: BLE001 - what damage raises depends on where it is
        reason = " ".join(str(error).split()).removesuffix(".")[:300]
        raise DataError(f"{path}: {damage} ({reason}). Fetch or make it again.") from None


def _opened(path: Path) -> BinaryIO:
    check_ends(path)
    return path.open("rb")


# NumPy


def read_npz(path: Path) -> RawData:
    """Reads the arrays of one of the `ARRAY_NAMES`, and `classes`, from an archive.

    Raises:
        DataError: damaged, a pickle, too large, or without such arrays.
    """
    with open_npz(path) as arrays:
        stored = {name.lower(): read for name, read in arrays.items()}
        return _from_arrays(path, stored, lambda read: read())


@contextmanager
def open_npz(path: Path) -> Iterator[dict[str, Callable[[], NDArray[Any]]]]:
    """The arrays of an archive by name, each of which is read when it is called.

    Raises:
        DataError: damaged, a pickle, or too large, by what it claims or by what it holds.
    """
    with readable(path), _opened(path) as file, zipfile.ZipFile(file) as archive:
        check_archive(path, archive, ".npy")

        def read_member(member: zipfile.ZipInfo) -> NDArray[Any]:
            with archive.open(member) as file:
                return _array(file, member.file_size)

        yield {
            member.filename.removesuffix(".npy"): partial(read_member, member)
            for member in archive.infolist()
            if member.filename.endswith(".npy")
        }


def _read_npy(path: Path) -> RawData:
    """Reads a folder of .npy files, or the one that is named with its companions beside it."""
    folder = path if path.is_dir() else path.parent
    stored = {file.stem.lower(): file for file in sorted(folder.glob("*.npy"))}
    if folder != path:
        group = next((names for names in ARRAY_NAMES if path.stem.lower() in names), None)
        if group is None:
            raise DataError(
                f"{path}: which array is this? Expected x_train.npy with y_train.npy beside it, "
                "or x.npy with y.npy."
            )
        stored = {name: stored[name] for name in (*group, "classes") if name in stored}

    return _from_arrays(folder, stored, read_array)


def read_array(path: Path) -> NDArray[Any]:
    """Reads the array in an .npy file.

    Raises:
        DataError: damaged, a pickle, or too large.
    """
    with readable(path), _opened(path) as file:
        size = path.stat().st_size
        check_size(path, size)
        return _array(file, size)


def _array(file: Any, size: int) -> NDArray[Any]:
    """Reads an array whose header claims no more than the `size` bytes of its file."""
    form = np.lib.format
    headers = {
        (1, 0): ("<H", form.read_array_header_1_0),
        (2, 0): ("<I", form.read_array_header_2_0),
    }
    version = form.read_magic(file)
    if version not in headers:
        raise ValueError(f"array format {version} is not supported")
    length, read_header = headers[version]
    (claimed,) = struct.unpack(length, file.read(struct.calcsize(length)))
    if claimed > MAX_ARRAY_HEADER:
        raise ValueError(f"its header claims to have {claimed:,} bytes")
    file.seek(0)
    form.read_magic(file)
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they are pickles, which can run code")
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"its header claims an array of {str(dtype)[:60]} {str(shape)[:60]}")
    file.seek(0)
    array: NDArray[Any] = form.read_array(file, allow_pickle=False)
    if dtype.kind == "U" and not _is_text(array):
        raise ValueError("its text is no Unicode")
    return array


def _is_text(array: NDArray[np.str_]) -> bool:
    """Whether Python can make strings of it that can be written: NumPy takes any 4 bytes."""
    points = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    return not bool(((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any())


def _from_arrays(
    where: Path, stored: Mapping[str, T], read_one: Callable[[T], NDArray[Any]]
) -> RawData:
    """Reads the arrays of one of the `ARRAY_NAMES` among those `stored` by lower-case name."""
    groups = [names for names in ARRAY_NAMES if not stored.keys().isdisjoint(names[:2])]
    group = groups[0] if groups else ARRAY_NAMES[0]
    wanted = group if not stored.keys().isdisjoint(group[2:]) else group[:2]
    missing = [name for name in wanted if name not in stored]
    if missing:
        held = ", ".join(stored) or "nothing"
        raise DataError(
            f"{where}: no array {missing[0]!r}; it holds {held[:300]}. "
            f"Expected {', '.join(wanted)}."
        )
    unused = sorted(stored.keys() - {*wanted, "classes"})
    return _raw(
        [read_one(stored[name]) for name in wanted],
        _class_names(where, read_one(stored["classes"])) if "classes" in stored else None,
        (f"{where}: not used: {', '.join(unused)}.",) if unused else (),
    )


def _class_names(where: Path, names: NDArray[Any]) -> tuple[str, ...]:
    distinct = len(set(names.ravel()[: MAX_CLASSES + 1].tolist()))
    if names.dtype.kind != "U" or names.shape != (distinct,) or not distinct:
        raise DataError(
            f"{where}: classes are {names.dtype} {names.shape}; expected one name for each class, "
            "no two the same, as an array of strings of shape (classes,)."
        )
    return tuple(names.tolist())


# IDX


def find_idx(folder: Path, name: str) -> Path | None:
    """Finds an IDX file by the name in `IDX_NAMES` or by one of its variants that circulate.

    These are .gz, a dot before "idx", "test" for "t10k", and "idx4" for images in colour.
    """
    for kind in dict.fromkeys((name, name.replace("idx3", "idx4"))):
        for part in dict.fromkeys((kind, kind.replace("t10k", "test"))):
            for spelling in (part, part.replace("-idx", ".idx")):
                for file in (folder / spelling, folder / f"{spelling}.gz"):
                    if file.is_file():
                        return file
    return None


def read_idx_folder(folder: Path) -> RawData:
    """Reads images and labels, and those for testing where there are any.

    Raises:
        DataError: one of them is missing or damaged.
    """
    found = {name: find_idx(folder, name) for name in IDX_NAMES}
    wanted = IDX_NAMES if any(found[name] for name in IDX_NAMES[2:]) else IDX_NAMES[:2]
    paths = [path for name in wanted if (path := found[name])]
    if len(paths) < len(wanted):
        missing = next(name for name in wanted if not found[name])
        raise DataError(
            f"{folder / missing}[.gz]: no such file. Put it there: images and labels come in pairs."
        )
    return _raw([_read_idx(path) for path in paths])


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes (format: LeCun's MNIST page), gzipped or not."""
    dimensions = int(path.name.partition("idx")[2][0])
    zipped = path.suffix == ".gz"
    with readable(path), gzip.open(path) if zipped else path.open("rb") as file:
        header = file.read(4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions:
            raise DataError(f"{path}: truncated in its header. Fetch or make it again.")
        if header[:4] != bytes((0, 0, 8, dimensions)):
            raise DataError(
                f"{path}: not an IDX file of {dimensions}-dimensional unsigned bytes "
                f"(it begins with {header[:4].hex()}). Are images and labels swapped?"
            )
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
        size, stored = math.prod(shape), path.stat().st_size
        check_size(path, size)
        if zipped:
            check_inflation(path, size, stored)
        body = file.read(min(size, stored * MAX_INFLATION if zipped else stored) + 1)
        if len(body) != size:
            found = "more" if len(body) > size else f"{len(body):,}"
            raise DataError(
                f"{path}: its header promises {size:,} bytes, it holds {found}. Fetch or make it "
                "again."
            )
        return np.frombuffer(body, np.uint8).reshape(shape)


# CSV


def _read_csv(path: Path, label_column: str | None) -> RawData:
    """Reads a file, or train.csv and, if it is there, test.csv of a folder."""
    train = path / "train.csv" if path.is_dir() else path
    test = path / "test.csv"
    names = _column_names(train)
    column = _label_column(train, names, label_column)
    pixels = [name for name in names if name != column]
    arrays = [_pixels(train, names, pixels), _labels(train, names.index(column))]
    if test.is_file():
        names = _column_names(test)
        if column not in names:
            raise DataError(
                f"{test}: no column {column!r}, but a test part needs labels too. Without them, "
                f"give {train} alone: a fifth of it is then set aside."
            )
        if set(names) != {*pixels, column}:
            raise DataError(f"{test}: its columns are not those of {train}; both need the same.")
        arrays += [_pixels(test, names, pixels), _labels(test, names.index(column))]
    return _raw(arrays)


@contextmanager
def _open_csv(path: Path) -> Iterator[Callable[..., Any]]:
    """What reads the file once, with pandas' options."""
    import pandas as pd

    with (
        readable(path),
        path.open(encoding="utf-8", newline="") as file,
        warnings.catch_warnings(),
    ):
        # pandas would only warn where all rows are longer than the header.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Nothing counts as missing: a class may be called "NA", and a pixel may not be.
        options: Any = {"index_col": False, "keep_default_na": False, "low_memory": False}
        yield lambda **more: pd.read_csv(file, **options, **more)


def _column_names(path: Path) -> list[str]:
    with readable(path):
        check_size(path, path.stat().st_size)
        _check_csv_header(path)
    with _open_csv(path) as read_csv:
        return [str(name) for name in read_csv(nrows=0).columns]


def _check_csv_header(path: Path) -> None:
    """Refuses a first line for which pandas would take minutes."""
    with path.open(encoding="utf-8", newline="") as file:
        head = io.StringIO(file.read(MAX_CSV_HEADER), newline="")
        is_whole = not file.read(1)
    if not head.getvalue():
        raise DataError(f"{path}: empty; expected a line of names, then one for each image.")
    lines = csv.reader(head)
    names: list[str] = next((row for row in lines if any(map(str.strip, row))), [])
    if len(names) > MAX_COLUMNS or (not is_whole and head.tell() >= MAX_CSV_HEADER):
        raise DataError(
            f"{path}: {len(names):,} columns or more; at most {MAX_COLUMNS:,} are read. Use "
            "smaller images, or another format: .npz, .npy, IDX or pictures."
        )
    again = len(names) - len(set(names))
    if again > MAX_EQUAL_NAMES:
        raise DataError(
            f"{path}: {again:,} columns have the name of another one; give each its own, as in p0, "
            "p1, p2."
        )
    first = next(lines, [])
    if 0 < len(first) < len(names) and (is_whole or head.tell() < MAX_CSV_HEADER):
        raise _no_number(path, 1, names[len(first)], "")


def _label_column(path: Path, names: Sequence[str], wanted: str | None) -> str:
    column = wanted or next((name for name in LABEL_COLUMNS if name in names), None)
    if column in names:
        return str(column)
    sought = repr(wanted) if wanted else " or ".join(map(repr, LABEL_COLUMNS))
    held = ", ".join(name[:40] for name in names[:8]) + (
        f" and {len(names) - 8} more" if len(names) > 8 else ""
    )
    raise DataError(
        f"{path}: no column {sought}; its first line names {held}. "
        "Say which one holds the classes with --label-column."
    )


def _labels(path: Path, position: int) -> NDArray[Any]:
    """The column at that position: all of it decides whether its labels are numbers or text."""
    with _open_csv(path) as read_csv:
        labels: NDArray[Any] = read_csv(usecols=[position]).iloc[:, 0].to_numpy()
    if labels.dtype.kind != "O":
        return labels
    for row, label in enumerate(labels, 1):
        if len(str(label)) > MAX_CLASS_NAME:
            raise DataError(
                f"{path}: row {row} has a label of {len(str(label)):,} characters; the name of a "
                f"class has at most {MAX_CLASS_NAME:,}. Say which column holds the classes with "
                "--label-column."
            )
    return labels.astype(str)


def _pixels(path: Path, names: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    """The pixels as (n, wanted): uint8 where all are whole numbers from 0 to 255.

    Args:
        path: of the file.
        names: of its columns.
        wanted: those that hold pixels, in the order that they are to have; all but one.
    """
    places = {name: place for place, name in enumerate(names)}
    order = [places[name] for name in wanted]
    parts: list[NDArray[Any]] = []
    if len(names) > MANY_COLUMNS:
        _check_rows(path, names, set(order))
    with (
        _open_csv(path) as read_csv,
        read_csv(chunksize=max(ROWS_AT_ONCE, CELLS_AT_ONCE // len(names))) as tables,
    ):
        for table in tables:
            part = _pixels_of(path, table, order, sum(map(len, parts)))
            parts.append(part)
            widest = max(part.itemsize for part in parts)
            check_size(path, sum(part.size for part in parts) * widest)
    if not sum(map(len, parts)):
        raise DataError(f"{path}: a header without rows; expected one for each image.")
    return np.concatenate(parts)


def _check_rows(path: Path, names: Sequence[str], order: Container[int]) -> None:
    """Refuses what would give pandas columns of text: a row too short, or a word in it."""
    with readable(path), path.open(encoding="utf-8", newline="") as file:
        lines = iter(lambda: file.readline(MAX_CSV_HEADER), "")
        rows = (row for row in csv.reader(lines) if any(map(str.strip, row)))
        next(rows, None)
        for number, row in enumerate(rows, 1):
            cells = row + [""] * (len(names) - len(row))
            for place, cell in enumerate(cells[: len(names)]):
                if place in order and not _is_number(cell):
                    raise _no_number(path, number, names[place], cell)


def _is_number(cell: str) -> bool:
    """Whether pandas may take it for one, as it does yes and no."""
    try:
        float(cell)
    except ValueError:
        return cell.strip().lower() in ("true", "false")
    return True


def _pixels_of(path: Path, table: pd.DataFrame, order: list[int], before: int) -> NDArray[Any]:
    """The pixels of some rows of a file, `before` which there were so many; changes the table."""
    import pandas as pd

    [label] = set(range(table.shape[1])) - set(order)
    table.isetitem(label, 0)
    # Each access to a column takes kilobytes, so that only those of text are looked at.
    kinds = [dtype.kind for dtype in table.dtypes]
    for place in (place for place in order if kinds[place] not in "biuf"):
        texts = table.iloc[:, place]
        numbers = pd.to_numeric(texts, errors="coerce")
        wrong = np.flatnonzero(numbers.isna())
        if len(wrong):
            name, value = str(table.columns[place]), str(texts.iloc[wrong[0]])
            raise _no_number(path, before + int(wrong[0]) + 1, name, value)
        table.isetitem(place, numbers.to_numpy())
    pixels = table.to_numpy(dtype=np.float64)[:, order]
    if pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        whole = pixels.astype(np.uint8)
        if np.array_equal(whole, pixels):
            return whole
    return pixels


def _no_number(path: Path, row: int, column: str, value: str) -> DataError:
    return DataError(
        f"{path}: row {row}, column {column[:40]!r} holds {value[:40]!r}; every column but the "
        "labels must be a pixel, a number in every row."
    )


# Pictures


def _read_pictures(root: Path) -> RawData:
    """Reads root/<class>/ or root/train/<class>/ and, if it is there, root/test/<class>/."""
    parts = [root]
    if (root / "train").is_dir() and _visible(root / "train", Path.is_dir):
        names = ("train", *VALIDATION_FOLDERS, "test")
        parts = [root / name for name in names if (root / name).is_dir()]
    files = [
        (file, folder.name, part.name == "test" and part != root)
        for part in parts
        for folder in _class_folders(part)
        for file in _pictures_in(folder)
    ]
    classes = tuple(sorted({name for _, name, for_test in files if not for_test}))
    images, colour = _stacked([file for file, _, _ in files])
    labels = np.array([name for _, name, _ in files])
    test = np.array([for_test for _, _, for_test in files])
    arrays = [images[~test], labels[~test]]
    if test.any():
        arrays += [images[test], labels[test]]
    return _raw(arrays, classes, (*_notes(parts), *colour))


def _visible(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    return sorted(f for f in folder.iterdir() if not f.name.startswith(".") and wanted(f))


def _class_folders(part: Path) -> list[Path]:
    with readable(part):
        folders = _visible(part, Path.is_dir)
    if not folders:
        raise DataError(f"{part}: expected a folder for each class in it, found none.")
    return folders


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()


def _pictures_in(folder: Path) -> list[Path]:
    with readable(folder):
        pictures = _visible(folder, _is_picture)
    if not pictures:
        raise DataError(
            f"{folder}: no PNG or JPEG in this folder of a class. Remove it if it is none."
        )
    return pictures


def _notes(parts: Sequence[Path]) -> Iterator[str]:
    """Says what was merged and what was left out."""
    for part in parts[1:]:
        if part.name in VALIDATION_FOLDERS:
            yield (
                f"{part} was merged with {parts[0]}: train and validation are drawn from both, "
                "anew for every seed."
            )
    folders = [folder for part in parts for folder in _class_folders(part)]
    others = [f for folder in folders for f in _visible(folder, lambda f: not _is_picture(f))]
    if others:
        yield f"{len(others):,} files that are no PNG or JPEG were left out, such as {others[0]}."


def _stacked(files: Sequence[Path]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Pictures of one size as (n, h, w) where all are grey, else (n, h, w, 3) and a warning."""
    pictures: list[NDArray[np.uint8]] = []
    for file in files:
        picture = read_picture(file)
        pictures.append(picture)
        check_size(file.parents[1], picture.nbytes * len(files))
        if picture.shape[:2] != pictures[0].shape[:2]:
            (height, width), (other_height, other_width) = pictures[0].shape[:2], picture.shape[:2]
            raise DataError(
                f"{file} is {other_height} by {other_width} pixels but {files[0]} is {height} by "
                f"{width}; resize all pictures to one size first."
            )
    grey = [picture.ndim == 2 for picture in pictures]
    if all(grey):
        return np.stack(pictures), ()
    coloured = [
        np.broadcast_to(p[..., np.newaxis], (*p.shape, 3)) if p.ndim == 2 else p for p in pictures
    ]
    note = f"{sum(grey):,} of {len(files):,} pictures are grey and were converted to RGB."
    return np.stack(coloured), (note,) if any(grey) else ()


def read_picture(
    path: Path, kinds: Sequence[str] = KINDS_OF_PICTURE, mode: str | None = None
) -> NDArray[np.uint8]:
    """A picture as uint8 (h, w) if it is grey, else (h, w, 3).

    What is transparent shows white behind it, as on a page; palettes and CMYK become RGB.

    Args:
        path: of the file.
        kinds: formats that it may have, as Pillow calls them.
        mode: "L" for grey or "RGB"; None for grey where it is stored so.

    Raises:
        DataError: damaged, of another format, too large, of 16 bits per channel, or of too many
            scans.
    """
    with readable(path, "damaged, or not what its suffix says"), _pillow(path) as pillow:
        check_ends(path)
        _check_scans(path)
        with pillow.open(path, formats=tuple(kinds)) as image:
            if image.width * image.height > MAX_PICTURE_PIXELS:
                raise pillow.DecompressionBombError(f"{image.width:,} by {image.height:,} pixels")
            image.verify()  # the checksums, which decoding does not look at
        with pillow.open(path, formats=tuple(kinds)) as image:
            # Pillow's mode does not tell that of colours it would cut off the lower 8 bits.
            if any(";16" in str(tile) for tile in image.tile):
                raise DataError(f"{path}: has 16 bits per channel; convert the pictures to 8 bits.")
            wanted = mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
            if not image.has_transparency_data:
                return np.asarray(image.convert(wanted))
            solid = image.convert("RGBA")
            page = pillow.new("RGBA", solid.size, "white")
            return np.asarray(pillow.alpha_composite(page, solid).convert(wanted))


def _check_scans(path: Path) -> None:
    """Refuses a JPEG whose scans would take minutes: a few bytes are a scan of all pixels."""
    with path.open("rb") as file:
        if file.read(2) != bytes((0xFF, _START_OF_IMAGE)):
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            scans = sum(marker == _START_OF_SCAN for marker in _markers(content))
    if scans > MAX_SCANS:
        raise DataError(
            f"{path}: a JPEG of {scans:,} scans, each of which is decoded over the whole picture; "
            f"at most {MAX_SCANS} are read. Save the picture again, or as PNG."
        )


def _markers(content: mmap.mmap) -> Iterator[int]:
    """The markers of a JPEG from its first segment to its end, as libjpeg finds them."""
    position = 2
    while (found := _MARKER.search(content, position)) is not None:
        marker, position = content[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            return
        yield marker
        position += int.from_bytes(content[position : position + 2], "big")


@contextmanager
def _pillow(path: Path) -> Iterator[Any]:
    """Pillow, with a picture that is far too large refused by its header."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield Image
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(
                f"{path}: too large a picture, or a decompression bomb ({error}); at most "
                f"{MAX_PICTURE_PIXELS:,} pixels are read. Resize it first."
            ) from None
