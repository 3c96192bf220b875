"""The ledger's database: addresses, lost connections, damage, and openings at the same moment."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from search import database as database_module
from search.database import Database
from search.folder import LEDGER_VARIABLE, existing_ledger, has_ledger, open_ledger
from search.ledger import SCHEMA_VERSION, Ledger
from search.records import ConfigError, LedgerError, State
from tests.builders import make_assignment, make_epoch, make_report
from tests.postgres import ENCODED, PASSWORD, Server

ROOT = Path(__file__).parents[1]
STUDY = "my-study"


@pytest.fixture
def ledger(server: Server) -> Iterator[Ledger]:
    """A ledger on the server, with a study of one trial that has begun."""
    opened = Ledger(server.new_place())
    opened.begin_study(STUDY, {}, {}, now_ms=1)
    opened.begin_trial(STUDY, make_assignment(0), now_ms=2)
    yield opened
    opened.close()


# Addresses


@pytest.mark.parametrize(
    ("address", "complaint"),
    [
        ("secret", "address is not a database's"),
        ("mysql://me:secret@host/db", "of the kind 'mysql'"),
        ("postgresql+asyncpg://me:secret@host/db", "of the kind 'postgresql+asyncpg'"),
        ("postgresql://me:secret@host", "lacks host or database"),
        ("postgresql://me:se@secret@host/db", "lacks host or database"),
        ("postgresql://me:secret@host:port/db", "address is not a database's"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///ledger.db?mode=ro", "names no file"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_not_shown(
    address: str, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Ledger(address)
    assert complaint in str(caught.value)
    assert "expected " in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_told_within_seconds_without_the_password(
    server: Server,
) -> None:
    server.stop()
    began = time.monotonic()
    try:
        with pytest.raises(ConfigError) as caught:
            Ledger(server.address)
    finally:
        server.start()
    assert time.monotonic() - began < 2 * database_module.CONNECT_SECONDS
    assert "refused" in str(caught.value)
    _without_password(str(caught.value))


def test_a_server_that_never_answers_is_given_up_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database_module, "CONNECT_SECONDS", 2)  # libpq knows no less
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ConfigError, match="cannot be used as a ledger"):
            Ledger(f"postgresql://me:secret@127.0.0.1:{port}/db")
        assert time.monotonic() - began < 2 * database_module.CONNECT_SECONDS


def test_a_wrong_password_is_told_without_showing_it(server: Server) -> None:
    with pytest.raises(ConfigError, match="password authentication failed") as caught:
        Ledger(server.address.replace(ENCODED, "hunter2"))
    assert "hunter2" not in str(caught.value)


def test_without_psycopg_the_message_says_what_to_install(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'psycopg\[binary\]'"):
        Ledger(server.address)


def test_a_ledger_shows_where_it_is_without_password_and_options(server: Server) -> None:
    database = Database(server.new_place())
    assert database.name == f"postgresql+psycopg://podium:***@127.0.0.1:{server.port}/postgres"
    assert PASSWORD not in repr(database.engine)


def _without_password(message: str) -> None:
    for secret in (PASSWORD, ENCODED, "w:rd"):
        assert secret not in message


# The variable that names the ledger


def test_the_variable_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LEDGER_VARIABLE, f"sqlite:///{tmp_path}/elsewhere/other.db")
    assert not has_ledger()
    with pytest.raises(ConfigError, match=f"No studies yet .*{LEDGER_VARIABLE}"):
        existing_ledger()
    ledger = open_ledger()
    ledger.begin_study(STUDY, {}, {}, 1)
    ledger.close()
    ledger = existing_ledger()
    assert ledger.study(STUDY) is not None
    ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_the_variable_names_a_server_where_nothing_is_made_by_looking(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = server.new_place()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LEDGER_VARIABLE, place)
    with pytest.raises(ConfigError, match="No studies yet"):
        existing_ledger()
    database = Database(place)
    assert database.tables() == set()
    database.close()
    open_ledger().close()
    existing_ledger().close()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_variable_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(LEDGER_VARIABLE, "")
    open_ledger().close()
    assert (tmp_path / "runs" / "ledger.db").exists()


def test_trouble_with_the_variable_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEDGER_VARIABLE, "nonsense")
    for call in (has_ledger, existing_ledger, open_ledger):
        with pytest.raises(ConfigError, match=f"{LEDGER_VARIABLE}: .* Correct it, or unset it"):
            call()


# Databases of others


def test_a_schema_of_something_else_is_refused_and_gets_no_tables(server: Server) -> None:
    place = server.new_place()
    database = Database(place)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE colours (name text)"))
    with pytest.raises(ConfigError, match="not one of Podium's ledgers"):
        Ledger(place)
    assert database.tables() == {"colours"}
    database.close()


def test_a_server_with_a_newer_ledger_is_refused_with_both_versions(server: Server) -> None:
    place = server.new_place()
    ledger = Ledger(place)
    with ledger.database.written() as connection:
        connection.execute(text(f"UPDATE meta SET schema_version = {SCHEMA_VERSION + 1}"))
    ledger.close()
    with pytest.raises(ConfigError) as caught:
        Ledger(place)
    for part in (f"version {SCHEMA_VERSION + 1}", f"1 to {SCHEMA_VERSION}", "Update Podium"):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_ledger_that_many_open_at_the_same_moment_is_made_once(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Path | str = tmp_path / "ledger.db"
    if kind == "postgresql":
        place = request.getfixturevalue("server").new_place()
    gate, failures = threading.Barrier(6), []

    def open_at_once() -> None:
        gate.wait()
        try:
            Ledger(place).close()
        except ConfigError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_at_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    ledger = Ledger(place)
    with ledger.engine.connect() as connection:
        found = connection.scalars(text("SELECT schema_version FROM meta")).all()
    ledger.close()
    assert found == [SCHEMA_VERSION]


# Connections that are lost


def _cut(server: Server) -> None:
    server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND application_name = 'podium'"
    )


def _cutting_once(ledger: Ledger, server: Server, beginning: str) -> list[str]:
    """Has the server cut the connection at the first statement that begins so, and notes it."""
    cuts: list[str] = []

    @event.listens_for(ledger.engine, "before_cursor_execute")
    def _(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(beginning) and not cuts:
            cuts.append(statement)
            _cut(server)

    return cuts


def test_a_server_that_was_started_again_between_two_calls_is_not_noticed(
    ledger: Ledger, server: Server
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ledger.append, STUDY, 0, make_report(make_epoch(2)))
        with pytest.raises(TimeoutError):
            late.result(0.7)
        server.start()
        late.result(30)
    assert [item.epoch for item in ledger.epochs(STUDY, 0)] == [1, 2]


def test_a_server_that_stays_away_ends_in_one_line_that_says_how_to_go_on(
    ledger: Ledger, server: Server
) -> None:
    ledger.append(STUDY, 0, make_report(make_epoch(1)))
    ledger.database.patience_seconds = 0.2
    server.stop()
    try:
        for call in (
            lambda: ledger.append(STUDY, 0, make_report(make_epoch(2))),
            lambda: ledger.trials(STUDY),
        ):
            with pytest.raises(LedgerError) as caught:
                call()
            assert caught.value.exit_code == 3
            for part in (ledger.database.name, "is kept", "podium resume"):
                assert part in str(caught.value)
            assert "\n" not in str(caught.value)
            _without_password(str(caught.value))
    finally:
        server.start()
    assert [item.epoch for item in ledger.epochs(STUDY, 0)] == [1]


@pytest.mark.parametrize("beginning", ["UPDATE trials", "INSERT INTO epochs", "SELECT"])
def test_a_connection_that_is_cut_within_a_call_is_made_up_for(
    ledger: Ledger, server: Server, beginning: str
) -> None:
    cuts = _cutting_once(ledger, server, beginning)
    ledger.append(STUDY, 0, make_report(make_epoch(1), make_epoch(2)))
    assert [item.epoch for item in ledger.epochs(STUDY, 0)] == [1, 2]
    assert len(cuts) == 1


def test_what_must_not_happen_twice_is_not_done_again_where_it_was_cut(
    ledger: Ledger, server: Server
) -> None:
    cuts = _cutting_once(ledger, server, "INSERT INTO trials")
    with pytest.raises(LedgerError, match="podium resume"):
        ledger.begin_trial(STUDY, make_assignment(1), now_ms=3)
    assert len(cuts) == 1
    assert [trial.number for trial in ledger.trials(STUDY)] == [0]


# Text


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_reasons_with_signs_that_databases_refuse_are_kept_but_for_these(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Path | str = tmp_path / "ledger.db"
    if kind == "postgresql":
        place = request.getfixturevalue("server").new_place()
    ledger = Ledger(place)
    ledger.begin_study(STUDY, {"note": "a\0b"}, {}, now_ms=1)
    ledger.begin_trial(STUDY, make_assignment(0), now_ms=2)
    ledger.end_trial(STUDY, 0, State.FAILED, 3, "é\0 in \udc80 file")
    ledger.end_study(STUDY, State.FAILED, "\0", 3)
    assert ledger.trials(STUDY)[0].reason == "é  in ? file"
    study = ledger.study(STUDY)
    assert study is not None
    assert (study.reason, study.settings) == (" ", {"note": "a\0b"})
    ledger.close()


# Files that break


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[], Ledger]:
    """Opens a ledger whose pages are damaged, but for its first ones."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.begin_study(STUDY, {}, {}, now_ms=1)
    for number in range(40):
        ledger.begin_trial(STUDY, make_assignment(number), now_ms=2)
        ledger.append(STUDY, number, make_report(*map(make_epoch, range(1, 20))))
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'trials'"
        ).fetchone()
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    content = bytearray(path.read_bytes())
    start = (pages[0] - 1) * size
    content[start : start + size] = b"\xa5" * size
    path.write_bytes(content)
    return lambda: Ledger(path)


