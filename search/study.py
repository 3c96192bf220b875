"""Puts the parts of a study together; the only place that chooses them."""

from __future__ import annotations

import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from search.arrays import VALIDATION_FRACTION
from search.data import LoadedData, load
from search.director import Progress, StudyDirector
from search.gallery import Subject, draw, draw_varied
from search.ledger import LEDGER_NAME, Ledger, StudyRecord, taken
from search.records import (
    ConfigError,
    PodiumError,
    Recommendation,
    State,
    StudyFailed,
    Verdict,
)
from search.registry import RegisteredModel, register, unpack
from search.report import ReportContent, write_report
from search.reproduction import ReproductionDirector
from search.sampler import Sampler, check_space
from search.scheduler import make_scheduler
from search.selection import confirmed_candidates, recommend
from search.settings import RUNS_PATH, STUDY_NAME, StudySettings, without_password
from search.space import Space, find_space, listed_space, open_space
from search.tracking import Tracker, check_tracking
from search.tuning import Cluster, join_cluster, leave_cluster, run_experiment
from spaces.config import TrialConfig

VERSIONED = ("ray", "optuna", "tensorflow", "keras", "mlflow", "numpy", "scikit-learn")
SHIPPED = ("tensorflow", "keras", "numpy", "mlflow")
DELIVERY_SECONDS = 120.0
View = Callable[[Progress, str], AbstractContextManager[object]]
Conductor = StudyDirector | ReproductionDirector


