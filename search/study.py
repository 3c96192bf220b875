"""Runs a study from its first trial to its report; the only place that chooses its parts."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from search import tuning
from search.arrays import VALIDATION_FRACTION
from search.delivery import model_folder, register_model, tell_end, undelivered
from search.director import Progress, StudyDirector
from search.folder import find_study, open_ledger, study_folder
from search.gallery import Subject, draw, draw_varied
from search.gates import judge_gates
from search.interruption import INTERRUPTIONS
from search.launch import Launch, begin, check_not_ended, now_ms, study_facts
from search.ledger import Ledger, way_to_a_verdict
from search.lock import held
from search.records import (
    Champion,
    ConfigError,
    ConstraintsUnmet,
    Phase,
    PodiumError,
    Recommendation,
    State,
    StudyFailed,
    TrackingError,
    Verdict,
    one_line,
)
from search.registry import RegisteredModel, find_champion, read_champion, unpack
from search.report import ReportContent, write_report
from search.sampler import Sampler
from search.scheduler import make_scheduler
from search.selection import confirmed_candidates, left_out
from search.sensitivity import explained
from search.settings import StudySettings, criteria_from
from search.space import BUILT_IN, Space
from search.store import FileStore
from search.tracking import Tracker
from search.tuning import leave_cluster, run_experiment

SHIPPED = ("tensorflow", "keras", "numpy", "mlflow")
INTERRUPTED = "interrupted"
DELIVERY_SECONDS = 120.0
LEAVING_SECONDS = 10.0
"""For MLflow, of a study that was interrupted: the ledger has what it does not hear of."""
CHAMPION_SECONDS = 30.0
DRAWING, DELIVERING, WRITING = "drawing figures", "telling MLflow", "writing the report"
DONE = "done"
"""Phases of a study that has its result."""
View = Callable[[Progress, str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a study ended in.

    Attributes:
        trouble: what is missing, and why: figures, or something in MLflow.
        refusing: what would refuse its model as champion, in sentences.
        refusal: why nothing is recommended, although candidates were confirmed.
        cut: what a time budget did to the search; "" where it did nothing.
    """

    name: str
    recommendation: Recommendation | None
    verdict: Verdict | None
    report: Path
    model: RegisteredModel | None
    model_file: Path | None
    trouble: str | None
    refusal: ConstraintsUnmet | None = None
    cut: str = ""
    refusing: Sequence[str] = ()


class Director(tuning.Director, Protocol):
    """A director that can be broken off, and that tells how far it is."""

    progress: Progress

    def is_settled(self) -> bool:
        """Whether the outcome stands, whatever is still to come."""
        ...

    def close_open_trials(self, reason: str) -> None:
        """Records the trials that are still open as failed."""


def run_study(launch: Launch, view: View) -> Outcome:
    """Runs a study from search to report, and leaves the cluster.

    Args:
        launch: from `prepare`.
        view: makes what shows the progress meanwhile.

    Raises:
        StudyFailed: it could not reach a result; the ledger says why.
    """
    return _run_locked(launch, view, again=False)


def resume_study(launch: Launch, view: View) -> Outcome:
    """Goes on with a study that was interrupted, or that is to have more trials.

    Args:
        launch: from `prepare_again`.
        view: makes what shows the progress meanwhile.

    Raises:
        StudyFailed: it could not reach a result; the ledger says why.
        ConfigError: another process runs it.
    """
    return _run_locked(launch, view, again=True)


def _run_locked(launch: Launch, view: View, *, again: bool) -> Outcome:
    name, settings = launch.name, launch.settings
    shape = launch.data.training.image_shape
    with at_work(name) as ledger:
        if again:
            record = find_study(ledger, name)
            check_not_ended(record, settings)
            facts = dict(record.facts)
        else:
            facts = study_facts(launch, launch.space.baseline_config())
        tracker = begin(launch, facts, ledger, {}, again=again)
        champion = _ChampionLookup(launch, tracker, find_study(ledger, name).outcome or {})
        director = StudyDirector(
            name,
            settings,
            launch.data,
            launch.space.baseline_config(),
            ledger,
            Sampler(settings.sampler, launch.space, shape, settings.seed),
            make_scheduler(settings),
            requirements=tuple(f"{package}=={version(package)}" for package in SHIPPED),
            now_ms=now_ms,
            notify=tracker.wake,
            champion=champion.result,
            store=FileStore(study_folder(name)),
            concurrent=launch.concurrent,
        )
        if again:
            director.restore()
        with view(director.progress, name):
            conduct(launch, director, ledger, tracker)
            with ended_anyhow(ledger, name, tracker):
                return _finish(launch, facts, ledger, tracker, director)


