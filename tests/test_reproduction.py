"""Which trials repeat a notebook, and how each becomes a figure on the test split, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from search.data import LoadedData, TestLock, TrainingData
from search.ledger import Ledger
from search.metrics import measure
from search.records import (
    Assignment,
    Examination,
    Phase,
    State,
    StudyFailed,
    WorkerReport,
)
from search.reproduction import ReproductionDirector, plan
from spaces.notebooks import NOTEBOOKS, Experiment, Notebook
from tests.builders import (
    FakeWorker,
    make_epoch,
    make_experiment,
    make_figure,
    make_notebook,
    make_report,
)

STUDY = "again"
CLASSES = ("a", "b", "c")


def _plan(notebook: Notebook, **values: object) -> list[Assignment]:
    settings = {"only": (), "seeds": 2, "epochs_scale": 1.0, "full": False, "seed": 0, **values}
    return plan(notebook, **settings)  # type: ignore[arg-type]


# The plan


def _counts(jobs: list[Assignment]) -> dict[str, int]:
    names = [job.experiment for job in jobs]
    return {name: names.count(name) for name in names}


def test_every_experiment_is_trained_on_as_many_seeds_as_asked_for() -> None:
    notebook = make_notebook(make_experiment("a", 8), make_experiment("b", 16))
    assert _counts(_plan(notebook, seeds=3)) == {"a": 3, "b": 3}


def test_every_trial_is_a_reproduction_with_a_number_of_its_own_and_stops_at_no_rung() -> None:
    jobs = _plan(NOTEBOOKS["fashion"])
    assert [job.number for job in jobs] == list(range(len(jobs)))
    assert {job.phase for job in jobs} == {Phase.REPRODUCE}
    assert {job.rungs for job in jobs} == {()}
    for job in jobs:
        experiment = NOTEBOOKS["fashion"].experiment(job.experiment)
        assert (job.config, job.folds) == (experiment.config, experiment.folds)
        assert job.validation_fraction == experiment.validation_fraction
        assert job.tail is experiment.tail
        assert job.keep_model is (not experiment.folds)


def test_trials_are_validated_on_the_images_that_the_experiment_names() -> None:
    assert {job.tail for job in _plan(make_notebook(make_experiment(tail=True)))} == {True}
    assert {job.tail for job in _plan(make_notebook(make_experiment()))} == {False}


def test_equal_configurations_on_other_validation_images_are_two_models() -> None:
    notebook = make_notebook(
        make_experiment("a"),
        make_experiment("b", tail=True),
        make_experiment("c", validation_fraction=0.3),
    )
    assert _counts(_plan(notebook)) == {"a": 2, "b": 2, "c": 2}


def test_all_experiments_share_seeds_and_splits_so_that_differences_are_paired() -> None:
    for notebook in NOTEBOOKS.values():
        by_experiment: dict[str, set[tuple[int, int]]] = {}
        for job in _plan(notebook, seeds=10, full=True):
            by_experiment.setdefault(job.experiment, set()).add((job.seed, job.split_seed))
        assert {len(seeds) for seeds in by_experiment.values()} == {10}
        assert len({frozenset(seeds) for seeds in by_experiment.values()}) == 1


def test_an_experiment_with_fewer_seeds_has_the_first_ones_of_the_others() -> None:
    notebook = make_notebook(
        make_experiment("a", 8), make_experiment("b", 16, budget_seeds=1), make_experiment("c", 32)
    )
    seeds = {(job.experiment, job.seed) for job in _plan(notebook, seeds=3)}
    [only] = [seed for name, seed in seeds if name == "b"]
    assert ("a", only) in seeds
    assert ("c", only) in seeds


def test_the_seed_decides_all_others_and_another_one_changes_them() -> None:
    notebook = NOTEBOOKS["msds422-mlp"]
    assert _plan(notebook, seed=1) == _plan(notebook, seed=1)
    first, second = (
        {seed for job in _plan(notebook, seed=seed) for seed in (job.seed, job.split_seed)}
        for seed in (1, 2)
    )
    assert not first & second


def test_more_seeds_leave_those_before_them_as_they_were() -> None:
    notebook = NOTEBOOKS["msds422-mlp"]
    few = {(job.seed, job.split_seed) for job in _plan(notebook, seeds=2)}
    assert few < {(job.seed, job.split_seed) for job in _plan(notebook, seeds=5)}


def test_equal_experiments_are_trained_once_under_the_first_ones_name() -> None:
    counts = _counts(_plan(NOTEBOOKS["sgd-mlp"], seeds=2))
    assert {"a", "d32"} <= set(counts)
    assert not {"c", "g"} & set(counts)
    assert set(counts.values()) == {2}


def test_an_equal_experiment_is_trained_where_only_it_was_asked_for() -> None:
    assert _counts(_plan(NOTEBOOKS["sgd-mlp"], only=("g",))) == {"g": 2}
    assert _counts(_plan(NOTEBOOKS["sgd-mlp"], only=("c", "a"))) == {"a": 2}


def test_the_same_configuration_with_other_folds_is_another_model() -> None:
    ids = ("epochs-25", "cv-5", "cv-10")
    assert _counts(_plan(NOTEBOOKS["fashion"], only=ids, full=True)) == dict.fromkeys(ids, 2)


def test_only_what_was_asked_for_is_trained() -> None:
    assert _counts(_plan(NOTEBOOKS["msds422-mlp"], only=("4", "1"))) == {"1": 2, "4": 2}


def test_an_experiment_that_asks_for_more_seeds_gets_them() -> None:
    notebook = make_notebook(make_experiment("a", 8, seeds=10), make_experiment("b", 16, seeds=3))
    assert _counts(_plan(notebook, seeds=5)) == {"a": 10, "b": 5}


def test_a_budget_limits_epochs_and_seeds_unless_everything_is_asked_for() -> None:
    experiment = make_experiment("a", 8, epochs=50, budget_epochs=10, budget_seeds=1)
    notebook = make_notebook(experiment)
    assert [job.max_epochs for job in _plan(notebook, seeds=3)] == [10]
    assert [job.max_epochs for job in _plan(notebook, seeds=3, full=True)] == [50] * 3


def test_a_budget_never_lengthens() -> None:
    experiment = make_experiment("a", 8, epochs=5, budget_epochs=10, budget_seeds=9)
    assert [job.max_epochs for job in _plan(make_notebook(experiment), seeds=2)] == [5, 5]


@pytest.mark.parametrize(
    ("epochs", "scale", "expected"),
    [(10, 0.1, 1), (10, 0.001, 1), (20, 0.12, 2), (20, 0.13, 3), (100, 0.5, 50), (7, 1.0, 7)],
)
def test_epochs_are_scaled_rounded_and_never_none(epochs: int, scale: float, expected: int) -> None:
    notebook = make_notebook(make_experiment(epochs=epochs))
    assert {job.max_epochs for job in _plan(notebook, epochs_scale=scale)} == {expected}


def test_a_budget_is_scaled_as_well() -> None:
    notebook = make_notebook(make_experiment(epochs=50, budget_epochs=10))
    assert {job.max_epochs for job in _plan(notebook, epochs_scale=0.5)} == {5}


@pytest.mark.parametrize(
    ("scale", "snapshots"),
    [
        (1.0, (2, 3, 5, 7, 11, 30, 57, 95)),
        (0.5, (1, 2, 4, 6, 15, 28, 48)),
        (0.1, (1, 3, 6)),
        (0.01, ()),
    ],
)
def test_snapshots_are_scaled_with_the_epochs_and_lie_below_the_last_one(
    scale: float, snapshots: tuple[int, ...]
) -> None:
    [job] = _plan(NOTEBOOKS["dense-dropout"], seeds=1, epochs_scale=scale)
    assert job.snapshots == snapshots
    assert all(1 <= epoch < job.max_epochs for epoch in job.snapshots)


def test_the_longest_trials_come_first_so_that_no_worker_waits_for_the_last() -> None:
    notebook = make_notebook(
        make_experiment("short", 8, epochs=2),
        make_experiment("folds", 8, epochs=20, folds=10),
        make_experiment("long", 8, epochs=20),
        make_experiment("convolutions", 8, epochs=20, filters=(32, 32)),
        make_experiment("wide", 4096, epochs=20),
        make_experiment("small batches", 8, epochs=20, batch_size=4),
    )
    order = list(_counts(_plan(notebook, seeds=2)))
    for slower in ("folds", "convolutions", "wide", "small batches"):
        assert order.index(slower) < order.index("long") < order.index("short")


def test_seeds_of_one_experiment_keep_their_order() -> None:
    jobs = _plan(make_notebook(make_experiment()), seeds=4)
    again = _plan(make_notebook(make_experiment()), seeds=2)
    assert [job.seed for job in jobs[:2]] == [job.seed for job in again]


# The director

Make = Callable[..., ReproductionDirector]


A = make_experiment("a", 8, epochs=4, published=(make_figure("test_accuracy", 0.9, epoch=2),))
B = make_experiment("b", 16, epochs=3)
FOLDED = make_experiment("cv", 8, epochs=3, folds=3)


@pytest.fixture(scope="module")
def data() -> LoadedData:
    """Three classes, noise: what is measured of it does not matter, only that it is."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (90, 4, 4, 1), dtype=np.uint8)
    labels = np.resize(np.arange(len(CLASSES), dtype=np.int32), 90)
    training = TrainingData("noise", images[:60], labels[:60], CLASSES)
    lock = TestLock(images[60:], labels[60:])
    return LoadedData(training, training.split(0), lock, "f" * 16)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    opened.begin_study(STUDY, {}, {}, 0)
    yield opened
    opened.close()