def test_a_damaged_file_is_told_in_one_line(broken: Callable[[], Ledger]) -> None:
    ledger = broken()
    for call in (
        lambda: ledger.trials(STUDY),
        lambda: ledger.begin_trial(STUDY, make_assignment(99), now_ms=1),
    ):
        with pytest.raises(LedgerError, match="is damaged: database disk image is malformed"):
            call()
    ledger.close()


def test_a_record_that_is_no_json_is_told_in_one_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.begin_study(STUDY, {}, {}, now_ms=1)
    with ledger.database.written() as connection:
        connection.execute(text("UPDATE studies SET facts = '{'"))
    with pytest.raises(LedgerError, match="holds a record that cannot be read"):
        ledger.study(STUDY)
    ledger.close()


def test_a_full_disk_is_told_and_what_was_committed_stays(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.begin_study(STUDY, {}, {}, now_ms=1)

    @event.listens_for(ledger.engine, "checkout")
    def _(connection: Any, *_: Any) -> None:
        # The database's own limit gives the same error as the disk's.
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used}")

    with pytest.raises(LedgerError, match=r"disk is full.*make space.*podium resume"):
        ledger.begin_study("big", {"much": "x" * 100_000}, {}, now_ms=2)
    assert [study.name for study in ledger.studies()] == [STUDY]
    ledger.close()


