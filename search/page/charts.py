"""Interactive charts of a study, as Plotly figures that draw themselves without a network.

Colours are names of the page's own (`var(--c1)`), so that charts follow light and dark. Text of any
kind is safe: what Plotly would read as markup is escaped.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.page.article import Chart
from search.records import Reasoned
from search.selection import called, percent

LABEL_LENGTH = 26
MOST_BARS = 24
READABLE_CLASSES = 20
"""Up to here every class gets its number in a cell."""

Traces = Sequence[Mapping[str, Any]]


def label(text: object, length: int = LABEL_LENGTH) -> str:
    """Text for Plotly, in one line, shortened in the middle, which it cannot read as markup."""
    plain = " ".join(str(text).split())
    if len(plain) > length:
        tail = length // 3
        plain = f"{plain[: length - tail - 1]}…{plain[-tail:]}"
    return html.escape(plain, quote=False)


def labels(names: Iterable[object], length: int = LABEL_LENGTH) -> list[str]:
    """A different label for each of these, even for those that are the same when shortened."""
    shown: list[str] = []
    for name in names:
        found, count = label(name, length), 1
        while found in shown:
            count += 1
            found = f"{label(name, length)} ({count})"
        shown.append(found)
    return shown


def candidates(ranked: Sequence[Reasoned], chosen: int) -> Chart:
    """Each confirmed candidate's runs, with their mean and its standard error."""
    names = [
        "baseline" if r.candidate.is_baseline else r.candidate.config.config_id for r in ranked
    ]
    runs = [
        (a, name) for r, name in zip(ranked, names, strict=True) for a in r.candidate.accuracies
    ]
    means = [r.candidate.mean for r in ranked]
    marks = ["var(--c2)" if i == chosen else "var(--ink)" for i in range(len(ranked))]
    traces = [
        points(
            [x for x, _ in runs],
            [y for _, y in runs],
            {"color": "var(--c1)", "size": 9, "opacity": 0.55},
            name="single run",
        ),
        points(
            means,
            names,
            {"color": marks, "size": 12, "symbol": "diamond"},
            name="mean and standard error",
            error_x={
                "type": "data",
                "array": [r.standard_error for r in ranked],
                "color": "var(--ink)",
                "thickness": 1.5,
                "width": 5,
            },
        ),
    ]
    layout = {
        "height": 130 + 44 * len(ranked),
        "xaxis": axis("validation accuracy", tickformat=".1%"),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False),
    }
    best = ranked[chosen].candidate
    description = (
        f"Validation accuracy of {len(ranked)} candidates; the chosen one, {called(best)}, has a "
        f"mean of {percent(best.mean)}."
    )
    return Chart("candidates", "Confirmed candidates", description, checked(traces, layout))


def importance_bars(importances: Mapping[str, float]) -> Chart:
    """How far each parameter sets the best trials apart, as fractions that sum to 1."""
    top = sorted(importances.items(), key=lambda item: (-item[1], item[0]))[:MOST_BARS]
    names, shares = labels(name for name, _ in top), [share for _, share in top]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": shares,
        "y": names,
        "text": [f"{share:.0%}" for share in shares],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "var(--c1)"},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    layout = {
        "height": 90 + 28 * len(top),
        "xaxis": axis("share", tickformat=".0%", rangemode="tozero"),
        "yaxis": axis(type="category", autorange="reversed", showgrid=False),
    }
    said = ", ".join(f"{name} {share:.0%}" for name, share in top[:5])
    return Chart(
        "importances", "Importance of each parameter", f"Bars: {said}.", checked([bars], layout)
    )


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Chart:
    """Images by true and predicted class, with colours by the number or by its logarithm."""
    names, counts = labels(classes, 18), [list(map(int, line)) for line in matrix]
    logarithms = [[math.log10(1 + count) for count in line] for line in counts]
    readable = len(classes) <= READABLE_CLASSES
    heat = {
        "type": "heatmap",
        "x": names,
        "y": names,
        "z": counts,
        "customdata": counts,
        "colorscale": [[n / 4, f"var(--h{n})"] for n in range(5)],
        "showscale": False,
        "xgap": 1 if readable else 0,
        "ygap": 1 if readable else 0,
        "hovertemplate": "true %{y}, predicted %{x}: %{customdata:,} images<extra></extra>",
    }
    if readable:
        heat |= {"text": [[f"{n:,}" if n else "" for n in line] for line in counts]}
        heat |= {"texttemplate": "%{text}"}
    layout = {
        "height": max(320, min(760, 150 + len(classes) * 34)),
        "xaxis": axis("predicted class", type="category", showgrid=False, constrain="domain"),
        "yaxis": axis("true class", type="category", autorange="reversed", showgrid=False),
    }
    wrong = sum(map(sum, counts)) - sum(line[i] for i, line in enumerate(counts))
    description = f"Confusion matrix of {len(classes)} classes, {wrong:,} images off the diagonal."
    return Chart(
        "confusion",
        "Confusion matrix, test split",
        description,
        checked([heat], layout),
        "The logarithmic colours bring out the rare mistakes of a good model.",
        (("linear colours", {"z": [counts]}), ("logarithmic colours", {"z": [logarithms]})),
    )


