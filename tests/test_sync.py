"""`podium sync`: what MLflow lacks of a study is delivered later, once, whatever interrupts it."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
from typer.testing import CliRunner

from search import tracking
from search.cli import app
from search.delivery import Left, left, make_tracker, register_model, tell_end
from search.folder import find_study
from search.journal import PROMOTE, Standing, carry_out, next_entry
from search.ledger import Ledger
from search.lock import held
from search.records import PodiumError, State
from search.registry import DESCRIPTION_LENGTH
from tests.builders import make_assignment
from tests.faults.servers import free_port
from tests.stores import new_store, restore, snapshot
from tests.unsynced import ENDED, STUDY, begin, ended, interrupted, judge_again, open_ledger, stored
from tests.unsynced import tracking as tracking_of


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@dataclass
class Desk:
    folder: Path
    client: mlflow.MlflowClient

    def __call__(self, *words: str) -> Done:
        result = CliRunner().invoke(app, words)
        if isinstance(result.exception, PodiumError):
            return Done(result.exception.exit_code, result.stdout, str(result.exception))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(tracking, "GIVE_UP_SECONDS", 0.5)
    return Desk(tmp_path, new_store(tmp_path))


def test_sync_delivers_what_the_study_itself_would_have(desk: Desk) -> None:
    ledger = ended(desk.folder)
    record = find_study(ledger, STUDY)
    assert left(ledger, record) == Left(2, True)
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert done.out == (
        f"{STUDY}: delivered 2 trials and its end; its model is models:/podium-pets/1.\n"
    )
    found = stored(desk.folder)
    parent = next(run for run in found["runs"] if run["info"][0] == STUDY)
    assert parent["info"][1:] == ["FINISHED", record.started_ms, ENDED]
    assert parent["tags"]["note"].startswith("Ship it")
    assert "podium.test_opened.1" in parent["tags"]
    assert parent["metrics"]["best_val_accuracy"] == [[0, 1_700_000_001_500, 0.71]]
    assert parent["metrics"]["test_accuracy"]
    assert len(found["runs"]) == 3
    names = [name.split("artifacts/")[-1] for name, _ in found["files"]]
    for file in ("report.html", "report.md", "figures/varied.png", "figures/recommended/loss.png"):
        assert file in names
    [[name, version, description, tags, run_id, source]] = found["versions"]
    assert (name, str(version)) == ("podium-pets", "1")
    assert "[The report](#/experiments/" in description
    assert (tags["podium.study"], tags["podium.trial"]) == (STUDY, "1")
    assert (tags["podium.space"], tags["podium.test_fingerprint"]) == ("mlp", "0123")
    assert (run_id, source) == (f"{STUDY}-PARENT", "models:/MODEL")
    assert [model[0] for model in found["models"]] == ["READY"]
    outcome = find_study(ledger, STUDY).outcome
    assert outcome is not None
    assert outcome["model"] == "models:/podium-pets/1"


def test_a_second_sync_stores_nothing_and_says_so(desk: Desk) -> None:
    ended(desk.folder).close()
    assert desk("sync").code == 0
    found = stored(desk.folder)
    assert desk("sync").out.startswith("Nothing to deliver: MLflow was told all of every study")
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"
    assert stored(desk.folder) == found
    # Even if the ledger had not lived to hear of it.
    ledger = open_ledger(desk.folder)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("delete from told")
        connection.exec_driver_sql("update trials set delivered = 0, run_id = null")
        connection.exec_driver_sql("update epochs set delivered = 0")
        connection.exec_driver_sql("update studies set run_id = null")
    ledger.close()
    assert "delivered 2 trials and its end" in desk("sync").out
    assert stored(desk.folder) == found


def test_sync_tells_of_every_study_that_lacks_something_and_of_no_other(desk: Desk) -> None:
    ended(desk.folder, study="first").close()
    assert desk("sync").code == 0
    ended(desk.folder, study="second").close()
    ended(desk.folder, study="third").close()
    done = desk("sync")
    assert sorted(line.split(":")[0] for line in done.out.splitlines()) == ["second", "third"]
    assert {v.tags["podium.study"] for v in desk.client.search_model_versions()} == {
        "first",
        "second",
        "third",
    }


def test_status_tells_what_mlflow_lacks(desk: Desk) -> None:
    ended(desk.folder).close()
    assert f"MLflow lacks 2 trials and its end: `podium sync {STUDY}`" in desk("status", STUDY).out
    assert f"MLflow does not have all of {STUDY}: `podium sync`" in desk("status").out
    desk("sync")
    assert "MLflow" not in desk("status", STUDY).out
    assert "MLflow" not in desk("status").out


def test_an_interrupted_study_is_delivered_and_can_go_on(desk: Desk) -> None:
    ledger = begin(desk.folder)
    ledger.end_study(STUDY, State.INTERRUPTED, "interrupted", ENDED)
    done = desk("sync", STUDY)
    assert f"it has not ended, `podium resume {STUDY}` goes on with it" in done.out
    [parent] = [run for run in stored(desk.folder)["runs"] if run["info"][0] == STUDY]
    assert parent["info"][1] == "KILLED"
    assert parent["tags"]["note"] == "interrupted"
    ledger.reopen_study(STUDY, find_study(ledger, STUDY).settings)
    ledger.end_study(STUDY, State.FAILED, "no luck", ENDED + 1)
    assert left(ledger, find_study(ledger, STUDY)) == Left(0, True)
    assert desk("sync", STUDY).code == 0
    [parent] = [run for run in stored(desk.folder)["runs"] if run["info"][0] == STUDY]
    assert (parent["info"][1], parent["tags"]["note"]) == ("FAILED", "no luck")


def test_a_study_whose_process_died_is_delivered_as_far_as_it_came(desk: Desk) -> None:
    begin(desk.folder).close()
    done = desk("sync", STUDY)
    assert done.out.startswith(f"{STUDY}: delivered 1 trial; it has not ended")
    parent = next(r for r in stored(desk.folder)["runs"] if r["info"][0] == STUDY)
    assert parent["info"][1] == "RUNNING"


def test_a_reproduction_that_broke_off_is_not_said_to_go_on(desk: Desk) -> None:
    ledger = begin(desk.folder)
    settings = {**find_study(ledger, STUDY).settings, "notebook": "mnist_mlp"}
    ledger.reopen_study(STUDY, settings)
    ledger.end_study(STUDY, State.INTERRUPTED, "interrupted", ENDED)
    for _ in range(2):  # delivered, and nothing to deliver
        done = desk("sync", STUDY)
        assert done.code == 0, done.err
        assert "`podium reproduce mnist_mlp` begins again" in done.out
        assert "podium resume" not in done.out


def test_a_reproduction_whose_process_died_is_ended_because_nothing_goes_on_with_it(
    desk: Desk,
) -> None:
    ledger = begin(desk.folder)
    ledger.reopen_study(STUDY, {**find_study(ledger, STUDY).settings, "notebook": "mnist_mlp"})
    ledger.begin_trial(STUDY, make_assignment(1), ENDED)
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert "`podium reproduce mnist_mlp` begins again" in done.out
    assert find_study(ledger, STUDY).state is State.INTERRUPTED
    assert [t.state for t in ledger.trials(STUDY)] == [State.STOPPED, State.INTERRUPTED]
    infos = {run["info"][0]: run["info"][1] for run in stored(desk.folder)["runs"]}
    assert infos[STUDY] == "KILLED"
    assert "RUNNING" not in infos.values()


def test_a_study_that_is_being_run_is_left_to_its_process(desk: Desk) -> None:
    ended(desk.folder).close()
    folder = desk.folder / "runs" / "studies" / STUDY
    with held(STUDY, folder, open_ledger(desk.folder).database, 0):
        done = desk("sync", STUDY)
        assert done.code == 2
        for part in ("is being run by process", "since 1970-01-01T00:00:00"):
            assert part in done.err
        every = desk("sync")
    assert every.code == 0
    assert "is being run by process" in every.out
    assert desk.client.search_experiments(filter_string="name = 'podium'") == []


def test_a_server_that_does_not_answer_is_named_and_nothing_is_lost(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    ledger = ended(desk.folder, uri)
    for words in (["sync", STUDY], ["sync"]):
        done = desk(*words)
        assert done.code == 2
        assert f"{uri} does not answer" in " ".join(done.err.split())
    assert left(ledger, find_study(ledger, STUDY)) == Left(2, True)


def test_a_model_that_is_not_whole_holds_up_nothing_else(desk: Desk) -> None:
    ended(desk.folder).close()
    (desk.folder / "runs" / "studies" / STUDY / "model" / "MLmodel").unlink()
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert "its model cannot be registered" in done.out
    assert len(stored(desk.folder)["runs"]) == 3
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"


def test_from_another_folder_that_shares_the_ledger_nothing_is_delivered(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has neither model nor report: that they were told would be untrue for good."""
    ended(desk.folder).close()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("PODIUM_LEDGER", f"sqlite:///{desk.folder}/runs/ledger.db")
    monkeypatch.chdir(elsewhere)
    done = desk("sync", STUDY)
    assert done.code == 2
    assert f"Study {STUDY} was run in another folder" in done.err
    # Of all studies it is none that could be delivered here: no failure of this one.
    done = desk("sync")
    assert done.code == 0
    assert f"Study {STUDY} was run in another folder" in done.out
    assert list(elsewhere.iterdir()) == []
    monkeypatch.chdir(desk.folder)
    assert "its model is models:/podium-pets/1" in desk("sync", STUDY).out


