"""What a report is made of: its content, its blocks, and how its figures are put into words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from search.records import (
    Candidate,
    Champion,
    ConstraintsUnmet,
    EpochReport,
    Inspected,
    Interval,
    Latency,
    Opening,
    Phase,
    Recommendation,
    State,
    TrialRecord,
    Verdict,
)
from search.selection import percent, points

if TYPE_CHECKING:
    from search.data import TrainingData
    from search.registry import RegisteredModel

SIGNIFICANT = 0.05
UNKNOWN = "-"
LIST_LENGTH = 10


@dataclass(frozen=True, slots=True)
class ReportContent:
    """Everything that the page says; whatever is missing leaves its part of the page out.

    Attributes:
        trials: all of the study.
        epochs: their reports, by the number of the trial.
        recommendation: None where the study only searched.
        command: reproduces the study.
        settings: those of the study, as JSON values.
        facts: of data, code and versions.
        model_file: the `.keras` file on this machine.
        champion: what production uses, where there is something.
        champion_note: why the champion was not compared.
        importances: of the varied parameters; fractions that sum to 1.
        openings: of this test split so far, oldest first.
        training: the pool that `inspected` counts positions in.
        inspected: the recommended model, on the images that its trial has seen.
        refusing: what would refuse the model as champion, in sentences.
        shipped: number of the trial whose model was tested, and is registered.
        rungs: how many trials were compared at each rung.
        trouble: what is missing from MLflow, and why.
        refusal: the candidates that were confirmed, where none of them meets the constraints.
    """

    study: str
    trials: Sequence[TrialRecord]
    epochs: Mapping[int, Sequence[EpochReport]]
    recommendation: Recommendation | None
    verdict: Verdict | None
    command: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    model: RegisteredModel | None = None
    model_file: Path | None = None
    champion: Champion | None = None
    champion_note: str = ""
    importances: Mapping[str, float] = field(default_factory=dict)
    openings: Sequence[Opening] = ()
    training: TrainingData | None = None
    inspected: Inspected | None = None
    refusing: Sequence[str] = ()
    shipped: int | None = None
    rungs: Mapping[int, int] = field(default_factory=dict)
    trouble: str = ""
    refusal: ConstraintsUnmet | None = None

    @property
    def searched(self) -> list[TrialRecord]:
        """The trials of the search, in the order of proposal."""
        found = (t for t in self.trials if t.phase is not Phase.CONFIRM)
        return sorted(found, key=lambda t: t.number)

    @property
    def ranked(self) -> list[TrialRecord]:
        """Those of the search that have a validation accuracy, best first."""
        measured = [t for t in self.searched if t.totals]
        return sorted(measured, key=lambda t: (-(t.val_accuracy or 0.0), t.number))

    @property
    def shipped_trial(self) -> TrialRecord | None:
        """The trial whose model was tested, and is registered; None where there is none."""
        return next((t for t in self.trials if t.number == self.shipped), None)

    @property
    def own_openings(self) -> int:
        """How often this study itself has opened the test split so far."""
        return sum(opening.study == self.study for opening in self.openings)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; their numbers where the names are not known."""
        if self.training is not None:
            return list(self.training.classes)
        names = self.facts.get("class_names") or ()
        count = self.facts.get("classes") or 0
        if self.verdict is not None:
            count = len(self.verdict.tested.measures.confusion)
        return [str(name) for name in names] or [str(n) for n in range(count)]


# Blocks. A page is a list of chapters, a chapter a list of blocks; the templates know each kind.


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, and a command or address to copy after it.

    Attributes:
        tone: "", "lead" (of the first screen), "note" (framed) or "fine" (small).
    """

    text: str
    code: str = ""
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Bullets:
    """Sentences one under the other."""

    items: Sequence[str]
    kind: ClassVar[str] = "bullets"


@dataclass(frozen=True, slots=True)
class Tiles:
    """Key figures: label, figure, and what to make of it."""

    tiles: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table; figures are set to the right, and wide ones keep room for prose."""

    name: str
    number: bool = True
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure or name, and what stands small under it."""

    text: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Of a table; the first cell names it."""

    cells: Sequence[Cell]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its title; folded away on the screen until asked for, where `folded`."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Definitions:
    """Names with their values."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "definitions"


@dataclass(frozen=True, slots=True)
class Chart:
    """A Plotly figure.

    Attributes:
        id: unique in the page; of letters, digits and hyphens.
        title: for people, above it.
        description: what it shows, for those who cannot see it.
        figure: `data` and `layout` as JSON values.
        hint: what one can do with it.
        choices: buttons above it: name, and the property by trace that it restyles.
        small: several fit beside each other.
    """

    id: str
    title: str
    description: str
    figure: Mapping[str, Any]
    hint: str = ""
    choices: Sequence[tuple[str, Mapping[str, Any]]] = ()
    small: bool = False


@dataclass(frozen=True, slots=True)
class Charts:
    """One chart, or small ones beside each other, and what to know of them."""

    charts: Sequence[Chart]
    note: str = ""
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures as data URIs, each with what it shows and the lines under it; what to know first."""

    title: str
    pictures: Sequence[tuple[str, str, Sequence[str]]]
    note: str = ""
    kind: ClassVar[str] = "pictures"


