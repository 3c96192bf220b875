"""Coverage-guided fuzzing of the readers: `python -m tests.fuzz --seconds 600 [--reader idx]`.

Each reader gets files made of bytes that libFuzzer (atheris) changes as long as that reaches new
code; what is read goes through `checked` as well. A finding is anything but data or a `DataError`,
more than `HANG_SECONDS` for one input, or memory beyond a limit. It ends with exit code 1, and the
input is kept.

Ten minutes for all and 100 s more for IDX, on two busy cores: 53,848 inputs (IDX 33,217, .npy
10,572, .npz 6,777, CSV 3,282). Two findings, both mended and each a test in `test_unpacking`: text
that is no Unicode, and an IDX file of no images whose other sizes are huge.
"""

from __future__ import annotations

import argparse
import gzip
import io
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

HANG_SECONDS = 5
RESIDENT_MB = 1500
"""Of the whole process, of which pandas, scikit-learn and atheris take some 400."""
ALLOCATION_MB = 600
MOST_BYTES = 32_768
SPARE_SECONDS = 120
"""For starting, and for the last input."""

Write = Callable[[Path, bytes, bytes, int], Path]


def parts_of(content: bytes) -> tuple[bytes, bytes, int]:
    """Two files and a number for what is done to them, from one input."""
    kind, length = struct.unpack("<BH", content[:3].ljust(3, b"\0"))
    return content[3 : 3 + length], content[3 + length :], kind


def whole(first: bytes, second: bytes = b"", kind: int = 0) -> bytes:
    """The input that `parts_of` takes apart."""
    return struct.pack("<BH", kind, len(first)) + first + second


def write_idx(folder: Path, images: bytes, labels: bytes, kind: int) -> Path:
    """Images and labels, plain, gzipped, or as files that only claim to be gzipped."""
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    for name, content in zip(names, (images, labels), strict=True):
        suffix = ".gz" if kind % 3 else ""
        stored = gzip.compress(content, 1) if kind % 3 == 1 else content
        (folder / f"{name}{suffix}").write_bytes(stored)
    return folder


def write_npy(folder: Path, images: bytes, labels: bytes, kind: int) -> Path:
    """Two arrays, or names of classes as a third."""
    (folder / "x.npy").write_bytes(images)
    (folder / "y.npy").write_bytes(labels)
    if kind % 2:
        (folder / "classes.npy").write_bytes(labels)
    return folder


def write_npz(folder: Path, images: bytes, labels: bytes, kind: int) -> Path:
    """A sound archive of two members, or an archive that is not sound."""
    path = folder / "own.npz"
    if kind % 3 == 0:
        path.write_bytes(images + labels)
        return path
    method = zipfile.ZIP_DEFLATED if kind % 3 == 1 else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", images)
        archive.writestr("y.npy", labels)
    return path


def write_csv(folder: Path, train: bytes, test: bytes, kind: int) -> Path:
    """One file, or one for training and one for testing."""
    if kind % 2 == 0:
        path = folder / "own.csv"
        path.write_bytes(train + test)
        return path
    (folder / "train.csv").write_bytes(train)
    (folder / "test.csv").write_bytes(test)
    return folder


WRITERS: dict[str, Write] = {
    "idx": write_idx,
    "npy": write_npy,
    "npz": write_npz,
    "csv": write_csv,
}