def test_a_study_whose_folder_somebody_removed_is_delivered_without_what_was_in_it(
    desk: Desk,
) -> None:
    ended(desk.folder).close()
    shutil.rmtree(desk.folder / "runs" / "studies")
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert "delivered 2 trials and its end" in done.out
    for part in ("its model cannot be registered", "its report and figures are gone"):
        assert part in done.out
    assert len(stored(desk.folder)["runs"]) == 3
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"


def test_a_study_that_another_folder_ran_on_this_ledger_is_left_to_that_folder(
    desk: Desk, tmp_path: Path
) -> None:
    ledger = ended(desk.folder)
    elsewhere = tmp_path / "elsewhere" / "runs" / "studies" / STUDY
    shutil.move(desk.folder / "runs" / "studies" / STUDY, elsewhere)
    with held(STUDY, elsewhere, ledger.database, 0):
        pass
    done = desk("sync", STUDY)
    assert done.code == 2
    assert f"Study {STUDY} was run in another folder" in done.err
    assert left(ledger, find_study(ledger, STUDY)) == Left(2, True)


def test_what_stands_in_the_way_of_a_study_is_no_success(desk: Desk) -> None:
    ledger = ended(desk.folder)
    uri = "http://me:***@127.0.0.1:1"
    settings = json.dumps({"tracking": {"tracking_uri": uri}})
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update studies set settings = ?", (settings,))
    ledger.close()
    done = desk("sync")
    assert done.code == 2
    assert "set MLFLOW_TRACKING_URI to that address with its password" in done.err