def _way_on(name: str, notebook: str | None) -> str:
    """How a study that broke off goes on, as a clause."""
    if notebook is not None:
        return f"`podium reproduce {notebook}` begins again"
    return f"`podium resume {name}` goes on from there"


@contextmanager
def at_work(name: str, notebook: str | None = None) -> Iterator[Ledger]:
    """The ledger, with a study's lock held; the cluster is left afterwards, however it ends.

    Args:
        name: of the study.
        notebook: that it reproduces; None if it is a search.

    Raises:
        StudyFailed: a file could not be written or read.
        ConfigError: another process runs the study.
    """
    ledger = open_ledger()
    try:
        with held(name, study_folder(name), ledger.database, now_ms()):
            yield ledger
    except OSError as error:
        raise StudyFailed(
            f"The study could not go on: {one_line(error)}. What was committed is kept; once there "
            f"is space again, or whatever it lacked, {_way_on(name, notebook)}."
        ) from error
    finally:
        leave_cluster()
        ledger.close()


@contextmanager
def ended_anyhow(ledger: Ledger, name: str, tracker: Tracker) -> Iterator[None]:
    """Records that a study broke off after its last trial, if it did not end before.

    MLflow is told, too, if it answered the last time; Ctrl-C, once more, ends that at once.
    """
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # the error itself is the one to tell
            if find_study(ledger, name).state is State.RUNNING:
                ledger.end_study(name, _broken_off(error), _reason(error), now_ms())
                if tracker.is_reached:
                    _tell_broken_off(ledger, tracker, error)
        raise


def _broken_off(error: BaseException) -> State:
    """The state of a study that an error ended."""
    return State.INTERRUPTED if isinstance(error, KeyboardInterrupt) else State.FAILED


def _tell_broken_off(ledger: Ledger, tracker: Tracker, error: BaseException) -> None:
    """Tells MLflow how a study broke off, which the ledger knows already."""
    state = _broken_off(error)
    tracker.close(_leaving_seconds() if state is State.INTERRUPTED else DELIVERY_SECONDS)
    tell_end(ledger, tracker, state, _reason(error), now_ms())


class _ChampionLookup:
    """Finds the champion while the search goes on: in the tracker's thread, which knows MLflow."""

    def __init__(self, launch: Launch, tracker: Tracker, outcome: Mapping[str, Any]) -> None:
        self._launch, self._tracker = launch, tracker
        self._compared = outcome.get("champion") or {}
        self._found = threading.Event()
        self._champion: Champion | None = None
        self._trouble = ""
        self._asked_at: float | None = None
        tracker.on_reached = self._look

    def _look(self, client: Any) -> None:
        settings = self._launch.settings.tracking
        try:
            name = settings.model_name(self._launch.data.training.name)
            self._champion = self._with_predecessor(client, find_champion(client, name))
        except Exception as error:  # noqa: BLE001 - a study can do without
            self._trouble = f"it could not be looked up: {one_line(error)}"
        self._found.set()

    def _with_predecessor(self, client: Any, champion: Champion | None) -> Champion | None:
        """Where this study's own model is the champion: with whom it was compared for that."""
        version = self._compared.get("version")
        if champion is None or champion.study != self._launch.name or version is None:
            return champion
        if str(version) == champion.version:
            return champion
        before = read_champion(client, champion.name, str(version))
        return replace(champion, before=self._buildable(before))

    def _buildable(self, champion: Champion) -> Champion:
        """Without its configuration where this study could not build that."""
        builds = _builds(self._launch.space, champion)
        return champion if builds else replace(champion, config=None)

    def result(self) -> tuple[Champion | None, str] | None:
        """The champion and what stands in the way of comparing with it.

        Without its configuration where this study could not build that. None while it is being
        looked up, for half a minute from the first question on.
        """
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        if not self._found.is_set():
            waited = time.monotonic() - self._asked_at
            if waited < CHAMPION_SECONDS and not self._tracker.trouble:
                return None
            return None, "MLflow was not reached, so that it is not known whether there is one"
        champion = self._champion
        return self._buildable(champion) if champion is not None else None, self._trouble