def reliability_diagram(probabilities: NDArray[np.float32], true: NDArray[np.int32]) -> Chart:
    """How often the model is right, by how sure it is; on images with these labels."""
    from search.analysis import reliability

    found = reliability(probabilities, true)
    bins = len(found.counts)
    full = np.flatnonzero(found.counts)
    share = found.counts[full] / max(1, len(true))
    traces = [
        {
            "type": "bar",
            "x": ((full + 0.5) / bins).tolist(),
            "y": found.accuracy[full].tolist(),
            "width": [0.9 / bins] * len(full),
            "marker": {"color": "var(--c1)"},
            "name": "how often right",
            "text": [f"{part:.1%} of the images" for part in share],
            "textposition": "none",
            "hovertemplate": "right %{y:.1%}, %{text}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "x": [0, 1],
            "y": [0, 1],
            "name": "perfectly calibrated",
            "line": {"color": "var(--ink)", "dash": "dash", "width": 1.2},
            "hoverinfo": "skip",
        },
        points(
            found.confidence[full].tolist(),
            found.accuracy[full].tolist(),
            {
                "color": "var(--c2)",
                "size": (6 + 18 * np.sqrt(share)).tolist(),
                "line": {"color": "var(--paper)", "width": 1},
            },
            name="mean confidence; size: share of the images",
            hovertemplate="sure %{x:.1%}, right %{y:.1%}<extra></extra>",
        ),
    ]
    layout = {
        "height": 400,
        "xaxis": axis("how sure: highest probability", tickformat=".0%", range=[0, 1.02]),
        "yaxis": axis("how often right", tickformat=".0%", range=[0, 1.05]),
    }
    description = f"Reliability diagram: expected calibration error {percent(found.error)}."
    return Chart(
        "calibration", "Calibration, validation split", description, checked(traces, layout)
    )


def points(
    x: Sequence[Any], y: Sequence[Any], marker: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """A trace of points; `more` are other properties of it."""
    trace = {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y)}
    return {**trace, "marker": dict(marker), **more}


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis in the colours of the page; `more` are other properties of it."""
    made: dict[str, Any] = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": "var(--muted)"},
    }
    if title:
        made["title"] = {"text": title, "font": {"size": 12, "color": "var(--muted)"}}
    return made | more


def checked(traces: Traces, layout: Mapping[str, Any]) -> dict[str, Any]:
    """A figure that Plotly has checked, as JSON values."""
    from plotly.graph_objects import Figure

    shared = {
        "margin": {"l": 60, "r": 20, "t": 30, "b": 50},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
        "hoverlabel": {
            "bgcolor": "var(--paper)",
            "bordercolor": "var(--line)",
            "font": {"color": "var(--ink)"},
        },
        "hovermode": "closest",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
    figure = Figure({"data": list(traces), "layout": shared | dict(layout)}).to_dict()
    figure["layout"].pop("template", None)
    return _plain_json(figure)  # type: ignore[no-any-return]


def _plain_json(value: Any) -> Any:
    """Without what JSON has no word for: NaN is null."""
    if isinstance(value, Mapping):
        return {key: _plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
