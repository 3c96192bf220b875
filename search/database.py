"""The database under the ledger: address, transactions, errors, and one writer for a study."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, OperationalError

from search.credentials import masked
from search.records import ConfigError, InUse, LedgerError

CONNECT_SECONDS = 5
PATIENCE_SECONDS = 60.0
RETRY_SECONDS = 0.5
LOCK_TIMEOUT_SECONDS = 30
ENCODED = "special characters of the password as %40 for @, %2F for / and so on"
EXPECTED = f"expected postgresql://user:password@host/database or sqlite:///path, {ENCODED}"
TIMEOUTS = {
    "psycopg": ("connect_timeout",),
    "psycopg2": ("connect_timeout",),
    "pymysql": ("connect_timeout", "read_timeout"),
    "mysqldb": ("connect_timeout", "read_timeout"),
    "pyodbc": ("timeout",),
    "pymssql": ("login_timeout",),
}
"""What drivers call the seconds that they wait for a server."""
DURABLE = {
    "sqlite": (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "PRAGMA foreign_keys=ON",
    ),
    "postgresql": (
        "SET synchronous_commit = on",
        f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'",
        # A machine that is gone without a word lets go of its locks within a minute.
        "SET tcp_keepalives_idle = 30",
        "SET tcp_keepalives_interval = 10",
        "SET tcp_keepalives_count = 3",
    ),
}
DAMAGE = ("malformed", "not a database", "no such table", "no such column")
"""What SQLite says of a file that is not as it was written."""
SOMEBODY = "another process"
PERMISSION = ("readonly database", "unable to open")
"""What SQLite says of a file or folder that it may not write."""
NEEDS_PERMISSION = (
    "this user needs permission to write it and the folder that it is in, and a disk that is not "
    "mounted read-only."
)
SCHEMA_LOCK = 0x506F6469756D
STUDY_KEY = "hashtextextended('podium ' || current_schema() || ' ' || :study, 0)"
HOLDER = text(
    "SELECT activity.application_name, activity.backend_start FROM pg_locks AS held "
    "JOIN pg_stat_activity AS activity ON activity.pid = held.pid "
    "WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1 "
    "AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND (held.classid::bigint << 32) + held.objid::bigint = {STUDY_KEY}"
)


class Database:
    """One SQLite file, or one PostgreSQL database; whoever calls need not know which."""

    def __init__(self, place: Path | str) -> None:
        """Nothing is opened yet.

        Args:
            place: a file, or an address: `postgresql://...` or `sqlite:///...`.

        Raises:
            ConfigError: the address is none, or its driver is not installed.
        """
        url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else _url(place)
        self.path = Path(str(url.database)) if url.drivername == "sqlite" else None
        self.name = str(self.path or url.set(query={}).render_as_string(hide_password=True))
        self.patience_seconds = PATIENCE_SECONDS if self.path is None else 0.0
        self._engine = _engine(url)
        self._study_lock: tuple[str, str, Connection | None] | None = None
        self._guard = threading.Lock()
        self._given_up = False

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's, for tests."""
        return self._engine

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()

    def tables(self) -> set[str]:
        """The names of its tables; a file that is missing has none, and is not made.

        Raises:
            DBAPIError: it does not answer, or is no database.
        """
        if self.path is not None and not self.path.exists():
            return set()
        return set(inspect(self._engine).get_table_names())

    @contextmanager
    def altered(self) -> Iterator[Connection]:
        """A transaction that may change tables, one at a time: all of it is done, or nothing.

        Raises:
            DBAPIError: as it comes.
        """
        with self._engine.begin() as connection:
            if self.path is None:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": SCHEMA_LOCK})
            else:
                # SQLite's driver would commit each change of a table by itself.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def written(self) -> Iterator[Connection]:
        """A transaction, committed and on the disk at the end.

        Raises:
            LedgerError: nothing was written, or, where the connection was `lost`, perhaps all.
            IntegrityError: what was to be written contradicts what is there.
        """
        with self._in_our_words(), self._connect() as connection:
            self._keep_study_lock()
            with connection.begin():
                if self.path is not None:
                    # Before the first read: what was read stays true until it is written.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for queries that all see the same moment.

        Raises:
            LedgerError: it cannot be read, or holds something else than Podium writes.
        """
        with self._in_our_words(), self._connect() as connection:
            if self.path is None:
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            else:
                connection.exec_driver_sql("BEGIN")
            try:
                yield connection
            except (ValueError, KeyError, TypeError) as error:
                what = " ".join(str(error).split())[:200]
                raise LedgerError(
                    f"{self.name} holds a record that cannot be read ({what}): it was damaged, or "
                    "changed by something else than Podium. Put back a copy of it."
                ) from error

    def insert(self, table: Table) -> Any:
        """An insert that can be told what to do about a row that is there already."""
        return (postgresql if self.path is None else sqlite).insert(table)

    @contextmanager
    def study_locked(self, study: str, who: str) -> Iterator[None]:
        """Holds the study for this process among all machines that share a PostgreSQL database.

        The server lets go of it when the process or its connection ends. A file needs none: its
        machine has locks of its own.

        Args:
            study: its name.
            who: shown to others that want it; at most 63 bytes.

        Raises:
            InUse: another process holds it; the message says which.
        """
        if self.path is not None:
            yield
            return
        with self._in_our_words():
            lock = self._locked(study, who)
        if lock is None:
            with self._in_our_words():
                holder = self._holder(study) or SOMEBODY
            raise InUse(held_by(study, holder))
        self._study_lock = study, who, lock
        try:
            yield
        finally:
            with self._guard, suppress(DBAPIError):
                _, _, connection = self._study_lock
                self._study_lock = None
                if connection is not None:
                    with connection:  # the server lets go of what is closed in its own time
                        connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")

    def check_unlocked(self, study: str) -> None:
        """Makes sure that nobody holds a study in a PostgreSQL database, and takes nothing.

        Raises:
            InUse: another process holds it; the message says which.
        """
        if self.path is not None:
            return
        with self._in_our_words():
            holder = self._holder(study)
        if holder is not None:
            raise InUse(held_by(study, holder))

    def _locked(self, study: str, who: str) -> Connection | None:
        """A connection of its own that holds the study; None where another one does."""
        connection = self._connect().execution_options(isolation_level="AUTOCOMMIT")
        connection.detach()
        connection.execute(text("SELECT set_config('application_name', :who, false)"), {"who": who})
        if connection.scalar(text(f"SELECT pg_try_advisory_lock({STUDY_KEY})"), {"study": study}):
            return connection
        connection.close()
        return None

    def _holder(self, study: str) -> str | None:
        with self._connect() as connection:
            row = connection.execute(HOLDER, {"study": study}).first()
        if row is None:
            return None
        return f"{row[0]}, since {row[1].astimezone(UTC).isoformat(timespec='seconds')}"

    def _keep_study_lock(self) -> None:
        """Takes the lock again where the server let go of it, as when it is started again.

        Raises:
            LedgerError: another process was faster.
        """
        with self._guard:
            if self._study_lock is None:
                return
            study, who, connection = self._study_lock
            if connection is not None:
                try:
                    connection.exec_driver_sql("SELECT 1")
                    return
                except DBAPIError:
                    connection.invalidate()
                    self._study_lock = study, who, None
            again = self._locked(study, who)
            if again is None:
                raise LedgerError(
                    f"The connection to {self.name} was lost, and meanwhile "
                    f"{held_by(study, self._holder(study) or SOMEBODY)}"
                )
            self._study_lock = study, who, again

    def _connect(self) -> Connection:
        """A connection that answers; a server that is being started again is waited for, once."""
        deadline = time.monotonic() + (0.0 if self._given_up else self.patience_seconds)
        while True:
            try:
                connection = self._engine.connect()
            except OperationalError:
                if time.monotonic() >= deadline:
                    self._given_up = True
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                self._given_up = False
                return connection

    @contextmanager
    def _in_our_words(self) -> Iterator[None]:
        """Turns the database's errors into Podium's."""
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise self._failure(error) from error

    def _failure(self, error: DBAPIError) -> LedgerError:
        reason = reason_of(error)
        kept = "What was committed is kept"
        if any(words in reason for words in DAMAGE):
            return LedgerError(
                f"The ledger {self.name} is damaged: {reason}. Put back a copy of it, or save what "
                f"can be read by `sqlite3 {self.name} .recover`."
            )
        if lacks_permission(reason):
            return LedgerError(
                f"The ledger {self.name} cannot be written: {reason}. {kept}; {NEEDS_PERMISSION}"
            )
        if "disk is full" in reason:
            return LedgerError(
                f"The ledger {self.name} cannot be written: {reason}. {kept}; make space, then go "
                "on by `podium resume STUDY`."
            )
        return LedgerError(
            f"The ledger {self.name} failed: {reason}. {kept}; once it works again, "
            "`podium resume STUDY` goes on.",
            lost=error.connection_invalidated,
        )


def held_by(study: str, holder: str) -> str:
    """The message for a study that another process runs."""
    return (
        f"Study {study} is being run by {holder}. Wait until that has ended, or end it; what it "
        "recorded is kept."
    )


def trouble_of(address: str) -> str:
    """Why a database, of any kind, lets nobody in; "" where it does. Found out within seconds."""
    try:
        url = make_url(address)
        driver = url.get_dialect().driver
        arguments = dict.fromkeys(TIMEOUTS.get(driver, ()), CONNECT_SECONDS)
        engine = create_engine(url, connect_args=arguments)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except Exception as error:  # noqa: BLE001 - each driver has errors of its own
        cause = getattr(error, "orig", None) or error
        return masked(" ".join(str(cause).split()))[:300].rstrip(".")
    return ""


def reason_of(error: DBAPIError) -> str:
    """What the database says, in one line."""
    return " ".join(str(error.orig).split())[:300].rstrip(".")


def lacks_permission(reason: str) -> bool:
    """Whether it is not for the database that it fails, but for who uses it."""
    return any(words in reason for words in PERMISSION)


def since(now_ms: int) -> str:
    """A moment as people read it."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="seconds")


