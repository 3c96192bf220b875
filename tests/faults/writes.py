"""A study that ends between any two of its writes: in one process, with a worker that only answers.

What a process that is gone leaves behind is what was written before, so that an exception in place
of the next write is the same to whoever takes the study up again.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.data import LoadedData, load
from search.director import StudyDirector
from search.ledger import Ledger
from search.records import (
    Assignment,
    Costs,
    Examination,
    Examined,
    Inspection,
    Job,
    Latency,
    Timing,
    WorkerReport,
)
from search.sampler import Sampler
from search.scheduler import make_scheduler
from search.settings import StudySettings
from search.space import find_space, open_space
from search.store import FileStore
from tests.builders import make_epoch, make_inspected, make_totals
from tests.faults.outcome import FaultOutcome, Scenario

SPACE = open_space(find_space("mlp"))
SETTINGS = StudySettings(trials=5, max_epochs=9, finalists=1, confirm_seeds=2)
WRITES = (
    *("reopen_study", "begin_trial", "append", "end_trial", "reopen_trial", "set_outcome"),
    *("record_tests", "record_costs", "record_opening"),
    *("save_checkpoint", "drop_checkpoint", "save_model"),
)


class Killed(BaseException):
    """In place of the end of the process."""


@dataclass
class Life:
    """How many writes a process has left; None: as many as it likes."""

    left: int | None = None

    def spend(self) -> None:
        """Before each write."""
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class Mortal:
    """A ledger or a store whose process ends before some write."""

    def __init__(self, inner: Any, life: Life) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in WRITES:
            return found

        def write(*args: Any, **kwargs: Any) -> Any:
            self._life.spend()
            return found(*args, **kwargs)

        return write


class Folder:
    """Where one study is run by several processes, one after the other."""

    def __init__(self, folder: Path, data: LoadedData) -> None:
        """Begins the study."""
        self._data, self._store = data, FileStore(folder)
        self.ledger = Ledger(folder / "ledger.db")
        facts = {"baseline": SPACE.baseline_config().config_id}
        self.ledger.begin_study("cut", {}, facts, 0)

    def live(self, writes: int | None, *, again: bool) -> StudyDirector | None:
        """One process, which ends with the study, or before the write after `writes`: None."""
        life = Life(writes)
        ledger: Any = Mortal(self.ledger, life)
        director = StudyDirector(
            "cut",
            SETTINGS,
            self._data,
            SPACE.baseline_config(),
            ledger,
            Sampler(SETTINGS.sampler, SPACE, self._data.training.image_shape, SETTINGS.seed),
            make_scheduler(SETTINGS),
            requirements=(),
            now_ms=lambda: 1,
            notify=lambda: None,
            store=Mortal(self._store, life),
        )
        try:
            if again:
                director.restore()
            while not director.is_finished():
                job = director.next_job()
                if job is not None:
                    self._work(director, job)
        except Killed:
            return None
        return director

    def _work(self, director: StudyDirector, job: Job) -> None:
        if not isinstance(job, Assignment):
            director.on_report(job, self._answer(job))
            return
        done = int(job.checkpoint or b"0")
        for epoch in range(done + 1, job.max_epochs + 1):
            final = epoch == job.max_epochs
            accuracy = 0.5 + int(job.config.config_id, 16) % 997 / 2500 + epoch / 1000
            report = WorkerReport(1, (make_epoch(epoch, val_accuracy=accuracy),), final=final)
            if final or epoch in job.rungs:
                totals = make_totals(best_epoch=epoch, val_accuracy=accuracy)
                report = replace(report, totals=totals)
            if final and job.keep_model:
                report = replace(report, model=b"model")
            if epoch in job.rungs:
                report = replace(report, checkpoint=str(epoch).encode())
            if not director.on_report(job, report):
                return

    def _answer(self, job: Job) -> WorkerReport:
        report = WorkerReport(1, final=True)
        if isinstance(job, Timing):
            costs = Costs(1_000, Latency(0.5, 0.9), Latency(5.0, 9.0))
            return replace(report, timed=dict.fromkeys(job.models, costs))
        if isinstance(job, Examination):
            chances = np.eye(10, dtype=np.float32)[[0] * self._data.test.size]
            return replace(report, examined=Examined(dict.fromkeys(job.models, chances), b""))
        if isinstance(job, Inspection):
            return replace(report, inspected=make_inspected())
        return report

    def told(self, director: StudyDirector) -> dict[str, object]:
        """What must not depend on interruptions."""
        trials = self.ledger.trials("cut")
        study = self.ledger.study("cut")
        return {
            "trials": [replace(t, run_id=None) for t in trials],
            "epochs": [self.ledger.epochs("cut", t.number) for t in trials],
            "openings": self.ledger.openings(),
            "outcome": study and study.outcome,
            "recommendation": director.recommendation,
            "rungs": director.progress.rungs,
        }


def end_between_writes(folder: Path, repeat: int, seed: int) -> Iterator[FaultOutcome]:
    """Ends a study, and once more its resumption, before each of their writes in turn."""
    data, began = load("digits", None, 0), time.monotonic()
    whole = Folder(folder / "whole", data)
    undisturbed = whole.live(None, again=False)
    if undisturbed is None:
        raise RuntimeError("the undisturbed study did not end")
    expected, injected = whole.told(undisturbed), 0
    losses: list[str] = []
    for writes in itertools.count():
        study = Folder(folder / str(writes), data)
        if study.live(writes, again=False) is not None:
            break
        injected += 1
        # The process that takes it up is gone at another write each time.
        if study.live(writes % 7, again=True) is None:
            injected += 1
        last = study.live(None, again=True)
        found = study.told(last) if last is not None else {}
        study.ledger.close()
        losses += [
            f"ended before write {writes}: {name} differ"
            for name in expected
            if repr(found.get(name)) != repr(expected[name])
        ]
    at = "before each write to the ledger, and of a checkpoint or model"
    yield FaultOutcome("writes", at, injected, losses, 0.0, time.monotonic() - began)


WRITTEN: dict[str, Scenario] = {"writes": end_between_writes}
WRITTEN_ABOUT = {
    "writes": "the process ends between any two writes of a study or of its resumption"
}
