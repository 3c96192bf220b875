"""The ledger: every result is committed here before anything else hears of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pydantic import TypeAdapter
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Engine,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from search.database import NEEDS_PERMISSION, Database, lacks_permission, reason_of
from search.records import (
    Assignment,
    ConfigError,
    Costs,
    EpochReport,
    Latency,
    LedgerError,
    Measures,
    Opening,
    Phase,
    State,
    TestResult,
    TrialRecord,
    TrialTotals,
    WorkerReport,
)
from search.settings import FINALISTS
from spaces.config import TrialConfig

SCHEMA_VERSION = 4
"""Raised by every change of what is stored, fields within its JSON included."""
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE trials ADD COLUMN plan TEXT",),
    2: (),
    3: (
        "INSERT INTO told (study) SELECT name FROM studies WHERE ended_ms IS NOT NULL AND "
        "run_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM trials WHERE trials.study = "
        "studies.name AND NOT trials.delivered)",
    ),
}
"""From each earlier version to the next; tables that are missing are made in any case."""
LEDGER_NAME = "ledger.db"
EPOCHS_PER_DELIVERY = 150
PLANNED = ("max_epochs", "validation_fraction", "tail", "folds", "experiment", "proposal")
"""What the ledger keeps of an assignment besides what has a column of its own."""
PLAN: Mapping[str, Any] = {
    **dict.fromkeys(("max_epochs", "folds"), int),
    **dict.fromkeys(("experiment", "proposal"), str),
    "validation_fraction": int | float,
    "tail": bool,
}
SETTINGS: Mapping[str, Any] = {"notebook": str}
FACTS: Mapping[str, Any] = {
    **dict.fromkeys(("data", "fingerprint", "test_fingerprint", "baseline", "space"), str),
    "versions": {},
    "class_names": list,
    "image_shape": list,
}
OUTCOME: Mapping[str, Any] = {
    **dict.fromkeys(("summary", "recommended", "cut", "model"), str | None),
    "trial": int | None,
    "cut_at_budget": int | float | None,
    "champion": dict | None,
    "costs": dict | None,
    "importances": dict | None,
    "refused": dict.fromkeys(("resume_with", "champion_id"), str),
    "verdict": {
        "sentence": str,
        "tested": {"accuracy": {}, "measures": {}, "recalls": [dict]},
        "contests": [dict],
    },
}
"""Of what kind the values in a cell are, as far as something is made of them; `[kind]`: a list."""
ADAPTERS: dict[type, TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (EpochReport, TrialTotals, Measures, Costs, Latency)
}

Given = ParamSpec("Given")
Result = TypeVar("Result")
Stored = TypeVar("Stored")

_metadata = MetaData()
_meta = Table("meta", _metadata, Column("schema_version", Integer, primary_key=True))
_studies = Table(
    "studies",
    _metadata,
    Column("name", String(64), primary_key=True),
    Column("settings", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("outcome", Text),
    Column("run_id", String(64)),
)
_trials = Table(
    "trials",
    _metadata,
    Column("study", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("phase", String(16), nullable=False),
    Column("config", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("split_seed", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("rung", Integer),
    Column("started_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("totals", Text),
    Column("compiled", Text),
    Column("plan", Text),
    Column("pid", Integer),
    Column("run_id", String(64)),
    Column("delivered", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(["study"], ["studies.name"]),
)
_epochs = Table(
    "epochs",
    _metadata,
    Column("study", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("report", Text, nullable=False),
    Column("delivered", Boolean, nullable=False, default=False),
    ForeignKeyConstraint(["study", "number"], ["trials.study", "trials.number"]),
)
_tests = Table(
    "tests",
    _metadata,
    Column("study", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("measures", Text, nullable=False),
    ForeignKeyConstraint(["study", "number"], ["trials.study", "trials.number"]),
)
_told = Table(
    "told",
    _metadata,
    Column("study", String(64), primary_key=True),
    ForeignKeyConstraint(["study"], ["studies.name"]),
)
"""Studies whose end MLflow knows."""
_costs = Table(
    "costs",
    _metadata,
    Column("study", String(64), primary_key=True),
    Column("config_id", String(16), primary_key=True),
    Column("costs", Text, nullable=False),
    ForeignKeyConstraint(["study"], ["studies.name"]),
)
_openings = Table(
    "openings",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("study", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as the ledger holds it.

    Attributes:
        settings: the `StudySettings` it ran with, as JSON values.
        facts: what is known of data, code and versions.
        outcome: recommendation and verdict, as JSON values, once there are any.
    """

    name: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    state: State
    reason: str | None
    started_ms: int
    ended_ms: int | None
    outcome: Mapping[str, Any] | None
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """What MLflow has not been told of one trial yet.

    Attributes:
        epochs: at most `EPOCHS_PER_DELIVERY`, the first ones.
        more: whether there are others.
        totals: of the trial, as they are stored; whatever version wrote them.
        compiled: likewise.
    """

    trial: TrialRecord
    epochs: tuple[EpochReport, ...]
    more: bool
    totals: str | None
    compiled: str | None


