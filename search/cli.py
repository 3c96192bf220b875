"""The command `podium`: arguments, exit codes, and nothing else."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from search.cli_models import (
    EPILOGS,
    champion,
    predict,
    promote,
    rollback,
    tracking_now,
    tracking_of,
)
from search.credentials import masked
from search.interruption import INTERRUPTIONS
from search.records import (
    ConfigError,
    DeliveryFailed,
    InUse,
    Phase,
    PodiumError,
    RunElsewhere,
    State,
)
from search.settings import (
    CORRECTIONS,
    COSTS,
    FINALISTS,
    POLICIES,
    SAMPLERS,
    SCHEDULERS,
    criteria_from,
    load_settings,
    load_tracking,
    nearest,
    same_place,
    shown,
    without_password,
)
from search.tables import (
    Format,
    brief,
    console,
    errors,
    print_candidates,
    print_description,
    print_notebooks,
    print_recommendation,
    print_rows,
    recommended,
    say,
    tell,
    test_log_meaning,
    timestamp,
    trial_counts,
    trial_row,
)

if TYPE_CHECKING:
    from search.launch import Launch
    from search.ledger import Ledger, StudyRecord
    from search.records import Recommendation
    from search.reproduce import Request
    from search.study import Outcome

PolicyFlag = Annotated[
    str | None, typer.Option(help=f"{', '.join(POLICIES)}. [one-standard-error]")
]
ToleranceFlag = Annotated[
    float | None,
    typer.Option(help="Accuracy that smallest-gap and cheapest-within may give up. [0.005]"),
]
CostFlag = Annotated[
    str | None, typer.Option(help=f"Of cheapest-within: {' or '.join(COSTS)}. [parameters]")
]
CorrectionFlag = Annotated[
    str | None,
    typer.Option(help=f"Margin of one-standard-error: {' or '.join(CORRECTIONS)}. [paired]"),
]
MaxParamsFlag = Annotated[int | None, typer.Option(help="Rules out what has more parameters.")]
MaxLatencyFlag = Annotated[
    float | None, typer.Option(help="Rules out what is slower, median for one image.")
]
MaxGapFlag = Annotated[
    float | None, typer.Option(help="Rules out a larger gap of train and validation accuracy.")
]
MinRecallFlag = Annotated[
    float | None, typer.Option(help="Rules out what finds less than this of some class.")
]
RetriesFlag = Annotated[
    int | None, typer.Option(help="Of a trial whose process died, from its checkpoint. [2]")
]
TrialTimeoutFlag = Annotated[
    float | None, typer.Option(help="Seconds of training after which a trial has failed. [none]")
]
TimeBudgetFlag = Annotated[
    float | None,
    typer.Option(help="Seconds for all: search until the rest is needed to confirm. [none]"),
]

SHAPE_SHOWN = (28, 28, 1)
"""Of the images for which a space is described: it may depend on their size."""


class _Commands(TyperGroup):
    """Commands that tell which value was wrong, and not only what it should have been."""

    def invoke(self, ctx: Any) -> Any:
        """Runs one of them."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                typed = shown(error.__cause__.errors()[0]["input"])
                error.message = f"{typed}. {error.message}"
            raise


app = typer.Typer(
    name="podium",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Search hyperparameters on a Ray cluster, and end in a decision. "
    "Examples: `podium run`, `podium status`, `podium ui`.",
    epilog="Exit codes: 0 done, 2 bad input (nothing was written), 3 the study or its ledger "
    "failed, a study met no constraints, or MLflow took only a part, 4 a promotion or a rollback "
    "was refused, 130 interrupted (143 by SIGTERM).",
)


def main() -> None:
    """Runs the command line; every known error is one paragraph on stderr and its exit code."""
    logging.captureWarnings(True)
    os.umask(0o077)  # Whatever is made, here and by what is started here, is its owner's only.
    sys.excepthook = _unexpected
    try:
        app(prog_name="podium")
    except PodiumError as error:
        errors.print(f"podium: {error}", markup=False)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        from search.folder import refused

        errors.print(f"podium: {refused(error)}", markup=False)
        raise SystemExit(ConfigError.exit_code) from None


