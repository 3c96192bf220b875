"""How results are printed: as tables, as data for other programs, as prose."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from search.credentials import masked
from search.escaping import as_cell, as_line, readable
from search.records import Candidate, Phase, Reasoned, Recommendation, TrialRecord

if TYPE_CHECKING:
    from search.describe import Description
    from search.ledger import StudyRecord


class _Plain(Console):
    """A console on which text says nothing but itself, and no password."""

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does, but for control characters and the passwords of addresses."""
        return super().render_str(readable(masked(text)), **options)


console = _Plain(soft_wrap=True, highlight=False, emoji=False)
PIPE_WIDTH = 160
UNBROKEN = 16
BAR_WIDTH = 30
BELOW = 4
errors = _Plain(stderr=True, soft_wrap=True, highlight=False, emoji=False)


class Format(StrEnum):
    """How a table is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "markdown"


def say(text: str) -> None:
    """Prints a line as it is, however long: a path or a command stays whole."""
    console.print(text, markup=False)


def tell(text: str) -> None:
    """Prints prose, broken between words where there is a terminal."""
    console.print(text, markup=False, soft_wrap=not console.is_terminal)


def print_candidates(ranked: Sequence[Reasoned], left_out: Sequence[str]) -> None:
    """Prints the confirmed candidates, the reason for each, and who was left out."""
    # Here, because it brings SciPy, and `podium --help` should not wait for that.
    from search.selection import percent, points

    names = [_candidate_name(r.candidate) for r in ranked]
    rows = [
        {
            "candidate": name,
            "parameters": f"{r.candidate.parameters:,}",
            "validation": percent(r.candidate.mean),
            "standard error": points(r.standard_error),
            "gap": points(r.candidate.gap) if r.candidate.gaps else "-",
            "latency": f"{r.candidate.latency_ms:.2f} ms" if r.candidate.costs else "-",
        }
        for name, r in zip(names, ranked, strict=True)
    ]
    say(f"\nConfirmed on {len(ranked[0].candidate.accuracies)} fresh seeds:")
    print_rows(rows, Format.TABLE)
    for name, r in zip(names, ranked, strict=True):
        tell(f"- {name} ({r.candidate.config.summary}): {r.reason[0].lower()}{r.reason[1:]}")
    for sentence in left_out:
        tell(f"- {sentence}")


def print_recommendation(recommendation: Recommendation) -> None:
    """Prints the candidates, the reason for each, and the choice."""
    from search.selection import percent

    print_candidates(recommendation.ranked, recommendation.left_out)
    criteria = recommendation.criteria
    if (criteria.policy, criteria.correction) == ("one-standard-error", "paired"):
        tell(
            "(That standard error leaves out what a candidate shares with the best on each seed; "
            "the column does not.)"
        )
    tell(recommendation.summary)
    known = {r.candidate.config.config_id: r.candidate for r in recommendation.ranked}
    # The runner-up may be the baseline: once is enough.
    for comparison in {c.config_id: c for c in recommendation.comparisons}.values():
        rival = f"the {comparison.rival}"
        if comparison.rival == "runner-up":
            rival += f" {_candidate_name(known[comparison.config_id])}"
        elif comparison.rival == "champion":
            rival += "'s configuration, trained again"
        tell(f"Probability that it is better than {rival}: {percent(comparison.better)}.")


def _candidate_name(candidate: Candidate) -> str:
    if candidate.is_baseline:
        return "baseline (champion's configuration)" if candidate.is_champion else "baseline"
    note = " (champion's configuration)" if candidate.is_champion else ""
    return f"{candidate.config.config_id}{note}"


def timestamp(milliseconds: int) -> str:
    """A moment as people read it, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def test_log_meaning(counts: Mapping[str, int]) -> str:
    """What it means that test splits were opened so often, by fingerprint."""
    again = {fingerprint: count for fingerprint, count in counts.items() if count > 1}
    if not again:
        return "Each test split was opened once: its figures are as good as new data would give."
    most = ", ".join(f"{fingerprint} {count} times" for fingerprint, count in again.items())
    return (
        f"Opened more than once: {most}. Whatever was decided after an earlier look may fit these "
        "images better than new ones; treat the later figures as optimistic."
    )