@pytest.fixture
def kept() -> dict[tuple[int, int], bytes]:
    return {}


@pytest.fixture
def make(data: LoadedData, ledger: Ledger, kept: dict[tuple[int, int], bytes]) -> Make:
    def build(*experiments: Experiment, **values: object) -> ReproductionDirector:
        clock = iter(range(1, 10_000))
        return ReproductionDirector(
            STUDY,
            _plan(make_notebook(*experiments), **values),
            data,
            ledger,
            lambda number, epoch, model: kept.update({(number, epoch): model}),
            now_ms=lambda: next(clock),
            notify=lambda: None,
        )

    return build


def _next(director: ReproductionDirector) -> Assignment:
    job = director.next_job()
    assert isinstance(job, Assignment)
    return job


def test_a_reproduction_trains_all_trials_and_then_is_finished(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, B, FOLDED)
    FakeWorker(director, data).run()
    trials = ledger.trials(STUDY)
    assert [t.state for t in trials] == [State.COMPLETED] * 6
    assert {t.experiment for t in trials} == {"a", "b", "cv"}
    assert {t.phase for t in trials} == {Phase.REPRODUCE}
    assert director.next_job() is None
    assert director.progress.search_ended == {State.COMPLETED: 6}
    assert (director.progress.search_total, director.progress.running) == (6, 0)
    assert (director.progress.best, director.progress.best_trial) == (0.55, 5)