def _repeatable(call: Callable[Given, Result]) -> Callable[Given, Result]:
    """For what may happen twice: done once more where the connection was lost on the way."""

    @wraps(call)
    def repeated(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return call(*args, **kwargs)
        except LedgerError as error:
            if not error.lost:
                raise
        return call(*args, **kwargs)

    return repeated


class Ledger:
    """Studies, trials, epochs and openings in one database; each call is one transaction.

    A server that is started again is waited for, between transactions and, where it does no harm
    to repeat one, within. Calls raise `LedgerError` where the database fails.
    """

    def __init__(self, place: Path | str) -> None:
        """Opens the ledger, creating it where there is none, migrating one of an older version.

        Args:
            place: a file of SQLite, or an address as `Database` takes it.

        Raises:
            ConfigError: there is no ledger there, or one of a version that this Podium cannot
                read, or it does not answer.
        """
        self._database = Database(place)
        name, path = self._database.name, self._database.path
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigError(f"{path.parent} cannot be made: {error.strerror}.") from None
        try:
            if not self._is_current():
                self._prepare()
        except DBAPIError as error:
            self.close()
            reason, advice = reason_of(error), "Put back a copy of it, or work in another folder."
            if lacks_permission(reason) and path is not None and not path.is_dir():
                advice = f"For that, {NEEDS_PERMISSION}"
            raise ConfigError(f"{name} cannot be used as a ledger: {reason}. {advice}") from None
        except ConfigError:
            self.close()
            raise

    @staticmethod
    def is_at(place: Path | str) -> bool:
        """Whether something was recorded there; nothing is made.

        Raises:
            ConfigError: it does not answer, or is no database.
        """
        database = Database(place)
        if database.path is not None:
            return database.path.exists()
        try:
            return _meta.name in database.tables()
        except DBAPIError as error:
            raise ConfigError(
                f"{database.name} cannot be used as a ledger: {reason_of(error)}."
            ) from None
        finally:
            database.close()

    def _is_current(self) -> bool:
        """Whether nothing has to be made or changed."""
        if _meta.name not in self._database.tables():
            return False
        with self._database.engine.connect() as connection:
            return connection.scalar(select(_meta.c.schema_version)) == SCHEMA_VERSION

    def _prepare(self) -> None:
        """Makes what is missing and migrates what is old, all of it or nothing.

        Raises:
            ConfigError: it is something else, or of another version; nothing was changed.
        """
        name = self._database.name
        with self._database.altered() as connection:
            known = set(inspect(connection).get_table_names())
            if known and _meta.name not in known:
                raise ConfigError(
                    f"{name} is a database, but not one of Podium's ledgers: a ledger needs one "
                    "of its own."
                )
            version = connection.scalar(select(_meta.c.schema_version)) if known else None
            if known and not isinstance(version, int):
                raise ConfigError(
                    f"{name} is damaged: it lacks its schema version. Put back a copy of it, or "
                    "work in another folder."
                )
            if version is not None:
                _check_version(name, version)
            _metadata.create_all(connection)
            if version is None:
                connection.execute(insert(_meta).values(schema_version=SCHEMA_VERSION))
            else:
                _migrate(connection, version)

    @property
    def database(self) -> Database:
        """Where it is."""
        return self._database

    @property
    def engine(self) -> Engine:
        """The database's, for tests."""
        return self._database.engine

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    # Studies

    def begin_study(
        self, name: str, settings: Mapping[str, Any], facts: Mapping[str, Any], now_ms: int
    ) -> None:
        """Records that a study has begun.

        Raises:
            ConfigError: there is one of that name.
        """
        try:
            with self._database.written() as connection:
                connection.execute(
                    insert(_studies).values(
                        name=name,
                        settings=_dump(settings),
                        facts=_dump(facts),
                        state=State.RUNNING,
                        started_ms=now_ms,
                    )
                )
        except IntegrityError:
            known = self.study(name)
            if known is None:
                raise
            raise ConfigError(taken(known)) from None

    @_repeatable
    def end_study(self, name: str, state: State, reason: str | None, now_ms: int) -> None:
        """Records how a study ended."""
        self._update_study(name, state=state, reason=_plain(reason), ended_ms=now_ms)

    @_repeatable
    def set_outcome(self, name: str, outcome: Mapping[str, Any]) -> None:
        """Records recommendation and verdict."""
        self._update_study(name, outcome=_dump(outcome))

    @_repeatable
    def name_model(self, name: str, trial: int, uri: str) -> bool:
        """Records where the model of a study is registered, beside the outcome of now.

        Args:
            name: of the study, which another process may go on with meanwhile.
            trial: that trained the model.
            uri: models:/NAME/VERSION.

        Returns:
            Whether its outcome still tells of that trial; if not, nothing was recorded.
        """
        with self._database.written() as connection:
            which = _studies.c.name == name
            stored = connection.scalar(select(_studies.c.outcome).where(which).with_for_update())
            outcome = json.loads(stored) if stored else {}
            if outcome.get("trial") != trial:
                return False
            values = {"outcome": _dump({**outcome, "model": uri})}
            connection.execute(update(_studies).where(which).values(**values))
            return True

    @_repeatable
    def set_study_run(self, name: str, run_id: str) -> None:
        """Records the study's parent run in MLflow."""
        self._update_study(name, run_id=run_id)

    @_repeatable
    def set_tracking(self, name: str, tracking: Mapping[str, Any]) -> None:
        """Records that a study is tracked elsewhere: those of its tracking settings that differ."""
        with self._database.written() as connection:
            which = _studies.c.name == name
            settings = json.loads(
                str(connection.scalar(select(_studies.c.settings).where(which).with_for_update()))
            )
            kept = settings.get("tracking")
            settings["tracking"] = {**(kept if isinstance(kept, dict) else {}), **tracking}
            connection.execute(update(_studies).where(which).values(settings=_dump(settings)))

    def _update_study(self, name: str, **values: Any) -> None:
        with self._database.written() as connection:
            connection.execute(update(_studies).where(_studies.c.name == name).values(**values))

    @_repeatable
    def studies(self) -> list[StudyRecord]:
        """All studies, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_studies).order_by(_studies.c.started_ms.desc(), _studies.c.name)
            )
            return [_study(row) for row in rows]

    @_repeatable
    def study(self, name: str) -> StudyRecord | None:
        """The study of that name."""
        with self._database.read() as connection:
            row = connection.execute(select(_studies).where(_studies.c.name == name)).first()
            return _study(row) if row else None

    # Trials

    def begin_trial(self, study: str, assignment: Assignment, now_ms: int) -> None:
        """Records that a trial was handed out."""
        with self._database.written() as connection:
            connection.execute(
                insert(_trials).values(
                    study=study,
                    number=assignment.number,
                    phase=assignment.phase,
                    config=assignment.config.canonical_json,
                    seed=assignment.seed,
                    split_seed=assignment.split_seed,
                    state=State.RUNNING,
                    started_ms=now_ms,
                    plan=_dump({name: getattr(assignment, name) for name in PLANNED}),
                )
            )

    @_repeatable
    def append(self, study: str, number: int, report: WorkerReport) -> None:
        """Records what a worker sent, all of it or nothing. The same epoch twice counts once."""
        values: dict[str, Any] = {"pid": report.pid, "delivered": False}
        if report.totals is not None:
            values["totals"] = _dump(asdict(report.totals))
        if report.compiled:
            values["compiled"] = _dump(report.compiled)
        with self._database.written() as connection:
            connection.execute(update(_trials).where(_one(study, number)).values(**values))
            if report.epochs:
                connection.execute(
                    self._database.insert(_epochs).on_conflict_do_nothing(),
                    [
                        {
                            "study": study,
                            "number": number,
                            "epoch": item.epoch,
                            "report": _dump(asdict(item)),
                        }
                        for item in report.epochs
                    ],
                )

    @_repeatable
    def end_trial(
        self,
        study: str,
        number: int,
        state: State,
        now_ms: int,
        reason: str | None = None,
        rung: int | None = None,
    ) -> None:
        """Records how a trial ended; `rung` where it was stopped."""
        with self._database.written() as connection:
            connection.execute(
                update(_trials)
                .where(_one(study, number))
                .values(
                    state=state, reason=_plain(reason), rung=rung, ended_ms=now_ms, delivered=False
                )
            )

    @_repeatable
    def reopen_trial(self, study: str, number: int) -> None:
        """Records that a trial which had not ended was handed out again."""
        values = {"state": State.RUNNING, "reason": None, "ended_ms": None, "delivered": False}
        with self._database.written() as connection:
            connection.execute(update(_trials).where(_one(study, number)).values(**values))

    @_repeatable
    def reopen_study(self, name: str, settings: Mapping[str, Any]) -> None:
        """Records that a study goes on, with the settings that it goes on with."""
        with self._database.written() as connection:
            connection.execute(delete(_told).where(_told.c.study == name))
            connection.execute(
                update(_studies)
                .where(_studies.c.name == name)
                .values(settings=_dump(settings), state=State.RUNNING, reason=None, ended_ms=None)
            )

    @_repeatable
    def trials(self, study: str) -> list[TrialRecord]:
        """A study's trials in the order of their numbers."""
        with self._database.read() as connection:
            grouped = connection.execute(
                select(_epochs.c.number, func.count())
                .where(_epochs.c.study == study)
                .group_by(_epochs.c.number)
            )
            counts: dict[int, int] = {row[0]: row[1] for row in grouped}
            tests = _test_results(connection, _tests.c.study == study)
            rows = connection.execute(
                select(_trials).where(_trials.c.study == study).order_by(_trials.c.number)
            )
            return [
                _trial(row, counts.get(row.number, 0), tests.get(row.number, ())) for row in rows
            ]

    @_repeatable
    def epochs(self, study: str, number: int) -> list[EpochReport]:
        """A trial's reports by epoch."""
        with self._database.read() as connection:
            rows = connection.scalars(
                select(_epochs.c.report)
                .where((_epochs.c.study == study) & (_epochs.c.number == number))
                .order_by(_epochs.c.epoch)
            )
            return [_epoch(text) for text in rows]

    @_repeatable
    def record_tests(self, study: str, number: int, results: Sequence[TestResult]) -> None:
        """Records what a trial's models do on the test split. The same epoch twice counts once."""
        with self._database.written() as connection:
            # First, so that no delivery is marked meanwhile.
            connection.execute(update(_trials).where(_one(study, number)).values(delivered=False))
            connection.execute(
                self._database.insert(_tests).on_conflict_do_nothing(),
                [
                    {
                        "study": study,
                        "number": number,
                        "epoch": result.epoch,
                        "measures": _dump(asdict(result.measures)),
                    }
                    for result in results
                ],
            )

    @_repeatable
    def record_costs(self, study: str, costs: Mapping[str, Costs]) -> None:
        """Records what using models costs, by `config_id`; what was recorded before is replaced."""
        with self._database.written() as connection:
            for config_id, item in costs.items():
                text = _dump(asdict(item))
                connection.execute(
                    self._database.insert(_costs)
                    .values(study=study, config_id=config_id, costs=text)
                    .on_conflict_do_update(
                        index_elements=["study", "config_id"], set_={"costs": text}
                    )
                )

    @_repeatable
    def costs(self, study: str) -> dict[str, Costs]:
        """What using the models of a study costs, by `config_id`, as far as it was measured."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(_costs).where(_costs.c.study == study).order_by(_costs.c.config_id)
            )
            found = {}
            for row in rows:
                with _cell("costs", f"study {study}"):
                    found[row.config_id] = _cost(row.costs)
            return found

    # Delivery to MLflow

    @_repeatable
    def deliveries(self, study: str, limit: int, after: int = -1) -> list[Delivery]:
        """Up to `limit` trials of which MLflow has not been told everything, oldest first.

        Only those whose number is above `after`.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                select(_trials)
                .where((_trials.c.study == study) & ~_trials.c.delivered)
                .where(_trials.c.number > after)
                .order_by(_trials.c.number)
                .limit(limit)
            ).all()
            deliveries = []
            for row in rows:
                texts = connection.scalars(
                    select(_epochs.c.report)
                    .where(
                        (_epochs.c.study == study)
                        & (_epochs.c.number == row.number)
                        & ~_epochs.c.delivered
                    )
                    .order_by(_epochs.c.epoch)
                    .limit(EPOCHS_PER_DELIVERY + 1)
                ).all()
                more = len(texts) > EPOCHS_PER_DELIVERY
                epochs = tuple(_epoch(text) for text in texts[:EPOCHS_PER_DELIVERY])
                tests = _test_results(
                    connection, (_tests.c.study == study) & (_tests.c.number == row.number)
                )
                trial = _trial(row, len(epochs), tests.get(row.number, ()))
                deliveries.append(Delivery(trial, epochs, more, row.totals, row.compiled))
            return deliveries

    @_repeatable
    def count_undelivered(self, study: str) -> int:
        """Of how many trials MLflow has not been told everything."""
        with self._database.read() as connection:
            return int(
                connection.scalar(
                    select(func.count()).where((_trials.c.study == study) & ~_trials.c.delivered)
                )
                or 0
            )

    @_repeatable
    def is_end_told(self, study: str) -> bool:
        """Whether MLflow has been told how the study ended."""
        with self._database.read() as connection:
            row = connection.execute(select(_told).where(_told.c.study == study)).first()
            return row is not None

    @_repeatable
    def set_end_told(self, study: str) -> None:
        """Records that MLflow has been told how the study ended."""
        with self._database.written() as connection:
            connection.execute(delete(_told).where(_told.c.study == study))
            connection.execute(insert(_told).values(study=study))

    @_repeatable
    def set_trial_run(self, study: str, number: int, run_id: str) -> None:
        """Records the trial's run in MLflow."""
        with self._database.written() as connection:
            connection.execute(update(_trials).where(_one(study, number)).values(run_id=run_id))

    @_repeatable
    def forget_delivery(self, study: str, numbers: Collection[int] | None = None) -> None:
        """Records that MLflow has nothing any more of some trials of a study; None: of all of it.

        They are delivered again, to other runs.
        """
        with self._database.written() as connection:
            for table in (_trials, _epochs):
                which = table.c.study == study
                if numbers is not None:
                    which &= table.c.number.in_(numbers)
                values = {"delivered": False} | ({"run_id": None} if table is _trials else {})
                connection.execute(update(table).where(which).values(**values))
            if numbers is None:
                connection.execute(delete(_told).where(_told.c.study == study))
                run = update(_studies).where(_studies.c.name == study).values(run_id=None)
                connection.execute(run)

    @_repeatable
    def mark_delivered(self, study: str, delivery: Delivery) -> None:
        """Records that MLflow has all of `delivery`; what came since stays undelivered."""
        number, trial = delivery.trial.number, delivery.trial
        with self._database.written() as connection:
            # Whoever has something new of this trial waits, so that it stays undelivered.
            connection.execute(
                select(_trials.c.number).where(_one(study, number)).with_for_update()
            )
            if delivery.epochs:
                connection.execute(
                    update(_epochs)
                    .where((_epochs.c.study == study) & (_epochs.c.number == number))
                    .where(_epochs.c.epoch <= delivery.epochs[-1].epoch)
                    .values(delivered=True)
                )
            left = connection.scalar(
                select(func.count()).where(
                    (_epochs.c.study == study) & (_epochs.c.number == number) & ~_epochs.c.delivered
                )
            )
            tested = connection.scalar(
                select(func.count()).where((_tests.c.study == study) & (_tests.c.number == number))
            )
            if not left and tested == len(trial.tests):
                connection.execute(
                    update(_trials)
                    .where(_one(study, number) & (_trials.c.state == trial.state))
                    .where(_trials.c.totals.is_not_distinct_from(delivery.totals))
                    .where(_trials.c.compiled.is_not_distinct_from(delivery.compiled))
                    .values(delivered=True)
                )

    # The test lock

    def record_opening(self, opening: Opening) -> None:
        """Records that a test split was opened."""
        with self._database.written() as connection:
            connection.execute(insert(_openings).values(**asdict(opening)))

    @_repeatable
    def openings(self, fingerprint: str | None = None) -> list[Opening]:
        """All openings across studies, oldest first; of one test split, or of all."""
        query = select(_openings).order_by(_openings.c.id)
        if fingerprint is not None:
            query = query.where(_openings.c.fingerprint == fingerprint)
        with self._database.read() as connection:
            return [
                Opening(row.fingerprint, row.study, row.reason, row.opened_ms)
                for row in connection.execute(query)
            ]

    @_repeatable
    def last_opened_ms(self, study: str) -> int | None:
        """When a study opened a test split last; None where it never did."""
        with self._database.read() as connection:
            found = connection.scalar(
                select(func.max(_openings.c.opened_ms)).where(_openings.c.study == study)
            )
            return None if found is None else int(found)