def _unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """An error that nobody foresaw, with its traceback and without passwords."""
    sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))


@app.command(
    epilog="Examples: `podium run`, "
    "`podium run --space cnn --data fashion-mnist --data-dir data --trials 60`, "
    "`podium run --space my_space.py --sampler gp --scheduler hyperband`"
)
def run(
    study: Annotated[str | None, typer.Option(help="Name; made from space, data, time.")] = None,
    space: Annotated[str | None, typer.Option(help="mlp, cnn, a .py file or a module.")] = None,
    data: Annotated[
        str | None, typer.Option(help="digits, mnist, fashion-mnist, or a file or folder.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data's files.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Of a CSV file. [label, class, target or y]")
    ] = None,
    image_shape: Annotated[
        str | None, typer.Option(help="Of a CSV file's images: 28x28 or 32x32x3. [square]")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of the search. [24]")] = None,
    max_epochs: Annotated[int | None, typer.Option(help="Epochs of a full trial. [18]")] = None,
    first_rung: Annotated[int | None, typer.Option(help="First epoch to stop at. [2]")] = None,
    reduction: Annotated[int | None, typer.Option(help="One in how many goes on. [3]")] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(help="Only these values of a field, as batch_size=10,32; several times."),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Search by stratified cross-validation. [0: one split]")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help=f"{', '.join(SAMPLERS)}. [tpe]")] = None,
    scheduler: Annotated[str | None, typer.Option(help=f"{', '.join(SCHEDULERS)}. [asha]")] = None,
    policy: PolicyFlag = None,
    tolerance: ToleranceFlag = None,
    cost: CostFlag = None,
    correction: CorrectionFlag = None,
    max_params: MaxParamsFlag = None,
    max_latency_ms: MaxLatencyFlag = None,
    max_gap: MaxGapFlag = None,
    min_class_recall: MinRecallFlag = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at once. [as many as fit]")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPUs of each trial. [1]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of each trial. [0]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random. [0]")] = None,
    finalists: Annotated[
        int | None, typer.Option(help="Confirmed with baseline and champion; 0: search only. [4]")
    ] = None,
    confirm_seeds: Annotated[int | None, typer.Option(help="Fresh seeds of each. [8]")] = None,
    retries: RetriesFlag = None,
    trial_timeout: TrialTimeoutFlag = None,
    time_budget: TimeBudgetFlag = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: host:port, auto. [RAY_ADDRESS or local]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings.")] = None,
) -> None:
    """Search, confirm the finalists on fresh seeds, open the test split once, and recommend."""
    flags = {key: value for key, value in locals().items() if key != "config"}
    settings = load_settings(config, flags)
    from search.launch import known_study, prepare, prepare_again
    from search.ledger import check_facts, taken
    from search.study import resume_study, run_study

    known = known_study(settings)
    if known is None:
        _conduct(lambda: prepare(settings), run_study)
        return
    # Only somebody who sits there can be asked.
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(taken(known))
    say(f"There is a study {known.name!r} already, which has not ended.")
    if not typer.confirm("Go on with it?"):
        raise ConfigError(taken(known))
    check_facts(known)
    _conduct(lambda: prepare_again(known, tracking_now(known), {}), resume_study)


