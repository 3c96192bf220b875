"""Gates: what holds, what does not, and that nothing unknown ever does."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest

from search.gates import Gate, judge_gates
from search.inference import paired_proportions
from search.loading import Reload
from search.records import StudyVersion
from search.settings import GateSettings

SAME = Reload(True, 1e-7)
OUTCOME: dict[str, Any] = {
    "verdict": {
        "tested": {
            "accuracy": {"value": 0.95, "low": 0.93, "high": 0.97},
            "measures": {"calibration_error": 0.02},
            "recalls": [
                {"value": 0.99, "low": 0.95, "high": 1.0},
                {"value": 0.91, "low": 0.85, "high": 0.95},
            ],
        },
        "contests": [
            {"rival": "baseline", "only_recommended_right": 900, "only_rival_right": 0},
            {"rival": "champion", "only_recommended_right": 10, "only_rival_right": 4},
        ],
        "images": 1000,
    },
    "costs": {"file_bytes": 2_000_000, "single": {"median_ms": 3.0}, "batch": {"median_ms": 9.0}},
    "champion": {
        "name": "podium-x",
        "version": "3",
        "study": "earlier",
        "same_test": True,
        "compared": True,
        "trouble": None,
    },
}


def judged(
    outcome: dict[str, Any] = OUTCOME,
    champion: str | None = "3",
    reload: Reload | None = SAME,
    **limits: Any,
) -> dict[str, Gate]:
    reigning = StudyVersion("podium-x", champion, "earlier") if champion else None
    gates = judge_gates(outcome, GateSettings(**limits), reigning, reload, ("cat", "dog"))
    assert [gate.name for gate in gates] == list(GateSettings.model_fields)
    return {gate.name: gate for gate in gates}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    outcome = copy.deepcopy(OUTCOME)
    place: Any = outcome
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return outcome


def test_a_good_model_passes_all_gates_with_the_values_that_were_measured() -> None:
    gates = judged()
    assert [g.name for g in gates.values() if not g.holds] == []
    assert gates["min_accuracy"].value == 0.93  # the lower end, not the accuracy
    assert gates["min_class_recall"].value == 0.91  # the worst class
    assert gates["max_calibration_error"].value == 0.02
    assert gates["max_size_mb"].value == 2.0
    assert gates["max_latency_ms"].value == 3.0  # one image, not the batch
    assert gates["reproducible_load"].value == 1e-7
    assert gates["non_inferiority_margin"].limit == -0.02


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"min_accuracy": 0.931}, "min_accuracy"),
        ({"min_class_recall": 0.92}, "min_class_recall"),
        ({"max_calibration_error": 0.019}, "max_calibration_error"),
        ({"max_size_mb": 1.99}, "max_size_mb"),
        ({"max_latency_ms": 2.9}, "max_latency_ms"),
        ({"non_inferiority_margin": 0.0}, "non_inferiority_margin"),
    ],
)
def test_each_limit_is_that_of_its_own_gate(limits: dict[str, Any], name: str) -> None:
    gates = judged(**limits)
    assert [gate.name for gate in gates.values() if not gate.holds] == [name]
    assert abs(gates[name].limit or 0.0) == next(iter(limits.values()))


def test_a_value_at_its_limit_holds() -> None:
    gates = judged(
        min_accuracy=0.93,
        min_class_recall=0.91,
        max_calibration_error=0.02,
        max_size_mb=2.0,
        max_latency_ms=3.0,
    )
    assert all(gate.holds for gate in gates.values())


@pytest.mark.parametrize("nothing", [None, math.nan, "0.99", True])
def test_what_is_not_known_never_holds(nothing: object) -> None:
    for path, name in (
        (("verdict", "tested", "accuracy", "low"), "min_accuracy"),
        (("verdict", "tested", "measures", "calibration_error"), "max_calibration_error"),
        (("verdict", "tested", "recalls", 0, "value"), "min_class_recall"),
        (("verdict", "contests", 1, "only_rival_right"), "non_inferiority_margin"),
        (("verdict", "images"), "non_inferiority_margin"),
        (("costs", "file_bytes"), "max_size_mb"),
        (("costs", "single", "median_ms"), "max_latency_ms"),
    ):
        gates = judged(changed(*path, to=nothing))
        assert [gate.name for gate in gates.values() if not gate.holds] == [name], path
        assert gates[name].value is None


def test_an_outcome_without_anything_in_it_passes_no_gate_but_that_of_no_champion() -> None:
    gates = judged({}, champion=None, reload=None)
    assert [gate.name for gate in gates.values() if gate.holds] == ["non_inferiority_margin"]
    assert judged(changed("costs", to=None))["max_size_mb"].holds is False
    assert judged(changed("verdict", "tested", "recalls", to=[]))["min_class_recall"].holds is False


def test_the_class_that_is_worst_or_not_known_is_named() -> None:
    assert "dog" in judged()["min_class_recall"].sentence
    unknown = judged(changed("verdict", "tested", "recalls", 0, "value", to=None))
    assert "cat" in unknown["min_class_recall"].sentence
    assert "not known" in unknown["min_class_recall"].sentence


def test_what_is_not_asked_for_is_listed_and_holds() -> None:
    limits: dict[str, Any] = dict.fromkeys(GateSettings.model_fields)
    gates = judged({}, champion="3", reload=None, **{**limits, "reproducible_load": False})
    assert all(gate.holds and gate.limit is None for gate in gates.values())
    assert all("Not asked" in gate.sentence for gate in gates.values())
    assert judged(reload=None, reproducible_load=None)["reproducible_load"].holds


@pytest.mark.parametrize(
    ("outcome", "champion", "said"),
    [
        (changed("champion", to=None), "3", "after the study"),
        ({**OUTCOME, "champion": None, "champion_note": ""}, "3", "after the study"),
        (
            {**OUTCOME, "champion": None, "champion_note": "no MLflow."},
            "3",
            "version 3: no MLflow.",
        ),
        ({**OUTCOME, "champion_note": "its model is gone"}, "3", "version 3: its model is gone."),
        (OUTCOME, "4", "compared with models:/podium-x/3, and the champion has changed since"),
        (changed("champion", "name", to="podium-y"), "3", "compared with models:/podium-y/3"),
        (changed("champion", "study", to="b"), "3", "models:/podium-x/3 of study b"),
        (changed("champion", "same_test", to=False), "3", "another test split"),
        (changed("champion", "compared", to=False), "3", "could not use it"),
        (
            {**OUTCOME, "champion": {**OUTCOME["champion"], "compared": False, "trouble": "gone."}},
            "3",
            "version 3: gone.",
        ),
        (changed("verdict", "contests", to=[]), "3", "no comparison"),
    ],
)
def test_a_champion_that_was_not_compared_with_keeps_its_place(
    outcome: dict[str, Any], champion: str, said: str
) -> None:
    gates = judged(outcome, champion)
    assert [gate.name for gate in gates.values() if not gate.holds] == ["non_inferiority_margin"]
    gate = gates["non_inferiority_margin"]
    assert said in gate.sentence
    assert gate.value is None


def test_without_a_champion_there_is_nothing_to_be_inferior_to() -> None:
    gate = judged(champion=None)["non_inferiority_margin"]
    assert gate.holds
    assert "no champion yet" in gate.sentence
    unreached = judged({**OUTCOME, "champion_note": "no MLflow"}, champion=None)
    assert unreached["non_inferiority_margin"].holds  # the registry, asked now, has none


def test_the_interval_is_that_of_bonett_and_price() -> None:
    # By hand: p12 = 11/102, p21 = 5/102, their difference 0.0588235, its variance
    # (16/102 - 0.0588235^2) / 102 = 0.00150395, and 1.644854 * sqrt(0.00150395) = 0.0637887.
    assert paired_proportions(10, 4, 100, 0.90).low == pytest.approx(-0.0049652, abs=1e-6)
    assert paired_proportions(0, 0, 100, 0.90).low < 0
    assert paired_proportions(4, 10, 100, 0.90).low == pytest.approx(
        -0.0588235 - 0.0637887, abs=1e-6
    )


def test_the_interval_covers_the_truth_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    first, second, images = 0.06, 0.03, 400
    counts = rng.multinomial(images, [first, second, 1 - first - second], size=4000)
    lows = [paired_proportions(int(a), int(b), images, 0.90).low for a, b, _ in counts]
    covered = float(np.mean(np.array(lows) <= first - second))
    assert 0.935 < covered < 0.97


def test_the_margin_is_judged_by_the_lower_end_and_not_by_the_difference() -> None:
    # 10 against 4 of 1,000: better by 0.6 points, and with 95% confidence not worse by 0.03.
    gate = judged(non_inferiority_margin=0.001)["non_inferiority_margin"]
    assert gate.value == pytest.approx(paired_proportions(10, 4, 1000, 0.90).low)
    assert gate.value is not None
    assert -0.001 < gate.value < 0
    assert gate.holds
    few = changed("verdict", "images", to=100)
    assert judged(few, non_inferiority_margin=0.004)["non_inferiority_margin"].holds is False
    assert judged(few, non_inferiority_margin=0.005)["non_inferiority_margin"].holds is True


@pytest.mark.parametrize(
    ("reload", "holds", "said"),
    [
        (Reload(True, 0.0), True, "the same"),
        (Reload(True, 1e-5), True, "the same"),
        (Reload(True, 1.1e-5), False, "other"),
        (Reload(True, math.nan), False, "no numbers"),
        (Reload(True, math.inf, "it gives (2, 3)"), False, "(2, 3)"),
        (Reload(True, None, "no reference"), False, "no reference"),
        (Reload(False, None, "ValueError: x"), False, "ValueError: x"),
        (None, False, "not tried"),
    ],
)
def test_a_reproducible_load_is_one_that_predicts_the_same(
    reload: Reload | None, holds: bool, said: str
) -> None:
    gate = judged(reload=reload)["reproducible_load"]
    assert gate.holds is holds
    assert said in gate.sentence
    json.dumps(gate.value, allow_nan=False)