def taken(study: StudyRecord) -> str:
    """The message for a study name that is in use."""
    name, notebook = study.name, study.settings.get("notebook")
    if notebook is not None:
        return (
            f"There is a study {name!r} already, a reproduction of {notebook}. Look at it by "
            f"`podium status {name}`, or choose another --study."
        )
    return (
        f"There is a study {name!r} already. Go on with it by `podium resume {name}`, look at it "
        f"by `podium status {name}`, or choose another --study."
    )


def check_facts(study: StudyRecord) -> None:
    """Makes sure that a study has the facts without which nothing may be made of it.

    Raises:
        LedgerError: it lacks some, although every version recorded them.
    """
    for name in ("fingerprint", "test_fingerprint"):
        study.facts[name]  # raises


def way_to_a_verdict(study: StudyRecord) -> str:
    """What helps where a study has no verdict."""
    if "notebook" in study.settings:
        return "A reproduction ends without one: `podium run` begins a study that ends in one."
    resume = f"`podium resume {study.name}"
    if not study.settings.get("finalists", FINALISTS):
        return f"{resume} --finalists {FINALISTS}` confirms its best trials and judges the chosen."
    return f"{resume}` goes on with it."


def _one(study: str, number: int) -> Any:
    return (_trials.c.study == study) & (_trials.c.number == number)