@app.command(epilog="Examples: `podium resume STUDY`, `podium resume STUDY --trials +50`")
def resume(
    study: Annotated[str, typer.Argument(help="A study that was interrupted, or has ended.")],
    trials: Annotated[
        str | None, typer.Option(help="In all, or so many more: +50. [as before]")
    ] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at once. [as before]")] = None,
    cpus_per_trial: Annotated[
        int | None, typer.Option(help="CPUs of each trial. [as before]")
    ] = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="GPUs of each trial. [as before]")
    ] = None,
    max_params: MaxParamsFlag = None,
    max_latency_ms: MaxLatencyFlag = None,
    max_gap: MaxGapFlag = None,
    min_class_recall: MinRecallFlag = None,
    retries: RetriesFlag = None,
    trial_timeout: TrialTimeoutFlag = None,
    time_budget: TimeBudgetFlag = None,
    finalists: Annotated[
        str | None, typer.Option(help="To confirm in all, or more: +2. [as before]")
    ] = None,
    confirm_seeds: Annotated[
        str | None, typer.Option(help="Of each in all, or more: +8. [as before]")
    ] = None,
    address: Annotated[str | None, typer.Option(help="A Ray cluster. [as before]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data's files.")] = None,
) -> None:
    """Go on with a study as if it had never been interrupted, or give it more trials."""
    flags = {key: value for key, value in locals().items() if key != "study"}
    from search.folder import existing_ledger, find_study
    from search.launch import prepare_again
    from search.ledger import check_facts
    from search.study import resume_study

    record = find_study(existing_ledger(), study)
    check_facts(record)
    if "notebook" in record.settings:
        raise ConfigError(f"Study {study} is a reproduction: run `podium reproduce` again.")
    _conduct(lambda: prepare_again(record, tracking_now(record), flags), resume_study)


def _prepared(prepare: Callable[[], Launch]) -> Launch:
    say("Checking data and tracking, starting Ray ...")
    try:
        return prepare()
    except KeyboardInterrupt:
        errors.print("podium: interrupted, before anything was written.", markup=False)
        raise typer.Exit(INTERRUPTIONS.exit_code) from None


def _conduct(prepare: Callable[[], Launch], work: Callable[..., Outcome]) -> None:
    """Introduces a study, runs it, and tells what came of it."""
    from search.console import ProgressView

    launch = _prepared(prepare)
    settings = launch.settings
    split = launch.data.split
    parts = f"{len(split.train):,} train, {len(split.validation):,} validation"
    if settings.folds:
        parts = f"{len(launch.data.training.labels):,} in {settings.folds} folds"
    _introduce(launch, parts)
    try:
        outcome = work(launch, lambda progress, name: ProgressView(console, progress, name))
    except KeyboardInterrupt:
        raise _interrupted(f"`podium resume {launch.name}` goes on from there.") from None
    if outcome.recommendation is not None:
        print_recommendation(outcome.recommendation)
    if outcome.verdict is not None:
        tell(f"\nVerdict: {outcome.verdict.headline}")
        tell(outcome.verdict.sentence)
        if outcome.verdict.openings > 1:
            say(f"This test split has now been opened {outcome.verdict.openings} times.")
    elif outcome.refusal is not None:
        print_candidates(outcome.refusal.ranked, outcome.refusal.left_out)
        tell(
            "\nNo recommendation: none of them meets the constraints; the test split was not "
            "opened for it."
        )
    else:
        say("\nSearch only: nothing was confirmed, the test split stayed locked.")
    if outcome.cut and outcome.recommendation is None:
        tell(outcome.cut)
    say(f"\nReport  {outcome.report}")
    if outcome.model_file is not None:
        say(f"Model   {outcome.model_file}")
    uri = launch.settings.tracking.tracking_uri
    if outcome.model is not None:
        say(f"MLflow  {outcome.model.uri} at {without_password(uri)}")
    if outcome.trouble is not None:
        errors.print(f"podium: {outcome.trouble}", markup=False)
    say("\nNext:")
    elsewhere = not same_place(uri, load_tracking().tracking_uri)
    say(f"  podium ui {outcome.name}" if elsewhere else "  podium ui")
    say(f"  podium compare {outcome.name}")
    if outcome.refusal is not None:
        from search.selection import loosened

        say(f"  podium resume {outcome.name} {loosened(outcome.refusal)}".rstrip())
        raise typer.Exit(outcome.refusal.exit_code)
    if not launch.settings.finalists:
        say(f"  podium resume {outcome.name} --finalists {FINALISTS}")
    other = _other_policy(outcome.recommendation)
    if other:
        say(f"  podium recommend {outcome.name} --policy {other}")
    if outcome.verdict is None:
        return
    if outcome.model is None:
        say(f"  podium sync {outcome.name}")
    elif outcome.verdict.speaks_for_it and not outcome.refusing:
        say(f"  podium promote {outcome.name}")
    for sentence in outcome.refusing:
        tell(f"As it is, it would not be promoted: {sentence}")


