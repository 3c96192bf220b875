from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.page.article import Chart
from search.page.charts import (
    candidates,
    confusion,
    importance_bars,
    label,
    labels,
    reliability_diagram,
)
from search.page.trial_charts import (
    MOST_PARAMETERS,
    learning_curves,
    parallel_coordinates,
    parameters,
    slices,
    varied,
)
from search.records import State
from spaces.config import TrialConfig
from tests.builders import make_config, make_epoch, make_trial, quick
from tests.pages import make_decision, make_search

BOLD = "<b>bold</b>"


def traces(chart: Chart | None) -> list[dict[str, Any]]:
    assert chart is not None
    return list(chart.figure["data"])


def curve(*accuracies: float) -> list[Any]:
    return [make_epoch(n, val_accuracy=a) for n, a in enumerate(accuracies, 1)]


def searched(**values: Any) -> list[Any]:
    return [
        make_trial(0, config=make_config(16), val_accuracy=0.7, **values),
        make_trial(1, config=make_config(64), val_accuracy=0.9, **values),
        make_trial(2, config=TrialConfig(hidden=(64, 32)), val_accuracy=0.8, **values),
        make_trial(3, config=TrialConfig(hidden=(16, 8)), val_accuracy=0.75, **values),
    ]


# Text


@pytest.mark.parametrize("text", [BOLD, "<a href='x'>", "a & b", "&lt;b&gt;", "<br>"])
def test_a_label_is_read_by_plotly_as_the_text_that_it_is(text: str) -> None:
    shown = label(text)
    assert "<" not in shown
    assert ">" not in shown
    assert not re.search(r"&(?!amp;|lt;|gt;)", shown)


def test_a_long_label_loses_its_middle_and_a_line_break() -> None:
    assert label("one\ntwo") == "one two"
    shown = label("begin" + "x" * 100 + "end", 20)
    assert len(shown) == 20
    assert shown.startswith("beginx")
    assert shown.endswith("xend")


@quick
@given(st.lists(st.text(max_size=40), max_size=12))
def test_no_two_labels_are_the_same_whatever_the_names(names: list[str]) -> None:
    shown = labels(names)
    assert len(set(shown)) == len(shown) == len(names)


# Parameters


def test_a_configuration_is_told_by_its_plain_values() -> None:
    values = parameters(TrialConfig(hidden=(64, 32), nesterov=True, extra={"heads": 4}))
    assert (values["layers"], values["units_1"], values["units_2"]) == (2, 64, 32)
    assert (values["nesterov"], values["extra.heads"]) == ("yes", 4)
    assert "pca_components" not in values


def test_only_parameters_of_several_values_are_varied_and_the_most_important_comes_first() -> None:
    found = varied(searched(), {"layers": 0.9, "units_1": 0.1})
    assert list(found) == ["layers", "units_1", "units_2"]
    assert found["units_2"] == {2: 32, 3: 8}


# Charts


def test_every_chart_is_json_without_nan_and_takes_its_colours_from_the_page() -> None:
    trials, epochs = make_search()
    measured = [t for t in trials if t.totals]
    charts = [
        candidates(make_decision().ranked, 0),
        importance_bars({"a": 0.75, "b": 0.25}),
        learning_curves(trials, epochs),
        parallel_coordinates(measured, {}),
        *slices(measured, {}),
        confusion([[3, 1], [0, 2]], ["a", "b"]),
        reliability_diagram(np.eye(2, dtype=np.float32), np.array([0, 1], np.int32)),
    ]
    for chart in charts:
        assert chart is not None
        text = json.dumps(chart.figure, allow_nan=False)
        assert not re.search(r"#[0-9a-f]{6}", text)
        assert "var(--" in text
        assert chart.description.endswith(".")
    assert len({chart.id for chart in charts if chart}) == len(charts)


def test_candidates_show_every_run_and_mark_the_chosen_one() -> None:
    made = make_decision()
    runs, means = traces(candidates(made.ranked, made.chosen))
    assert sorted(runs["x"]) == sorted(a for r in made.ranked for a in r.candidate.accuracies)
    assert means["x"] == [r.candidate.mean for r in made.ranked]
    assert means["error_x"]["array"] == [r.standard_error for r in made.ranked]
    marks = means["marker"]["color"]
    assert [color != "var(--ink)" for color in marks].index(True) == made.chosen
    assert len(set(marks)) == 2


def test_importances_are_bars_largest_first() -> None:
    [bars] = traces(importance_bars({"small": 0.2, BOLD: 0.8}))
    assert bars["x"] == [0.8, 0.2]
    assert bars["y"] == ["&lt;b&gt;bold&lt;/b&gt;", "small"]


def test_learning_curves_hold_every_epoch_of_every_trial_and_stopped_ones_are_fainter() -> None:
    trials = [
        make_trial(0, val_accuracy=0.8),
        make_trial(1, val_accuracy=0.9),
        make_trial(2, val_accuracy=0.5, state=State.STOPPED, rung=2),
        make_trial(3, state=State.FAILED, totals=None),
    ]
    epochs = {0: curve(0.6, 0.8), 1: curve(0.7, 0.9), 2: curve(0.5)}
    stopped, completed, best, followed = traces(learning_curves(trials, epochs))
    assert (stopped["x"], stopped["y"]) == ([1, None], [0.5, None])
    assert (completed["y"], completed["customdata"]) == ([0.6, 0.8, None], [0, 0, None])
    assert (best["y"], best["name"]) == ([0.7, 0.9, None], "best: trial 1")
    assert stopped["opacity"] < completed["opacity"] < best["opacity"]
    assert followed["x"] == []


