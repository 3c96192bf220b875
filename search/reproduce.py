"""`podium reproduce`: a published notebook's experiments, run again and put beside its figures."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from search.comparison import Judgement, Repetition, Row, compare, judge_notebook, protocol
from search.delivery import tell_end, undelivered
from search.folder import find_study, model_path, study_folder
from search.gallery import Subject
from search.illustration import Look, illustrate_reproduction, kept_model, look_into
from search.interruption import INTERRUPTIONS
from search.launch import Launch, begin, new_name, now_ms, prepare, study_facts
from search.ledger import Ledger
from search.records import ConfigError, State, StudyFailed, TrialRecord, one_line
from search.reproduction import ReproductionDirector, plan
from search.selection import percent
from search.settings import StudySettings, nearest
from search.study import (
    DELIVERING,
    DELIVERY_SECONDS,
    DONE,
    DRAWING,
    View,
    at_work,
    conduct,
    ended_anyhow,
)
from search.tracking import Tracker
from spaces.config import TrialConfig
from spaces.notebooks import NOTEBOOKS, Notebook

DOCS_PATH = Path("docs/notebooks.md")


@dataclass(frozen=True, slots=True)
class Request:
    """What to repeat.

    Attributes:
        only: ids of experiments; all where empty.
        seeds: for each experiment, unless it asks for more or has a budget.
        epochs_scale: by which epochs are multiplied.
        full: without the budgets of experiments.
    """

    notebook: Notebook
    only: tuple[str, ...] = ()
    seeds: int = 3
    epochs_scale: float = 1.0
    full: bool = False


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What came out.

    Attributes:
        trouble: what is missing, and why: figures, or something in MLflow.
    """

    name: str
    rows: tuple[Row, ...]
    judgement: Judgement
    report: Path
    trouble: str | None


