from __future__ import annotations

from pathlib import Path

import pytest

from search.store import FileStore, MemoryStore, TrialStore


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TrialStore:
    return FileStore(tmp_path) if request.param == "files" else MemoryStore()


def test_the_newest_checkpoint_of_each_trial_is_kept(store: TrialStore) -> None:
    assert store.load_checkpoint(7) == (0, b"")
    store.save_checkpoint(7, 9, b"nine")
    store.save_checkpoint(7, 10, b"ten")
    store.save_checkpoint(70, 1, b"another trial")
    assert store.load_checkpoint(7) == (10, b"ten")
    assert store.load_checkpoint(70) == (1, b"another trial")
    store.drop_checkpoint(7)
    store.drop_checkpoint(7)
    assert store.load_checkpoint(7) == (0, b"")
    assert store.load_checkpoint(70) == (1, b"another trial")


def test_models_are_kept_by_trial(store: TrialStore) -> None:
    assert store.load_model(3) is None
    store.save_model(3, b"model")
    assert store.load_model(3) == b"model"


def test_files_survive_the_process_and_leave_no_rest(tmp_path: Path) -> None:
    FileStore(tmp_path).save_checkpoint(1, 2, b"two")
    FileStore(tmp_path).save_checkpoint(1, 4, b"four")
    assert FileStore(tmp_path).load_checkpoint(1) == (4, b"four")
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["001-4.npz"]


def test_a_checkpoint_that_was_being_written_when_the_process_died_is_not_seen(
    tmp_path: Path,
) -> None:
    store = FileStore(tmp_path)
    store.save_checkpoint(1, 2, b"two")
    (tmp_path / "checkpoints" / ".001-4.npz.4711").write_bytes(b"ha")
    (tmp_path / "checkpoints" / "001-of another kind.npz").write_bytes(b"he")
    assert store.load_checkpoint(1) == (2, b"two")
    store.drop_checkpoint(1)
    left = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert left == ["001-of another kind.npz"]


def test_a_model_that_was_being_written_when_the_process_died_leaves_no_rest(
    tmp_path: Path,
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for left in (".003.keras.4711", ".030.keras.4711"):
        (models / left).write_bytes(b"ha")
    FileStore(tmp_path).save_model(3, b"model")
    assert sorted(path.name for path in models.iterdir()) == [".030.keras.4711", "003.keras"]