def _other_policy(recommendation: Recommendation | None) -> str | None:
    """A policy that would choose something else, if there is one."""
    if recommendation is None:
        return None
    chosen = recommendation.winner.config.config_id
    others = (p for p, config_id in recommendation.alternatives.items() if config_id != chosen)
    return next(others, None)


def _introduce(launch: Launch, parts: str) -> None:
    say(f"Study {launch.name}")
    say(
        f"Data {launch.data.training.name}: {parts}, {launch.data.test.size:,} test (locked); "
        f"fingerprint {launch.data.fingerprint}"
    )
    from search.folder import exposed
    from search.tuning import TOKEN_PATH

    for warning in (*launch.data.warnings, *exposed(TOKEN_PATH)):
        tell(f"Note: {warning}")
    if launch.note:
        errors.print(f"podium: {launch.note}", markup=False)
    say(
        f"Ray {launch.cluster.address}: {launch.concurrent} trials at once on "
        f"{launch.cluster.cpus} CPUs"
    )


def _interrupted(advice: str) -> typer.Exit:
    errors.print(f"podium: interrupted; {advice}", markup=False)
    return typer.Exit(INTERRUPTIONS.exit_code)


@app.command(
    epilog="Examples: `podium reproduce --list`, "
    "`podium reproduce msds422-mlp --data-dir data`, "
    "`podium reproduce bottleneck --only 1 --only 2 --epochs-scale 0.1`"
)
def reproduce(
    notebook: Annotated[str | None, typer.Argument(help="A published notebook.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the notebooks.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="An experiment; several times.")] = None,
    epochs_scale: Annotated[
        float, typer.Option(help="Multiplies epochs: 0.1 for a quick look.", min=0.001, max=1.0)
    ] = 1.0,
    seeds: Annotated[int, typer.Option(help="Of each experiment.", min=1, max=1000)] = 3,
    full: Annotated[
        bool, typer.Option("--full", help="All epochs and seeds, also of what takes long.")
    ] = False,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help="Write docs/notebooks.md from all that was run.")
    ] = False,
    study: Annotated[str | None, typer.Option(help="Name; made from notebook and time.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data's files.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Trials at once. [as many as fit]")] = None,
    cpus_per_trial: Annotated[int | None, typer.Option(help="CPUs of each trial. [1]")] = None,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of each trial. [0]")] = None,
    seed: Annotated[int | None, typer.Option(help="That the others are derived from. [0]")] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster: host:port, auto. [RAY_ADDRESS or local]")
    ] = None,
) -> None:
    """Run a published notebook's experiments again, beside the figures that it printed."""
    if list_:
        print_notebooks()
        return
    from search.folder import existing_ledger
    from search.reproduce import DOCS_PATH, Request, find_notebook
    from search.reproduce import write_docs as write

    if notebook is not None:
        flags = {
            "study": study,
            "data_dir": data_dir,
            "concurrent": concurrent,
            "cpus_per_trial": cpus_per_trial,
            "gpus_per_trial": gpus_per_trial,
            "seed": seed,
            "address": address,
        }
        request = Request(find_notebook(notebook), tuple(only or ()), seeds, epochs_scale, full)
        _reproduce(request, flags)
    elif not write_docs:
        raise ConfigError("Which notebook? `podium reproduce --list` shows them.")
    if write_docs:
        write(existing_ledger(), DOCS_PATH, "one-standard-error")
        say(f"Written: {DOCS_PATH}")


