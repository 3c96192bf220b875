"""What MLflow is told of a study's end: by the study itself, or later by `podium sync`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.escaping import as_line
from search.folder import find_study, study_folder, study_path
from search.ledger import Ledger, StudyRecord, check_facts
from search.lock import held, is_of_another_folder
from search.records import (
    DeliveryFailed,
    LedgerError,
    Phase,
    PodiumError,
    RunElsewhere,
    State,
    TrackingError,
    one_line,
)
from search.registry import (
    RegisteredModel,
    artifact_link,
    holds_recommended,
    register_recommended,
    remove_duplicates,
)
from search.settings import (
    RUNS_PATH,
    TrackingSettings,
    same_place,
    stored_tracking,
    without_password,
)
from search.tracking import RUN_STATUS, Tracker, check_tracking, is_away

UNUSED_BY_NOTEBOOKS = frozenset(
    {
        *("trials", "max_epochs", "first_rung", "reduction", "sampler", "scheduler"),
        *("finalists", "confirm_seeds", "folds", "grid", "space", "trial_timeout", "time_budget"),
    }
)
"""Settings that a fixed list of trials does not use: MLflow is not told."""
FACTS = ("space", "data", "fingerprint", "test_fingerprint", "git_commit")
ARTIFACTS = ("report.md", "report.html", "figures")


@dataclass(frozen=True, slots=True)
class Left:
    """What MLflow has not been told of a study.

    Attributes:
        trials: of how many it lacks something.
        ending: whether the study has ended, and MLflow does not know how.
    """

    trials: int
    ending: bool

    def __bool__(self) -> bool:
        """Whether there is anything."""
        return bool(self.trials) or self.ending

    def __str__(self) -> str:
        """For people, as in "3 trials and its end"."""
        trials = f"{self.trials} trial{'' if self.trials == 1 else 's'}" if self.trials else ""
        return " and ".join(filter(None, (trials, "its end" if self.ending else "")))


def left(ledger: Ledger, record: StudyRecord) -> Left:
    """What MLflow has not been told of a study."""
    ended = record.state is not State.RUNNING
    return Left(
        ledger.count_undelivered(record.name), ended and not ledger.is_end_told(record.name)
    )


def undelivered(study: str, error: BaseException) -> str:
    """What a study says at its end of what MLflow did not take."""
    return (
        f"MLflow does not have everything: {one_line(error).rstrip(' .:')}. The ledger has it: "
        f"`podium sync {study}` delivers it once MLflow answers"
    )


def make_tracker(ledger: Ledger, record: StudyRecord, settings: TrackingSettings) -> Tracker:
    """Tells MLflow of a study, the same whoever does and whenever it is done.

    Args:
        ledger: that holds the study.
        record: of the study, as the ledger has it.
        settings: where to, with the password that the ledger does not keep.
    """
    unused = UNUSED_BY_NOTEBOOKS if "notebook" in record.settings else frozenset()
    told = {k: v for k, v in record.settings.items() if k not in {"tracking", "study", *unused}}
    return Tracker(
        settings,
        ledger,
        record.name,
        tags=_tags(record.facts, told),
        params=told,
        fingerprint=str(record.facts.get("fingerprint", "")),
    )


def _tags(facts: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, str]:
    tags = {f"podium.{name}": str(facts[name]) for name in FACTS if name in facts}
    tags |= {f"podium.version.{k}": str(v) for k, v in facts.get("versions", {}).items()}
    return tags | {f"podium.{k}": str(told[k]) for k in ("sampler", "scheduler") if k in told}


def model_folder(study: str) -> Path:
    """Where the recommended model of a study is, as MLflow takes it."""
    return study_path(study) / "model"


def register_model(ledger: Ledger, tracker: Tracker, settings: TrackingSettings) -> RegisteredModel:
    """Registers the model that the tracker's study recommends, and puts that on record.

    The same one again where it was registered before, with the verdict of now.

    Raises:
        TrackingError: the study kept no model.
        Exception: MLflow's; to be done again.
    """
    record = find_study(ledger, tracker.study)
    outcome, folder = record.outcome or {}, model_folder(record.name)
    trial = next((t for t in ledger.trials(record.name) if t.number == outcome.get("trial")), None)
    if trial is None or not holds_recommended(folder, record):
        raise TrackingError(
            f"its model cannot be registered: {folder} is not whole, or holds that of another "
            "trial than the verdict's."
        )
    name = settings.model_name(str(record.facts["data"]))
    judged_ms = ledger.last_opened_ms(record.name)
    model = register_recommended(tracker.client, name, record, trial, folder, judged_ms)
    remove_duplicates(tracker.client, model, tracker.run_id)
    ledger.name_model(record.name, trial.number, model.uri)
    return model


def tell_end(
    ledger: Ledger, tracker: Tracker, state: State, reason: str | None, ended_ms: int
) -> None:
    """Ends the parent run, with what there is of a report and figures, and puts that on record.

    Args:
        ledger: that holds the tracker's study, of which every trial was delivered.
        tracker: of the study.
        state: that it ended in.
        reason: why, if it did not complete.
        ended_ms: when.

    Raises:
        Exception: MLflow's; to be done again.
    """
    study = tracker.study
    note, artifacts = as_line(reason or state.value), []
    metrics: list[tuple[str, float, int]] = []
    if state is not State.INTERRUPTED:
        outcome = find_study(ledger, study).outcome or {}
        folder = study_path(study)
        artifacts = [path for name in ARTIFACTS if (path := folder / name).exists()]
        if "notebook" in outcome:
            note = as_line(outcome.get("summary", ""))
        else:
            sentence = outcome.get("verdict", {}).get("sentence")
            note = sentence or "Search only: nothing was confirmed."
            note = as_line(reason or f"{note} {outcome.get('cut', '')}".strip())
            metrics = _best(ledger, study)
        if folder / "report.html" in artifacts:
            link = artifact_link(tracker.experiment_id, tracker.run_id)
            note += f"\n\n[The report]({link}) has the reasons."
    tracker.finish(RUN_STATUS[state], ended_ms, note, metrics, artifacts)
    ledger.set_end_told(study)


def _best(ledger: Ledger, study: str) -> list[tuple[str, float, int]]:
    """The best of the search, with the time of the trial that had it first."""
    good = [
        (trial.val_accuracy, trial.ended_ms or trial.started_ms)
        for trial in ledger.trials(study)
        if trial.phase is Phase.SEARCH
        and trial.state in (State.COMPLETED, State.STOPPED)
        and trial.val_accuracy is not None
    ]
    if not good:
        return []
    accuracy, when_ms = max(good, key=lambda pair: (pair[0], -pair[1]))
    return [("best_val_accuracy", accuracy, when_ms)]


def sync(ledger: Ledger, study: str, settings: TrackingSettings, now_ms: int) -> str:
    """Delivers to MLflow whatever it lacks of a study; says in a sentence what that was.

    It can be broken off anywhere and done again.

    Args:
        ledger: that holds the study.
        study: its name.
        settings: where to, with the password that the ledger does not keep.
        now_ms: the time.

    Raises:
        InUse: another process runs the study.
        RunElsewhere: it was run in another folder.
        DeliveryFailed: MLflow refused a part, or went away.
        TrackingError: it does not answer, or refuses everything.
        LedgerError: what it holds of the study was damaged.
    """
    folder = study_path(study)
    check_facts(find_study(ledger, study))
    if not folder.is_dir():
        if is_of_another_folder(study, ledger.database, RUNS_PATH):
            raise RunElsewhere(
                f"Study {study} was run in another folder, which has its model and its report: "
                f"`podium sync {study}` there."
            )
        study_folder(study)  # Somebody removed it; a lock needs one.
    with held(study, folder, ledger.database, now_ms):
        check_tracking(settings)
        _end_if_given_up(ledger, find_study(ledger, study), now_ms)
        record = find_study(ledger, study)
        tracker = make_tracker(ledger, record, settings)
        try:
            said = _deliver(ledger, record, settings, tracker)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - each kind of store has errors of its own
            raise _failure(study, settings, tracker, error) from None
        return f"{study}: {said}{_goes_on(record)}."


def _end_if_given_up(ledger: Ledger, record: StudyRecord, now_ms: int) -> None:
    """Ends a reproduction whose process died: nothing goes on with it, and nobody runs it now."""
    if record.state is not State.RUNNING or "notebook" not in record.settings:
        return
    reason = "its process ended before it"
    for trial in ledger.trials(record.name):
        if trial.state is State.RUNNING:
            ledger.end_trial(record.name, trial.number, State.INTERRUPTED, now_ms, reason)
    ledger.end_study(record.name, State.INTERRUPTED, reason, now_ms)


def _failure(
    study: str, settings: TrackingSettings, tracker: Tracker, error: Exception
) -> TrackingError:
    kind = DeliveryFailed if tracker.run_id else TrackingError
    if isinstance(error, PodiumError):
        return kind(str(error))
    return kind(
        f"Study {study}: MLflow at {without_password(settings.tracking_uri)} does not take "
        f"everything: {one_line(error)}. The ledger keeps what is left; `podium sync {study}` goes "
        "on from there."
    )


def _goes_on(record: StudyRecord) -> str:
    if record.state not in (State.RUNNING, State.INTERRUPTED):
        return ""
    if notebook := record.settings.get("notebook"):
        return f"; it did not come to its end, `podium reproduce {notebook}` begins again"
    return f"; it has not ended, `podium resume {record.name}` goes on with it"


def _deliver(
    ledger: Ledger, record: StudyRecord, settings: TrackingSettings, tracker: Tracker
) -> str:
    # Before it is asked what MLflow lacks: a store may have lost what it was told.
    tracker.patiently(tracker.reach)
    _keep_place(ledger, record, settings)
    missing, refusal = left(ledger, record), None
    if not missing:
        return "nothing to deliver"
    try:
        tracker.patiently(tracker.deliver)
    except Exception as error:
        if is_away(error) or not tracker.run_id:
            raise
        refusal = error  # A trial that MLflow does not take holds up neither model nor report.
    said = f"delivered {missing}"
    if missing.ending:
        said += _deliver_end(ledger, record, settings, tracker)
    if refusal is not None:
        raise refusal
    return said


def _keep_place(ledger: Ledger, record: StudyRecord, settings: TrackingSettings) -> None:
    """Puts on record where a study is tracked, if that is not where it was."""
    before = stored_tracking(f"study {record.name}", record.settings)
    if not same_place(before.tracking_uri, settings.tracking_uri):
        place = settings.model_dump(mode="json", include={"tracking_uri", "artifact_root"})
        ledger.set_tracking(record.name, place)


def _deliver_end(
    ledger: Ledger, record: StudyRecord, settings: TrackingSettings, tracker: Tracker
) -> str:
    said = ""
    if record.state is State.COMPLETED and "verdict" in (record.outcome or {}):
        try:
            model = tracker.patiently(lambda: register_model(ledger, tracker, settings))
            said += f"; its model is {model.uri}"
        except TrackingError as error:
            said += f"; {error}".rstrip(".")
    files = [study_path(record.name) / name for name in ARTIFACTS]
    if record.state is State.COMPLETED and not any(path.exists() for path in files):
        said += "; its report and figures are gone"
    ended_ms = record.ended_ms or record.started_ms
    tracker.patiently(lambda: tell_end(ledger, tracker, record.state, record.reason, ended_ms))
    return said
