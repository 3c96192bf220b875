"""What a worker reports: at rungs, at the end, and when a job fails."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow.models
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from search.backend import keras
from search.data import TrainingData, load
from search.model import build_network
from search.records import (
    Assignment,
    EpochReport,
    Examination,
    Phase,
    Timing,
    TrialTotals,
    WorkerReport,
)
from search.space import find_space
from search.trainer import Task, Trainer
from search.worker import REFERENCE_FILE, Worker, WorkerContext, examine
from spaces.config import TrialConfig
from tests.builders import make_assignment

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


def _assignment(epochs: int, rungs: tuple[int, ...] = (), **values: Any) -> Assignment:
    fields = {"config": TrialConfig(hidden=(8,), batch_size=256), **values}
    return make_assignment(seed=1, split_seed=0, max_epochs=epochs, rungs=rungs, **fields)


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
    reports = _all_reports(_worker(data, tmp_path, NO_SOFTMAX), _assignment(3, rungs=(3,)))
    assert "softmax" in str(reports[-1].failure)
    assert reports[-1].epochs
    assert [item.epoch for report in reports for item in report.epochs] == [1, 2, 3]
    assert reports[0].compiled


def test_a_model_that_cannot_be_loaded_again_fails_its_trial(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path, LAMBDA)
    report = _all_reports(worker, _assignment(2))[-1]
    assert "build() uses a Lambda" in str(report.failure)
    assert not report.epochs, "told before anything is trained"


ACTIVATION = (
    HEAD
    + "    twice = lambda x: x * 2\n"
    + "    outputs = keras.layers.Dense(classes, activation=twice)(outputs)\n"
    + "    return keras.Model(inputs, keras.layers.Softmax()(outputs))\n"
)
OWN_LAYER = (
    HEAD
    + "    @keras.saving.register_keras_serializable('own')\n"
    + "    class Doubled(keras.layers.Layer):\n"
    + "        def call(self, x): return x * 2\n"
    + "    outputs = keras.layers.Dense(classes, activation='softmax')(Doubled()(outputs))\n"
    + "    inner = keras.Model(inputs, outputs)\n"
    + "    again = keras.Input(input_shape)\n"
    + "    return keras.Model(again, inner(again))\n"
)


def test_a_layer_of_the_spaces_own_fails_the_trial_however_it_is_registered(
    data: TrainingData, tmp_path: Path
) -> None:
    """Where the model is promoted, loaded and served, nobody has registered it."""
    report = _all_reports(_worker(data, tmp_path, OWN_LAYER), _assignment(2))[-1]
    assert "build() uses a Doubled" in str(report.failure)


def test_a_model_that_cannot_be_loaded_again_is_not_kept(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path, ACTIVATION)
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
    job = Examination(models, images, ship="6", requirements=("keras==3.15.1",))
    examined = examine(job, data)
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
    with np.load(tmp_path / REFERENCE_FILE, allow_pickle=False) as reference:
        np.testing.assert_array_equal(reference["images"], data.images[:32].astype(np.float32))
        expected = shipped.predict(reference["images"], verbose=0)
        np.testing.assert_allclose(reference["probabilities"], expected, atol=1e-6)
    metadata = mlflow.models.Model.load(str(tmp_path)).metadata
    assert metadata == {
        "data": "digits",
        "classes": list("0123456789"),
        "image_shape": [8, 8, 1],
    }


def test_a_worker_measures_what_models_cost(data: TrainingData, tmp_path: Path) -> None:
    worker = _worker(data, tmp_path)
    model = _all_reports(worker, _assignment(2, keep_model=True))[-1].model
    assert model is not None
    worker.take(Timing({"a": model, "b": model}, data.image_shape))
    report = worker.step()
    assert report.final
    assert set(report.timed) == {"a", "b"}
    for costs in report.timed.values():
        assert costs.file_bytes == len(model)
        for latency in (costs.single, costs.batch):
            assert 0 < latency.median_ms <= latency.p99_ms < 10_000


def test_a_model_of_which_the_costs_cannot_be_measured_is_a_failure_and_no_exception(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path)
    worker.take(Timing({"a": b"no model"}, data.image_shape))
    report = worker.step()
    assert report.final
    assert report.failure
    assert report.timed == {}


def test_a_dispensable_model_that_does_not_load_leaves_the_others_examined(
    data: TrainingData, tmp_path: Path
) -> None:
    model = _all_reports(_worker(data, tmp_path), _assignment(2, keep_model=True))[-1].model
    assert model is not None
    models = {"recommended": model, "champion": b"not a model"}
    job = Examination(models, data.images[:5], dispensable=("champion",))
    examined = examine(job, data)
    assert set(examined.probabilities) == {"recommended"}
    assert set(examined.failures) == {"champion"}
    with pytest.raises(Exception, match=r"(?i)zip|keras"):
        examine(replace(job, dispensable=()), data)


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_a_trial_is_validated_on_the_fraction_of_the_pool_that_it_was_assigned(
    data: TrainingData, tmp_path: Path, fraction: float
) -> None:
    worker = _worker(data, tmp_path)
    (split,) = worker._task(_assignment(1, validation_fraction=fraction)).splits
    expected = data.split(0, fraction)
    assert np.array_equal(split.train, expected.train)
    assert np.array_equal(split.validation, expected.validation)
    assert len(split.validation) / len(data.labels) == pytest.approx(fraction, abs=0.001)


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 12])
def test_folds_are_those_of_scikit_learn_for_the_split_seed(
    data: TrainingData, tmp_path: Path, folds: int, seed: int
) -> None:
    job = replace(_assignment(1, folds=folds), split_seed=seed)
    splits = _worker(data, tmp_path)._task(job).splits
    own = data.folds(folds, seed)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    theirs = list(splitter.split(data.images, data.labels))
    assert len(splits) == len(own) == len(theirs) == folds
    for split, mine, (train, validation) in zip(splits, own, theirs, strict=True):
        assert np.array_equal(split.train, mine.train)
        assert np.array_equal(split.validation, mine.validation)
        assert set(split.train.tolist()) == set(train.tolist())
        assert set(split.validation.tolist()) == set(validation.tolist())
        assert len(split.train) + len(split.validation) == len(data.labels)


def test_a_trial_with_folds_reports_their_totals_at_every_rung(
    data: TrainingData, tmp_path: Path
) -> None:
    job = _assignment(3, rungs=(1, 2), folds=3, keep_model=True)
    reports = _all_reports(_worker(data, tmp_path), job)
    assert reports[-1].failure is None
    measured = {r.epochs[-1].epoch: r.totals for r in reports if r.totals is not None}
    assert sorted(measured) == [1, 2, 3]
    run = Trainer(data).start(
        Task(job.config, build_network, "mlp", data.folds(3, 0), job.seed, job.max_epochs)
    )
    for epoch, totals in measured.items():
        report = run.run_epoch()
        expected: TrialTotals = run.totals()
        assert replace(totals, wall_seconds=0.0) == replace(expected, wall_seconds=0.0)
        assert report.val_accuracy == pytest.approx(np.mean(totals.fold_accuracies))
        assert totals.best_epoch == epoch  # so early, every epoch is better than those before
        assert len(totals.fold_accuracies) == 3
        assert sum(map(sum, totals.measures.confusion)) == len(data.labels)
    assert reports[-1].model is not None


def _outputs(content: bytes, data: TrainingData, folder: Path) -> NDArray[np.float32]:
    """What the model of a `.keras` file says of the first 200 images of the pool."""
    path = folder / "model.keras"
    path.write_bytes(content)
    model = keras.models.load_model(path, safe_mode=True)
    return model(data.images[:200].astype(np.float32)).numpy()


@pytest.mark.parametrize("folds", [0, 2], ids=["one-split", "folds"])
def test_a_snapshot_is_the_model_as_it_was_after_that_epoch(
    data: TrainingData, tmp_path: Path, folds: int
) -> None:
    config = TrialConfig(
        hidden=(8,), batch_size=256, dropout=0.3, learning_rate=0.03, batch_normalization=True
    )
    last = config.model_copy(update={"restore_best": False})
    worker = _worker(data, tmp_path)
    job = _assignment(4, rungs=(1, 2), config=config, folds=folds, snapshots=(1, 3, 4))
    reports = _all_reports(worker, job)
    taken = {e: content for r in reports for e, content in r.snapshots.items()}
    assert sorted(taken) == [1, 3, 4]
    for report in reports:
        assert set(report.snapshots) <= {item.epoch for item in report.epochs}
    for epoch, content in taken.items():
        ended = _assignment(epoch, config=last, folds=folds, keep_model=True)
        model = _all_reports(worker, ended)[-1].model
        assert model is not None
        found, expected = (_outputs(item, data, tmp_path) for item in (content, model))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(*(_outputs(taken[e], data, tmp_path) for e in (1, 3)), atol=1e-3)


def test_without_snapshots_a_report_carries_none(data: TrainingData, tmp_path: Path) -> None:
    assert not any(r.snapshots for r in _all_reports(_worker(data, tmp_path), _assignment(2)))


def test_patience_ends_a_trial_before_its_last_epoch_with_totals_and_model(
    data: TrainingData, tmp_path: Path
) -> None:
    config = TrialConfig(hidden=(8,), batch_size=256, patience=1, learning_rate=0.5)
    reports = _all_reports(_worker(data, tmp_path), _assignment(60, config=config, keep_model=True))
    accuracies = [item.val_accuracy for report in reports for item in report.epochs]
    assert 1 < len(accuracies) < 60
    assert accuracies[-1] <= accuracies[-2]
    assert all(later > earlier for earlier, later in pairwise(accuracies[:-1]))
    totals = reports[-1].totals
    assert totals is not None
    assert (totals.best_epoch, totals.val_accuracy) == (len(accuracies) - 1, accuracies[-2])
    assert reports[-1].model is not None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pca_components": 65}, "65 features"),
        ({"forest_pixels": 65}, "at most 64"),
    ],
    ids=str,
)
def test_more_features_than_pixels_fail_the_trial_with_the_reason(
    data: TrainingData, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    config = TrialConfig.model_validate(fields)
    (report,) = _all_reports(_worker(data, tmp_path), _assignment(2, config=config))
    assert reason in str(report.failure)
    assert report.epochs == ()


def _lost_parts(checkpoint: bytes) -> list[bytes]:
    """Checkpoints that are of no use: torn, of another version, half of one."""
    with np.load(io.BytesIO(checkpoint), allow_pickle=False) as found:
        arrays = dict(found)
    scalars = json.loads(str(arrays.pop("scalars")))
    versions = [{**scalars, "version": version} for version in (0, 99, None)]
    kept = {name: value for name, value in arrays.items() if name != "0.weights.0"}
    wrong = {**arrays, "0.state.9": np.zeros(3)}
    return [
        checkpoint[:-40],
        b"nothing of the kind",
        *(_npz(other, arrays) for other in (*versions, [], {})),
        _npz(scalars, kept),
        _npz(scalars, wrong),
    ]


def _npz(scalars: Any, arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, scalars=np.array(json.dumps(scalars)), **arrays)
    return buffer.getvalue()


def test_a_trial_whose_checkpoint_is_of_no_use_begins_again(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path)
    job = _assignment(4, rungs=(2,))
    reports = _all_reports(worker, job)
    [checkpoint] = [report.checkpoint for report in reports if report.checkpoint]
    whole = [_figures(epoch) for report in reports for epoch in report.epochs]
    rest = _all_reports(worker, replace(job, checkpoint=checkpoint, begun=True))
    assert [epoch.epoch for report in rest for epoch in report.epochs] == [3, 4]
    for damaged in _lost_parts(checkpoint):
        again = _all_reports(worker, replace(job, checkpoint=damaged, begun=True))
        assert again[-1].failure is None
        found = [_figures(epoch) for report in again for epoch in report.epochs]
        np.testing.assert_allclose(found, whole, rtol=1e-6)


def _figures(epoch: EpochReport) -> tuple[float, ...]:
    return (epoch.epoch, epoch.train_loss, epoch.val_loss, epoch.val_accuracy)


@pytest.mark.parametrize(
    ("statement", "needed"),
    [
        (
            "raise tf.errors.ResourceExhaustedError(None, None, 'Graph execution error: ' + 'x' * "
            "500 + ' OOM when allocating tensor with shape[4000,250000] and type float on CPU')",
            "4 GB for one tensor, 4000x250000 float",
        ),
        ("numpy.ones((10**7, 10**8))", "7.11 PiB for one array"),
        ("raise MemoryError", "more than the [0-9.]+ GB that its process had"),
    ],
)
def test_what_runs_out_of_memory_says_which_configuration_and_what_it_needed(
    data: TrainingData, tmp_path: Path, statement: str, needed: str
) -> None:
    head = HEAD.replace("    import keras\n", "    import keras, numpy, tensorflow as tf\n")
    worker = _worker(data, tmp_path, f"{head}    {statement}\n")
    [report] = _all_reports(worker, _assignment(1))
    expected = f"out of memory: dense 8, adam 0.001, batch 256 needed {needed}"
    assert re.fullmatch(expected, str(report.failure)), report.failure
    assert report.final


def test_a_checkpoint_can_be_had_between_two_steps_of_a_trial(
    data: TrainingData, tmp_path: Path
) -> None:
    worker = _worker(data, tmp_path)
    assert worker.checkpoint() is None
    worker.take(_assignment(2, rungs=(1,)))
    assert worker.checkpoint() is None
    report = worker.step()
    found, sent = worker.checkpoint(), report.checkpoint
    assert found is not None
    assert sent is not None
    with (
        np.load(io.BytesIO(found), allow_pickle=False) as ours,
        np.load(io.BytesIO(sent), allow_pickle=False) as theirs,
    ):
        for name in set(theirs.files) - {"scalars"}:
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert json.loads(str(ours["scalars"]))["epoch"] == 1
    assert worker.step().final
    assert worker.checkpoint() is None