def seeds(reader: str) -> list[bytes]:
    """Sound inputs to begin with."""
    import numpy as np

    images = np.arange(20 * 4, dtype=np.uint8).reshape(20, 2, 2)
    labels = np.tile(np.arange(2, dtype=np.uint8), 10)
    if reader == "csv":
        rows = [f"{n % 2},{n},0,{n}.5,1" for n in range(20)]
        text = "\n".join(["label,a,b,c,d", *rows]).encode()
        words = text.replace(b"\n0", b'\n"a"').replace(b"\n1", b"\nbe")
        return [whole(text), whole(words), whole(text, text, 1), whole(b"label,a\n0,-1e9\n")]
    if reader == "idx":
        made = [
            bytes((0, 0, 8, a.ndim)) + struct.pack(f">{a.ndim}I", *a.shape) + a.tobytes()
            for a in (images, labels)
        ]
        return [whole(*made, kind) for kind in range(2)] + [
            whole(*(gzip.compress(part, 1) for part in made), 2)
        ]

    def saved(array: object) -> bytes:
        file = io.BytesIO()
        np.save(file, np.asarray(array))
        return file.getvalue()

    pairs = [
        (saved(images), saved(labels)),
        (saved(images.astype(np.float32)), saved(np.eye(2)[labels])),
        (saved(images.reshape(20, 4)), saved(labels.astype(str))),
    ]
    found = [whole(*pair, kind) for pair in pairs for kind in (1, 2)]
    if reader == "npz":
        file = io.BytesIO()
        np.savez_compressed(file, x=images, y=labels)
        found.append(whole(file.getvalue()))
    return found


def attempt(reader: str, content: bytes, folder: Path) -> bool:
    """Whether an input is data; anything but a `DataError` passes through."""
    from search.arrays import checked
    from search.readers import read
    from search.records import DataError

    for old in folder.iterdir():
        old.unlink()
    path = WRITERS[reader](folder, *parts_of(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            checked(str(path), read(path), None)
        except DataError:
            return False
    return True


def _fuzz_here(reader: str, kept: Path, options: list[str]) -> None:
    """Lets libFuzzer run, which ends the process."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["search", "zipfile", "gzip"]):
        import search.arrays
        import search.readers  # noqa: F401
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:

        def target(content: bytes) -> None:
            try:
                attempt(reader, content, Path(name))
            except BaseException:
                (kept / f"{reader}-exception").write_bytes(content)
                raise

        atheris.Setup([sys.argv[0], *options], target)
        atheris.Fuzz()


def fuzz(reader: str, seconds: int, kept: Path) -> tuple[int, int, str]:
    """Fuzzes one reader in a process of its own.

    Args:
        reader: of `WRITERS`.
        seconds: for how long.
        kept: folder for the input of a finding.

    Returns:
        Inputs that were tried, the exit code (0: no finding), and the last lines that it wrote.
    """
    with tempfile.TemporaryDirectory() as name:
        for number, content in enumerate(seeds(reader)):
            (Path(name) / str(number)).write_bytes(content)
        limits = f"-timeout={HANG_SECONDS} -rss_limit_mb={RESIDENT_MB}"
        limits += f" -malloc_limit_mb={ALLOCATION_MB} -max_len={MOST_BYTES}"
        options = f"-max_total_time={seconds} -print_final_stats=1 {limits}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz", "--child", reader, "--kept", str(kept), "--"),
                *(*options.split(), f"-artifact_prefix={kept}/{reader}-", name),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds + SPARE_SECONDS,
            check=False,
        )
    tried = re.findall(r"stat::number_of_executed_units: +(\d+)|^#(\d+)", done.stdout, re.M)
    count = max((int(a or b) for a, b in tried), default=0)
    return count, done.returncode, "\n".join(done.stdout.splitlines()[-30:])


def main() -> int:
    """Fuzzes each reader for its share of the time; 1 where one has a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for all readers together")
    parser.add_argument("--reader", choices=WRITERS, help="only this one")
    parser.add_argument("--child", choices=WRITERS, help=argparse.SUPPRESS)
    parser.add_argument("--kept", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _fuzz_here(given.child, given.kept, given.options)
        return 0
    readers = [given.reader] if given.reader else list(WRITERS)
    kept = Path(tempfile.mkdtemp(prefix="fuzz-"))
    findings = 0
    for reader in readers:
        seconds = max(1, given.seconds // len(readers))
        tried, code, said = fuzz(reader, seconds, kept)
        findings += code != 0
        print(f"{reader}: {tried:,} inputs in {seconds} s, {'a finding' if code else 'no finding'}")
        if code:
            print(said)
    if findings:
        print(f"What went wrong is kept in {kept}")
        return 1
    kept.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
