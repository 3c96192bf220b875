"""`podium reproduce` from request to report: with a fake worker, and once for real."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from search import reproduce
from search.data import LoadedData, TestLock, TrainingData
from search.delivery import UNUSED_BY_NOTEBOOKS, left
from search.escaping import as_line
from search.launch import Launch
from search.ledger import Ledger
from search.records import ConfigError, Phase, State, StudyFailed
from search.reproduce import (
    Reproduced,
    Request,
    find_notebook,
    outcome_of,
    prepare_reproduction,
    render,
    run_reproduction,
    table,
    write_docs,
)
from search.settings import StudySettings
from search.space import find_space, open_space
from search.tuning import Cluster
from spaces.notebooks import NOTEBOOKS, Notebook
from tests.builders import (
    FakeWorker,
    make_assignment,
    make_epoch,
    make_experiment,
    make_figure,
    make_notebook,
    make_repetition,
    make_report,
    make_totals,
)
from tests.running import ROOT, Finished, podium, tracked

A = make_experiment("a", 8, epochs=2, published=(make_figure("test_accuracy", 0.5),))
B = make_experiment("b", 16, epochs=2, parameters=9_999, note="One must know this.")
FOLDED = make_experiment("cv", 8, epochs=2, folds=3)
NOTEBOOK = make_notebook(A, B, FOLDED, recommended="a", because="it was first", flaw="All of it")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "runs" / "ledger.db")
    yield opened
    opened.close()


# What is asked for


@pytest.mark.parametrize(
    ("typed", "meant"), [("msds422", "msds422-mlp"), ("fashoin", "fashion"), ("SGD", "sgd-mlp")]
)
def test_an_unknown_notebook_names_the_nearest_and_all_that_there_are(
    typed: str, meant: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        find_notebook(typed)
    assert repr(typed) in str(caught.value)
    assert f"Did you mean {meant!r}?" in str(caught.value)
    assert all(name in str(caught.value) for name in NOTEBOOKS)


def test_every_published_notebook_is_found_by_its_name() -> None:
    assert [find_notebook(name).id for name in NOTEBOOKS] == list(NOTEBOOKS)


def _refuse(*_: object) -> None:
    raise AssertionError("too late to refuse")


def test_an_unknown_experiment_is_refused_before_data_or_cluster_are_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reproduce, "prepare", _refuse)
    request = Request(NOTEBOOKS["sgd-mlp"], only=("a", "d31"))
    with pytest.raises(ConfigError, match=r"sgd-mlp has no experiment 'd31'\. Did you mean 'd3"):
        prepare_reproduction(request, StudySettings(data="mnist"))


@pytest.mark.parametrize(("given", "name"), [("mine", "mine"), (None, r"homemade-\d{8}-\d{6}")])
def test_a_reproduction_is_named_after_its_notebook_unless_it_has_a_name(
    given: str | None, name: str, data: LoadedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "prepare", lambda settings: _launch(data, settings))
    launch = prepare_reproduction(Request(NOTEBOOK), StudySettings(study=given))
    assert re.fullmatch(name, launch.name)
    assert launch.space.source.name == "homemade"


# What came out


@pytest.fixture(scope="module")
def data() -> LoadedData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (90, 4, 4, 1), dtype=np.uint8)
    labels = np.resize(np.arange(3, dtype=np.int32), 90)
    training = TrainingData("noise", images[:60], labels[:60], ("a", "b", "c"))
    lock = TestLock(images[60:], labels[60:])
    return LoadedData(training, training.split(0), lock, "f" * 16)


def _launch(data: LoadedData, settings: StudySettings) -> Launch:
    space = open_space(find_space("mlp"))
    name = settings.study or "again"
    return Launch(name, settings, space, data, Cluster(((2, 0),), "test"), 2)


@dataclass
class FakeTracker:
    """Remembers what MLflow would be told at the end."""

    study: str = "again"
    unreachable: bool = False
    ended: tuple[Any, ...] = ()

    def wake(self) -> None:
        """Says nothing."""

    def close(self, seconds: float) -> None:
        if self.unreachable:
            raise OSError("nobody answers")

    def patiently(self, work: Callable[[], None]) -> None:
        work()

    def finish(self, *values: Any) -> None:
        self.ended = values


@dataclass
class Rehearsal:
    """`run_reproduction` with a fake worker, tracker and artist in place of the real ones."""

    launch: Launch
    tracker: FakeTracker
    extra: dict[str, Any]
    workers: list[FakeWorker]
    left: list[str]

    def run(self, request: Request) -> Reproduced:
        return run_reproduction(request, self.launch, lambda *_: contextlib.nullcontext())


@pytest.fixture
def rehearsal(data: LoadedData, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Rehearsal:
    launch = _launch(data, StudySettings(study="again"))
    found = Rehearsal(launch, FakeTracker(), {}, [], [])

    def begin(launch: Launch, facts: Any, ledger: Ledger, extra: dict[str, Any]) -> FakeTracker:
        found.extra = extra
        settings = launch.settings.model_dump(mode="json")
        ledger.begin_study(launch.name, {**settings, **extra}, facts, 1)
        return found.tracker

    def conduct(launch: Launch, director: Any, *_: object) -> None:
        found.workers.append(FakeWorker(director, launch.data))
        found.workers[-1].run()

    monkeypatch.setattr(reproduce, "begin", begin)
    monkeypatch.setattr(reproduce, "conduct", conduct)
    monkeypatch.setattr(reproduce, "_illustrate", lambda *_: [])
    monkeypatch.setattr("search.study.leave_cluster", lambda: found.left.append("left"))
    return found


def test_a_reproduction_ends_with_a_report_and_an_outcome_in_the_ledger(
    rehearsal: Rehearsal, ledger: Ledger
) -> None:
    done = rehearsal.run(Request(NOTEBOOK, seeds=2))
    assert (done.name, done.trouble) == ("again", None)
    assert [row.experiment.id for row in done.rows] == ["a", "b", "cv"]
    assert [len(row.repetitions) for row in done.rows] == [2, 2, 2]
    assert done.judgement.recommendation is not None
    record = ledger.study("again")
    assert record is not None
    assert (record.state, record.reason) == (State.COMPLETED, None)
    assert record.outcome == {
        "notebook": "homemade",
        "summary": " ".join(done.judgement.sentences),
        "recommended": done.judgement.recommendation.winner.config.config_id,
    }
    assert done.report == Path("runs/studies/again/report.md")
    assert "it was first" in done.report.read_text(encoding="utf-8")
    assert rehearsal.left == ["left"]


def test_what_was_asked_for_is_kept_with_the_study(rehearsal: Rehearsal, ledger: Ledger) -> None:
    rehearsal.run(Request(NOTEBOOK, only=("b", "cv"), seeds=3, epochs_scale=0.5, full=True))
    expected = {
        "notebook": "homemade",
        "only": ["b", "cv"],
        "seeds": 3,
        "epochs_scale": 0.5,
        "full": True,
    }
    assert rehearsal.extra == expected
    assert {"sampler", "scheduler", "trials", "finalists"} <= UNUSED_BY_NOTEBOOKS
    assert not {"seed", "data", "concurrent"} & UNUSED_BY_NOTEBOOKS
    record = ledger.study("again")
    assert record is not None
    assert expected.items() <= record.settings.items()
    assert {t.experiment for t in ledger.trials("again")} == {"b", "cv"}
    assert {t.max_epochs for t in ledger.trials("again")} == {1}


def test_every_model_is_a_file_named_by_trial_and_epoch(rehearsal: Rehearsal) -> None:
    rehearsal.run(Request(NOTEBOOK, seeds=1))
    [worker] = rehearsal.workers
    files = {p.name: p.read_bytes() for p in Path("runs/studies/again/models").iterdir()}
    assert files == {
        f"{job.number:03d}-2.keras": worker.model(job, 2) for job in worker.trained if not job.folds
    }


def test_mlflow_hears_the_summary_and_gets_the_report(rehearsal: Rehearsal) -> None:
    done = rehearsal.run(Request(NOTEBOOK))
    status, _, note, _, artifacts = rehearsal.tracker.ended
    assert (status, note) == ("FINISHED", as_line(" ".join(done.judgement.sentences)))
    assert done.report in artifacts


def test_the_result_stands_without_mlflow(rehearsal: Rehearsal, ledger: Ledger) -> None:
    rehearsal.tracker.unreachable = True
    done = rehearsal.run(Request(NOTEBOOK))
    assert "nobody answers" in str(done.trouble)
    assert "MLflow" in str(done.trouble)
    record = ledger.study("again")
    assert record is not None
    assert record.state is State.COMPLETED
    assert done.report.is_file()


def test_the_result_stands_without_figures(
    rehearsal: Rehearsal, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no colours left")

    monkeypatch.setattr(reproduce, "_illustrate", broken)
    done = rehearsal.run(Request(NOTEBOOK))
    assert "no colours left" in str(done.trouble)
    assert rehearsal.tracker.ended[0] == "FINISHED"
    record = ledger.study("again")
    assert record is not None
    assert record.state is State.COMPLETED


def _all_fail(launch: Launch, director: Any, *_: object) -> None:
    while (job := director.next_job()) is not None:
        director.on_report(job, make_report(final=True, failure="out of memory"))


def test_a_reproduction_of_which_every_trial_failed_has_failed(
    rehearsal: Rehearsal, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "conduct", _all_fail)
    with pytest.raises(StudyFailed, match="All trials failed: out of memory"):
        rehearsal.run(Request(NOTEBOOK))
    record = ledger.study("again")
    assert record is not None
    assert (record.state, record.reason) == (State.FAILED, "All trials failed: out of memory")
    assert rehearsal.left == ["left"]


def test_mlflow_hears_of_a_reproduction_of_which_every_trial_failed(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "conduct", _all_fail)
    with pytest.raises(StudyFailed):
        rehearsal.run(Request(NOTEBOOK))
    assert rehearsal.tracker.ended[0] == "FAILED"


def test_a_reproduction_that_breaks_off_leaves_the_cluster_and_writes_no_report(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StudyFailed("the examination failed")

    monkeypatch.setattr(reproduce, "conduct", fail)
    with pytest.raises(StudyFailed, match="the examination failed"):
        rehearsal.run(Request(NOTEBOOK))
    assert rehearsal.left == ["left"]
    assert not Path("runs/studies/again/report.md").exists()


@pytest.mark.parametrize(
    ("part", "error", "told", "state"),
    [
        ("_illustrate", KeyboardInterrupt(), KeyboardInterrupt, State.INTERRUPTED),
        ("render", OSError(28, "No space left on device"), StudyFailed, State.FAILED),
        ("tell_end", KeyboardInterrupt(), KeyboardInterrupt, State.INTERRUPTED),
    ],
)
def test_a_reproduction_that_breaks_off_after_its_last_trial_is_not_left_running(
    rehearsal: Rehearsal,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    error: BaseException,
    told: type[BaseException],
    state: State,
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(reproduce, part, broken)
    with pytest.raises(told) as raised:
        rehearsal.run(Request(NOTEBOOK))
    record = ledger.study("again")
    assert record is not None
    assert record.state is state
    assert left(ledger, record).ending, "MLflow would never hear of its end"
    assert rehearsal.left == ["left"]
    if told is StudyFailed:
        assert "`podium reproduce homemade` begins again" in str(raised.value)


# Several studies


def _record(
    ledger: Ledger,
    study: str,
    experiments: dict[str, tuple[float, ...]],
    epochs: int = 2,
    **settings: object,
) -> None:
    """A study that gave these test accuracies, one for each seed."""
    now = len(ledger.studies()) + 1
    extra = {"notebook": NOTEBOOK.id, "epochs_scale": 1.0, "full": False, **settings}
    ledger.begin_study(study, extra, {}, now)
    number = 0
    for name, accuracies in experiments.items():
        experiment = NOTEBOOK.experiment(name)
        for index, accuracy in enumerate(accuracies):
            repetition = make_repetition(experiment, index, test_accuracy=accuracy)
            job = make_assignment(
                number,
                phase=Phase.REPRODUCE,
                config=experiment.config,
                seed=index,
                split_seed=index,
                max_epochs=epochs,
                validation_fraction=experiment.validation_fraction,
                folds=experiment.folds,
                experiment=name,
            )
            ledger.begin_trial(study, job, now)
            report = make_report(make_epoch(1), make_epoch(2), totals=make_totals())
            ledger.append(study, number, report)
            results = [replace(result, epoch=2) for result in repetition.trial.tests]
            if results:
                ledger.record_tests(study, number, results)
            ledger.end_trial(study, number, State.COMPLETED, now)
            number += 1


def _tested(ledger: Ledger, *studies: str) -> dict[str, tuple[float, ...]]:
    rows, _ = outcome_of(ledger, NOTEBOOK, studies, "best-mean")
    return {r.experiment.id: r.figures.get("test_accuracy", ()) for r in rows if r.repetitions}


def test_of_several_studies_that_are_alike_the_first_counts(ledger: Ledger) -> None:
    _record(ledger, "new", {"a": (0.7, 0.8)})
    _record(ledger, "old", {"a": (0.1, 0.2), "b": (0.6,), "cv": (0.0,)})
    assert _tested(ledger, "new", "old") == {"a": (0.7, 0.8), "b": (0.6,), "cv": ()}
    assert _tested(ledger, "old", "new") == {"a": (0.1, 0.2), "b": (0.6,), "cv": ()}


def test_of_several_studies_the_one_with_more_seeds_counts(ledger: Ledger) -> None:
    _record(ledger, "new", {"a": (0.7,)})
    _record(ledger, "old", {"a": (0.1, 0.2)})
    assert _tested(ledger, "new", "old") == {"a": (0.1, 0.2)}


def test_of_several_studies_the_one_that_trained_longer_counts(ledger: Ledger) -> None:
    _record(ledger, "short", {"a": (0.7,)}, epochs=1)
    _record(ledger, "long", {"a": (0.1,)}, epochs=2)
    assert _tested(ledger, "short", "long") == {"a": (0.1,)}


def test_trials_that_were_never_measured_on_test_count_for_less(ledger: Ledger) -> None:
    _record(ledger, "new", {"a": ()})
    ledger.begin_trial("new", make_assignment(0, phase=Phase.REPRODUCE, config=A.config), 1)
    ledger.end_trial("new", 0, State.COMPLETED, 1)
    _record(ledger, "old", {"a": (0.1,)})
    assert _tested(ledger, "new", "old") == {"a": (0.1,)}


def test_a_trial_that_failed_leaves_its_experiment_to_the_next_study(ledger: Ledger) -> None:
    _record(ledger, "new", {"a": (0.7,)})
    ledger.end_trial("new", 0, State.FAILED, 9, "no luck")
    _record(ledger, "old", {"a": (0.1, 0.2)})
    assert _tested(ledger, "new", "old") == {"a": (0.1, 0.2)}
    assert _tested(ledger, "new") == {}
    rows, _ = outcome_of(ledger, NOTEBOOK, ["new"], "best-mean")
    assert [row.failed for row in rows] == [1, 0, 0]


# Tables and pages


def _lines(*repetitions: Any, notebook: Notebook = NOTEBOOK) -> list[dict[str, Any]]:
    return table(reproduce.compare(notebook, repetitions))


def test_a_table_has_a_line_for_every_published_figure_and_one_for_rows_without() -> None:
    lines = _lines()
    assert [(line["experiment"], line["figure"]) for line in lines] == [
        ("a", "test accuracy"),
        ("b", "test accuracy"),
        ("cv", "val accuracy"),
    ]
    assert {line["verdict"] for line in lines} == {"not run"}
    assert {line["ours"] for line in lines} == {""}


def test_a_line_says_what_was_published_what_came_out_and_how_far_apart_they_are() -> None:
    accuracies = (0.60, 0.62, 0.64)
    trials = [make_repetition(A, i, test_accuracy=a) for i, a in enumerate(accuracies)]
    line, *_ = _lines(*trials)
    assert line["model"] == A.config.summary
    assert (line["published"], line["ours"]) == ("50.00%", "62.00%")
    assert (line["deviation"], line["seeds"]) == ("2.00 pt", 3)
    # 0.12 / (0.02 * sqrt(1/3 + 1)) = 5.196
    assert (line["difference"], line["in standard errors"]) == ("+12.00 pt", "+5.2")
    assert line["verdict"] == "differs"


def test_losses_are_no_percentages() -> None:
    figures = (make_figure("test_loss", 1.234, epoch=2), make_figure("test_accuracy", 0.5, 0.75))
    experiment = make_experiment(published=figures, epochs=2)
    trials = [make_repetition(experiment, epochs=[make_epoch(1), make_epoch(2)])]
    loss, accuracy = _lines(*trials, notebook=make_notebook(experiment))
    assert (loss["figure"], loss["published"], loss["ours"]) == (
        "test loss after epoch 2",
        "1.234",
        "0.600",
    )
    assert (loss["difference"], loss["deviation"]) == ("-0.634", "")
    assert (accuracy["published"], accuracy["in standard errors"]) == ("50.00%, 75.00%", "")


def test_what_was_never_published_is_shown_and_said_to_be_so() -> None:
    trials = [make_repetition(B, i, test_accuracy=a) for i, a in enumerate((0.6, 0.7))]
    _, line, _ = _lines(*trials)
    assert (line["published"], line["ours"], line["deviation"]) == ("", "65.00%", "7.07 pt")
    assert (line["seeds"], line["verdict"], line["difference"]) == (2, "nothing published", "")


@pytest.mark.parametrize(
    ("ours", "shown"),
    [(9_999, "9,999"), (10_000, "10,000 (published: 9,999)")],
)
def test_a_parameter_count_that_differs_stands_beside_the_published_one(
    ours: int, shown: str
) -> None:
    _, line, _ = _lines(make_repetition(B, parameters=ours))
    assert line["parameters"] == shown


def _rendered(notebook: Notebook, *repetitions: Any, kind: str = "report") -> str:
    rows = reproduce.compare(notebook, repetitions)
    judgement = reproduce.judge_notebook(notebook, rows, "best-mean")
    return render([(notebook, rows, judgement)], kind)


def _tables(text: str) -> list[list[str]]:
    """Groups of adjacent lines that begin with a bar."""
    groups: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            groups[-1].append(line)
        elif groups[-1]:
            groups.append([])
    return [group for group in groups if group]


@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=list(NOTEBOOKS))
@pytest.mark.parametrize("run", [True, False], ids=["run", "not run"])
def test_every_notebook_makes_tables_that_markdown_takes(notebook: Notebook, run: bool) -> None:
    trials = [
        make_repetition(e, i, number=10 * n + i)
        for n, e in enumerate(notebook.experiments)
        for i in range(2)
    ]
    text = _rendered(notebook, *(trials if run else []))
    figures, times = _tables(text)
    for group in (figures, times):
        assert len({line.count("|") for line in group}) == 1
    assert len(figures) == 2 + len(_lines(notebook=notebook))
    assert len(times) == 2 + run * len(notebook.experiments)
    assert figures[1].startswith("| --- |")
    for text_of in (notebook.flaw, notebook.remedy):
        assert text_of in text
    if not run:
        assert text.count("| not run |") == len(figures) - 2


def test_a_report_says_what_was_cut_short_and_what_one_must_know() -> None:
    epochs = [make_epoch(1)]
    text = _rendered(NOTEBOOK, make_repetition(B, max_epochs=1, epochs=epochs))
    assert "- b: One must know this. Trained for 1 of 2 epochs here." in text
    full = _rendered(NOTEBOOK, make_repetition(B))
    assert "- b: One must know this.\n" in full
    assert "Trained for" not in full


def test_a_report_lists_every_start_where_starts_differ() -> None:
    experiment = make_experiment("1", seeds=3)
    trials = [
        make_repetition(experiment, i, test_accuracy=a) for i, a in enumerate((0.9, 0.1, 0.5))
    ]
    text = _rendered(make_notebook(experiment), *trials)
    assert "test accuracy of each of 3 starts, in order: 10.0%, 50.0%, 90.0%." in text


def test_a_report_shows_how_long_training_took_there_and_here() -> None:
    experiment = make_experiment(seconds=(84.9, 88.2))
    text = _rendered(make_notebook(experiment), *(make_repetition(experiment, i) for i in range(2)))
    assert "| 1 | 6, 6 | 4, 4 | 85, 88 |" in text


def _section(text: str, notebook: str) -> str:
    return text.split(f"## {notebook}: ")[1].split("\n## ")[0]


def test_the_page_has_every_notebook_and_says_what_was_not_run(ledger: Ledger, here: Path) -> None:
    write_docs(ledger, here / "docs" / "notebooks.md", "one-standard-error")
    text = (here / "docs" / "notebooks.md").read_text(encoding="utf-8")
    for name, notebook in NOTEBOOKS.items():
        section = _section(text, name)
        assert section.count("| not run |") == len(_lines(notebook=notebook))
    assert "reproduced |" not in text


def _page(ledger: Ledger, here: Path) -> str:
    write_docs(ledger, here / "page.md", "one-standard-error")
    return _section((here / "page.md").read_text(encoding="utf-8"), NOTEBOOK.id)


@pytest.fixture
def only_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "NOTEBOOKS", {NOTEBOOK.id: NOTEBOOK})


@pytest.mark.usefixtures("only_notebook")
def test_the_page_takes_nothing_from_a_quick_look_or_from_another_notebook(
    ledger: Ledger, here: Path
) -> None:
    _record(ledger, "quick", {"a": (0.9,)}, epochs_scale=0.1)
    _record(ledger, "other", {"a": (0.8,)}, notebook="fashion")
    ledger.begin_study("search", {"trials": 3}, {}, 9)
    assert _page(ledger, here).count("| not run |") == 3


@pytest.mark.usefixtures("only_notebook")
def test_the_page_takes_each_experiment_from_the_newest_study_with_the_most_seeds(
    ledger: Ledger, here: Path
) -> None:
    _record(ledger, "oldest", {"a": (0.61, 0.61)}, full=True)
    _record(ledger, "older", {"a": (0.62,), "b": (0.63,)})
    _record(ledger, "newest", {"b": (0.64,)})
    page = _page(ledger, here)
    assert "| 61.00% |" in page
    assert "| 64.00% |" in page
    assert "| 62.00% |" not in page
    assert "| 63.00% |" not in page


# For real

DATA_DIR = ROOT.parent / "shared" / "data"
NEEDS_DATA = pytest.mark.skipif(
    not (DATA_DIR / "mnist.npz").is_file(), reason="the real data sets are not beside the project"
)


@dataclass(frozen=True)
class Quick:
    """A quick look at two experiments, and everything that it left behind."""

    folder: Path
    finished: Finished
    ledger: Ledger
    client: mlflow.MlflowClient
    parent: Run
    children: list[Run]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Quick:
    folder = tmp_path_factory.mktemp("quick")
    finished = podium(
        *["reproduce", "msds422-mlp", "--study", "quick", "--only", "4", "--only", "1"],
        *["--epochs-scale", "0.1", "--seeds", "2", "--data-dir", str(DATA_DIR)],
        folder=folder,
        seconds=1200,
    )
    assert finished.code == 0, finished.err
    runs = tracked(folder)
    ledger = Ledger(folder / "runs/ledger.db")
    return Quick(folder, finished, ledger, runs.client, runs.parent, runs.children)


@pytest.mark.slow
@NEEDS_DATA
def test_a_quick_look_ends_well_and_is_called_no_comparison(quick: Quick) -> None:
    out = quick.finished.out
    assert "THE DRIVER IMPORTED TENSORFLOW" not in out
    assert quick.finished.err == ""
    rows = [line.split() for line in out.splitlines() if "trained for less" in line]
    assert {row[0] for row in rows} == {"1", "4"}
    # Train and test accuracy of both.
    assert len(rows) == 4
    assert "The notebook recommended 4" in out
    assert "runs/studies/quick/report.md" in out


@pytest.mark.slow
@NEEDS_DATA
def test_two_models_on_two_seeds_each_were_trained_for_one_epoch(quick: Quick) -> None:
    trials = quick.ledger.trials("quick")
    assert sorted(t.experiment for t in trials) == ["1", "1", "4", "4"]
    assert {t.state for t in trials} == {State.COMPLETED}
    assert {(t.max_epochs, t.epochs_trained) for t in trials} == {(1, 1)}
    sizes = {t.experiment: t.totals.parameters for t in trials if t.totals}
    assert sizes == {"1": 101_770, "4": 50_890}
    by_experiment = [{(t.seed, t.split_seed) for t in trials if t.experiment == e} for e in "14"]
    assert by_experiment[0] == by_experiment[1]
    assert len(by_experiment[0]) == 2
    assert all(t.val_accuracy and t.val_accuracy > 0.85 for t in trials)


@pytest.mark.slow
@NEEDS_DATA
def test_the_test_split_was_opened_once_for_each_experiment(quick: Quick) -> None:
    record = quick.ledger.study("quick")
    assert record is not None
    openings = quick.ledger.openings(record.facts["test_fingerprint"])
    reasons = sorted(opening.reason for opening in openings)
    assert reasons == ["reproduction of experiment 1", "reproduction of experiment 4"]


@pytest.mark.slow
@NEEDS_DATA
def test_every_trials_run_has_its_test_accuracy_and_the_optimizer_that_was_compiled(
    quick: Quick,
) -> None:
    trials = {t.number: t for t in quick.ledger.trials("quick")}
    assert len(quick.children) == len(trials)
    for run in quick.children:
        trial = trials[int(run.data.tags["podium.trial"])]
        [result] = trial.tests
        assert result.epoch == 1
        assert run.data.metrics["test_accuracy"] == result.measures.accuracy
        assert result.measures.accuracy > 0.85
        assert run.data.tags["podium.experiment"] == trial.experiment
        assert run.data.params["compiled.class_name"].lower() == "rmsprop"
        assert float(run.data.params["compiled.learning_rate"]) == pytest.approx(0.001)
        names = {a.path for a in quick.client.list_artifacts(run.info.run_id)}
        assert {"config.json", "evaluation.json"} <= names
    assert quick.parent.info.status == "FINISHED"
    assert quick.parent.data.params["notebook"] == "msds422-mlp"


@pytest.mark.slow
@NEEDS_DATA
def test_the_report_and_the_notebooks_figures_are_artifacts_of_the_reproduction(
    quick: Quick,
) -> None:
    run_id = quick.parent.info.run_id
    assert {"report.md", "figures"} <= {a.path for a in quick.client.list_artifacts(run_id)}
    report = (quick.folder / "runs/studies/quick/report.md").read_text()
    assert "trained for less: not comparable" in report
    assert report.count("| not run |") == 2 * 4
    folder = "figures/experiment-4"
    drawn = {a.path for a in quick.client.list_artifacts(run_id, folder)}
    wanted = {"confusion-test", "confused-pair-4-9", "predictions-test", "learning-curves"}
    assert {f"{folder}/{name}.png" for name in wanted} <= drawn


@pytest.mark.slow
@NEEDS_DATA
def test_a_reproduction_stands_among_the_studies(quick: Quick) -> None:
    status = podium("status", "quick", folder=quick.folder)
    assert status.code == 0
    assert "The notebook recommended 4" in status.out
    rows = json.loads(podium("compare", "quick", "--format", "json", folder=quick.folder).out)
    assert [row["phase"] for row in rows] == ["reproduce"] * 4


@pytest.mark.slow
@NEEDS_DATA
def test_the_page_takes_nothing_from_a_quick_look(quick: Quick) -> None:
    finished = podium("reproduce", "--write-docs", folder=quick.folder)
    assert finished.code == 0, finished.err
    assert "docs/notebooks.md" in finished.out
    text = (quick.folder / "docs/notebooks.md").read_text(encoding="utf-8")
    section = _section(text, "msds422-mlp")
    assert section.count("| not run |") == 2 * len(NOTEBOOKS["msds422-mlp"].experiments)
    assert "trained for less" not in text
    assert len([name for name in NOTEBOOKS if f"## {name}: " in text]) == 5
