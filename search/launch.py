"""Everything before the first trial: checks, names, facts, the record of a study."""

from __future__ import annotations

import math
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from search.credentials import without_secrets
from search.data import LoadedData, load
from search.delivery import make_tracker
from search.folder import find_study, has_ledger, open_ledger, study_path
from search.ledger import Ledger, StudyRecord, taken
from search.lock import check_free
from search.records import ConfigError, DataError, Phase, PodiumError, State, TrackingError
from search.sampler import check_space
from search.settings import (
    FINALISTS,
    GROWING,
    STUDY_NAME,
    StudySettings,
    TrackingSettings,
    settings_again,
    stored_settings,
)
from search.space import Space, find_space, listed_space, open_space
from search.tracking import Tracker, check_tracking
from search.tuning import Cluster, join_cluster, leave_cluster
from spaces.config import TrialConfig

VERSIONED = ("ray", "optuna", "tensorflow", "keras", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Launch:
    """A study that passed every check and is about to begin.

    Attributes:
        note: what stands in its way and does not stop it; "" where nothing does.
    """

    name: str
    settings: StudySettings
    space: Space
    data: LoadedData
    cluster: Cluster
    concurrent: int
    note: str = ""


def prepare(settings: StudySettings) -> Launch:
    """Checks everything that can be checked before anything is written, and joins the cluster.

    Raises:
        PodiumError: whatever is wrong; the cluster was left again.
    """
    name = settings.study or new_name(find_space(settings.space).name, settings.data)
    _check_name_is_free(name)
    return _prepared(name, settings)


def _prepared(name: str, settings: StudySettings, *, again: bool = False) -> Launch:
    space = open_space(find_space(settings.space))
    if settings.grid:
        space = listed_space(space, settings.grid)
    data = load_data(settings)
    _check_folds(settings.folds, data)
    check_space(space, data.training.image_shape)
    note = ""
    try:
        check_tracking(settings.tracking)
    except TrackingError as error:
        if not again:
            raise
        # It would go on, too, if MLflow had gone away a minute later.
        note = (
            f"{error} The study goes on without MLflow, until that answers; what it lacks in the "
            f"end, `podium sync {name}` delivers."
        )
    cluster = join_cluster(settings.address)
    try:
        concurrent = cluster.concurrency(
            settings.concurrent, settings.cpus_per_trial, settings.gpus_per_trial
        )
    except PodiumError:
        leave_cluster()
        raise
    return Launch(name, settings, space, data, cluster, concurrent, note)


def prepare_again(
    record: StudyRecord, tracking: TrackingSettings, flags: Mapping[str, Any]
) -> Launch:
    """As `prepare`, for a study that is there already: it goes on as it began.

    Args:
        record: the study.
        tracking: where it is tracked from now on, with the password that the ledger does not keep.
        flags: settings that may differ; None: as before.

    Raises:
        PodiumError: whatever is wrong, or not as it was; the cluster was left again.
    """
    settings = settings_again(record.settings, tracking, flags)
    check_not_ended(record, settings)
    _check_proposals_are_known(record.name)
    launch = _prepared(record.name, settings, again=True)
    found = study_facts(launch, launch.space.baseline_config())
    for fact in ("fingerprint", "baseline", "space"):
        if record.facts.get(fact) not in (None, found[fact]):
            leave_cluster()
            raise ConfigError(
                f"Study {record.name} cannot go on: its {fact} was "
                f"{record.facts[fact]} and is {found[fact]} now, so that new trials could not be "
                "compared with earlier ones. Restore what was changed, or start another study."
            )
    return launch


def check_not_ended(record: StudyRecord, settings: StudySettings) -> None:
    """Refuses to go on with a study that has all its trials and its verdict, or no time for more.

    Raises:
        ConfigError: it has.
    """
    before = stored_settings(f"study {record.name}", record.settings)
    more = settings.trials > before.trials
    has_more = any(getattr(settings, name) > getattr(before, name) for name in GROWING)
    cut_at = _cut_at_budget(record)
    has_time = cut_at is not None and (settings.time_budget or math.inf) > cut_at
    if more and cut_at is not None and not has_time:
        raise ConfigError(
            f"Study {record.name}: its --time-budget {cut_at:g} s is used up, so that no trial "
            f"would be begun. `podium resume {record.name} --trials {settings.trials} "
            f"--time-budget {2 * cut_at:g}` gives it more of both."
        )
    if record.state is State.COMPLETED and not (has_more or has_time):
        raise ConfigError(_ended(record))


def _cut_at_budget(record: StudyRecord) -> float | None:
    """The budget that ended the search of a study; None where its trials did."""
    outcome = record.outcome or {}
    if not outcome.get("cut"):
        return None
    # An older Podium recorded only that there was a cut.
    found = outcome.get("cut_at_budget") or record.settings.get("time_budget")
    return float(found) if found else None


def _check_proposals_are_known(name: str) -> None:
    """Refuses to go on with a study whose sampler could not be filled again.

    Raises:
        ConfigError: a Podium that could not resume yet began it.
    """
    ledger = open_ledger()
    try:
        searched = [t for t in ledger.trials(name) if t.phase is Phase.SEARCH]
    finally:
        ledger.close()
    if any(not trial.proposal for trial in searched):
        raise ConfigError(
            f"Study {name} cannot go on: an older Podium began it, which did not record how its "
            f"trials were proposed. What it has stands in `podium compare {name}`; start another "
            "study for more."
        )


def _ended(record: StudyRecord) -> str:
    cut_at, resume = _cut_at_budget(record), f"`podium resume {record.name}"
    ended = f"Study {record.name} has ended."
    confirms = stored_settings(f"study {record.name}", record.settings).finalists > 0
    if not confirms:
        ended += f" {resume} --finalists {FINALISTS}` confirms its best trials."
    if cut_at is not None:
        return (
            f"{ended} {resume} --time-budget {2 * cut_at:g}` gives it more time for the trials "
            "that it did not come to."
        )
    seeds = ", `--confirm-seeds +8` eight more seeds" if confirms else ""
    return f"{ended} {resume} --trials +50` gives it 50 more trials{seeds}."


def known_study(settings: StudySettings) -> StudyRecord | None:
    """The study that has the name already and could go on as it was; None where there is none.

    Raises:
        ConfigError: there is one that could not; the message says why, and what to do.
    """
    name = settings.study
    if name is None or not has_ledger():
        return None
    ledger = open_ledger()
    try:
        record = ledger.study(name)
        if record is None:
            return None
        check_free(name, study_path(name), ledger.database)
    finally:
        ledger.close()
    if "notebook" in record.settings:
        raise ConfigError(taken(record))
    if record.state is State.COMPLETED:
        raise ConfigError(
            f"There is a study {name!r} already. {_ended(record)} Or choose another --study."
        )
    different = _differences(settings, record)
    if different:
        raise ConfigError(
            f"There is a study {name!r} already, with other settings ({'; '.join(different)}). "
            f"`podium resume {name}` goes on with it as it was; or choose another --study."
        )
    return record


def _differences(settings: StudySettings, record: StudyRecord) -> list[str]:
    """What was given, and is not as the study has it."""
    given = settings.model_dump(mode="json", include=settings.model_fields_set - {"tracking"})
    return [
        f"{field.replace('_', '-')} was {record.settings.get(field)}, not {value}"
        for field, value in given.items()
        if field != "study" and record.settings.get(field) != value
    ]


def _check_folds(folds: int, data: LoadedData) -> None:
    """Refuses more folds than there are images of some class: each fold needs one.

    Raises:
        DataError: there are too few.
    """
    counts = np.bincount(data.training.labels, minlength=len(data.training.classes))
    scarce = int(counts.argmin())
    if folds > counts[scarce]:
        raise DataError(
            f"--folds {folds}: there are only {counts[scarce]} images of class "
            f"{data.training.classes[scarce]!r} outside the test split; at most as many folds."
        )


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


def begin(
    launch: Launch,
    facts: Mapping[str, Any],
    ledger: Ledger,
    extra: Mapping[str, Any],
    *,
    again: bool = False,
) -> Tracker:
    """Records that a study has begun, and prepares to tell MLflow of it.

    Args:
        launch: the study.
        facts: from `study_facts`.
        ledger: where to.
        extra: settings that are not those of `StudySettings`.
        again: whether the study is there already, and goes on.

    Raises:
        ConfigError: there is a study of that name.
    """
    settings = launch.settings
    stored = {**settings.model_dump(mode="json"), **extra}  # without a password
    if again:
        ledger.reopen_study(launch.name, stored)
    else:
        ledger.begin_study(launch.name, stored, facts, now_ms())
    return make_tracker(ledger, find_study(ledger, launch.name), settings.tracking)


class SteadyClock:
    """Wall time that goes forward even where the clock is set back, so that no end is too early."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        steady_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Starts at the wall time of now."""
        self._wall_ns, self._steady_ns = wall_ns, steady_ns
        self._latest = wall_ns(), steady_ns()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        (latest, at), steady = self._latest, self._steady_ns()
        # At least as much later as it is: a machine that slept has only the wall clock to tell it.
        wall = max(self._wall_ns(), latest + steady - at)
        self._latest = wall, steady
        return wall // 1_000_000


_clock = SteadyClock()


def now_ms() -> int:
    """Milliseconds since 1970; never less than before in the same process."""
    return _clock.now_ms()


def study_facts(launch: Launch, baseline: TrialConfig) -> dict[str, Any]:
    """What is known of a study's data, code and versions."""
    data = launch.data
    return {
        "data": data.training.name,
        "fingerprint": data.fingerprint,
        "test_fingerprint": data.test.fingerprint,
        "image_shape": list(data.training.image_shape),
        "classes": len(data.training.classes),
        "class_names": list(data.training.classes),
        "train_images": len(data.split.train),
        "validation_images": len(data.split.validation),
        "test_images": data.test.size,
        "seed": launch.settings.seed,
        "baseline": baseline.config_id,
        "space": launch.space.source.identity,
        "git_commit": _git_commit(),
        "versions": _versions(),
    }


def new_name(*words: str) -> str:
    """A name for a study, from words that say what it is about and the time."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = "".join(c if STUDY_NAME.fullmatch(f"a{c}") else "-" for c in "-".join(words))
    return f"{name.strip('-._')[:40] or 'study'}-{stamp}"


def _check_name_is_free(name: str) -> None:
    if has_ledger():
        ledger = open_ledger()
        try:
            if (known := ledger.study(name)) is not None:
                raise ConfigError(taken(known))
        finally:
            ledger.close()


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
            env=without_secrets(),
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
