"""`podium figures`: the pictures of a study and of a trial, also long after it was run."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search import canvas, figures
from search.comparison import Row
from search.credentials import hidden
from search.data import LoadedData, TrainingData
from search.folder import find_study, model_path, study_folder
from search.gallery import KINDS, Subject, Wishes, draw, draw_varied
from search.launch import load_data
from search.ledger import Ledger, StudyRecord
from search.records import (
    ConfigError,
    Inspected,
    Inspection,
    Phase,
    PodiumError,
    State,
    StudyFailed,
    TrialRecord,
    one_line,
)
from search.settings import StudySettings, nearest, stored_settings
from search.space import SpaceSource, find_space
from spaces.notebooks import Notebook


@dataclass(frozen=True, slots=True)
class Look:
    """A trial to look into, and its model where that was kept."""

    trial: TrialRecord
    model: bytes | None
    activation_images: int


def illustrate(
    ledger: Ledger, study: str, number: int | None, kinds: Sequence[str], wishes: Wishes
) -> list[Path]:
    """Draws a study's figures, and those of one of its trials.

    A trial whose model was not kept is trained again, on the same seeds and split.

    Args:
        ledger: where the study is.
        study: its name.
        number: of the trial; None for the one that was recommended, or else the best.
        kinds: of `gallery.KINDS`; all where empty.
        wishes: what to draw where a figure leaves a choice.

    Raises:
        PodiumError: no such study, trial or kind, or the data is not what it was.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"Unknown figure {kind!r}.{nearest(kind, KINDS)}")
    record = find_study(ledger, study)
    trials = ledger.trials(study)
    trial = _choose(record, trials, number)
    settings = settings_of(record)
    data = _same_data(record, settings)
    _check_wishes(wishes, data.training)
    look = Look(trial, kept_model(record, trial), max(2_000, wishes.tsne_images))
    [inspected] = look_into(data.training, find_space(settings.space), [look])
    if "activation-boxes" in kinds:
        _check_unit(wishes, inspected)
    subject = Subject(
        trial,
        ledger.epochs(study, trial.number),
        inspected,
        data.training,
        data.test.class_counts(len(data.training.classes)),
        wishes=wishes,
    )
    folder = study_folder(study) / "figures"
    paths = draw(subject, folder / f"trial-{trial.number:03d}", kinds)
    return paths if kinds else paths + draw_varied(trials, folder)


def _check_wishes(wishes: Wishes, data: TrainingData) -> None:
    """Refuses what the data does not have.

    Raises:
        ConfigError: a class, pixel or image beyond the last one.
    """
    pixels = int(np.prod(data.image_shape))
    limits = (
        ("--pair", wishes.pair or (), len(data.classes), "classes"),
        ("--pixels", wishes.pixels or (), pixels, "pixels"),
        ("--image", wishes.images, len(data.labels), "images in the pool"),
    )
    for flag, positions, count, what in limits:
        for position in positions:
            if not 0 <= position < count:
                raise ConfigError(f"{flag} {position}: there are {count:,} {what}, from 0.")
    if wishes.pair and wishes.pair[0] == wishes.pair[1]:
        raise ConfigError(f"--pair {wishes.pair[0]},{wishes.pair[1]}: expected two classes.")


def _check_unit(wishes: Wishes, inspected: Inspected) -> None:
    layers = inspected.activations
    name = f"hidden {wishes.layer}"
    if name not in layers:
        raise ConfigError(f"--layer {wishes.layer}: there are {len(layers)} dense hidden layers.")
    units = layers[name].shape[1]
    if wishes.unit >= units:
        raise ConfigError(f"--unit {wishes.unit}: {name} has {units} units, from 0.")


def settings_of(record: StudyRecord) -> StudySettings:
    """The settings that a study was run with, as far as they are known to this version."""
    return stored_settings(f"study {record.name}", record.settings)


def _choose(record: StudyRecord, trials: Sequence[TrialRecord], number: int | None) -> TrialRecord:
    if number is not None:
        found = next((t for t in trials if t.number == number), None)
        if found is None or not found.epochs_trained:
            trained = ", ".join(str(t.number) for t in trials if t.epochs_trained) or "none"
            raise ConfigError(
                f"Study {record.name} has no trial {number} that was trained. There are: {trained}."
            )
        return found
    done = [t for t in trials if t.state is State.COMPLETED and t.totals]
    if not done:
        raise ConfigError(f"Study {record.name} has no completed trial to draw figures of.")
    chosen = (record.outcome or {}).get("recommended")
    own = [t for t in done if t.config.config_id == chosen and not t.folds]
    confirmed = [t for t in own if t.phase is not Phase.SEARCH]
    return max(confirmed or own or done, key=lambda t: (t.val_accuracy or 0.0, -t.number))


