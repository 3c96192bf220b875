"""Where things are in the folder that Podium is run in."""

from __future__ import annotations

from pathlib import Path

from search.ledger import LEDGER_NAME, Ledger, StudyRecord
from search.records import (
    ConfigError,
)
from search.settings import RUNS_PATH


def open_ledger() -> Ledger:
    """The ledger of the current folder."""
    return Ledger(RUNS_PATH / LEDGER_NAME)


def existing_ledger() -> Ledger:
    """The ledger of the current folder, where there is one.

    Raises:
        ConfigError: nothing was run here.
    """
    if not (RUNS_PATH / LEDGER_NAME).exists():
        raise ConfigError(
            f"No studies here: {RUNS_PATH / LEDGER_NAME} does not exist. "
            "Start one with `podium run`, or change to the folder that it was run in."
        )
    return open_ledger()


def find_study(ledger: Ledger, name: str) -> StudyRecord:
    """The study of that name.

    Raises:
        ConfigError: there is none; the message lists those that there are.
    """
    study = ledger.study(name)
    if study is None:
        known = ", ".join(s.name for s in ledger.studies()[:10]) or "none"
        raise ConfigError(f"No study {name!r}. Studies here: {known}.")
    return study


def study_folder(name: str) -> Path:
    """Where a study's own files are; made where it is missing."""
    folder = RUNS_PATH / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_path(study: str, number: int, epoch: int) -> Path:
    """Where the model of a trial, as it was after some epoch, is kept."""
    return study_folder(study) / "models" / f"{number:03d}-{epoch}.keras"
