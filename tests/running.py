"""Runs the command line as a user does, in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS = 240
LAUNCHER = """
import sys
from search.cli import main
try:
    main()
finally:
    if "tensorflow" in sys.modules:
        print("THE DRIVER IMPORTED TENSORFLOW")
"""


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


def podium(*words: str, folder: Path, seconds: float = SECONDS, **variables: str) -> Finished:
    """Runs `podium WORDS` in `folder` and tells in its output if TensorFlow was imported."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, *words],
        cwd=folder,
        env={**inherited, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)
