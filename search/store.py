"""Where a study keeps what is too large for its ledger: checkpoints and models of its trials."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class TrialStore(Protocol):
    """Keeps files by the trial's number; each is whole or not there."""

    def save_checkpoint(self, number: int, epoch: int, checkpoint: bytes) -> None:
        """Replaces the trial's checkpoint; whoever looks meanwhile finds the old one."""
        ...

    def load_checkpoint(self, number: int) -> tuple[int, bytes]:
        """The newest one with the epoch after which it was taken; (0, b"") where there is none."""
        ...

    def drop_checkpoint(self, number: int) -> None:
        """Removes it, if it is there."""
        ...

    def save_model(self, number: int, model: bytes) -> None:
        """Keeps the `.keras` file of a trial."""
        ...

    def load_model(self, number: int) -> bytes | None:
        """That file; None where it is missing."""
        ...


class MemoryStore:
    """For studies that nobody will take up again."""

    def __init__(self) -> None:
        """Begins empty."""
        self._checkpoints: dict[int, tuple[int, bytes]] = {}
        self._models: dict[int, bytes] = {}

    def save_checkpoint(self, number: int, epoch: int, checkpoint: bytes) -> None:
        """Replaces the trial's checkpoint."""
        self._checkpoints[number] = epoch, checkpoint

    def load_checkpoint(self, number: int) -> tuple[int, bytes]:
        """The newest one with its epoch; (0, b"") where there is none."""
        return self._checkpoints.get(number, (0, b""))

    def drop_checkpoint(self, number: int) -> None:
        """Removes it, if it is there."""
        self._checkpoints.pop(number, None)

    def save_model(self, number: int, model: bytes) -> None:
        """Keeps the model."""
        self._models[number] = model

    def load_model(self, number: int) -> bytes | None:
        """The model; None where it is missing."""
        return self._models.get(number)


class FileStore:
    """Files in a folder of the study, which survive its process."""

    def __init__(self, folder: Path) -> None:
        """Keeps them in `folder`, which is made when the first one comes."""
        self._checkpoints, self._models = folder / "checkpoints", folder / "models"

    def save_checkpoint(self, number: int, epoch: int, checkpoint: bytes) -> None:
        """Replaces the trial's checkpoint."""
        earlier = self._of(number)
        path = self._checkpoints / f"{number:03d}-{epoch}.npz"
        _write(path, checkpoint)
        for old in earlier:
            if old != path:
                old.unlink(missing_ok=True)

    def load_checkpoint(self, number: int) -> tuple[int, bytes]:
        """The newest one with its epoch; (0, b"") where there is none."""
        newest = max(self._of(number), key=_epoch, default=None)
        return (_epoch(newest), newest.read_bytes()) if newest else (0, b"")

    def drop_checkpoint(self, number: int) -> None:
        """Removes it, if it is there, and what a process that died left half written."""
        for path in (*self._of(number), *self._checkpoints.glob(f".{number:03d}-*")):
            path.unlink(missing_ok=True)

    def _of(self, number: int) -> list[Path]:
        files = self._checkpoints.glob(f"{number:03d}-*.npz")
        return [path for path in files if path.stem.partition("-")[2].isdecimal()]

    def save_model(self, number: int, model: bytes) -> None:
        """Keeps the model."""
        _write(self._models / f"{number:03d}.keras", model)

    def load_model(self, number: int) -> bytes | None:
        """The model; None where it is missing."""
        return _read(self._models / f"{number:03d}.keras")


def _epoch(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes) -> None:
    """So that the file is never seen half written, and survives a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*"):  # by a process that died; one writes at a time
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a loss of power may take the new name back
    finally:
        os.close(folder)
