"""Nothing is unpickled or run that came as data, and nothing is unpacked that takes all memory."""

from __future__ import annotations

import ast
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from search.data import load
from search.records import DataError
from search.unpacking import LIMIT_VARIABLE, check_package
from tests.test_readers import idx_bytes, npy_header, png_bytes, small_arrays, write_npz

ROOT = Path(__file__).parents[1]

# Calls that would run what they read

NEVER = {
    *("eval", "exec", "os.system", "os.popen"),
    *(f"{module}.{call}" for module in ("pickle", "cloudpickle") for call in ("load", "loads")),
    *("pickle.Unpickler", "joblib.load", "marshal.load", "marshal.loads", "shelve.open"),
    *("pd.read_pickle", "pandas.read_pickle", "torch.load", "dill.load", "dill.loads"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
    *("mlflow.pyfunc.load_model", "mlflow.keras.load_model", "tf.saved_model.load"),
}
ONLY_WITH = {
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "form.read_array": ("allow_pickle", False),
    "format.read_array": ("allow_pickle", False),
    "keras.models.load_model": ("safe_mode", True),
    "keras.saving.load_model": ("safe_mode", True),
}
ALLOWED = {
    ("search/space.py", "exec"): "a space is code: whoever chooses it may run code",
    ("search/loading.py", "mlflow.pyfunc.load_model"): "after its loader was checked to be Keras's",
    ("tests/test_space.py", "pickle.loads"): "what it pickled itself, as Ray does",
    ("tests/test_inspection.py", "pickle.loads"): "likewise",
    ("tests/test_config.py", "pickle.loads"): "likewise",
    ("tests/test_data.py", "pickle.loads"): "likewise",
    ("tests/test_records.py", "pickle.loads"): "likewise",
    ("tests/test_study.py", "mlflow.pyfunc.load_model"): "a model that the test registered",
    ("tests/test_inspection.py", "keras.models.load_model"): "a model that the test saved",
    ("tests/test_worker.py", "keras.models.load_model"): "likewise",
}


def dotted(node: ast.expr) -> str:
    """The name of what is called, as it is written."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def forbidden_calls(text: str) -> Iterator[str]:
    """Names of calls in a module that could run what they read, or run a shell."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (n for a in node.names if (n := f"{node.module}.{a.name}") in NEVER)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        option, value = ONLY_WITH.get(name, ("", None))
        if name in NEVER or (option and given.get(option) is not value):
            yield name
        if any(keyword.arg == "shell" for keyword in node.keywords) and given.get("shell", True):
            yield f"{name}(shell=True)"


@pytest.mark.parametrize(
    "text",
    [
        "eval('1')",
        "import pickle\npickle.loads(b'')",
        "from pickle import loads",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=trusted)",
        "np.lib.format.read_array(file)".replace("np.lib.", ""),
        "keras.models.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "yaml.load(text, Loader=yaml.Loader)",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=is_posix)",
    ],
)
def test_a_forbidden_call_is_found(text: str) -> None:
    assert list(forbidden_calls(text))


def test_nothing_is_unpickled_evaluated_or_given_to_a_shell() -> None:
    files = [file for part in ("search", "spaces", "benchmarks", "tests") for file in
             sorted((ROOT / part).rglob("*.py"))]  # fmt: skip
    assert len(files) > 100
    found = {
        (str(file.relative_to(ROOT)), name)
        for file in files
        for name in forbidden_calls(file.read_text(encoding="utf-8"))
    }
    assert found - ALLOWED.keys() == set()
    kept = {key for key in ALLOWED if not key[0].startswith("tests/")}
    assert kept <= found, "allowed, but not there any more"


# Decompression bombs: ten megabytes that become ten gigabytes

BLOCK = 64 << 20
BLOCKS = 160
EXTRA_MB = 500
SECONDS = 20


def zeros(blocks: int = BLOCKS, before: bytes = b"") -> bytes:
    """A deflate stream of so many blocks of zeros, without the time to compress them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(before) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * blocks + packer.flush()


def zip_of(name: str, stream: bytes, claimed: int) -> bytes:
    """An archive of one member that claims to have so many bytes (PKWARE's APPNOTE, 4.3)."""
    title = name.encode()
    # Above 4 GiB the sizes are in an extra field.
    extra = struct.pack("<HHQQ", 1, 16, claimed, len(stream))
    sizes = (0xFFFFFFFF, 0xFFFFFFFF)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 8, 0, 0, 0, *sizes[::-1], len(title), 20)
    entry = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 8, 0, 0, 0, *sizes, len(title), 20, 0, 0, 0, 0, 0
    )
    body = local + title + extra + stream
    directory = entry + title + extra
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(body), 0)
    return body + directory + end