def _reproduce(request: Request, flags: dict[str, Any]) -> None:
    from search.console import ProgressView
    from search.reproduce import prepare_reproduction, run_reproduction, table

    settings = load_settings(None, {**flags, "data": request.notebook.data})
    launch = _prepared(lambda: prepare_reproduction(request, settings))
    _introduce(launch, f"{len(launch.data.training.labels):,} for train and validation")
    try:
        done = run_reproduction(
            request, launch, lambda progress, name: ProgressView(console, progress, name)
        )
    except KeyboardInterrupt:
        again = f"`podium reproduce {request.notebook.id}` begins again."
        raise _interrupted(again) from None
    lines = [{k: v for k, v in line.items() if k != "model"} for line in table(done.rows)]
    print_rows(lines, Format.TABLE)
    say("")
    for sentence in done.judgement.sentences:
        tell(sentence)
    say(f"\nReport  {done.report}")
    if done.trouble is not None:
        errors.print(f"podium: {done.trouble}", markup=False)
    say("\nNext:")
    say("  podium ui")
    say(f"  podium compare {done.name}")


@app.command(epilog="Examples: `podium status`, `podium status mlp-digits-20260101-120000`")
def status(
    study: Annotated[str | None, typer.Argument(help="One study in detail.")] = None,
) -> None:
    """List the studies of this folder, or show where one stands."""
    from search.delivery import left
    from search.folder import existing_ledger, find_study
    from search.report import count_trials

    ledger = existing_ledger()
    if study is None:
        rows = [
            {
                "study": s.name,
                "state": s.state.value,
                "space": s.settings.get("notebook") or s.settings.get("space"),
                "data": s.settings.get("data"),
                **trial_counts(ledger.trials(s.name)),
                "recommended": recommended(s),
            }
            for s in ledger.studies()
        ]
        print_rows(rows, Format.TABLE)
        if waiting := [s.name for s in ledger.studies() if s.ended_ms and left(ledger, s)]:
            tell(f"MLflow does not have all of {', '.join(waiting)}: `podium sync` delivers it.")
        return
    record = find_study(ledger, study)
    reason = "" if record.reason in (None, record.state.value) else f" ({record.reason})"
    say(f"Study {record.name}: {record.state.value}{reason}")
    say(count_trials(ledger.trials(study)))
    if way_on := _way_on(ledger, record):
        tell(way_on)
    if record.ended_ms and (missing := left(ledger, record)):
        tell(f"MLflow lacks {missing}: `podium sync {study}` delivers that.")
    openings = ledger.openings(record.facts["test_fingerprint"])
    say(f"Fingerprint {record.facts['fingerprint']}.")
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    say(f"The test split of its data was opened {times}, by all studies of this folder together.")
    if record.outcome:
        if record.state is State.FAILED and "verdict" in record.outcome:
            tell("What it had found before:")
        if said := record.outcome.get("summary") or record.outcome.get("cut"):
            tell(str(said))
        if "verdict" in record.outcome:
            tell(f"Verdict: {record.outcome['verdict']['sentence']}")


def _way_on(ledger: Ledger, record: StudyRecord) -> str:
    """How a study goes on that nobody runs; "" where it has ended, or is being run."""
    from search.folder import study_path
    from search.lock import check_free

    if record.state not in (State.RUNNING, State.INTERRUPTED) or "notebook" in record.settings:
        return ""
    try:
        check_free(record.name, study_path(record.name), ledger.database)
    except InUse:
        return ""
    gone = "Its process is gone. " if record.state is State.RUNNING else ""
    searched = [t for t in ledger.trials(record.name) if t.phase is Phase.SEARCH]
    planned = int(record.settings.get("trials") or 0)
    is_searching = len(searched) < planned or not all(t.state.has_ended for t in searched)
    if (record.outcome or {}).get("cut"):
        is_searching = False
    what = f"search of {planned} trials" if is_searching else "confirmation and verdict"
    if "verdict" in (record.outcome or {}) and not is_searching:
        what = "figures and report, or whatever was left of it"
    return f"{gone}`podium resume {record.name}` goes on with its {what}."


