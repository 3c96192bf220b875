"""One writer for each study, whoever and wherever the others are."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.database import Database
from search.lock import LOCK_NAME, check_free, held
from search.records import ConfigError, InUse, LedgerError
from tests.postgres import Server

ROOT = Path(__file__).parents[1]
STUDY = "mine"
HOLDER = """
import sys
from pathlib import Path
from search.database import Database
from search.lock import held
place = sys.argv[1]
database = Database(place if "://" in place else Path(place))
print("ready", flush=True)
sys.stdin.readline()
try:
    with held("mine", Path(sys.argv[2]), database, 1_000):
        print("held", flush=True)
        sys.stdin.readline()
except Exception as error:
    print(error, flush=True)
"""


class Contender:
    """A process that wants the study: ready, then told to go, then it holds it until it ends."""

    def __init__(self, place: Path | str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(place), str(folder)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> Contender:
        assert self.heard() == "ready"
        return self

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def contender() -> Iterator[Callable[[Path | str, Path], Contender]]:
    made: list[Contender] = []

    def make(place: Path | str, folder: Path) -> Contender:
        folder.mkdir(parents=True, exist_ok=True)
        made.append(Contender(place, folder))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "studies" / STUDY
    path.mkdir(parents=True)
    return path


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "runs" / "ledger.db")


def test_of_processes_that_begin_at_the_same_moment_one_gets_the_study(
    contender: Callable[[Path | str, Path], Contender], folder: Path, tmp_path: Path
) -> None:
    contenders = [contender(tmp_path / "runs" / "ledger.db", folder) for _ in range(3)]
    for one in contenders:
        one.wait()
    for one in contenders:
        one.go()
    heard = {one.process.pid: one.heard() for one in contenders}
    [winner] = [pid for pid, line in heard.items() if line == "held"]
    for pid, line in heard.items():
        if pid != winner:
            for part in (
                f"process {winner} on {socket.gethostname()}",
                "since 1970-01-01T00:00:01",
            ):
                assert part in line


def test_a_study_whose_process_was_killed_is_taken_over(
    contender: Callable[[Path | str, Path], Contender], folder: Path, database: Database
) -> None:
    first = contender(database.name, folder).wait()
    first.go()
    assert first.heard() == "held"
    with pytest.raises(ConfigError, match=f"process {first.process.pid} on "):
        _take(folder, database)
    first.kill()
    assert str(first.process.pid) in (folder / LOCK_NAME).read_text()
    _take(folder, database)
    assert json.loads((folder / LOCK_NAME).read_text())["pid"] == os.getpid()


def _take(folder: Path, database: Database) -> None:
    with held(STUDY, folder, database, 1_000):
        pass


@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe\0", b"[]", b'"x"', b'{"pid": "many"}'])
def test_a_lock_file_with_garbage_in_it_locks_nobody_out_and_names_nobody(
    folder: Path, database: Database, garbage: bytes
) -> None:
    (folder / LOCK_NAME).write_bytes(garbage)
    with held(STUDY, folder, database, 1_000):
        (folder / LOCK_NAME).write_bytes(garbage)
        with pytest.raises(ConfigError, match="is being run by another process"):
            _take(folder, database)
    _take(folder, database)


def test_a_lock_can_be_taken_again_once_it_was_let_go_of(folder: Path, database: Database) -> None:
    for _ in range(2):
        _take(folder, database)
    with pytest.raises(RuntimeError), held(STUDY, folder, database, 1_000):
        raise RuntimeError
    _take(folder, database)


def test_a_folder_that_cannot_be_written_is_told(database: Database) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            with pytest.raises(ConfigError, match=r"lock cannot be opened: Permission denied"):
                _take(folder, Database(folder.parent / "ledger.db"))
        finally:
            if root:
                os.seteuid(0)


def test_a_folder_in_place_of_the_lock_is_told(folder: Path, database: Database) -> None:
    (folder / LOCK_NAME).mkdir()
    with pytest.raises(ConfigError, match=r"lock cannot be opened: Is a directory"):
        _take(folder, database)


@pytest.mark.parametrize("left", ["", "the dead"])
def test_whoever_only_looks_at_a_lock_just_then_does_not_keep_its_owner_out(
    folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    holder = {"pid": dead.pid, "host": socket.gethostname(), "since": "then"}
    (folder / LOCK_NAME).write_text(json.dumps(holder) if left else "")
    looking = (folder / LOCK_NAME).open()
    fcntl.flock(looking, fcntl.LOCK_EX)
    clock = SimpleNamespace(sleep=lambda _: looking.close())
    monkeypatch.setattr("search.lock.time", clock)
    _take(folder, database)
    assert looking.closed


def test_a_lock_whose_holder_lives_is_refused_without_a_wait(
    folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        pytest.fail("waited")

    with held(STUDY, folder, database, 1_000):
        monkeypatch.setattr("search.lock.time", SimpleNamespace(sleep=sleep))
        for take in (_take, lambda *place: check_free(STUDY, *place)):
            with pytest.raises(InUse, match=f"process {os.getpid()} on "):
                take(folder, database)
    check_free(STUDY, folder, database)


def test_folders_that_share_a_file_share_the_lock(tmp_path: Path) -> None:
    database = Database(tmp_path / "shared.db")
    folders = [tmp_path / name / "runs" / "studies" / STUDY for name in ("one", "other")]
    for folder in folders:
        folder.mkdir(parents=True)
    with held(STUDY, folders[0], database, 1_000):
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on "):
            _take(folders[1], database)
        with held("another", folders[1], database, 1_000):
            pass
    _take(folders[1], database)


# Machines that share a server: each has a folder of its own


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    found = tmp_path / "one" / "runs" / "s" / STUDY, tmp_path / "other" / "runs" / "s" / STUDY
    for folder in found:
        folder.mkdir(parents=True)
    return found


def test_machines_that_share_a_server_run_a_study_once_and_the_dead_are_followed(
    contender: Callable[[Path | str, Path], Contender],
    server: Server,
    folders: tuple[Path, Path],
) -> None:
    place = server.new_place()
    contenders = [contender(place, folder).wait() for folder in folders]
    for one in contenders:
        one.go()
    heard = [one.heard() for one in contenders]
    assert heard.count("held") == 1
    winner = contenders[heard.index("held")]
    [refusal] = [line for line in heard if line != "held"]
    assert f"process {winner.process.pid} on {socket.gethostname()[:40]}, since 20" in refusal
    database = Database(place)
    loser = folders[1 - heard.index("held")]
    with pytest.raises(ConfigError, match="is being run by process"):
        _take(loser, database)
    with database.study_locked("another", "me"):
        pass
    other_schema = Database(server.new_place())
    with other_schema.study_locked(STUDY, "me"):
        pass
    winner.kill()
    deadline = time.monotonic() + 10
    while True:
        try:
            _take(loser, database)
            break
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    database.close()
    other_schema.close()


def test_a_look_at_a_study_on_a_server_takes_nothing_and_tells_who_holds_it(
    server: Server, folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = server.new_place()
    first, second = Database(place), Database(place)
    with first.study_locked(STUDY, "the first"), pytest.raises(InUse, match="run by the first"):
        check_free(STUDY, folders[1], second)
    monkeypatch.setattr(second, "_locked", lambda *_: pytest.fail("took it"))
    check_free(STUDY, folders[1], second)
    first.close()
    second.close()


def test_a_study_stays_locked_after_its_server_was_started_again(server: Server) -> None:
    place = server.new_place()
    first, second = Database(place), Database(place)
    with first.study_locked(STUDY, "the first"):
        server.stop()
        server.start()
        with first.written():
            pass
        with pytest.raises(ConfigError, match="run by the first"):
            second.study_locked(STUDY, "the second").__enter__()
    with second.study_locked(STUDY, "the second"):
        pass
    first.close()
    second.close()


def test_whoever_lost_the_study_while_the_server_was_away_writes_no_more(server: Server) -> None:
    place = server.new_place()
    first, second = Database(place), Database(place)
    with first.study_locked(STUDY, "the first"):
        server.stop()
        server.start()
        with (
            second.study_locked(STUDY, "the second"),
            pytest.raises(LedgerError, match="run by the second"),
            first.written(),
        ):
            pytest.fail("was let in")
    first.close()
    second.close()


def test_a_ledger_that_is_a_link_has_one_lock_for_all_who_share_it(tmp_path: Path) -> None:
    real = tmp_path / "shared" / "ledger.db"
    for name in ("shared", "one", "two"):
        (tmp_path / name / "runs" / "studies" / STUDY).mkdir(parents=True)
    real.touch()
    places = []
    for name in ("one", "two"):
        place = tmp_path / name / "runs" / "ledger.db"
        place.symlink_to(real)
        places.append((place.parent / "studies" / STUDY, Database(place)))
    (first, database), (second, other) = places
    with (
        held(STUDY, first, database, 0),
        pytest.raises(ConfigError, match="is being run by process"),
        held(STUDY, second, other, 0),
    ):
        pass