def _url(address: str) -> URL:
    """An address, which is never shown as it is: it may hold a password.

    Raises:
        ConfigError: it is none.
    """
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ConfigError(f"The ledger's address is not a database's: {EXPECTED}.") from None
    kind, _, driver = url.drivername.partition("+")
    if kind == "sqlite" and not driver:
        if not url.database or url.database == ":memory:" or url.query or url.host:
            raise ConfigError("The ledger's address names no file: expected sqlite:///path.")
        return url
    if kind not in ("postgresql", "postgres") or driver not in ("", "psycopg"):
        raise ConfigError(f"The ledger's address is of the kind {url.drivername!r}: {EXPECTED}.")
    if "@" in (url.host or "") or not url.database:
        raise ConfigError(f"The ledger's address lacks host or database: {EXPECTED}.")
    return url.set(drivername="postgresql+psycopg")


def _engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        engine = create_engine(url, connect_args={"timeout": LOCK_TIMEOUT_SECONDS})
    else:
        # The last ones notice a server that is gone without a word.
        arguments = {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "podium",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        try:
            engine = create_engine(url, pool_pre_ping=True, connect_args=arguments)
        except ImportError:
            raise ConfigError(
                "A ledger on PostgreSQL needs psycopg, which is not installed here: "
                "`pip install 'psycopg[binary]'`, or install Podium as podium-search[postgres]."
            ) from None
    event.listen(engine, "connect", _make_durable)
    return engine


def _make_durable(connection: Any, _: Any) -> None:
    kind = "sqlite" if type(connection).__module__.startswith("sqlite3") else "postgresql"
    cursor = connection.cursor()
    for statement in DURABLE[kind]:
        cursor.execute(statement)
    cursor.close()
    connection.commit()