def _plain(reason: str | None) -> str | None:
    """What every database takes as text: no NUL, nothing that is not Unicode."""
    return reason and reason.replace("\0", " ").encode(errors="replace").decode()


def _dump(value: Any) -> str:
    """JSON in which a NaN is null: `json` would write what no other reader takes."""
    return json.dumps(_without_nan(value), sort_keys=True)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_nan(item) for item in value]
    return value


class _Told(dict[str, Any]):
    """An object of a study's cell: it may lack what older versions did not know, unless asked."""

    def __init__(self, values: Mapping[str, Any], column: str, study: str) -> None:
        super().__init__(values)
        self._where = column, study

    def __missing__(self, key: str) -> Any:
        column, study = self._where
        raise LedgerError(
            f"The ledger's {column} of study {study} lacks {key!r}: it was damaged, or changed by "
            "something else than Podium. Put back a copy of it."
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


@contextmanager
def _cell(column: str, whose: str) -> Iterator[None]:
    """Says which cell it is that cannot be read.

    Raises:
        ValueError: whatever is wrong in it; `Database.read` makes a `LedgerError` of that.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{column} of {whose}: {error}") from error


def _object(text: str) -> dict[str, Any]:
    """The JSON object in a cell.

    Raises:
        ValueError: it is none.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {text[:80]}")
    return value


def _shaped(values: dict[str, Any], shape: Mapping[str, Any], column: str, study: str) -> _Told:
    """The object in a study's cell, once what it has is of the kinds that it may be.

    Raises:
        ValueError: something is not.
    """
    told = _Told(values, column, study)
    for key in shape.keys() & values.keys():
        value, kind = values[key], shape[key]
        nested = isinstance(kind, Mapping)
        fits = isinstance(value, dict if nested else list if isinstance(kind, list) else kind)
        if not fits or (isinstance(kind, list) and not all(isinstance(v, kind[0]) for v in value)):
            raise ValueError(f"{key} is {json.dumps(value)[:80]}")
        if nested:
            told[key] = _shaped(value, kind, column, study)
    return told


def _load(text: str) -> dict[str, Any]:
    """The reverse of `_dump`, with tuples for lists."""
    return {key: _frozen(value) for key, value in _object(text).items()}


def _valid(kind: type[Stored], values: Mapping[str, Any]) -> Stored:
    """One of Podium's records, of exactly these values.

    Raises:
        ValueError: one is of another type.
        TypeError: one is missing, or unknown.
    """
    found = kind(**values)
    ADAPTERS[kind].validate_python(values)
    return found


def _frozen(value: Any) -> Any:
    if value is None:
        return math.nan
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _epoch(text: str) -> EpochReport:
    with _cell("report", "an epoch"):
        return _valid(EpochReport, _load(text))


def _totals(text: str) -> TrialTotals:
    values = _load(text)
    if "measures" in values:
        measures = _measures(values.pop("measures"))
        return _valid(TrialTotals, {**values, "measures": measures})
    # Version 1 had only these two, by the side of accuracy and loss.
    known = {name: values.pop(name) for name in ("f1_macro", "roc_auc_ovo")}
    unknown = dict.fromkeys(("f1_micro", "roc_auc_ovr", "calibration_error"), math.nan)
    measures = Measures(
        accuracy=values["val_accuracy"],
        loss=values["val_loss"],
        **known,
        **unknown,
        precision=(),
        recall=(),
        confusion=(),
    )
    return _valid(TrialTotals, {**values, "measures": measures})


def _measures(values: Any) -> Measures:
    if not isinstance(values, dict):
        raise ValueError(f"measures is {json.dumps(values)[:80]}")
    return _valid(Measures, {key: _frozen(value) for key, value in values.items()})


def _cost(text: str) -> Costs:
    values = _object(text)
    single, batch = (_valid(Latency, values[key]) for key in ("single", "batch"))
    return _valid(Costs, {**values, "single": single, "batch": batch})


def _test_results(connection: Any, which: Any) -> dict[int, tuple[TestResult, ...]]:
    """Results on the test split by the trial's number, in the order of their epochs."""
    found: dict[int, tuple[TestResult, ...]] = {}
    ordered = select(_tests).where(which).order_by(_tests.c.number, _tests.c.epoch)
    for row in connection.execute(ordered):
        with _cell("measures", f"trial {row.number} of study {row.study} on the test split"):
            result = TestResult(row.epoch, _measures(json.loads(row.measures)))
        found[row.number] = (*found.get(row.number, ()), result)
    return found


def _check_version(name: str, version: int) -> None:
    """Raises.

    Raises:
        ConfigError: this Podium can neither read nor migrate that version.
    """
    reads = f"schema version {version}; this Podium reads versions 1 to {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{name} was written by a newer Podium: it has {reads}. Update Podium, or work in "
            "another folder."
        )
    if version < 1:
        raise ConfigError(f"{name} has {reads}. Put back a copy of it, or move it away.")


