"""Two studies and a champion between them, all of it real, as a user types it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from search.data import load
from search.ledger import Ledger
from search.records import Champion, Phase
from search.registry import find_champion
from search.settings import TrackingSettings
from search.space import find_space, open_space
from search.study import _builds, _ChampionLookup
from search.tracking import connect
from spaces.config import TrialConfig
from tests.running import Finished, podium

SMALL = ["--trials", "3", "--max-epochs", "4", "--finalists", "1", "--confirm-seeds", "2"]


@dataclass(frozen=True)
class Succession:
    """A study, its promotion, and a second study with that champion in place."""

    folder: Path
    promoted: Finished
    second: Finished
    ledger: Ledger


@pytest.fixture(scope="module")
def succession(tmp_path_factory: pytest.TempPathFactory) -> Succession:
    folder = tmp_path_factory.mktemp("succession")
    (folder / "mlflow.yaml").write_text(
        "gates: {min_accuracy: 0.1, min_class_recall: 0.0, max_calibration_error: 1.0}\n"
    )
    first = podium("run", "--study", "first", *SMALL, folder=folder)
    assert first.code == 0, first.err
    promoted = podium("promote", "first", "--by", "a tester", folder=folder)
    assert promoted.code == 0, promoted.err
    second = podium("run", "--study", "second", "--seed", "5", *SMALL, folder=folder)
    assert second.code == 0, second.err
    return Succession(folder, promoted, second, Ledger(folder / "runs" / "ledger.db"))


@pytest.mark.slow
def test_the_champions_configuration_is_confirmed_and_its_model_tested(
    succession: Succession,
) -> None:
    first, second = (succession.ledger.study(name) for name in ("first", "second"))
    assert first is not None
    assert second is not None
    assert first.outcome is not None
    assert second.outcome is not None
    champion = second.outcome["champion"]
    assert (champion["name"], champion["version"]) == ("podium-digits", "1")
    assert champion["config_id"] == first.outcome["recommended"]
    assert (champion["same_test"], champion["compared"], champion["trouble"]) == (True, True, None)
    trials = succession.ledger.trials("second")
    confirmed = {t.config.config_id for t in trials if t.phase is Phase.CONFIRM}
    assert champion["config_id"] in confirmed
    [contest] = [c for c in second.outcome["verdict"]["contests"] if c["rival"] == "champion"]
    assert contest["name"] == "models:/podium-digits/1"
    # The champion's own model: its figure is that of its own verdict, to the last image.
    assert contest["tested"]["accuracy"] == first.outcome["verdict"]["tested"]["accuracy"]
    assert second.outcome["verdict"]["openings"] == 2
    assert "opened 2 times" in succession.second.out


@pytest.mark.slow
def test_a_promotion_can_be_taken_back_and_what_is_served_follows(succession: Succession) -> None:
    folder = succession.folder
    assert "version 1 is the champion" in succession.promoted.out
    second = podium("promote", "second", "--override", "a test", folder=folder)
    assert second.code == 0, second.err
    settings = TrackingSettings(tracking_uri=f"sqlite:///{folder}/runs/mlflow.db")
    champion = find_champion(connect(settings), "podium-digits")
    assert champion is not None
    assert (champion.version, champion.study) == ("2", "second")
    back = podium("rollback", "--reason", "a test", folder=folder)
    assert back.code == 0, back.err
    champion = find_champion(connect(settings), "podium-digits")
    assert champion is not None
    assert (champion.version, champion.study) == ("1", "first")
    images = load("digits", None, 0).training.images[:5]
    np.save(folder / "images.npy", images)
    answer = podium("predict", "podium-digits", "images.npy", "--format", "json", folder=folder)
    assert answer.code == 0, answer.err
    rows: list[dict[str, Any]] = json.loads(answer.out)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert "THE DRIVER IMPORTED TENSORFLOW" not in answer.out + back.out + second.out


# Which champion a study takes into account


def make_champion(**values: Any) -> Champion:
    fields: dict[str, Any] = {
        "name": "podium-digits",
        "version": "1",
        "study": "first",
        "config": TrialConfig(hidden=(8,)),
        "space": "mlp",
        "test_fingerprint": "f",
        "model": b"",
    }
    return Champion(**(fields | values))


OWN_BUILD = """
from spaces.config import TrialConfig
def suggest(trial): return TrialConfig()
def baseline(): return TrialConfig()
def build(config, input_shape, classes): ...
"""


def test_a_champions_network_is_built_only_by_the_space_that_built_it(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_BUILD)
    own = open_space(find_space(str(tmp_path / "own.py")))
    cnn = open_space(find_space("cnn"))
    assert _builds(cnn, make_champion(space="mlp"))
    assert not _builds(cnn, make_champion(space="own"))
    assert not _builds(own, make_champion(space="mlp"))
    assert _builds(own, make_champion(space=own.source.identity))


def test_a_space_that_is_called_alike_is_not_the_same_one(tmp_path: Path) -> None:
    (tmp_path / "cnn.py").write_text(OWN_BUILD)
    alike = open_space(find_space(str(tmp_path / "cnn.py")))
    builtin = open_space(find_space("cnn"))
    assert builtin.source.identity == "cnn"
    assert alike.source.identity != "cnn"
    assert not _builds(builtin, make_champion(space=alike.source.identity))
    (tmp_path / "cnn.py").write_text(OWN_BUILD + "# edited\n")
    edited = open_space(find_space(str(tmp_path / "cnn.py")))
    assert not _builds(edited, make_champion(space=alike.source.identity))


class Quiet:
    """A tracker that never reaches MLflow."""

    trouble = "connection refused"
    on_reached: Any = None


def make_lookup(tracker: Any, outcome: dict[str, Any] | None = None) -> _ChampionLookup:
    launch = SimpleNamespace(
        name="own",
        settings=SimpleNamespace(tracking=TrackingSettings()),
        data=SimpleNamespace(training=SimpleNamespace(name="digits")),
        space=open_space(find_space("mlp")),
    )
    return _ChampionLookup(launch, tracker, outcome or {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("study", "compared", "expected"),
    [
        ("own", {"version": "1"}, "1"),
        ("own", {"version": "3"}, None),
        ("own", None, None),
        ("other", {"version": "1"}, None),
    ],
)
def test_a_study_whose_own_model_is_the_champion_finds_what_that_was_compared_with(
    monkeypatch: pytest.MonkeyPatch,
    study: str,
    compared: dict[str, str] | None,
    expected: str | None,
) -> None:
    tracker = Quiet()
    lookup = make_lookup(tracker, {"champion": compared})
    known = make_champion(version="3", study=study)
    monkeypatch.setattr("search.study.find_champion", lambda *_: known)
    earlier = {"1": make_champion()}
    monkeypatch.setattr("search.study.read_champion", lambda _, __, version: earlier[version])
    tracker.on_reached(SimpleNamespace())
    found, trouble = lookup.result() or (None, "not yet")
    assert trouble == ""
    assert found is not None
    assert found.version == "3"
    assert (found.before.version if found.before else None) == expected


def test_a_study_goes_on_without_a_champion_where_mlflow_is_away() -> None:
    champion, trouble = make_lookup(Quiet()).result()
    assert champion is None
    assert "not known whether there is one" in trouble


def test_a_registry_that_fails_is_told_and_no_exception() -> None:
    tracker = Quiet()
    lookup = make_lookup(tracker)
    tracker.on_reached(SimpleNamespace())  # no client at all
    champion, trouble = lookup.result()
    assert champion is None
    assert "could not be looked up" in trouble


def test_a_study_waits_half_a_minute_for_a_champion_and_does_other_things_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tracker, clock = Quiet(), SimpleNamespace(now=1_000.0)
    monkeypatch.setattr("search.study.time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(tracker, "trouble", None)
    slow, answered = make_lookup(tracker), make_lookup(tracker)
    assert slow.result() is None
    clock.now += 29.9
    assert slow.result() is None
    clock.now += 0.1
    assert slow.result() == (
        None,
        "MLflow was not reached, so that it is not known whether there is one",
    )
    assert answered.result() is None
    monkeypatch.setattr("search.study.find_champion", lambda *_: None)
    tracker.on_reached(SimpleNamespace())
    assert answered.result() == (None, "")