def gz_of(stream: bytes) -> bytes:
    """A gzip file around a stream; its checksum is not reached."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + stream + bytes(8)


def bombs(folder: Path) -> Iterator[Path]:
    """Files and folders that claim little or much, and unpack to ten gigabytes."""
    whole = BLOCK * BLOCKS
    header = npy_header(whole)
    for name, claimed in (("honest", whole + len(header)), ("lying", 1_000)):
        path = folder / f"{name}.npz"
        path.write_bytes(zip_of("x.npy", zeros(before=header), claimed))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("y.npy", npy_header(1) + b"\0")
        yield path
    for name, shape in (("idx-honest", (10_000, 1024, 1024)), ("idx-lying", (10, 8, 8))):
        (folder / name).mkdir()
        images = bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape)
        (folder / name / "train-images-idx3-ubyte.gz").write_bytes(gz_of(zeros(before=images)))
        labels = idx_bytes(np.zeros(10, np.uint8))
        (folder / name / "train-labels-idx1-ubyte").write_bytes(labels)
        yield folder / name
    for name, side in (("wide", 100_000), ("small", 16)):
        path = folder / f"png-{name}" / "ant" / "1.png"
        path.parent.mkdir(parents=True)
        picture = png_bytes(side, side, 8, 0, b"")
        # zlib's header around the stream of the one chunk that holds pixels
        body = b"\x78\xda" + zeros()
        chunk = struct.pack(">I", len(body)) + b"IDAT" + body
        chunk += struct.pack(">I", zlib.crc32(b"IDAT" + body))
        start, end = picture.index(b"IDAT") - 4, picture.index(b"IEND") - 4
        path.write_bytes(picture[:start] + chunk + picture[end:])
        yield folder / f"png-{name}"
    width = 256 * 256 * 3
    head = ",".join(["label", *(f"p{n}" for n in range(width))]) + "\n1" + ",5" * width + "\n"
    for name, rows in (
        ("rows-short-later", "1\n" * 60),
        ("words", ("1" + ",a" * width + "\n") * 20),
    ):
        (folder / f"{name}.csv").write_text(head + rows)
        yield folder / f"{name}.csv"
    for name, columns in (
        ("equal-names", ["p"] * 100_000),
        ("short-rows", [f"p{n}" for n in range(100_000)]),
    ):
        rows = ",".join(["label", *columns]) + "\n" + "a\n" * 1_000_000
        (folder / f"{name}.csv").write_text(rows)
        yield folder / f"{name}.csv"
    labels = "label,p0\n" + "b" * 1_000_000 + ",2\n" + "a,1\n" * 500_000
    (folder / "long-label.csv").write_text(labels)
    yield folder / "long-label.csv"


MEASURE = """
import json, re, sys, time
from pathlib import Path
import pandas, PIL.Image
import search.data
from search.records import DataError
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
found = {}
for path in sys.argv[1:]:
    before, began = peak(), time.process_time()
    try:
        search.data.load(path, None, 0)
        said = ""
    except DataError as error:
        said = str(error)
    found[path] = said, peak() - before, time.process_time() - began
print(json.dumps(found))
"""


def test_ten_megabytes_that_become_ten_gigabytes_are_refused_without_the_memory(
    tmp_path: Path,
) -> None:
    paths = [str(path) for path in bombs(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == paths
    for path, (said, extra_mb, seconds) in found.items():
        assert path in said
        assert extra_mb < EXTRA_MB, path
        assert seconds < SECONDS, path


def test_a_model_that_unpacks_to_ten_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(zip_of("model.weights.h5", zeros(), BLOCK * BLOCKS))
    with pytest.raises(DataError, match=r"model\.keras: claims 10,737,418,240 bytes; at most 4,29"):
        check_package(path)
    path.write_bytes(zip_of("model.weights.h5", zeros(1), 3 << 30))
    with pytest.raises(DataError, match=r"more than .* compressed ones can hold"):
        check_package(path)
    path.write_bytes(b"no archive")
    check_package(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_unpacked_more_than_was_asked_for_is_refused(
    tmp_path: Path, method: int
) -> None:
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", npy_header(9) + bytes(9))
        archive.writestr("y.npy", npy_header(9) + bytes(9))
    with pytest.raises(
        DataError, match=r"own\.npz: 'x\.npy' in it is compressed in an unusual way"
    ):
        load(str(path), None, 0)


def test_an_array_whose_header_is_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.zeros(9))
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", 3 << 30) + b" " * 9
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy: .*its header claims to have 3,221,225,472 bytes"):
        load(str(tmp_path / "x.npy"), None, 0)


def test_text_that_is_no_unicode_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: NumPy reads it, and Python then raises a SystemError."""
    labels = np.array([0x110000] * 45, np.uint32).view("<U1")
    path = write_npz(tmp_path, small_arrays() | {"y_train": labels})
    with pytest.raises(DataError, match=r"own\.npz: .*its text is no Unicode"):
        load(str(path), None, 0)
    path = write_npz(tmp_path, small_arrays() | {"y_train": np.array(["\ud800", "b", "c"] * 15)})
    with pytest.raises(DataError, match=r"own\.npz: .*its text is no Unicode"):
        load(str(path), None, 0)


def test_an_idx_file_of_no_images_that_would_be_huge_is_refused(tmp_path: Path) -> None:
    """Found by fuzzing: nothing is promised, and NumPy has no shape for it."""
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 0xFB800000, 0, 0xFFFF3A1D)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0)))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: damaged .*array is too big"):
        load(str(tmp_path), None, 0)


def test_the_limit_can_be_raised_and_lowered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path, small_arrays())
    monkeypatch.setenv(LIMIT_VARIABLE, "1e-6")
    with pytest.raises(DataError, match=rf"at most 1,073 are read\. .* set {LIMIT_VARIABLE}"):
        load(str(path), None, 0)
    monkeypatch.setenv(LIMIT_VARIABLE, "0.001")
    assert len(load(str(path), None, 0).training.labels) == 45
    for wrong in ("0", "-1", "nan", "inf", "much"):
        monkeypatch.setenv(LIMIT_VARIABLE, wrong)
        with pytest.raises(DataError, match=f"{LIMIT_VARIABLE} is '{wrong}': expected a number"):
            load(str(path), None, 0)
