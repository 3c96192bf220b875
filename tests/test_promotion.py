"""Promotion and rollback on a real registry, interrupted between any two of its calls."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import mlflow
import pytest

from search.delivery import make_tracker, register_model
from search.folder import find_study
from search.gates import Gate
from search.journal import TAG, Entry, carry_out, next_entry, read_standing
from search.ledger import Ledger, StudyRecord
from search.loading import Reload
from search.promotion import (
    Change,
    Order,
    Proposal,
    find_unnamed,
    promote,
    propose,
    rollback,
)
from search.records import ConfigError, PromotionRefused, State, TrackingError
from search.registry import CHAMPION, MODEL_FILE, PREVIOUS, find_model, unpack
from search.settings import GateSettings
from tests import unsynced
from tests.stores import hand_made_model, new_store, registered_state, restore, snapshot, zipped

NOTHING_ASKED = GateSettings(
    min_accuracy=None,
    non_inferiority_margin=None,
    min_class_recall=None,
    max_calibration_error=None,
    max_size_mb=None,
    max_latency_ms=None,
    reproducible_load=False,
)
STRICT = NOTHING_ASKED.model_copy(update={"min_accuracy": 0.99, "max_size_mb": 1.0})
ORDER = Order("alice", "2026-01-02T03:04:05+00:00", "it is better")
LATER = Order("bob", "2026-02-03T04:05:06+00:00", "it was slow")
FORCED = replace(ORDER, override="agreed with the owner")


class Broken(Exception):
    """The connection went away."""


class Faulty:
    """A client whose connection breaks right after its n-th call; after none of them for 0.

    What the n-th call asked for is done, but its answer is lost. To the registry this is the same
    as a process that ends before its next call.
    """

    def __init__(self, client: Any, at: int, *, changes_only: bool = False) -> None:
        self._client, self._at, self._changes_only = client, at, changes_only
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        counts = not (self._changes_only and name.startswith("get_"))

        def call(*args: Any, **kwargs: Any) -> Any:
            if self._at == 0:
                raise Broken
            result = method(*args, **kwargs)
            self.calls += counts
            if counts and self.calls == self._at:
                raise Broken
            return result

        return call


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> mlflow.MlflowClient:
    return new_store(tmp_path_factory.mktemp("store"))


names = map("model-{}".format, itertools.count())


def registered(client: mlflow.MlflowClient, versions: int = 3) -> str:
    """The name of a new registered model with so many versions."""
    name = next(names)
    client.create_registered_model(name)
    for number in range(1, versions + 1):
        client.create_model_version(name, "somewhere", description=f"Verdict {number}.")
    return name


def proposed(name: str, version: str, **outcome: Any) -> Proposal:
    return Proposal(f"study-{version}", name, version, outcome, (), f"report-{version}")


def loads(_: str) -> Reload:
    return Reload(True, 0.0)


def promoted(
    client: Any,
    name: str,
    version: str,
    order: Order = ORDER,
    settings: GateSettings = NOTHING_ASKED,
    shown: list[Gate] | None = None,
) -> Change:
    def show(gates: Sequence[Gate]) -> None:
        if shown is not None:
            shown.extend(gates)

    return promote(client, proposed(name, version), settings, loads, order, show)


def rolled_back(client: Any, name: str, to: str | None = None, order: Order = LATER) -> Change:
    return rollback(client, name, to, loads, order)


def aliases(client: mlflow.MlflowClient, name: str) -> tuple[str | None, str | None]:
    found = registered_state(client, name)["aliases"]
    return found.get(CHAMPION), found.get(PREVIOUS)


def journal(client: mlflow.MlflowClient, name: str) -> list[Entry]:
    standing = read_standing(client, name)
    assert standing is not None
    return list(standing.entries)


# What they do


def test_a_promotion_moves_the_aliases_and_says_who_when_why_study_and_report(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    assert promoted(client, name, "1").is_new
    assert aliases(client, name) == ("1", None)
    change = promoted(client, name, "2")
    assert change.is_new
    assert "version 2 is the champion; before it was version 1" in change.sentence
    assert aliases(client, name) == ("2", "1")
    tags, description, _ = registered_state(client, name)["versions"]["2"]
    assert tags == {
        "podium.study": "study-2",
        "podium.report": "report-2",
        "podium.promoted_by": "alice",
        "podium.promoted_at": ORDER.when,
        "podium.promoted_why": "it is better",
        "podium.override": "none",
    }
    assert description.startswith("Verdict 2.\n\nChampion since 2026-01-02T03:04:05+00:00")
    for word in ("alice", "it is better", "study-2", "report-2"):
        assert word in description
    first, second = journal(client, name)
    assert (first.version, first.from_version, first.previous_before) == ("1", None, None)
    assert (second.version, second.from_version, second.previous_before) == ("2", "1", None)
    assert first.done
    assert second.done


def test_promoting_the_champion_again_changes_nothing(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "2")
    before = registered_state(client, name)
    change = promoted(client, name, "2", LATER, STRICT)
    assert not change.is_new
    assert "is the champion already" in change.sentence
    assert registered_state(client, name) == before


def test_a_refusal_shows_every_gate_and_changes_nothing(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    before = registered_state(client, name)
    shown: list[Gate] = []
    with pytest.raises(PromotionRefused, match="2 gates do not hold") as refused:
        promoted(client, name, "2", settings=STRICT, shown=shown)
    assert refused.value.exit_code == 4
    assert "min_accuracy" in str(refused.value)
    assert "max_size_mb" in str(refused.value)
    assert [gate.name for gate in shown] == list(GateSettings.model_fields)
    assert registered_state(client, name) == before


def test_a_refusal_leaves_even_an_interrupted_promotion_as_it_is(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    interrupt_after(client, name, 2, promotion("2"))
    before = registered_state(client, name)
    with pytest.raises(PromotionRefused):
        promoted(client, name, "3", settings=STRICT)
    assert registered_state(client, name) == before


def test_an_override_promotes_and_records_why_and_what_did_not_hold(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    change = promoted(client, name, "1", FORCED, STRICT)
    assert aliases(client, name) == ("1", None)
    assert change.entry is not None
    assert change.entry.failed_gates == ("min_accuracy", "max_size_mb")
    [entry] = journal(client, name)
    assert entry.failed_gates == ("min_accuracy", "max_size_mb")
    assert entry.override == "agreed with the owner"
    tags, description, _ = registered_state(client, name)["versions"]["1"]
    assert tags["podium.override"] == "agreed with the owner"
    assert "min_accuracy, max_size_mb" in description


def test_an_override_that_was_not_needed_is_not_recorded(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1", FORCED)
    assert journal(client, name)[0].override == ""
    assert registered_state(client, name)["versions"]["1"][0]["podium.override"] == "none"


def test_the_gates_get_what_came_of_loading_the_registered_version(
    client: mlflow.MlflowClient,
) -> None:
    name, loaded = registered(client), []
    settings = NOTHING_ASKED.model_copy(update={"reproducible_load": True})

    def check(uri: str) -> Reload:
        loaded.append(uri)
        return Reload(True, 0.5)

    with pytest.raises(PromotionRefused, match="reproducible_load"):
        promote(client, proposed(name, "2"), settings, check, ORDER, lambda _: None)
    assert loaded == [f"models:/{name}/2"]
    assert aliases(client, name) == (None, None)


def test_a_promotion_is_judged_against_the_champion_of_now(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    settings = NOTHING_ASKED.model_copy(update={"non_inferiority_margin": 0.5})
    rival = {"version": "1", "same_test": True, "compared": True}
    contest = {"rival": "champion", "only_recommended_right": 9, "only_rival_right": 1}
    verdict = {"images": 500, "contests": [contest]}
    proposal = proposed(name, "2", champion=rival, verdict=verdict)
    promote(client, proposal, settings, loads, ORDER, lambda _: None)
    stale = proposed(name, "3", champion=rival, verdict=verdict)
    with pytest.raises(PromotionRefused, match="the champion has changed since"):
        promote(client, stale, settings, loads, ORDER, lambda _: None)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"podium.study": "other"}, "is the model of study other, trial None, not of study s"),
        ({"podium.study": "s", "podium.trial": "9"}, "study s, trial 9, not of study s, trial 7"),
    ],
)
def test_a_version_of_another_study_or_trial_is_not_promoted(
    client: mlflow.MlflowClient, tags: dict[str, str], said: str
) -> None:
    """A store that was made anew gives its numbers to other models."""
    name = registered(client)
    for key, value in tags.items():
        client.set_model_version_tag(name, "1", key, value)
    proposal = replace(proposed(name, "1", trial=7), study="s")
    with pytest.raises(ConfigError, match=said) as refused:
        promote(client, proposal, NOTHING_ASKED, loads, ORDER, lambda _: None)
    assert "`podium sync s` registers it" in str(refused.value)
    assert find_model(client, name).aliases == {}
    client.set_model_version_tag(name, "1", "podium.study", "s")
    client.set_model_version_tag(name, "1", "podium.trial", "7")
    promote(client, proposal, NOTHING_ASKED, loads, ORDER, lambda _: None)
    assert find_model(client, name).aliases == {CHAMPION: 1}


def test_a_version_that_was_deleted_is_not_promoted(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    with pytest.raises(ConfigError, match="was deleted"):
        promoted(client, name, "9")
    with pytest.raises(ConfigError, match="No registered model 'nothing'"):
        promoted(client, "nothing", "1")


def test_a_rollback_lets_champion_and_previous_champion_change_places(
    client: mlflow.MlflowClient,
) -> None:
    name, loaded = registered(client), []
    promoted(client, name, "1")
    promoted(client, name, "2")

    def check(uri: str) -> Reload:
        loaded.append((uri, aliases(client, name)))
        return Reload(True, 0.0)

    change = rollback(client, name, None, check, LATER)
    assert change.is_new
    assert loaded == [(f"models:/{name}/1", ("2", "1"))]  # before anything was changed
    assert aliases(client, name) == ("1", "2")
    entry = journal(client, name)[-1]
    assert (entry.action, entry.version, entry.from_version) == ("rollback", "1", "2")
    assert (entry.who, entry.why, entry.done) == ("bob", "it was slow", True)
    versions = registered_state(client, name)["versions"]
    assert "Champion again since 2026-02-03T04:05:06+00:00" in versions["1"][1]
    assert "it was slow" in versions["2"][1]
    assert versions["2"][0]["podium.rolled_back_by"] == "bob"


def test_a_second_rollback_right_after_changes_nothing(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    rolled_back(client, name)
    before = registered_state(client, name)
    change = rolled_back(client, name, order=ORDER)
    assert not change.is_new
    assert "rolled back already" in change.sentence
    assert registered_state(client, name) == before


def test_a_promotion_after_a_rollback_can_be_rolled_back_again(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    for version in ("1", "2"):
        promoted(client, name, version)
    rolled_back(client, name)
    promoted(client, name, "3")
    assert aliases(client, name) == ("3", "1")
    assert rolled_back(client, name).is_new
    assert aliases(client, name) == ("1", "3")
    assert [entry.number for entry in journal(client, name)] == [1, 2, 3, 4, 5]


def test_to_goes_back_to_any_earlier_champion_and_to_no_other_version(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client, 4)
    for version in ("1", "2", "3"):
        promoted(client, name, version)
    rolled_back(client, name, "1")
    assert aliases(client, name) == ("1", "3")
    before = registered_state(client, name)
    assert not rolled_back(client, name, "1").is_new
    with pytest.raises(PromotionRefused, match="version 4 was never the champion"):
        rolled_back(client, name, "4")
    with pytest.raises(ConfigError, match="no version '9'"):
        rolled_back(client, name, "9")
    with pytest.raises(ConfigError, match="no version 'one'"):
        rolled_back(client, name, "one")
    assert registered_state(client, name) == before


def test_there_is_nothing_to_go_back_to_from_the_first_champion(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    with pytest.raises(PromotionRefused, match="has no champion"):
        rolled_back(client, name)
    promoted(client, name, "1")
    before = registered_state(client, name)
    with pytest.raises(PromotionRefused, match="nothing to go back to") as refused:
        rolled_back(client, name)
    assert refused.value.exit_code == 4
    assert registered_state(client, name) == before


@pytest.mark.parametrize(
    "reload",
    [Reload(False, None, "the file is gone"), Reload(True, 0.2), Reload(True, float("nan"))],
)
def test_a_rollback_to_what_does_not_load_or_predict_as_it_did_is_refused(
    client: mlflow.MlflowClient, reload: Reload
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    before = registered_state(client, name)
    with pytest.raises(PromotionRefused, match="does not load and predict as it did"):
        rollback(client, name, None, lambda _: reload, LATER)
    assert registered_state(client, name) == before


def test_a_rollback_to_a_version_without_a_reference_needs_it_to_load_only(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    rollback(client, name, None, lambda _: Reload(True, None, "no reference"), LATER)
    assert aliases(client, name) == ("1", "2")


def test_a_champion_that_was_set_by_hand_can_be_rolled_back(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    rolled_back(client, name)
    client.set_registered_model_alias(name, CHAMPION, "3")
    assert rolled_back(client, name).is_new  # not "rolled back already"
    assert aliases(client, name) == ("2", "3")


def test_without_a_champion_before_there_is_no_previous_champion(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    client.delete_registered_model_alias(name, CHAMPION)
    promoted(client, name, "3")
    assert aliases(client, name) == ("3", None)
    with pytest.raises(PromotionRefused, match="nothing to go back to"):
        rolled_back(client, name)
    assert rolled_back(client, name, "1").is_new  # which is asked for by its number


def test_what_says_that_a_version_was_rolled_back_goes_when_it_is_champion_again(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    rolled_back(client, name)
    promoted(client, name, "2")
    assert not marks_of_a_rollback(client, name, "2")
    rolled_back(client, name)
    assert len(marks_of_a_rollback(client, name, "2")) == 3
    promoted(client, name, "3")
    rolled_back(client, name, "2")
    assert not marks_of_a_rollback(client, name, "2")
    assert len(marks_of_a_rollback(client, name, "3")) == 3


def marks_of_a_rollback(client: mlflow.MlflowClient, name: str, version: str) -> list[str]:
    tags = registered_state(client, name)["versions"][version][0]
    return [key for key in tags if key.startswith("podium.rolled_back_")]


# Two at once


def by_another(client: mlflow.MlflowClient, name: str) -> None:
    promoted(client, name, "3", replace(ORDER, who="bob"))


def by_hand(client: mlflow.MlflowClient, name: str) -> None:
    client.set_registered_model_alias(name, CHAMPION, "3")


def begun(client: mlflow.MlflowClient, name: str) -> None:
    interrupt_after(client, name, 1, promotion("3", replace(ORDER, who="bob")))


MEANWHILE: dict[Callable[[Any, str], None], str] = {
    by_another: "bob .* version 3",
    by_hand: "by hand; the champion is version 3",
    begun: "bob began .* version 3",
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("order", [ORDER, FORCED])
def test_a_champion_that_changes_while_a_version_is_loaded_is_not_overwritten(
    client: mlflow.MlflowClient, meanwhile: Callable[[Any, str], None], order: Order
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    seen: list[dict[str, Any]] = []

    def check(_: str) -> Reload:
        meanwhile(client, name)
        seen.append(registered_state(client, name))
        return Reload(True, 0.0)

    settings = NOTHING_ASKED.model_copy(update={"reproducible_load": True})
    with pytest.raises(PromotionRefused, match=MEANWHILE[meanwhile]):
        promote(client, proposed(name, "2"), settings, check, order, lambda _: None)
    assert [registered_state(client, name)] == seen
    promoted(client, name, "2")
    assert aliases(client, name) == ("2", "1" if meanwhile is begun else "3")


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_a_champion_that_changes_before_a_rollback_stays(
    client: mlflow.MlflowClient, meanwhile: Callable[[Any, str], None]
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    seen: list[dict[str, Any]] = []

    def check(_: str) -> Reload:
        meanwhile(client, name)
        seen.append(registered_state(client, name))
        return Reload(True, 0.0)

    with pytest.raises(PromotionRefused, match=MEANWHILE[meanwhile]):
        rollback(client, name, None, check, LATER)
    assert [registered_state(client, name)] == seen


def test_a_version_that_is_deleted_while_it_is_loaded_is_not_written_down(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")

    def check(_: str) -> Reload:
        client.delete_model_version(name, "1")
        return Reload(True, 0.0)

    with pytest.raises(ConfigError, match="version 1 was deleted"):
        rollback(client, name, None, check, LATER)
    assert len(journal(client, name)) == 2


class Overtaken:
    """A client whose n-th tag of a registered model someone else writes over at once."""

    def __init__(self, client: Any, entry: Entry, at: int) -> None:
        self._client, self._entry, self._at = client, entry, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._client.set_registered_model_tag(name, key, value)
        self._at -= 1
        if self._at == 0:
            text = {k: v for k, v in asdict(self._entry).items() if k != "number"}
            self._client.set_registered_model_tag(name, key, json.dumps(text))


def test_an_entry_that_another_one_took_the_place_of_is_not_carried_out(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    other = Entry(2, "promote", "3", "1", None, who="bob", when=LATER.when, why="faster")
    with pytest.raises(PromotionRefused, match="bob began a promote to version 3"):
        promoted(Overtaken(client, other, 1), name, "2")
    assert aliases(client, name) == ("1", None)
    assert journal(client, name)[1:] == [other]


def test_the_entry_of_another_one_is_not_marked_as_done(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    other = Entry(2, "promote", "3", "1", None, who="bob", when=LATER.when, why="faster")

    class Late(Overtaken):
        def update_model_version(self, name: str, version: str, description: str) -> None:
            text = {k: v for k, v in asdict(other).items() if k != "number"}
            client.set_registered_model_tag(name, f"{TAG}0002", json.dumps(text))

    with pytest.raises(PromotionRefused, match="bob began a promote to version 3"):
        promoted(Late(client, other, 0), name, "2")
    assert journal(client, name)[1:] == [other]


# Interrupted


Operation = Callable[[Any, str], Change]


def promotion(version: str, order: Order = ORDER, asked: GateSettings = NOTHING_ASKED) -> Operation:
    return lambda client, name: promoted(client, name, version, order, asked)


def interrupt_after(client: Any, name: str, changes: int, operation: Operation) -> None:
    """Breaks the operation off after its n-th call that changes something."""
    with pytest.raises(Broken):
        operation(Faulty(client, changes, changes_only=True), name)


SCENARIOS: dict[str, tuple[list[Operation], Operation]] = {
    "first promotion": ([], promotion("1")),
    "second promotion": ([promotion("1")], promotion("2")),
    "promotion with override": ([promotion("1")], promotion("2", FORCED, STRICT)),
    "rollback": ([promotion("1"), promotion("2")], rolled_back),
    "rollback further": (
        [promotion("1"), promotion("2"), promotion("3")],
        lambda client, name: rolled_back(client, name, "1"),
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_interrupted_at_any_call_and_run_again_it_ends_as_if_undisturbed(
    client: mlflow.MlflowClient, scenario: str
) -> None:
    prepare, operation = SCENARIOS[scenario]
    name = registered(client)
    for step in prepare:
        step(client, name)
    prepared = snapshot(client)
    counted = Faulty(client, at=-1)
    operation(counted, name)
    wanted = registered_state(client, name)
    assert counted.calls >= 10
    for k in range(counted.calls + 1):
        restore(client, prepared)
        with pytest.raises(Broken):
            operation(Faulty(client, at=k), name)
        # And once more on the way to recovery, where that has as many calls.
        with contextlib.suppress(Broken):
            operation(Faulty(client, at=k), name)
        operation(client, name)
        assert registered_state(client, name) == wanted, (
            f"interrupted after call {k} of {counted.calls}"
        )


@pytest.mark.parametrize("calls", [1, 2])
def test_a_promotion_that_came_to_nothing_is_taken_back_by_the_next_one(
    client: mlflow.MlflowClient, calls: int
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    promoted(client, name, "2")
    interrupt_after(client, name, calls, promotion("3"))
    assert aliases(client, name)[0] == "2"
    change = rolled_back(client, name)  # of the promotion of 2, because 3 never was the champion
    assert change.is_new
    assert aliases(client, name) == ("1", "2")
    assert [entry.state for entry in journal(client, name)] == [
        *("done", "done", "abandoned", "done")
    ]


@pytest.mark.parametrize("calls", range(3, 8))
def test_a_promotion_that_moved_the_champion_is_finished_by_the_next_command(
    client: mlflow.MlflowClient, calls: int
) -> None:
    name, plain = registered(client), registered(client)
    for model in (name, plain):
        promoted(client, model, "1")
    interrupt_after(client, name, calls, promotion("2"))
    promoted(client, plain, "2")
    for model in (name, plain):
        promoted(client, model, "3", LATER)
    assert registered_state(client, name) == registered_state(client, plain)


def test_an_interrupted_promotion_keeps_who_began_it_and_when(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    interrupt_after(client, name, 2, promotion("1"))
    change = promoted(client, name, "1", LATER, STRICT)  # the gates held when it was begun
    assert "begun at 2026-01-02T03:04:05+00:00 by alice" in change.sentence
    [entry] = journal(client, name)
    assert (entry.who, entry.when, entry.done) == (ORDER.who, ORDER.when, True)


@pytest.mark.parametrize("calls", range(1, 11))
def test_a_version_that_was_deleted_does_not_block_what_was_interrupted(
    client: mlflow.MlflowClient, calls: int
) -> None:
    name = registered(client, 4)
    promoted(client, name, "1")
    interrupt_after(client, name, calls, promotion("2"))
    client.delete_model_version(name, "1")
    promoted(client, name, "2", LATER)
    assert aliases(client, name) == ("2", None)
    assert promoted(client, name, "3", LATER).is_new
    assert aliases(client, name) == ("3", "2")
    assert not [entry for entry in journal(client, name) if entry.is_open]


@pytest.mark.parametrize("calls", range(1, 8))
@pytest.mark.parametrize("gone", ["1", "2", "3"])
def test_after_any_deletion_a_rollback_that_was_interrupted_is_ended(
    client: mlflow.MlflowClient, calls: int, gone: str
) -> None:
    name = registered(client, 4)
    for version in ("1", "2", "3"):
        promoted(client, name, version)
    interrupt_after(client, name, calls, rolled_back)  # to 2
    client.delete_model_version(name, gone)
    with contextlib.suppress(PromotionRefused):
        rolled_back(client, name)
    promoted(client, name, "4")
    assert aliases(client, name)[0] == "4"
    assert not [entry for entry in journal(client, name) if entry.is_open]


def test_a_rollback_is_not_resumed_towards_a_version_that_was_deleted(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    for version in ("1", "2", "3"):
        promoted(client, name, version)
    interrupt_after(client, name, 1, rolled_back)
    client.delete_model_version(name, "2")
    with pytest.raises(PromotionRefused, match="nothing to go back to"):
        rolled_back(client, name)
    assert aliases(client, name)[0] == "3"
    assert journal(client, name)[-1].abandoned


def test_an_interrupted_promotion_is_judged_anew_where_the_champion_moved_since(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client)
    promoted(client, name, "1")
    interrupt_after(client, name, 1, promotion("2"))
    client.set_registered_model_alias(name, CHAMPION, "3")
    with pytest.raises(PromotionRefused):
        promoted(client, name, "2", LATER, STRICT)
    promoted(client, name, "2", LATER)
    assert aliases(client, name) == ("2", "3")
    assert [entry.state for entry in journal(client, name)] == ["done", "abandoned", "done"]


def test_a_rollback_that_came_to_nothing_gives_the_previous_champion_back(
    client: mlflow.MlflowClient,
) -> None:
    name = registered(client, 4)
    for version in ("1", "2", "3"):
        promoted(client, name, version)
    interrupt_after(client, name, 2, lambda c, n: rolled_back(c, n, "1"))
    assert aliases(client, name) == ("3", "3")
    with_mistake = read_standing(client, name)
    assert with_mistake is not None
    assert with_mistake.open_entry is not None
    rolled_back(client, name, "2")
    assert aliases(client, name) == ("2", "3")
    assert [entry.state for entry in journal(client, name)][3:] == ["abandoned", "done"]


def test_a_damaged_journal_is_an_error_that_names_the_tag(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    client.set_registered_model_tag(name, f"{TAG}0001", "{}")
    with pytest.raises(TrackingError, match=r"podium\.journal\.0001"):
        promoted(client, name, "1")


def test_an_entry_of_a_later_version_of_podium_can_be_read(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    promoted(client, name, "1")
    key = f"{TAG}0001"
    text = client.get_registered_model(name).tags[key]
    client.set_registered_model_tag(name, key, json.dumps(json.loads(text) | {"more": 1}))
    assert journal(client, name)[0].version == "1"


def test_whatever_is_written_fits_the_tables_of_mlflow(client: mlflow.MlflowClient) -> None:
    name = registered(client)
    client.update_model_version(name, "1", "x" * 4990)
    wordy = Order('"' * 100, ORDER.when, '"' * 500, override='"' * 500)
    promoted(client, name, "1", wordy, STRICT)
    assert len(client.get_registered_model(name).tags[f"{TAG}0001"]) <= 5000
    assert len(client.get_model_version(name, "1").description) <= 5000
    standing = read_standing(client, name)
    assert standing is not None
    for step in range(30):
        entry = next_entry(standing, "promote", "1", who="a", when=str(step), why='"' * 500)
        carry_out(client, name, entry)
    description = client.get_model_version(name, "1").description
    assert len(description) <= 5000
    assert description.startswith("xxx")
    assert "Champion since 29:" in description


# What is asked


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"who": " "}, "--by is empty"),
        ({"why": ""}, "--reason is empty"),
        ({"override": "  "}, "--override is empty"),
        ({"why": "x" * 501}, "at most 500"),
        ({"who": "x" * 101}, "at most 100"),
        ({"why": "two\nlines"}, "one line"),
    ],
)
def test_an_order_that_cannot_be_kept_is_refused(fields: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(ORDER, **fields)


def record(**values: Any) -> StudyRecord:
    fields: dict[str, Any] = {
        "name": "s",
        "settings": {},
        "facts": {"class_names": ["a", "b"]},
        "state": State.COMPLETED,
        "reason": None,
        "started_ms": 0,
        "ended_ms": 1,
        "outcome": {"verdict": {}, "model": "models:/podium-digits/12"},
        "run_id": None,
    }
    return StudyRecord(**(fields | values))


def test_a_proposal_is_what_the_study_registered() -> None:
    proposal = propose(record())
    assert (proposal.name, proposal.version) == ("podium-digits", "12")
    assert proposal.classes == ("a", "b")
    assert proposal.report == str(Path("runs/studies/s/report.html"))
    assert propose(record(run_id="abc")).report == "runs:/abc/report.html"


def test_a_proposal_may_be_found_where_the_study_does_not_tell_of_it() -> None:
    without = record(outcome={"verdict": {}}, run_id="abc")
    proposal = propose(without, lambda: "models:/podium-digits/7")
    assert (proposal.name, proposal.version) == ("podium-digits", "7")
    assert propose(record(), lambda: "models:/other/1").version == "12"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"state": State.RUNNING, "outcome": None}, "has not ended"),
        ({"state": State.FAILED, "reason": "no luck", "outcome": None}, r"failed \(no luck\)"),
        (
            {
                "state": State.FAILED,
                "outcome": {"verdict": {}, "refused": {"resume_with": "--max-params 9"}},
            },
            r"No confirmed candidate .* `podium resume s --max-params 9` goes on to a verdict",
        ),
        ({"state": State.FAILED, "outcome": None}, "`podium resume s` goes on with it"),
        ({"outcome": None}, "has no verdict"),
        ({"outcome": {"recommended": "x"}}, "has no verdict"),
        ({"outcome": {"verdict": {}}}, "registered no model"),
        ({"outcome": {"verdict": {}, "model": "m"}}, "registered no model"),
        ({"outcome": {"verdict": {}}}, "never reached while it ran"),
        ({"outcome": {"verdict": {}}, "run_id": "abc"}, "is not whole"),
    ],
)
def test_a_study_without_a_model_says_what_to_do(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        propose(record(**values))
    assert error.value.exit_code == 2
    assert "podium" in str(error.value)


# A study that was resumed, and recommends another trial now


@pytest.fixture
def resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """MLflow has the model of trial 1; the verdict is of trial 2, and MLflow was away since."""
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    new_store(tmp_path)
    ledger = unsynced.ended(tmp_path)
    settings = unsynced.tracking(tmp_path)
    tracker = make_tracker(ledger, find_study(ledger, unsynced.STUDY), settings)
    tracker.deliver()
    assert register_model(ledger, tracker, settings).version == "1"
    unsynced.add_trial(ledger, unsynced.STUDY, 2, State.COMPLETED)
    outcome = find_study(ledger, unsynced.STUDY).outcome or {}
    ledger.set_outcome(unsynced.STUDY, {k: v for k, v in outcome.items() if k != "model"} | NEWER)
    yield ledger
    ledger.close()
    mlflow.set_tracking_uri(before)


NEWER = {"trial": 2}


def found(ledger: Ledger) -> str:
    record = find_study(ledger, unsynced.STUDY)
    return find_unnamed(mlflow.MlflowClient(), ledger, record, "podium-pets")


def shipped(folder: Path, trial: int) -> None:
    package = zipped(hand_made_model(folder / "package", str(trial).encode()))
    unpack(package, folder / "runs" / "studies" / unsynced.STUDY / "model", trial)


def test_the_model_of_the_winner_of_before_is_not_promoted_on_the_figures_of_the_new_one(
    resumed: Ledger, tmp_path: Path
) -> None:
    shipped(tmp_path, 2)
    assert found(resumed) == "models:/podium-pets/2"
    version = mlflow.MlflowClient().get_model_version("podium-pets", "2")
    assert version.tags["podium.trial"] == "2"
    local = Path(mlflow.artifacts.download_artifacts("models:/podium-pets/2"))
    assert (local / MODEL_FILE).read_bytes() == b"2"
    assert (find_study(resumed, unsynced.STUDY).outcome or {})["model"] == "models:/podium-pets/2"


def test_a_folder_with_the_model_of_another_trial_is_not_registered_for_the_winner(
    resumed: Ledger, tmp_path: Path
) -> None:
    shipped(tmp_path, 1)
    assert found(resumed) == ""
    with pytest.raises(ConfigError, match="is not whole"):
        propose(find_study(resumed, unsynced.STUDY), lambda: found(resumed))
    settings = unsynced.tracking(tmp_path)
    tracker = make_tracker(resumed, find_study(resumed, unsynced.STUDY), settings)
    tracker.deliver()
    with pytest.raises(TrackingError, match="is not whole"):
        register_model(resumed, tracker, settings)


def test_whose_a_folder_of_an_older_podium_is_is_not_guessed_where_the_study_broke_off(
    resumed: Ledger,
) -> None:
    """It wrote no number: what is there may be of the verdict before."""
    resumed.reopen_study(unsynced.STUDY, find_study(resumed, unsynced.STUDY).settings)
    resumed.end_study(unsynced.STUDY, State.INTERRUPTED, "interrupted", 2)
    assert found(resumed) == ""
    with pytest.raises(ConfigError, match=f"`podium resume {unsynced.STUDY}`"):
        propose(find_study(resumed, unsynced.STUDY), lambda: found(resumed))


def test_a_model_in_its_folder_and_in_the_registry_is_found_by_its_trial(
    resumed: Ledger, tmp_path: Path
) -> None:
    record = find_study(resumed, unsynced.STUDY)
    resumed.set_outcome(unsynced.STUDY, {**(record.outcome or {}), "trial": 1})
    shipped(tmp_path, 1)
    assert found(resumed) == "models:/podium-pets/1"
    assert len(mlflow.MlflowClient().search_model_versions("name = 'podium-pets'")) == 1


def test_a_model_that_is_registered_under_the_verdict_of_before_is_told_the_new_one(
    resumed: Ledger, tmp_path: Path
) -> None:
    record = find_study(resumed, unsynced.STUDY)
    resumed.set_outcome(unsynced.STUDY, {**(record.outcome or {}), "trial": 1})
    unsynced.judge_again(resumed)
    shipped(tmp_path, 1)
    assert found(resumed) == "models:/podium-pets/1"
    version = mlflow.MlflowClient().get_model_version("podium-pets", "1")
    assert version.description.startswith("Keep it.")


def test_a_verdict_that_is_committed_while_mlflow_is_asked_is_not_overwritten(
    resumed: Ledger, tmp_path: Path
) -> None:
    shipped(tmp_path, 2)
    before = find_study(resumed, unsynced.STUDY)
    unsynced.judge_again(resumed)
    uri = find_unnamed(mlflow.MlflowClient(), resumed, before, "podium-pets")
    outcome = find_study(resumed, unsynced.STUDY).outcome or {}
    assert (outcome["verdict"]["sentence"], outcome["model"]) == ("Keep it.", uri)


def test_a_study_that_goes_on_to_another_trial_while_mlflow_is_asked_is_not_promoted(
    resumed: Ledger, tmp_path: Path
) -> None:
    shipped(tmp_path, 2)
    before = find_study(resumed, unsynced.STUDY)
    newer = {**(before.outcome or {}), "trial": 1}
    resumed.set_outcome(unsynced.STUDY, newer)
    with pytest.raises(PromotionRefused, match="recommends another trial than 2 now"):
        find_unnamed(mlflow.MlflowClient(), resumed, before, "podium-pets")
    assert find_study(resumed, unsynced.STUDY).outcome == newer