def _builds(space: Space, champion: Champion) -> bool:
    """Whether the networks of a space are made as the champion's was."""
    ordinary = space.build is None and champion.space in BUILT_IN
    return ordinary or champion.space == space.source.identity


def conduct(launch: Launch, director: Director, ledger: Ledger, tracker: Tracker) -> None:
    """Runs a director's jobs to their end, or records how the study broke off.

    Raises:
        Whatever ended it before its end.
    """
    name = launch.name
    tracker.start()
    try:
        notebook = find_study(ledger, name).settings.get("notebook")
        _run(launch, director, _way_on(name, notebook))
    except BaseException as error:
        reason, state = _reason(error), _broken_off(error)
        with suppress(Exception):  # the study's own error is the one to tell
            by_hand = state is State.INTERRUPTED
            director.close_open_trials(reason if by_hand else "the study ended before it")
            ledger.end_study(name, state, reason, now_ms())
        with suppress(Exception):
            _tell_broken_off(ledger, tracker, error)
        raise


def _leaving_seconds() -> float:
    """Less for who asked twice."""
    return LEAVING_SECONDS if len(INTERRUPTIONS.received) < 2 else 1.0


def _run(launch: Launch, director: Director, way_on: str) -> None:
    settings = launch.settings
    try:
        run_experiment(
            director,
            launch.data.training,
            launch.space.source,
            concurrent=launch.concurrent,
            cpus_per_trial=settings.cpus_per_trial,
            gpus_per_trial=settings.gpus_per_trial,
            folder=study_folder(launch.name),
            way_on=way_on,
        )
    except KeyboardInterrupt:
        # Once the outcome stands, an interruption costs figures only.
        if not director.is_settled() or len(INTERRUPTIONS.received) > 1:
            raise
    if not director.is_settled():
        raise KeyboardInterrupt