def find_notebook(name: str) -> Notebook:
    """The notebook of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in NOTEBOOKS:
        raise ConfigError(f"Unknown notebook {name!r}.{nearest(name, NOTEBOOKS)}")
    return NOTEBOOKS[name]


def prepare_reproduction(request: Request, settings: StudySettings) -> Launch:
    """Checks everything that can be checked before anything is written, and joins the cluster.

    Raises:
        PodiumError: whatever is wrong.
    """
    if not 0 < request.epochs_scale <= 1:
        raise ConfigError(
            f"--epochs-scale is {request.epochs_scale}: expected a fraction, as in 0.1, up to 1."
        )
    known = [experiment.id for experiment in request.notebook.experiments]
    for name in request.only:
        if name not in known:
            raise ConfigError(
                f"{request.notebook.id} has no experiment {name!r}.{nearest(name, known)}"
            )
    notebook = request.notebook.id
    name = settings.study or new_name(notebook)
    launch = prepare(settings.model_copy(update={"study": name}))
    source = replace(launch.space.source, name=notebook)
    return replace(launch, space=replace(launch.space, source=source))


def run_reproduction(request: Request, launch: Launch, view: View) -> Reproduced:
    """Trains the experiments, opens the test split for each, and compares; leaves the cluster.

    Args:
        request: what to repeat.
        launch: from `prepare_reproduction`.
        view: makes what shows the progress meanwhile.

    Raises:
        StudyFailed: it could not reach its end; the ledger says why.
    """
    notebook, name = request.notebook, launch.name
    jobs = plan(
        notebook,
        only=request.only,
        seeds=request.seeds,
        epochs_scale=request.epochs_scale,
        full=request.full,
        seed=launch.settings.seed,
    )
    with at_work(name, notebook.id) as ledger:
        facts = study_facts(launch, _reference(notebook))
        tracker = begin(launch, facts, ledger, _settings(request))
        director = ReproductionDirector(
            name,
            jobs,
            launch.data,
            ledger,
            lambda number, epoch, model: _keep(model_path(name, number, epoch), model),
            now_ms=now_ms,
            notify=tracker.wake,
        )
        with view(director.progress, name):
            conduct(launch, director, ledger, tracker)
            with ended_anyhow(ledger, name, tracker):
                return _finish(request, launch, ledger, tracker, director)


def _keep(path: Path, model: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model)


def _reference(notebook: Notebook) -> TrialConfig:
    return notebook.experiment(notebook.recommended or notebook.experiments[0].id).config


def _settings(request: Request) -> dict[str, Any]:
    return {
        "notebook": request.notebook.id,
        "only": list(request.only),
        "seeds": request.seeds,
        "epochs_scale": request.epochs_scale,
        "full": request.full,
    }


def _finish(
    request: Request,
    launch: Launch,
    ledger: Ledger,
    tracker: Tracker,
    director: ReproductionDirector,
) -> Reproduced:
    notebook, name = request.notebook, launch.name
    rows, judgement = outcome_of(ledger, notebook, [name], launch.settings.policy)
    if not any(row.repetitions for row in rows):
        reasons = {trial.reason for trial in ledger.trials(name) if trial.reason}
        reason = f"All trials failed: {'; '.join(sorted(reasons))[:300]}"
        ledger.end_study(name, State.FAILED, reason, now_ms())
        with suppress(Exception):  # the study's own error is the one to tell
            tracker.close(DELIVERY_SECONDS)
            tell_end(ledger, tracker, State.FAILED, reason, now_ms())
        raise StudyFailed(reason)
    note = " ".join(judgement.sentences)
    outcome: dict[str, Any] = {"notebook": notebook.id, "summary": note}
    if judgement.recommendation is not None:
        outcome["recommended"] = judgement.recommendation.winner.config.config_id
    ledger.set_outcome(name, outcome)
    report = study_folder(name) / "report.md"
    report.write_text(render([(notebook, rows, judgement)], "report"), encoding="utf-8")
    trouble, director.progress.phase = None, DRAWING
    try:
        _illustrate(launch, ledger, rows, director)
    except Exception as error:  # noqa: BLE001 - the result stands without figures
        trouble = f"no figures: {one_line(error)}"
    missing, director.progress.phase = None, DELIVERING
    try:
        tracker.close(DELIVERY_SECONDS)
    except Exception as error:  # noqa: BLE001 - the result stands without MLflow
        missing = undelivered(name, error)
    with INTERRUPTIONS.deferred():  # MLflow and the ledger are told the same
        if missing is None:
            try:
                tracker.patiently(
                    lambda: tell_end(ledger, tracker, State.COMPLETED, None, now_ms())
                )
            except Exception as error:  # noqa: BLE001 - likewise
                missing = undelivered(name, error)
        ledger.end_study(name, State.COMPLETED, None, now_ms())
    director.progress.phase = DONE
    if missing is not None:
        trouble = f"{trouble}; {missing}" if trouble else missing
    return Reproduced(name, tuple(rows), judgement, report, trouble)


def _illustrate(
    launch: Launch, ledger: Ledger, rows: Sequence[Row], director: ReproductionDirector
) -> None:
    """Draws the notebook's figures, if what they show was run."""
    record = find_study(ledger, launch.name)
    notebook = find_notebook(record.settings["notebook"])
    wanted = {drawing.experiment for drawing in notebook.drawings}
    first = {
        row.experiment.id: row.repetitions[0]
        for row in rows
        if row.repetitions and row.experiment.id in wanted
    }
    images = max((d.options.get("tsne_images", 2_000) for d in notebook.drawings), default=0)
    looks = [Look(r.trial, kept_model(record, r.trial), images) for r in first.values()]
    data = launch.data
    inspected = look_into(data.training, launch.space.source, looks) if looks else []
    subjects = {}
    for (experiment, repetition), seen in zip(first.items(), inspected, strict=True):
        probabilities = director.probabilities.get(repetition.trial.number)
        opened = None
        if director.opened is not None and probabilities is not None:
            opened = (*director.opened, probabilities)
        subjects[experiment] = Subject(
            repetition.trial,
            repetition.epochs,
            seen,
            data.training,
            data.test.class_counts(len(data.training.classes)),
            opened,
        )
    folder = study_folder(launch.name) / "figures"
    illustrate_reproduction(notebook, rows, subjects, folder)


def outcome_of(
    ledger: Ledger, notebook: Notebook, studies: Sequence[str], policy: str
) -> tuple[list[Row], Judgement]:
    """Compares what the given studies measured.

    Of several that repeat the same experiment, the one with the most complete trials counts; of
    equal ones the first.
    """
    chosen: dict[Hashable, tuple[str, list[TrialRecord]]] = {}
    for study in studies:
        groups: dict[Hashable, list[TrialRecord]] = {}
        for trial in ledger.trials(study):
            groups.setdefault(protocol(trial), []).append(trial)
        for key, group in groups.items():
            if key not in chosen or _complete(group) > _complete(chosen[key][1]):
                chosen[key] = study, group
    repetitions = [
        Repetition(trial, ledger.epochs(study, trial.number))
        for study, group in chosen.values()
        for trial in group
    ]
    rows = compare(notebook, repetitions)
    return rows, judge_notebook(notebook, rows, policy)


