"""What a worker reports: at rungs, at the end, and when a job fails."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from search.backend import keras
from search.data import TrainingData, load
from search.model import build_network
from search.records import Assignment, Examination, Phase, WorkerReport
from search.space import find_space
from search.trainer import Task, Trainer
from search.worker import Worker, WorkerContext, examine
from spaces.config import TrialConfig

HEAD = """
from spaces.config import TrialConfig
def suggest(trial): return TrialConfig()
def baseline(): return TrialConfig()
def build(config, input_shape, classes):
    import keras
    inputs = keras.Input(input_shape)
    outputs = keras.layers.Flatten()(inputs)
"""
NO_SOFTMAX = HEAD + "    return keras.Model(inputs, keras.layers.Dense(classes)(outputs))\n"
LAMBDA = (
    HEAD
    + "    outputs = keras.layers.Lambda(lambda x: x * 2)(outputs)\n"
    + "    outputs = keras.layers.Dense(classes, activation='softmax')(outputs)\n"
    + "    return keras.Model(inputs, outputs)\n"
)


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return load("digits", None, seed=0).training


def _worker(data: TrainingData, tmp_path: Path, text: str | None = None) -> Worker:
    name = "mlp"
    if text is not None:
        name = str(tmp_path / "own.py")
        Path(name).write_text(text)
    return Worker(WorkerContext(data, find_space(name), threads=1))


def _assignment(epochs: int, rungs: tuple[int, ...] = (), keep_model: bool = False) -> Assignment:
    config = TrialConfig(hidden=(8,), batch_size=256)
    return Assignment(0, Phase.SEARCH, config, 1, 0, epochs, rungs, keep_model)


def _all_reports(worker: Worker, job: Assignment) -> list[WorkerReport]:
    worker.take(job)
    reports = [worker.step()]
    while not reports[-1].final:
        reports.append(worker.step())
    return reports


def test_a_report_ends_at_every_rung_and_carries_totals(data: TrainingData, tmp_path: Path) -> None:
    reports = _all_reports(_worker(data, tmp_path), _assignment(7, rungs=(2, 5)))
    with_totals = [r.epochs[-1].epoch for r in reports if r.totals is not None]
    assert with_totals == [2, 5, 7]
    assert [e.epoch for r in reports for e in r.epochs] == list(range(1, 8))
    assert [bool(r.compiled) for r in reports] == [True] + [False] * (len(reports) - 1)
    assert reports[-1].failure is None


def test_the_model_comes_with_the_last_report_where_it_is_asked_for(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path)
    with_model = _all_reports(worker, _assignment(2, rungs=(1,), keep_model=True))
    assert [report.model is not None for report in with_model] == [False, True]
    assert _all_reports(worker, _assignment(2))[-1].model is None


def test_epochs_that_were_measured_before_a_failure_are_reported(
    data: TrainingData, tmp_path: Path
) -> None:
    (report,) = _all_reports(_worker(data, tmp_path, NO_SOFTMAX), _assignment(3, rungs=(3,)))
    assert "softmax" in str(report.failure)
    assert [item.epoch for item in report.epochs] == [1, 2, 3]
    assert report.compiled


def test_a_model_that_cannot_be_loaded_again_fails_its_trial(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path, LAMBDA)
    report = _all_reports(worker, _assignment(2, keep_model=True))[-1]
    assert "cannot be loaded again" in str(report.failure)
    assert report.model is None


def test_the_worker_goes_on_after_a_failed_trial(data: TrainingData, tmp_path: Path) -> None:
    worker = _worker(data, tmp_path)
    broken = TrialConfig(filters=(8,) * 9)
    assert _all_reports(worker, Assignment(0, Phase.SEARCH, broken, 1, 0, 2, ()))[-1].failure
    assert _all_reports(worker, _assignment(1))[-1].failure is None


def test_an_examination_gives_each_models_probabilities_and_one_package(
    data: TrainingData, tmp_path: Path
) -> None:
    trainer = Trainer(data)
    models = {}
    for units in (4, 6):
        config = TrialConfig(hidden=(units,))
        run = trainer.start(Task(config, build_network, "mlp", (data.split(0),), 1, 9))
        run.run_epoch()
        models[str(units)] = run.saved_model()
    images = data.images[:40]
    examined = examine(Examination(models, images, ship="6", requirements=("keras==3.15.1",)))
    assert set(examined.probabilities) == {"4", "6"}
    for probabilities in examined.probabilities.values():
        assert probabilities.shape == (40, 10)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    (tmp_path / "package.zip").write_bytes(examined.package)
    with zipfile.ZipFile(tmp_path / "package.zip") as archive:
        assert "keras==3.15.1" in archive.read("requirements.txt").decode().split()
        archive.extractall(tmp_path)
    shipped = keras.models.load_model(tmp_path / "data" / "model.keras")
    again = shipped.predict(images.astype(np.float32), verbose=0)
    np.testing.assert_allclose(again, examined.probabilities["6"], atol=1e-6)
