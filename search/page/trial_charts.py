"""Charts of a study's trials: how they learned, and what each parameter did to their accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search.page.article import Chart
from search.page.charts import axis, checked, label, labels, points
from search.records import EpochReport, State, TrialRecord
from search.sampler import choices
from search.selection import percent

if TYPE_CHECKING:
    from spaces.config import TrialConfig

MOST_PARAMETERS = 12
FEW_VALUES = 8
SHADES = 8
"""Of `--s0` (least accurate) to `--s7`."""
LOG_RATIO = 30
LOW_QUANTILE = 0.1

Value = float | int | str


def proposed(trial: TrialRecord) -> dict[str, Value]:
    """What the space was asked for in a trial, by the names that the space gave.

    Where that was not recorded, the fields of the configuration.
    """
    found = {name: value for name, (value, _) in choices(trial.proposal).items()}
    if not found:
        return parameters(trial.config)
    return {name: _plain(value) for name, value in found.items() if value is not None}


def ranges(trials: Sequence[TrialRecord]) -> dict[str, str]:
    """What each parameter was chosen from, in words, as far as it was recorded."""
    return {name: words for t in trials for name, (_, words) in choices(t.proposal).items()}


def parameters(config: TrialConfig) -> dict[str, Value]:
    """A configuration as plain values by name; layer sizes as their number and `units_1` ...

    What is off has no value.
    """
    values: dict[str, Value] = {}
    for key, value in config.model_dump(mode="json").items():
        if key in ("hidden", "filters"):
            count, unit = ("layers", "units") if key == "hidden" else ("conv_layers", "filters")
            values[count] = len(value)
            values |= {f"{unit}_{n}": size for n, size in enumerate(value, 1)}
        elif isinstance(value, Mapping):
            values |= {f"extra.{name}": _plain(item) for name, item in value.items()}
        elif value is not None:
            values[key] = _plain(value)
    return values


def _plain(value: object) -> Value:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, int | float) else str(value)


def varied(
    trials: Sequence[TrialRecord], importances: Mapping[str, float]
) -> dict[str, dict[int, Value]]:
    """The values, by trial number, of each parameter with at least two; most important first."""
    found: dict[str, dict[int, Value]] = {}
    for trial in trials:
        for name, value in proposed(trial).items():
            found.setdefault(name, {})[trial.number] = value
    several = {name: values for name, values in found.items() if len(set(values.values())) > 1}
    order = sorted(several, key=lambda name: (-importances.get(name, 0.0), name))
    return {name: several[name] for name in order}


def learning_curves(
    trials: Sequence[TrialRecord], epochs: Mapping[int, Sequence[EpochReport]]
) -> Chart | None:
    """Validation accuracy after each epoch of every trial; None where no trial has any."""
    groups: dict[str, list[TrialRecord]] = {"stopped or failed": [], "completed": [], "best": []}
    drawn = [t for t in trials if epochs.get(t.number)]
    if not drawn:
        return None
    best = max(drawn, key=lambda t: (t.val_accuracy or 0.0, -t.number))
    for trial in drawn:
        done = "completed" if trial.state is State.COMPLETED else "stopped or failed"
        groups["best" if trial is best else done].append(trial)
    styles = (("var(--c4)", 1.0, 0.65), ("var(--c1)", 1.3, 0.8), ("var(--c2)", 3.0, 1.0))
    traces = []
    for (name, members), (color, width, opacity) in zip(groups.items(), styles, strict=True):
        x, y, numbers = _lines(
            (t.number, [(e.epoch, e.val_accuracy) for e in epochs[t.number]]) for t in members
        )
        title = f"best: trial {best.number}" if name == "best" else f"{name} ({len(members)})"
        line = {"color": color, "width": width}
        # A trial that was stopped after one epoch is a point, which no line shows.
        traces.append(
            {
                **points(x, y, {"color": color, "size": 4}, name=title),
                "mode": "lines+markers",
                "line": line,
                "opacity": opacity,
                "customdata": numbers,
                "hovertemplate": "trial %{customdata}, epoch %{x}: %{y:.2%}<extra></extra>",
            }
        )
    figures = [e.val_accuracy for t in drawn for e in epochs[t.number]]
    layout = {
        "height": 420,
        "xaxis": axis("epoch", rangemode="tozero", dtick=_tick(max(map(len, epochs.values())))),
        "yaxis": axis("validation accuracy", tickformat=".0%", range=_range(figures)),
    }
    description = (
        f"Learning curves of {len(drawn)} trials. The best one is trial {best.number}, "
        f"{percent(best.val_accuracy or 0.0)} at its best epoch."
    )
    hint = "Point at a line to follow its trial; drag to zoom, double-click to see all."
    figure = checked([*traces, _followed()], layout)
    return Chart("learning-curves", "Learning curves", description, figure, hint)


def parallel_coordinates(
    trials: Sequence[TrialRecord], importances: Mapping[str, float]
) -> Chart | None:
    """A line for each trial through its values; None with fewer than two trials or values."""
    chosen = list(varied(trials, importances).items())[:MOST_PARAMETERS]
    if len(trials) < 2 or not chosen:
        return None
    accuracies = {t.number: t.val_accuracy or 0.0 for t in trials}
    places, notes = [], []
    for position, (_, values) in enumerate(chosen):
        scale = _Scale(values.values())
        places.append({n: scale.place(v) for n, v in values.items()})
        notes += [_note(position, height, text) for height, text in scale.ticks]
    if any(t.number not in place for t in trials for place in places):
        notes.append(_note(0, -0.12, "not used", anchor="right"))
    low, high = _range(accuracies.values())
    scale = _Scale(accuracies.values())
    places.append({n: scale.place(a) for n, a in accuracies.items()})
    notes += [_note(len(chosen), height, percent(scale.value(height))) for height in (0.0, 1.0)]
    shades: list[list[TrialRecord]] = [[] for _ in range(SHADES)]
    for trial in sorted(trials, key=lambda t: accuracies[t.number]):
        part = (accuracies[trial.number] - low) / max(high - low, 1e-12)
        shades[min(SHADES - 1, max(0, int(part * SHADES)))].append(trial)
    traces = []
    for shade, members in enumerate(shades):
        x, y, numbers = _lines(
            (t.number, [(i, place.get(t.number, -0.12)) for i, place in enumerate(places)])
            for t in members
        )
        color = f"var(--s{shade})"
        texts = [n if n is None else f"trial {n}: {percent(accuracies[n])}" for n in numbers]
        traces.append(
            {
                **points(x, y, {"color": color, "size": 5}, showlegend=False),
                "mode": "lines+markers",
                "line": {"color": color, "width": 1.6},
                "opacity": 0.85,
                "customdata": numbers,
                "text": texts,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    names = [*labels((name for name, _ in chosen), 18), "accuracy"]
    layout = {
        "height": 460,
        "margin": {"l": 60, "r": 60, "t": 24, "b": 60},
        "dragmode": "select",
        "selectdirection": "v",
        "annotations": notes,
        "xaxis": axis(
            tickvals=list(range(len(names))),
            ticktext=names,
            tickangle=-30,
            gridwidth=1.5,
            range=[-0.35, len(names) - 0.5],
        ),
        "yaxis": axis(visible=False, range=[-0.2, 1.1]),
    }
    best = max(trials, key=lambda t: accuracies[t.number])
    description = (
        f"Parallel coordinates of {len(trials)} trials over {', '.join(names[:-1])}. The best, "
        f"trial {best.number}: "
        + ", ".join(f"{name} {_short(v[best.number])}" for name, v in chosen if best.number in v)
        + "."
    )
    hint = (
        "The stronger the colour, the more accurate. Point at a line to follow its trial; drag "
        "along an axis to see only the trials that pass there, double-click to see all."
    )
    figure = checked([*traces, _followed()], layout)
    return Chart("parallel-coordinates", "All parameters at once", description, figure, hint)


def slices(trials: Sequence[TrialRecord], importances: Mapping[str, float]) -> list[Chart]:
    """Validation accuracy over each varied parameter, in charts of their own."""
    charts = []
    for number, (name, values) in enumerate(varied(trials, importances).items()):
        if number == MOST_PARAMETERS:
            break
        scale = _Scale(values.values())
        low, high = _range([t.val_accuracy or 0.0 for t in trials])
        traces = []
        for title, color, done in (
            ("stopped", "var(--c4)", False),
            ("completed", "var(--c1)", True),
        ):
            members = [
                t for t in trials if (t.state is State.COMPLETED) is done and t.number in values
            ]
            texts = [
                f"trial {t.number}: {label(_short(values[t.number]))}, "
                f"{percent(t.val_accuracy or 0.0)}"
                for t in members
            ]
            trace = points(
                [scale.position(values[t.number]) for t in members],
                [t.val_accuracy for t in members],
                {"color": color, "size": 7, "opacity": 0.8},
                name=title,
                showlegend=False,
            )
            hover = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
            traces.append(trace | hover | {"customdata": [t.number for t in members]})
        layout = {
            "height": 230,
            "margin": {"l": 52, "r": 12, "t": 12, "b": 44},
            "xaxis": axis(**scale.axis),
            "yaxis": axis(tickformat=".0%", range=[low, high]),
        }
        description = f"Validation accuracy of {len(values)} trials over {name}."
        figure = checked(traces, layout)
        charts.append(Chart(f"slice-{number}", name, description, figure, small=True))
    return charts


class _Scale:
    """Where the values of a parameter go on an axis: by size, by its logarithm, or in a list."""

    def __init__(self, values: Iterable[Value]) -> None:
        given = list(values)
        self.numeric = all(isinstance(v, int | float) for v in given)
        distinct = sorted(set(given), key=lambda v: (isinstance(v, str), v))
        # Whole numbers from a list come up again and again; those from a range do not.
        few = all(not isinstance(v, float) for v in distinct) and (
            len(distinct) <= 3 or len(distinct) <= min(FEW_VALUES, len(given) // 2)
        )
        self.listed: list[Value] = distinct if few or not self.numeric else []
        if not self.listed:
            low, high = float(distinct[0]), float(distinct[-1])
            self.log = low > 0 and high / low >= LOG_RATIO and _even_by_logarithm(given)
            self.low, self.high = (math.log10(low), math.log10(high)) if self.log else (low, high)

    def position(self, value: Value) -> float:
        """In units of the axis that `axis` describes."""
        return float(self.listed.index(value)) if self.listed else float(value)

    def place(self, value: Value) -> float:
        """From 0 to 1."""
        if self.listed:
            return self.listed.index(value) / max(1, len(self.listed) - 1)
        number = math.log10(float(value)) if self.log else float(value)
        return (number - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def value(self, place: float) -> float:
        """The figure at a place from 0 to 1; not of lists."""
        if self.listed:
            return float(self.listed[round(place * (len(self.listed) - 1))])
        number = self.low + place * (self.high - self.low)
        return float(10**number) if self.log else number

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places with what to write there."""
        if self.listed:
            step = math.ceil(len(self.listed) / FEW_VALUES)
            return [(self.place(v), label(_short(v), 12)) for v in self.listed[::step]]
        return [(place, _short(self.value(place))) for place in (0.0, 0.5, 1.0)]

    @property
    def axis(self) -> dict[str, Any]:
        """For Plotly's."""
        if not self.listed:
            kind = {"type": "log", "dtick": 1} if self.log else {"nticks": 6}
            return {**kind, "exponentformat": "none"}
        step = math.ceil(len(self.listed) / FEW_VALUES)
        places = list(range(0, len(self.listed), step))
        texts = [label(_short(self.listed[i]), 12) for i in places]
        return {"tickvals": places, "ticktext": texts, "range": [-0.5, len(self.listed) - 0.5]}