def recommend_again(
    ledger: Ledger, name: str, flags: Mapping[str, Any]
) -> tuple[Recommendation, str]:
    """Chooses again among a study's confirmed candidates; nothing is trained or opened.

    Args:
        ledger: that holds the study.
        name: of the study.
        flags: fields of `Criteria` that are to differ from the study's own; None: not.

    Returns:
        The recommendation, and the `config_id` that the study itself recommended ("" if none).

    Raises:
        ConfigError: no such study or policy, nothing was confirmed, or nothing that was meets the
            constraints.
    """
    study = find_study(ledger, name)
    criteria = criteria_from(study.settings, flags)
    outcome = study.outcome or {}
    found = outcome.get("champion") or {}
    champion = (outcome.get("refused") or {}).get("champion_id") or found.get("config_id", "")
    trials = ledger.trials(name)
    try:
        candidates = confirmed_candidates(
            trials, study.facts["baseline"], champion, ledger.costs(name)
        )
        recommendation = explained(candidates, criteria, VALIDATION_FRACTION)
    except StudyFailed as error:
        is_confirmed = any(trial.phase is Phase.CONFIRM for trial in trials)
        way = "" if is_confirmed else f" {way_to_a_verdict(study)}"
        raise ConfigError(f"Study {name}: no recommendation can be made. {error}{way}") from None
    recommendation = replace(recommendation, left_out=left_out(trials))
    if outcome.get("cut"):
        summary = f"{recommendation.summary} {outcome['cut']}"
        recommendation = replace(recommendation, summary=summary)
    return recommendation, outcome.get("recommended", "")


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
    refusal = director.refusal
    model, model_file, trouble = None, None, None
    if director.timing_failure:
        trouble = f"latency was not measured: {director.timing_failure}"
    outcome, importances = director.outcome(), _importances(director)
    if outcome:
        outcome |= {"importances": importances}
        ledger.set_outcome(name, outcome)
    if director.package and director.shipped is not None:
        model_file = unpack(director.package, model_folder(name), director.shipped.number)
    missing, where = None, launch.settings.tracking
    director.progress.phase = DELIVERING
    try:
        tracker.close(DELIVERY_SECONDS)
    except TrackingError as error:
        missing = undelivered(name, error)
    if outcome and tracker.is_reached:
        try:
            model = tracker.patiently(lambda: register_model(ledger, tracker, where))
        except Exception as error:  # noqa: BLE001 - the result stands without MLflow
            missing = undelivered(name, error)
    director.progress.phase = DRAWING
    try:
        _illustrate(launch, ledger, director)
    except Exception as error:  # noqa: BLE001 - and without figures
        trouble = _joined(trouble, f"no figures: {one_line(error)}")
    trials = ledger.trials(name)
    content = ReportContent(
        study=name,
        trials=trials,
        epochs={t.number: ledger.epochs(name, t.number) for t in trials},
        recommendation=recommendation,
        verdict=verdict,
        command=command_line(launch.settings),
        settings=launch.settings.model_dump(mode="json"),
        facts=facts,
        model=model,
        model_file=model_file,
        champion=director.champion,
        champion_note=director.champion_note,
        importances=importances,
        openings=ledger.openings(launch.data.test.fingerprint),
        training=launch.data.training,
        inspected=director.inspected,
        refusing=_refusing(outcome, launch, director.champion),
        shipped=director.shipped.number if director.shipped else None,
        rungs=director.progress.rungs,
        trouble=_joined(trouble, missing) if missing else trouble or "",
        refusal=refusal,
    )
    director.progress.phase = WRITING
    try:
        write_report(content, folder)
    except Exception as error:  # noqa: BLE001 - and without a page
        trouble = _joined(trouble, f"no report: {one_line(error)}")
    state = State.FAILED if refusal else State.COMPLETED
    reason = str(refusal) if refusal else None
    with INTERRUPTIONS.deferred():  # MLflow and the ledger are told the same
        if tracker.is_reached and (model is not None or not outcome):
            try:
                tracker.patiently(lambda: tell_end(ledger, tracker, state, reason, now_ms()))
            except Exception as error:  # noqa: BLE001 - likewise
                missing = undelivered(name, error)
        # Last: until then `podium resume` does again what may be missing.
        ledger.end_study(name, state, reason, now_ms())
    director.progress.phase = DONE
    if missing is not None:
        trouble = _joined(trouble, missing)
    html = folder / "report.html"
    return Outcome(
        name,
        recommendation,
        verdict,
        html,
        model,
        model_file,
        trouble,
        refusal,
        director.cut,
        content.refusing,
    )


def _refusing(outcome: dict[str, Any], launch: Launch, champion: Champion | None) -> list[str]:
    """What would refuse the model as champion by what is known now: all but that it loads."""
    if not outcome:
        return []
    gates = launch.settings.tracking.gates.model_copy(update={"reproducible_load": False})
    judged = judge_gates(outcome, gates, champion, None, launch.data.training.classes)
    return [gate.sentence for gate in judged if not gate.holds]


def _importances(director: StudyDirector) -> dict[str, float]:
    try:
        return director.importances()
    except Exception:  # noqa: BLE001 - Optuna's estimate is no part of the result
        return {}


def _illustrate(launch: Launch, ledger: Ledger, director: StudyDirector) -> None:
    """Draws the figures of the study, and of the recommended model if there is one."""
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
    elif director.verdict is not None:
        raise StudyFailed(f"the model was not looked into: {director.inspection_failure}")


def _joined(trouble: str | None, more: str) -> str:
    return f"{trouble}; {more}" if trouble else more


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return str(error) if isinstance(error, PodiumError) else one_line(error)