@dataclass(frozen=True, slots=True)
class Launch:
    """A study that passed every check and is about to begin."""

    name: str
    settings: StudySettings
    space: Space
    data: LoadedData
    cluster: Cluster
    concurrent: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study ended in.

    Attributes:
        trouble: what is missing, and why: figures, or something in MLflow.
    """

    name: str
    recommendation: Recommendation | None
    verdict: Verdict | None
    report: Path
    model: RegisteredModel | None
    model_file: Path | None
    trouble: str | None


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


def prepare(settings: StudySettings) -> Launch:
    """Checks everything that can be checked before anything is written, and joins the cluster.

    Raises:
        PodiumError: whatever is wrong; the cluster was left again.
    """
    space = open_space(find_space(settings.space))
    if settings.grid:
        space = listed_space(space, settings.grid)
    name = settings.study or new_name(space.source.name, settings.data)
    _check_name_is_free(name)
    data = load_data(settings)
    check_space(space, data.training.image_shape)
    check_tracking(settings.tracking)
    cluster = join_cluster(settings.address)
    try:
        concurrent = cluster.concurrency(
            settings.concurrent, settings.cpus_per_trial, settings.gpus_per_trial
        )
    except PodiumError:
        leave_cluster()
        raise
    return Launch(name, settings, space, data, cluster, concurrent)


def load_data(settings: StudySettings) -> LoadedData:
    """The data set that the settings name.

    Raises:
        DataError: there is none, or it cannot be used.
    """
    shape = tuple(map(int, settings.image_shape.split("x"))) if settings.image_shape else None
    return load(
        settings.data,
        settings.data_dir,
        settings.seed,
        label_column=settings.label_column,
        image_shape=shape,
    )


def run_study(launch: Launch, view: View) -> Outcome:
    """Runs a study from search to report, and leaves the cluster.

    Args:
        launch: from `prepare`.
        view: makes what shows the progress meanwhile.

    Raises:
        StudyFailed: it could not reach a result; the ledger says why.
    """
    name, settings = launch.name, launch.settings
    facts = study_facts(launch, launch.space.baseline_config())
    ledger = open_ledger()
    try:
        tracker = begin(launch, facts, ledger, {})
        director = StudyDirector(
            name,
            settings,
            launch.data,
            launch.space.baseline_config(),
            ledger,
            Sampler(
                settings.sampler, launch.space, launch.data.training.image_shape, settings.seed
            ),
            make_scheduler(settings),
            requirements=tuple(f"{package}=={version(package)}" for package in SHIPPED),
            now_ms=now_ms,
            notify=tracker.wake,
        )
        conduct(launch, director, ledger, tracker, view)
        return _finish(launch, facts, ledger, tracker, director)
    finally:
        leave_cluster()
        ledger.close()


def begin(
    launch: Launch, facts: Mapping[str, Any], ledger: Ledger, extra: Mapping[str, Any]
) -> Tracker:
    """Records that a study has begun, and prepares to tell MLflow of it.

    Args:
        launch: the study.
        facts: from `study_facts`.
        ledger: where to.
        extra: settings that are not those of `StudySettings`.

    Raises:
        ConfigError: there is a study of that name.
    """
    settings = launch.settings
    ledger.begin_study(launch.name, {**_stored(settings), **extra}, facts, now_ms())
    return Tracker(
        settings.tracking,
        ledger,
        launch.name,
        tags=_tags(launch, facts),
        params={**settings.model_dump(mode="json", exclude={"tracking", "study"}), **extra},
        fingerprint=launch.data.fingerprint,
    )


def conduct(
    launch: Launch, director: Conductor, ledger: Ledger, tracker: Tracker, view: View
) -> None:
    """Runs a director's jobs to their end; a study that breaks off is recorded as failed.

    Raises:
        Whatever ended it before its end.
    """
    name, settings = launch.name, launch.settings
    tracker.start()
    try:
        with view(director.progress, name):
            run_experiment(
                director,
                launch.data.training,
                launch.space.source,
                concurrent=launch.concurrent,
                cpus_per_trial=settings.cpus_per_trial,
                gpus_per_trial=settings.gpus_per_trial,
                folder=study_folder(name),
            )
        if not director.is_finished():
            raise KeyboardInterrupt
    except BaseException as error:
        reason = _reason(error)
        by_hand = reason in ("interrupted", "terminated")
        director.close_open_trials(reason if by_hand else "the study ended before it")
        ledger.end_study(name, State.FAILED, reason, now_ms())
        with suppress(Exception):  # the study's own error is the one to tell
            tracker.close(DELIVERY_SECONDS)
            tracker.finish("FAILED", now_ms(), reason)
        raise


def recommend_again(ledger: Ledger, name: str, policy: str | None) -> tuple[Recommendation, str]:
    """Applies a policy to a study's confirmed candidates; nothing is trained or opened.

    Returns:
        The recommendation, and the `config_id` that the study itself recommended ("" if none).

    Raises:
        PodiumError: no such study or policy, or nothing was confirmed.
    """
    study = find_study(ledger, name)
    try:
        candidates = confirmed_candidates(ledger.trials(name), study.facts["baseline"])
    except StudyFailed as error:
        raise ConfigError(f"Study {name}: no recommendation can be made. {error}") from None
    chosen = policy or study.settings.get("policy", "one-standard-error")
    shipped = (study.outcome or {}).get("recommended", "")
    return recommend(candidates, chosen, VALIDATION_FRACTION), shipped


def study_folder(name: str) -> Path:
    """Where a study's own files are; made where it is missing."""
    folder = RUNS_PATH / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def model_path(study: str, number: int, epoch: int) -> Path:
    """Where the model of a trial, as it was after some epoch, is kept."""
    folder = study_folder(study) / "models"
    folder.mkdir(exist_ok=True)
    return folder / f"{number:03d}-{epoch}.keras"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def command_line(settings: StudySettings) -> str:
    """The command that runs a study with these settings, those at their default left out."""
    words = ["podium", "run"]
    for field, info in StudySettings.model_fields.items():
        value = getattr(settings, field)
        if field == "grid":
            for parameter, values in settings.grid.items():
                words += ["--grid", f"{parameter}={','.join(values)}"]
        elif field not in ("study", "tracking") and value != info.default:
            words += [f"--{field.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _finish(
    launch: Launch,
    facts: dict[str, Any],
    ledger: Ledger,
    tracker: Tracker,
    director: StudyDirector,
) -> Outcome:
    name, folder = launch.name, study_folder(launch.name)
    recommendation, verdict = director.recommendation, director.verdict
    outcome: dict[str, Any] = {}
    if recommendation is not None and verdict is not None:
        outcome = {
            "recommended": recommendation.winner.config.config_id,
            "policy": recommendation.policy,
            "summary": recommendation.summary,
            "verdict": asdict(verdict),
        }
        ledger.set_outcome(name, outcome)
    ledger.end_study(name, State.COMPLETED, None, now_ms())
    model, model_file, trouble = None, None, None
    if director.package:
        model_file = unpack(director.package, folder / "model")
    try:
        tracker.close(DELIVERY_SECONDS)
        if recommendation is not None and verdict is not None:
            model = _register(launch, tracker, recommendation, verdict, folder / "model")
            ledger.set_outcome(name, outcome | {"model": model.uri})
    except Exception as error:  # noqa: BLE001 - the result stands without MLflow
        trouble = f"MLflow does not have everything: {one_line(error)}"
    drawn = []
    try:
        drawn = _illustrate(launch, ledger, director)
    except Exception as error:  # noqa: BLE001 - and without figures
        trouble = trouble or f"no figures: {one_line(error)}"
    content = ReportContent(
        study=name,
        trials=ledger.trials(name),
        recommendation=recommendation,
        verdict=verdict,
        command=command_line(launch.settings),
        facts=facts,
        model=model,
        model_file=model_file,
    )
    markdown, html = write_report(content, folder)
    if tracker.run_id:
        try:
            note = verdict.sentence if verdict else "Search only: nothing was confirmed."
            metrics = {"best_val_accuracy": director.progress.best or 0.0}
            tracker.finish("FINISHED", now_ms(), note, metrics, [markdown, html, *drawn])
        except Exception as error:  # noqa: BLE001 - likewise
            trouble = trouble or f"MLflow does not have everything: {one_line(error)}"
    return Outcome(name, recommendation, verdict, html, model, model_file, trouble)


