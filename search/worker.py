"""What happens inside a training process, from job to report; TensorFlow lives here only."""

from __future__ import annotations

import io
import math
import os
import re
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.backend import keras, tf
from search.costs import measure_costs
from search.data import TrainingData
from search.inspection import inspect
from search.model import Build, build_network, load_model
from search.records import (
    Assignment,
    Examination,
    Examined,
    Inspection,
    Job,
    Timing,
    TrialFailed,
    TrialRecord,
    WorkerReport,
    one_line,
)
from search.space import SpaceSource, open_space
from search.trainer import Task, Trainer, TrainingRun, limit_resources

STRETCH_SECONDS = 1.0
"""A report is sent at every rung, and otherwise when this much time has gone by."""
EXAMINATION_BATCH = 1000
REFERENCE_IMAGES = 32
REFERENCE_FILE = "reference.npz"


@dataclass(frozen=True)
class WorkerContext:
    """What all jobs of a worker share."""

    data: TrainingData
    space: SpaceSource
    threads: int
    checkpoint_seconds: float = 30.0


class Worker:
    """Does one job after another; any failure of a job is a report, never an exception."""

    def __init__(self, context: WorkerContext) -> None:
        """Takes the data over."""
        self._context = context
        self._build: Build = open_space(context.space).build or build_network
        self._trainer = Trainer(context.data)
        self._job: Job | None = None
        self._run: TrainingRun | None = None
        self._saved_at = 0.0

    @classmethod
    def in_own_process(cls, context: WorkerContext) -> Worker:
        """A worker that has its process, and so TensorFlow's threads and GPUs, to itself."""
        limit_resources(context.threads)
        return cls(context)

    def take(self, job: Job) -> None:
        """Takes a job up, dropping the one before."""
        self._job, self._run = job, None

    def step(self) -> WorkerReport:
        """Works on until there is something to report."""
        try:
            if isinstance(self._job, Assignment):
                return self._train(self._job)
            if isinstance(self._job, Examination):
                examined = examine(self._job, self._context.data)
                return WorkerReport(os.getpid(), final=True, examined=examined)
            if isinstance(self._job, Timing):
                return WorkerReport(os.getpid(), final=True, timed=measure_costs(self._job))
            if isinstance(self._job, Inspection):
                inspected = inspect(self._job, self._context.data)
                return WorkerReport(os.getpid(), final=True, inspected=inspected)
            raise TrialFailed("no job was given.")
        except Exception as error:  # noqa: BLE001 - the boundary that turns failures into records
            return WorkerReport(os.getpid(), final=True, failure=_reason(error, self._job))

    def _train(self, job: Assignment) -> WorkerReport:
        report = WorkerReport(os.getpid())
        try:
            if self._run is None:
                self._run = self._begun(job)
                self._saved_at = time.monotonic()
                report = replace(report, compiled=self._run.compiled)
            run, at_rung = self._run, False
            deadline = time.monotonic() + STRETCH_SECONDS
            while not (at_rung or (report.epochs and time.monotonic() > deadline)):
                report = replace(report, epochs=(*report.epochs, run.run_epoch()))
                if run.epoch in job.snapshots:
                    taken = {**report.snapshots, run.epoch: run.snapshot()}
                    report = replace(report, snapshots=taken)
                at_rung = run.epoch in job.rungs or run.is_over
            if at_rung:
                report = replace(report, totals=run.totals())
            if not run.is_over and (at_rung or self._is_checkpoint_due()):
                report = replace(report, checkpoint=run.checkpoint())
                self._saved_at = time.monotonic()
            if run.is_over:
                model = run.saved_model() if job.keep_model else None
                report = replace(report, final=True, model=model)
        except Exception as error:  # noqa: BLE001 - what was measured before it is kept
            report = replace(report, final=True, failure=_reason(error, job))
        return report

    def checkpoint(self) -> bytes | None:
        """Of the trial that is under way, between two steps; None where there is none."""
        return None if self._run is None or self._run.is_over else self._run.checkpoint()

    def _begun(self, job: Assignment) -> TrainingRun:
        """The job's run, from its checkpoint; from the start where that is of no use."""
        run = self._trainer.start(self._task(job))
        if job.checkpoint:
            try:
                run.restore(job.checkpoint)
            except TrialFailed:
                # Damaged, or of another version of Podium; what it restored so far is dropped.
                return self._trainer.start(self._task(job))
        return run

    def _is_checkpoint_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._context.checkpoint_seconds

    def trained_again(self, trial: TrialRecord) -> bytes:
        """The `.keras` file of a trial that is trained once more, on its seeds and split.

        Raises:
            TrialFailed: as it did then.
        """
        run = self._trainer.start(self._task(trial))
        for _ in range(trial.epochs_trained):
            run.run_epoch()
        return run.saved_model()

    def _task(self, job: Assignment | TrialRecord) -> Task:
        context = self._context
        splits = context.data.splits_for(job)
        return Task(job.config, self._build, context.space.name, splits, job.seed, job.max_epochs)


