"""The command line as a whole; what it says of bad input is in `test_bad_input`."""

from __future__ import annotations

import importlib
import json
import math
import os
import pwd
import re
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from search import cli, tables
from search.ledger import Ledger
from search.lock import held
from search.records import ConfigError, Phase, State
from search.tables import Format, print_rows
from spaces.notebooks import NOTEBOOKS
from tests.builders import make_assignment
from tests.running import Finished, podium


def _call(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["podium", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    ["run", "reproduce", "figures", "status", "compare", "recommend", "ui", "spaces", "data"],
)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, f"{command} --help") == 0
    assert "Usage: podium" in capsys.readouterr().out


def test_status_tells_of_a_search_without_verdict_that_its_budget_cut_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", {}, {"fingerprint": "f", "test_fingerprint": "t"}, 0)
    for outcome in ({"cut": "The time budget ended it."}, {"cut": ""}):
        ledger.set_outcome("s", outcome)
        ledger.end_study("s", State.COMPLETED, None, 1)
        assert _call(monkeypatch, "status s") == 0
        assert outcome["cut"] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.RUNNING, "running\n0 trials: 0 completed. 0 epochs in all.\nIts process is gone. "),
        (State.INTERRUPTED, "interrupted\n0 trials: 0 completed. 0 epochs in all.\n"),
    ],
)
def test_status_tells_how_a_study_that_nobody_runs_goes_on(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    state: State,
    said: str,
) -> None:
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", {"trials": 24}, {"fingerprint": "f", "test_fingerprint": "t"}, 0)
    if state is not State.RUNNING:
        ledger.end_study("s", state, "interrupted", 1)
    assert _call(monkeypatch, "status s") == 0
    way_on = "`podium resume s` goes on with its search of 24 trials."
    assert f"Study s: {said}{way_on}" in capsys.readouterr().out
    own = folder / "runs" / "studies" / "s"
    own.mkdir(parents=True)
    with held("s", own, ledger.database, 0):
        assert _call(monkeypatch, "status s") == 0
        assert way_on not in capsys.readouterr().out


def test_status_tells_that_a_study_goes_on_with_its_confirmation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", {"trials": 1}, {"fingerprint": "f", "test_fingerprint": "t"}, 0)
    ledger.begin_trial("s", make_assignment(0), 0)
    assert _call(monkeypatch, "status s") == 0
    assert "goes on with its search of 1 trials" in capsys.readouterr().out
    ledger.end_trial("s", 0, State.STOPPED, 1)
    assert _call(monkeypatch, "status s") == 0
    assert "goes on with its confirmation and verdict" in capsys.readouterr().out
    ledger.set_outcome("s", {"verdict": {"sentence": "Ship b."}})
    assert _call(monkeypatch, "status s") == 0
    assert "goes on with its figures and report" in capsys.readouterr().out


def test_status_shows_what_a_study_had_found_before_it_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = Ledger(folder / "runs" / "ledger.db")
    ledger.begin_study("s", {"trials": 1}, {"fingerprint": "f", "test_fingerprint": "t"}, 0)
    found = {"summary": "Recommended: b.", "verdict": {"sentence": "Ship b."}}
    ledger.set_outcome("s", found)
    ledger.end_study("s", State.FAILED, "the disk is full", 1)
    assert _call(monkeypatch, "status s") == 0
    out = capsys.readouterr().out
    assert "What it had found before:\nRecommended: b.\nVerdict: Ship b." in out


def test_spaces_and_data_list_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "spaces") == 0
    assert "cnn" in capsys.readouterr().out
    assert _call(monkeypatch, "spaces cnn") == 0
    told = capsys.readouterr().out
    assert re.search(r"optimizer +adam \| rmsprop \| sgd *\n", told)
    assert re.search(r"learning_rate +0.0001 to 0.01, logarithmic, in some trials *\n", told)
    assert _call(monkeypatch, "data") == 0
    assert "fashion-mnist" in capsys.readouterr().out


def test_every_published_notebook_is_listed_with_its_experiments_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, "reproduce --list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(NOTEBOOKS) == 5
    for name, notebook in NOTEBOOKS.items():
        assert any(line.startswith(f"{name} ") for line in lines)
        text = " ".join(lines)
        assert all(experiment.id in text for experiment in notebook.experiments)
    assert list(folder.iterdir()) == []


def test_markdown_cells_cannot_end_their_table_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"a": "x|y", "b": 0.5}], Format.MARKDOWN)
    assert capsys.readouterr().out.splitlines()[2] == "| x&#124;y | 0.5000 |"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_narrow_terminal_loses_no_digit(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search.tables.console.width", width)
    monkeypatch.setattr(type(tables.console), "is_terminal", True)
    row = {"trial": 1, "config_id": "bf976ac0c063", "accuracy": 0.98765, "seconds": "12.5"}
    row["parameters"], row["summary"] = "1,184,993", "dense 39-313, rmsprop 0.0072, batch 32"
    print_rows([row, row | {"trial": 2}], Format.TABLE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("trial")
    text = " ".join(" ".join(lines).split())
    for cell in ("bf976ac0c063", "0.9877", "12.5", "1,184,993"):
        assert text.count(cell) == 2
    assert text.count("rmsprop") == 2
    assert max(map(len, lines)) <= width


def test_no_rows_print_as_valid_empty_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], Format.JSON)
    assert capsys.readouterr().out == "[]\n"


