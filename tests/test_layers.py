"""The architecture: who imports whom, and that the driver stays free of TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_modules_import_only_what_their_layer_may() -> None:
    done = _lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_an_import_against_the_layers_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path
    for package in ("search", "spaces"):
        for source in (ROOT / package).rglob("*.py"):
            target = copy / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text())
    (copy / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    ledger = copy / "search" / "ledger.py"
    ledger.write_text(ledger.read_text() + "\nimport search.director\nimport mlflow\n")
    done = _lint(copy)
    assert done.returncode != 0
    assert "upper modules import lower ones, siblings none BROKEN" in done.stdout
    assert "only tracking and registry talk to MLflow" in done.stdout


def test_the_driver_imports_no_tensorflow() -> None:
    script = (
        "import sys, search.cli, search.reproduce, search.console, mlflow\n"
        "from search.space import find_space, open_space\n"
        "for name in ('mlp', 'cnn'): open_space(find_space(name)).baseline_config()\n"
        "bad = {'tensorflow', 'keras'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