def print_description(description: Description) -> None:
    """Prints what a data set holds: sizes, classes with bars, pixels, duplicates, doubts."""
    d = description
    height, width, channels = d.image_shape
    colour = "grey" if channels == 1 else f"{channels} channels"
    parts = (d.train_counts, d.validation_counts, d.test_counts)
    train, validation, test = (f"{sum(counts):,}" for counts in parts)
    say(f"Data {d.name}, fingerprint {d.fingerprint}")
    say(f"{train} train, {validation} validation, {test} test (locked) images")
    say(f"{height} by {width} pixels, {colour}, {d.dtype}, {d.pixel_min:g} to {d.pixel_max:g}")
    say(f"mean {d.pixel_mean:.4g}; {100 * d.constant_pixels:.1f}% of the pixels never change")
    largest = max(d.train_counts)
    rows = [
        {
            "class": name,
            "train": counts[0],
            "validation": counts[1],
            "test": counts[2],
            "": "#" * round(BAR_WIDTH * counts[0] / largest),
        }
        for name, *counts in zip(d.classes, *parts, strict=True)
    ]
    print_rows(rows, Format.TABLE)
    say(f"Largest class by smallest: {d.imbalance:.2f}")
    say(
        f"Identical images: {d.duplicates_in_pool:,} within the pool, "
        f"{d.duplicates_train_validation:,} of validation in train, "
        f"{d.duplicates_pool_test:,} of test in the pool; "
        f"{d.conflicting_labels:,} with different labels"
    )
    for warning in d.warnings:
        tell(f"Note: {warning}")


def print_notebooks() -> None:
    """Prints the published notebooks and their experiments."""
    from spaces.notebooks import NOTEBOOKS

    rows = [
        {
            "notebook": notebook.id,
            "data": notebook.data,
            "about": notebook.about,
            "experiments": ", ".join(e.id for e in notebook.experiments),
        }
        for notebook in NOTEBOOKS.values()
    ]
    print_rows(rows, Format.TABLE)