Block = Text | Bullets | Tiles | Table | Definitions | Charts | Pictures


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the page under a heading."""

    id: str
    title: str
    blocks: Sequence[Block]


# Figures in words


def row(*cells: str | Cell, marked: bool = False) -> Row:
    """A row of a table; text stands for a cell without a note."""
    whole = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
    return Row(whole, marked)


def columns(*names: str, text: Iterable[int] = (0,), wide: Iterable[int] = ()) -> list[Column]:
    """Columns of these names; those at `text` hold words, those at `wide` sentences."""
    words, sentences = set(text), set(wide)
    return [Column(n, i not in words | sentences, i in sentences) for i, n in enumerate(names)]


def share(fraction: float | None) -> str:
    """A fraction as a percentage; a hyphen where it is not known."""
    return UNKNOWN if fraction is None or math.isnan(fraction) else percent(fraction)


def change(fraction: float | None) -> str:
    """A difference of fractions in points, with its sign."""
    if fraction is None or math.isnan(fraction):
        return UNKNOWN
    return f"{'+' if fraction >= 0 else ''}{points(fraction)}"


def span(interval: Interval) -> str:
    """The 95% interval of a share."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return UNKNOWN
    return f"{percent(interval.low)} to {percent(interval.high)}"


def change_span(interval: Interval) -> str:
    """The 95% interval of a difference."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return UNKNOWN
    return f"{change(interval.low).removesuffix(' points')} to {change(interval.high)}"


def rounded(fraction: float) -> str:
    """A difference in points to two digits, with its sign and without the word."""
    return f"{100 * fraction:+.2f}"


def chance(p_value: float) -> str:
    """A p-value to three digits."""
    return UNKNOWN if math.isnan(p_value) else f"{p_value:.3g}"


def milliseconds(value: float) -> str:
    """To three digits."""
    return (
        UNKNOWN if math.isnan(value) else f"{value:,.3g} ms" if value < 100 else f"{value:,.0f} ms"
    )


def latency(figure: Latency) -> str:
    """Median and 99th percentile."""
    return f"{milliseconds(figure.median_ms)} (p99 {milliseconds(figure.p99_ms)})"


def size(count: int) -> str:
    """Bytes, in thousands or millions of them."""
    return f"{count / 1e6:,.2f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def counted(count: int, one: str, many: str = "") -> str:
    """A number and its noun: 1 trial, 24 trials."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(words: Sequence[str]) -> str:
    """The first few of these in a sentence, and how many more there are."""
    shown = list(words[:LIST_LENGTH])
    if len(words) > LIST_LENGTH:
        shown.append(f"{len(words) - LIST_LENGTH:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def name_of(candidate: Candidate) -> str:
    """What a candidate is called in tables."""
    if candidate.is_baseline:
        return "baseline (champion's configuration)" if candidate.is_champion else "baseline"
    config_id = candidate.config.config_id
    return f"{config_id} (champion's configuration)" if candidate.is_champion else config_id


def often(count: int) -> str:
    """How many times, as people say it: never, once, 2 times."""
    return f"{count} times" if count > 1 else "once" if count else "never"


def times(value: float, reference: float) -> str:
    """How a size compares with another one of the same kind."""
    if reference <= 0 or math.isnan(value) or math.isnan(reference):
        return ""
    ratio = value / reference
    if 0.995 <= ratio <= 1.005:
        return "the same as"
    return f"{ratio:.2g} times" if ratio < 10 else f"{ratio:,.0f} times"


def count_trials(trials: Sequence[TrialRecord]) -> str:
    """How many trials there were and how they ended, in one sentence."""
    search = [t for t in trials if t.phase is not Phase.CONFIRM]
    states = Counter(t.state for t in search)
    stopped = Counter(t.rung for t in search if t.rung is not None)
    cut = states[State.STOPPED] - stopped.total()
    parts = [f"{states[State.COMPLETED]} completed"]
    if stopped:
        rungs = ", ".join(f"{count} at epoch {rung}" for rung, count in sorted(stopped.items()))
        parts.append(f"{stopped.total()} stopped early ({rungs})")
    if cut:
        parts.append(f"{cut} cut short by the time budget")
    if states[State.FAILED]:
        parts.append(f"{states[State.FAILED]} failed")
    epochs = sum(t.epochs_trained for t in trials)
    confirmed = sum(t.phase is Phase.CONFIRM for t in trials)
    extra = f" {confirmed} more trained for confirmation." if confirmed else ""
    return f"{counted(len(search), 'trial')}: {', '.join(parts)}.{extra} {epochs:,} epochs in all."