def _migrate(connection: Any, version: int) -> None:
    for step in range(version, SCHEMA_VERSION):
        for statement in MIGRATIONS[step]:
            connection.execute(text(statement))
    connection.execute(update(_meta).values(schema_version=SCHEMA_VERSION))


def _study(row: Row[Any]) -> StudyRecord:
    cells: dict[str, Any] = {"settings": {}, "facts": {}, "outcome": None}
    for column, shape in (("settings", SETTINGS), ("facts", FACTS), ("outcome", OUTCOME)):
        if text := getattr(row, column):
            with _cell(column, f"study {row.name}"):
                cells[column] = _shaped(_object(text), shape, column, row.name)
    return StudyRecord(
        name=row.name,
        state=State(row.state),
        reason=row.reason,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        run_id=row.run_id,
        **cells,
    )


def _trial(row: Row[Any], epochs_trained: int, tests: tuple[TestResult, ...]) -> TrialRecord:
    whose = f"trial {row.number} of study {row.study}"
    with _cell("config", whose):
        config = TrialConfig.model_validate_json(row.config)
    with _cell("totals", whose):
        totals = _totals(row.totals) if row.totals else None
    with _cell("compiled", whose):
        compiled = _object(row.compiled) if row.compiled else {}
    with _cell("plan", whose):
        plan = _object(row.plan) if row.plan else {}
        _shaped(plan, PLAN, "plan", row.study)
        return TrialRecord(
            number=row.number,
            phase=Phase(row.phase),
            config=config,
            seed=row.seed,
            split_seed=row.split_seed,
            state=State(row.state),
            reason=row.reason,
            rung=row.rung,
            started_ms=row.started_ms,
            ended_ms=row.ended_ms,
            totals=totals,
            compiled=compiled,
            epochs_trained=epochs_trained,
            pid=row.pid,
            run_id=row.run_id,
            **plan,
            tests=tests,
        )
