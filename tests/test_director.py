"""The state machine of a study, without Ray: every path from first trial to verdict."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from search.budget import CLOSING_SECONDS
from search.data import LoadedData, load
from search.director import HOPELESS_AFTER, VERDICT, StudyDirector
from search.ledger import Ledger
from search.limits import PATIENCE_SECONDS
from search.records import (
    Assignment,
    Champion,
    ConfigError,
    Costs,
    EpochReport,
    Examination,
    Examined,
    Inspection,
    Job,
    Latency,
    Phase,
    State,
    StudyFailed,
    Timing,
    WorkerReport,
)
from search.sampler import Sampler
from search.scheduler import make_scheduler
from search.settings import StudySettings
from search.space import Space, find_space, listed_space, open_space
from search.store import FileStore, MemoryStore, TrialStore
from spaces.config import TrialConfig
from tests.builders import make_inspected, make_totals

SPACE = open_space(find_space("mlp"))
INSPECTED = make_inspected()
COSTS = Costs(1_000, Latency(0.5, 0.9), Latency(5.0, 9.0))
Make = Callable[..., StudyDirector]


@pytest.fixture
def data() -> LoadedData:
    return load("digits", None, 0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db")


@pytest.fixture
def make(data: LoadedData, ledger: Ledger) -> Make:
    def build(
        space: Space = SPACE,
        champion: Champion | None = None,
        store: TrialStore | None = None,
        again: bool = False,
        clock: Callable[[], float] = lambda: 0.0,
        **values: object,
    ) -> StudyDirector:
        settings = StudySettings.model_validate(
            {"trials": 6, "max_epochs": 6, "finalists": 2, "confirm_seeds": 2, **values}
        )
        if not again:
            ledger.begin_study("s", {}, {"baseline": SPACE.baseline_config().config_id}, 0)
        return StudyDirector(
            "s",
            settings,
            data,
            SPACE.baseline_config(),
            ledger,
            Sampler(settings.sampler, space, (8, 8, 1), settings.seed),
            make_scheduler(settings),
            requirements=(),
            now_ms=lambda: 1,
            notify=lambda: None,
            champion=lambda: (champion, ""),
            store=store,
            concurrent=2,
            clock=clock,
        )

    return build


def _report(epoch: int, accuracy: float, final: bool, **more: object) -> WorkerReport:
    item = EpochReport(epoch, 1.0, 0.5, 1.0, accuracy, 0.1, 100.0, epoch)
    totals = make_totals(best_epoch=epoch, val_accuracy=accuracy)
    return WorkerReport(1, (item,), totals=totals, final=final, **more)  # type: ignore[arg-type]


def _crash(director: StudyDirector, job: Job, reason: str) -> None:
    """Kills the job's worker, and those that it is given to after that, until it is given up."""
    for _ in range(2):
        director.on_crash(job, reason)
        assert director.next_job() is job
    director.on_crash(job, reason)


def _finish(director: StudyDirector, job: Assignment, accuracy: float) -> None:
    model = b"model" if job.keep_model else None
    assert not director.on_report(job, _report(job.max_epochs, accuracy, True, model=model))


def _examined(job: Examination, data: LoadedData) -> Examined:
    return Examined(
        {key: np.eye(10, dtype=np.float32)[[0] * data.test.size] for key in job.models}, b""
    )


def _answer(director: StudyDirector, job: Job, data: LoadedData) -> None:
    """What a worker says of anything but a trial."""
    report = WorkerReport(1, final=True)
    if isinstance(job, Timing):
        report = replace(report, timed=dict.fromkeys(job.models, COSTS))
    elif isinstance(job, Examination):
        report = replace(report, examined=_examined(job, data))
    elif isinstance(job, Inspection):
        report = replace(report, inspected=INSPECTED)
    assert not director.on_report(job, report)


def _run(
    director: StudyDirector, data: LoadedData, score: Callable[[Assignment], float]
) -> list[Assignment]:
    """Runs to the end with one job at a time; returns the assignments in order."""
    jobs = []
    while not director.is_finished():
        job = director.next_job()
        if isinstance(job, Assignment):
            jobs.append(job)
            _finish(director, job, score(job))
        elif job is not None:
            _answer(director, job, data)
    return jobs