def _illustrate(launch: Launch, ledger: Ledger, director: StudyDirector) -> list[Path]:
    """The folder with the figures of the study, and of the recommended model if there is one."""
    folder, trials = study_folder(launch.name) / "figures", ledger.trials(launch.name)
    draw_varied(trials, folder)
    if director.inspected is not None and director.shipped is not None:
        number, data = director.shipped.number, launch.data
        subject = Subject(
            next(t for t in trials if t.number == number),
            ledger.epochs(launch.name, number),
            director.inspected,
            data.training,
            data.test.class_counts(len(data.training.classes)),
        )
        draw(subject, folder / "recommended")
    return [folder]


def _register(
    launch: Launch,
    tracker: Tracker,
    recommendation: Recommendation,
    verdict: Verdict,
    folder: Path,
) -> RegisteredModel:
    return register(
        tracker.client,
        tracker.experiment_id,
        tracker.run_id,
        launch.settings.tracking.registered_model,
        folder,
        metrics={
            "test_accuracy_low": verdict.accuracy.low,
            "test_accuracy_high": verdict.accuracy.high,
            **{f"test_{key}": value for key, value in verdict.measures.scalars.items()},
            "baseline_test_accuracy": verdict.baseline_accuracy.value,
            "test_openings": float(verdict.openings),
        },
        description=verdict.sentence,
        tags={
            "podium.study": launch.name,
            "podium.config_id": recommendation.winner.config.config_id,
            "podium.fingerprint": launch.data.fingerprint,
        },
        now_ms=now_ms(),
    )


def _stored(settings: StudySettings) -> dict[str, Any]:
    """The settings as the ledger keeps them: without a password."""
    values = settings.model_dump(mode="json")
    values["tracking"]["tracking_uri"] = without_password(settings.tracking.tracking_uri)
    return values


def new_name(*words: str) -> str:
    """A name for a study, from words that say what it is about and the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = "".join(c if STUDY_NAME.fullmatch(f"a{c}") else "-" for c in "-".join(words))
    return f"{name.strip('-._')[:40] or 'study'}-{stamp}"


def _check_name_is_free(name: str) -> None:
    if (RUNS_PATH / LEDGER_NAME).exists():
        ledger = open_ledger()
        try:
            if ledger.study(name) is not None:
                raise ConfigError(taken(name))
        finally:
            ledger.close()


def study_facts(launch: Launch, baseline: TrialConfig) -> dict[str, Any]:
    """What is known of a study's data, code and versions."""
    data = launch.data
    return {
        "data": data.training.name,
        "fingerprint": data.fingerprint,
        "test_fingerprint": data.test.fingerprint,
        "image_shape": list(data.training.image_shape),
        "classes": len(data.training.classes),
        "train_images": len(data.split.train),
        "validation_images": len(data.split.validation),
        "test_images": data.test.size,
        "seed": launch.settings.seed,
        "baseline": baseline.config_id,
        "git_commit": _git_commit(),
        "versions": _versions(),
    }


def _tags(launch: Launch, facts: Mapping[str, Any]) -> dict[str, str]:
    settings = launch.settings
    return {
        "podium.space": launch.space.source.name,
        "podium.data": settings.data,
        "podium.fingerprint": launch.data.fingerprint,
        "podium.sampler": settings.sampler,
        "podium.scheduler": settings.scheduler,
        "podium.git_commit": facts["git_commit"],
        **{f"podium.version.{name}": value for name, value in facts["versions"].items()},
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("podium-search", *VERSIONED):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git_commit() -> str:
    """The commit of the folder that the study runs in, or else of Podium; `+` for changes."""
    for folder in (Path.cwd(), Path(__file__).parent):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit:
            changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return commit + ("+" if changed else "")
    return "unknown"


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return "terminated"
    return str(error) if isinstance(error, PodiumError) else one_line(error)


def one_line(error: BaseException) -> str:
    """An exception's kind and message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
