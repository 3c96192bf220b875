"""Bad input: its exit code, one paragraph on stderr, and nothing written."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from search import cli
from search.ledger import Ledger
from search.records import Phase, State
from search.tables import Format, print_rows
from spaces.notebooks import NOTEBOOKS
from tests.running import Finished, podium

SPACES = {
    "returns.py": "def suggest(trial): return 3\ndef baseline(): return 3\n",
    "raises.py": "from spaces.config import TrialConfig\n"
    "def suggest(trial): raise ValueError('bad luck')\n"
    "def baseline(): return TrialConfig()\n",
    "lacks.py": "def suggests(trial): pass\n",
    "imports.py": "import nothing_of_that_name\n",
    "syntax.py": "def (\n",
    "wrong.py": "from spaces.config import TrialConfig\n"
    "def suggest(trial): return TrialConfig(batch_size=0)\n"
    "def baseline(): return TrialConfig()\n",
    "study.yaml": "trails: 3\n",
    "list.yaml": "- trials\n",
    "broken.yaml": "trials: [\n",
    "value.yaml": "trials: many\n",
}

CHECKING = "Checking data and tracking, starting Ray ...\n"
"""Said before what takes seconds, and so before most that can be wrong."""

BAD = [
    ("run --data mnits", "Did you mean 'mnist'?"),
    ("run --space mpl", "Did you mean 'mlp'?"),
    ("run --space no.such.module", "no.such.module"),
    ("run --space missing.py", "missing.py: cannot be read"),
    ("run --space returns.py", "baseline() returned a int"),
    ("run --space raises.py", "suggest() failed: ValueError: bad luck"),
    ("run --space lacks.py", "no function suggest()"),
    ("run --space imports.py", "nothing_of_that_name"),
    ("run --space syntax.py", "SyntaxError"),
    ("run --space wrong.py", "batch_size"),
    ("run --sampler tpee", "Did you mean 'tpe'?"),
    ("run --scheduler ahsa", "Did you mean 'asha'?"),
    ("run --policy best", "Did you mean 'best-mean'?"),
    ("run --trials 0", "trials is 0"),
    ("run --trials -3", "trials is -3"),
    ("run --trials many", "--trials"),
    ("run --trails 3", "--trials"),
    ("run --max-epochs 0", "max-epochs is 0"),
    ("run --max-epochs 1", "below the first rung 2"),
    ("run --max-epochs 5 --first-rung 6", "below the first rung 6"),
    ("run --reduction 1", "reduction is 1"),
    ("run --concurrent 0", "concurrent is 0"),
    ("run --cpus-per-trial 0", "cpus-per-trial is 0"),
    ("run --gpus-per-trial -1", "gpus-per-trial is -1"),
    ("run --seed -1", "seed is -1"),
    ("run --finalists -1", "finalists is -1"),
    ("run --confirm-seeds 1", "confirm-seeds is 1"),
    ("run --study ../escape", "study is '../escape'"),
    ("run --study a/b", "study is 'a/b'"),
    ("run --config missing.yaml", "missing.yaml: no such file"),
    ("run --config study.yaml", "Did you mean 'trials'?"),
    ("run --config list.yaml", "found a list"),
    ("run --config broken.yaml", "not valid YAML"),
    ("run --config value.yaml", "value.yaml: trials is 'many'"),
    ("run --data mnist --data-dir missing", "missing: no such folder"),
    ("run --data mnist --data-dir .", "mnist is not in ."),
    ("run --address nonsense", "expected host:port"),
    ("run --address ray://127.0.0.1:10001", "ray:// is not supported"),
    ("run --gpus-per-trial 1.5", "gpus-per-trial is 1.5"),
    ("run --address 127.0.0.1:99999999", "127.0.0.1:99999999"),
    ("run --folds 1", "folds is 1"),
    ("run --image-shape 28", "image-shape is '28'"),
    ("run --grid batch_size", "--grid batch_size: expected name=value"),
    ("run --grid batch_sizes=1", "Did you mean 'batch_size'?"),
    ("run --grid batch_size=10,0", "batch_size is '0'"),
    ("run --grid pca_components=5 --grid filters=8", "cannot be combined"),
    ("run --grid hidden=64,", "--grid hidden=64,: "),
    ("reproduce", "Which notebook?"),
    ("reproduce msds422", "Did you mean 'msds422-mlp'?"),
    ("reproduce sgd-mlp --only a --only d31", "Did you mean 'd32'?"),
    ("reproduce sgd-mlp --epochs-scale 0", "--epochs-scale"),
    ("reproduce sgd-mlp --epochs-scale 1.5", "--epochs-scale"),
    ("reproduce sgd-mlp --seeds 0", "--seeds"),
    ("reproduce sgd-mlp --data-dir missing", "missing: no such folder"),
    ("reproduce sgd-mlp --study a/b", "study is 'a/b'"),
    ("reproduce --write-docs", "No studies here"),
    ("figures S", "No studies here"),
    ("figures S --pair 4", "--pair 4: expected two numbers"),
    ("figures S --pixels 7,x", "--pixels 7,x: expected two numbers"),
    ("figures S --layer 0", "--layer"),
    ("figures S --unit -1", "--unit"),
    ("status", "No studies here"),
    ("status S", "No studies here"),
    ("compare S", "No studies here"),
    ("recommend S", "No studies here"),
    ("recommend S --policy best", "Did you mean 'best-mean'?"),
    ("compare --format xml", "--format"),
    ("nonsense", "nonsense"),
]


def _call(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    monkeypatch.setattr("sys.argv", ["podium", *words.split()])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, text in SPACES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(("words", "message"), BAD, ids=[words for words, _ in BAD])
def test_bad_input_ends_with_2_and_a_message_that_names_it(
    words: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call(monkeypatch, words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out in ("", CHECKING)
    assert sorted(p.name for p in folder.iterdir()) == sorted(SPACES)


def test_more_folds_than_images_of_a_class_are_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{'abc'[min(n // 25, 2)]},{n},0,1,2" for n in range(60)]
    (folder / "own.csv").write_text("\n".join(["label,p1,p2,p3,p4", *rows]))
    assert _call(monkeypatch, "run --data own.csv --folds 9") == 2
    assert "--folds 9: there are only 8 images of class 'c'" in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tracking_url: x\n", "Did you mean 'tracking_uri'?"),
        ("tracking_uri: http://127.0.0.1:1\n", "does not answer"),
        ("tracking_uri: file:./mlruns\n", "keeps no runs in plain folders"),
        ("tracking_uri: 3\n", "tracking-uri"),
        ("registered_model: a/b\n", "registered-model"),
    ],
)
def test_a_bad_mlflow_file_ends_with_2_before_anything_is_written(
    text: str,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "mlflow.yaml").write_text(text)
    assert _call(monkeypatch, "run") == 2
    assert message in capsys.readouterr().err
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    "command",
    ["run", "reproduce", "figures", "status", "compare", "recommend", "ui", "spaces", "data"],
)
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call(monkeypatch, f"{command} --help") == 0
    assert "Usage: podium" in capsys.readouterr().out


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
    assert sorted(p.name for p in folder.iterdir()) == sorted(SPACES)


def test_markdown_cells_cannot_end_their_table_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"a": "x|y", "b": 0.5}], Format.MARKDOWN)
    assert capsys.readouterr().out.splitlines()[2] == "| x&#124;y | 0.5000 |"


def test_no_rows_print_as_valid_empty_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], Format.JSON)
    assert capsys.readouterr().out == "[]\n"


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