def trial_counts(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials searched, confirmed, and reproduced what was published."""
    phases = [trial.phase for trial in trials]
    return {
        "searched": phases.count(Phase.SEARCH),
        "confirmed": phases.count(Phase.CONFIRM),
        "reproduced": phases.count(Phase.REPRODUCE),
    }


def recommended(study: StudyRecord) -> str:
    """What a study recommended, by the name that people know it by."""
    config_id = str((study.outcome or {}).get("recommended", ""))
    if "notebook" in study.settings:
        return config_id
    return "baseline" if config_id and config_id == study.facts["baseline"] else config_id


def trial_row(study: str, trial: TrialRecord) -> dict[str, Any]:
    """A trial as a row of `podium compare`."""
    totals, config = trial.totals, trial.config
    return {
        "study": study,
        "trial": trial.number,
        "phase": trial.phase.value,
        "experiment": trial.experiment,
        "state": trial.state.value,
        "rung": trial.rung,
        "val_accuracy": totals.val_accuracy if totals else None,
        "gap": totals.gap if totals else None,
        "f1_macro": totals.measures.f1_macro if totals else None,
        "roc_auc_ovo": totals.measures.roc_auc_ovo if totals else None,
        "calibration_error": totals.measures.calibration_error if totals else None,
        "best_epoch": totals.best_epoch if totals else None,
        "folds": trial.folds or None,
        "fold_standard_error": totals.fold_standard_error if totals else None,
        "fold_accuracies": list(totals.fold_accuracies) if totals else [],
        "epochs": trial.epochs_trained,
        "parameters": totals.parameters if totals else None,
        "wall_seconds": totals.wall_seconds if totals else None,
        "config_id": config.config_id,
        "summary": config.summary,
        "config": config.model_dump(mode="json"),
        "reason": trial.reason,
    }


def brief(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The part of `trial_row`s that fits a terminal; what is the same for all is left out."""
    studies = {row["study"] for row in rows}
    shown = {
        "study": len(studies) > 1,
        "experiment": any(row["experiment"] for row in rows),
        "fold_se": any(row["folds"] for row in rows),
    }
    return [{k: v for k, v in _brief(row).items() if shown.get(k, True)} for row in rows]


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    state = f"stopped at {row['rung']}" if row["rung"] else row["state"]
    seconds = row["wall_seconds"]
    return {
        "study": row["study"],
        "trial": row["trial"],
        "experiment": row["experiment"],
        "phase": row["phase"],
        "state": state,
        "config_id": row["config_id"],
        "val_accuracy": row["val_accuracy"],
        "fold_se": row["fold_standard_error"],
        "gap": row["gap"],
        "epochs": row["epochs"],
        "parameters": f"{row['parameters']:,}" if row["parameters"] else None,
        "wall_seconds": f"{seconds:.1f}" if seconds else None,
        "summary": row["summary"] if row["state"] != "failed" else f"failed: {row['reason']}",
    }


def print_rows(rows: list[dict[str, Any]], format: Format) -> None:
    """Prints rows with the same keys."""
    if format is Format.JSON:
        # JSON has no NaN.
        known = [{k: None if v != v else v for k, v in row.items()} for row in rows]
        sys.stdout.write(json.dumps(known, indent=2, allow_nan=False) + "\n")
        return
    names = list(rows[0]) if rows else []
    if format is Format.CSV:
        import pandas as pd

        safe = [{as_cell(k): as_cell(v) for k, v in row.items()} for row in rows]
        sys.stdout.write(pd.DataFrame(safe, dtype=object).to_csv(index=False))
        return
    cells = [[_cell(row[name]) for name in names] for row in rows]
    if format is Format.MARKDOWN:
        lines = [names, ["---"] * len(names), *cells]
        text = "\n".join("| " + " | ".join(map(as_line, line)) + " |" for line in lines)
        sys.stdout.write(text + "\n")
        return
    # Where there is no terminal there is no width to keep to, but rich would take 80.
    width = console.width if console.is_terminal else max(PIPE_WIDTH, console.width)
    numeric = [all(isinstance(row[n], int | float | type(None)) for row in rows) for n in names]
    _print_table(names, cells, numeric, width)


def _print_table(
    names: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], width: int
) -> None:
    """Prints rows as wide as the terminal; the last columns stand below where they do not fit.

    Rich would cut them off, and digits with them.
    """
    longest = [max((len(line[i]) for line in cells), default=0) for i in range(len(names))]
    is_long = [most > UNBROKEN for most in longest]
    least = [UNBROKEN if is_long[i] else max(longest[i], len(name)) for i, name in enumerate(names)]
    gap = 2 if sum(least) + 2 * len(names) <= width else 1
    fitting = [i for i in range(1, len(names)) if sum(least[:i]) + gap * i <= width]
    shown = len(names)
    if sum(least) + gap * shown > width and fitting and not any(is_long[: fitting[-1]]):
        shown = fitting[-1]
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for name, of_long, is_number, narrowest in list(
        zip(names, is_long, numeric, least, strict=True)
    )[:shown]:
        table.add_column(
            Text(readable(name)),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=not of_long,
            min_width=narrowest,
        )
    for line in cells:
        table.add_row(*map(Text, line[:shown]))
    out = Console(width=max(width, sum(least[:shown]) + gap * shown), highlight=False)
    if shown == len(names):
        out.print(table)
        return
    with out.capture() as capture:
        out.print(table)
    head, *lines = capture.get().splitlines()
    out.print(Text.from_ansi(head))
    for line, cell in zip(lines, cells, strict=True):
        out.print(Text.from_ansi(line))
        rest = [f"{n} {value}" for n, value in zip(names[shown:], cell[shown:], strict=True)]
        out.print(Padding(Text(", ".join(rest)), (0, 0, 0, BELOW)))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return readable(str(value)).replace("\n", "\\n")