def examine(job: Examination, data: TrainingData) -> Examined:
    """Lets each model classify the images, and prepares the one to ship for MLflow.

    Args:
        job: what to examine.
        data: what the models were trained on; gives the package its example and its classes.
    """
    probabilities: dict[str, NDArray[np.float32]] = {}
    failures: dict[str, str] = {}
    package = b""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, content in job.models.items():
            path = folder / "model.keras"
            path.write_bytes(content)
            try:
                model = load_model(path)
                probabilities[key] = _predict(model, job.images)
            except Exception as error:
                if key not in job.dispensable:
                    raise
                failures[key] = one_line(error)
                continue
            if key == job.ship:
                write_package(model, data, job.requirements, folder / "package")
                package = _zipped(folder / "package")
    return Examined(probabilities, package, failures)


def _predict(model: keras.Model, images: NDArray[Any]) -> NDArray[np.float32]:
    answers = model.predict(images.astype(np.float32), batch_size=EXAMINATION_BATCH, verbose=0)
    return np.asarray(answers, np.float32)


def write_package(
    model: keras.Model, data: TrainingData, requirements: tuple[str, ...], path: Path
) -> None:
    """Writes an MLflow model folder; nothing is sent anywhere.

    By the side of the model are the first images of the pool with what the model says of them, so
    that whoever loads it elsewhere can tell whether it still says the same.

    Args:
        model: takes float32 (n, h, w, c), gives float32 (n, classes).
        data: gives the example and the names of the classes.
        requirements: pip requirements; without them MLflow would import everything once more.
        path: a folder that does not exist.
    """
    import mlflow.keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = data.images[:REFERENCE_IMAGES].astype(np.float32)
    inputs = TensorSpec(np.dtype(np.float32), (-1, *images.shape[1:]))
    outputs = TensorSpec(np.dtype(np.float32), (-1, model.output_shape[1]))
    # MLflow writes the example before it makes the folder.
    path.mkdir()
    mlflow.keras.save_model(
        model,
        str(path),
        signature=ModelSignature(Schema([inputs]), Schema([outputs])),
        input_example=images[:1],
        pip_requirements=list(requirements),
        metadata={
            "data": data.name,
            "classes": list(data.classes),
            "image_shape": list(data.image_shape),
        },
    )
    np.savez_compressed(path / REFERENCE_FILE, images=images, probabilities=_predict(model, images))


def _zipped(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def _reason(error: Exception, job: Job | None) -> str:
    if isinstance(error, TrialFailed):
        return str(error)
    if isinstance(error, MemoryError | tf.errors.ResourceExhaustedError):
        what = job.config.summary if isinstance(job, Assignment) else "the process"
        return f"out of memory: {what} needed {_memory_needed(str(error))}"
    # A user's own code is what can be mended: its line, if it is among the frames.
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not {"site-packages", "search"} & set(Path(f.filename).parts)]
    where = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
    return f"{one_line(error)}{where}"


def _memory_needed(message: str) -> str:
    """What TensorFlow or NumPy could not allocate, or else what the process had by then."""
    tensor = re.search(r"tensor with shape\s*\[([\d,]+)\] and type (\w+)", message)
    if tensor is not None:
        shape = [int(size) for size in tensor[1].split(",")]
        size = math.prod(shape) * getattr(tf.dtypes, tensor[2], tf.float32).size
        return f"{_gigabytes(size)} for one tensor, {'x'.join(map(str, shape))} {tensor[2]}"
    array = re.search(r"allocate ([\d.]+ \w+) for an array", message)
    if array is not None:
        return f"{array[1]} for one array"
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"more than the {_gigabytes(peak)} that its process had"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