@app.command(
    epilog="Examples: `podium sync`, `podium sync STUDY`. Exit code 3: a part was delivered, the "
    "ledger keeps the rest; 2: nothing was."
)
def sync(
    study: Annotated[str | None, typer.Argument(help="One study. [all of this folder]")] = None,
) -> None:
    """Deliver to MLflow whatever it lacks: runs, metrics, reports, figures, the registered model.

    For studies that ended while MLflow was away, and for a STUDY that MLflow has lost since. Again
    after an interruption; nothing is stored twice.
    """
    from search.delivery import left
    from search.delivery import sync as synced
    from search.folder import existing_ledger, find_study
    from search.launch import now_ms

    ledger = existing_ledger()
    if study is not None:
        say(synced(ledger, study, tracking_now(find_study(ledger, study)), now_ms()))
        return
    waiting = [record for record in ledger.studies() if left(ledger, record)]
    if not waiting:
        say(
            "Nothing to deliver: MLflow was told all of every study here. What it has lost since, "
            "`podium sync STUDY` delivers again."
        )
    trouble, delivered = None, False
    for record in waiting:
        try:
            say(synced(ledger, record.name, tracking_now(record), now_ms()))
            delivered = True
        except (InUse, RunElsewhere) as error:  # whoever runs it, or where it was run, delivers it
            say(f"{record.name}: {error}")
        except PodiumError as error:
            trouble = error
            errors.print(f"podium: {record.name}: {error}", markup=False)
    if trouble is not None:
        raise typer.Exit(DeliveryFailed.exit_code if delivered else trouble.exit_code)


@app.command(
    epilog="Examples: `podium compare`, `podium compare A B --sort parameters --format csv`"
)
def compare(
    studies: Annotated[list[str] | None, typer.Argument(help="Studies. [the newest]")] = None,
    sort: Annotated[
        str, typer.Option(help="Column; a leading - turns it round.")
    ] = "-val_accuracy",
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
) -> None:
    """Print a table of trials."""
    import pandas as pd

    from search.folder import existing_ledger, find_study

    ledger = existing_ledger()
    names = studies or [s.name for s in ledger.studies()[:1]]
    for name in names:
        find_study(ledger, name)
    rows = [trial_row(name, trial) for name in names for trial in ledger.trials(name)]
    key = sort.removeprefix("-").replace("-", "_")
    columns = [name for name in rows[0] if name != "config"] if rows else [key]
    if key not in columns:
        raise ConfigError(f"Unknown column {key!r}.{nearest(key, columns)}")
    # Objects, so that a whole number next to a missing one stays whole.
    frame = pd.DataFrame(rows, dtype=object)
    if rows:
        frame = frame.sort_values(key, ascending=not sort.startswith("-"), na_position="last")
    rows = [{str(k): v for k, v in row.items()} for row in frame.to_dict(orient="records")]
    if format is Format.TABLE:
        rows = brief(rows)
    elif format is not Format.JSON:
        rows = [row | {"config": json.dumps(row["config"])} for row in rows]
    print_rows(rows, format)


