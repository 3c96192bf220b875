"""A process that ends between any two writes to MLflow: of a study's end, or of a promotion.

Writes are the commits of both databases, the ledger's and MLflow's, and the copies of artifacts.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.outcome import FaultOutcome, Scenario

KILLED = 9
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlflow", "search.delivery", "tests.unsynced"])


def _prepare_sync(folder: Path) -> None:
    from tests.unsynced import ended

    ended(folder).close()


def _sync(folder: Path) -> None:
    from search.delivery import sync
    from tests.unsynced import ENDED, STUDY, open_ledger, tracking

    os.chdir(folder)
    sync(open_ledger(folder), STUDY, tracking(folder), ENDED)


def _prepare_second_verdict(folder: Path) -> None:
    """A study whose model is the champion, and whose verdict has become another."""
    from search.journal import PROMOTE, Standing, carry_out, next_entry
    from tests.unsynced import STUDY, judge_again, open_ledger

    _prepare_sync(folder)
    _sync(folder)
    standing = Standing(NAME, None, None, ())
    told = {"who": "alice", "when": "2026-01-02", "why": "it is better", "study": STUDY}
    carry_out(_client(folder), NAME, next_entry(standing, PROMOTE, "1", **told))
    judge_again(open_ledger(folder))


def _prepare_resume(folder: Path) -> None:
    from tests.unsynced import interrupted

    os.chdir(folder)
    interrupted(folder).close()


def _resume(folder: Path) -> None:
    from tests.unsynced import go_on

    os.chdir(folder)
    go_on(folder)


NAME = "podium-pets"


def _registered(folder: Path) -> Any:
    """A client of a registry with two versions of one model."""
    client = _client(folder)
    client.create_registered_model(NAME)
    for number in (1, 2):
        client.create_model_version(NAME, "somewhere", description=f"Verdict {number}.")
    return client


def _promoted(client: Any, version: str) -> None:
    from search.loading import Reload
    from search.promotion import Order, Proposal, promote
    from search.settings import GateSettings

    nothing = dict.fromkeys(GateSettings.model_fields, None) | {"reproducible_load": False}
    asked = GateSettings.model_validate(nothing)
    study = Proposal(f"study-{version}", NAME, version, {}, (), f"report-{version}")
    order = Order("alice", f"2026-01-0{version}T03:04:05+00:00", "it is better")
    promote(client, study, asked, lambda _: Reload(True, 0.0), order, lambda _: None)


def _prepare_promotion(folder: Path) -> None:
    _promoted(_registered(folder), "1")


def _promote(folder: Path) -> None:
    _promoted(_client(folder), "2")


def _prepare_rollback(folder: Path) -> None:
    client = _registered(folder)
    for version in ("1", "2"):
        _promoted(client, version)


def _roll_back(folder: Path) -> None:
    from search.loading import Reload
    from search.promotion import Order, rollback

    order = Order("bob", "2026-02-03T04:05:06+00:00", "it was slow")
    rollback(_client(folder), NAME, None, lambda _: Reload(True, 0.0), order)


def _client(folder: Path) -> Any:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/runs/mlflow.db")
    return mlflow.MlflowClient()


def _standing(folder: Path) -> dict[str, Any]:
    from tests.stores import registered_state

    return registered_state(_client(folder), NAME)


def _die_before(writes_left: int) -> list[int]:
    """Ends this process before one write too many; gives a list of one number, those done."""
    import sqlalchemy
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    done = [0]

    def spend() -> None:
        if done[0] == writes_left:
            os._exit(KILLED)
        done[0] += 1

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
    def _(connection: Any, _: Any, statement: str, *__: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            connection.info["written"] = True

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "commit")
    def _(connection: Any) -> None:
        if connection.info.pop("written", False):
            spend()

    @sqlalchemy.event.listens_for(sqlalchemy.Engine, "rollback")
    def _(connection: Any) -> None:
        connection.info.pop("written", False)

    for name in ("log_artifact", "log_artifacts"):
        copy = getattr(LocalArtifactRepository, name)

        def copied(*args: Any, _copy: Any = copy, **kwargs: Any) -> Any:
            spend()
            return _copy(*args, **kwargs)

        setattr(LocalArtifactRepository, name, copied)
    return done


def _mortal(work: Callable[[Path], None], folder: Path, writes: int) -> None:
    done = _die_before(writes)
    work(folder)
    (folder / "writes").write_text(str(done[0]))


def _in_own_process(work: Callable[..., None], *arguments: Any) -> int:
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        process.join()
    return process.exitcode or 0


def _scenario(
    fault: str,
    prepare: Callable[[Path], None],
    work: Callable[[Path], None],
    stored: Callable[[Path], dict[str, Any]],
    left: Callable[[Path], list[str]] = lambda _: [],
) -> Scenario:
    def scenario(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
        """At `repeat` points spread over all writes; at all of them where there are fewer."""
        template = folder / "template"
        _make_store(template)
        if _in_own_process(prepare, template):
            raise RuntimeError("the study could not be made")
        whole = _copy(template, folder / "whole")
        if _in_own_process(_mortal, work, whole, -1):
            raise RuntimeError("nothing works even without a fault")
        expected, count = stored(whole), int((whole / "writes").read_text())
        tries = min(repeat, count)
        points = sorted({(i * count // tries + seed) % count for i in range(tries)})
        for point in points:
            began = time.monotonic()
            here = _copy(template, folder / f"at-{point:03d}")
            code = _in_own_process(_mortal, work, here, point)
            losses = (
                [] if code == KILLED else [f"the process was to be killed, and ended with {code}"]
            )
            if _in_own_process(_mortal, work, here, -1):
                losses.append("the second process failed")
            losses += _unlike(expected, stored(here)) + left(here)
            # Once more: nothing may come twice.
            if _in_own_process(_mortal, work, here, -1):
                losses.append("the third process failed")
            losses += _unlike(expected, stored(here))
            if not losses:
                shutil.rmtree(here)
            seconds = time.monotonic() - began
            yield FaultOutcome(fault, f"write {point} of {count}", 1, losses, 0.0, seconds)

    return scenario


def _make_store(folder: Path) -> None:
    from tests.stores import new_store

    new_store(folder)


def _copy(template: Path, folder: Path) -> Path:
    """A folder like the template; the databases hold its path nowhere but in MLflow's artifacts."""
    import sqlite3
    from contextlib import closing

    shutil.copytree(template, folder)
    with closing(sqlite3.connect(folder / "runs" / "mlflow.db")) as connection:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            connection.execute(
                f"update {table} set {column} = replace({column}, ?, ?)",
                (str(template), str(folder)),
            )
        connection.commit()
    return folder