def test_the_ledger_knows_of_a_trial_before_a_worker_does(make: Make, ledger: Ledger) -> None:
    job = _next(make(A))
    [trial] = ledger.trials(STUDY)
    assert (trial.number, trial.state) == (job.number, State.RUNNING)
    assert (trial.max_epochs, trial.experiment) == (4, "a")


def test_nobody_hears_of_a_report_before_the_ledger(
    make: Make,
    data: LoadedData,
    ledger: Ledger,
    kept: dict[tuple[int, int], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    director = make(A)
    job = _next(director)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ledger, "append", full)
    with pytest.raises(OSError, match="disk full"):
        FakeWorker(director, data).train(job)
    assert kept == {}
    assert director.progress.best is None


def test_models_and_snapshots_are_handed_out_under_their_trial_and_epoch(
    make: Make, data: LoadedData, kept: dict[tuple[int, int], bytes]
) -> None:
    director = make(A, B, FOLDED)
    fake = FakeWorker(director, data)
    fake.run()
    expected = {
        (job.number, epoch): fake.model(job, epoch)
        for job in fake.trained
        if not job.folds
        for epoch in {"a": (2, 4), "b": (3,)}[job.experiment]
    }
    assert kept == expected


def test_a_model_is_kept_before_it_is_measured(
    make: Make, data: LoadedData, kept: dict[tuple[int, int], bytes]
) -> None:
    director = make(B, seeds=1)
    FakeWorker(director, data).train(_next(director))
    assert (0, 3) in kept
    examination = director.next_job()
    assert isinstance(examination, Examination)
    assert set(examination.models.values()) == set(kept.values())


def test_the_test_split_is_opened_once_for_each_experiment_and_its_name_is_the_reason(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, B, FOLDED)
    fake = FakeWorker(director, data)
    fake.run()
    openings = ledger.openings(data.test.fingerprint)
    assert {opening.study for opening in openings} == {STUDY}
    reasons = sorted(opening.reason for opening in openings)
    assert reasons == ["reproduction of experiment a", "reproduction of experiment b"]
    assert sorted(job.name for job in fake.examined) == ["a", "b"]
    assert all(len(job.images) == data.test.size for job in fake.examined)


def test_an_opening_is_recorded_before_images_leave_the_lock(
    make: Make, data: LoadedData, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    director = make(B, seeds=1)
    FakeWorker(director, data).train(_next(director))

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(ledger, "record_opening", full)
    with pytest.raises(OSError, match="disk full"):
        director.next_job()
    assert director.opened is None


def test_the_test_split_stays_locked_until_an_experiments_last_trial_has_ended(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, seeds=3)
    fake = FakeWorker(director, data)
    first, second, third = (_next(director) for _ in range(3))
    fake.train(third)
    fake.train(first)
    assert director.next_job() is None
    assert ledger.openings(data.test.fingerprint) == []
    fake.train(second)
    assert isinstance(director.next_job(), Examination)


def test_an_experiment_is_examined_while_others_still_train(make: Make, data: LoadedData) -> None:
    director = make(A, B, seeds=1)
    fake = FakeWorker(director, data)
    first, second = _next(director), _next(director)
    fake.train(first)
    examination = director.next_job()
    assert isinstance(examination, Examination)
    assert examination.name == first.experiment
    fake.examine(examination)
    assert not director.is_finished()
    fake.train(second)
    assert not director.is_finished()


def test_results_land_under_the_right_trial_and_epoch_and_are_what_metrics_measure(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, B, FOLDED)
    fake = FakeWorker(director, data)
    fake.run()
    _, labels = data.test.open("test", "test", 0, lambda _: None)
    trials = {trial.number: trial for trial in ledger.trials(STUDY)}
    for job in fake.trained:
        found = {result.epoch: result.measures for result in trials[job.number].tests}
        expected = {"a": (2, 4), "b": (3,), "cv": ()}[job.experiment]
        assert tuple(found) == expected
        for epoch, measures in found.items():
            assert measures == measure(labels, fake.probabilities(fake.model(job, epoch)))


def test_probabilities_of_the_last_epoch_are_kept_for_figures(make: Make, data: LoadedData) -> None:
    director = make(A, FOLDED)
    fake = FakeWorker(director, data)
    fake.run()
    examined = [job for job in fake.trained if not job.folds]
    assert set(director.probabilities) == {job.number for job in examined}
    for job in examined:
        last = fake.probabilities(fake.model(job, job.max_epochs))
        np.testing.assert_array_equal(director.probabilities[job.number], last)
    assert director.opened is not None
    assert len(director.opened[0]) == len(director.opened[1]) == data.test.size


def test_without_an_examination_nothing_was_opened(make: Make, data: LoadedData) -> None:
    director = make(FOLDED)
    FakeWorker(director, data).run()
    assert (director.opened, director.probabilities) == (None, {})


def test_a_failed_trial_stops_neither_the_others_nor_their_examination(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, B)
    fake = FakeWorker(director, data)
    job = _next(director)
    assert not director.on_report(job, make_report(make_epoch(1), final=True, failure="diverged"))
    fake.run()
    failed, *others = ledger.trials(STUDY)
    assert (failed.state, failed.reason) == (State.FAILED, "diverged")
    assert {t.state for t in others} == {State.COMPLETED}
    assert (failed.tests, len(others)) == ((), 3)
    assert all(trial.tests for trial in others)
    assert director.progress.search_ended == {State.FAILED: 1, State.COMPLETED: 3}


def test_snapshots_of_a_trial_that_failed_later_are_not_measured(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A)
    fake = FakeWorker(director, data)
    job = _next(director)
    director.on_report(job, make_report(make_epoch(1), make_epoch(2), snapshots={2: b"two"}))
    director.on_report(job, make_report(final=True, failure="diverged"))
    fake.run()
    [examination] = fake.examined
    assert b"two" not in examination.models.values()
    assert [bool(trial.tests) for trial in ledger.trials(STUDY)] == [False, True]


def test_an_experiment_of_which_every_trial_failed_leaves_the_test_split_locked(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(B)
    for _ in range(2):
        director.on_report(_next(director), make_report(final=True, failure="no network"))
    assert director.is_finished()
    assert director.next_job() is None
    assert ledger.openings(data.test.fingerprint) == []


def test_a_report_before_the_last_one_lets_the_trial_go_on(
    make: Make, ledger: Ledger, kept: dict[tuple[int, int], bytes]
) -> None:
    director = make(A, seeds=1)
    job = _next(director)
    assert director.on_report(job, make_report(make_epoch(1)))
    assert director.on_report(job, make_report(make_epoch(2), snapshots={2: b"two"}))
    assert ledger.trials(STUDY)[0].epochs_trained == 2
    assert kept == {(0, 2): b"two"}
    assert director.progress.best is None
    assert not director.is_finished()


def test_a_crashed_trial_is_tried_once_more_on_its_seeds(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A)
    fake = FakeWorker(director, data)
    crashed = _next(director)
    director.on_crash(crashed, "the worker process died")
    retry = _next(director)
    assert retry.number == 2
    assert (retry.seed, retry.split_seed) == (crashed.seed, crashed.split_seed)
    assert (retry.config, retry.max_epochs) == (crashed.config, crashed.max_epochs)
    assert (retry.snapshots, retry.keep_model) == (crashed.snapshots, crashed.keep_model)
    fake.train(retry)
    fake.run()
    first, *_ = ledger.trials(STUDY)
    assert (first.state, first.reason) == (State.FAILED, "the worker process died")
    assert [job.name for job in fake.examined] == ["a"]
    assert ledger.trials(STUDY)[2].tests
    assert director.progress.search_total == 3


def test_a_trial_that_crashes_twice_is_given_up(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, seeds=1)
    for _ in range(2):
        director.on_crash(_next(director), "killed")
    assert director.is_finished()
    assert [t.state for t in ledger.trials(STUDY)] == [State.FAILED] * 2
    assert ledger.openings(data.test.fingerprint) == []


def test_each_trial_may_crash_once(make: Make, data: LoadedData) -> None:
    director = make(B, seeds=2)
    fake = FakeWorker(director, data)
    for job in (_next(director), _next(director)):
        director.on_crash(job, "killed")
    fake.run()
    assert len(fake.trained) == 2
    assert len({job.seed for job in fake.trained}) == 2


def test_it_is_finished_only_after_the_last_examination(make: Make, data: LoadedData) -> None:
    director = make(A, B, seeds=1)
    fake = FakeWorker(director, data)
    for job in (_next(director), _next(director)):
        fake.train(job)
    first, second = director.next_job(), director.next_job()
    assert isinstance(first, Examination)
    assert isinstance(second, Examination)
    assert director.next_job() is None
    assert not director.is_finished()
    fake.examine(second)
    assert not director.is_finished()
    assert not director.is_settled()
    fake.examine(first)
    assert director.is_finished()
    assert director.is_settled()


def _until_examination(director: ReproductionDirector, fake: FakeWorker) -> Examination:
    fake.train(_next(director))
    job = director.next_job()
    assert isinstance(job, Examination)
    return job


def test_an_examination_that_fails_fails_the_study(make: Make, data: LoadedData) -> None:
    director = make(A, seeds=1)
    job = _until_examination(director, FakeWorker(director, data))
    with pytest.raises(StudyFailed, match=r"examination on the test split failed: out of memory"):
        director.on_report(job, WorkerReport(1, final=True, failure="out of memory"))


def test_an_examination_whose_worker_died_is_handed_out_once_more_without_another_opening(
    make: Make, data: LoadedData, ledger: Ledger
) -> None:
    director = make(A, B, seeds=1)
    fake = FakeWorker(director, data)
    job = _until_examination(director, fake)
    director.on_crash(job, "killed")
    assert not director.is_finished()
    assert director.next_job() is job
    fake.examine(job)
    fake.run()
    assert len(ledger.openings()) == 2
    assert all(trial.tests for trial in ledger.trials(STUDY))


@pytest.mark.parametrize(("deaths", "retry"), [(2, True), (1, False)])
def test_an_examination_whose_worker_dies_twice_or_for_a_lasting_reason_fails_the_study(
    make: Make, data: LoadedData, deaths: int, retry: bool
) -> None:
    director = make(A, seeds=1)
    job = _until_examination(director, FakeWorker(director, data))
    for _ in range(deaths - 1):
        director.on_crash(job, "killed")
        assert director.next_job() is job
    with pytest.raises(StudyFailed, match=r"examination on the test split failed: killed"):
        director.on_crash(job, "killed", retry=retry)


def test_a_reproduction_that_ends_early_leaves_no_trial_open(make: Make, ledger: Ledger) -> None:
    director = make(A)
    _next(director)
    _next(director)
    director.close_open_trials("interrupted")
    trials = ledger.trials(STUDY)
    assert [(t.state, t.reason) for t in trials] == [(State.FAILED, "interrupted")] * 2


def test_what_happens_is_told_after_every_change(data: LoadedData, ledger: Ledger) -> None:
    told: list[int] = []
    jobs = _plan(make_notebook(B), seeds=1)
    director = ReproductionDirector(
        STUDY,
        jobs,
        data,
        ledger,
        lambda *_: None,
        now_ms=lambda: 1,
        notify=lambda: told.append(len(ledger.trials(STUDY)[0].tests)),
    )
    FakeWorker(director, data).run()
    assert told[0] == 0
    assert told[-1] == 1
