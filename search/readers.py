"""Reads images and labels from files: arrays, IDX, CSV, and folders of pictures.

Whatever is wrong becomes a `DataError` that names the file. Nothing is unpickled, and no file is
believed that claims more than `MAX_BYTES`.
"""

from __future__ import annotations

import gzip
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from search.records import DataError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

MAX_CLASSES = 100_000
MAX_BYTES = 4 << 30
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
        raise DataError(f"{path}: does not fit in memory.") from None
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except Exception as error:  # noqa: BLE001 - what damage raises depends on where it is
        reason = " ".join(str(error).split()).removesuffix(".")
        raise DataError(f"{path}: {damage} ({reason}).") from None


def _limit(path: Path, size: int) -> None:
    if size > MAX_BYTES:
        raise DataError(
            f"{path}: claims {size:,} bytes; at most {MAX_BYTES:,}. Use fewer or smaller images."
        )


# NumPy


def read_npz(path: Path) -> RawData:
    """Reads the arrays of one of the `ARRAY_NAMES`, and `classes`, from an archive.

    Raises:
        DataError: damaged, a pickle, or without such arrays.
    """
    with readable(path), zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        _limit(path, sum(member.file_size for member in members))

        def read_member(member: zipfile.ZipInfo) -> NDArray[Any]:
            with archive.open(member) as file:
                return _array(file)

        stored = {m.filename.removesuffix(".npy").lower(): m for m in members}
        return _from_arrays(path, stored, read_member)


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

    def read_file(file: Path) -> NDArray[Any]:
        with readable(file), file.open("rb") as opened:
            _limit(file, file.stat().st_size)
            return _array(opened)

    return _from_arrays(folder, stored, read_file)


def _array(file: Any) -> NDArray[Any]:
    """Reads an array whose header claims no more than there can be."""
    form = np.lib.format
    headers = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    version = form.read_magic(file)
    if version not in headers:
        raise ValueError(f"array format {version} is not supported")
    shape, _, dtype = headers[version](file)
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize > MAX_BYTES:
        raise ValueError(f"its header claims an array of {dtype} {shape}")
    file.seek(0)
    array: NDArray[Any] = form.read_array(file, allow_pickle=False)
    return array


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
        raise DataError(f"{where}: no array {missing[0]!r}; it holds {held}.")
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
        raise DataError(f"{folder / missing}[.gz]: no such file.")
    return _raw([_read_idx(path) for path in paths])


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes (format: LeCun's MNIST page), gzipped or not."""
    dimensions = int(path.name.partition("idx")[2][0])
    with (
        readable(path),
        gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file,
    ):
        header = file.read(4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions:
            raise DataError(f"{path}: truncated in its header.")
        if header[:4] != bytes((0, 0, 8, dimensions)):
            raise DataError(
                f"{path}: not an IDX file of {dimensions}-dimensional unsigned bytes "
                f"(it begins with {header[:4].hex()}). Are images and labels swapped?"
            )
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
        size = int(np.prod(shape, dtype=object))
        _limit(path, size)
        body = file.read(size + 1)
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body):,}"
        raise DataError(f"{path}: its header promises {size:,} bytes, it holds {found}.")
    return np.frombuffer(body, np.uint8).reshape(shape)


# CSV


def _read_csv(path: Path, label_column: str | None) -> RawData:
    """Reads a file, or train.csv and, if it is there, test.csv of a folder."""
    train = path / "train.csv" if path.is_dir() else path
    test = path / "test.csv"
    table = _table(train)
    column = _label_column(train, table, label_column)
    pixels = [name for name in table.columns if name != column]
    arrays = [_pixels(train, table, pixels), _labels(table, column)]
    if test.is_file():
        table = _table(test)
        if column not in table.columns:
            raise DataError(
                f"{test}: no column {column!r}, but a test part needs labels too. Without them, "
                f"give {train} alone: a fifth of it is then set aside."
            )
        if set(table.columns) != {*pixels, column}:
            raise DataError(f"{test}: its columns are not those of {train}.")
        arrays += [_pixels(test, table, pixels), _labels(table, column)]
    return _raw(arrays)


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    with readable(path), path.open(encoding="utf-8", newline="") as file:
        _limit(path, path.stat().st_size)
        if not path.stat().st_size:
            raise DataError(f"{path}: empty.")
        with warnings.catch_warnings():
            # pandas would only warn where all rows are longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # Nothing counts as missing: a class may be called "NA", and a pixel may not be.
            table = pd.read_csv(file, index_col=False, keep_default_na=False, low_memory=False)
    if table.empty:
        raise DataError(f"{path}: a header without rows.")
    return table


def _label_column(path: Path, table: pd.DataFrame, wanted: str | None) -> str:
    names = [str(name) for name in table.columns]
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


def _labels(table: pd.DataFrame, column: str) -> NDArray[Any]:
    labels = table[column].to_numpy()
    return labels.astype(str) if labels.dtype.kind == "O" else labels


def _pixels(path: Path, table: pd.DataFrame, columns: list[str]) -> NDArray[Any]:
    """The pixels as (n, columns): uint8 where all are whole numbers from 0 to 255."""
    import pandas as pd

    numbers = table[columns].copy()
    for name in (name for name in columns if table[name].dtype.kind not in "biuf"):
        numbers[name] = pd.to_numeric(table[name], errors="coerce")
        wrong = np.flatnonzero(numbers[name].isna())
        if len(wrong):
            raise DataError(
                f"{path}: row {wrong[0] + 1}, column {name!r} holds "
                f"{str(table[name].iloc[wrong[0]])[:40]!r}; every column but the labels must be "
                "a pixel, a number in every row."
            )
    pixels = numbers.to_numpy(dtype=np.float64)
    if pixels.size and pixels.min() >= 0 and pixels.max() <= 255:
        whole = pixels.astype(np.uint8)
        if np.array_equal(whole, pixels):
            return whole
    return pixels


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
        picture = _picture(file)
        pictures.append(picture)
        _limit(file.parents[1], picture.nbytes * len(files))
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


def _picture(path: Path) -> NDArray[np.uint8]:
    """A PNG or JPEG as uint8 (h, w) if it is stored grey, else (h, w, 3).

    What is transparent shows white behind it, as on a page; palettes and CMYK become RGB.
    """
    from PIL import Image

    with readable(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=KINDS_OF_PICTURE) as image:
            image.verify()  # the checksums, which decoding does not look at
        with Image.open(path, formats=KINDS_OF_PICTURE) as image:
            # Pillow's mode does not tell that of colours it would cut off the lower 8 bits.
            if any(";16" in str(tile) for tile in image.tile):
                raise DataError(f"{path}: has 16 bits per channel; convert the pictures to 8 bits.")
            mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
            if not image.has_transparency_data:
                return np.asarray(image.convert(mode))
            solid = image.convert("RGBA")
            page = Image.new("RGBA", solid.size, "white")
            return np.asarray(Image.alpha_composite(page, solid).convert(mode))
