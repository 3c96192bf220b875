"""What must hold of a study after a fault: each breach is a sentence, a loss."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.ledger import Ledger, StudyRecord
from search.records import EpochReport, Opening, Phase, State, TrialRecord
from search.registry import is_whole
from search.settings import StudySettings
from tests.running import Tracked, tracked

ENDED = (State.COMPLETED, State.STOPPED, State.FAILED)
SAME = ("phase", "config", "seed", "split_seed", "max_epochs", "proposal", "started_ms")
SAME_ONCE_ENDED = ("state", "reason", "rung", "totals", "ended_ms")
STOPPED = re.compile(
    r"(?P<value>[\d.]+) is not among the best (?P<places>\d+) of (?P<seen>\d+) at rung "
    r"(?P<rung>\d+) \(rank (?P<rank>\d+)\)"
)
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Snapshot:
    """All that the ledger holds of one study."""

    study: StudyRecord | None
    trials: dict[int, TrialRecord]
    epochs: dict[int, list[EpochReport]]
    openings: list[Opening]

    @property
    def phase(self) -> str:
        """How far the study is, in a word."""
        if self.study is None or not self.trials:
            return "start"
        if self.study.state is State.COMPLETED:
            return "end"
        if self.study.outcome:
            return "report"
        if self.openings:
            return "verdict"
        states = [t.state for t in self.trials.values()]
        if all(state in ENDED for state in states) and self._of(Phase.CONFIRM):
            return "timing"
        ended = all(t.state in ENDED for t in self._of(Phase.SEARCH))
        return "confirmation" if ended and self._of(Phase.CONFIRM) else "search"

    def _of(self, phase: Phase) -> list[TrialRecord]:
        return [t for t in self.trials.values() if t.phase is phase]

    @property
    def running(self) -> list[TrialRecord]:
        """Trials that are under way."""
        return [t for t in self.trials.values() if t.state is State.RUNNING]


def snapshot(folder: Path, name: str) -> Snapshot:
    """Reads the ledger of a folder; nothing where there is none yet."""
    if not query(folder, "SELECT schema_version FROM meta"):
        return Snapshot(None, {}, {}, [])
    ledger = Ledger(folder / "runs" / "ledger.db")
    try:
        trials = {t.number: t for t in ledger.trials(name)}
        epochs = {number: ledger.epochs(name, number) for number in trials}
        openings = [o for o in ledger.openings() if o.study == name]
        return Snapshot(ledger.study(name), trials, epochs, openings)
    finally:
        ledger.close()


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """Rows of a folder's ledger, which is not touched; none where there is none yet."""
    path = folder / "runs" / "ledger.db"
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return connection.execute(statement).fetchall()
    except sqlite3.OperationalError:
        return []


def lost(before: Snapshot, after: Snapshot) -> Iterator[str]:
    """What the ledger held once, and holds no more, or otherwise."""
    if before.study is not None and after.study is None:
        yield "the study is gone"
        return
    for number, trial in before.trials.items():
        now = after.trials.get(number)
        if now is None:
            yield f"trial {number} is gone"
            continue
        for name in SAME + SAME_ONCE_ENDED * (trial.state in ENDED):
            # As text, so that two NaN are equal.
            if repr(getattr(now, name)) != repr(getattr(trial, name)):
                yield f"trial {number}: its {name} changed"
        kept = {item.epoch: repr(item) for item in after.epochs[number]}
        for item in before.epochs[number]:
            if kept.get(item.epoch) != repr(item):
                yield f"trial {number}: epoch {item.epoch} is gone or changed"
    if after.openings[: len(before.openings)] != before.openings:
        yield "an opening of the test split is gone"
    yield from _lost_outcome(before, after)


def _lost_outcome(before: Snapshot, after: Snapshot) -> Iterator[str]:
    told = (before.study and before.study.outcome) or {}
    now = (after.study and after.study.outcome) or {}
    for name in ("recommended", "trial", "summary", "verdict"):
        if name in told and told[name] != now.get(name):
            yield f"the outcome's {name} changed after it was committed"


