"""One small study, run for real, and everything that must be true of it afterwards."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import Run

from search.delivery import left, make_tracker
from search.folder import find_study
from search.ledger import Ledger
from search.records import Criteria, Phase, State, StudyFailed
from search.selection import confirmed_candidates, recommend
from search.study import LEAVING_SECONDS, ended_anyhow
from search.tracking import Tracker
from spaces.config import TrialConfig
from tests import unsynced
from tests.running import Finished, podium, tracked
from tests.stores import new_store

TRIALS, EPOCHS, FINALISTS, SEEDS = 8, 6, 2, 2


@dataclass(frozen=True)
class Study:
    folder: Path
    finished: Finished
    ledger: Ledger
    client: mlflow.MlflowClient
    parent: Run
    children: list[Run]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    finished = podium(
        *f"run --study first --trials {TRIALS} --max-epochs {EPOCHS} --finalists {FINALISTS} "
        f"--confirm-seeds {SEEDS} --concurrent 2 --seed 3".split(),
        folder=folder,
    )
    assert finished.code == 0, finished.err
    runs = tracked(folder)
    ledger = Ledger(folder / "runs" / "ledger.db")
    return Study(folder, finished, ledger, runs.client, runs.parent, runs.children)


def test_the_run_says_what_was_decided_and_where_it_is(study: Study) -> None:
    out = study.finished.out
    for part in ("fingerprint", "Verdict:", "report.html", "models:/podium-digits/1", "podium ui"):
        assert part in out


def test_the_driver_never_imports_tensorflow(study: Study) -> None:
    assert "THE DRIVER IMPORTED TENSORFLOW" not in study.finished.out


def test_nothing_stays_that_only_ray_has_use_for(study: Study) -> None:
    assert not (study.folder / "runs" / "studies" / "first" / "tune").exists()


def test_two_processes_do_all_the_training_confirmation_included(study: Study) -> None:
    trials = study.ledger.trials("first")
    assert {t.phase for t in trials} == {Phase.SEARCH, Phase.CONFIRM}
    assert len({t.pid for t in trials}) == 2


def test_every_trial_is_a_finished_run_under_the_study(study: Study) -> None:
    trials = study.ledger.trials("first")
    assert len(study.children) == len(trials) == TRIALS + SEEDS * (FINALISTS + 1)
    assert {r.data.tags["mlflow.parentRunId"] for r in study.children} == {study.parent.info.run_id}
    assert {r.info.status for r in [*study.children, study.parent]} == {"FINISHED"}
    numbers = Counter(int(r.data.tags["podium.trial"]) for r in study.children)
    assert numbers == Counter(t.number for t in trials)


def test_mlflow_has_every_epoch_of_the_ledger_exactly_once(study: Study) -> None:
    compared = 0
    for trial in study.ledger.trials("first"):
        reports = study.ledger.epochs("first", trial.number)
        assert [r.epoch for r in reports] == list(range(1, trial.epochs_trained + 1))
        for key in reports[0].metrics:
            history = study.client.get_metric_history(trial.run_id, key)
            assert [(m.step, m.timestamp, m.value) for m in history] == [
                (r.epoch, r.timestamp_ms, r.metrics[key]) for r in reports
            ]
            compared += len(history)
    assert compared > 6 * EPOCHS


def test_a_run_carries_configuration_compiled_optimizer_totals_and_tags(study: Study) -> None:
    trials = {t.number: t for t in study.ledger.trials("first")}
    for run in study.children:
        trial = trials[int(run.data.tags["podium.trial"])]
        params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
        assert params["hidden"] == "-".join(map(str, trial.config.hidden))
        assert params["batch_size"] == str(trial.config.batch_size)
        assert params["compiled.class_name"].lower() == trial.config.optimizer
        assert metrics["parameters"] == trial.totals.parameters
        for key in ("best_epoch", "f1_macro", "roc_auc_ovo", "gap_train_validation"):
            assert np.isfinite(metrics[key])
        assert metrics["wall_seconds"] > 0
        for key in ("space", "data", "fingerprint", "sampler", "scheduler", "git_commit"):
            assert tags[f"podium.{key}"]
        assert tags["podium.version.tensorflow"]
        stopped = f"stopped at rung {trial.rung}"
        assert tags["podium.state"] == (stopped if trial.rung else "completed")


def test_the_learning_rate_that_was_compiled_is_read_back(study: Study) -> None:
    for run in study.children:
        asked = float(run.data.params["learning_rate"])
        compiled = run.data.params.get("compiled.learning_rate") or run.data.params.get(
            "compiled.learning_rate.config.initial_learning_rate"
        )
        assert float(compiled) == pytest.approx(asked, rel=1e-6)


def test_asha_stopped_some_and_only_at_rungs(study: Study) -> None:
    search = [t for t in study.ledger.trials("first") if t.phase is Phase.SEARCH]
    stopped = [t for t in search if t.state is State.STOPPED]
    assert stopped
    assert {t.rung for t in stopped} <= {2, 6}
    assert all(t.epochs_trained == t.rung for t in stopped)
    assert all(t.epochs_trained == EPOCHS for t in search if t.state is State.COMPLETED)


def test_candidates_are_confirmed_on_the_same_fresh_seeds_and_splits(study: Study) -> None:
    trials = study.ledger.trials("first")
    searched = {(t.seed, t.split_seed) for t in trials if t.phase is Phase.SEARCH}
    pairs: dict[str, list[tuple[int, int]]] = {}
    for trial in trials:
        if trial.phase is Phase.CONFIRM:
            pairs.setdefault(trial.config.config_id, []).append((trial.seed, trial.split_seed))
            assert trial.epochs_trained == EPOCHS
    assert len(pairs) == FINALISTS + 1
    assert len({tuple(p) for p in pairs.values()}) == 1
    assert not searched & set(next(iter(pairs.values())))


def test_the_finalists_are_the_best_completed_trials_of_the_search(study: Study) -> None:
    trials = study.ledger.trials("first")
    completed = [t for t in trials if t.phase is Phase.SEARCH and t.state is State.COMPLETED]
    completed.sort(key=lambda t: t.val_accuracy, reverse=True)
    baseline = study.ledger.study("first").facts["baseline"]
    confirmed = {t.config.config_id for t in trials if t.phase is Phase.CONFIRM}
    assert baseline in confirmed
    best = [t.config.config_id for t in completed if t.config.config_id != baseline]
    assert best
    assert set(best[:FINALISTS]) <= confirmed


def test_the_test_split_was_opened_once_and_the_opening_is_recorded(study: Study) -> None:
    record = study.ledger.study("first")
    openings = study.ledger.openings(record.facts["test_fingerprint"])
    assert [(o.study, o.reason) for o in openings] == [("first", "final verdict")]
    assert record.outcome["verdict"]["openings"] == 1
    tag = study.parent.data.tags["podium.test_opened.1"]
    assert tag.endswith(f"{record.facts['test_fingerprint']} final verdict")
    assert "podium.test_opened.2" not in study.parent.data.tags


def test_the_test_log_lists_every_opening(study: Study) -> None:
    record = study.ledger.study("first")
    finished = podium("test-log", "--format", "json", folder=study.folder)
    assert finished.code == 0, finished.err
    [row] = json.loads(finished.out)
    assert row["test_fingerprint"] == record.facts["test_fingerprint"]
    assert (row["study"], row["reason"], row["opening"]) == ("first", "final verdict", 1)
    assert row["data"] == "digits"
    assert "opened once" in podium("test-log", "first", folder=study.folder).out
    assert podium("test-log", "fist", folder=study.folder).code == 2


def test_the_recommendation_is_the_policys_choice_from_the_ledger(study: Study) -> None:
    record = study.ledger.study("first")
    candidates = confirmed_candidates(
        study.ledger.trials("first"), record.facts["baseline"], "", study.ledger.costs("first")
    )
    chosen = recommend(candidates, Criteria(), 0.2).winner
    assert record.outcome["recommended"] == chosen.config.config_id
    assert chosen.costs is not None
    assert record.outcome["costs"]["single"]["median_ms"] == chosen.costs.single.median_ms
    assert study.ledger.trials("first")[record.outcome["trial"]].config == chosen.config


def test_costs_of_every_candidate_are_measured(study: Study) -> None:
    trials = study.ledger.trials("first")
    confirmed = {t.config.config_id for t in trials if t.phase is Phase.CONFIRM}
    costs = study.ledger.costs("first")
    assert set(costs) == confirmed
    for item in costs.values():
        assert item.file_bytes > 1_000
        assert 0 < item.single.median_ms <= item.single.p99_ms
        assert 0 < item.batch.median_ms <= item.batch.p99_ms


def test_the_registered_model_takes_raw_images_and_scores_as_the_verdict_says(
    study: Study,
) -> None:
    from search.data import load

    version = study.client.get_model_version("podium-digits", "1")
    assert version.run_id == study.parent.info.run_id
    assert version.tags["podium.study"] == "first"
    outcome = study.ledger.study("first").outcome
    config = TrialConfig.model_validate_json(version.tags["podium.config"])
    assert config.config_id == outcome["recommended"] == version.tags["podium.config_id"]
    assert version.description.startswith(outcome["verdict"]["sentence"])
    data = load("digits", None, seed=3)
    images, labels = data.test.open("test", "test", 0, lambda _: None)
    mlflow.set_tracking_uri(f"sqlite:///{study.folder}/runs/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/podium-digits/1")
    assert model.metadata.signature.inputs.inputs[0].shape == (-1, 8, 8, 1)
    assert model.metadata.saved_input_example_info is not None
    probabilities = np.asarray(model.predict(images.astype(np.float32)))
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    assert accuracy == pytest.approx(study.parent.data.metrics["test_accuracy"], abs=1e-9)
    requirements = mlflow.artifacts.load_text("models:/podium-digits/1/requirements.txt")
    assert all("==" in line for line in requirements.splitlines())


def test_the_reports_are_artifacts_of_the_parent_run(study: Study) -> None:
    names = {a.path for a in study.client.list_artifacts(study.parent.info.run_id)}
    assert {"report.md", "report.html"} <= names
    verdict = study.ledger.study("first").outcome["verdict"]["sentence"]
    note = study.parent.data.tags["mlflow.note.content"]
    assert note.startswith(verdict)
    assert f"/runs/{study.parent.info.run_id}/artifacts/report.html" in note
    assert verdict in (study.folder / "runs/studies/first/report.md").read_text()


def test_status_shows_the_verdict_and_lists_the_study(study: Study) -> None:
    assert "first" in podium("status", folder=study.folder).out
    one = podium("status", "first", folder=study.folder)
    assert one.code == 0
    assert "Verdict:" in one.out


def _compare(study: Study, *words: str) -> str:
    finished = podium("compare", "first", *words, folder=study.folder)
    assert finished.code == 0, finished.err
    return finished.out


def test_compare_prints_the_same_trials_in_every_format(study: Study) -> None:
    rows: list[dict[str, Any]] = json.loads(_compare(study, "--format", "json"))
    assert len(rows) == len(study.children)
    accuracies = [row["val_accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    as_csv = list(csv.DictReader(io.StringIO(_compare(study, "--format", "csv"))))
    assert [row["config_id"] for row in as_csv] == [row["config_id"] for row in rows]
    markdown = _compare(study, "--format", "markdown").splitlines()
    assert len(markdown) == len(rows) + 2
    assert rows[0]["summary"][:30] in _compare(study)


def test_compare_sorts_by_any_column_both_ways(study: Study) -> None:
    rows = json.loads(_compare(study, "--sort", "parameters", "--format", "json"))
    sizes = [row["parameters"] for row in rows]
    assert sizes == sorted(sizes)
    wrong = podium("compare", "first", "--sort", "paramters", folder=study.folder)
    assert wrong.code == 2
    assert "'parameters'" in wrong.err


def test_recommend_applies_another_policy_without_opening_the_test_split(study: Study) -> None:
    finished = podium("recommend", "first", "--policy", "best-mean", folder=study.folder)
    assert finished.code == 0
    assert "Recommended:" in finished.out
    record = study.ledger.study("first")
    assert len(study.ledger.openings(record.facts["test_fingerprint"])) == 1


def test_recommend_takes_constraints_and_says_what_they_rule_out(study: Study) -> None:
    candidates = confirmed_candidates(
        study.ledger.trials("first"), study.ledger.study("first").facts["baseline"]
    )
    smallest = min(c.parameters for c in candidates)
    found = podium("recommend", "first", "--max-params", str(smallest), folder=study.folder)
    assert found.code == 0, found.err
    assert f"{smallest:,} parameters" in found.out
    assert f"more than --max-params {smallest:g}" in " ".join(found.out.split())
    none = podium("recommend", "first", "--max-params", "1", folder=study.folder)
    assert none.code == 2
    assert "No confirmed candidate meets the constraints" in none.err


def test_a_second_study_of_the_same_name_is_refused(study: Study) -> None:
    finished = podium("run", "--study", "first", folder=study.folder)
    assert finished.code == 2
    assert "first" in finished.err
    assert len(study.ledger.trials("first")) == len(study.children)


# A study that breaks off after its last trial


@pytest.fixture
def drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Ledger, Tracker]]:
    """A study whose figures are being drawn, and its tracker, which has reached MLflow."""
    monkeypatch.chdir(tmp_path)
    new_store(tmp_path)
    ledger = unsynced.begin(tmp_path)
    settings = unsynced.tracking(tmp_path)
    tracker = make_tracker(ledger, find_study(ledger, unsynced.STUDY), settings)
    tracker.start()
    tracker.close(60)
    yield ledger, tracker
    ledger.close()


@pytest.mark.parametrize(
    ("error", "state", "status", "note"),
    [
        (KeyboardInterrupt(), State.INTERRUPTED, "KILLED", "interrupted"),
        (StudyFailed("no space"), State.FAILED, "FAILED", "no space"),
    ],
)
def test_mlflow_is_told_of_a_study_that_breaks_off_while_figures_are_drawn(
    drawing: tuple[Ledger, Tracker],
    error: BaseException,
    state: State,
    status: str,
    note: str,
) -> None:
    ledger, tracker = drawing
    with (
        pytest.raises(type(error)) as caught,
        ended_anyhow(ledger, unsynced.STUDY, tracker),
    ):
        raise error
    assert caught.value is error
    record = find_study(ledger, unsynced.STUDY)
    assert record.state is state
    assert not left(ledger, record)
    run = mlflow.MlflowClient().get_run(tracker.run_id)
    assert (run.info.status, run.data.tags["mlflow.note.content"]) == (status, note)


def test_mlflow_that_refuses_does_not_hide_why_a_study_broke_off(
    drawing: tuple[Ledger, Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, tracker = drawing

    def refuse(*_: object) -> None:
        raise OSError("refused")

    monkeypatch.setattr(tracker, "finish", refuse)
    with pytest.raises(StudyFailed), ended_anyhow(ledger, unsynced.STUDY, tracker):
        raise StudyFailed("no space")
    assert left(ledger, find_study(ledger, unsynced.STUDY)).ending


def test_a_second_ctrl_c_while_mlflow_is_told_ends_that_and_the_ledger_knows(
    drawing: tuple[Ledger, Tracker], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, tracker = drawing
    asked: list[float] = []

    def interrupted(seconds: float) -> None:
        asked.append(seconds)
        raise KeyboardInterrupt("the second")

    monkeypatch.setattr(tracker, "close", interrupted)
    with (
        pytest.raises(KeyboardInterrupt, match="the second"),
        ended_anyhow(ledger, unsynced.STUDY, tracker),
    ):
        raise KeyboardInterrupt
    assert asked == [LEAVING_SECONDS]
    assert find_study(ledger, unsynced.STUDY).state is State.INTERRUPTED


def test_mlflow_that_was_away_is_not_waited_for_once_a_study_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = unsynced.begin(tmp_path)
    away = unsynced.tracking(tmp_path, "http://127.0.0.1:1")
    tracker = make_tracker(ledger, find_study(ledger, unsynced.STUDY), away)
    monkeypatch.setattr(tracker, "close", lambda _: pytest.fail("it was waited for"))
    with pytest.raises(KeyboardInterrupt), ended_anyhow(ledger, unsynced.STUDY, tracker):
        raise KeyboardInterrupt
    assert left(ledger, find_study(ledger, unsynced.STUDY)).ending