@app.command(
    epilog="Examples: `podium recommend STUDY --policy best-mean`, "
    "`podium recommend STUDY --policy cheapest-within --tolerance 0.01 --cost latency`, "
    "`podium recommend STUDY --max-params 50000`"
)
def recommend(
    study: Annotated[str, typer.Argument(help="A study with confirmed finalists.")],
    policy: PolicyFlag = None,
    tolerance: ToleranceFlag = None,
    cost: CostFlag = None,
    correction: CorrectionFlag = None,
    max_params: MaxParamsFlag = None,
    max_latency_ms: MaxLatencyFlag = None,
    max_gap: MaxGapFlag = None,
    min_class_recall: MinRecallFlag = None,
) -> None:
    """Recommend again, by other rules: nothing is trained, the test split stays locked.

    What is not given is as in the study.
    """
    flags = {key: value for key, value in locals().items() if key != "study"}
    # Before anything is read: a policy that does not exist is the likeliest mistake.
    criteria_from({}, flags)
    from search.folder import existing_ledger
    from search.study import recommend_again

    recommendation, shipped = recommend_again(existing_ledger(), study, flags)
    print_recommendation(recommendation)
    for sentence in recommendation.changes:
        tell(f"- {sentence}")
    if shipped and shipped != recommendation.winner.config.config_id:
        say(f"\nThe study itself recommended {shipped}; the registered model is that one.")


@app.command(name="test-log", epilog="Examples: `podium test-log`, `podium test-log STUDY`")
def list_openings(
    study: Annotated[
        str | None, typer.Argument(help="Only the test split of this study. [all]")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.TABLE,
) -> None:
    """List every opening of a test split: when, by which study, and what for."""
    from search.folder import existing_ledger, find_study

    ledger = existing_ledger()
    fingerprint = find_study(ledger, study).facts["test_fingerprint"] if study else None
    openings = ledger.openings(fingerprint)
    data = {s.name: s.settings.get("data") for s in ledger.studies()}
    counts: Counter[str] = Counter()
    rows = []
    for opening in openings:
        counts[opening.fingerprint] += 1
        rows.append(
            {
                "opened": timestamp(opening.opened_ms),
                "data": data.get(opening.study),
                "test_fingerprint": opening.fingerprint,
                "opening": counts[opening.fingerprint],
                "study": opening.study,
                "reason": opening.reason,
            }
        )
    if rows or format is not Format.TABLE:
        print_rows(rows, format)
    if format is Format.TABLE:
        say("No test split was opened." if not rows else test_log_meaning(counts))


@app.command(
    epilog="Examples: `podium figures STUDY`, `podium figures STUDY --trial 7`, "
    "`podium figures STUDY --kind confused-pair --pair 4,9`"
)
def figures(
    study: Annotated[str, typer.Argument(help="A study.")],
    trial: Annotated[
        int | None, typer.Option(help="Of this trial. [the recommended one, or the best]")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only figures of this kind; several times.")
    ] = None,
    pair: Annotated[
        str | None, typer.Option(help="Two classes to confuse: 4,9. [the most confused]")
    ] = None,
    layer: Annotated[int, typer.Option(help="Dense hidden layer of the box plot.", min=1)] = 1,
    unit: Annotated[int, typer.Option(help="Its unit, from 0.", min=0)] = 0,
    image: Annotated[
        list[int] | None, typer.Option(help="Position of an image in the pool; several times.")
    ] = None,
    pixels: Annotated[str | None, typer.Option(help="Two pixels, as 77,78.")] = None,
    tsne_images: Annotated[int, typer.Option(help="Images of the t-SNE.", min=4)] = 1_000,
) -> None:
    """Draw a study's figures and those of one trial, as PNG files."""
    from search.folder import existing_ledger
    from search.gallery import Wishes
    from search.illustration import illustrate

    wishes = Wishes(
        pair=_two(pair, "--pair"),
        layer=layer,
        unit=unit,
        images=tuple(image or ()),
        pixels=_two(pixels, "--pixels"),
        tsne_images=tsne_images,
    )
    for path in illustrate(existing_ledger(), study, trial, kind or (), wishes):
        say(str(path))


def _two(text: str | None, flag: str) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} {text[:40]}: expected two numbers from 0, as in 4,9.") from None
    return first, second


