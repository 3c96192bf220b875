"""Injects faults into real studies, counts what was lost, and writes a page on it.

    python -m tests.faults --repeat 5
    python -m tests.faults --only driver,worker --repeat 50 --write-docs

Takes 10 to 60 s for each injection. Ends with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console
from rich.table import Table

from tests.faults.commits import COMMITS, COMMITS_ABOUT
from tests.faults.kills import ABOUT as KILLS_ABOUT
from tests.faults.kills import KILLS
from tests.faults.outcome import FaultOutcome, NotPossibleHere, Scenario
from tests.faults.tracking import TRACKING, TRACKING_ABOUT
from tests.faults.writes import WRITTEN, WRITTEN_ABOUT
from tests.running import ROOT

SCENARIOS: dict[str, Scenario] = {**KILLS, **WRITTEN, **TRACKING, **COMMITS}
ABOUT: dict[str, str] = {
    **KILLS_ABOUT,
    **WRITTEN_ABOUT,
    **TRACKING_ABOUT,
    **COMMITS_ABOUT,
}
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / "docs" / "reliability.json"
VERSIONED = ("podium-search", "ray", "optuna", "tensorflow", "keras", "mlflow")
MOMENTS = {
    "start": "before the first trial",
    "search": "in the search",
    "confirmation": "in the confirmation",
    "timing": "while models were timed",
    "verdict": "at the look at the test split",
    "report": "after the verdict, while model and report were made",
    "end": "when all was done but to tell it",
}
console = Console(soft_wrap=True, highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeat", type=int, default=1, help="injections of each fault")
    parser.add_argument("--only", default=",".join(SCENARIOS), help="faults, joined by commas")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="[the time]")
    parser.add_argument("--keep", type=Path, help="folder for the studies, not to be removed")
    parser.add_argument("--write-docs", action="store_true", help=f"writes docs/{PAGE.name}")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    unknown = sorted(set(chosen) - set(SCENARIOS))
    if unknown or arguments.repeat < 1:
        parser.error(f"expected --repeat of at least 1 and faults among {', '.join(SCENARIOS)}")
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    found: dict[str, list[FaultOutcome]] = {}
    try:
        for fault in chosen:
            found[fault] = []
            run(fault, folder / fault, arguments.repeat, arguments.seed, found[fault])
    finally:
        console.print(summary(found))
        if arguments.write_docs:
            write_docs(found, PAGE, FIGURES, datetime.now(UTC).date())
            console.print(f"Written: docs/{PAGE.name}, docs/{FIGURES.name}")
        lost = any(o.losses for outcomes in found.values() for o in outcomes)
        if arguments.keep is None and not lost:
            shutil.rmtree(folder, ignore_errors=True)
        elif lost:
            console.print(f"Kept for a look: {folder}")
    raise SystemExit(int(lost))


def run(fault: str, folder: Path, repeat: int, seed: int, into: list[FaultOutcome]) -> None:
    """Injects one fault and prints each injection as it comes."""
    console.print(f"[bold]{fault}[/]: {ABOUT[fault]}; {repeat} times, seed {seed}")
    folder.mkdir(parents=True)
    try:
        for outcome in SCENARIOS[fault](folder, repeat, seed):
            into.append(outcome)
            console.print(
                f"  {sum(o.injected for o in into)}/{repeat}  {outcome.at}: "
                f"{len(outcome.losses)} lost, {outcome.seconds_repeated:.1f} s of training "
                f"repeated, {outcome.seconds:.0f} s in all",
                markup=False,
            )
            for loss in outcome.losses:
                console.print(f"    lost: {loss}", markup=False)
    except NotPossibleHere as error:
        console.print(f"  not possible here: {error}", markup=False)
    except Exception as error:  # noqa: BLE001 - the other faults, and the figures so far, count
        into.append(FaultOutcome(fault, "broken off", 0, [f"broken off: {error!r}"], 0.0, 0.0))
        console.print_exception()


def summary(found: dict[str, list[FaultOutcome]]) -> Table:
    """One row for each fault."""
    table = Table("fault", "injected", "losses", "s of training repeated, mean", "most", "minutes")
    for fault, outcomes in found.items():
        figures = figures_of(outcomes)
        table.add_row(
            fault,
            str(figures["injected"]),
            str(len(figures["losses"])),
            f"{figures['repeated_mean']:.1f}",
            f"{figures['repeated_most']:.1f}",
            f"{figures['seconds'] / 60:.1f}",
        )
    return table


def figures_of(outcomes: Sequence[FaultOutcome]) -> dict[str, Any]:
    """What is told of one fault, as JSON values."""
    injected = sum(o.injected for o in outcomes)
    repeated = [o.seconds_repeated for o in outcomes]
    moments: dict[str, int] = {}
    for outcome in outcomes:
        moment = outcome.at.partition(",")[0]
        moments[moment] = moments.get(moment, 0) + outcome.injected
    return {
        "injected": injected,
        "losses": [loss for o in outcomes for loss in o.losses],
        "repeated_mean": sum(repeated) / injected if injected else 0.0,
        "repeated_most": max(repeated, default=0.0),
        "seconds": sum(o.seconds for o in outcomes),
        "moments": moments,
        "outcomes": [asdict(o) for o in outcomes],
    }


def write_docs(
    found: dict[str, list[FaultOutcome]], page: Path, figures_path: Path, today: date
) -> None:
    """Writes the page; faults that were not tried this time keep the figures of an earlier one."""
    known = json.loads(figures_path.read_text()) if figures_path.exists() else {}
    versions = {name: version(name) for name in VERSIONED}
    for fault, outcomes in found.items():
        if outcomes:
            known[fault] = {
                **figures_of(outcomes),
                "date": today.isoformat(),
                "cores": os.cpu_count(),
                "versions": versions,
            }
    figures_path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    rows = [{"fault": name, "about": ABOUT[name], **known[name]} for name in ABOUT if name in known]
    killed = known["driver"]["moments"] if "driver" in known else {}
    moments = {words: killed[key] for key, words in MOMENTS.items() if key in killed}
    values = {"rows": rows, "moments": moments, "versions": versions}
    page.write_text(environment.get_template("reliability.md.j2").render(values))


if __name__ == "__main__":
    main()