def _told(folder: Path) -> dict[str, Any]:
    from tests.unsynced import stored

    return stored(folder)


def _left(folder: Path) -> list[str]:
    from search.delivery import left
    from search.folder import find_study
    from tests.unsynced import STUDY, open_ledger

    ledger = open_ledger(folder)
    missing = left(ledger, find_study(ledger, STUDY))
    ledger.close()
    return [f"the ledger says that MLflow lacks {missing}"] if missing else []


def _unlike(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Where MLflow's contents are not those after an undisturbed process."""
    losses = []
    for part, wanted in expected.items():
        have = found[part]
        if have != wanted:
            missing = [item for item in wanted if item not in have]
            extra = [item for item in have if item not in wanted]
            losses.append(f"{part}: missing {str(missing)[:200]}, extra {str(extra)[:200]}")
    return losses


COMMITS: dict[str, Scenario] = {
    "sync-killed": _scenario("sync-killed", _prepare_sync, _sync, _told, _left),
    "verdict-killed": _scenario("verdict-killed", _prepare_second_verdict, _sync, _told, _left),
    "take-up-killed": _scenario("take-up-killed", _prepare_resume, _resume, _told, _left),
    "promote-killed": _scenario("promote-killed", _prepare_promotion, _promote, _standing),
    "rollback-killed": _scenario("rollback-killed", _prepare_rollback, _roll_back, _standing),
}
COMMITS_ABOUT = {
    "sync-killed": "the process of `podium sync` ends between two writes",
    "verdict-killed": "the process that tells MLflow of a second verdict ends between two writes",
    "take-up-killed": "the process that takes a study up again ends between two writes to MLflow",
    "promote-killed": "the process of `podium promote` ends between two writes",
    "rollback-killed": "the process of `podium rollback` ends between two writes",
}