def test_a_parent_run_that_has_ended_is_not_opened_again_by_a_trial_that_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(desk.folder).close()
    assert desk("sync").code == 0
    ledger = open_ledger(desk.folder)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update trials set delivered = 0 where number = 0")
    ledger.close()
    assert "delivered 1 trial" in desk("sync").out
    parent = next(run for run in stored(desk.folder)["runs"] if run["info"][0] == STUDY)
    assert parent["info"][1] == "FINISHED"


def test_where_one_study_was_delivered_and_another_not_something_was_written(desk: Desk) -> None:
    ended(desk.folder, study="well").close()
    ended(desk.folder, f"http://127.0.0.1:{free_port()}", study="ill").close()
    done = desk("sync")
    assert "well: delivered" in done.out
    assert "ill: " in done.err
    assert done.code == 3
    assert desk("sync").code == 2


def test_a_trial_that_mlflow_refuses_holds_up_neither_model_nor_report(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = ended(desk.folder)
    log_batch = mlflow.MlflowClient.log_batch

    def refuse(self: mlflow.MlflowClient, run_id: str, **values: Any) -> Any:
        if run_id == ledger.trials(STUDY)[0].run_id and values.get("metrics"):
            raise mlflow.MlflowException("no room for this one")
        return log_batch(self, run_id, **values)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", refuse)
    done = desk("sync", STUDY)
    assert done.code == 3  # the rest was delivered
    assert "no room for this one" in done.err
    assert left(ledger, find_study(ledger, STUDY)) == Left(1, False)
    assert [v.name for v in desk.client.search_model_versions()] == ["podium-pets"]
    monkeypatch.undo()
    monkeypatch.chdir(desk.folder)
    assert desk("sync", STUDY).out == f"{STUDY}: delivered 1 trial.\n"


def test_a_study_of_the_same_name_elsewhere_is_another_one(desk: Desk, tmp_path: Path) -> None:
    ended(desk.folder).close()
    assert desk("sync").code == 0
    other = tmp_path / "other"
    ledger = Ledger(other / "runs" / "ledger.db")
    settings = tracking_of(desk.folder)
    ledger.begin_study(STUDY, {}, {"data": "pets"}, 1_800_000_000_000)
    tracker = make_tracker(ledger, find_study(ledger, STUDY), settings)
    tracker.deliver()
    runs = stored(desk.folder)["runs"]
    assert sorted(run["info"][0] for run in runs).count(STUDY) == 2


def test_telling_the_end_twice_stores_nothing_twice(desk: Desk) -> None:
    ledger = ended(desk.folder)
    tracker = make_tracker(ledger, find_study(ledger, STUDY), tracking_of(desk.folder))
    tracker.deliver()
    settings = tracking_of(desk.folder)
    models = {register_model(ledger, tracker, settings).uri for _ in range(2)}
    tell_end(ledger, tracker, State.COMPLETED, None, ENDED)
    found = stored(desk.folder)
    # As if the process had died before the last step, and later.
    tell_end(ledger, tracker, State.COMPLETED, None, ENDED)
    assert stored(desk.folder) == found
    assert models == {"models:/podium-pets/1"}


MODEL = "podium-pets"
PROMOTED = f"Champion since 2026-01-02: promoted from study {STUDY} by alice. Reason: it is better"


def _promoted(desk: Desk) -> None:
    told = {"who": "alice", "when": "2026-01-02", "why": "it is better", "study": STUDY}
    entry = next_entry(Standing(MODEL, None, None, ()), PROMOTE, "1", **told)
    carry_out(desk.client, MODEL, entry)


def test_a_second_verdict_on_the_same_model_takes_the_place_of_the_first(desk: Desk) -> None:
    ledger = _told_once(desk)
    _promoted(desk)
    before = desk.client.get_model_version(MODEL, "1")
    assert before.description.startswith("Ship it.\n\n[The report]")
    judge_again(ledger)
    assert "its model is models:/podium-pets/1" in desk("sync", STUDY).out
    after = desk.client.get_model_version(MODEL, "1")
    assert after.description == before.description.replace("Ship it.", "Keep it.")
    assert after.description.count(PROMOTED) == 1
    assert (after.tags, after.aliases) == (before.tags, ["champion"])
    run = desk.client.get_run(after.run_id)
    told = {"test_openings": 2, "baseline_test_accuracy": 0.85}
    assert {key: run.data.metrics[key] for key in told} == told
    [model] = desk.client.search_logged_models([run.info.experiment_id])
    times = {m.key: m.timestamp for m in model.metrics if m.value == told.get(m.key)}
    assert times == dict.fromkeys(told, ENDED + 5_000)
    # What is as it was is not told again.
    assert len([m for m in model.metrics if m.key == "test_accuracy"]) == 1


def test_a_second_verdict_is_told_once_however_often_it_is_told(desk: Desk) -> None:
    ledger = _told_once(desk)
    _promoted(desk)
    judge_again(ledger)
    assert desk("sync", STUDY).code == 0
    found = stored(desk.folder)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("delete from told")
    assert "delivered its end" in desk("sync", STUDY).out
    assert stored(desk.folder) == found


def test_a_model_whose_verdict_came_to_the_run_only_gets_it_at_the_same_time(desk: Desk) -> None:
    """MLflow commits a metric of the run before that of its model."""
    ledger = _told_once(desk)
    judge_again(ledger)
    run_id = str(find_study(ledger, STUDY).run_id)
    desk.client.log_metric(run_id, "test_openings", 2.0, ENDED + 5_000, 0)
    assert desk("sync", STUDY).code == 0
    history = desk.client.get_metric_history(run_id, "test_openings")
    assert [m.value for m in history] == [1, 2]
    [model] = desk.client.search_logged_models([desk.client.get_run(run_id).info.experiment_id])
    assert [m.value for m in model.metrics if m.key == "test_openings"] == [1, 2]


def test_a_verdict_of_a_clock_that_was_set_back_is_still_the_one_that_is_shown(desk: Desk) -> None:
    ledger = _told_once(desk)
    judge_again(ledger)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update openings set opened_ms = 5")
    assert desk("sync", STUDY).code == 0
    run = desk.client.get_run(str(find_study(ledger, STUDY).run_id))
    assert (run.data.metrics["test_openings"], run.data.metrics["baseline_test_accuracy"]) == (
        2,
        0.85,
    )


def test_words_that_somebody_gave_a_version_in_place_of_the_verdict_stay(desk: Desk) -> None:
    ledger = _told_once(desk)
    desk.client.update_model_version(MODEL, "1", "My own words.")
    judge_again(ledger)
    assert desk("sync", STUDY).code == 0
    assert desk.client.get_model_version(MODEL, "1").description == "My own words."


def test_a_verdict_too_long_for_mlflow_is_cut_and_what_was_added_is_not(desk: Desk) -> None:
    ledger = _told_once(desk)
    _promoted(desk)
    judge_again(ledger)
    outcome = find_study(ledger, STUDY).outcome or {}
    longer = outcome["verdict"] | {"sentence": "Keep it. " + "Because. " * 1_000}
    ledger.set_outcome(STUDY, {**outcome, "verdict": longer})
    for _ in range(2):
        with ledger.engine.begin() as connection:
            connection.exec_driver_sql("delete from told")
        assert desk("sync", STUDY).code == 0
        description = desk.client.get_model_version(MODEL, "1").description
        assert len(description) == DESCRIPTION_LENGTH
        assert " (...)\n\n[The report](" in description
        assert description.count(PROMOTED) == 1


def test_a_second_verdict_is_told_though_somebody_deleted_the_logged_model(desk: Desk) -> None:
    ledger = _told_once(desk)
    run_id = str(find_study(ledger, STUDY).run_id)
    [model] = desk.client.search_logged_models([desk.client.get_run(run_id).info.experiment_id])
    desk.client.delete_logged_model(model.model_id)
    judge_again(ledger)
    assert desk("sync", STUDY).code == 0
    assert desk.client.get_run(run_id).data.metrics["test_openings"] == 2


def test_a_run_that_is_taken_up_again_says_so_and_forgets_why_it_had_stopped(desk: Desk) -> None:
    ledger = interrupted(desk.folder)
    before = desk.client.get_run(str(ledger.trials(STUDY)[1].run_id))
    assert before.info.status == "KILLED"
    assert before.data.tags["podium.reason"] == "interrupted"
    assert "best_val_accuracy" not in before.data.metrics  # it may be another one in the end
    tracker = make_tracker(ledger, find_study(ledger, STUDY), tracking_of(desk.folder))
    tracker.deliver()
    after = desk.client.get_run(str(ledger.trials(STUDY)[1].run_id))
    assert (after.info.status, after.data.tags["podium.state"]) == ("RUNNING", "running")
    assert "podium.reason" not in after.data.tags
    assert desk.client.get_run(tracker.run_id).info.status == "RUNNING"


def _goes_on_with(desk: Desk, ledger: Ledger, **settings: Any) -> dict[str, dict[str, str]]:
    """Params and tags of the parent run, once a study has gone on with other settings."""
    record = find_study(ledger, STUDY)
    ledger.reopen_study(STUDY, {**record.settings, **settings})
    tracker = make_tracker(ledger, find_study(ledger, STUDY), tracking_of(desk.folder))
    tracker.deliver()
    data = desk.client.get_run(tracker.run_id).data
    return {"params": data.params, "tags": data.tags}


CHANGING = {"podium.trials", "podium.finalists", "podium.confirm_seeds", "podium.time_budget"}


def test_settings_that_a_study_went_on_with_are_tags_where_they_differ_from_the_params(
    desk: Desk,
) -> None:
    ledger = _told_once(desk)
    before = _goes_on_with(desk, ledger)
    assert not CHANGING & before["tags"].keys()
    more = _goes_on_with(desk, ledger, trials=77, finalists=9, time_budget=60.0)
    assert more["params"] == before["params"]  # MLflow refuses others
    told = {"podium.trials": "77", "podium.finalists": "9", "podium.time_budget": "60.0"}
    assert more["tags"] == before["tags"] | told
    still_more = _goes_on_with(desk, ledger, trials=88)
    assert still_more["tags"] == more["tags"] | {"podium.trials": "88"}


def test_a_setting_that_is_again_as_the_study_began_with_is_no_tag(desk: Desk) -> None:
    ledger = _told_once(desk)
    before = _goes_on_with(desk, ledger)
    assert "podium.sampler" in before["tags"]
    assert "podium.time_budget" in _goes_on_with(desk, ledger, time_budget=60.0)["tags"]
    assert _goes_on_with(desk, ledger, time_budget=None) == before


def test_what_mlflow_made_after_its_client_gave_up_is_removed_at_the_end(desk: Desk) -> None:
    ledger = ended(desk.folder)
    settings = tracking_of(desk.folder)
    tracker = make_tracker(ledger, find_study(ledger, STUDY), settings)
    tracker.deliver()
    register_model(ledger, tracker, settings)
    client, parent = desk.client, tracker.run_id
    for run_id in (parent, str(ledger.trials(STUDY)[0].run_id)):
        run = client.get_run(run_id)
        own = {k: v for k, v in run.data.tags.items() if not k.startswith("mlflow.runName")}
        client.create_run(run.info.experiment_id, run.info.start_time, own)
    first = client.get_model_version("podium-pets", "1")
    client.create_model_version(first.name, first.source, parent, tags=first.tags)
    client.create_model_version(first.name, first.source, parent, tags=first.tags)
    client.set_registered_model_alias(first.name, "mine", "3")
    [model] = client.search_logged_models([tracker.experiment_id])
    client.create_logged_model(
        tracker.experiment_id, source_run_id=parent, tags={k: model.tags[k] for k in model.tags}
    )
    register_model(ledger, tracker, settings)
    tell_end(ledger, tracker, State.COMPLETED, None, ENDED)
    assert len(stored(desk.folder)["runs"]) == 3
    assert client.get_run(parent).info.lifecycle_stage == "active"
    left_over = sorted(str(v.version) for v in client.search_model_versions())
    assert left_over == ["1", "3"]  # somebody chose the third
    assert [m.model_id for m in client.search_logged_models([tracker.experiment_id])] == [
        model.model_id
    ]


# What MLflow has lost


def _told_once(desk: Desk) -> Ledger:
    """A study that MLflow was told all of."""
    ledger = ended(desk.folder)
    assert desk("sync", STUDY).code == 0
    return ledger


def _is_to_be_told(ledger: Ledger) -> None:
    """Something new of the first trial."""
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("update trials set delivered = 0 where number = 0")


def _gone_for_good(desk: Desk, run_id: str) -> None:
    """A run that was deleted, and that MLflow's garbage collection has removed."""
    desk.client.delete_run(run_id)
    desk.client._tracking_client.store._hard_delete_run(run_id)


def test_a_store_that_was_lost_is_filled_again_from_nothing(desk: Desk) -> None:
    _told_once(desk).close()
    expected = stored(desk.folder)
    restore(desk.client, snapshot(new_store(desk.folder / "empty")))
    assert desk.client.search_experiments(filter_string="name = 'podium'") == []
    shutil.rmtree(desk.folder / "runs" / "artifacts")
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{STUDY}: delivered 2 trials and its end; its model is")
    assert stored(desk.folder) == expected
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"


def test_a_store_of_an_older_day_is_told_what_it_has_lost_since(desk: Desk) -> None:
    ledger = begin(desk.folder)
    assert desk("sync", STUDY).code == 0
    old = snapshot(desk.client)
    ledger.close()
    shutil.rmtree(desk.folder / "runs" / "studies")
    Path("runs/ledger.db").unlink()
    ledger = ended(desk.folder)
    assert desk("sync", STUDY).code == 0
    expected = stored(desk.folder)
    restore(desk.client, old)
    done = desk("sync", STUDY)
    assert "and its end" in done.out, done.err
    found = stored(desk.folder)
    assert {part: found[part] for part in ("runs", "versions", "models")} == {
        part: expected[part] for part in ("runs", "versions", "models")
    }
    assert left(ledger, find_study(ledger, STUDY)) == Left(0, False)


def test_sync_of_all_does_not_say_that_mlflow_has_what_nobody_asked_it_for(desk: Desk) -> None:
    _told_once(desk).close()
    said = desk("sync").out
    assert said.startswith("Nothing to deliver")
    assert "`podium sync STUDY`" in said


def test_a_trial_whose_run_is_gone_for_good_gets_a_new_one_and_no_other_is_told_again(
    desk: Desk,
) -> None:
    ledger = _told_once(desk)
    expected = stored(desk.folder)
    lost = str(ledger.trials(STUDY)[0].run_id)
    _gone_for_good(desk, lost)
    assert desk("sync", STUDY).out == f"{STUDY}: delivered 1 trial.\n"
    found = stored(desk.folder)
    assert found["runs"] == expected["runs"]
    assert found["versions"] == expected["versions"]
    assert ledger.trials(STUDY)[0].run_id != lost


def test_a_parent_run_that_is_gone_for_good_is_made_again_with_all_of_its_trials(
    desk: Desk,
) -> None:
    ledger = _told_once(desk)
    expected = stored(desk.folder)["runs"]
    first = find_study(ledger, STUDY)
    trials = {str(trial.run_id) for trial in ledger.trials(STUDY)}
    for run_id in (str(first.run_id), *trials):
        _gone_for_good(desk, run_id)
    assert "delivered 2 trials and its end" in desk("sync", STUDY).out
    assert stored(desk.folder)["runs"] == expected
    assert find_study(ledger, STUDY).run_id != first.run_id


@pytest.mark.parametrize("which", ["parent", "trial"])
def test_a_run_in_mlflows_trash_is_named_with_what_brings_it_back(desk: Desk, which: str) -> None:
    """Somebody deleted it, and can take that back: a second one beside it would be a surprise."""
    ledger = _told_once(desk)
    expected = stored(desk.folder)["runs"]
    run_id = str(find_study(ledger, STUDY).run_id)
    if which == "trial":
        run_id = str(ledger.trials(STUDY)[0].run_id)
        _is_to_be_told(ledger)
    desk.client.delete_run(run_id)
    done = desk("sync", STUDY)
    # Of a trial's run the rest of the study is delivered.
    assert done.code == (2 if which == "parent" else 3)
    for part in ("was deleted in MLflow", f"mlflow runs restore --run-id {run_id}"):
        assert part in done.err
    desk.client.restore_run(run_id)
    assert desk("sync", STUDY).code == 0
    assert stored(desk.folder)["runs"] == expected


def test_a_trial_that_was_deleted_once_all_of_it_was_told_stays_deleted(desk: Desk) -> None:
    ledger = _told_once(desk)
    desk.client.delete_run(str(ledger.trials(STUDY)[0].run_id))
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"
    assert len(stored(desk.folder)["runs"]) == 2


def test_a_deleted_experiment_is_to_be_restored_because_another_one_would_not_be_used(
    desk: Desk,
) -> None:
    _told_once(desk).close()
    expected = stored(desk.folder)["runs"]
    experiment = desk.client.get_experiment_by_name("podium")
    desk.client.delete_experiment(experiment.experiment_id)
    ended(desk.folder, study="second").close()
    for study in (STUDY, "second"):
        done = desk("sync", study)
        assert done.code == 2
        advice = f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        assert advice in done.err
        assert "name another one" not in done.err
    desk.client.restore_experiment(experiment.experiment_id)
    assert desk("sync", STUDY).code == 0
    assert stored(desk.folder)["runs"] == expected


def test_an_experiment_that_got_another_name_in_mlflow_keeps_its_studies(desk: Desk) -> None:
    ledger = _told_once(desk)
    experiment = desk.client.get_experiment_by_name("podium")
    desk.client.rename_experiment(experiment.experiment_id, "of last year")
    _is_to_be_told(ledger)
    assert desk("sync", STUDY).out == f"{STUDY}: delivered 1 trial.\n"
    assert len(desk.client.search_runs([experiment.experiment_id])) == 3
    assert desk.client.get_experiment_by_name("podium") is None


def test_a_trial_in_another_experiment_than_its_study_is_not_told_a_second_time(
    desk: Desk,
) -> None:
    """As an earlier Podium left them that went on after the experiment got another name."""
    ledger = _told_once(desk)
    other = desk.client.create_experiment("other", (desk.folder / "runs" / "a").as_uri())
    run = desk.client.create_run(other)
    desk.client.set_terminated(run.info.run_id)
    desk.client.delete_run(str(ledger.trials(STUDY)[0].run_id))
    ledger.set_trial_run(STUDY, 0, run.info.run_id)
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"


# MLflow elsewhere


def test_a_study_whose_server_moved_is_delivered_to_the_address_that_mlflow_yaml_has_now(
    desk: Desk,
) -> None:
    ledger = ended(desk.folder, f"http://me:secret@127.0.0.1:{free_port()}")
    here = f"sqlite:///{desk.folder}/runs/mlflow.db"
    Path("mlflow.yaml").write_text(
        f"tracking_uri: {here}\nartifact_root: {desk.folder}/runs/artifacts\nexperiment: other\n"
    )
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert f"Study {STUDY} was tracked at http://me:***@127.0.0.1" in said
    assert f"is tracked at {here} from now on" in said
    # In the experiment that the study was begun for.
    assert len(stored(desk.folder)["runs"]) == 3
    settings = find_study(ledger, STUDY).settings
    assert settings["tracking"]["tracking_uri"] == here
    assert settings["trials"] == 24
    again = desk("sync", STUDY)
    assert (again.out, again.err) == (f"{STUDY}: nothing to deliver.\n", "")


def test_a_study_stays_where_it_is_as_long_as_that_answers(desk: Desk) -> None:
    """One that was begun at an address of the environment, delivered from a shell without it."""
    ledger = ended(desk.folder)
    other = new_store(desk.folder / "other").tracking_uri
    Path("mlflow.yaml").write_text(f"tracking_uri: {other}\n")
    before = find_study(ledger, STUDY).settings["tracking"]
    done = desk("sync", STUDY)
    assert done.code == 0, done.err
    assert done.err == ""
    assert len(stored(desk.folder)["runs"]) == 3
    assert find_study(ledger, STUDY).settings["tracking"] == before


def test_a_study_that_was_told_goes_as_a_whole_to_another_store(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _told_once(desk).close()
    expected = stored(desk.folder)["runs"]
    other = desk.folder / "other"
    uri = str(new_store(other).tracking_uri)
    monkeypatch.setattr("search.settings.ENVIRONMENT_URI", uri)
    Path("mlflow.yaml").write_text(f"artifact_root: {other}/artifacts\n")
    done = desk("sync", STUDY)
    assert "delivered 2 trials and its end; its model is" in done.out, done.err
    assert stored(other)["runs"] == expected
    assert stored(desk.folder)["runs"] == expected
    monkeypatch.setattr("search.settings.ENVIRONMENT_URI", None)
    assert desk("sync", STUDY).out == f"{STUDY}: nothing to deliver.\n"


def test_an_address_that_nobody_gave_moves_no_study(desk: Desk) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    ended(desk.folder, uri).close()
    Path("mlflow.yaml").write_text("experiment: other\n")
    done = desk("sync", STUDY)
    assert done.code == 2
    assert f"{uri} does not answer" in " ".join(done.err.split())


LOCAL = {"artifact_root": "runs/artifacts"}


def test_a_folder_that_was_renamed_writes_nothing_to_where_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = desk.folder / "old place", desk.folder / "new"
    new_store(old)
    monkeypatch.chdir(old)
    for study in ("first", "second"):
        ledger = ended(old, study=study)
        ledger.set_tracking(study, LOCAL)
        ledger.close()
    assert desk("sync", "first").code == 0
    monkeypatch.chdir(desk.folder)
    old.rename(new)
    monkeypatch.chdir(new)
    monkeypatch.setattr("search.settings.ENVIRONMENT_URI", f"sqlite:///{new}/runs/mlflow.db")
    for study in ("first", "second"):
        done = desk("sync", study)
        assert done.code == 2
        assert f"ln -s {new} '{old}'" in done.err
    assert not old.exists()
    old.symlink_to(new)
    assert "delivered 2 trials and its end" in desk("sync", "second").out
    assert desk("sync", "first").out == "first: nothing to deliver.\n"


def test_artifacts_that_somebody_wants_elsewhere_are_left_there(desk: Desk) -> None:
    elsewhere = desk.folder / "elsewhere"
    desk.client.create_experiment("podium", artifact_location=elsewhere.as_uri())
    ledger = ended(desk.folder)
    ledger.set_tracking(STUDY, LOCAL)
    assert desk("sync", STUDY).code == 0
    assert list(elsewhere.iterdir()) != []