def _same_data(record: StudyRecord, settings: StudySettings) -> LoadedData:
    data = load_data(settings)
    if data.fingerprint != record.facts["fingerprint"]:
        raise ConfigError(
            f"The data of study {record.name} is not what it was: its fingerprint was "
            f"{record.facts['fingerprint']} and is {data.fingerprint} now."
        )
    return data


def kept_model(record: StudyRecord, trial: TrialRecord) -> bytes | None:
    """The model of a trial where it was kept: as it was shipped, or after its last epoch."""
    path = model_path(record.name, trial.number, trial.epochs_trained)
    if (record.outcome or {}).get("trial") == trial.number:
        path = study_folder(record.name) / "model" / "data" / "model.keras"
    return path.read_bytes() if path.is_file() else None


def look_into(data: TrainingData, space: SpaceSource, looks: Sequence[Look]) -> list[Inspected]:
    """Looks into models in a process of its own, so that TensorFlow stays out of this one.

    Raises:
        StudyFailed: a model could not be trained again, or not be looked into.
    """
    # Started afresh: a copy of this process would share its threads' locks.
    context = multiprocessing.get_context("spawn")
    try:
        # A space's networks are built there: they need no credentials.
        with hidden(), ProcessPoolExecutor(1, context, initializer=_quiet) as pool:
            return pool.submit(_look_into, data, space, list(looks)).result()
    except PodiumError as error:
        raise StudyFailed(f"The model cannot be trained again: {error}") from None
    except Exception as error:
        raise StudyFailed(f"The model cannot be looked into: {one_line(error)}") from error


def _quiet() -> None:
    """TensorFlow's libraries write to the terminal before anyone can stop them."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def _look_into(data: TrainingData, space: SpaceSource, looks: list[Look]) -> list[Inspected]:
    from search.inspection import inspect
    from search.worker import Worker, WorkerContext

    worker = Worker.in_own_process(WorkerContext(data, space, os.cpu_count() or 1))
    found = []
    for look in looks:
        trial = look.trial
        job = Inspection(
            look.model or worker.trained_again(trial),
            trial.split_seed,
            trial.validation_fraction,
            trial.tail,
            trial.folds,
            look.activation_images,
        )
        found.append(inspect(job, data))
    return found


def illustrate_reproduction(
    notebook: Notebook,
    rows: Sequence[Row],
    subjects: Mapping[str, Subject],
    folder: Path,
) -> list[Path]:
    """Draws the figures that a notebook drew, each from the experiment that it names.

    Args:
        notebook: whose `drawings` are drawn, as far as their experiments were run.
        rows: from `compare`.
        subjects: by experiment.
        folder: for the files.
    """
    paths = []
    for drawing in notebook.drawings:
        if drawing.kind in ("bars", "distribution"):
            paths += _draw_rows(drawing.kind, drawing.options, rows, folder)
        elif drawing.experiment in subjects:
            subject = subjects[drawing.experiment]
            wished = replace(subject, wishes=Wishes(**drawing.options))
            paths += draw(wished, folder / f"experiment-{drawing.experiment}", [drawing.kind])
    return paths


def _draw_rows(
    kind: str, options: Mapping[str, Any], rows: Sequence[Row], folder: Path
) -> list[Path]:
    metric, wanted = str(options["metric"]), options.get("experiments", ())
    over = str(options.get("over", "experiments"))
    named = {
        _label(row): row
        for row in rows
        if row.figures.get(metric) and (not wanted or row.experiment.id in wanted)
    }
    if not named:
        return []
    values = {name: row.figures[metric] for name, row in named.items()}
    measure = metric.replace("_", " ")
    folder.mkdir(parents=True, exist_ok=True)
    missing = [row.experiment.id for row in rows if row.experiment.id in wanted and not row.epochs]
    title = f"{measure.capitalize()} by {over}"
    if missing:
        title += f" (not run: {', '.join(missing)})"
    if kind == "bars":
        figure = figures.bars({measure: values}, title, measure, zoom=True)
    else:
        published = {
            name: [v for a in row.agreements if a.figure.metric == metric for v in a.figure.values]
            for name, row in named.items()
        }
        figure = figures.distribution(values, title, measure, published=published)
    path = folder / f"{kind}-{over}-{metric}.png".replace(" ", "-")
    return [canvas.save(figure, path)]


def _label(row: Row) -> str:
    """An experiment's id, and how long it was trained where that was cut short."""
    if not row.shortened:
        return row.experiment.id
    return f"{row.experiment.id} ({max(row.epochs)} of {row.experiment.config.epochs} epochs)"