# Opening that is broken off


DYING = """
import os, sys
from pathlib import Path
from sqlalchemy import Engine, event
from search.ledger import Ledger

@event.listens_for(Engine, "before_cursor_execute")
def _(connection, cursor, statement, *_):
    if statement.startswith(("UPDATE meta", "INSERT INTO meta")):
        os._exit(9)

place = sys.argv[1]
Ledger(place if "://" in place else Path(place))
"""


def die_while_opening(place: Path | str) -> None:
    """Has a process killed at the end of making or migrating a ledger, before the commit."""
    done = subprocess.run([sys.executable, "-c", DYING, str(place)], cwd=ROOT, check=False)
    assert done.returncode == 9


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_process_that_dies_while_it_makes_a_ledger_leaves_nothing_of_it(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place: Path | str = tmp_path / "ledger.db"
    if kind == "postgresql":
        place = request.getfixturevalue("server").new_place()
    die_while_opening(place)
    database = Database(place)
    assert database.tables() == set()
    database.close()
    Ledger(place).close()


def test_a_file_that_may_only_be_read_is_told_so_and_not_called_damaged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.engine.dispose()
    event.listen(ledger.engine, "connect", lambda c, _: c.execute("PRAGMA query_only=ON"))
    with pytest.raises(LedgerError, match="needs permission to write it") as caught:
        ledger.begin_study("s", {}, {}, 0)
    assert "once it works again" not in str(caught.value)
    ledger.close()