def test_a_study_goes_from_search_over_confirmation_to_one_verdict(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    phases = [job.phase for job in jobs]
    assert phases == [Phase.SEARCH] * 6 + [Phase.CONFIRM] * 6
    assert [job.number for job in jobs] == list(range(12))
    assert director.verdict is not None
    assert director.recommendation is not None
    assert len(ledger.openings(data.test.fingerprint)) == 1


def test_the_finalists_are_the_best_and_the_baseline_is_always_confirmed(
    make: Make, data: LoadedData
) -> None:
    director = make()
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    confirmed = {job.config.config_id for job in jobs if job.phase is Phase.CONFIRM}
    assert confirmed == {
        SPACE.baseline_config().config_id,
        jobs[5].config.config_id,
        jobs[4].config.config_id,
    }


def test_without_finalists_nothing_is_confirmed_and_the_test_split_stays_locked(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(finalists=0)
    jobs = _run(director, data, lambda job: 0.5)
    assert {job.phase for job in jobs} == {Phase.SEARCH}
    assert director.verdict is None
    assert ledger.openings(data.test.fingerprint) == []


@pytest.mark.parametrize("before", [0, 1])
def test_a_study_that_has_ended_may_confirm_more_finalists(
    make: Make, data: LoadedData, ledger: Ledger, tmp_path: Path, before: int
) -> None:
    store = FileStore(tmp_path)

    def accuracy(job: Assignment) -> float:
        return 0.5 + job.number / 100

    searched = _run(make(finalists=before, store=store), data, accuracy)
    resumed = make(finalists=2, store=store, again=True)
    resumed.restore()
    jobs = _run(resumed, data, accuracy)
    assert [job.phase for job in jobs] == [Phase.CONFIRM] * (6 if before == 0 else 2)
    confirmed = {j.config.config_id for j in [*searched, *jobs] if j.phase is Phase.CONFIRM}
    assert confirmed == {
        SPACE.baseline_config().config_id,
        searched[5].config.config_id,
        searched[4].config.config_id,
    }
    assert resumed.verdict is not None


def test_the_phase_is_search_until_its_last_trial_has_ended(make: Make) -> None:
    director = make(trials=1)
    searching = director.next_job()
    assert isinstance(searching, Assignment)
    filler = director.next_job()
    assert isinstance(filler, Assignment)
    assert filler.phase is Phase.CONFIRM
    assert director.progress.phase == "search"
    _finish(director, searching, 0.6)
    director.next_job()
    assert director.progress.phase == "confirm"


def test_the_baseline_fills_the_wait_for_the_last_trial_of_the_search(make: Make) -> None:
    director = make(trials=2)
    first, second = director.next_job(), director.next_job()
    assert isinstance(first, Assignment)
    assert isinstance(second, Assignment)
    _finish(director, first, 0.6)
    filler = director.next_job()
    assert isinstance(filler, Assignment)
    assert filler.phase is Phase.CONFIRM
    assert filler.config == SPACE.baseline_config()
    director.next_job()
    assert director.next_job() is None
    _finish(director, second, 0.7)
    assert isinstance(director.next_job(), Assignment)


def test_a_weak_trial_is_stopped_at_its_rung_and_the_ledger_says_why(
    make: Make, ledger: Ledger
) -> None:
    director = make()
    strong, weak = director.next_job(), director.next_job()
    assert isinstance(strong, Assignment)
    assert isinstance(weak, Assignment)
    assert director.on_report(strong, _report(2, 0.9, False))
    assert not director.on_report(weak, _report(2, 0.1, False))
    record = ledger.trials("s")[weak.number]
    assert (record.state, record.rung) == (State.STOPPED, 2)
    assert "0.1000 is not among the best 1 of 2" in str(record.reason)


def test_a_failed_trial_is_recorded_and_the_study_goes_on(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    job = director.next_job()
    assert isinstance(job, Assignment)
    assert not director.on_report(job, WorkerReport(1, final=True, failure="no luck"))
    _run(director, data, lambda job: 0.5 + job.number / 100)
    record = ledger.trials("s")[0]
    assert (record.state, record.reason) == (State.FAILED, "no luck")
    assert director.verdict is not None


def test_a_trial_whose_worker_died_goes_on_from_its_checkpoint(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    job = director.next_job()
    assert isinstance(job, Assignment)
    director.on_report(job, _report(2, 0.9, False, checkpoint=b"after 2"))
    director.on_crash(job, "the worker process died")
    again = director.next_job()
    assert again == replace(job, checkpoint=b"after 2", begun=True)
    assert ledger.trials("s")[0].state is State.RUNNING
    _finish(director, again, 0.95)
    _run(director, data, lambda job: 0.5)
    assert ledger.trials("s")[0].state is State.COMPLETED
    assert len([t for t in ledger.trials("s") if t.phase is Phase.SEARCH]) == 6


def test_a_worker_that_dies_too_often_fails_its_trial_only(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(retries=2)
    for _ in range(3):
        job = director.next_job()
        assert isinstance(job, Assignment)
        assert job.number == 0
        director.on_crash(job, "the worker process died")
    _run(director, data, lambda job: 0.5 + job.number / 100)
    first = ledger.trials("s")[0]
    assert (first.state, first.reason) == (State.FAILED, "the worker process died")
    assert director.verdict is not None


def test_the_study_fails_when_the_first_five_trials_all_fail(make: Make) -> None:
    director = make(trials=20)
    for number in range(HOPELESS_AFTER):
        job = director.next_job()
        assert isinstance(job, Assignment)
        report = WorkerReport(1, final=True, failure="out of luck")
        if number < HOPELESS_AFTER - 1:
            director.on_report(job, report)
        else:
            with pytest.raises(StudyFailed, match="first 5 trials all failed; 5 of them: out of"):
                director.on_report(job, report)


def test_the_study_fails_when_fewer_trials_all_fail(make: Make) -> None:
    director = make(trials=1)
    job = director.next_job()
    assert isinstance(job, Assignment)
    assert director.next_job() is not None  # the baseline's first run
    with pytest.raises(StudyFailed, match="first 1 trials all failed"):
        director.on_report(job, WorkerReport(1, final=True, failure="out of luck"))


def test_a_finalist_that_fails_in_confirmation_is_no_candidate(
    make: Make, data: LoadedData
) -> None:
    director = make()
    failed = None
    while not director.is_finished():
        job = director.next_job()
        assert job is not None
        if not isinstance(job, Assignment):
            _answer(director, job, data)
        elif job.phase is Phase.CONFIRM and job.config != SPACE.baseline_config() and not failed:
            failed = job.config.config_id
            director.on_report(job, WorkerReport(1, final=True, failure="diverged"))
        else:
            _finish(director, job, 0.5 + job.number / 100)
    assert director.recommendation is not None
    ids = {r.candidate.config.config_id for r in director.recommendation.ranked}
    assert len(ids) == 2
    assert failed not in ids


def test_a_baseline_that_fails_in_confirmation_fails_the_study(make: Make) -> None:
    director = make(trials=1)
    search = director.next_job()
    assert isinstance(search, Assignment)
    _finish(director, search, 0.9)
    with pytest.raises(StudyFailed, match="baseline failed in confirmation: diverged"):
        _confirm(director, lambda job: WorkerReport(1, final=True, failure="diverged"))


def test_a_baseline_that_failed_is_told_before_the_finalists_are_confirmed(
    make: Make, ledger: Ledger
) -> None:
    director = make(trials=1)
    _finish(director, _begin(director), 0.9)
    jobs = [_begin(director) for _ in range(4)]
    own = next(job for job in jobs if job.config == SPACE.baseline_config())
    with pytest.raises(StudyFailed, match="baseline failed in confirmation: diverged"):
        director.on_report(own, WorkerReport(1, final=True, failure="diverged"))
    assert ledger.trials("s")[own.number].state is State.FAILED


@pytest.mark.parametrize(
    ("limits", "fail", "way_out"),
    [
        (
            {"trial_timeout": 60},
            lambda director, job: director.on_report(job, _report(1, 0.5, False)),
            "`podium resume s --trial-timeout 120`",
        ),
        (
            {"retries": 0},
            lambda director, job: director.on_crash(job, "the worker process died"),
            "`podium resume s --retries 3`",
        ),
    ],
)
def test_a_baseline_that_a_limit_failed_is_trained_again_where_it_is_raised(
    make: Make,
    data: LoadedData,
    ledger: Ledger,
    limits: dict[str, Any],
    fail: Callable[[StudyDirector, Job], object],
    way_out: str,
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(trials=1, clock=clock, store=store, **limits)
    search = _begin(director)
    own = _begin(director)
    assert own.config == SPACE.baseline_config()
    _finish(director, search, 0.9)
    clock.now += 60
    with pytest.raises(StudyFailed, match=way_out):
        fail(director, own)
    director.close_open_trials("the study ended before it")
    raised = dict.fromkeys(limits, 100)
    resumed = make(trials=1, clock=clock, store=store, again=True, **raised)
    resumed.restore()
    jobs = _run(resumed, data, lambda job: 0.5)
    again = [job for job in jobs if (job.config, job.seed) == (own.config, own.seed)]
    assert [job.number > own.number for job in again] == [True]
    assert ledger.trials("s")[own.number].state is State.FAILED, "its reports stay"
    assert resumed.verdict is not None
    assert resumed.recommendation is not None
    assert again[0].number in resumed.recommendation.baseline.trials


def test_a_baseline_that_no_limit_failed_is_told_to_be_changed(make: Make) -> None:
    director = make(trials=1, retries=0)
    _finish(director, _begin(director), 0.9)
    jobs = [_begin(director) for _ in range(4)]
    own = next(job for job in jobs if job.config == SPACE.baseline_config())
    with pytest.raises(StudyFailed, match=r"out of memory.*another study with another baseline"):
        director.on_crash(own, "out of memory", retry=False)


def _confirm(
    director: StudyDirector, baseline: Callable[[Assignment], WorkerReport | None]
) -> Examination:
    """Confirms; `baseline` answers for the baseline's trials, with None for a crash."""
    while True:
        job = director.next_job()
        assert job is not None
        if isinstance(job, Examination):
            return job
        if isinstance(job, Timing):
            director.on_crash(job, "killed")
            continue
        assert isinstance(job, Assignment)
        if job.config != SPACE.baseline_config():
            _finish(director, job, 0.9)
        elif (report := baseline(job)) is None:
            director.on_crash(job, "killed")
        else:
            director.on_report(job, report)


def test_a_confirmation_that_crashed_is_tried_again_as_the_same_trial(
    make: Make, ledger: Ledger
) -> None:
    director = make(trials=1)
    search = director.next_job()
    assert isinstance(search, Assignment)
    _finish(director, search, 0.9)
    seen: list[tuple[int, int]] = []

    def once(job: Assignment) -> WorkerReport | None:
        seen.append((job.number, job.seed))
        return _report(6, 0.8, True, model=b"model") if len(seen) > 1 else None

    _confirm(director, once)
    assert seen[0] in seen[1:]
    assert director.recommendation is not None
    assert len(director.recommendation.baseline.accuracies) == 2
    assert len([t for t in ledger.trials("s") if t.config == SPACE.baseline_config()]) == 2


def test_a_confirmation_that_crashes_too_often_is_given_up(make: Make) -> None:
    director = make(trials=1)
    search = director.next_job()
    assert isinstance(search, Assignment)
    _finish(director, search, 0.9)
    with pytest.raises(StudyFailed, match="baseline failed in confirmation: killed"):
        _confirm(director, lambda job: None)


def test_the_study_fails_when_one_worker_sees_all_trials_fail(make: Make) -> None:
    director = make(trials=2, finalists=0)
    for _ in range(2):
        job = director.next_job()
        assert isinstance(job, Assignment)
        director.on_report(job, WorkerReport(1, final=True, failure="out of luck"))
    with pytest.raises(StudyFailed, match="first 2 trials all failed; 2 of them: out of luck"):
        director.next_job()


def test_a_space_that_breaks_its_contract_late_fails_the_study(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = make()

    def broken(_: int) -> None:
        raise ConfigError("Space mlp: suggest() failed: rare bad luck")

    monkeypatch.setattr(director._sampler, "ask", broken)
    with pytest.raises(StudyFailed, match="rare bad luck"):
        director.next_job()


def test_the_model_with_the_best_validation_of_each_candidate_is_examined(
    make: Make, data: LoadedData
) -> None:
    director = make(trials=1, finalists=1)
    examination = None
    while examination is None:
        job = director.next_job()
        assert job is not None
        if isinstance(job, Examination):
            examination = job
            continue
        if not isinstance(job, Assignment):
            _answer(director, job, data)
            continue
        lead = 0.0 if job.config == SPACE.baseline_config() else 0.3
        accuracy = 0.5 + lead + job.number / 100
        model = f"{job.config.config_id} {job.number}".encode() if job.keep_model else None
        director.on_report(job, _report(6, accuracy, True, model=model))
    assert director.recommendation is not None
    recommended, baseline = director.recommendation.winner, SPACE.baseline_config()
    assert set(examination.models) == {"recommended", "baseline"}
    for name, config in (("recommended", recommended.config), ("baseline", baseline)):
        config_id, number = examination.models[name].decode().split()
        assert config_id == config.config_id
        assert int(number) in (2, 4)  # the second of each candidate's two runs


def test_the_longest_finalist_is_confirmed_first(make: Make, data: LoadedData) -> None:
    director = make(trials=3, finalists=3)
    seconds = {0: 5.0, 1: 50.0, 2: 0.5}
    searched = {}
    for _ in range(3):
        job = director.next_job()
        assert isinstance(job, Assignment)
        searched[job.config.config_id] = job.number
        report = _report(job.max_epochs, 0.8, True)
        totals = dataclasses.replace(report.totals, wall_seconds=seconds[job.number])
        director.on_report(job, dataclasses.replace(report, totals=totals))
    order = [director.next_job() for _ in range(6)]
    assert [searched[job.config.config_id] for job in order] == [1, 1, 0, 0, 2, 2]


def test_the_ledger_hears_first(
    make: Make, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = make()
    job = director.next_job()
    assert isinstance(job, Assignment)

    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ledger, "append", refuse)
    heard: list[object] = []
    monkeypatch.setattr(director._sampler, "report", lambda *a: heard.append(a))
    monkeypatch.setattr(director._scheduler, "decide", lambda *a: heard.append(a))
    with pytest.raises(OSError, match="disk full"):
        director.on_report(job, _report(2, 0.9, False))
    assert heard == []


def test_a_study_that_ends_early_leaves_no_trial_open(make: Make, ledger: Ledger) -> None:
    director = make()
    director.next_job()
    director.next_job()
    director.close_open_trials("interrupted")
    assert [t.state for t in ledger.trials("s")] == [State.INTERRUPTED] * 2
    assert {t.reason for t in ledger.trials("s")} == {"interrupted"}


def test_an_exhausted_grid_ends_the_search(
    make: Make, data: LoadedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = make()
    ask = director._sampler.ask
    monkeypatch.setattr(director._sampler, "ask", lambda n: ask(n) if n < 3 else None)
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    assert sum(job.phase is Phase.SEARCH for job in jobs) == 3
    assert director.progress.search_total == 3


# Folds, epochs of a configuration's own, and a look into the model


def test_folds_are_for_the_search_and_confirmation_is_on_one_split(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(folds=5)
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    assert {(job.phase, job.folds) for job in jobs} == {(Phase.SEARCH, 5), (Phase.CONFIRM, 0)}
    assert {(t.phase, t.folds) for t in ledger.trials("s")} == {
        (Phase.SEARCH, 5),
        (Phase.CONFIRM, 0),
    }
    searched = [job for job in jobs if job.phase is Phase.SEARCH]
    assert len({job.split_seed for job in searched}) == 1
    assert director.verdict is not None


def test_without_folds_no_trial_has_any(make: Make, data: LoadedData) -> None:
    assert {job.folds for job in _run(make(), data, lambda job: 0.5)} == {0}


def _with_epochs(*epochs: str) -> Space:
    return listed_space(SPACE, {"epochs": epochs})


def test_a_configurations_own_epochs_come_before_those_of_the_study(make: Make) -> None:
    director = make(_with_epochs("3", "40", "none"), sampler="grid", trials=3)
    jobs = [director.next_job() for _ in range(3)]
    found = {job.config.epochs: job.max_epochs for job in jobs if isinstance(job, Assignment)}
    assert found == {3: 3, 40: 40, None: 6}


def test_a_configurations_own_epochs_hold_in_confirmation_as_well(
    make: Make, data: LoadedData
) -> None:
    director = make(_with_epochs("3"), trials=1)
    jobs = _run(director, data, lambda job: 0.5)
    confirmed = [job for job in jobs if job.phase is Phase.CONFIRM]
    assert {(job.config.epochs, job.max_epochs) for job in confirmed} == {(3, 3), (None, 6)}


@pytest.mark.parametrize(
    ("epochs", "rungs"), [("30", (2, 6)), ("7", (2, 6)), ("6", (2,)), ("3", (2,)), ("2", ())]
)
def test_no_rung_lies_at_or_after_a_configurations_last_epoch(
    epochs: str, rungs: tuple[int, ...], make: Make
) -> None:
    director = make(_with_epochs(epochs), max_epochs=18)
    job = director.next_job()
    assert isinstance(job, Assignment)
    assert (job.max_epochs, job.rungs) == (int(epochs), rungs)


def _until_inspection(director: StudyDirector, data: LoadedData) -> Inspection:
    while True:
        job = director.next_job()
        assert job is not None
        if isinstance(job, Inspection):
            return job
        if not isinstance(job, Assignment):
            _answer(director, job, data)
        else:
            model = f"model {job.number}".encode() if job.keep_model else None
            report = _report(job.max_epochs, 0.5 + job.number / 100, True, model=model)
            director.on_report(job, report)


def test_the_model_that_was_looked_into_is_the_one_that_is_shipped(
    make: Make, data: LoadedData
) -> None:
    director = make()
    job = _until_inspection(director, data)
    assert director.recommendation is not None
    assert director.shipped is not None
    assert director.shipped.config == director.recommendation.winner.config
    assert director.shipped.number in director.recommendation.winner.trials
    assert job.model == f"model {director.shipped.number}".encode()
    assert (job.split_seed, job.folds) == (director.shipped.split_seed, 0)
    assert not director.is_finished()
    assert director.is_settled()
    assert director.next_job() is None
    director.on_report(job, WorkerReport(1, final=True, inspected=INSPECTED))
    assert director.inspected is INSPECTED
    assert director.inspection_failure is None
    assert director.is_finished()


def test_the_test_figures_of_the_shipped_model_stand_with_its_trial(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    _run(director, data, lambda job: 0.5 + job.number / 100)
    assert director.verdict is not None
    assert director.shipped is not None
    tested = {t.number: t.tests for t in ledger.trials("s") if t.tests}
    assert list(tested) == [director.shipped.number]
    [result] = tested[director.shipped.number]
    assert (result.epoch, result.measures) == (6, director.verdict.tested.measures)


@pytest.mark.parametrize("how", ["fails", "crashes"])
def test_a_study_stands_without_a_look_into_its_model(
    make: Make, data: LoadedData, how: str
) -> None:
    director = make()
    job = _until_inspection(director, data)
    if how == "fails":
        assert not director.on_report(job, WorkerReport(1, final=True, failure="out of memory"))
    else:
        _crash(director, job, "out of memory")
    assert director.is_finished()
    assert director.inspection_failure == "out of memory"
    assert director.inspected is None
    assert director.verdict is not None


def test_a_study_is_settled_once_its_verdict_stands(make: Make, data: LoadedData) -> None:
    director = make()
    while director.verdict is None:
        assert not director.is_settled()
        job = director.next_job()
        assert not isinstance(job, Inspection)
        assert job is not None
        if isinstance(job, Assignment):
            _finish(director, job, 0.5)
        else:
            _answer(director, job, data)
    assert director.is_settled()


def test_a_search_without_finalists_is_settled_with_its_last_trial(
    make: Make, data: LoadedData
) -> None:
    director = make(finalists=0)
    assert not director.is_settled()
    _run(director, data, lambda job: 0.5)
    assert director.is_settled()


def test_who_passed_more_rungs_is_a_finalist_before_who_only_looked_better(
    make: Make, data: LoadedData
) -> None:
    """A short configuration that ran to its end has passed fewer rungs than a longer one."""
    space = listed_space(SPACE, {"epochs": ("2", "30"), "batch_size": ("32",)})
    director = make(space, sampler="grid", trials=2, finalists=1, max_epochs=18)
    jobs = [director.next_job(), director.next_job()]
    searched = {job.config.epochs: job for job in jobs if isinstance(job, Assignment)}
    _finish(director, searched[2], 0.9)
    for rung in searched[30].rungs:
        assert director.on_report(searched[30], _report(rung, 0.95, False))
    _finish(director, searched[30], 0.6)
    confirmed = {
        job.config.epochs
        for job in _run(director, data, lambda job: 0.5)
        if job.phase is Phase.CONFIRM
    }
    assert confirmed == {None, 30}


def test_the_best_trial_is_a_finalist_whatever_bracket_it_was_dealt_to(
    make: Make, data: LoadedData
) -> None:
    """One of a later bracket has fewer rungs to pass."""
    director = make(trials=3, finalists=1, max_epochs=18, scheduler="hyperband")
    jobs = [_begin(director) for _ in range(3)]
    assert [job.rungs for job in jobs] == [(2, 6), (2, 6), (6,)]
    for job, accuracy in zip(jobs, (0.6, 0.6, 0.99), strict=True):
        _finish(director, job, accuracy)
    confirmed = {job.config for job in _run(director, data, lambda job: 0.5)}
    assert confirmed == {SPACE.baseline_config(), jobs[2].config}


def test_a_trial_that_patience_ended_missed_no_rung(make: Make, data: LoadedData) -> None:
    director = make(trials=2, finalists=1, max_epochs=18)
    long, patient = _begin(director), _begin(director)
    for rung in long.rungs:
        assert director.on_report(long, _report(rung, 0.5, False))
    assert director.on_report(patient, _report(2, 0.9, False))
    assert not director.on_report(patient, _report(5, 0.99, True))
    _finish(director, long, 0.62)
    confirmed = {job.config for job in _run(director, data, lambda job: 0.5)}
    assert confirmed == {SPACE.baseline_config(), patient.config}


def test_an_inspection_is_no_trial_of_the_ledger(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    _crash(director, _until_inspection(director, data), "killed")
    assert {t.state for t in ledger.trials("s")} == {State.COMPLETED}
    assert len(ledger.trials("s")) == 6 + 3 * 2


def test_a_listed_grid_is_searched_through_once(make: Make, data: LoadedData) -> None:
    space = listed_space(SPACE, {"batch_size": ("10", "32"), "optimizer": ("sgd", "adam")})
    director = make(space, sampler="grid", trials=50)
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    searched = [job.config for job in jobs if job.phase is Phase.SEARCH]
    assert len(searched) == len(set(searched)) == 4
    assert TrialConfig(batch_size=10, optimizer="sgd") in searched


# Costs, the champion, constraints


def _make_champion(data: LoadedData, **values: object) -> Champion:
    fields: dict[str, object] = {
        "name": "podium-digits",
        "version": "3",
        "study": "earlier",
        "config": TrialConfig(hidden=(77,)),
        "space": "mlp",
        "test_fingerprint": data.test.fingerprint,
        "model": b"champion's own",
    }
    return Champion(**(fields | values))  # type: ignore[arg-type]


def _until(director: StudyDirector, data: LoadedData, kind: type[Job]) -> Job:
    """Runs until a job of some kind is handed out, and returns that."""
    while True:
        job = director.next_job()
        assert job is not None
        if isinstance(job, kind):
            return job
        if isinstance(job, Assignment):
            _finish(director, job, 0.5 + job.number / 100)
        else:
            _answer(director, job, data)


def test_costs_are_measured_once_of_every_candidate_when_nothing_else_is_under_way(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    job = _until(director, data, Timing)
    assert isinstance(job, Timing)
    confirmed = {t.config.config_id for t in ledger.trials("s") if t.phase is Phase.CONFIRM}
    assert set(job.models) == confirmed
    assert job.image_shape == (8, 8, 1)
    assert {t.state for t in ledger.trials("s")} == {State.COMPLETED}
    assert director.next_job() is None, "the other workers wait until the timing is over"
    _answer(director, job, data)
    assert ledger.costs("s") == dict.fromkeys(confirmed, COSTS)
    assert isinstance(director.next_job(), Examination)
    assert director.recommendation is not None
    assert {r.candidate.costs for r in director.recommendation.ranked} == {COSTS}


@pytest.mark.parametrize("how", ["fails", "crashes"])
def test_a_study_stands_without_costs(
    make: Make, data: LoadedData, ledger: Ledger, how: str
) -> None:
    director = make()
    job = _until(director, data, Timing)
    if how == "fails":
        assert not director.on_report(job, WorkerReport(1, final=True, failure="out of memory"))
    else:
        _crash(director, job, "out of memory")
    _run(director, data, lambda job: 0.5)
    assert director.verdict is not None
    assert ledger.costs("s") == {}


def test_the_champions_configuration_is_confirmed_and_its_own_model_is_tested(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    champion = _make_champion(data)
    director = make(champion=champion)
    examination = _until(director, data, Examination)
    assert isinstance(examination, Examination)
    confirmed = [t.config for t in ledger.trials("s") if t.phase is Phase.CONFIRM]
    assert confirmed.count(TrialConfig(hidden=(77,))) == 2, "on each of the two seeds"
    assert set(examination.models) == {"recommended", "baseline", "champion"}
    assert examination.models["champion"] == b"champion's own"
    _answer(director, examination, data)
    assert director.verdict is not None
    contest = director.verdict.against("champion")
    assert contest is not None
    assert contest.name == "models:/podium-digits/3"
    assert director.recommendation is not None
    assert [r.candidate.is_champion for r in director.recommendation.ranked].count(True) == 1
    assert len(ledger.openings(data.test.fingerprint)) == 1, "one look for all three"


def test_a_champion_that_was_judged_on_other_images_is_not_tested_on_these(
    make: Make, data: LoadedData
) -> None:
    director = make(champion=_make_champion(data, test_fingerprint="other"))
    examination = _until(director, data, Examination)
    assert isinstance(examination, Examination)
    assert set(examination.models) == {"recommended", "baseline"}
    _answer(director, examination, data)
    assert director.verdict is not None
    assert director.verdict.headline.endswith("Its own model was not compared on these images.")
    outcome = director.outcome()
    assert outcome["champion_note"].startswith("models:/podium-digits/3 was judged on another")
    assert (outcome["champion"]["same_test"], outcome["champion"]["compared"]) == (False, False)


def test_a_champion_that_does_not_load_costs_the_comparison_and_nothing_else(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(champion=_make_champion(data))
    examination = _until(director, data, Examination)
    assert isinstance(examination, Examination)
    assert examination.dispensable == ("champion",)
    found = _examined(examination, data)
    known = {k: v for k, v in found.probabilities.items() if k != "champion"}
    partial = replace(found, probabilities=known, failures={"champion": "no class MyLayer"})
    director.on_report(examination, WorkerReport(1, final=True, examined=partial))
    assert director.verdict is not None
    assert director.verdict.against("champion") is None
    assert director.verdict.against("baseline") is not None
    assert director.champion_note == "its model could not be loaded here: no class MyLayer"


def test_the_verdict_is_in_the_ledger_before_anything_follows_it(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    _until(director, data, Inspection)
    study = ledger.study("s")
    assert study is not None
    assert study.outcome is not None
    assert director.verdict is not None
    assert study.outcome["verdict"]["sentence"] == director.verdict.sentence
    assert study.outcome["trial"] == director.shipped.number if director.shipped else False


def test_a_champion_of_which_the_configuration_is_not_known_is_tested_but_not_confirmed(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(champion=_make_champion(data, config=None))
    examination = _until(director, data, Examination)
    assert isinstance(examination, Examination)
    assert "champion" in examination.models
    confirmed = {t.config for t in ledger.trials("s") if t.phase is Phase.CONFIRM}
    assert len(confirmed) == 3


def test_a_champion_with_the_baselines_configuration_is_confirmed_once(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(champion=_make_champion(data, config=SPACE.baseline_config()))
    _run(director, data, lambda job: 0.5 + job.number / 100)
    confirmed = [t.config for t in ledger.trials("s") if t.phase is Phase.CONFIRM]
    assert confirmed.count(SPACE.baseline_config()) == 2
    assert director.recommendation is not None
    assert director.recommendation.baseline.is_champion


def test_what_is_too_large_is_no_finalist(make: Make, data: LoadedData, ledger: Ledger) -> None:
    """It could not be recommended, so that confirming it would be wasted."""
    director = make(max_params=500)
    while len([t for t in ledger.trials("s") if t.ended_ms]) < 6:
        job = director.next_job()
        assert isinstance(job, Assignment)
        report = _report(job.max_epochs, 0.5 + job.number / 100, True)
        assert report.totals is not None
        size = 1_000 if job.number in (4, 5) else 100
        director.on_report(job, replace(report, totals=replace(report.totals, parameters=size)))
    confirming = {getattr(director.next_job(), "config", None) for _ in range(6)}
    searched = {t.number: t.config for t in ledger.trials("s")}
    assert confirming == {searched[3], searched[2], SPACE.baseline_config()}


def test_constraints_that_nothing_meets_end_the_study_before_the_test_split_is_opened(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(max_latency_ms=0.1)
    jobs = _run(director, data, lambda job: 0.5 + job.number / 100)
    assert len([job for job in jobs if job.phase is Phase.CONFIRM]) == 6
    assert "max-latency-ms 0.1" in str(director.refusal)
    assert director.recommendation is None
    assert director.verdict is None
    assert ledger.openings(data.test.fingerprint) == []
    assert _outcome(ledger)["refused"] == {
        "resume_with": "--max-latency-ms 0.5",
        "champion_id": "",
    }


def test_a_policy_that_needs_what_could_not_be_timed_says_why_and_what_helps(
    make: Make, data: LoadedData
) -> None:
    director = make(policy="cheapest-within", cost="latency")
    while not isinstance(job := director.next_job(), Timing):
        assert isinstance(job, Assignment)
        _finish(director, job, 0.5 + job.number / 100)
    director.on_crash(job, "its process was killed", retry=False)
    with pytest.raises(StudyFailed) as failed:
        director.next_job()
    assert "its process was killed" in str(failed.value)
    assert "`podium resume s` measures again, and trains nothing." in str(failed.value)


def test_who_failed_in_confirmation_is_named_with_the_reason(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    while not director.is_finished():
        job = director.next_job()
        if isinstance(job, Assignment) and job.number == 9:
            director.on_report(job, WorkerReport(1, final=True, failure="out of memory"))
        elif isinstance(job, Assignment):
            _finish(director, job, 0.5 + job.number / 100)
        elif job is not None:
            _answer(director, job, data)
    assert director.recommendation is not None
    failed = ledger.trials("s")[9]
    config = failed.config
    assert director.recommendation.left_out == (
        f"{config.config_id} ({config.summary}): left out: trial 9, seed {failed.seed}, failed: "
        "out of memory.",
    )
    ranked = {r.candidate.config for r in director.recommendation.ranked}
    assert config not in ranked
    assert len(ranked) == 2


def test_other_constraints_take_such_a_study_to_its_verdict_and_train_nothing_again(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store, max_latency_ms=0.1), data, lambda job: 0.5 + job.number / 100)
    resumed = make(store=store, again=True, max_latency_ms=1.0)
    resumed.restore()
    assert _run(resumed, data, lambda job: 0.5) == []
    assert resumed.refusal is None
    assert resumed.verdict is not None
    assert [o.reason for o in ledger.openings()] == [VERDICT]


# Going on after an interruption


def _accuracy(job: Assignment) -> float:
    """Depends on what is trained only, as in a study whose trials repeat exactly."""
    return 0.5 + int(job.config.config_id, 16) % 1000 / 2500 + job.seed % 7 / 1000


class Interrupted(Exception):
    """In place of the end of the process."""


def _steps(director: StudyDirector, data: LoadedData, most: int | None) -> None:
    """One job at a time, rung by rung; `most` reports, then the process is gone."""
    for _ in itertools.count():
        if director.is_finished():
            return
        job = director.next_job()
        assert job is not None
        if not isinstance(job, Assignment):
            _answer(director, job, data)
            continue
        epochs = [*job.rungs, job.max_epochs]
        done = int(job.checkpoint or b"0")
        for epoch in (e for e in epochs if e > done):
            if most is not None:
                most -= 1
                if most < 0:
                    raise Interrupted
            final = epoch == job.max_epochs
            more = {"model": b"model"} if final and job.keep_model else {}
            if not final:
                more = {"checkpoint": str(epoch).encode()}
            if not director.on_report(job, _report(epoch, _accuracy(job), final, **more)):
                break


def _told(ledger: Ledger) -> list[object]:
    """What must not depend on interruptions."""
    return [
        (t.number, t.phase, t.config, t.seed, t.state, t.rung, t.val_accuracy, t.epochs_trained)
        for t in ledger.trials("s")
    ]


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes", "qmc", "grid"])
@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_a_study_that_was_interrupted_anywhere_ends_as_if_it_had_not_been(
    make: Make, data: LoadedData, tmp_path: Path, ledger: Ledger, sampler: str, scheduler: str
) -> None:
    values = {"sampler": sampler, "scheduler": scheduler, "max_epochs": 20}
    whole = make(store=MemoryStore(), **values)
    _steps(whole, data, None)
    expected = _told(ledger)
    assert whole.verdict is not None
    assert whole.recommendation is not None
    reports = sum(t.epochs_trained for t in ledger.trials("s"))
    for cut in range(0, reports, 4):
        with ledger.engine.begin() as connection:
            for table in ("tests", "epochs", "trials", "costs", "openings", "studies"):
                connection.execute(text(f"delete from {table}"))
        store = MemoryStore()
        with pytest.raises(Interrupted):
            _steps(make(store=store, **values), data, cut)
        resumed = make(store=store, again=True, **values)
        resumed.restore()
        _steps(resumed, data, None)
        assert _told(ledger) == expected, f"interrupted after {cut} reports"
        assert resumed.verdict == whole.verdict
        assert resumed.recommendation == whole.recommendation
        assert resumed.progress.rungs == whole.progress.rungs
        assert len(ledger.openings(data.test.fingerprint)) == 1


@pytest.mark.parametrize("failure", [None, "the model cannot be loaded again"])
def test_rungs_are_the_same_after_a_resumption_where_a_trial_ended_at_one(
    make: Make, failure: str | None
) -> None:
    """As where patience runs out just there."""
    director = make(max_epochs=18)
    patient, other = _begin(director), _begin(director)
    assert not director.on_report(patient, _report(2, 0.9, True, failure=failure))
    assert not director.on_report(other, _report(2, 0.8, False)), "one of two goes on"
    resumed = make(max_epochs=18, again=True)
    resumed.restore()
    assert director.progress.rungs == resumed.progress.rungs == {2: 2}


def test_more_trials_go_on_where_the_search_had_ended(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _steps(make(store=store), data, None)
    before = _told(ledger)
    longer = make(store=store, again=True, trials=9)
    longer.restore()
    _steps(longer, data, None)
    after = _told(ledger)
    assert after[: len(before)] == before
    assert len([t for t in ledger.trials("s") if t.phase is Phase.SEARCH]) == 9
    assert longer.verdict is not None


def test_who_is_confirmed_after_a_resumption_is_timed_with_the_others(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    longer = make(store=store, again=True, trials=9)
    longer.restore()
    _run(longer, data, lambda job: 0.9 + job.number / 1000)
    confirmed = {t.config.config_id for t in ledger.trials("s") if t.phase is Phase.CONFIRM}
    assert len(confirmed) == 5
    assert set(ledger.costs("s")) == confirmed


def test_another_decision_after_more_trials_is_another_look_at_the_test_split(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    for _ in range(2):  # the second time as if the first had been interrupted before its end
        longer = make(store=store, again=True, trials=9)
        longer.restore()
        _run(longer, data, lambda job: 0.9 + job.number / 1000)
        assert longer.verdict is not None
        assert longer.verdict.openings == 2
    assert [o.reason for o in ledger.openings()] == [VERDICT, f"{VERDICT}, for {_winner(ledger)}"]


def _winner(ledger: Ledger) -> str:
    outcome = _outcome(ledger)
    return f"{outcome['recommended']} of trial {outcome['trial']}"


def test_more_seeds_are_trained_for_all_that_were_confirmed(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    """Those of an earlier choice of finalists count with them: they would be left out else."""
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    longer = make(store=store, again=True, trials=9)
    longer.restore()
    _run(longer, data, lambda job: 0.9 + job.number / 1000)
    more = make(store=store, again=True, trials=9, confirm_seeds=3)
    more.restore()
    jobs = _run(more, data, lambda job: 0.5 + job.number / 1000)
    confirmed = {t.config.config_id for t in ledger.trials("s") if t.phase is Phase.CONFIRM}
    assert len(confirmed) == 5
    assert [job.phase for job in jobs] == [Phase.CONFIRM] * 5
    assert {job.config.config_id for job in jobs} == confirmed
    assert len({(job.seed, job.split_seed) for job in jobs}) == 1
    assert more.recommendation is not None
    ranked = more.recommendation.ranked
    assert {len(r.candidate.accuracies) for r in ranked} == {3}
    assert {r.candidate.config.config_id for r in ranked} == confirmed


def test_another_trained_model_of_the_same_decision_is_another_look(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    winner = _outcome(ledger)["recommended"]
    for seeds, looks in ((3, 2), (3, 2), (4, 3)):
        director = make(store=store, again=True, confirm_seeds=seeds)
        director.restore()
        _run(director, data, lambda job: 0.5 + job.number / 1000)
        assert _outcome(ledger)["recommended"] == winner
        assert director.verdict is not None
        assert director.verdict.openings == looks
    assert ledger.openings()[-1].reason == f"{VERDICT}, for {_winner(ledger)}"


def test_every_other_decision_is_another_look_also_after_equally_many_trials(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    winners = []
    for budget in (150, 400, 900):
        director = make(
            clock=clock, store=store, again=bool(winners), trials=500, time_budget=budget
        )
        director.restore()
        _timed(director, data, clock, 20.0)
        winners.append(_winner(ledger))
        assert director.verdict is not None
        assert director.verdict.openings == len(winners)
    assert len(set(winners)) == 3
    later = [f"{VERDICT}, for {winner}" for winner in winners[1:]]
    assert [o.reason for o in ledger.openings()] == [VERDICT, *later]


def test_every_other_champion_is_another_look_and_the_same_one_is_not(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    looks = 0
    for version, is_new in (("3", True), ("4", True), ("4", False), ("3", True), ("4", True)):
        champion = _make_champion(data, version=version)
        director = make(store=store, again=looks > 0, champion=champion)
        director.restore()
        _run(director, data, _accuracy)
        looks += is_new
        assert director.verdict is not None
        assert director.verdict.openings == looks, version
    against = [f"{VERDICT}, for {_winner(ledger)} against version {v}" for v in (4, 3, 4)]
    assert [o.reason for o in ledger.openings()] == [VERDICT, *against]


@pytest.mark.parametrize("had_one", [True, False])
def test_a_study_is_not_compared_with_its_own_model(
    make: Make, data: LoadedData, ledger: Ledger, had_one: bool
) -> None:
    """It may be promoted before a study that was interrupted after its verdict goes on."""
    store, earlier = MemoryStore(), _make_champion(data) if had_one else None
    first = make(store=store, champion=earlier)
    _run(first, data, _accuracy)
    told = _outcome(ledger)
    own = _make_champion(
        data,
        version="4",
        study="s",
        config=next(t.config for t in ledger.trials("s") if t.number == told["trial"]),
        trial=told["trial"],
        before=earlier,
    )
    resumed = make(store=store, again=True, champion=own)
    resumed.restore()
    assert _run(resumed, data, _accuracy) == []
    assert _outcome(ledger) == told
    assert resumed.verdict == first.verdict
    assert [o.reason for o in ledger.openings()] == [VERDICT]


def test_another_model_of_a_study_is_compared_with_the_one_that_is_champion(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    own = _make_champion(data, study="s", trial=_outcome(ledger)["trial"])
    longer = make(store=store, again=True, trials=9, champion=own)
    longer.restore()
    _run(longer, data, lambda job: 0.9 + job.number / 1000)
    assert longer.champion == own
    assert _outcome(ledger)["champion"]["version"] == own.version


def test_a_second_look_that_was_interrupted_before_it_was_told_is_one_look(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store, champion=_make_champion(data)), data, _accuracy)
    for _ in range(3):
        director = make(store=store, again=True, champion=_make_champion(data, version="4"))
        director.restore()
        _until(director, data, Examination)
        assert len(ledger.openings()) == 2


def test_the_same_decision_after_more_trials_is_no_second_look(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    _run(make(store=store), data, lambda job: 0.9 + job.number / 1000)
    longer = make(store=store, again=True, trials=9)
    longer.restore()
    _run(longer, data, lambda job: 0.1)
    assert longer.verdict is not None
    assert [o.reason for o in ledger.openings()] == [VERDICT]


def test_a_confirmed_model_that_is_lost_is_trained_again(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(store=MemoryStore())
    _until(director, data, Timing)
    resumed = make(store=MemoryStore(), again=True)
    resumed.restore()
    _run(resumed, data, lambda job: 0.5 + job.number / 100)
    confirmed = [t for t in ledger.trials("s") if t.phase is Phase.CONFIRM]
    assert len(confirmed) == 12
    assert resumed.verdict is not None


def _break_off_in_confirmation(director: StudyDirector) -> Assignment:
    """Leaves one run of a finalist open; gives it back."""
    while True:
        job = _begin(director)
        if job.phase is Phase.CONFIRM and job.config != SPACE.baseline_config():
            director.close_open_trials("interrupted")
            return job
        _finish(director, job, 0.5 + job.number / 1000)


def test_who_is_no_finalist_any_more_is_confirmed_to_the_end(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    left = _break_off_in_confirmation(make(store=store))
    assert ledger.trials("s")[left.number].state is State.INTERRUPTED
    longer = make(store=store, again=True, trials=9)
    longer.restore()
    jobs = _run(longer, data, lambda job: 0.9 + job.number / 1000)
    assert jobs[0] == replace(left, begun=True)
    assert {t.state for t in ledger.trials("s")} == {State.COMPLETED}
    assert longer.recommendation is not None
    ranked = {r.candidate.config for r in longer.recommendation.ranked}
    assert left.config in ranked, "it has every seed"
    assert longer.progress.confirm_ended == longer.progress.confirm_total == 2 + 2 + 4


def test_a_confirmation_that_was_interrupted_goes_on_under_its_number(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    store = MemoryStore()
    left = _break_off_in_confirmation(make(store=store))
    resumed = make(store=store, again=True)
    resumed.restore()
    jobs = _run(resumed, data, lambda job: 0.5 + job.number / 1000)
    assert jobs[0] == replace(left, begun=True)
    confirmed = [t for t in ledger.trials("s") if t.phase is Phase.CONFIRM]
    assert [t.number for t in confirmed] == list(range(6, 12))
    assert resumed.progress.confirm_ended == resumed.progress.confirm_total == 6


class CountingStore(MemoryStore):
    """Counts how often each trial's checkpoint is read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def load_checkpoint(self, number: int) -> tuple[int, bytes]:
        self.read.append(number)
        return super().load_checkpoint(number)


def test_only_what_goes_on_is_read_again_and_a_checkpoint_that_an_end_left_behind_is_dropped(
    make: Make,
) -> None:
    store = CountingStore()
    director = make(store=store)
    first, second = _begin(director), _begin(director)
    _finish(director, first, 0.9)
    assert director.on_report(second, _report(2, 0.95, False, checkpoint=b"after 2"))
    director.close_open_trials("interrupted")
    store.save_checkpoint(first.number, 2, b"of a trial that had ended")
    resumed = make(store=store, again=True)
    resumed.restore()
    assert store.read == [second.number]
    assert store.load_checkpoint(first.number) == (0, b"")
    assert _begin(resumed) == replace(second, checkpoint=b"after 2", begun=True)


def test_checkpoints_that_a_copy_of_the_ledger_does_not_know_are_dropped(make: Make) -> None:
    """Whoever puts back an older ledger has newer files beside it."""
    store = MemoryStore()
    director = make(store=store)
    first = _begin(director)
    assert director.on_report(first, _report(2, 0.95, False, checkpoint=b"after 2"))
    director.close_open_trials("interrupted")
    store.save_checkpoint(first.number, 5, b"after 5, which the ledger never heard of")
    store.save_checkpoint(first.number + 1, 2, b"of the other trial of that number")
    resumed = make(store=store, again=True)
    resumed.restore()
    again, second = _begin(resumed), _begin(resumed)
    assert (again.number, again.checkpoint) == (first.number, b"")
    assert second.number == first.number + 1
    resumed.on_crash(second, "killed")
    retried = _begin(resumed)
    assert (retried.number, retried.checkpoint) == (second.number, b"")


def test_what_a_trial_had_reached_before_an_interruption_counts_where_it_ends_soon_after(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, trials=1, time_budget=100)
    job = _begin(director)
    assert director.on_report(job, _report(2, 0.9, False, checkpoint=b"after 2"))
    director.close_open_trials("interrupted")
    resumed = make(clock=clock, store=store, again=True, trials=1, time_budget=100)
    resumed.restore()
    again = _begin(resumed)
    clock.now += 100
    assert not resumed.on_report(again, replace(_report(3, 0.9, False), totals=None))
    jobs = _run(resumed, data, lambda job: 0.5)
    assert job.config in {job.config for job in jobs}, "it is a finalist"
    assert resumed.progress.best == 0.9


def test_a_former_finalist_whose_models_are_gone_is_not_recommended(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    """It would have the best mean of all; the study cannot ship it any more."""
    confirmed = {Phase.SEARCH: 0.5, Phase.CONFIRM: 0.9}
    own = SPACE.baseline_config()
    _run(
        make(store=MemoryStore()),
        data,
        lambda job: 0.5 if job.config == own else confirmed[job.phase] + job.number / 1000,
    )
    former = _winner(ledger)
    longer = make(store=MemoryStore(), again=True, trials=9)
    longer.restore()
    jobs = _run(longer, data, lambda job: 0.7 + job.number / 1000)
    assert former not in {job.config.config_id for job in jobs}
    assert longer.verdict is not None
    assert _winner(ledger) != former


# Limits: time, memory, and processes that die


class Clock:
    """Stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def _begin(director: StudyDirector) -> Assignment:
    """The next trial, taken up by a worker."""
    job = director.next_job()
    assert isinstance(job, Assignment)
    director.on_start(job)
    return job


def test_a_trial_that_takes_too_long_fails_and_what_it_reported_stays(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock = Clock()
    director = make(clock=clock, trial_timeout=60)
    job = _begin(director)
    clock.now += 59
    assert director.on_report(job, _report(2, 0.9, False))
    clock.now += 1
    assert not director.on_report(job, _report(3, 0.91, False))
    [trial] = ledger.trials("s")
    assert trial.state is State.FAILED
    assert trial.reason == "it took longer than --trial-timeout 60 s"
    assert [item.epoch for item in ledger.epochs("s", 0)] == [2, 3]
    _run(director, data, lambda job: 0.5 + job.number / 100)
    assert director.verdict is not None


def test_the_time_of_a_trial_is_that_of_all_its_attempts_and_not_the_wait_for_a_worker(
    make: Make, ledger: Ledger
) -> None:
    clock = Clock()
    director = make(clock=clock, trial_timeout=60)
    job = director.next_job()
    assert isinstance(job, Assignment)
    clock.now += 500
    director.on_start(job)
    clock.now += 40
    director.on_crash(job, "killed")
    clock.now += 500
    again = _begin(director)
    clock.now += 19
    assert director.on_report(again, _report(2, 0.9, False))
    clock.now += 1
    assert not director.on_report(again, _report(3, 0.9, False))
    assert ledger.trials("s")[0].state is State.FAILED


def test_a_trial_whose_worker_says_nothing_is_given_up_and_its_worker_replaced(
    make: Make, ledger: Ledger
) -> None:
    clock = Clock()
    director = make(clock=clock, trial_timeout=60)
    job, other = _begin(director), _begin(director)
    clock.now += 60
    assert not director.on_report(other, _report(6, 0.9, True)), "it was just ready"
    clock.now += PATIENCE_SECONDS - 0.1
    assert director.give_up_overdue() == []
    clock.now += 0.1
    assert director.give_up_overdue() == [job]
    assert director.give_up_overdue() == []
    first, second = ledger.trials("s")
    assert (first.state, second.state) == (State.FAILED, State.COMPLETED)
    assert "--trial-timeout 60 s; its process sent no report and was replaced" in str(first.reason)
    director.on_crash(job, "killed")
    assert not director.on_report(job, _report(6, 0.99, True)), "too late"
    assert ledger.trials("s")[0].reason == first.reason
    assert _begin(director).number == 2


def test_a_confirmation_that_takes_too_long_is_no_candidate(make: Make, data: LoadedData) -> None:
    clock = Clock()
    director = make(clock=clock, trial_timeout=60)
    slow = ""
    while not director.is_finished():
        job = director.next_job()
        if not isinstance(job, Assignment):
            if job is not None:
                _answer(director, job, data)
            continue
        director.on_start(job)
        own = job.config != SPACE.baseline_config()
        if job.phase is Phase.CONFIRM and own and not slow:
            slow = job.config.config_id
            clock.now += 60
            assert not director.on_report(job, _report(1, 0.9, False))
        else:
            _finish(director, job, 0.5 + job.number / 100)
    assert director.recommendation is not None
    assert slow not in {r.candidate.config.config_id for r in director.recommendation.ranked}


def _timed(
    director: StudyDirector, data: LoadedData, clock: Clock, seconds: float
) -> list[Assignment]:
    """As `_run`, each trial as long as its totals say."""
    jobs = []
    while not director.is_finished():
        job = director.next_job()
        if isinstance(job, Assignment):
            jobs.append(job)
            director.on_start(job)
            clock.now += seconds
            model = b"model" if job.keep_model else None
            report = _report(job.max_epochs, 0.5 + job.number / 100, True, model=model)
            totals = dataclasses.replace(report.totals, wall_seconds=seconds)
            director.on_report(job, replace(report, totals=totals))
        elif job is not None:
            _answer(director, job, data)
    return jobs


def test_a_time_budget_ends_the_search_so_that_the_confirmation_fits_in(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock = Clock()
    director = make(clock=clock, trials=50, time_budget=400)
    jobs = _timed(director, data, clock, 20.0)
    searched = [job for job in jobs if job.phase is Phase.SEARCH]
    # Three candidates on two seeds, 20 s each, on two workers, and 10 s for the rest.
    needed = 3 * 2 * 20 / 2 + CLOSING_SECONDS
    assert 20 * (len(searched) - 1) + needed < 400 <= 20 * len(searched) + needed
    assert len(jobs) == len(searched) + 3 * 2
    assert director.verdict is not None
    assert director.recommendation is not None
    said = f"The time budget of 400 s ended the search early: {len(searched)} of 50 trials"
    assert said in director.recommendation.summary
    study = ledger.study("s")
    assert study is not None
    assert study.outcome is not None
    assert said in study.outcome["summary"]
    assert director.progress.search_total == len(searched)


def _kept_back(director: StudyDirector, clock: Clock, budget: float) -> float:
    """How many seconds before the end of the budget the search is cut."""
    began = clock.now
    while director.cut == "":
        clock.now += 1
        director.give_up_overdue()
    return budget - (clock.now - began)


@pytest.mark.parametrize(
    ("found", "candidates"),
    [
        (lambda champion: (None, ""), 3),
        (lambda champion: (champion, ""), 4),
        (lambda champion: (replace(champion, config=None), ""), 3),
        (lambda champion: (replace(champion, config=SPACE.baseline_config()), ""), 3),
        (lambda champion: None, 4),
        (lambda champion: (None, "MLflow was not reached"), 4),
    ],
)
def test_time_is_kept_back_for_the_champion_where_there_is_or_may_be_one(
    make: Make, data: LoadedData, found: Callable[[Champion], Any], candidates: int
) -> None:
    clock = Clock()
    director = make(clock=clock, trials=50, time_budget=1_000)
    director._find_champion = lambda: found(_make_champion(data))
    for _ in range(2):
        director.on_report(_begin(director), _report(6, 0.9, True))
    _begin(director)
    needed = candidates * 2 * make_totals().wall_seconds / 2 + CLOSING_SECONDS
    assert _kept_back(director, clock, 1_000) == pytest.approx(needed, abs=1)


def test_time_is_kept_back_for_new_finalists_where_others_were_confirmed_before(
    make: Make, data: LoadedData
) -> None:
    clock, store = Clock(), MemoryStore()
    _run(make(store=store), data, lambda job: 0.5 + job.number / 1000)
    longer = make(clock=clock, store=store, again=True, trials=50, time_budget=1_000)
    longer.restore()
    for _ in range(2):
        longer.on_report(_begin(longer), _report(6, 0.9, True))
    _begin(longer)
    seconds = make_totals().wall_seconds
    before, needed = 12 * seconds / 2, 2 * 2 * seconds / 2 + CLOSING_SECONDS
    assert _kept_back(longer, clock, 1_000 - before) == pytest.approx(needed, abs=1)


def test_without_a_budget_or_with_enough_of_it_nothing_is_cut(make: Make, data: LoadedData) -> None:
    clock = Clock()
    director = make(clock=clock, time_budget=10_000)
    jobs = _timed(director, data, clock, 20.0)
    assert sum(job.phase is Phase.SEARCH for job in jobs) == 6
    assert director.cut == ""
    assert director.recommendation is not None
    assert "budget" not in director.recommendation.summary


def test_when_the_budget_is_used_up_running_trials_stop_at_their_next_report(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock = Clock()
    director = make(clock=clock, time_budget=100)
    first, second = _begin(director), _begin(director)
    assert director.on_report(first, _report(2, 0.9, False))
    clock.now += 100
    assert not director.on_report(first, _report(3, 0.91, False))
    waiting = director.next_job()
    assert isinstance(waiting, Assignment)
    assert waiting.phase is Phase.CONFIRM, "the baseline, while the other one is waited for"
    clock.now += PATIENCE_SECONDS
    assert director.give_up_overdue() == [second]
    reports = {t.number: (t.state, t.reason) for t in ledger.trials("s")}
    stopped = State.STOPPED, "--time-budget 100 s was used up"
    assert (reports[0], reports[1]) == (stopped, stopped)
    _finish(director, waiting, 0.5)
    _run(director, data, lambda job: 0.5 + job.number / 100)
    assert director.recommendation is not None
    candidates = {r.candidate.config.config_id for r in director.recommendation.ranked}
    assert candidates == {first.config.config_id, SPACE.baseline_config().config_id}
    assert "2 of 6 trials were begun, 2 of them stopped" in director.recommendation.summary


def test_a_budget_that_was_too_small_for_any_result_ends_in_the_baseline(
    make: Make, data: LoadedData
) -> None:
    clock = Clock()
    director = make(clock=clock, time_budget=5)
    job = _begin(director)
    clock.now += 5
    assert not director.on_report(job, replace(_report(1, 0.9, False), totals=None))
    _run(director, data, lambda job: 0.5)
    assert director.recommendation is not None
    assert director.recommendation.winner.is_baseline
    assert director.verdict is not None
    assert "1 of 6 trials" in director.recommendation.summary


def test_a_search_only_ends_with_its_budget(make: Make, data: LoadedData) -> None:
    clock = Clock()
    director = make(clock=clock, trials=50, finalists=0, time_budget=100)
    assert len(_timed(director, data, clock, 20.0)) == 5
    assert director.is_settled()
    assert "5 of 50 trials" in director.cut


def test_time_before_an_interruption_counts_and_the_pause_does_not(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, trials=50, finalists=0, time_budget=100)
    for _ in range(4):
        job = _begin(director)
        clock.now += 20
        report = _report(job.max_epochs, 0.5, True)
        totals = dataclasses.replace(report.totals, wall_seconds=20.0)
        director.on_report(job, replace(report, totals=totals))
    clock.now += 100_000
    values = {"trials": 50, "finalists": 0, "time_budget": 100}
    resumed = make(clock=clock, store=store, again=True, **values)
    resumed.restore()
    # Two workers share the 80 s: 40 s are spent, so that three more trials fit in.
    assert len(_timed(resumed, data, clock, 20.0)) == 3


def test_a_search_that_was_cut_stays_cut_until_the_budget_is_raised(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, time_budget=100)
    first, _ = _begin(director), _begin(director)
    assert director.on_report(first, _report(2, 0.9, False))
    clock.now += 100
    assert not director.on_report(first, _report(3, 0.91, False))
    director.close_open_trials("interrupted")
    resumed = make(clock=clock, store=store, again=True, time_budget=100)
    resumed.restore()
    jobs = _run(resumed, data, lambda job: 0.5 + job.number / 100)
    assert {job.phase for job in jobs} == {Phase.CONFIRM}
    assert "2 of 6 trials" in resumed.cut
    longer = make(clock=clock, store=store, again=True, time_budget=10_000)
    longer.restore()
    jobs = _run(longer, data, lambda job: 0.5 + job.number / 100)
    assert sum(job.phase is Phase.SEARCH for job in jobs) == 4
    assert longer.cut == ""
    assert longer.verdict is not None


def test_a_search_that_was_cut_while_nothing_ran_stays_cut(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, time_budget=100)
    _finish(director, _begin(director), 0.9)
    clock.now += 100
    assert _begin(director).phase is Phase.CONFIRM
    director.close_open_trials("interrupted")
    resumed = make(clock=clock, store=store, again=True, time_budget=100)
    resumed.restore()
    jobs = _run(resumed, data, lambda job: 0.5)
    assert {job.phase for job in jobs} == {Phase.CONFIRM}
    assert "1 of 6 trials were begun" in resumed.cut


def test_a_cut_that_an_older_podium_recorded_with_its_trials_only_still_stands(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, time_budget=100)
    job = _begin(director)
    clock.now += 100
    assert not director.on_report(job, _report(2, 0.9, False))
    director.close_open_trials("interrupted")
    ledger.set_outcome("s", {})
    resumed = make(clock=clock, store=store, again=True, time_budget=100)
    resumed.restore()
    assert {job.phase for job in _run(resumed, data, lambda job: 0.5)} == {Phase.CONFIRM}


def test_a_search_only_that_was_cut_says_so_in_the_ledger_until_more_time_completed_it(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, values = Clock(), {"trials": 8, "finalists": 0}
    _timed(make(clock=clock, time_budget=100, **values), data, clock, 20.0)
    told = _outcome(ledger)
    assert told["cut_at_budget"] == 100
    assert "5 of 8 trials were begun" in told["cut"]
    longer = make(clock=clock, again=True, time_budget=10_000, **values)
    longer.restore()
    assert len(_timed(longer, data, clock, 20.0)) == 3
    assert _outcome(ledger) == {"cut": "", "cut_at_budget": None}


@pytest.mark.parametrize("finalists", [0, 1])
def test_a_search_that_was_whole_is_not_cut_by_what_its_confirmation_takes(
    make: Make, data: LoadedData, ledger: Ledger, finalists: int
) -> None:
    """Neither where the study is taken up again with less time than its search took."""
    clock, store = Clock(), MemoryStore()
    director = make(clock=clock, store=store, finalists=finalists)
    for _ in range(6):
        job = director.next_job()
        assert isinstance(job, Assignment)
        director.on_start(job)
        clock.now += 20.0
        _finish(director, job, 0.5 + job.number / 100)
    resumed = make(clock=clock, store=store, again=True, time_budget=30.0)
    resumed.restore()
    assert {job.phase for job in _run(resumed, data, lambda job: 0.5)} == {Phase.CONFIRM}
    assert resumed.cut == ""
    assert not _outcome(ledger).get("cut")
    assert resumed.recommendation is not None
    assert "time budget" not in resumed.recommendation.summary


def test_a_cut_is_recorded_before_any_trial_is_stopped_by_it(
    make: Make, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    director = make(clock=clock, time_budget=100)
    job = _begin(director)
    director.on_crash(job, "killed")
    clock.now += 100

    def gone(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(ledger, "end_trial", gone)
    with pytest.raises(Interrupted):
        director.next_job()
    assert _outcome(ledger)["cut_at_budget"] == 100


def test_what_was_recommended_before_a_cut_stays_until_another_verdict(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    clock, store = Clock(), MemoryStore()
    _run(make(clock=clock, store=store, time_budget=50), data, lambda job: 0.5)
    before = _outcome(ledger)
    assert before["cut_at_budget"] is None
    longer = make(clock=clock, store=store, again=True, trials=9, time_budget=50)
    longer.restore()
    clock.now += 100
    assert longer.next_job() is not None
    cut = {"cut": longer.cut, "cut_at_budget": 50}
    assert _outcome(ledger) == {**before, **cut}
    assert "6 of 9 trials" in longer.cut


def _outcome(ledger: Ledger) -> dict[str, Any]:
    study = ledger.study("s")
    return dict((study and study.outcome) or {})


def test_what_ran_out_of_memory_is_not_tried_again(make: Make, ledger: Ledger) -> None:
    director = make()
    job = _begin(director)
    director.on_crash(job, "out of memory: dense 9 needed 9 GB", retry=False)
    [trial] = ledger.trials("s")
    assert (trial.state, trial.reason) == (State.FAILED, "out of memory: dense 9 needed 9 GB")
    assert _begin(director).number == 1


def test_an_examination_whose_worker_died_is_done_again_and_is_still_one_look(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make()
    examination = _until(director, data, Examination)
    director.on_crash(examination, "killed")
    assert director.next_job() is examination
    director.on_crash(examination, "killed")
    assert director.next_job() is examination
    _answer(director, examination, data)
    assert director.verdict is not None
    assert len(ledger.openings(data.test.fingerprint)) == 1


def test_an_examination_that_kills_every_worker_fails_the_study(
    make: Make, data: LoadedData
) -> None:
    director = make(retries=1)
    examination = _until(director, data, Examination)
    director.on_crash(examination, "killed")
    assert director.next_job() is examination
    with pytest.raises(StudyFailed, match="examination on the test split failed: killed"):
        director.on_crash(examination, "killed")


@pytest.mark.parametrize("kind", [Timing, Inspection])
def test_what_follows_the_confirmation_is_done_again_where_its_worker_died(
    make: Make, data: LoadedData, kind: type[Job]
) -> None:
    director = make()
    job = _until(director, data, kind)
    director.on_crash(job, "killed")
    assert director.next_job() is job
    _answer(director, job, data)
    _run(director, data, lambda job: 0.5)
    assert (director.timing_failure, director.inspection_failure) == (None, None)


def test_nothing_waits_while_the_champion_is_looked_up(make: Make, data: LoadedData) -> None:
    director = make(trials=1)
    answers = iter([None, None, (_make_champion(data), "")])
    director._find_champion = lambda: next(answers)
    _finish(director, _begin(director), 0.9)
    baseline = [_begin(director), _begin(director)]
    assert {job.config for job in baseline} == {SPACE.baseline_config()}
    finalist = _begin(director)
    assert finalist.config != SPACE.baseline_config()
    for job in (*baseline, finalist):
        _finish(director, job, 0.5)
    _until(director, data, Examination)
    assert director.champion == _make_champion(data)
