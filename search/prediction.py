"""Reads the images that a registered model is to classify, and puts its answers into rows."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.loading import Predicted
from search.readers import open_npz, read_array, read_picture
from search.records import DataError
from search.registry import Card
from search.unpacking import check_size

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
KINDS_OF_PICTURE = ("PNG", "JPEG", "BMP")
ARRAY_NAMES = ("images", "x", "x_test")
"""Sought in this order in an .npz that holds several arrays."""
MODES = {1: "L", 3: "RGB"}
KINDS = "PNG, JPEG or BMP pictures, .npy or .npz"
FAR = 1.5
"""How much greater a pixel may be than all that the model was tried on before that is said."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The images of one file.

    Attributes:
        images: float32 (n, h, w, c), pixels as they are in the file.
        note: what is worth saying of how they were read; "" for nothing.
    """

    path: Path
    images: NDArray[np.float32]
    note: str = ""


def read_batch(path: Path, shape: tuple[int, int, int]) -> Batch:
    """Reads a picture, or the images in an .npy or .npz file.

    A picture's colours become what the model takes: grey or RGB. Nothing is unpickled.

    Args:
        path: of the file.
        shape: height, width and channels of the model's images.

    Raises:
        DataError: it cannot be read, or its images are of another size.
    """
    kind = path.suffix.lower()
    if os.path.isdir(path):
        raise DataError(f"{path}: is a folder; name the files in it, as in {path}/*.png.")
    if kind in PICTURE_SUFFIXES:
        return Batch(path, _fitting(path, _picture(path, shape[2]), shape))
    if kind == ".npy":
        return Batch(path, _fitting(path, read_array(path), shape))
    if kind == ".npz":
        name, array = _named_array(path)
        return Batch(path, _fitting(path, array, shape), f"{path}: array {name!r} is used.")
    raise DataError(f"{path}: images of no known kind. Expected {KINDS}.")


def _picture(path: Path, channels: int) -> NDArray[np.uint8]:
    """A picture as uint8 (h, w, channels); what is transparent shows white behind it."""
    if channels not in MODES:
        raise DataError(
            f"{path}: the model takes images of {channels} channels, a picture has 1 or 3. "
            "Expected .npy or .npz."
        )
    pixels = read_picture(path, KINDS_OF_PICTURE, MODES[channels])
    return pixels.reshape(*pixels.shape[:2], channels)


def _named_array(path: Path) -> tuple[str, NDArray[Any]]:
    with open_npz(path) as arrays:
        known = [name for name in ARRAY_NAMES if name in arrays]
        if len(arrays) != 1 and not known:
            held = ", ".join(arrays) or "nothing"
            raise DataError(
                f"{path}: which array? It holds {held}; expected one array, or one of the name "
                f"{', '.join(ARRAY_NAMES)}."
            )
        name = known[0] if known else next(iter(arrays))
        return name, arrays[name]()


def _fitting(path: Path, array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """One image or a batch of them as float32 (n, h, w, c)."""
    height, width, channels = shape
    shapes = (shape, shape[:2]) if channels == 1 else (shape,)
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {array.dtype}; expected numbers, the pixels.")
    if array.shape not in shapes and array.shape[1:] not in shapes:
        found = " by ".join(map(str, array.shape)) or "a single number"
        raise DataError(
            f"{path}: its images are {found}; the model takes {height} by {width} by {channels} "
            "(height, width, channels), one of them or a batch. Resize them first."
        )
    check_size(path, 4 * array.size)
    with np.errstate(over="ignore"):
        images = np.asarray(array.reshape(-1, *shape), np.float32)
    if not len(images):
        raise DataError(f"{path}: holds no images.")
    if not np.isfinite(images).all():
        first = int(np.argmax(~np.isfinite(images).all(axis=(1, 2, 3))))
        raise DataError(f"{path}: image {first} has pixels that are not finite numbers.")
    return images


def doubtful_pixels(batches: Sequence[Batch], predicted: Predicted) -> str | None:
    """A sentence where a file's pixels are not in the range that the model was made for, or None.

    Args:
        batches: as they were classified.
        predicted: from them.
    """
    if predicted.pixel_range is None:
        return None
    known = predicted.pixel_range[1]
    greatest = [(float(batch.images.max()), batch.path) for batch in batches]
    doubtful = [(most, path) for most, path in greatest if _is_far(most, known)]
    if not doubtful:
        return None
    most, path = doubtful[0]
    others = len(doubtful) - 1
    which = "" if not others else f" (as in {others} other file{'s' if others > 1 else ''})"
    return (
        f"{path}: pixels go up to {most:g} here{which}, those that the model was made for up to "
        f"{known:g}: if they were scaled, scale them back, or do not rely on this."
    )


def _is_far(greatest: float, known: float) -> bool:
    scaled_down = 0 < greatest <= 1 and known > 2
    return greatest > FAR * known or scaled_down


def rows(
    batches: Sequence[Batch], predicted: Predicted, card: Card, top: int
) -> list[dict[str, Any]]:
    """One row for each image: its file and place in it, and the most probable classes.

    Args:
        batches: in the order of the probabilities.
        predicted: for all their images.
        card: names the classes.
        top: how many classes.
    """
    count = predicted.probabilities.shape[1]
    names = card.classes if len(card.classes) == count else tuple(map(str, range(count)))
    places = [(str(batch.path), i) for batch in batches for i in range(len(batch.images))]
    found = []
    for (path, index), probabilities in zip(places, predicted.probabilities, strict=True):
        row: dict[str, Any] = {"file": path, "index": index}
        best = np.argsort(-probabilities, kind="stable")[: min(top, count)]
        for rank, position in enumerate(best, 1):
            suffix = "" if rank == 1 else f"_{rank}"
            value = float(probabilities[position])
            row[f"class{suffix}"] = names[position]
            row[f"probability{suffix}"] = value if math.isfinite(value) else None
        found.append(row)
    return found
