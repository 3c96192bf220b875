"""Where things are in the folder that Podium is run in."""

from __future__ import annotations

import os
import pwd
import shlex
from pathlib import Path

from search.credentials import masked
from search.ledger import LEDGER_NAME, Ledger, StudyRecord
from search.records import ConfigError
from search.settings import RUNS_PATH, STUDY_NAME

LEDGER_VARIABLE = "PODIUM_LEDGER"
"""Names another database for the ledger; a variable, because it may hold a password."""


def ledger_place() -> Path | str:
    """Where the ledger is: in the current folder, unless a variable says otherwise."""
    return os.environ.get(LEDGER_VARIABLE) or RUNS_PATH / LEDGER_NAME


def open_ledger() -> Ledger:
    """The ledger of the current folder.

    Raises:
        ConfigError: it cannot be used.
    """
    place = ledger_place()
    try:
        return Ledger(place)
    except ConfigError as error:
        raise _located(place, error) from None


def has_ledger() -> bool:
    """Whether there is one already.

    Raises:
        ConfigError: it does not answer.
    """
    place = ledger_place()
    try:
        return Ledger.is_at(place)
    except ConfigError as error:
        raise _located(place, error) from None


def _located(place: Path | str, error: ConfigError) -> ConfigError:
    if isinstance(place, Path):
        return error
    return ConfigError(
        f"{LEDGER_VARIABLE}: {error} Correct it, or unset it: the ledger is in {RUNS_PATH} then."
    )


def existing_ledger() -> Ledger:
    """The ledger of the current folder, where there is one.

    Raises:
        ConfigError: nothing was run here.
    """
    if has_ledger():
        return open_ledger()
    if isinstance(ledger_place(), str):
        raise ConfigError(
            f"No studies yet in the ledger that {LEDGER_VARIABLE} names. Start one with "
            "`podium run`."
        )
    raise ConfigError(
        f"No studies here: {RUNS_PATH / LEDGER_NAME} does not exist. "
        "Start one with `podium run`, or change to the folder that it was run in."
    )


def exposed(*others: Path) -> list[str]:
    """What to say of Podium's folder and of `others` where other users can get at them."""
    return [
        f"{path} can be read or changed by other users of this machine; "
        f"`chmod go= {shlex.quote(str(path))}` ends that."
        for path in (RUNS_PATH, *others)
        if path.exists() and path.stat().st_mode & 0o077
    ]


def refused(error: OSError) -> str:
    """What the system does not let this user do, and whose permission it takes, for people."""
    reason = masked(error.strerror or str(error))
    if error.filename is None:
        return f"{reason}."
    path = Path(os.fsdecode(error.filename))
    if not isinstance(error, PermissionError):
        return f"{path}: {reason}."
    place, owner = _owned(path)
    return (
        f"{path}: {reason}: {place} belongs to {owner}, and this user ({_name(os.geteuid())}) may "
        f"not use it. Ask {owner} for permission, or work in a folder of your own."
    )


def _owned(path: Path) -> tuple[Path, str]:
    """The part of a path that keeps this user from the rest of it, and whose it is."""
    for place in (path, *path.parents):
        try:
            return place, _name(place.stat().st_uid)
        except OSError:
            continue
    return path, "another user"


def _name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:  # a container's user may have no name
        return str(user_id)


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


def study_path(name: str) -> Path:
    """Where a study's own files are, or would be.

    Raises:
        ConfigError: it would be somewhere else.
    """
    if not STUDY_NAME.fullmatch(name):
        raise ConfigError(
            f"Study {name!r} has a name that no folder gets: someone has changed the ledger. "
            "Start another study with `podium run`."
        )
    return RUNS_PATH / "studies" / name


def study_folder(name: str) -> Path:
    """Where a study's own files are; made where it is missing.

    Raises:
        ConfigError: it cannot be made, or would be somewhere else.
    """
    folder = study_path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be made ({error.strerror}). Move what is there out of the way."
        ) from None
    return folder


def model_path(study: str, number: int, epoch: int) -> Path:
    """Where the model of a trial, as it was after some epoch, is kept."""
    return study_folder(study) / "models" / f"{number:03d}-{epoch}.keras"