def _even_by_logarithm(values: Sequence[Value]) -> bool:
    """Whether positive values spread more evenly by their logarithms than by their size."""
    sizes = np.array([float(v) for v in values])

    def skew(numbers: NDArray[np.float64]) -> float:
        low, high = float(numbers.min()), float(numbers.max())
        return abs((float(np.median(numbers)) - low) / (high - low) - 0.5)

    return skew(np.log(sizes)) < skew(sizes)


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _range(figures: Iterable[float]) -> list[float]:
    """From where most accuracies begin, so that a few bad ones do not flatten the others."""
    known = [f for f in figures if math.isfinite(f)] or [0.0, 1.0]
    low, high = float(np.quantile(known, LOW_QUANTILE)), max(known)
    room = max(0.02, high - low) * 0.08
    return [max(-0.02, low - room), min(1.02, high + room)]


def _tick(count: int) -> int:
    return max(1, math.ceil(count / 10))


def _lines(
    lines: Iterable[tuple[int, Sequence[tuple[float, float]]]],
) -> tuple[list[float | None], list[float | None], list[int | None]]:
    """The points of many lines in one trace, with the number of its line beside each."""
    x: list[float | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for number, line in lines:
        x += [*(a for a, _ in line), None]
        y += [*(b for _, b in line), None]
        numbers += [number] * len(line) + [None]
    return x, y, numbers


def _followed() -> dict[str, Any]:
    """The line of the trial that is pointed at; the page fills it in."""
    marker = {"color": "var(--c3)", "size": 7}
    trace = points([], [], marker, name="followed", showlegend=False, hoverinfo="skip")
    return {**trace, "mode": "lines+markers", "line": {"color": "var(--c3)", "width": 4}}


def _note(x: float, y: float, text: str, anchor: str = "left") -> dict[str, Any]:
    side = 5 if anchor == "left" else -8
    place = {"x": x, "y": y, "xanchor": anchor, "xshift": side, "showarrow": False}
    font = {"size": 11, "color": "var(--ink)"}
    return {**place, "text": text, "font": font, "bgcolor": "var(--paper)", "opacity": 0.85}