# Files of another user


@pytest.fixture
def anothers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that somebody else ran a study in; relative to it, the process is nobody's."""
    for module in ("search.delivery", "search.registry", "search.study"):
        importlib.import_module(module)  # nobody may not be able to read them
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.chdir(name)
        Path(name).chmod(0o755)
        Ledger(Path("runs/ledger.db")).close()
        yield Path(name)
        os.seteuid(os.getuid())


def _as_another_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(pwd.getpwnam("nobody").pw_uid)


@pytest.mark.parametrize("command", ["status", "sync", "sync s", "champion", "resume s"])
def test_a_folder_that_is_another_users_is_told_with_whose_it_is(
    anothers: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    Path("runs").chmod(0o700)
    _as_another_user()
    assert _call(monkeypatch, command) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert err.startswith("podium: runs/")
    assert "Permission denied: runs belongs to root" in err
    assert "nobody" in err


def test_a_ledger_that_this_user_may_only_read_is_not_called_damaged(anothers: Path) -> None:
    Path("runs").chmod(0o755)
    Path("runs/ledger.db").chmod(0o644)
    _as_another_user()
    with pytest.raises(ConfigError, match="needs permission to write it") as caught:
        Ledger(Path("runs/ledger.db"))
    assert "Put back" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "podium: No space left on device.\n"),
        (OSError(30, "Read-only file system", "runs/x"), "podium: runs/x: Read-only file system."),
    ],
)
def test_what_the_system_refuses_is_one_paragraph(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    said: str,
) -> None:
    def refuse() -> None:
        raise error

    monkeypatch.setattr("search.folder.existing_ledger", refuse)
    assert _call(monkeypatch, "status") == 2
    assert capsys.readouterr().err.startswith(said)


# A grid of listed values, searched by folds


@dataclass(frozen=True)
class Folded:
    folder: Path
    finished: Finished
    ledger: Ledger
    rows: list[dict[str, Any]]
    runs: dict[int, Run]


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    folder = tmp_path_factory.mktemp("folded")
    finished = podium(
        *["run", "--study", "grid", "--folds", "3", "--grid", "batch_size=32,128"],
        *["--max-epochs", "2", "--first-rung", "1", "--scheduler", "none", "--finalists", "0"],
        folder=folder,
    )
    assert finished.code == 0, finished.err
    compared = podium("compare", "grid", "--format", "json", folder=folder)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = mlflow.MlflowClient().get_experiment_by_name("podium")
    children = [
        run
        for run in mlflow.MlflowClient().search_runs([experiment.experiment_id])
        if "mlflow.parentRunId" in run.data.tags
    ]
    return Folded(
        folder,
        finished,
        Ledger(folder / "runs/ledger.db"),
        json.loads(compared.out),
        {int(run.data.tags["podium.trial"]): run for run in children},
    )


def test_a_grid_is_searched_through_without_saying_how_many_trials_that_is(folded: Folded) -> None:
    trials = folded.ledger.trials("grid")
    assert {t.state for t in trials} == {State.COMPLETED}
    assert {t.phase for t in trials} == {Phase.SEARCH}
    assert sorted(t.config.batch_size for t in trials) == [32, 128]
    params = [folded.runs[t.number].data.params["batch_size"] for t in trials]
    assert sorted(params, key=int) == ["32", "128"]


def test_every_fold_is_a_metric_of_its_trial(folded: Folded) -> None:
    for trial in folded.ledger.trials("grid"):
        run = folded.runs[trial.number]
        assert trial.totals is not None
        names = [f"fold_{number}_val_accuracy" for number in (1, 2, 3)]
        found = [run.data.metrics[name] for name in names]
        assert found == list(trial.totals.fold_accuracies)
        assert len(set(found)) > 1
        mean = run.data.metrics["best_val_accuracy"]
        assert mean == pytest.approx(statistics.fmean(found))
        expected = statistics.stdev(found) / math.sqrt(3)
        assert run.data.metrics["fold_standard_error"] == pytest.approx(expected)
        assert run.data.params["folds"] == "3"


def test_compare_shows_the_standard_error_over_folds(folded: Folded) -> None:
    assert len(folded.rows) == 2
    trials = {t.number: t for t in folded.ledger.trials("grid")}
    for row in folded.rows:
        totals = trials[row["trial"]].totals
        assert totals is not None
        assert row["folds"] == 3
        assert row["fold_standard_error"] == totals.fold_standard_error
        assert row["fold_standard_error"] > 0
        assert row["val_accuracy"] == totals.val_accuracy
    table = podium("compare", "grid", folder=folded.folder)
    assert "fold_se" in table.out


def test_a_search_by_folds_validates_on_every_image_once(folded: Folded) -> None:
    for trial in folded.ledger.trials("grid"):
        assert trial.totals is not None
        counted = sum(map(sum, trial.totals.measures.confusion))
        assert counted == 1_437


def test_what_was_varied_is_drawn_and_the_driver_never_imports_tensorflow(folded: Folded) -> None:
    assert (folded.folder / "runs/studies/grid/figures/bars-batch_size.png").is_file()
    assert "THE DRIVER IMPORTED TENSORFLOW" not in folded.finished.out
    assert "the test split stayed locked" in folded.finished.out