def test_without_epochs_there_are_no_learning_curves() -> None:
    assert learning_curves(searched(), {}) is None


def test_parallel_coordinates_are_a_line_for_each_trial_the_best_in_the_strongest_colour() -> None:
    *shades, followed = traces(parallel_coordinates(searched(), {"layers": 1.0}))
    assert followed["name"] == "followed"
    lines: dict[int, list[float]] = {}
    for shade in shades:
        for y, number in zip(shade["y"], shade["customdata"], strict=True):
            if number is not None:
                lines.setdefault(number, []).append(y)
    # Layers, the only one with an importance; then units_1, units_2, and the accuracy.
    assert lines[0] == [0.0, 0.0, -0.12, 0.0]
    assert lines[1] == [0.0, 1.0, -0.12, 1.0]
    assert lines[2][:3] == [1.0, 1.0, 1.0]
    assert lines[2][3] == pytest.approx(0.5)
    of = {n: shade["line"]["color"] for shade in shades for n in shade["customdata"]}
    assert (of[0], of[1]) == ("var(--s0)", "var(--s7)")


def test_one_trial_or_one_configuration_has_no_parallel_coordinates_and_no_slices() -> None:
    one = searched()[:1]
    assert parallel_coordinates(one, {}) is None
    assert slices(one, {}) == []
    same = [make_trial(n, val_accuracy=0.5 + n / 10) for n in range(3)]
    assert parallel_coordinates(same, {}) is None


def test_slices_hold_each_trial_at_its_value() -> None:
    by_name = {chart.title: traces(chart) for chart in slices(searched(), {})}
    _, completed = by_name["units_2"]
    assert (completed["y"], completed["customdata"]) == ([0.8, 0.75], [2, 3])
    assert len(by_name["layers"][1]["x"]) == 4
    stopped, _ = traces(slices(searched(state=State.STOPPED), {})[0])
    assert len(stopped["x"]) == 4


def test_learning_rates_over_decades_are_drawn_by_their_logarithm() -> None:
    trials = [
        make_trial(n, config=TrialConfig(learning_rate=rate), val_accuracy=0.9)
        for n, rate in enumerate((1e-4, 1e-3, 1e-2))
    ]
    [chart] = slices(trials, {})
    assert chart.figure["layout"]["xaxis"]["type"] == "log"
    *shades, _ = traces(parallel_coordinates(trials, {}))
    heights = sorted(y for s in shades for x, y in zip(s["x"], s["y"], strict=True) if x == 0)
    assert heights == pytest.approx([0.0, 0.5, 1.0])


def test_a_share_that_once_came_near_zero_is_not_drawn_by_its_logarithm() -> None:
    trials = [
        make_trial(n, config=TrialConfig(dropout=rate), val_accuracy=0.9)
        for n, rate in enumerate((0.001, 0.1, 0.21, 0.3, 0.4))
    ]
    [chart] = slices(trials, {})
    assert "type" not in chart.figure["layout"]["xaxis"]


def test_there_are_no_more_slices_than_people_read() -> None:
    trials = [
        make_trial(n, config=TrialConfig(extra={f"p{i}": n for i in range(30)}), val_accuracy=0.5)
        for n in range(3)
    ]
    assert len(slices(trials, {})) == MOST_PARAMETERS


def test_a_confusion_matrix_has_its_counts_in_both_colourings() -> None:
    chart = confusion([[3, 1], [0, 2]], [BOLD, BOLD])
    [heat] = traces(chart)
    assert heat["z"] == heat["customdata"] == [[3, 1], [0, 2]]
    assert heat["text"] == [["3", "1"], ["", "2"]]
    assert heat["y"] == ["&lt;b&gt;bold&lt;/b&gt;", "&lt;b&gt;bold&lt;/b&gt; (2)"]
    (_, linear), (_, logarithmic) = chart.choices
    assert linear["z"] == [[[3, 1], [0, 2]]]
    assert logarithmic["z"][0][0] == pytest.approx([np.log10(4), np.log10(2)])
    assert "1 images off the diagonal" in chart.description


def test_many_classes_get_colours_without_counts() -> None:
    [heat] = traces(confusion(np.eye(50, dtype=int).tolist(), [str(n) for n in range(50)]))
    assert "text" not in heat


def test_the_reliability_diagram_shows_what_the_bins_hold() -> None:
    # Two images 90% sure and one of them right; two of 60%, both right.
    sure = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]], np.float32)
    chart = reliability_diagram(sure, np.array([0, 1, 0, 0], np.int32))
    bars, _, dots = traces(chart)
    assert bars["y"] == dots["y"] == [1.0, 0.5]
    assert dots["x"] == pytest.approx([0.6, 0.9])
    # (2 x 0.4 + 2 x 0.4) / 4
    assert "40.00%" in chart.description
