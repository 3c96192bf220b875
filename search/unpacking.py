"""What a file may become when it is unpacked: refused by what it claims, before it takes memory."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

from search.records import DataError

MAX_BYTES = 4 << 30
"""Unless `LIMIT_VARIABLE` says otherwise."""
LIMIT_VARIABLE = "PODIUM_MAX_DATA_GIB"
MAX_INFLATION = 1032
"""What deflate can make of one byte (zlib's technical notes, "Maximum Compression Factor")."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy and Keras write; of others Python's zipfile unpacks more at once than is asked for."""


def max_bytes() -> int:
    """How much a file may hold once it is unpacked.

    Raises:
        DataError: `LIMIT_VARIABLE` is set to what is no number of GiB.
    """
    text = os.environ.get(LIMIT_VARIABLE, "")
    if not text:
        return MAX_BYTES
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not 0 < gib <= 1 << 20:
        raise DataError(f"{LIMIT_VARIABLE} is {text!r}: expected a number of GiB above 0, as in 8.")
    return int(gib * (1 << 30))


def is_endless(path: Path) -> bool:
    """Whether it may be waited on or read for ever: a pipe, a socket, a device.

    Raises:
        OSError: nobody can tell.
    """
    return path.exists() and not (path.is_file() or path.is_dir())


def check_ends(path: Path) -> None:
    """Refuses what is neither a file nor a folder, nor a link to one.

    Raises:
        DataError: it is something else.
        OSError: nobody can tell.
    """
    if is_endless(path):
        raise DataError(
            f"{path}: a pipe, a socket or a device, not a file. Copy what it gives into a file."
        )


def check_size(path: Path, size: int) -> None:
    """Refuses what would take too much memory.

    Args:
        path: of the file.
        size: bytes that it claims to hold once it is unpacked.

    Raises:
        DataError: more than `max_bytes`.
    """
    limit = max_bytes()
    if size > limit:
        raise DataError(
            f"{path}: claims {size:,} bytes; at most {limit:,} are read. Use a smaller one, or set "
            f"{LIMIT_VARIABLE} to more GiB where there is memory for it."
        )


def check_inflation(path: Path, size: int, compressed: int) -> None:
    """Refuses what deflated bytes cannot become.

    Args:
        path: of the file.
        size: bytes that it claims to hold.
        compressed: bytes that are there.

    Raises:
        DataError: it claims too much.
    """
    if size > MAX_INFLATION * (compressed + 1):
        raise DataError(
            f"{path}: damaged or truncated (it claims {size:,} bytes, more than {compressed:,} "
            "compressed ones can hold). Fetch or make it again."
        )


def check_archive(path: Path, archive: zipfile.ZipFile, suffix: str = "") -> None:
    """Refuses an archive that claims too much, in all or of some member.

    Python's zipfile gives out no more of a member than it claims.

    Args:
        path: to name in messages.
        archive: opened.
        suffix: only members whose names end so will be read.

    Raises:
        DataError: it claims too much, or is compressed in an unusual way.
    """
    members = [member for member in archive.infolist() if member.filename.endswith(suffix)]
    check_size(path, sum(member.file_size for member in members))
    for member in members:
        if member.compress_type not in METHODS:
            raise DataError(
                f"{path}: {member.filename[:60]!r} in it is compressed in an unusual way; expected "
                "deflate, as by numpy.savez_compressed."
            )
        check_inflation(path, member.file_size, member.compress_size)


def check_package(path: Path) -> None:
    """Refuses a `.keras` file that claims too much; what is no archive is left to Keras.

    Raises:
        DataError: likewise.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_archive(path, archive)