def unfinished(found: Snapshot, trials: int) -> Iterator[str]:
    """What is missing from, or too much in, the ledger of a study that has ended.

    Args:
        found: after the last process ended.
        trials: how many it must have, confirmation included.
    """
    study = found.study
    if study is None or study.state is not State.COMPLETED:
        yield f"the study is {study.state if study else 'missing'}"
        return
    if sorted(found.trials) != list(range(trials)):
        yield f"trials {sorted(found.trials)} instead of {trials}"
    for number, trial in found.trials.items():
        if trial.state not in (State.COMPLETED, State.STOPPED):
            yield f"trial {number} is {trial.state}: {trial.reason}"
        epochs = [item.epoch for item in found.epochs[number]]
        last = trial.rung if trial.state is State.STOPPED else trial.max_epochs
        if epochs != list(range(1, (last or 0) + 1)):
            yield f"trial {number}, {trial.state}: epochs {epochs}"
        if trial.totals is None:
            yield f"trial {number} has no totals"
        if trial.ended_ms is None or trial.ended_ms < trial.started_ms:
            yield f"trial {number} ended before it started"
    if study.ended_ms is None or study.ended_ms < study.started_ms:
        yield "the study ended before it started"
    yield from rung_trouble(found)


def rung_trouble(found: Snapshot) -> Iterator[str]:
    """Stops that do not follow from what was reported, or that counted a trial twice."""
    settings = StudySettings.model_validate(found.study.settings if found.study else {})
    places_taken: Counter[tuple[int, int]] = Counter()
    for number, trial in found.trials.items():
        if trial.state is not State.STOPPED or trial.rung is None:
            continue
        reached = sum(len(epochs) >= trial.rung for epochs in found.epochs.values())
        told = STOPPED.fullmatch(trial.reason or "")
        if told is None or int(told["rung"]) != trial.rung:
            yield f"trial {number} was stopped for no known reason: {trial.reason}"
            continue
        value = found.epochs[number][trial.rung - 1].val_accuracy
        seen, places, rank = (int(told[key]) for key in ("seen", "places", "rank"))
        if abs(float(told["value"]) - value) > 1e-4:
            yield f"trial {number} was stopped at {told['value']}, but reported {value:.4f}"
        if places != max(1, seen // settings.reduction) or rank <= places or seen > reached:
            yield f"trial {number} was not to be stopped: {trial.reason}, {reached} reached it"
        places_taken[trial.rung, seen] += 1
    for (rung, seen), count in places_taken.items():
        if count > 1:
            yield f"{count} trials were number {seen} at rung {rung}"


def unconcluded(folder: Path, found: Snapshot) -> Iterator[str]:
    """What a study with a verdict must have besides: one look, one verdict, a report, a model."""
    outcome = (found.study and found.study.outcome) or {}
    if len(found.openings) != 1:
        yield f"the test split was opened {len(found.openings)} times"
    expected = {"recommended", "policy", "trial", "summary", "verdict", "costs", "model"}
    if not expected <= set(outcome):
        yield f"the outcome lacks {sorted(expected - set(outcome))}"
    elif outcome["verdict"]["openings"] != 1:
        yield f"the verdict tells of {outcome['verdict']['openings']} openings"
    if found.study is None:
        return
    own = folder / "runs" / "studies" / found.study.name
    if not is_whole(own / "model"):
        yield "the model folder is not whole"
    report = own / "report.html"
    if not report.is_file() or not report.read_text().rstrip().endswith("</html>"):
        yield "the report is not whole"
    left = list((own / "checkpoints").glob("*"))
    if left:
        yield f"checkpoints of ended trials were left: {sorted(p.name for p in left)}"


def mlflow_trouble(folder: Path, found: Snapshot, versions: int) -> Iterator[str]:
    """What MLflow lacks of the ledger, has twice, or says otherwise.

    Args:
        folder: that the study was run in.
        found: what the ledger holds.
        versions: of registered models that there must be.
    """
    if found.study is None:
        return
    try:
        runs = tracked(folder)
    except ValueError:
        yield "MLflow does not have exactly one parent run"
        return
    for run in (runs.parent, *runs.children):
        if run.info.status != "FINISHED":
            yield f"MLflow's run {run.info.run_name} is {run.info.status}"
        if run.info.end_time is None or run.info.end_time < run.info.start_time:
            yield f"MLflow's run {run.info.run_name} ended before it started"
    numbers = Counter(int(run.data.tags["podium.trial"]) for run in runs.children)
    if numbers != Counter(found.trials.keys()):
        yield f"MLflow has runs of trials {sorted(numbers.elements())}"
        return
    for run in runs.children:
        yield from _run_trouble(runs, run.info.run_id, run.data, found)
    registered = runs.client.search_model_versions()
    if len(registered) != versions:
        yield f"{len(registered)} model versions were registered"
    models = runs.client.search_logged_models([runs.parent.info.experiment_id])
    if len(models) != versions:
        yield f"{len(models)} models were logged: {[str(m.status) for m in models]}"


def _run_trouble(runs: Tracked, run_id: str, data: object, found: Snapshot) -> Iterator[str]:
    number = int(data.tags["podium.trial"])  # type: ignore[attr-defined]
    epochs = found.epochs[number]
    if found.trials[number].run_id != run_id:
        yield f"trial {number} is another run in MLflow than the ledger says"
    wanted = {
        key: [(item.epoch, item.metrics[key], item.timestamp_ms) for item in epochs]
        for key in epochs[0].metrics
    }
    for key in sorted({*wanted, *data.metrics}):  # type: ignore[attr-defined]
        history = runs.client.get_metric_history(run_id, key)
        steps = [m.step for m in history]
        if key in wanted:
            told = sorted((m.step, m.value, m.timestamp) for m in history)
            if told != wanted[key]:
                yield f"trial {number}: MLflow has {key} of epochs {sorted(steps)}"
        elif len(steps) != 1:
            yield f"trial {number}: MLflow has {key} {len(steps)} times"


def damaged(folder: Path) -> Iterator[str]:
    """Databases of a folder in which SQLite itself finds damage."""
    for path in sorted((folder / "runs").glob("*.db")):
        try:
            with closing(sqlite3.connect(path)) as connection:
                [answer, *_] = connection.execute("PRAGMA integrity_check").fetchone()
        except sqlite3.DatabaseError as error:
            answer = str(error)
        if answer != "ok":
            yield f"{path.name}: {answer}"


def differences(reference: Snapshot, found: Snapshot) -> Iterator[str]:
    """Where a study's figures are not those of an undisturbed one with the same settings."""
    for number, trial in reference.trials.items():
        other = found.trials.get(number)
        if other is None:
            yield f"trial {number} is missing"
            continue
        if (trial.state, trial.rung) != (other.state, other.rung):
            yield f"trial {number} is {other.state}, not {trial.state}: {other.reason}"
        pairs = zip(reference.epochs[number], found.epochs[number], strict=False)
        for one, another in pairs:
            for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
                a, b = one.metrics[key], another.metrics[key]
                if abs(a - b) > TOLERANCE * max(1.0, abs(a)):
                    yield f"trial {number}, epoch {one.epoch}: {key} {b:.7f} instead of {a:.7f}"
        if abs((trial.val_accuracy or 0.0) - (other.val_accuracy or 0.0)) > TOLERANCE:
            yield f"trial {number}: its best validation accuracy differs"


def all_of(folder: Path, found: Snapshot, trials: int, *, concluded: bool) -> list[str]:
    """Everything above that can be asked of one finished study.

    Args:
        folder: that it was run in.
        found: what the ledger holds of it.
        trials: how many it must have.
        concluded: whether it ends in a verdict.
    """
    parts: list[Iterable[str]] = [damaged(folder), unfinished(found, trials)]
    if concluded:
        parts.append(unconcluded(folder, found))
    parts.append(mlflow_trouble(folder, found, versions=int(concluded)))
    return [loss for part in parts for loss in part]