def _complete(trials: Sequence[TrialRecord]) -> tuple[int, int]:
    """How many trials are completed, and measured on test where that belongs to it; how long."""
    done = [t for t in trials if t.state is State.COMPLETED and (t.folds or t.tests)]
    return len(done), max((t.max_epochs for t in done), default=0)


def write_docs(ledger: Ledger, path: Path, policy: str) -> None:
    """Writes the page on all notebooks from what the ledger has of them at full epochs."""
    parts = []
    for notebook in NOTEBOOKS.values():
        studies = [
            study.name
            for study in ledger.studies()
            if study.settings.get("notebook") == notebook.id
            and study.settings.get("epochs_scale") == 1.0
        ]
        parts.append((notebook, *outcome_of(ledger, notebook, studies, policy)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(parts, "page"), encoding="utf-8")


def render(parts: Sequence[tuple[Notebook, list[Row], Judgement]], kind: str) -> str:
    """Markdown of one notebook's outcome ("report") or of the page on all of them ("page")."""
    environment = Environment(
        loader=PackageLoader("search"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("notebooks.md.j2")
    sections = [
        {"notebook": notebook, "table": table(rows), "rows": rows, "judgement": judgement}
        for notebook, rows, judgement in parts
    ]
    return template.render(sections=sections, kind=kind)


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The comparison, one line for each published figure; one for a row without any."""
    lines = []
    for row in rows:
        head = {
            "experiment": row.experiment.id,
            "model": row.experiment.config.summary,
            "parameters": _parameters(row),
        }
        lines += [head | line for line in _figure_lines(row)]
    return lines


def _parameters(row: Row) -> str:
    """Ours, and in what they differ from the published ones."""
    if row.parameters is None:
        return ""
    published = row.experiment.parameters
    if published in (None, row.parameters):
        return f"{row.parameters:,}"
    return f"{row.parameters:,} (published: {published:,})"


def _figure_lines(row: Row) -> list[dict[str, Any]]:
    lines = []
    for agreement in row.agreements:
        figure = agreement.figure
        where = f" after epoch {figure.epoch}" if figure.epoch else ""
        lines.append(
            {
                "figure": figure.metric.replace("_", " ") + where,
                "published": _shown(figure.metric, figure.values),
                "ours": _shown(figure.metric, (agreement.mean,) if agreement.ours else ()),
                "deviation": _spread(figure.metric, agreement.deviation),
                "seeds": len(agreement.ours),
                "difference": _spread(figure.metric, agreement.difference, signed=True),
                "in standard errors": f"{agreement.standard_errors:+.1f}"
                if agreement.standard_errors is not None
                else "",
                "verdict": agreement.words,
            }
        )
    published = {agreement.figure.metric for agreement in row.agreements}
    main = "val_accuracy" if row.experiment.folds else "test_accuracy"
    if main not in published:
        lines.append(_unpublished_line(row, main))
    return lines


def _unpublished_line(row: Row, metric: str) -> dict[str, Any]:
    ours = row.figures.get(metric, ())
    mean = sum(ours) / len(ours) if ours else None
    deviation = statistics.stdev(ours) if len(ours) > 1 else None
    return {
        "figure": metric.replace("_", " "),
        "published": "",
        "ours": _shown(metric, (mean,) if mean is not None else ()),
        "deviation": _spread(metric, deviation),
        "seeds": len(ours),
        "difference": "",
        "in standard errors": "",
        "verdict": "nothing published" if ours else "not run",
    }


def _is_fraction(metric: str) -> bool:
    return not metric.endswith("loss")


def _shown(metric: str, values: Sequence[float | None]) -> str:
    texts = [
        percent(value) if _is_fraction(metric) else f"{value:.3f}"
        for value in values
        if value is not None
    ]
    return ", ".join(texts)


def _spread(metric: str, value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    sign = "+" if signed else ""
    return f"{100 * value:{sign}.2f} pt" if _is_fraction(metric) else f"{value:{sign}.3f}"
