"""Bad input: its exit code, one paragraph on stderr, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from search import cli
from search.tables import Format, print_rows

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
    assert captured.out == ""
    assert sorted(p.name for p in folder.iterdir()) == sorted(SPACES)


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
    "command", ["run", "status", "compare", "recommend", "ui", "spaces", "data"]
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
    assert _call(monkeypatch, "data") == 0
    assert "fashion-mnist" in capsys.readouterr().out


def test_markdown_cells_cannot_end_their_table_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"a": "x|y", "b": 0.5}], Format.MARKDOWN)
    assert capsys.readouterr().out.splitlines()[2] == "| x\\|y | 0.5000 |"


def test_no_rows_print_as_valid_empty_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], Format.JSON)
    assert capsys.readouterr().out == "[]\n"