@app.command(epilog="Examples: `podium ui`, `podium ui --port 5001`, `podium ui STUDY`")
def ui(
    study: Annotated[
        str | None, typer.Argument(help="A study that was tracked elsewhere. [mlflow.yaml's store]")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
) -> None:
    """Serve MLflow's UI on the store that studies of this folder are tracked in."""
    settings = load_tracking()
    if study is not None:
        from search.folder import existing_ledger, find_study

        settings = tracking_of(find_study(existing_ledger(), study))
    if settings.tracking_uri.startswith(("http://", "https://")):
        address = without_password(settings.tracking_uri)
        say(f"Studies are tracked on a server, which has its own UI: {address}")
        return
    with socket.socket() as probe:
        try:
            probe.bind((host, port))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"Nothing can listen on {host}:{port} ({reason}); try --port {port + 1}, or "
                "leave --host out."
            ) from None
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    # Not as an argument: those of a process are shown to every user of the machine.
    os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.tracking_uri
    say(f"MLflow's UI: http://{host}:{port} (experiment {settings.experiment!r}; Ctrl-C ends it)")
    sys.stdout.flush()
    # The command becomes the server, so that ending one ends the other.
    os.execv(
        sys.executable,
        [
            sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port),
            "--artifacts-destination", settings.artifact_root,
            "--workers", "1",
        ],
    )  # fmt: skip


@app.command(epilog="Examples: `podium spaces`, `podium spaces cnn`, `podium spaces my_space.py`")
def spaces(
    space: Annotated[
        str | None, typer.Argument(help="One of them, a .py file or a module: its parameters.")
    ] = None,
) -> None:
    """List the built-in spaces and their baselines, or what one of them varies."""
    from search.space import BUILT_IN, find_space, open_space

    if space is not None:
        _describe_space(space)
        return
    rows = []
    for name in BUILT_IN:
        baseline = open_space(find_space(name)).baseline_config()
        rows.append({"space": name, "baseline": baseline.summary})
    print_rows(rows, Format.TABLE)
    say("Your own: --space path/to/file.py or --space package.module, with suggest and baseline.")


def _describe_space(name: str) -> None:
    from search.sampler import parameters
    from search.space import find_space, open_space

    space = open_space(find_space(name))
    found = parameters(space, SHAPE_SHOWN)
    print_rows([{"parameter": key, "range": words} for key, words in found.items()], Format.TABLE)
    tell(f"Baseline: {space.baseline_config().summary}")


for command in (promote, rollback, champion, predict):
    app.command(epilog=EPILOGS[command.__name__])(command)

data_app = typer.Typer(rich_markup_mode="markdown")
app.add_typer(data_app, name="data")


@data_app.callback(
    invoke_without_command=True,
    epilog="Examples: `podium data`, `podium data describe digits`, "
    "`podium run --data mnist --data-dir data`",
)
def data(context: typer.Context) -> None:
    """List the data sets, or describe one."""
    if context.invoked_subcommand is not None:
        return
    from search.datasets import DATASET_NOTES
    from search.readers import FORMATS

    print_rows([{"data": k, "what": v} for k, v in DATASET_NOTES.items()], Format.TABLE)
    say(f"Your own, by path: {FORMATS}")


@data_app.command(
    epilog="Examples: `podium data describe digits`, `podium data describe path/to/images`"
)
def describe(
    data: Annotated[str, typer.Argument(help="A name of `podium data`, or a path.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the data's files.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Of a CSV file. [label, class, target or y]")
    ] = None,
    image_shape: Annotated[
        str | None, typer.Option(help="Of images that are stored flat: 28x28 or 32x32x3.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the split. [0]")] = None,
) -> None:
    """Say what a data set holds and what is doubtful about it; draw class counts and samples."""
    from search.describe import describe as described
    from search.gallery import draw_data
    from search.launch import load_data
    from search.settings import RUNS_PATH

    flags = {"data_dir": data_dir, "label_column": label_column, "image_shape": image_shape}
    loaded = load_data(load_settings(None, {**flags, "data": data, "seed": seed}))
    description = described(loaded)
    print_description(description)
    for path in draw_data(loaded, RUNS_PATH / "data" / description.fingerprint):
        say(f"Picture {path}")
